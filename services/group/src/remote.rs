//! Calls to other services, all through the cluster's paths.

use std::collections::HashMap;
use std::time::Duration;

use linnet_cluster::{RouteKey, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient, profile_item};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_proto::messages::{self, messages_client::MessagesClient};
use linnet_runtime::status;
use linnet_types::{AppSettings, ConvId, Refusal, SdkAppId, UserId, code};
use tonic::Status;

use crate::error::{Result, busy};
use crate::shared::Shared;
use crate::tips::Person;

const CALL: Duration = Duration::from_secs(2);
/// Longer than the longest `webhook.timeout_ms`, so that the app's failure policy decides and not this.
const ASK: Duration = Duration::from_millis(10_500);
const NICK: &str = "Tag_Profile_IM_Nick";
const IMAGE: &str = "Tag_Profile_IM_Image";

/// What is known of some accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct People(HashMap<UserId, Person>);

impl People {
    /// Whether the account exists.
    pub(crate) fn exists(&self, user: &UserId) -> bool {
        self.0.contains_key(user)
    }

    /// As a tip shows him; only the id when nothing is known.
    pub(crate) fn person(&self, user: &UserId) -> Person {
        self.0.get(user).cloned().unwrap_or_else(|| Person::id(user))
    }
}

/// Whether the app wants to hear of `command`.
pub(crate) fn wants(settings: &AppSettings, command: &str) -> bool {
    !settings.webhook_url.is_empty()
        && settings
            .webhook_events
            .split(',')
            .any(|event| matches!(event.trim(), "all" | "*") || event.trim() == command)
}

impl Shared {
    /// Which of `users` exist, with the names tips show.
    ///
    /// # Errors
    /// When the account service cannot be asked.
    pub(crate) async fn people(&self, app: SdkAppId, users: &[UserId]) -> Result<People> {
        let mut known = HashMap::with_capacity(users.len());
        for chunk in users.chunks(500) {
            let rpc = self.cluster.any(Service::Account)?;
            let request = account::LookupRequest {
                app: app.0,
                users: chunk.iter().map(ToString::to_string).collect(),
                tags: vec![NICK.to_owned(), IMAGE.to_owned()],
                want_profile: true,
            };
            let reply = AccountsClient::new(rpc).lookup(status::with_deadline(request, CALL)).await;
            let reply = reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?.into_inner();
            known.extend(reply.accounts.into_iter().filter(|account| account.exists).map(person));
        }
        Ok(People(known))
    }

    /// Like [`Shared::people`] for display only: nothing known is no failure.
    pub(crate) async fn names(&self, app: SdkAppId, users: &[UserId]) -> People {
        self.people(app, users).await.unwrap_or_default()
    }

    pub(crate) async fn fence(&self, request: messages::FenceRequest) -> Result<messages::FenceReply, Status> {
        let conv = ConvId(request.conv);
        let mut client = self.messages(conv)?;
        Ok(client.fence(status::with_deadline(request, CALL)).await?.into_inner())
    }

    pub(crate) async fn append(&self, request: messages::AppendRequest) -> Result<messages::AppendReply, Status> {
        let mut client = self.messages(ConvId(request.conv))?;
        Ok(client.append(status::with_deadline(request, CALL)).await?.into_inner())
    }

    pub(crate) async fn history(&self, request: messages::HistoryRequest) -> Result<messages::HistoryReply, Status> {
        let mut client = self.messages(ConvId(request.conv))?;
        Ok(client.history(status::with_deadline(request, CALL)).await?.into_inner())
    }

    pub(crate) async fn revoke(&self, request: messages::RevokeRequest) -> Result<messages::RevokeReply> {
        let rpc = self.cluster.for_owner(Service::MessageStore, RouteKey::conv(ConvId(request.conv)))?;
        let reply = MessagesClient::new(rpc).revoke(status::with_deadline(request, CALL)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))
    }

    fn messages(&self, conv: ConvId) -> Result<MessagesClient<linnet_cluster::Rpc>, Status> {
        let rpc = self.cluster.for_owner(Service::MessageStore, RouteKey::conv(conv));
        rpc.map(MessagesClient::new).map_err(|refusal| status::to_status(&refusal))
    }

    /// Asks a before-webhook and turns its decision into a refusal; `None` when nothing was asked.
    ///
    /// # Errors
    /// The app's no: [`code::GROUP_VETO`] or its own code; under the policy `block`, [`code::GROUP_INTERNAL`].
    pub(crate) async fn ask(
        &self,
        settings: &AppSettings,
        event: callback::Event,
    ) -> Result<Option<callback::BeforeReply>> {
        if !wants(settings, &event.command) {
            return Ok(None);
        }
        let failed = || match settings.webhook_before_failure.as_str() {
            "block" => Err(Refusal::retry(code::GROUP_INTERNAL, "the app's server did not answer", 1_000)),
            _ => Ok(None),
        };
        let Ok(rpc) = self.cluster.any(Service::Callback) else { return failed() };
        let request = status::with_deadline(callback::BeforeRequest { event: Some(event) }, ASK);
        let Ok(reply) = CallbacksClient::new(rpc).before(request).await else { return failed() };
        let reply = reply.into_inner();
        match reply.decision {
            _ if reply.failed_block => {
                Err(Refusal::retry(code::GROUP_INTERNAL, "the app's server did not answer", 1_000))
            }
            0 => Ok(reply.asked.then_some(reply)),
            own if code::is_app_defined(own) => Err(Refusal::new(own, reply.info)),
            _ => Err(Refusal::new(code::GROUP_VETO, reply.info)),
        }
    }

    /// Writes events to the stored queue.
    ///
    /// # Errors
    /// When they are not surely there: they are told again.
    pub(crate) async fn enqueue(&self, events: Vec<callback::Event>) -> Result<()> {
        let rpc = self.cluster.any(Service::Callback)?;
        let request = status::with_deadline(callback::EnqueueRequest { events }, CALL);
        CallbacksClient::new(rpc).enqueue(request).await.map(drop).map_err(|_| busy("events are not queued"))
    }

    /// Tells events as well as it goes, without waiting.
    pub(crate) fn post(&self, events: Vec<callback::Event>) {
        if events.is_empty() {
            return;
        }
        let Ok(permit) = self.posts.clone().try_acquire_owned() else {
            self.law.posts_lost.inc_by(events.len() as u64);
            return;
        };
        let shared = self.me();
        self.tasks.spawn("group.post", async move {
            let _permit = permit;
            let lost = events.len() as u64;
            let request = status::with_deadline(callback::PostRequest { events }, CALL);
            let sent = match shared.cluster.any(Service::Callback) {
                Ok(rpc) => CallbacksClient::new(rpc).post(request).await.is_ok(),
                Err(_) => false,
            };
            if !sent {
                shared.law.posts_lost.inc_by(lost);
            }
        });
    }
}

fn person(account: account::Account) -> (UserId, Person) {
    let mut person = Person { user: account.user.clone(), ..Person::default() };
    for item in account.profile {
        let Some(profile_item::Value::Text(text)) = item.value else { continue };
        match item.tag.as_str() {
            NICK => person.nick = text,
            IMAGE => person.avatar = text,
            _ => {}
        }
    }
    (UserId::trusted(account.user), person)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_hears_only_of_what_it_switched_on() {
        let on = |url: &str, events: &str| AppSettings {
            webhook_url: url.to_owned(),
            webhook_events: events.to_owned(),
            ..AppSettings::default()
        };
        assert!(wants(&on("http://x", "a, Group.CallbackAfterRecallMsg"), "Group.CallbackAfterRecallMsg"));
        assert!(wants(&on("http://x", "all"), "anything"));
        assert!(!wants(&on("", "all"), "anything"));
        assert!(!wants(&on("http://x", ""), "anything"));
    }
}
