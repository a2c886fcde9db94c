//! A node whose other services are fakes: enough of each for a gateway to work against, with the real bus, the real
//! delivery and real sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, post};
use linnet_admission::apps::{App, Apps};
use linnet_bus::{Bus, Local, subject};
use linnet_client::{Client, Events, Options};
use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_gateway::{Config, Deps, Gateway, Running};
use linnet_proto::delivery::{Batch, Envelope, Frame, Record, batch, envelope, record};
use linnet_proto::{account, delivery, group, messages, msg, session};
use linnet_runtime::{Clock, Metrics, Rng, Tasks, status};
use linnet_types::{AppSettings, NodeId, Refusal, SdkAppId, code};
use linnet_usersig::{Claims, sign};
use parking_lot::Mutex;
use prost::Message as _;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

pub(crate) const APP: u32 = 1_600_000_001;
pub(crate) const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";

type Answered<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

struct Unary<F>(F);

impl<Q, A, F> UnaryService<Q> for Unary<F>
where
    F: Fn(Q) -> Answered<A>,
    A: Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(Response::new).map_err(|why| status::to_status(&why)) })
    }
}

/// Answers one method of a generated service with a closure.
fn method<Q, A, F>(router: Router, path: &str, answer: F) -> Router
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
    F: Fn(Q) -> Answered<A> + Clone + Send + Sync + 'static,
{
    let handler = move |request: http::Request<axum::body::Body>| {
        let answer = answer.clone();
        async move {
            let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
            Ok::<_, Infallible>(grpc.unary(Unary(answer), request.map(Body::new)).await)
        }
    };
    router.route(
        path,
        post(|request| async move { handler(request).await.expect("infallible").map(axum::body::Body::new) }),
    )
}

fn now<T: Send + 'static>(value: Result<T, Refusal>) -> Answered<T> {
    let value: Ready<_> = ready(value);
    Box::pin(value)
}

/// What the fakes know.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) accounts: HashSet<String>,
    pub(crate) kick_time_s: HashMap<String, u64>,
    pub(crate) sign_outs: Vec<session::SignOutRequest>,
    pub(crate) sessions: Vec<session::Session>,
    pub(crate) stale: Vec<String>,
    pub(crate) logs: BTreeMap<(String, String), Vec<msg::Message>>,
    pub(crate) sends: Vec<msg::Message>,
    pub(crate) group_sends: Vec<group::SendRequest>,
    pub(crate) reads: Vec<messages::ReadGroupRequest>,
    pub(crate) deltas: Vec<group::LiveDeltaRequest>,
    /// Answered to one-to-one sends of a text that contains the key.
    pub(crate) refuse: HashMap<String, Refusal>,
    pub(crate) slow: HashMap<String, Duration>,
    pub(crate) joined: Vec<group::JoinedGroup>,
    /// Questions for the groups of a user that are not answered yet.
    pub(crate) joined_busy: u32,
    pub(crate) live: Option<delivery::LiveState>,
    frames: u64,
}

pub(crate) struct Node {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) running: Running,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) rng: Rng,
    pub(crate) node: NodeId,
    pub(crate) cluster: Cluster,
}

pub(crate) fn app(settings: AppSettings) -> App {
    App { id: SdkAppId(APP), key: KEY.into(), previous: None, admins: vec![], settings, enabled: true }
}

fn account_service(world: &Arc<Mutex<World>>) -> Router {
    let (lookup, import) = (Arc::clone(world), Arc::clone(world));
    let router = method(Router::new(), "/linnet.account.v1.Accounts/Lookup", move |ask: account::LookupRequest| {
        let world = lookup.lock();
        let account = |user: String| account::Account {
            exists: world.accounts.contains(&user),
            kick_time_s: world.kick_time_s.get(&user).copied().unwrap_or_default(),
            user,
            ..account::Account::default()
        };
        now(Ok(account::LookupReply { accounts: ask.users.into_iter().map(account).collect() }))
    });
    method(router, "/linnet.account.v1.Accounts/Import", move |ask: account::ImportRequest| {
        import.lock().accounts.extend(ask.accounts.into_iter().map(|account| account.user));
        now(Ok(account::ImportReply::default()))
    })
}

fn session_service(world: &Arc<Mutex<World>>) -> Router {
    let (w1, w2, w3) = (Arc::clone(world), Arc::clone(world), Arc::clone(world));
    let router = method(Router::new(), "/linnet.session.v1.Sessions/SignIn", move |ask: session::SignInRequest| {
        let mut world = w1.lock();
        let new = ask.session.expect("a session");
        let older = |old: &session::Session| old.user == new.user && old.platform == new.platform;
        let (kicked, kept) = std::mem::take(&mut world.sessions).into_iter().partition(older);
        world.sessions = kept;
        world.sessions.push(new);
        now(Ok(session::SignInReply { kicked }))
    });
    let router = method(router, "/linnet.session.v1.Sessions/SignOut", move |ask: session::SignOutRequest| {
        let mut world = w2.lock();
        world.sessions.retain(|session| session.connection != ask.connection);
        world.sign_outs.push(ask);
        now(Ok(session::SignOutReply {}))
    });
    let router = method(router, "/linnet.session.v1.Sessions/Refresh", move |_: session::RefreshRequest| {
        now(Ok(session::RefreshReply { stale: w3.lock().stale.clone() }))
    });
    method(router, "/linnet.session.v1.Sessions/EnterRoom", |_: session::EnterRoomRequest| {
        now(Ok(session::EnterRoomReply::default()))
    })
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (a, b) = if one <= other { (one, other) } else { (other, one) };
    (a.to_owned(), b.to_owned())
}

/// The fake owner of pairs: appends, publishes to both, answers.
async fn send_c2c(
    world: Arc<Mutex<World>>,
    bus: Bus,
    clock: Clock,
    gateway: NodeId,
    ask: messages::SendC2cRequest,
) -> Result<msg::SendReply, Refusal> {
    let mut message = ask.message.expect("a message");
    let text = String::from_utf8_lossy(&message.body).into_owned();
    let (refused, slow) = {
        let world = world.lock();
        let refused = world.refuse.iter().find(|(key, _)| text.contains(*key)).map(|(_, why)| why.clone());
        (refused, world.slow.iter().find(|(key, _)| text.contains(*key)).map(|(_, wait)| *wait))
    };
    world.lock().sends.push(message.clone());
    if let Some(wait) = slow {
        tokio::time::sleep(wait).await;
    }
    if let Some(why) = refused {
        return Err(why);
    }
    let key = pair(&message.from, &ask.to);
    let known = world.lock().logs.get(&key).and_then(|log| {
        log.iter().find(|old| old.random == message.random && old.content_hash == message.content_hash).cloned()
    });
    if let Some(old) = known {
        return Ok(reply(&old, true));
    }
    message.time_ms = clock.now().0;
    {
        let mut world = world.lock();
        let log = world.logs.entry(key.clone()).or_default();
        message.seq = log.len() as u64 + 1;
        log.push(message.clone());
    }
    let record = Record {
        except_connection: ask.origin.expect("an origin").connection,
        kind: Some(record::Kind::Message(message.clone())),
        ..Record::default()
    };
    let batch = Batch {
        app: ask.app,
        conv: 7,
        key: Some(batch::Key::Pair(delivery::Pair { a: key.0.clone(), b: key.1.clone() })),
        records: vec![record],
        head_seq: message.seq,
        users: vec![key.0, key.1],
        ..Batch::default()
    };
    publish(&world, &bus, &gateway, batch).await;
    Ok(reply(&message, false))
}

fn reply(message: &msg::Message, duplicate: bool) -> msg::SendReply {
    msg::SendReply {
        outcome: msg::Outcome::Stored.into(),
        seq: message.seq,
        time_ms: message.time_ms,
        msg_seq: message.msg_seq,
        random: message.random,
        duplicate,
        ..msg::SendReply::default()
    }
}

/// A direct frame of the fake owner.
pub(crate) async fn publish(world: &Mutex<World>, bus: &Bus, gateway: &NodeId, batch: Batch) {
    let no = {
        let mut world = world.lock();
        world.frames += 1;
        world.frames
    };
    let frame = Frame { owner: "owner-1".into(), incarnation: 1, no, prev: no - 1, batches: vec![batch] };
    let envelope = Envelope { kind: Some(envelope::Kind::Frame(frame)), service: "message-store".into() };
    bus.publish(subject::gw(gateway), envelope.encode_to_vec().into()).await.expect("the bus is open");
}

fn message_service(world: &Arc<Mutex<World>>, bus: &Bus, clock: &Clock, gateway: &NodeId) -> Router {
    let (w, bus, clock, gateway) = (Arc::clone(world), bus.clone(), clock.clone(), gateway.clone());
    let router = method(Router::new(), "/linnet.messages.v1.Messages/SendC2c", move |ask| {
        Box::pin(send_c2c(Arc::clone(&w), bus.clone(), clock.clone(), gateway.clone(), ask))
    });
    let (w1, w2, w3) = (Arc::clone(world), Arc::clone(world), Arc::clone(world));
    let router = method(router, "/linnet.messages.v1.Messages/Sync", move |ask: messages::SyncRequest| {
        let world = w1.lock();
        let conversations = world.logs.iter().filter_map(|((a, b), log)| {
            let peer = if *a == ask.user { b } else { (*b == ask.user).then_some(a)? };
            Some(messages::Conversation {
                key: format!("C2C:{peer}"),
                head_seq: log.len() as u64,
                first_seq: 1,
                generation: 1,
                last: log.last().cloned(),
                ..messages::Conversation::default()
            })
        });
        let conversations = conversations.collect();
        now(Ok(messages::SyncReply { conversations, position_ms: 1, ..messages::SyncReply::default() }))
    });
    let router = method(router, "/linnet.messages.v1.Messages/History", move |ask: messages::HistoryRequest| {
        let log = w2.lock().logs.get(&pair(&ask.peer_a, &ask.peer_b)).cloned().unwrap_or_default();
        let head = log.len() as u64;
        let to = if ask.to_seq == 0 { head } else { ask.to_seq.min(head) };
        let found = log.into_iter().filter(|m| m.seq >= ask.from_seq.max(1) && m.seq <= to);
        let messages: Vec<_> = found.take(ask.limit as usize).collect();
        let covered_to = messages.last().map_or(to, |m| m.seq);
        now(Ok(messages::HistoryReply {
            messages,
            covered_from: ask.from_seq,
            covered_to,
            first_seq: 1,
            head,
            complete: covered_to >= to,
            generation: 1,
            ..messages::HistoryReply::default()
        }))
    });
    method(router, "/linnet.messages.v1.Messages/ReadGroup", move |ask: messages::ReadGroupRequest| {
        let read_seq = ask.seq;
        w3.lock().reads.push(ask);
        now(Ok(messages::ReadGroupReply { read_seq }))
    })
}

/// Conversation of the live room `live` and of the large group `large`.
pub(crate) const LIVE: u64 = 100;
pub(crate) const LARGE: u64 = 200;

fn group_service(world: &Arc<Mutex<World>>) -> Router {
    let w0 = Arc::clone(world);
    let router = method(Router::new(), "/linnet.group.v1.Groups/Join", move |ask: group::JoinRequest| {
        let banned = w0.lock().live.as_ref().is_some_and(|live| live.banned.contains_key(&ask.user));
        if banned && ask.group_id == "live" {
            return now(Err(Refusal::new(code::GROUP_NO_RIGHT, "banned")));
        }
        let status = if ask.group_id == "live" { "live" } else { "joined" };
        let group = group::Group {
            group_id: ask.group_id,
            r#type: if status == "live" { "AVChatRoom" } else { "Public" }.into(),
            ..group::Group::default()
        };
        now(Ok(group::JoinReply { status: status.into(), conv: LIVE, group: Some(group) }))
    });
    let (w1, w2, w3, w4) = (Arc::clone(world), Arc::clone(world), Arc::clone(world), Arc::clone(world));
    let router = method(router, "/linnet.group.v1.Groups/Joined", move |_: group::JoinedRequest| {
        let mut world = w1.lock();
        if world.joined_busy > 0 {
            world.joined_busy -= 1;
            return now(Err(refusal(Some(100))));
        }
        now(Ok(group::JoinedReply { groups: world.joined.clone(), total: 0 }))
    });
    let router = method(router, "/linnet.group.v1.Groups/Send", move |ask: group::SendRequest| {
        let sent = ask.message.clone().expect("a message");
        w2.lock().group_sends.push(ask);
        let reply = msg::SendReply {
            outcome: msg::Outcome::Published.into(),
            random: sent.random,
            ..msg::SendReply::default()
        };
        now(Ok(reply))
    });
    let router = method(router, "/linnet.group.v1.Groups/LiveDelta", move |ask: group::LiveDeltaRequest| {
        let online = ask.local;
        w3.lock().deltas.push(ask);
        now(Ok(group::LiveDeltaReply { online, ..group::LiveDeltaReply::default() }))
    });
    method(router, "/linnet.delivery.v1.Delivery/Register", move |ask: delivery::RegisterRequest| {
        let live = (ask.conv == LIVE).then(|| w4.lock().live.clone().unwrap_or_default());
        now(Ok(delivery::RegisterReply { tenure: 1, live, ..Default::default() }))
    })
}

impl Node {
    pub(crate) async fn start(config: Config) -> Self {
        Self::with(config, AppSettings::default()).await
    }

    pub(crate) async fn with(config: Config, settings: AppSettings) -> Self {
        let (metrics, clock, rng) = (Metrics::new(), Clock::system(), Rng::system());
        let tasks = Tasks::new(&metrics);
        let node = NodeId::trusted("node-1");
        let cluster = Cluster::alone(node.clone(), RpcConfig::default(), &metrics);
        let bus = Bus::new(Local::new(&metrics));
        let world: Arc<Mutex<World>> = Arc::default();
        let apps = Apps::fixed([app(settings)]);
        for (service, router) in [
            (Service::Account, account_service(&world)),
            (Service::Session, session_service(&world)),
            (Service::MessageStore, message_service(&world, &bus, &clock, &node)),
            (Service::Group, group_service(&world)),
        ] {
            cluster.register_local(&node, service, Routes::from(router));
        }
        let deps = Deps {
            node: node.clone(),
            incarnation: 1,
            site: "site".into(),
            cluster: cluster.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            rng: rng.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            apps,
        };
        let running = linnet_gateway::start(config, deps).await.expect("starts");
        cluster.register_local(&node, Service::Gateway, running.routes.clone());
        let address = serve(running.gateway.clone(), &tasks).await;
        Self { world, bus, clock, running, metrics, address, tasks, rng, node, cluster }
    }

    pub(crate) fn sig(&self, user: &str) -> String {
        self.sig_for(user, 3600)
    }

    /// One that ends after `expire_s`.
    pub(crate) fn sig_for(&self, user: &str, expire_s: u64) -> String {
        let claims = Claims {
            app: SdkAppId(APP),
            identifier: user.into(),
            time_s: self.clock.now().secs(),
            expire_s,
            userbuf: None,
        };
        sign(&claims, KEY)
    }

    pub(crate) fn options(&self, user: &str) -> Options {
        Options::new(format!("ws://{}/ws", self.address), APP, user, self.sig(user))
    }

    pub(crate) async fn client(&self, user: &str) -> (Client, Events) {
        self.connect(self.options(user)).await
    }

    pub(crate) async fn connect(&self, options: Options) -> (Client, Events) {
        Client::connect(options, &self.tasks, self.rng.clone()).await.expect("signs in")
    }

    /// A batch of a registered conversation, as its owner publishes it.
    pub(crate) async fn fan(&self, batch: Batch) {
        let conv = batch.conv.into();
        let envelope = Envelope { kind: Some(envelope::Kind::Batch(batch)), service: "group".into() };
        self.bus.publish(subject::fan("site", conv), envelope.encode_to_vec().into()).await.expect("the bus is open");
    }

    /// The three terms that must add up, and do once nothing is pending.
    pub(crate) async fn accounts_add_up(&self) {
        eventually("deliveries are accounted for", || {
            let t = self.running.gateway.totals();
            let sum = t.written + t.collapsed + t.dropped + t.connection_closed;
            t.pending == 0 && t.receivers_at_arrival == sum
        })
        .await;
    }
}

async fn serve(gateway: Gateway, tasks: &Tasks) -> SocketAddr {
    let listener = linnet_gateway::listen(([127, 0, 0, 1], 0).into()).expect("binds");
    let address = listener.local_addr().expect("bound");
    let router = router(gateway);
    tasks.spawn("test.http", async move { axum::serve(listener, router).await.expect("serves") });
    address
}

pub(crate) fn router(gateway: Gateway) -> Router {
    let handler = move |request: axum::extract::Request| {
        let gateway = gateway.clone();
        async move { gateway.upgrade(request, "127.0.0.1").map(axum::body::Body::new) }
    };
    Router::new().route("/ws", any(handler.clone())).route("/binfo", any(handler))
}

/// Waits for a fact, at most 10 s.
pub(crate) async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(tokio::time::Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A refusal with a code, for the fakes.
pub(crate) fn refusal(retry_after_ms: Option<u32>) -> Refusal {
    match retry_after_ms {
        Some(ms) => Refusal::retry(code::BUSY, "moving", ms),
        None => Refusal::new(code::C2C_MUTED, "muted"),
    }
}

/// A way to the gateway that can be cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    cut: tokio::sync::watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(node: &Node) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (cut, seen) = tokio::sync::watch::channel(0);
        let (target, tasks) = (node.address, node.tasks.clone());
        node.tasks.spawn("test.proxy", async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut seen = seen.clone();
                seen.mark_unchanged();
                tasks.spawn("test.proxy.path", async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.expect("connects");
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Cuts every path that exists now.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}
