//! Calls between nodes: what a caller may rely on, on both paths; and, in one process, a network with faults.

mod echo;
mod process;
mod suite;

use std::time::Duration;

use echo::{Echo, EchoClient};
use linnet_cluster::{Cluster, LocalNet, Members, NetFaults, Node, RouteKey, RpcConfig, Script, Service, Sim};
use linnet_runtime::status::{from_status, with_deadline};
use linnet_runtime::{Metrics, Rng};
use linnet_types::code;
use process::id;
use tokio_stream::StreamExt;
use tonic::Code;

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
