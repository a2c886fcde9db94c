//! What the service asks of others: who is online, who is in a group, what people and groups are called.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::FutureExt as _;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::account::accounts_client::AccountsClient;
use linnet_proto::account::{LookupRequest, profile_item::Value};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::{InfoRequest, Member, MembersReply, MembersRequest};
use linnet_proto::msg::Origin;
use linnet_proto::session::sessions_client::SessionsClient;
use linnet_proto::session::{StatusRequest, UserStatus};
use linnet_runtime::status;
use linnet_types::{GroupId, NodeId, Refusal, SdkAppId, UserId, code};
use moka::future::Cache;

/// Members of one page, and users of one presence read.
pub(crate) const PAGE: u32 = 500;
/// Members that can be asked for by name.
const NAMED: usize = 50;
const CALL: Duration = Duration::from_secs(3);
/// Names and sizes may be this old.
const FRESH: Duration = Duration::from_secs(30);
const CACHED: u64 = 100_000;
const NICK: &str = "Tag_Profile_IM_Nick";

/// What a plan needs to know of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    pub(crate) name: String,
    pub(crate) members: u32,
}

#[derive(Clone)]
pub(crate) struct Calls {
    cluster: Cluster,
    groups: Cache<(SdkAppId, String), GroupFacts>,
    nicks: Cache<(SdkAppId, String), String>,
}

impl Calls {
    pub(crate) fn new(cluster: Cluster) -> Self {
        let (groups, nicks) = (Cache::builder(), Cache::builder());
        Self {
            cluster,
            groups: groups.max_capacity(CACHED).time_to_live(FRESH).build(),
            nicks: nicks.max_capacity(CACHED).time_to_live(FRESH).build(),
        }
    }

    /// The state of each user, in one read per owner of some of them; who cannot be told apart from nobody is absent.
    ///
    /// # Errors
    /// When an owner cannot be asked.
    pub(crate) async fn states(&self, app: SdkAppId, users: &[String]) -> Result<HashMap<String, UserStatus>, Refusal> {
        let mut owners: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for user in users {
            let key = RouteKey::user(app, &UserId::trusted(user.as_str()));
            owners.entry(self.cluster.owner_node(Service::Session, key)?).or_default().push(user.clone());
        }
        let mut asks = Vec::new();
        for (node, users) in owners {
            asks.extend(
                users.chunks(PAGE as usize).map(|page| self.states_at(app, node.clone(), page.to_vec()).boxed()),
            );
        }
        let replies = futures::future::try_join_all(asks).await?;
        Ok(replies.into_iter().flatten().map(|state| (state.user.clone(), state)).collect())
    }

    async fn states_at(&self, app: SdkAppId, node: NodeId, users: Vec<String>) -> Result<Vec<UserStatus>, Refusal> {
        let rpc = self.cluster.for_node(Service::Session, &node)?;
        let request = status::with_deadline(StatusRequest { app: app.0, users }, CALL);
        let reply = SessionsClient::new(rpc).status(request).await;
        Ok(reply.map_err(|why| status::refusal_or(&why, code::BUSY))?.into_inner().users)
    }

    /// Name and size of a group.
    ///
    /// # Errors
    /// The refusal of its owner: final when there is no such group.
    pub(crate) async fn group(&self, app: SdkAppId, group: &str) -> Result<GroupFacts, Refusal> {
        let key = (app, group.to_owned());
        if let Some(known) = self.groups.get(&key).await {
            return Ok(known);
        }
        let request = InfoRequest { app: app.0, group_id: group.to_owned(), ..InfoRequest::default() };
        let reply = self.groups_of(app, group)?.info(status::with_deadline(request, CALL)).await;
        let info = reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?.into_inner();
        let info = info.group.unwrap_or_default();
        let facts = GroupFacts { name: info.name, members: info.member_num };
        self.groups.insert(key, facts.clone()).await;
        Ok(facts)
    }

    /// One page of the members of a group.
    ///
    /// # Errors
    /// The refusal of its owner: final when there is no such group.
    pub(crate) async fn members(&self, app: SdkAppId, group: &str, cursor: &str) -> Result<MembersReply, Refusal> {
        let request = MembersRequest { limit: PAGE, cursor: cursor.to_owned(), ..ask(app, group) };
        let reply = self.groups_of(app, group)?.members(status::with_deadline(request, CALL)).await;
        Ok(reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?.into_inner())
    }

    /// Those of `users` that are members of a group.
    ///
    /// # Errors
    /// The refusal of its owner: final when there is no such group.
    pub(crate) async fn named(&self, app: SdkAppId, group: &str, users: &[String]) -> Result<Vec<Member>, Refusal> {
        let mut found = Vec::new();
        for only in users.chunks(NAMED) {
            let request = MembersRequest { only: only.to_vec(), ..ask(app, group) };
            let reply = self.groups_of(app, group)?.members(status::with_deadline(request, CALL)).await;
            let reply = reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?;
            found.extend(reply.into_inner().members);
        }
        Ok(found)
    }

    fn groups_of(&self, app: SdkAppId, group: &str) -> Result<GroupsClient<linnet_cluster::Rpc>, Refusal> {
        let key = RouteKey::group(app, &GroupId::trusted(group));
        Ok(GroupsClient::new(self.cluster.for_owner(Service::Group, key)?))
    }

    /// What a user calls himself; empty when he says nothing or cannot be asked: a push is not held up for a name.
    pub(crate) async fn nick(&self, app: SdkAppId, user: &str) -> String {
        let key = (app, user.to_owned());
        if let Some(known) = self.nicks.get(&key).await {
            return known;
        }
        let Ok(id) = UserId::parse(user) else { return String::new() };
        let Ok(rpc) = self.cluster.for_owner(Service::Account, RouteKey::user(app, &id)) else { return String::new() };
        let tags = vec![NICK.to_owned()];
        let request = LookupRequest { app: app.0, users: vec![user.to_owned()], tags, want_profile: true };
        let Ok(reply) = AccountsClient::new(rpc).lookup(status::with_deadline(request, CALL)).await else {
            return String::new();
        };
        let items = reply.into_inner().accounts.into_iter().flat_map(|account| account.profile);
        let nick = items.filter(|item| item.tag == NICK).find_map(|item| match item.value {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Number(_)) | None => None,
        });
        let nick = nick.unwrap_or_default();
        self.nicks.insert(key, nick.clone()).await;
        nick
    }
}

fn ask(app: SdkAppId, group: &str) -> MembersRequest {
    let origin = Some(Origin { admin: true, ..Origin::default() });
    MembersRequest { app: app.0, group_id: group.to_owned(), origin, ..MembersRequest::default() }
}
