//! The bus over real NATS servers: the suite, and what happens when they go and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use linnet_bus::{Bus, Config, Error, Event, Limits, Nats, Subscription, subject};
use linnet_local::servers::{self, Server};
use linnet_runtime::{Metrics, Rng, Tasks};

use crate::relay::{Mode, Relay};
use crate::suite::{conversation, next, publish, suite, text};

const CLUSTER: &str = "test";

/// One node's connection, with what counts it.
pub(crate) struct Node {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
    pub(crate) metrics: Metrics,
    _tasks: Tasks,
}

impl Node {
    pub(crate) async fn start(cluster: &str, config: Config) -> Self {
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        let connected = Nats::connect(config, cluster, "n", &metrics, &Rng::system(), &tasks).await;
        let nats = connected.expect("a configuration that can be used");
        Self { bus: nats.bus(), nats, metrics, _tasks: tasks }
    }

    pub(crate) async fn connected(&self, to: bool) {
        let mut connected = self.nats.connected();
        let limit = Duration::from_secs(20);
        let reached = tokio::time::timeout(limit, connected.wait_for(|up| *up == to)).await;
        assert!(reached.is_ok(), "connected did not become {to}: {:?}", self.nats.trouble());
    }
}

/// Tries often, so that tests are short.
pub(crate) fn config(addresses: &[String]) -> Config {
    Config {
        backend: "nats".to_owned(),
        urls: addresses.iter().map(|address| format!("nats://{address}")).collect(),
        ping_interval: "200ms".parse().expect("a span"),
        reconnect_pause: "200ms".parse().expect("a span"),
        ignore_discovered: true,
        ..Config::default()
    }
}

/// A name of its own for each test on the shared server.
fn cluster(test: &str) -> String {
    format!("{CLUSTER}-{test}-{}", Rng::system().token(4))
}

async fn shared(test: &str) -> Node {
    let server = servers::nats().await.expect("a NATS server");
    let node = Node::start(&cluster(test), config(server.addresses())).await;
    node.connected(true).await;
    node
}

async fn own() -> Arc<Server> {
    Arc::new(servers::Nats::default().start().await.expect("a NATS server"))
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next message; what else comes is returned by name.
async fn until_message(subscription: &mut Subscription, wanted: &str) -> u32 {
    let mut holes = 0;
    loop {
        match next(subscription).await {
            Some(Event::Lagged { .. }) => holes += 1,
            Some(Event::Message { payload, .. }) if payload == wanted.as_bytes() => return holes,
            other => panic!("expected {wanted}, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn conforms() {
    suite(shared("suite").await.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_several_threads() {
    suite(shared("threads").await.bus).await;
}

#[tokio::test]
async fn nodes_of_one_cluster_hear_each_other_and_other_clusters_do_not() {
    let server = servers::nats().await.expect("a NATS server");
    let (ours, theirs) = (cluster("ours"), cluster("theirs"));
    let (a, b) =
        (Node::start(&ours, config(server.addresses())).await, Node::start(&ours, config(server.addresses())).await);
    let other = Node::start(&theirs, config(server.addresses())).await;
    let mut at_b = b.bus.subscribe(subject::members()).await.expect("subscribed");
    let mut at_other = other.bus.subscribe(subject::members()).await.expect("subscribed");
    b.bus.flush().await.expect("flushed");
    other.bus.flush().await.expect("flushed");
    publish(&a.bus, &subject::members(), "ours").await;
    publish(&other.bus, &subject::members(), "theirs").await;
    assert_eq!((text(&mut at_b).await, text(&mut at_other).await), ("ours".to_owned(), "theirs".to_owned()));
    other.bus.flush().await.expect("flushed");
    assert_eq!(at_other.try_recv(), None);
    assert_eq!(at_b.try_recv(), None);
}

#[tokio::test]
async fn what_the_server_would_not_take_is_refused_with_its_limit() {
    let node = shared("large").await;
    let limit = 1 << 20;
    let mut subscription = node.bus.subscribe(conversation(1)).await.expect("subscribed");
    let refused = node.bus.publish(conversation(1), Bytes::from(vec![1; limit + 1])).await;
    assert_eq!(refused, Err(Error::TooLarge { bytes: limit + 1, limit }));
    node.bus.publish(conversation(1), Bytes::from(vec![2; limit])).await.expect("exactly the limit");
    let Some(Event::Message { payload, .. }) = next(&mut subscription).await else { panic!("a message") };
    assert_eq!(payload.len(), limit);
    assert_eq!(node.metrics.value("linnet_bus_unsent_total{reason=\"too_large\"}"), Some(1.0));
}

#[tokio::test]
async fn after_a_server_was_killed_every_subscription_stands_again_with_a_hole_in_its_place() {
    let server = own().await;
    let node = Node::start(CLUSTER, config(server.addresses())).await;
    let mut old = node.bus.subscribe(conversation(1)).await.expect("subscribed");
    node.bus.flush().await.expect("flushed");
    publish(&node.bus, &conversation(1), "before").await;
    node.bus.flush().await.expect("flushed");

    server.kill(0).expect("killed");
    node.connected(false).await;
    let begun = Instant::now();
    for _ in 0..1000 {
        let refused = node.bus.publish(conversation(1), Bytes::from_static(b"lost")).await;
        assert!(matches!(refused, Err(Error::Disconnected(_))), "{refused:?}");
    }
    assert!(matches!(node.bus.flush().await, Err(Error::Disconnected(_))));
    assert!(begun.elapsed() < Duration::from_secs(1), "nothing waits for a server that is away");
    assert!(node.nats.trouble().is_some());
    let mut new = node.bus.subscribe(conversation(1)).await.expect("noted without a connection");

    server.start_node(0).await.expect("started again");
    node.connected(true).await;
    node.bus.flush().await.expect("flushed");
    publish(&node.bus, &conversation(1), "after").await;
    assert_eq!(text(&mut old).await, "before");
    assert_eq!(until_message(&mut old, "after").await, 1, "one hole, between before and after");
    assert_eq!(until_message(&mut new, "after").await, 1, "it was not in force from the beginning");
    assert_eq!(node.metrics.value("linnet_bus_connects_total"), Some(2.0));
    assert_eq!(node.metrics.value("linnet_bus_connected"), Some(1.0));
    assert_eq!(node.metrics.value("linnet_bus_unsent_total{reason=\"disconnected\"}"), Some(1000.0));
}

#[tokio::test]
async fn another_server_of_the_list_takes_over() {
    let servers = Arc::new(servers::Nats { nodes: 2, ..Default::default() }.start().await.expect("two servers"));
    let node = Node::start(CLUSTER, config(servers.addresses())).await;
    let mut subscription = node.bus.subscribe(conversation(1)).await.expect("subscribed");
    for gone in [0, 1, 0] {
        servers.kill(gone).expect("killed");
        let begun = Instant::now();
        while !(*node.nats.connected().borrow() && node.bus.flush().await.is_ok()) {
            assert!(begun.elapsed() < Duration::from_secs(10), "no connection to the server that is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        publish(&node.bus, &conversation(1), &format!("without {gone}")).await;
        until_message(&mut subscription, &format!("without {gone}")).await;
        servers.start_node(gone).await.expect("started again");
    }
}

#[tokio::test]
async fn a_silent_cut_is_found_and_holds_up_nobody_and_nothing_is_sent_late() {
    let server = own().await;
    let relay = Relay::to(server.address()).await;
    let cut = Node::start(CLUSTER, config(std::slice::from_ref(&relay.address))).await;
    let other = Node::start(CLUSTER, config(server.addresses())).await;
    let mut at_cut = cut.bus.subscribe(conversation(1)).await.expect("subscribed");
    let mut at_other = other.bus.subscribe(conversation(2)).await.expect("subscribed");
    cut.bus.flush().await.expect("flushed");
    other.bus.flush().await.expect("flushed");

    relay.set(Mode::Swallow);
    let begun = Instant::now();
    while *cut.nats.connected().borrow() {
        let one = Instant::now();
        let _ = cut.bus.publish(conversation(2), Bytes::from(vec![0; 60_000])).await;
        assert!(one.elapsed() < Duration::from_secs(1), "a publisher waited {:?}", one.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "the cut was not found");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("found after {:?}", begun.elapsed());
    publish(&other.bus, &conversation(1), "missed").await;
    relay.set(Mode::Pass);
    cut.connected(true).await;
    cut.bus.flush().await.expect("flushed");
    publish(&other.bus, &conversation(1), "seen").await;
    publish(&cut.bus, &conversation(2), "fresh").await;
    assert_eq!(until_message(&mut at_cut, "seen").await, 1);
    assert_eq!(text(&mut at_other).await, "fresh", "what was published into the cut is gone");
}

#[tokio::test]
async fn what_waits_towards_a_server_that_takes_nothing_is_bounded() {
    let server = own().await;
    let config = Config {
        pending: "4MiB".parse().expect("a size"),
        ping_interval: "30s".parse().expect("a span"),
        ..config(server.addresses())
    };
    let node = Node::start(CLUSTER, config).await;
    server.pause(0).expect("paused");
    let payload = Bytes::from(vec![0; 256 << 10]);
    let (begun, mut refused, mut taken) = (Instant::now(), 0, 0);
    while refused < 200 {
        match node.bus.publish(conversation(1), payload.clone()).await {
            Ok(()) => taken += payload.len(),
            Err(why) => {
                assert!(matches!(why, Error::Disconnected(_)), "{why}");
                refused += 1;
            }
        }
    }
    println!("{taken} bytes taken, 200 refused in {:?}", begun.elapsed());
    // The rest is in the buffers of the two sockets.
    assert!(taken < 24 << 20, "{taken} bytes wait");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let flush = Instant::now();
    assert!(node.bus.flush().await.is_err());
    assert!(flush.elapsed() < Duration::from_secs(4), "a flush has a deadline");
    server.resume(0).expect("resumed");
    // Round trips work again without a new connection.
    let end = Instant::now() + Duration::from_secs(10);
    while node.bus.flush().await.is_err() {
        assert!(Instant::now() < end, "no flush after the server went on");
    }
    assert_eq!(node.metrics.value("linnet_bus_connects_total"), Some(1.0));
}

#[tokio::test]
async fn a_server_that_gives_up_on_a_slow_reader_leaves_a_hole() {
    let server = own().await;
    let relay = Relay::to(server.address()).await;
    let config_slow =
        Config { ping_interval: "60s".parse().expect("a span"), ..config(std::slice::from_ref(&relay.address)) };
    let slow = Node::start(CLUSTER, config_slow).await;
    let fast = Node::start(CLUSTER, config(server.addresses())).await;
    let limits = Limits { messages: 1000, bytes: 1 << 30 };
    let mut subscription = slow.bus.subscribe_with(conversation(1), limits).await.expect("subscribed");
    slow.bus.flush().await.expect("flushed");
    relay.set(Mode::Stall);
    // More than the server keeps for one connection (64 MiB).
    let payload = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..100 {
        fast.bus.publish(conversation(1), payload.clone()).await.expect("published");
        fast.bus.flush().await.expect("flushed");
    }
    relay.set(Mode::Pass);
    eventually("a new connection", || slow.metrics.value("linnet_bus_connects_total") == Some(2.0)).await;
    slow.connected(true).await;
    slow.bus.flush().await.expect("flushed");
    publish(&fast.bus, &conversation(1), "after").await;
    let (mut received, mut holes) = (0, 0);
    loop {
        match next(&mut subscription).await {
            Some(Event::Lagged { .. }) => holes += 1,
            Some(Event::Message { payload, .. }) if payload == "after" => break,
            Some(Event::Message { .. }) => {
                assert_eq!(holes, 0, "everything older comes before the hole");
                received += 1;
            }
            None => panic!("ended"),
        }
    }
    assert!(holes == 1 && received < 100, "{received} received, {holes} holes");
}

#[tokio::test]
async fn loss_strikes_both_ways_and_is_counted() {
    let node = shared("loss").await;
    let mut subscription = node.bus.subscribe(conversation(1)).await.expect("subscribed");
    node.bus.flush().await.expect("flushed");
    node.nats.set_loss(20);
    for n in 0..1000 {
        publish(&node.bus, &conversation(1), &n.to_string()).await;
    }
    node.bus.flush().await.expect("a flush is never lost");
    let lost =
        |way: &str| node.metrics.value(&format!("linnet_bus_faults_lost_total{{direction=\"{way}\"}}")).unwrap_or(0.0);
    let mut received = 0.0;
    // What arrives late is lost as often.
    while received + lost("out") + lost("in") < 1000.0 {
        if tokio::time::timeout(Duration::from_millis(20), next(&mut subscription)).await.is_ok() {
            received += 1.0;
        }
    }
    node.nats.set_loss(0);
    publish(&node.bus, &conversation(1), "end").await;
    assert_eq!(text(&mut subscription).await, "end");
    println!("{received} received, {} and {} lost", lost("out"), lost("in"));
    assert_eq!(received + lost("out") + lost("in"), 1000.0);
    assert!((100.0..350.0).contains(&lost("out")) && (70.0..300.0).contains(&lost("in")));
}

#[tokio::test]
async fn thousands_of_subscriptions_stand_again_soon() {
    let server = own().await;
    let node = Node::start(CLUSTER, config(server.addresses())).await;
    let mut all = Vec::new();
    for n in 0..5000 {
        all.push(node.bus.subscribe(conversation(n)).await.expect("subscribed"));
    }
    node.bus.flush().await.expect("flushed");
    server.kill(0).expect("killed");
    node.connected(false).await;
    server.start_node(0).await.expect("started again");
    node.connected(true).await;
    let begun = Instant::now();
    for subscription in &mut all {
        assert_eq!(next(subscription).await, Some(Event::Lagged { dropped: 1 }));
    }
    println!("5000 subscriptions in force after {:?}", begun.elapsed());
    for (n, subscription) in all.iter_mut().enumerate() {
        publish(&node.bus, &conversation(n as u64), "x").await;
        assert_eq!(text(subscription).await, "x");
    }
}

#[tokio::test]
async fn closing_sends_what_was_published_and_ends_every_subscription() {
    let (node, other) = {
        let server = servers::nats().await.expect("a NATS server");
        let cluster = cluster("close");
        (
            Node::start(&cluster, config(server.addresses())).await,
            Node::start(&cluster, config(server.addresses())).await,
        )
    };
    let mut mine = node.bus.subscribe(conversation(1)).await.expect("subscribed");
    let mut theirs = other.bus.subscribe(conversation(1)).await.expect("subscribed");
    node.bus.flush().await.expect("flushed");
    other.bus.flush().await.expect("flushed");
    publish(&node.bus, &conversation(1), "last").await;
    node.nats.close().await;
    assert_eq!(text(&mut theirs).await, "last");
    assert_eq!(text(&mut mine).await, "last");
    assert_eq!(next(&mut mine).await, None);
    assert_eq!(node.bus.publish(conversation(1), Bytes::new()).await, Err(Error::Closed));
    assert_eq!(node.bus.flush().await, Err(Error::Closed));
    assert!(matches!(node.bus.subscribe(conversation(1)).await, Err(Error::Closed)));
}
