//! Several callback nodes over one stored queue: who delivers, in what order, when nodes come, go and disagree.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use linnet_admission::apps::{App, Apps};
use linnet_bus::{Bus, FaultPlan, Faulty, Local};
use linnet_callback::{Config, Deps};
use linnet_cluster::{Cluster, LocalNet, Members, Node, Rpc, RpcConfig, Script, Service};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{EnqueueRequest, Event, PostRequest};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::{Embedded, Store};
use linnet_types::{AppSettings, NodeId, SdkAppId};
use parking_lot::Mutex;

const APP: SdkAppId = SdkAppId(1_400_000_001);
const COMMAND: &str = "Group.CallbackAfterSendMsg";

/// What the app's server got: numbers by key, in the order they came, and the request ids.
#[derive(Default)]
struct Got {
    by_key: Mutex<BTreeMap<String, Vec<u64>>>,
    ids: Mutex<HashMap<String, BTreeSet<(String, u64)>>>,
    down: AtomicBool,
    slow_ms: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Got {
    fn distinct(&self) -> usize {
        self.by_key.lock().values().map(|numbers| numbers.iter().collect::<BTreeSet<_>>().len()).sum()
    }

    fn all(&self) -> usize {
        self.by_key.lock().values().map(Vec::len).sum()
    }

    /// Without repetitions, every key came as it was sent.
    fn assert_in_order(&self) {
        for (key, numbers) in &*self.by_key.lock() {
            let mut seen = BTreeSet::new();
            let first: Vec<_> = numbers.iter().filter(|number| seen.insert(**number)).collect();
            assert!(first.is_sorted(), "{key}: {numbers:?}");
        }
        for (id, events) in &*self.ids.lock() {
            assert_eq!(events.len(), 1, "RequestID {id} names one event");
        }
    }
}

async fn hook(
    State(got): State<Arc<Got>>,
    Query(query): Query<HashMap<String, String>>,
    body: String,
) -> (StatusCode, &'static str) {
    let now = got.now.fetch_add(1, Ordering::SeqCst) + 1;
    got.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(got.slow_ms.load(Ordering::SeqCst) as u64)).await;
    got.now.fetch_sub(1, Ordering::SeqCst);
    if got.down.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, "");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (key, number) = (body["Key"].as_str().unwrap().to_owned(), body["No"].as_u64().unwrap());
    got.by_key.lock().entry(key.clone()).or_default().push(number);
    got.ids.lock().entry(query["RequestID"].clone()).or_default().insert((key, number));
    (StatusCode::OK, r#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}"#)
}

struct World {
    got: Arc<Got>,
    nodes: Vec<CallbacksClient<Rpc>>,
    clusters: Vec<Cluster>,
    scripts: Vec<Script>,
    tasks: Vec<Tasks>,
    bus: Faulty,
    _folder: tempfile::TempDir,
}

fn name(node: usize) -> NodeId {
    NodeId::trusted(format!("c{node}"))
}

fn members(nodes: impl IntoIterator<Item = usize>) -> Vec<Node> {
    nodes.into_iter().map(|node| Node::new(name(node), [Service::Callback])).collect()
}

async fn world(nodes: usize) -> World {
    // An error means that another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (got, metrics, clock) = (Arc::new(Got::default()), Metrics::new(), Clock::system());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(hook)).with_state(Arc::clone(&got));
    let tasks = Tasks::new(&metrics);
    tasks.spawn("hook", async move { axum::serve(listener, router).await });
    let settings = AppSettings {
        webhook_url: url,
        webhook_events: COMMAND.to_owned(),
        webhook_timeout_ms: 10_000,
        ..AppSettings::default()
    };
    let app = App { id: APP, key: "k".into(), previous: None, admins: Vec::new(), settings, enabled: true };
    let folder = tempfile::tempdir().unwrap();
    let options = linnet_store::embedded::Config::new(folder.path().join("store"));
    let store: Store = Embedded::open(options, clock.clone(), &metrics).unwrap();
    let net = LocalNet::new(RpcConfig::default(), &metrics);
    let bus = Faulty::new(Local::new(&metrics).bus(), Rng::seeded(1), tasks.clone());
    let (clusters, scripts) = (Vec::new(), Vec::new());
    let mut world = World { got, nodes: Vec::new(), clusters, scripts, tasks: vec![tasks], bus, _folder: folder };
    for node in 0..nodes {
        let (members, script) = Members::scripted(members(0..nodes));
        let cluster = Cluster::new(name(node), members, net.clone(), &metrics);
        world.start(node, &cluster, store.clone(), world.bus.bus(), app.clone(), &clock);
        world.nodes.push(CallbacksClient::new(cluster.for_node(Service::Callback, &name(node)).unwrap()));
        world.clusters.push(cluster);
        world.scripts.push(script);
    }
    world
}

impl World {
    fn start(&mut self, node: usize, cluster: &Cluster, store: Store, bus: Bus, app: App, clock: &Clock) {
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        let deps = Deps {
            cluster: cluster.clone(),
            bus,
            store,
            apps: Apps::fixed([app]),
            clock: clock.clone(),
            rng: Rng::seeded(node as u64),
            tasks: tasks.clone(),
            metrics,
        };
        let running = linnet_callback::start(&Config { allow_private: true }, deps).unwrap();
        cluster.register_local(&name(node), Service::Callback, running.routes);
        self.tasks.push(tasks);
    }

    async fn enqueue(&self, node: usize, events: Vec<Event>) {
        self.nodes[node].clone().enqueue(EnqueueRequest { events }).await.unwrap();
    }

    async fn eventually(&self, what: &str, within: Duration, holds: impl Fn(&Got) -> bool) {
        let end = tokio::time::Instant::now() + within;
        while !holds(&self.got) {
            assert!(tokio::time::Instant::now() < end, "not within {within:?}: {what}: {} came", self.got.distinct());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        for tasks in self.tasks.iter().rev() {
            tasks.shutdown(Duration::from_millis(500)).await;
        }
    }
}

/// Event `number` of `key`; later ones are later.
fn event(key: &str, number: u64) -> Event {
    let body = serde_json::json!({ "Key": key, "No": number });
    Event {
        app: APP.0,
        command: COMMAND.to_owned(),
        key: key.to_owned(),
        id: format!("{key}/{number}"),
        body: body.to_string().into(),
        time_ms: 1_700_000_000_000 + number,
        ..Event::default()
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("c{n}")).collect()
}

/// Whichever node is given events, their owner delivers them at once: no wake-up over the bus is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_bus_delays_nothing() {
    let world = world(3).await;
    world.bus.set(FaultPlan::dropping(100));
    for number in 0..5 {
        let events = keys(40).iter().map(|key| event(key, number)).collect();
        world.enqueue(number as usize % 3, events).await;
    }
    world.eventually("all are delivered", Duration::from_secs(4), |got| got.distinct() == 200).await;
    world.got.assert_in_order();
    assert_eq!(world.got.all(), 200, "and once");
    world.end().await;
}

/// Events of no consequence keep their order, too, through whichever node they go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_not_stored_keep_their_order_through_any_node() {
    let world = world(3).await;
    for number in 0..60 {
        let events = keys(5).iter().map(|key| event(key, number)).collect();
        world.nodes[number as usize % 3].clone().post(PostRequest { events }).await.unwrap();
    }
    world.eventually("all are delivered", Duration::from_secs(5), |got| got.distinct() == 300).await;
    let got = world.got.by_key.lock().clone();
    assert!(got.values().all(|numbers| numbers.is_sorted()), "{got:?}");
    world.end().await;
}

/// A node dies with work in its partitions; those left deliver it when their rings say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_owned_is_taken_over() {
    let world = world(2).await;
    world.got.slow_ms.store(50, Ordering::SeqCst);
    for number in 0..20 {
        world.enqueue(0, keys(20).iter().map(|key| event(key, number)).collect()).await;
    }
    world.eventually("some are delivered", Duration::from_secs(5), |got| got.distinct() > 40).await;
    // Killed: in the middle of what it does.
    world.tasks[2].shutdown(Duration::ZERO).await;
    world.scripts[0].leave(&name(1));
    world.eventually("all are delivered", Duration::from_secs(8), |got| got.distinct() == 400).await;
    world.got.assert_in_order();
    world.end().await;
}

/// Both nodes believe they own everything: some events come twice, with the same id; none is lost, none overtakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_repeat_but_neither_lose_nor_reorder() {
    let world = world(2).await;
    world.got.slow_ms.store(5, Ordering::SeqCst);
    world.scripts[0].set(members([0]));
    world.scripts[1].set(members([1]));
    for number in 0..20 {
        world.enqueue(number as usize % 2, keys(10).iter().map(|key| event(key, number)).collect()).await;
    }
    world.eventually("all are delivered", Duration::from_secs(8), |got| got.distinct() == 200).await;
    // They agree again.
    world.scripts[0].set(members(0..2));
    world.scripts[1].set(members(0..2));
    world.enqueue(0, keys(10).iter().map(|key| event(key, 20)).collect()).await;
    world.eventually("the last, too", Duration::from_secs(4), |got| got.distinct() == 210).await;
    world.got.assert_in_order();
    world.end().await;
}

/// The ring moves while events come and go; the server is down for a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_ring_and_a_server_that_fails_lose_nothing() {
    let world = world(3).await;
    let views: [&[usize]; 4] = [&[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
    for number in 0..24 {
        let step = number as usize / 2;
        world.got.down.store((2..4).contains(&step), Ordering::SeqCst);
        for (node, script) in world.scripts.iter().enumerate() {
            script.set(members(views[(step + node) % views.len()].iter().copied()));
        }
        world.enqueue(number as usize % 3, keys(8).iter().map(|key| event(key, number)).collect()).await;
    }
    world.scripts.iter().for_each(|script| script.set(members(0..3)));
    world.eventually("all are delivered", Duration::from_secs(20), |got| got.distinct() == 192).await;
    world.got.assert_in_order();
    world.end().await;
}

/// Thousands of conversations have something to tell: the server is not asked for all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_gets_a_bounded_number_of_calls_at_once() {
    let world = world(1).await;
    world.got.slow_ms.store(20, Ordering::SeqCst);
    for keys in keys(2_000).chunks(500) {
        world.enqueue(0, keys.iter().map(|key| event(key, 0)).collect()).await;
    }
    world.eventually("all are delivered", Duration::from_secs(30), |got| got.distinct() == 2_000).await;
    let most = world.got.most.load(Ordering::SeqCst);
    assert!((50..=256).contains(&most), "{most} at once");
    world.end().await;
}
