//! Calls between the nodes of one process: outcome, limits, deadline, trace, streams, and a network with faults.

mod echo;

use std::time::Duration;

use echo::{Echo, EchoClient};
use linnet_cluster::{Cluster, LocalNet, Members, NetFaults, Node, RouteKey, RpcConfig, Script, Service, Sim};
use linnet_runtime::config::Period;
use linnet_runtime::status::{from_status, outcome_unknown, with_deadline};
use linnet_runtime::{Metrics, Rng, TraceContext};
use linnet_types::{NodeId, code};
use tokio_stream::StreamExt;
use tonic::Code;

fn id(name: &str) -> NodeId {
    NodeId::trusted(name)
}

fn alone(config: RpcConfig) -> (Cluster, Metrics) {
    let metrics = Metrics::new();
    let cluster = Cluster::alone(id("one"), config, &metrics);
    cluster.register_local(&id("one"), Service::Group, Echo::routes("one"));
    (cluster, metrics)
}

fn client(cluster: &Cluster) -> EchoClient {
    EchoClient::new(cluster.any(Service::Group).expect("served"))
}

#[tokio::test]
async fn call_and_its_refusal_cross_and_are_counted() {
    let (cluster, metrics) = alone(RpcConfig::default());
    let mut echo = client(&cluster);
    assert_eq!(echo.call("hello").await.expect("answered"), "one: hello");
    let status = echo.call("refuse").await.expect_err("refused");
    let refusal = from_status(&status).expect("a refusal");
    assert_eq!((refusal.code, refusal.info.as_str()), (code::GROUP_NO_RIGHT, "not a member"));
    let fault = echo.call("fault").await.expect_err("failed");
    assert_eq!((fault.code(), from_status(&fault)), (Code::Internal, None));
    for (outcome, count) in [("ok", 1.0), ("refused", 1.0), ("fault", 1.0), ("deadline", 0.0)] {
        let series = format!("linnet_rpc_calls_total{{service=\"group\",outcome=\"{outcome}\"}}");
        assert_eq!(metrics.value(&series), Some(count), "{outcome}");
    }
}

#[tokio::test]
async fn clients_work_inside_spawned_tasks() {
    let (cluster, metrics) = alone(RpcConfig::default());
    let tasks = linnet_runtime::Tasks::new(&metrics);
    let mut echo = client(&cluster);
    let reply = tasks.spawn("call", async move { echo.call("x").await }).await.expect("joined").expect("no panic");
    assert_eq!(reply.expect("answered"), "one: x");
}

#[tokio::test(start_paused = true)]
async fn deadline_of_the_caller_or_the_default_ends_a_call() {
    let (cluster, metrics) = alone(RpcConfig { default_timeout: Period::secs(3), ..RpcConfig::default() });
    let begun = tokio::time::Instant::now();
    let mut echo = client(&cluster);
    let status = echo.request(with_deadline("hang".to_owned(), Duration::from_millis(250))).await.expect_err("late");
    assert_eq!((status.code(), begun.elapsed()), (Code::DeadlineExceeded, Duration::from_millis(250)));
    assert!(outcome_unknown(&status));
    assert_eq!(from_status(&status).expect("busy").code, code::BUSY);
    echo.call("hang").await.expect_err("late");
    assert_eq!(begun.elapsed(), Duration::from_millis(3250));
    assert_eq!(metrics.value("linnet_rpc_active{service=\"group\"}"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn calls_over_the_limit_are_shed_with_a_retryable_refusal() {
    let (cluster, metrics) = alone(RpcConfig { concurrency: 2, ..RpcConfig::default() });
    let (mut a, mut b, mut c) = (client(&cluster), client(&cluster), client(&cluster));
    let (first, second, third) = tokio::join!(a.call("hang"), b.call("hang"), c.call("x"));
    assert!(first.is_err() && second.is_err());
    let status = third.expect_err("shed");
    let refusal = from_status(&status).expect("a refusal");
    assert_eq!((refusal.code, refusal.retry_after_ms), (code::BUSY, Some(200)));
    assert!(!outcome_unknown(&status), "a shed call was surely not carried out");
    assert_eq!(metrics.value("linnet_rpc_shed_total{service=\"group\"}"), Some(1.0));
    assert_eq!(c.call("x").await.expect("room again"), "one: x");
}

#[tokio::test]
async fn trace_reaches_the_handler() {
    let (cluster, _) = alone(RpcConfig::default());
    let context = TraceContext::new(&Rng::seeded(1));
    let mut echo = client(&cluster);
    let seen = context.scope("test", async { echo.call("trace").await }).await.expect("answered");
    assert_eq!(seen, format!("one: {}", context.request));
    let request = context.scope("test", async { with_deadline("trace".to_owned(), Duration::from_secs(1)) }).await;
    assert_eq!(echo.request(request).await.expect("answered"), seen, "from the metadata alone");
    assert_eq!(echo.call("trace").await.expect("answered"), "one: none");
}

#[tokio::test]
async fn streams_run_both_ways_past_the_default_deadline() {
    let (cluster, _) = alone(RpcConfig { default_timeout: Period::ms(50), ..RpcConfig::default() });
    let (send, mut replies) = client(&cluster).stream().await.expect("open");
    for n in 0..5 {
        send.send(n.to_string()).await.expect("open");
        assert_eq!(replies.next().await.expect("open").expect("a frame"), format!("one: {n}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(send);
    assert!(replies.next().await.is_none());
}

/// Two gateways, two owners, in one process.
struct Four {
    gateways: [Cluster; 2],
    script: Script,
    sim: Sim,
}

fn four(seed: u64) -> Four {
    let metrics = Metrics::new();
    let (net, sim) = LocalNet::simulated(RpcConfig::default(), &metrics, Rng::seeded(seed));
    let nodes = [("g1", Service::Gateway), ("g2", Service::Gateway), ("o1", Service::Group), ("o2", Service::Group)];
    let (members, script) = Members::scripted(nodes.map(|(name, service)| Node::new(id(name), [service])));
    for owner in ["o1", "o2"] {
        net.register(id(owner), Service::Group, Echo::routes(owner));
    }
    let gateways = ["g1", "g2"].map(|name| Cluster::new(id(name), members.clone(), net.clone(), &Metrics::new()));
    Four { gateways, script, sim }
}

fn owned_by(cluster: &Cluster, owner: &str) -> RouteKey {
    let mut keys = (0..).map(RouteKey::slot);
    keys.find(|key| cluster.owner_node(Service::Group, key).expect("owned") == id(owner)).expect("some key")
}

async fn ask(cluster: &Cluster, key: &RouteKey) -> Result<String, tonic::Status> {
    let rpc = cluster.for_owner(Service::Group, key).expect("served");
    EchoClient::new(rpc).request(with_deadline("x".to_owned(), Duration::from_secs(1))).await
}

#[tokio::test]
async fn gateways_agree_on_the_owner_and_follow_the_ring() {
    let four = four(1);
    let key = owned_by(&four.gateways[0], "o1");
    for gateway in &four.gateways {
        assert_eq!(ask(gateway, &key).await.expect("answered"), "o1: x");
    }
    four.script.leave(&id("o1"));
    assert_eq!(ask(&four.gateways[1], &key).await.expect("answered"), "o2: x");
    four.script.leave(&id("o2"));
    let refusal = four.gateways[0].for_owner(Service::Group, &key).expect_err("nobody");
    assert_eq!((refusal.code, refusal.retry_after_ms.is_some()), (code::BUSY, true));
    assert!(four.gateways[0].any(Service::Account).is_err());
}

#[tokio::test(start_paused = true)]
async fn killed_node_breaks_calls_and_streams_of_it_only() {
    let four = four(2);
    let gateway = &four.gateways[0];
    let (key, other) = (owned_by(gateway, "o1"), owned_by(gateway, "o2"));
    let rpc = gateway.for_owner(Service::Group, &key).expect("served");
    let (send, mut replies) = EchoClient::new(rpc.clone()).stream().await.expect("open");
    send.send("1".to_owned()).await.expect("open");
    assert_eq!(replies.next().await.expect("open").expect("a frame"), "o1: 1");
    let mut hanging = EchoClient::new(rpc);
    let (hung, ()) = tokio::join!(hanging.call("hang"), async {
        tokio::task::yield_now().await;
        four.sim.kill(&id("o1"));
    });
    assert_eq!(hung.expect_err("broken").code(), Code::Unavailable);
    assert_eq!(replies.next().await.expect("told").expect_err("broken").code(), Code::Unavailable);
    let status = ask(gateway, &key).await.expect_err("dead");
    assert_eq!(from_status(&status).expect("busy").code, code::BUSY);
    assert_eq!(ask(gateway, &other).await.expect("alive"), "o2: x");
    assert_eq!(four.sim.counts().kills, 1);
    assert!(four.sim.counts().broken >= 3, "{:?}", four.sim.counts());
}

#[tokio::test(start_paused = true)]
async fn paused_node_answers_after_it_resumes_and_cut_touches_one_link() {
    let four = four(3);
    let [near, far] = &four.gateways;
    let key = owned_by(near, "o1");
    four.sim.pause(&id("o1"));
    assert_eq!(ask(near, &key).await.expect_err("paused").code(), Code::DeadlineExceeded);
    let (reply, ()) = tokio::join!(ask(near, &key), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        four.sim.resume(&id("o1"));
    });
    assert_eq!(reply.expect("resumed"), "o1: x");
    four.sim.cut(&id("o1"), &id("g1"));
    assert!(ask(near, &key).await.is_err());
    assert_eq!(ask(far, &key).await.expect("not cut"), "o1: x");
    four.sim.mend(&id("g1"), &id("o1"));
    assert_eq!(ask(near, &key).await.expect("mended"), "o1: x");
}

#[tokio::test(start_paused = true)]
async fn call_faults_strike_are_counted_and_replay_by_seed() {
    async fn run(seed: u64) -> (Vec<bool>, linnet_cluster::NetCounts) {
        let four = four(seed);
        let (lose_request_percent, lose_reply_percent, delay_percent) = (10, 10, 20);
        let max_delay = Duration::from_millis(20);
        four.sim.set(NetFaults { lose_request_percent, lose_reply_percent, delay_percent, max_delay });
        let key = owned_by(&four.gateways[0], "o1");
        let mut outcomes = Vec::new();
        for _ in 0..500 {
            outcomes.push(ask(&four.gateways[0], &key).await.is_ok());
        }
        (outcomes, four.sim.counts())
    }
    let (outcomes, counts) = run(7).await;
    println!("seed 7: {counts:?}");
    let failed = outcomes.iter().filter(|ok| !**ok).count() as u64;
    assert_eq!((counts.calls, failed), (500, counts.requests_lost + counts.replies_lost));
    assert!(counts.requests_lost > 20 && counts.replies_lost > 20 && counts.delayed > 50, "{counts:?}");
    assert_eq!(run(7).await, (outcomes, counts));
}
