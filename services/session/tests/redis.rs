//! The directory on real Redis servers that are emptied, paused and killed, and two session nodes that share one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::{App, Apps};
use linnet_bus::{Bus, Event, Local, Subscription, subject};
use linnet_cluster::{Cluster, LocalNet, Members, Node, Rpc, RpcConfig, Service};
use linnet_local::servers::{self, Server};
use linnet_proto::delivery::{Envelope, envelope};
use linnet_proto::session::sessions_client::SessionsClient;
use linnet_proto::session::{self as pb, SayAgain};
use linnet_runtime::config::Secret;
use linnet_runtime::status::from_status;
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks};
use linnet_session::Deps;
use linnet_session::directory::{Config, DEAD_AFTER_MS, Directory, Error, Kit, Policy, Redis, Session, SignedIn, View};
use linnet_types::{AppSettings, NodeId, Platform, SdkAppId, UnixMillis, UserId, code};
use prost::Message as _;

const APP: SdkAppId = SdkAppId(1_400_000_001);
const ONE: Policy = Policy { mode: 4, web_instances: 1 };

fn config(server: &Server, scheme: &str) -> Config {
    let urls = server.addresses().iter().map(|address| format!("{scheme}://{address}")).collect();
    Config { backend: "redis".to_owned(), urls, ..Config::default() }
}

fn kit(clock: &Clock) -> Kit {
    let metrics = Metrics::new();
    let (tasks, check) = (Tasks::new(&metrics), Health::new().check("directory"));
    Kit { clock: clock.clone(), rng: Rng::system(), tasks, metrics, check }
}

async fn open(server: &Server, cluster: &str, clock: &Clock) -> Redis {
    Redis::open(&config(server, "redis"), cluster, kit(clock)).await.unwrap()
}

fn own_name() -> String {
    format!("test-{}", Rng::system().token(8))
}

fn view(clock: &Clock) -> View {
    View { now: clock.now(), gateways: BTreeMap::from([("g1", 1), ("g2", 1)].map(|(g, n)| (NodeId::trusted(g), n))) }
}

fn session(user: &str, platform: Platform, connection: &str, at: UnixMillis) -> Session {
    let (gateway, _) = connection.split_once('/').unwrap();
    Session {
        app: APP,
        user: UserId::trusted(user),
        platform,
        instance: format!("i-{connection}"),
        gateway: NodeId::trusted(gateway),
        incarnation: 1,
        connection: connection.to_owned(),
        signed_in: at,
        ip: "192.0.2.1".to_owned(),
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + within;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn command(server: &Server, words: &[&str]) {
    let client = redis::Client::open(format!("redis://{}", server.address())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).exec_async(&mut connection).await.unwrap();
}

// ---- the directory ----

/// 200 sign-ins of one user at two nodes at once: the policy's one session is left, and everybody else was pushed out by
/// exactly one newcomer, so exactly one of them is told to close each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_sign_in_one_user_at_once_agree() {
    let (server, clock, name) = (servers::redis().await.unwrap(), Clock::system(), own_name());
    let nodes = [Arc::new(open(server, &name, &clock).await), Arc::new(open(server, &name, &clock).await)];
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (node, clock) = (Arc::clone(&nodes[n % 2]), clock.clone());
        calls.spawn(async move {
            let session = session("alice", Platform::Web, &format!("g{}/{n}", n % 2 + 1), clock.now());
            let outcome = node.sign_in(session, ONE, &view(&clock)).await;
            let live = node.list(APP, &UserId::trusted("alice"), &view(&clock)).await.unwrap();
            assert!(live.len() <= 1, "{live:?}");
            outcome
        });
    }
    let outcomes: Vec<Result<SignedIn, Error>> = calls.join_all().await;
    let recorded = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(recorded, 200, "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
    let kicked: Vec<String> =
        outcomes.into_iter().flat_map(|outcome| outcome.unwrap().kicked).map(|session| session.connection).collect();
    assert_eq!(kicked.len(), 199);
    assert_eq!(kicked.iter().collect::<BTreeSet<_>>().len(), 199, "nobody is pushed out twice");
    let live = nodes[0].list(APP, &UserId::trusted("alice"), &view(&clock)).await.unwrap();
    assert!(live.len() == 1 && !kicked.contains(&live[0].connection));
    assert_eq!(nodes[1].total().await.unwrap(), 1);
}

/// Nodes share the work of ending the dead: each session ends once, wherever it was recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_sessions_end_once_however_many_nodes_look() {
    let (server, clock, name) = (servers::redis().await.unwrap(), Clock::system(), own_name());
    let nodes = [
        Arc::new(open(server, &name, &clock).await.with_callers_time()),
        Arc::new(open(server, &name, &clock).await.with_callers_time()),
    ];
    let now = clock.now();
    let sessions: Vec<_> =
        (0..1500).map(|n| (session(&format!("user-{n}"), Platform::Web, &format!("g1/{n}"), now), ONE)).collect();
    let begun = nodes[0].refresh(sessions, &View { now, ..view(&clock) }).await.unwrap();
    assert_eq!((begun.changes.len(), nodes[1].total().await.unwrap()), (1500, 1500));
    let later = View { now: now.plus_ms(DEAD_AFTER_MS + 2), ..view(&clock) };
    let mut looks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (node, later) = (Arc::clone(&nodes[n % 2]), later.clone());
        looks.spawn(async move { node.expire(&later).await.unwrap() });
    }
    let expired: Vec<_> = looks.join_all().await;
    let ended: Vec<_> = expired.iter().flat_map(|expired| &expired.sessions).map(|ended| &ended.connection).collect();
    assert_eq!(ended.len(), 1500);
    assert_eq!(ended.iter().collect::<BTreeSet<_>>().len(), 1500);
    assert_eq!(expired.iter().map(|expired| expired.changes.len()).sum::<usize>(), 1500);
    assert_eq!(nodes[0].total().await.unwrap(), 0);
}

/// Users spread over two servers; one that is away costs its own users only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_other_server_do_not_notice() {
    let server = servers::Redis { nodes: 2, ..servers::Redis::default() }.start().await.unwrap();
    let clock = Clock::system();
    let directory = open(&server, "shards", &clock).await;
    let now = clock.now();
    let users: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    let sessions = users.iter().map(|user| (session(user, Platform::Web, &format!("g1/{user}"), now), ONE)).collect();
    assert_eq!(directory.refresh(sessions, &view(&clock)).await.unwrap().changes.len(), 40);
    assert_eq!(directory.total().await.unwrap(), 40);
    server.kill(1).unwrap();
    let mut known = 0;
    for user in &users {
        known += usize::from(directory.places(APP, &[UserId::trusted(user.as_str())], &view(&clock)).await.is_ok());
    }
    assert!((8..=32).contains(&known), "{known} of 40 on the server that is left");
}

/// A node whose clock is five minutes ahead ends nobody's session and sees nobody gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_ends_nothing() {
    let (server, clock, name) = (servers::redis().await.unwrap(), Clock::system(), own_name());
    let ahead = clock.skewed(300_000);
    let (right, wrong) = (open(server, &name, &clock).await, open(server, &name, &ahead).await);
    let alice = UserId::trusted("alice");
    right.sign_in(session("alice", Platform::Web, "g1/1", clock.now()), ONE, &view(&clock)).await.unwrap();
    let placed = wrong.places(APP, std::slice::from_ref(&alice), &view(&ahead)).await.unwrap();
    assert_eq!(placed[0].gateways, [NodeId::trusted("g1")]);
    wrong.sign_in(session("bob", Platform::Web, "g2/1", ahead.now()), ONE, &view(&ahead)).await.unwrap();
    assert_eq!(wrong.expire(&view(&ahead)).await.unwrap().sessions, []);
    let apart = wrong.now(&view(&ahead)).0.abs_diff(right.now(&view(&clock)).0);
    assert!(apart < 2_000, "both go by the server's clock: {apart} ms apart");
    let placed = right.places(APP, &[UserId::trusted("bob"), alice], &view(&clock)).await.unwrap();
    assert_eq!(placed.iter().map(|placed| placed.gateways.len()).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_a_private_authority_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let tls = linnet_local::certs::make(folder.path(), &[]).unwrap();
    let password = "a long password: 42".replace([' ', ':'], "-");
    let server = servers::Redis { password: Some(password.clone()), tls: Some(tls.clone()), ..Default::default() };
    let server = server.start().await.unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let right = Config {
        user: "linnet".to_owned(),
        password: Secret::new(password),
        tls_ca: path(&tls.ca),
        tls_cert: path(&tls.client_cert),
        tls_key: path(&tls.client_key),
        ..config(&server, "rediss")
    };
    let clock = Clock::system();
    let works = |config: Config| {
        let clock = clock.clone();
        async move {
            let directory = Redis::open(&config, "tls", kit(&clock)).await.unwrap();
            let session = session("alice", Platform::Web, "g1/1", clock.now());
            directory.sign_in(session, ONE, &view(&clock)).await.is_ok()
        }
    };
    assert!(works(right.clone()).await);
    assert!(!works(Config { password: Secret::new("wrong"), ..right.clone() }).await, "another password");
    assert!(!works(Config { user: String::new(), password: Secret::default(), ..right.clone() }).await, "nobody");
    assert!(!works(Config { tls_ca: String::new(), ..right.clone() }).await, "the authority is not the machine's");
    assert!(!works(Config { urls: config(&server, "redis").urls, ..right.clone() }).await, "without TLS");
    let missing = Config { tls_ca: path(&folder.path().join("none.pem")), ..right };
    assert!(Redis::open(&missing, "tls", kit(&clock)).await.is_err(), "a file that is not there is said at the start");
}

// ---- the service ----

/// Session nodes that share a server and a bus.
struct World {
    nodes: Vec<SessionsClient<Rpc>>,
    bus: Bus,
    clock: Clock,
    tasks: Vec<Tasks>,
}

async fn world(server: &Server, nodes: usize) -> World {
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let bus = Local::new(&metrics).bus();
    let net = LocalNet::new(RpcConfig::default(), &metrics);
    let settings = AppSettings { login_mode: 4, web_instances: 1, ..AppSettings::default() };
    let app = App { id: APP, key: "k".into(), previous: None, admins: Vec::new(), settings, enabled: true };
    let mut world = World { nodes: Vec::new(), bus: bus.clone(), clock: clock.clone(), tasks: Vec::new() };
    for n in 0..nodes {
        let me = NodeId::trusted(format!("s{n}"));
        let sessions = (0..nodes).map(|n| (format!("s{n}"), Service::Session));
        let gateways = ["g1", "g2"].map(|name| (name.to_owned(), Service::Gateway));
        let all = sessions.chain(gateways).map(|(name, service)| Node::new(NodeId::trusted(name), [service]));
        let cluster = Cluster::new(me.clone(), Members::scripted(all).0, net.clone(), &metrics);
        let directory = open(server, "world", &clock).await;
        let tasks = Tasks::new(&metrics);
        let running = linnet_session::start(Deps {
            cluster: cluster.clone(),
            bus: bus.clone(),
            apps: Apps::fixed([app.clone()]),
            directory: Arc::new(directory),
            clock: clock.clone(),
            tasks: tasks.clone(),
            metrics: Metrics::new(),
        });
        cluster.register_local(&me, Service::Session, running.routes.clone());
        world.nodes.push(SessionsClient::new(cluster.for_node(Service::Session, &me).unwrap()));
        world.tasks.push(tasks);
    }
    world
}

impl World {
    fn session(&self, user: &str, connection: &str, signed_in_ms: u64) -> pb::Session {
        pb::Session {
            app: APP.0,
            user: user.to_owned(),
            platform: "Web".to_owned(),
            instance: format!("i-{connection}"),
            gateway: connection.split_once('/').unwrap().0.to_owned(),
            gateway_incarnation: 1,
            connection: connection.to_owned(),
            signed_in_ms,
            client_ip: String::new(),
        }
    }

    async fn sign_in(&self, node: usize, user: &str, connection: &str) -> Result<Vec<String>, linnet_types::Refusal> {
        let session = Some(self.session(user, connection, self.clock.now().0));
        let reply = self.nodes[node].clone().sign_in(pb::SignInRequest { session, resumed: false }).await;
        let reply = reply.map_err(|why| from_status(&why).unwrap())?.into_inner();
        Ok(reply.kicked.into_iter().map(|session| session.connection).collect())
    }

    async fn places(&self, node: usize, user: &str) -> Option<Vec<String>> {
        let ask = pb::WhereRequest { app: APP.0, users: vec![user.to_owned()] };
        Some(self.nodes[node].clone().r#where(ask).await.ok()?.into_inner().places.remove(0).gateways)
    }

    async fn refresh(&self, node: usize, gateway: &str, sessions: Vec<pb::Session>) -> Option<Vec<String>> {
        let ask = pb::RefreshRequest { gateway: gateway.to_owned(), incarnation: 1, sessions };
        Some(self.nodes[node].clone().refresh(ask).await.ok()?.into_inner().stale)
    }

    async fn losses(&self) -> Subscription {
        self.bus.subscribe(subject::directory()).await.unwrap()
    }

    async fn end(self) {
        for tasks in self.tasks {
            tasks.shutdown(Duration::from_secs(1)).await;
        }
    }
}

async fn next_loss(losses: &mut Subscription, within: Duration) -> String {
    let event = tokio::time::timeout(within, losses.recv()).await.expect("gateways are asked in time");
    let Some(Event::Message { payload, .. }) = event else { panic!("lagged") };
    SayAgain::decode(payload).unwrap().loss
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_at_one_node_closes_the_session_recorded_at_the_other() {
    let server = servers::Redis::default().start().await.unwrap();
    let world = world(&server, 2).await;
    let mut g1 = world.bus.subscribe(subject::gw(&NodeId::trusted("g1"))).await.unwrap();
    let mut hints = world.bus.subscribe(subject::places()).await.unwrap();
    assert_eq!(world.sign_in(0, "alice", "g1/1").await.unwrap(), Vec::<String>::new());
    assert_eq!(world.sign_in(1, "alice", "g2/1").await.unwrap(), ["g1/1"]);
    let Some(Event::Message { payload, .. }) = g1.recv().await else { panic!("lagged") };
    let Some(envelope::Kind::Kick(kick)) = Envelope::decode(payload).unwrap().kind else { panic!("no kick") };
    assert_eq!((kick.user.as_str(), kick.connections), ("alice", vec!["g1/1".to_owned()]));
    let mut told = Vec::new();
    while told.len() < 2 {
        let Some(Event::Message { payload, .. }) = hints.recv().await else { panic!("lagged") };
        for user in pb::PlacesChanged::decode(payload).unwrap().users {
            let places = user.places.unwrap();
            if told.last() != Some(&places) {
                told.push(places);
            }
        }
    }
    assert_eq!((told[0].gateways.as_slice(), told[1].gateways.as_slice()), (&["g1".into()][..], &["g2".into()][..]));
    assert!(told[0].rev < told[1].rev);
    world.end().await;
}

/// FLUSHALL under connected users: gateways are asked within a second, nobody is "nowhere" meanwhile, and what they bring
/// is recorded, the newest winning over one whose kick was lost with the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_filled_again_by_the_gateways() {
    let server = servers::Redis::default().start().await.unwrap();
    let world = world(&server, 2).await;
    let mut losses = world.losses().await;
    world.sign_in(0, "alice", "g1/1").await.unwrap();
    world.sign_in(1, "bob", "g2/1").await.unwrap();
    let begun = world.clock.now().0;
    command(&server, &["FLUSHALL"]).await;
    assert_ne!(world.places(0, "alice").await, Some(Vec::new()), "unknown is not nowhere");
    let loss = next_loss(&mut losses, Duration::from_secs(2)).await;
    assert_ne!(world.places(1, "alice").await, Some(Vec::new()), "nor while gateways are asked");
    // A new sign-in does not wait for that, and an older session of the same user is out.
    world.sign_in(1, "alice", "g2/9").await.unwrap();
    let older = vec![world.session("alice", "g1/1", begun - 5_000)];
    assert_eq!(world.refresh(0, "g1", older).await.unwrap(), ["g1/1"]);
    let bob = vec![world.session("bob", "g2/1", begun - 5_000)];
    assert_eq!(world.refresh(1, "g2", bob).await.unwrap(), Vec::<String>::new());
    assert_eq!(world.places(0, "alice").await, Some(vec!["g2".to_owned()]));
    assert_eq!(world.places(0, "bob").await, Some(vec!["g2".to_owned()]));
    // Both nodes ask by the same name, so that gateways answer once.
    let mut names = BTreeSet::from([loss]);
    while let Some(Event::Message { payload, .. }) = losses.try_recv() {
        names.insert(SayAgain::decode(payload).unwrap().loss);
    }
    assert_eq!(names.len(), 1, "{names:?}");
    let settled = || async { world.places(0, "nobody").await == Some(Vec::new()) };
    eventually("who is nowhere is known again", Duration::from_secs(8), settled).await;
    world.end().await;
}

/// The server hangs, then is killed, then is back without what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_sign_ins_are_refused_with_a_time_to_come_back() {
    let server = Arc::new(servers::Redis::default().start().await.unwrap());
    let world = world(&server, 2).await;
    world.sign_in(0, "alice", "g1/1").await.unwrap();
    let refused = |connection: String| {
        let world = &world;
        async move {
            let began = tokio::time::Instant::now();
            let refusal = world.sign_in(0, "bob", &connection).await.unwrap_err();
            assert_eq!(refusal.code, code::BUSY);
            (began.elapsed(), refusal.retry_after_ms.unwrap())
        }
    };
    server.pause(0).unwrap();
    let (took, _) = refused("g1/2".to_owned()).await;
    assert!(took < Duration::from_millis(1_500), "the first waits for one time-out: {took:?}");
    let mut waits = BTreeSet::new();
    for n in 0..20 {
        let (took, wait) = refused(format!("g1/{}", n + 3)).await;
        assert!(took < Duration::from_millis(300), "the others are refused at once: {took:?}");
        assert!((1_000..=5_000).contains(&wait), "{wait}");
        waits.insert(wait);
    }
    assert!(waits.len() > 10, "they do not come back as one wave: {waits:?}");
    assert_eq!(world.places(1, "alice").await, None, "unknown");
    assert_eq!(world.refresh(0, "g1", vec![world.session("alice", "g1/1", 1)]).await, None, "nobody is called stale");
    server.resume(0).unwrap();
    let back = || async { world.sign_in(0, "bob", "g2/2").await.is_ok() };
    eventually("sign-ins are taken again", Duration::from_secs(3), back).await;
    assert_eq!(world.places(1, "alice").await, Some(vec!["g1".to_owned()]), "a pause loses nothing");

    let mut losses = world.losses().await;
    server.kill(0).unwrap();
    refused("g1/90".to_owned()).await;
    server.start_node(0).await.unwrap();
    next_loss(&mut losses, Duration::from_secs(5)).await;
    let alice = || async { world.refresh(1, "g1", vec![world.session("alice", "g1/1", 1)]).await == Some(Vec::new()) };
    eventually("alice is recorded again", Duration::from_secs(3), alice).await;
    assert_eq!(world.places(0, "alice").await, Some(vec!["g1".to_owned()]));
    world.end().await;
}
