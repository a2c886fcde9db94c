//! One cluster in a test: this service on one or two nodes, over a simulated store, with everything else faked.

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::{App, Apps};
use linnet_bus::{Bus, Event, Local, Subscription, subject};
use linnet_cluster::{Cluster, LocalNet, Members, Node, RouteKey, RpcConfig, Script, Service};
use linnet_message_store::{Config, Deps, Running};
use linnet_proto::delivery::{Batch, Envelope, Record, envelope};
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::messages::{
    Conversation, HistoryReply, HistoryRequest, ReadC2cRequest, SendC2cRequest, SyncReply, SyncRequest,
};
use linnet_proto::msg::{Message, Origin, SendReply};
use linnet_runtime::{Clock, Metrics, Rng, Tasks, status};
use linnet_store::Store;
use linnet_store::sim::{Faults, SimRows};
use linnet_types::{AppSettings, Refusal, SdkAppId, UnixMillis, UserId};
use prost::Message as _;

use crate::fake::{self, Outside};

pub(crate) const APP: u32 = 1_600_000_001;

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) rows: SimRows,
    /// Where nodes keep everything: `rows`, or a folder.
    pub(crate) store: Store,
    pub(crate) outside: Arc<Outside>,
    pub(crate) apps: Apps,
    pub(crate) cluster: Cluster,
    pub(crate) script: Script,
    pub(crate) bus: Bus,
    net: LocalNet,
    members: Members,
    rng: Rng,
    inbox: Subscription,
    pub(crate) batches: Vec<Batch>,
    started: u64,
    random: u32,
}

/// One running node.
pub(crate) struct Running1 {
    pub(crate) running: Running,
    pub(crate) metrics: Metrics,
    tasks: Tasks,
}

impl Running1 {
    /// As SIGKILL: nothing is finished.
    pub(crate) async fn kill(self) {
        self.tasks.shutdown(Duration::ZERO).await;
    }
}

const OUTSIDE: [Service; 5] = [Service::Account, Service::Session, Service::Group, Service::Callback, Service::Gateway];

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with(seed, AppSettings::default()).await
    }

    pub(crate) async fn with(seed: u64, settings: AppSettings) -> Self {
        let clock = Clock::simulated(UnixMillis(1_760_000_000_000));
        let rng = Rng::seeded(seed);
        let rows = SimRows::new(rng.fork("rows"), clock.clone(), Faults::none());
        let metrics = Metrics::new();
        let bus = Local::new(&metrics).bus();
        let app = App {
            id: SdkAppId(APP),
            key: "key".into(),
            previous: None,
            admins: vec!["administrator".into()],
            settings,
            enabled: true,
        };
        let others = node("other");
        let gateway = Node::new(node("gw"), [Service::Gateway]);
        let (members, script) = Members::scripted([Node::new(others.clone(), OUTSIDE), gateway]);
        let net = LocalNet::new(RpcConfig::default(), &metrics);
        let cluster = Cluster::new(others.clone(), members.clone(), net.clone(), &metrics);
        let outside = Arc::new(Outside::default());
        outside.accounts.lock().extend(["alice", "bob", "carol", "@RBT#1", "administrator"].map(String::from));
        cluster.register_local(&others, Service::Account, fake::accounts(&outside).into());
        cluster.register_local(&others, Service::Session, fake::sessions().into());
        cluster.register_local(&others, Service::Group, fake::groups(&outside).into());
        cluster.register_local(&others, Service::Callback, fake::callbacks(&outside).into());
        let inbox = bus.subscribe(subject::gw(&node("gw"))).await.unwrap();
        let apps = Apps::fixed([app]);
        Self {
            clock,
            store: rows.store(),
            rows,
            outside,
            apps,
            cluster,
            script,
            bus,
            net,
            members,
            rng,
            inbox,
            batches: Vec::new(),
            started: 0,
            random: 0,
        }
    }

    /// Starts a node; it joins the ring.
    pub(crate) async fn start(&mut self, name: &str) -> Running1 {
        self.start_with(name, Config::default()).await
    }

    pub(crate) async fn start_with(&mut self, name: &str, config: Config) -> Running1 {
        self.started += 1;
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        let id = node(name);
        let cluster = Cluster::new(id.clone(), self.members.clone(), self.net.clone(), &metrics);
        let deps = Deps {
            node: id.clone(),
            incarnation: self.started,
            site: "here".into(),
            cluster: cluster.clone(),
            bus: self.bus.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            rng: self.rng.fork(&format!("{name}{}", self.started)),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            apps: self.apps.clone(),
        };
        // In the ring before it looks for open logs that are its own.
        self.script.join(Node::new(id.clone(), [Service::MessageStore]));
        let running = linnet_message_store::start(config, deps).await.unwrap();
        cluster.register_local(&id, Service::MessageStore, running.routes.clone());
        Running1 { running, metrics, tasks }
    }

    /// Nothing of a dead node is reachable any more.
    pub(crate) fn cluster_remove(&self, node: &linnet_types::NodeId) {
        self.net.remove(node);
    }

    pub(crate) fn client(&self, key: RouteKey) -> MessagesClient<linnet_cluster::Rpc> {
        MessagesClient::new(self.cluster.for_owner(Service::MessageStore, key).unwrap())
    }

    pub(crate) fn pair(&self, a: &str, b: &str) -> MessagesClient<linnet_cluster::Rpc> {
        self.client(RouteKey::pair(SdkAppId(APP), &UserId::trusted(a), &UserId::trusted(b)))
    }

    pub(crate) fn of(&self, user: &str) -> MessagesClient<linnet_cluster::Rpc> {
        self.client(RouteKey::user(SdkAppId(APP), &UserId::trusted(user)))
    }

    /// A send of `text` with a fresh random.
    pub(crate) fn text(&mut self, from: &str, to: &str, text: &str) -> SendC2cRequest {
        self.random += 1;
        SendC2cRequest {
            app: APP,
            to: to.into(),
            message: Some(Message { from: from.into(), random: self.random, body: body(text), ..Message::default() }),
            origin: Some(Origin {
                operator: from.into(),
                platform: "Web".into(),
                connection: format!("gw/{from}"),
                ..Origin::default()
            }),
            ..SendC2cRequest::default()
        }
    }

    /// The `n`th send of a run: a message of its own, the same on every call.
    pub(crate) fn numbered(from: &str, to: &str, n: u32) -> SendC2cRequest {
        SendC2cRequest {
            app: APP,
            to: to.into(),
            message: Some(Message {
                from: from.into(),
                random: n,
                body: body(&format!("{from} {n}")),
                ..Message::default()
            }),
            origin: Some(Origin { operator: from.into(), ..Origin::default() }),
            ..SendC2cRequest::default()
        }
    }

    pub(crate) async fn send(&self, request: SendC2cRequest) -> Result<SendReply, Refusal> {
        let from = request.message.as_ref().unwrap().from.clone();
        let reply = self.pair(&from, &request.to).send_c2c(request).await;
        reply.map(tonic::Response::into_inner).map_err(|why| status::refusal_or(&why, 1))
    }

    pub(crate) async fn say(&mut self, from: &str, to: &str, text: &str) -> SendReply {
        let request = self.text(from, to, text);
        self.send(request).await.unwrap()
    }

    pub(crate) async fn history(&self, viewer: &str, peer: &str) -> HistoryReply {
        let request = HistoryRequest {
            app: APP,
            peer_a: viewer.into(),
            peer_b: peer.into(),
            viewer: viewer.into(),
            ..HistoryRequest::default()
        };
        self.pair(viewer, peer).history(request).await.unwrap().into_inner()
    }

    pub(crate) async fn sync(&self, user: &str) -> SyncReply {
        let request = SyncRequest { app: APP, user: user.into(), ..SyncRequest::default() };
        self.of(user).sync(request).await.unwrap().into_inner()
    }

    pub(crate) async fn listed(&self, user: &str, key: &str) -> Option<Conversation> {
        self.sync(user).await.conversations.into_iter().find(|conversation| conversation.key == key)
    }

    pub(crate) async fn unread(&self, user: &str, key: &str) -> u64 {
        self.listed(user, key).await.map_or(0, |conversation| conversation.unread)
    }

    pub(crate) async fn read(&self, reader: &str, peer: &str, seq: u64) {
        let request = ReadC2cRequest {
            app: APP,
            reader: reader.into(),
            peer: peer.into(),
            seq,
            origin: Some(Origin { connection: format!("gw/{reader}"), ..Origin::default() }),
            ..ReadC2cRequest::default()
        };
        self.pair(reader, peer).read_c2c(request).await.unwrap();
    }

    /// Waits until a delivered record satisfies `wanted`, with the users its batch named.
    pub(crate) async fn record<T>(&mut self, what: &str, wanted: impl Fn(&Record, &[String]) -> Option<T>) -> T {
        let deadline = self.clock.mono() + Duration::from_secs(20);
        loop {
            let found = self
                .batches
                .iter()
                .find_map(|batch| batch.records.iter().find_map(|record| wanted(record, &batch.users)));
            if let Some(found) = found {
                return found;
            }
            assert!(self.clock.mono() < deadline, "no {what} was delivered");
            self.receive().await;
        }
    }

    /// Takes what has been delivered by now.
    pub(crate) async fn receive(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(300), self.inbox.recv()).await;
        let Ok(Some(Event::Message { payload, .. })) = next else { return };
        let envelope = Envelope::decode(payload).unwrap();
        if let Some(envelope::Kind::Frame(frame)) = envelope.kind {
            self.batches.extend(frame.batches);
        }
    }

    /// Waits until a condition holds.
    pub(crate) async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = self.clock.mono() + Duration::from_secs(30);
        while !holds().await {
            assert!(self.clock.mono() < deadline, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.outside.events.lock().iter().map(|event| event.command.clone()).collect()
    }
}

pub(crate) fn node(name: &str) -> linnet_types::NodeId {
    linnet_types::NodeId::trusted(name)
}

pub(crate) fn body(text: &str) -> bytes::Bytes {
    format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"{text}"}}}}]"#).into()
}

pub(crate) fn texts(history: &HistoryReply) -> Vec<String> {
    let text = |message: &Message| {
        let value: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        value[0]["MsgContent"]["Text"].as_str().unwrap_or("").to_owned()
    };
    history.messages.iter().map(text).collect()
}
