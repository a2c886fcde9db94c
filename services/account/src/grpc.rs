//! The gRPC surface: decode, call, encode.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use linnet_cluster::{RouteKey, Service as Role};
use linnet_proto::account::{self as pb, accounts_server::Accounts as Rpc};
use linnet_proto::callback::{self, callbacks_client::CallbacksClient};
use linnet_proto::group::{self, groups_client::GroupsClient};
use linnet_proto::msg::Origin;
use linnet_proto::push::{self, RemoveDevicesRequest, pushes_client::PushesClient};
use linnet_proto::session::{self, sessions_client::SessionsClient};
use linnet_runtime::status::{self, to_status};
use linnet_store::accounts::{Account, Accounts, Imported, ProfileValue};
use linnet_store::apps::Apps;
use linnet_store::relations::Relations;
use linnet_types::{AppSettings, Refusal, SdkAppId, UnixMillis, UserId, code};
use tonic::{Request, Response, Status};

use crate::{Deps, fault, profile};

/// Calls to other services; under the 3 s that REST callers are given.
const CALL: Duration = Duration::from_millis(2500);
/// Most accounts of one import or deletion (`spec/rest-accounts.md` §2.2).
const BATCH: usize = 100;
/// Accounts of one import written at a time: a hundred one after the other take a CQL server longer than callers wait.
const IMPORTS: usize = 16;
/// Most users of one look-up.
const LOOKUP: usize = 500;
/// Most entries of a block list (`spec/rest-accounts.md` §4.1).
const BLOCKED: usize = 1000;

pub(crate) struct Service {
    pub(crate) deps: Deps,
    pub(crate) apps: Apps,
    pub(crate) accounts: Accounts,
    relations: Relations,
}

fn reply<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refusal| to_status(&refusal))
}

fn too_many() -> Refusal {
    Refusal::new(code::ACCOUNT_BAD_PARAM, "too many accounts in one request")
}

fn unknown(user: &str) -> Refusal {
    Refusal::new(code::ACCOUNT_UNKNOWN, format!("Err_TLS_PT_Open_Login_Account_Not_Exist: {user}"))
}

impl Service {
    pub(crate) fn new(deps: Deps) -> Self {
        let apps = Apps::new(deps.store.clone());
        let accounts = Accounts::new(deps.store.clone());
        let relations = Relations::new(deps.store.clone());
        Self { deps, apps, accounts, relations }
    }

    async fn settings(&self, app: SdkAppId) -> Result<(AppSettings, Vec<UserId>), Refusal> {
        let app = self.apps.get(app).await.map_err(|error| fault(&error))?;
        let app = app.ok_or_else(|| Refusal::new(code::APP_UNKNOWN, "no such SDKAppID"))?;
        Ok((app.settings, app.admins))
    }

    async fn import_all(&self, request: pb::ImportRequest) -> Result<pb::ImportReply, Refusal> {
        let app = SdkAppId(request.app);
        if request.accounts.len() > BATCH {
            return Err(too_many());
        }
        let (settings, _) = self.settings(app).await?;
        let room = match settings.accounts {
            0 => u64::MAX,
            cap => cap.saturating_sub(self.accounts.count(app).await.map_err(|error| fault(&error))?),
        };
        // Where the cap may be met, one after the other, so that the first get the room.
        let together = if room < request.accounts.len() as u64 { 1 } else { IMPORTS };
        let room = AtomicU64::new(room);
        let imports = stream::iter(request.accounts).map(|account| async {
            let done = self.import_one(app, &account, &room).await;
            (account.user, done)
        });
        let imported: Vec<_> = imports.buffered(together).collect().await;
        let mut reply = pb::ImportReply::default();
        for (user, done) in imported {
            if let Err(refusal) = done {
                reply.failed.push(user);
                reply.codes.push(refusal.code);
            }
        }
        Ok(reply)
    }

    async fn import_one(&self, app: SdkAppId, account: &pb::ImportAccount, room: &AtomicU64) -> Result<(), Refusal> {
        let user = UserId::parse(&account.user)?;
        let mut fields = Vec::new();
        for (tag, value) in [(profile::NICK, &account.nick), (profile::IMAGE, &account.face_url)] {
            let Some(value) = value else { continue };
            if value.len() > 500 {
                return Err(Refusal::new(code::PROFILE_LENGTH, format!("{tag}: value over 500 bytes")));
            }
            fields.push((tag.to_owned(), ProfileValue::Text(value.clone())));
        }
        if room.load(Ordering::Relaxed) == 0
            && self.accounts.get(app, &user).await.map_err(|error| fault(&error))?.is_none()
        {
            return Err(Refusal::new(code::ACCOUNT_CAP, "the app's cap of accounts is reached"));
        }
        let done = self.accounts.import(app, &user, &fields, self.deps.clock.now()).await;
        if matches!(done.map_err(|error| fault(&error))?, Imported::Created(_)) {
            room.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn delete_all(&self, request: pb::DeleteRequest) -> Result<pb::DeleteReply, Refusal> {
        let app = SdkAppId(request.app);
        if request.users.len() > BATCH {
            return Err(too_many());
        }
        let (settings, admins) = self.settings(app).await?;
        if !settings.account_delete {
            return Err(Refusal::new(code::ACCOUNT_DELETE_OFF, "deleting accounts is switched off (account.delete)"));
        }
        let mut results = Vec::new();
        for user in request.users {
            let outcome = self.delete_one(app, &user, &admins, request.origin.as_ref()).await;
            let (code, info) = outcome.map_or_else(|refusal| (refusal.code, refusal.info), |()| (0, String::new()));
            results.push(pb::UserResult { user, code, info });
        }
        Ok(pb::DeleteReply { results })
    }

    async fn delete_one(
        &self,
        app: SdkAppId,
        user: &str,
        admins: &[UserId],
        origin: Option<&Origin>,
    ) -> Result<(), Refusal> {
        let Ok(id) = UserId::parse(user) else { return Err(unknown(user)) };
        if admins.contains(&id) {
            return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "an administrator cannot be deleted"));
        }
        if self.accounts.get(app, &id).await.map_err(|error| fault(&error))?.is_none() {
            return Err(unknown(user));
        }
        // Sessions and groups first: should one of these fail, the account is still there and the call can be repeated.
        self.close_sessions(app, &id, "deleted", origin).await?;
        let rpc = self.deps.cluster.any(Role::Group)?;
        let forget = group::ForgetRequest { app: app.0, user: user.to_owned() };
        let done = GroupsClient::new(rpc).forget(status::with_deadline(forget, CALL)).await;
        done.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?;
        self.forget_pushes(app, &id).await?;
        self.relations.clear(app, &id).await.map_err(|error| fault(&error))?;
        self.accounts.delete(app, &id, self.deps.clock.now()).await.map_err(|error| fault(&error))?;
        Ok(())
    }

    async fn forget_pushes(&self, app: SdkAppId, user: &UserId) -> Result<(), Refusal> {
        let Ok(rpc) = self.deps.cluster.any(Role::Push) else { return Ok(()) };
        let request = push::ForgetRequest { app: app.0, user: user.to_string() };
        let done = PushesClient::new(rpc).forget(status::with_deadline(request, CALL)).await;
        done.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?;
        Ok(())
    }

    /// Closes them, and says when, by the clock of the directory: this node's may be wrong.
    async fn close_sessions(
        &self,
        app: SdkAppId,
        user: &UserId,
        reason: &str,
        origin: Option<&Origin>,
    ) -> Result<UnixMillis, Refusal> {
        let rpc = self.deps.cluster.for_owner(Role::Session, RouteKey::user(app, user))?;
        let kick = session::KickRequest {
            app: app.0,
            user: user.to_string(),
            reason: reason.to_owned(),
            origin: origin.cloned(),
        };
        let done = SessionsClient::new(rpc).kick(status::with_deadline(kick, CALL)).await;
        let done = done.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?.into_inner();
        self.remove_devices(app, user).await;
        Ok(if done.at_ms == 0 { self.deps.clock.now() } else { UnixMillis(done.at_ms) })
    }

    /// Nobody is pushed to whose sessions were ended, also where none was open.
    async fn remove_devices(&self, app: SdkAppId, user: &UserId) {
        // Where no node serves pushes, nothing was registered.
        let Ok(rpc) = self.deps.cluster.any(Role::Push) else { return };
        let request =
            RemoveDevicesRequest { app: app.0, user: user.to_string(), all: true, ..RemoveDevicesRequest::default() };
        if let Err(why) = PushesClient::new(rpc).remove_devices(status::with_deadline(request, CALL)).await {
            tracing::warn!(code = ?why.code(), "push tokens of a user whose sessions were ended are still there");
        }
    }

    async fn look_up(&self, request: pb::LookupRequest) -> Result<pb::LookupReply, Refusal> {
        if request.users.len() > LOOKUP {
            return Err(too_many());
        }
        let app = SdkAppId(request.app);
        let parsed: Vec<_> = request.users.iter().map(|user| UserId::parse(user).ok()).collect();
        let possible: Vec<UserId> = parsed.iter().flatten().cloned().collect();
        let mut found = self.accounts.get_many(app, &possible).await.map_err(|error| fault(&error))?.into_iter();
        let mut accounts = Vec::with_capacity(parsed.len());
        for (user, id) in request.users.iter().zip(&parsed) {
            let stored = id.as_ref().and_then(|_| found.next().flatten());
            accounts.push(match stored {
                Some(account) => wire(account, request.want_profile, &request.tags),
                None => pb::Account { user: user.clone(), impossible: id.is_none(), ..pb::Account::default() },
            });
        }
        Ok(pb::LookupReply { accounts })
    }

    /// Answers only when the second of the kick has turned: a sig made after the answer is of a later second, so it is
    /// never mistaken for one of before.
    async fn kick_user(&self, request: pb::KickRequest) -> Result<pb::KickReply, Refusal> {
        const REASON: &str = "REST_API_Kick";
        let app = SdkAppId(request.app);
        let user = UserId::parse(&request.user).map_err(|_| unknown(&request.user))?;
        if self.accounts.get(app, &user).await.map_err(|error| fault(&error))?.is_none() {
            return Err(unknown(&request.user));
        }
        let at = self.close_sessions(app, &user, REASON, None).await?;
        let closed = self.deps.clock.mono();
        let kick_time_s = at.secs();
        let set = |account: &mut Account| account.kick_time_s = account.kick_time_s.max(kick_time_s);
        let changed = self.accounts.update(app, &user, set).await.map_err(|error| fault(&error))?;
        if changed.is_none() {
            return Err(unknown(&request.user));
        }
        // Who came in with an old sig before that was written.
        self.close_sessions(app, &user, REASON, None).await?;
        let turns = Duration::from_millis(1000 - at.0 % 1000);
        tokio::time::sleep(turns.saturating_sub(self.deps.clock.mono().saturating_sub(closed))).await;
        Ok(pb::KickReply { kick_time_s })
    }

    async fn set(&self, request: pb::SetProfileRequest) -> Result<pb::SetProfileReply, Refusal> {
        let app = SdkAppId(request.app);
        let missing = || Refusal::new(code::PROFILE_ACCOUNT_UNKNOWN, format!("no account {}", request.user));
        let user = UserId::parse(&request.user).map_err(|_| missing())?;
        let (settings, _) = self.settings(app).await?;
        let origin = request.origin.unwrap_or_default();
        if request.items.is_empty() {
            return Err(Refusal::new(code::PROFILE_BAD_PARAM, "no profile item given"));
        }
        let mut items = Vec::new();
        for item in &request.items {
            items.push(profile::check(item, origin.admin, &settings)?);
        }
        let put = |account: &mut Account| account.profile.extend(items.iter().cloned());
        let changed = self.accounts.update(app, &user, put).await.map_err(|error| fault(&error))?;
        let account = changed.ok_or_else(missing)?;
        self.tell_profile(&settings, app, &account, &items, origin).await;
        Ok(pb::SetProfileReply {})
    }

    async fn tell_profile(
        &self,
        settings: &AppSettings,
        app: SdkAppId,
        account: &Account,
        items: &[(String, ProfileValue)],
        origin: Origin,
    ) {
        const COMMAND: &str = "Profile.CallbackPortraitSet";
        if !settings.webhook_on(COMMAND) {
            return;
        }
        let value = |value: &ProfileValue| match value {
            ProfileValue::Text(text) => serde_json::json!(text),
            ProfileValue::Number(number) => serde_json::json!(number),
        };
        let items: Vec<_> = items.iter().map(|(tag, v)| serde_json::json!({ "Tag": tag, "Value": value(v) })).collect();
        let now = self.deps.clock.now();
        let body = serde_json::json!({
            "Operator_Account": origin.operator, "From_Account": account.user, "EventTime": now.0, "ProfileItem": items,
        });
        let event = callback::Event {
            app: app.0,
            command: COMMAND.to_owned(),
            key: format!("u{}", account.user),
            id: format!("profile/{}/{}", account.user, account.rev),
            body: body.to_string().into(),
            client_ip: origin.client_ip,
            platform: origin.platform,
            time_ms: now.0,
        };
        let enqueue = async {
            let rpc = self.deps.cluster.any(Role::Callback)?;
            let request = status::with_deadline(callback::EnqueueRequest { events: vec![event] }, CALL);
            CallbacksClient::new(rpc).enqueue(request).await.map_err(|why| status::refusal_or(&why, code::BUSY))
        };
        if let Err(refusal) = enqueue.await {
            tracing::warn!(app = app.0, %refusal, "a profile change could not be told to the app's server");
        }
    }

    async fn change_blocks(&self, request: pb::BlockRequest) -> Result<pb::BlockReply, Refusal> {
        let app = SdkAppId(request.app);
        let owner = UserId::parse(&request.user)?;
        let parse = |users: &[String]| users.iter().map(|user| UserId::parse(user)).collect::<Result<Vec<_>, _>>();
        let (add, remove) = (parse(&request.add)?, parse(&request.remove)?);
        if add.len() > BLOCKED || remove.len() > BLOCKED || add.contains(&owner) {
            return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "at most 1000 users, and never oneself"));
        }
        if !add.is_empty() {
            let known = self.accounts.get_many(app, &add).await.map_err(|error| fault(&error))?;
            if let Some(at) = known.iter().position(Option::is_none) {
                return Err(unknown(add[at].as_str()));
            }
            let list = self.relations.list(app, &owner, None, 0).await.map_err(|error| fault(&error))?;
            let new = add.iter().filter(|user| !list.iter().any(|entry| entry.user == **user)).count();
            if list.len() + new > BLOCKED {
                return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "a block list holds at most 1000 users"));
            }
            self.relations.block(app, &owner, &add, self.deps.clock.now()).await.map_err(|error| fault(&error))?;
        }
        if !remove.is_empty() {
            self.relations.unblock(app, &owner, &remove).await.map_err(|error| fault(&error))?;
        }
        Ok(pb::BlockReply {})
    }

    async fn pair(&self, request: pb::PairCheckRequest) -> Result<pb::PairCheckReply, Refusal> {
        let app = SdkAppId(request.app);
        let (from, to) = (UserId::parse(&request.from).ok(), UserId::parse(&request.to).ok());
        let asked: Vec<UserId> = [&from, &to].into_iter().flatten().cloned().collect();
        let mut found = self.accounts.get_many(app, &asked).await.map_err(|error| fault(&error))?.into_iter();
        let mut exists = |id: &Option<UserId>| id.is_some() && found.next().flatten().is_some();
        let (from_exists, to_exists) = (exists(&from), exists(&to));
        let blocked = match (&from, &to) {
            (Some(from), Some(to)) if from_exists && to_exists => {
                self.relations.blocked(app, to, from).await.map_err(|error| fault(&error))?
            }
            _ => false,
        };
        Ok(pb::PairCheckReply { from_exists, to_exists, blocked })
    }
}

fn wire(account: Account, want_profile: bool, tags: &[String]) -> pb::Account {
    let mut items = Vec::new();
    if want_profile && tags.is_empty() {
        items.extend(account.profile.iter().map(|(tag, value)| profile::item(tag, value)));
    } else if want_profile {
        for tag in tags {
            match (account.profile.get(tag), profile::default_of(tag)) {
                (Some(value), _) => items.push(profile::item(tag, value)),
                (None, Some(text)) => items.push(profile::item(tag, &ProfileValue::Text(text.to_owned()))),
                (None, None) => {}
            }
        }
    }
    pb::Account {
        user: account.user.into(),
        exists: true,
        profile: items,
        created_ms: account.created.0,
        kick_time_s: account.kick_time_s,
        blocked: account.blocked,
        impossible: false,
    }
}

#[tonic::async_trait]
impl Rpc for Service {
    async fn get_app(&self, request: Request<pb::GetAppRequest>) -> Result<Response<pb::App>, Status> {
        reply(self.app(request.into_inner()).await)
    }
    async fn list_apps(&self, request: Request<pb::ListAppsRequest>) -> Result<Response<pb::ListAppsReply>, Status> {
        reply(self.list(request.into_inner()).await)
    }
    async fn create_app(&self, request: Request<pb::CreateAppRequest>) -> Result<Response<pb::App>, Status> {
        reply(self.create(request.into_inner()).await)
    }
    async fn update_app(&self, request: Request<pb::UpdateAppRequest>) -> Result<Response<pb::App>, Status> {
        reply(self.update(request.into_inner()).await)
    }
    async fn delete_app(&self, request: Request<pb::GetAppRequest>) -> Result<Response<pb::DeleteAppReply>, Status> {
        reply(self.remove(request.into_inner()).await.map(|()| pb::DeleteAppReply {}))
    }
    async fn import(&self, request: Request<pb::ImportRequest>) -> Result<Response<pb::ImportReply>, Status> {
        reply(self.import_all(request.into_inner()).await)
    }
    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteReply>, Status> {
        reply(self.delete_all(request.into_inner()).await)
    }
    async fn lookup(&self, request: Request<pb::LookupRequest>) -> Result<Response<pb::LookupReply>, Status> {
        reply(self.look_up(request.into_inner()).await)
    }
    async fn kick(&self, request: Request<pb::KickRequest>) -> Result<Response<pb::KickReply>, Status> {
        reply(self.kick_user(request.into_inner()).await)
    }
    async fn set_profile(
        &self,
        request: Request<pb::SetProfileRequest>,
    ) -> Result<Response<pb::SetProfileReply>, Status> {
        reply(self.set(request.into_inner()).await)
    }
    async fn block(&self, request: Request<pb::BlockRequest>) -> Result<Response<pb::BlockReply>, Status> {
        reply(self.change_blocks(request.into_inner()).await)
    }
    async fn pair_check(&self, request: Request<pb::PairCheckRequest>) -> Result<Response<pb::PairCheckReply>, Status> {
        reply(self.pair(request.into_inner()).await)
    }
}
