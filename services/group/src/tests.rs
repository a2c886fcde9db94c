//! The service among fakes: one node, simulated time, everything reached through its gRPC face.

mod fakes;
mod groups;
mod intents;
mod live;
mod sending;
mod storms;

use std::collections::HashMap;
use std::time::Duration;

use linnet_admission::apps::{App, Apps};
use linnet_bus::{Event, Local, Subscription, subject};
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::account::accounts_server::AccountsServer;
use linnet_proto::callback::callbacks_server::CallbacksServer;
use linnet_proto::delivery::{Envelope, Record, control, envelope, record};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::*;
use linnet_proto::messages::messages_server::MessagesServer;
use linnet_proto::msg::{InLine, Message, MessageKind, Origin, SendReply};
use linnet_proto::session::sessions_server::SessionsServer;
use linnet_runtime::{Clock, Metrics, Rng, Tasks, status};
use linnet_store::sim::{Faults, SimRows};
use linnet_types::{AppSettings, ConvId, GroupId, NodeId, Refusal, SdkAppId, UnixMillis};
use prost::Message as _;
use tonic::service::Routes;

use self::fakes::{FakeAccounts, FakeHooks, FakeLogs, FakeSessions};
use crate::{Config, Deps, Running};

const APP: SdkAppId = SdkAppId(1_600_000_001);
const NODE: &str = "node-1";
const T0: UnixMillis = UnixMillis(1_700_000_000_000);

/// One node and what surrounds it.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) apps: Apps,
    pub(super) logs: FakeLogs,
    pub(super) hooks: FakeHooks,
    pub(super) rows: SimRows,
    pub(super) clock: Clock,
    bus: linnet_bus::Bus,
    rng: Rng,
    incarnation: u64,
    metrics: Metrics,
    running: Option<Running>,
    tasks: Tasks,
    seen: Subscription,
}

pub(super) fn app_with(settings: AppSettings) -> App {
    App { id: APP, key: "k".into(), previous: None, admins: vec!["admin".into()], settings, enabled: true }
}

/// Every webhook on.
pub(super) fn hooked() -> AppSettings {
    AppSettings { webhook_url: "http://app".into(), webhook_events: "all".into(), ..AppSettings::default() }
}

impl World {
    pub(super) async fn new(settings: AppSettings) -> Self {
        Self::seeded(settings, 7, Faults::none()).await
    }

    pub(super) async fn seeded(settings: AppSettings, seed: u64, faults: Faults) -> Self {
        let clock = Clock::simulated(T0);
        let metrics = Metrics::new();
        let rng = Rng::seeded(seed);
        let cluster = Cluster::alone(NodeId::trusted(NODE), linnet_cluster::RpcConfig::default(), &metrics);
        let bus = Local::new(&metrics).bus();
        let seen = bus.subscribe(subject::gw(&NodeId::trusted(NODE))).await.expect("subscribes");
        let logs = FakeLogs::new(clock.clone());
        let hooks = FakeHooks::default();
        let node = NodeId::trusted(NODE);
        cluster.register_local(&node, Service::MessageStore, Routes::new(MessagesServer::new(logs.clone())));
        cluster.register_local(&node, Service::Account, Routes::new(AccountsServer::new(FakeAccounts)));
        cluster.register_local(&node, Service::Callback, Routes::new(CallbacksServer::new(hooks.clone())));
        cluster.register_local(&node, Service::Session, Routes::new(SessionsServer::new(FakeSessions(NODE))));
        let rows = SimRows::new(rng.fork("rows"), clock.clone(), faults);
        let tasks = Tasks::new(&metrics);
        let mut world = Self {
            apps: Apps::fixed([app_with(settings)]),
            cluster,
            logs,
            hooks,
            rows,
            clock,
            bus,
            rng,
            incarnation: 0,
            metrics,
            running: None,
            tasks,
            seen,
        };
        world.start();
        world
    }

    /// Starts the service, or another one over the same store.
    pub(super) fn start(&mut self) {
        self.incarnation += 1;
        let deps = Deps {
            node: NodeId::trusted(NODE),
            site: "s".into(),
            incarnation: self.incarnation,
            cluster: self.cluster.clone(),
            bus: self.bus.clone(),
            store: self.rows.store(),
            apps: self.apps.clone(),
            clock: self.clock.clone(),
            rng: self.rng.fork(&format!("group-{}", self.incarnation)),
            tasks: self.tasks.clone(),
            metrics: self.metrics.clone(),
        };
        let running = crate::start(Config::default(), deps);
        self.cluster.register_local(&NodeId::trusted(NODE), Service::Group, running.routes.clone());
        self.running = Some(running);
    }

    pub(super) fn groups(&self) -> GroupsClient<linnet_cluster::Rpc> {
        let key = RouteKey::group(APP, &GroupId::trusted("g"));
        GroupsClient::new(self.cluster.for_owner(Service::Group, key).expect("a node"))
    }

    pub(super) fn set(&self, settings: AppSettings) {
        self.apps.put(app_with(settings));
    }

    /// Creates a group by REST.
    pub(super) async fn create(&self, kind: &str, id: &str, owner: &str, members: &[&str]) -> String {
        let members = members.iter().map(|user| Member { user: (*user).into(), ..Member::default() }).collect();
        let request = CreateRequest {
            app: APP.0,
            r#type: kind.into(),
            name: "a group".into(),
            owner: owner.into(),
            group_id: id.into(),
            members,
            origin: Some(admin()),
            ..CreateRequest::default()
        };
        done(self.groups().create(request).await).expect("created").group_id
    }

    pub(super) async fn info(&self, id: &str) -> Result<Group, Refusal> {
        let request = InfoRequest { app: APP.0, group_id: id.into(), self_: String::new() };
        done(self.groups().info(request).await).map(|reply| reply.group.expect("a group"))
    }

    pub(super) async fn conv(&self, id: &str) -> u64 {
        self.info(id).await.expect("a group").conv
    }

    pub(super) async fn send(&self, id: &str, from: &str, text: &str) -> Result<SendReply, Refusal> {
        self.send_message(id, text_message(from, text), by(from)).await
    }

    /// As the gateway hands over what one connection has out.
    pub(super) async fn send_in_line(&self, id: &str, text: &str, place: [u64; 3]) -> Result<SendReply, Refusal> {
        let [no, after, first] = place;
        let request = SendRequest {
            app: APP.0,
            group_id: id.into(),
            message: Some(text_message("alice", text)),
            origin: Some(Origin { connection: "g/1".into(), ..by("alice") }),
            in_line: Some(InLine { no, after, first }),
            ..SendRequest::default()
        };
        done(self.groups().send(request).await)
    }

    pub(super) async fn send_message(&self, id: &str, message: Message, by: Origin) -> Result<SendReply, Refusal> {
        let request = SendRequest {
            app: APP.0,
            group_id: id.into(),
            message: Some(message),
            origin: Some(by),
            viewer: true,
            stands_for: 0,
            in_line: None,
        };
        done(self.groups().send(request).await)
    }

    pub(super) async fn join(&self, id: &str, user: &str) -> Result<JoinReply, Refusal> {
        let request = JoinRequest {
            app: APP.0,
            group_id: id.into(),
            user: user.into(),
            wording: "let me in".into(),
            origin: Some(by(user)),
        };
        done(self.groups().join(request).await)
    }

    pub(super) async fn add(&self, id: &str, users: &[&str], by: Origin) -> Result<Vec<u32>, Refusal> {
        let users = users.iter().map(ToString::to_string).collect();
        let request = AddMembersRequest { app: APP.0, group_id: id.into(), users, silence: false, origin: Some(by) };
        done(self.groups().add_members(request).await).map(|reply| reply.results)
    }

    pub(super) async fn kick(&self, id: &str, users: &[&str], by: Origin) -> Result<(), Refusal> {
        let request = RemoveMembersRequest {
            app: APP.0,
            group_id: id.into(),
            users: users.iter().map(ToString::to_string).collect(),
            origin: Some(by),
            ..RemoveMembersRequest::default()
        };
        done(self.groups().remove_members(request).await).map(drop)
    }

    pub(super) async fn roles(&self, id: &str, users: &[&str]) -> Vec<String> {
        let users = users.iter().map(ToString::to_string).collect();
        let request = RolesRequest { app: APP.0, group_id: id.into(), users };
        done(self.groups().roles(request).await).expect("roles").roles
    }

    pub(super) async fn stats(&self) -> StatsReply {
        done(self.groups().stats(StatsRequest {}).await).expect("stats")
    }

    /// The law, which must hold after every test that sends.
    pub(super) async fn assert_law(&self) {
        let s = self.stats().await;
        let ended = s.stored + s.published_only + s.shaped + s.refused + s.dropped_by_webhook + s.duplicate;
        assert_eq!(s.arrived, ended + s.unknown_outcome + s.pending, "{s:?}");
        assert_eq!((s.pending, s.unknown_outcome), (0, 0), "{s:?}");
    }

    /// Watches the subject of a registered conversation too.
    pub(super) async fn watch(&self, conv: u64) -> Subscription {
        self.bus.subscribe(subject::fan("s", ConvId(conv))).await.expect("subscribes")
    }

    /// What the gateway got so far, once nothing more comes for a while: (users, record) in order.
    pub(super) async fn delivered(&mut self) -> Vec<(Vec<String>, Record)> {
        let mut seen = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = seen.len();
            while let Some(event) = self.seen.try_recv() {
                seen.extend(records(&event));
            }
            if seen.len() == before {
                return seen;
            }
        }
    }
}

/// Records of one bus message.
pub(super) fn records(event: &Event) -> Vec<(Vec<String>, Record)> {
    let Event::Message { payload: bytes, .. } = event else { panic!("lagged") };
    let envelope = Envelope::decode(bytes.clone()).expect("an envelope");
    let batches = match envelope.kind {
        Some(envelope::Kind::Frame(frame)) => frame.batches,
        Some(envelope::Kind::Batch(batch)) => vec![batch],
        _ => Vec::new(),
    };
    let each = batches.into_iter().flat_map(|batch| {
        let users = batch.users.clone();
        batch.records.into_iter().map(move |record| (users.clone(), record))
    });
    each.collect()
}

/// All records of a subscription so far.
pub(super) async fn drain(seen: &mut Subscription) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = all.len();
        while let Some(event) = seen.try_recv() {
            all.extend(records(&event).into_iter().map(|(_, record)| record));
        }
        if all.len() == before {
            return all;
        }
    }
}

pub(super) fn done<T>(reply: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Refusal> {
    reply
        .map(tonic::Response::into_inner)
        .map_err(|why| status::from_status(&why).unwrap_or_else(|| panic!("a fault: {why:?}")))
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> u32 {
    result.expect_err("refused").code
}

pub(super) fn admin() -> Origin {
    Origin { operator: "admin".into(), platform: "RESTAPI".into(), admin: true, ..Origin::default() }
}

pub(super) fn by(user: &str) -> Origin {
    Origin { operator: user.into(), platform: "Web".into(), client_ip: "10.0.0.9".into(), ..Origin::default() }
}

pub(super) fn text_message(from: &str, text: &str) -> Message {
    let body = serde_json::json!([{"MsgType": "TIMTextElem", "MsgContent": {"Text": text}}]).to_string();
    Message { from: from.into(), random: 1, body: body.into_bytes().into(), ..Message::default() }
}

/// The text of a chat message or the operation of a tip.
pub(super) fn what(message: &Message) -> String {
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
    match message.kind() {
        MessageKind::Tip => format!("tip {}", body[0]["MsgContent"]["operationType"]),
        _ => body[0]["MsgContent"]["Text"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A record in a word or two.
pub(super) fn word(record: &Record) -> String {
    match record.kind.as_ref().expect("a kind") {
        record::Kind::Message(message) => what(message),
        record::Kind::Notice(notice) => format!("notice {}", notice.r#type),
        record::Kind::Changed(changed) => format!("changed {}", changed.what),
        record::Kind::Revoked(revoked) => format!("revoked {:?}", revoked.seqs),
        record::Kind::Read(_) => "read".into(),
        record::Kind::Control(control) => match control.kind.as_ref().expect("a kind") {
            control::Kind::Joined(users) => format!("joined {:?}", users.users),
            control::Kind::Left(users) => format!("left {:?}", users.users),
            control::Kind::Kicked(users) => format!("kicked {:?}", users.users),
            control::Kind::Muted(mute) => format!("muted {}", mute.user),
            control::Kind::Banned(ban) => format!("banned {}", ban.user),
            control::Kind::MuteAll(on) => format!("mute_all {on}"),
            control::Kind::Dismissed(_) => "dismissed".into(),
            control::Kind::Role(role) => format!("role {} {}", role.user, role.role),
            control::Kind::Online(count) => format!("online {count}"),
            control::Kind::RatePerS(rate) => format!("rate {rate}"),
        },
    }
}

/// What one user gets, in words.
pub(super) fn seen_by(all: &[(Vec<String>, Record)], user: &str) -> Vec<String> {
    let mut words: HashMap<usize, String> = HashMap::new();
    for (index, (users, record)) in all.iter().enumerate() {
        let to = users.is_empty() || users.iter().any(|name| name == user);
        let only = record.only.is_empty() || record.only.iter().any(|name| name == user);
        if to && only {
            words.insert(index, word(record));
        }
    }
    let mut order: Vec<_> = words.into_iter().collect();
    order.sort_by_key(|(index, _)| *index);
    order.into_iter().map(|(_, word)| word).collect()
}
