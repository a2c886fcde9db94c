//! The same over real NATS servers, with shorter times: their failures are not the nodes'.

use std::sync::Arc;
use std::time::Duration;

use linnet_bus::{Config, Nats};
use linnet_cluster::{HeartbeatConfig, HeartbeatDeps, Heartbeats, Members, Node, Service};
use linnet_local::servers::{self, Server};
use linnet_runtime::config::Period;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};

use crate::world::{id, sleep, throughout, within};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct Process {
    members: Members,
    beats: Heartbeats,
    nats: Nats,
    tasks: Tasks,
}

/// A fifth of the usual times.
fn rules() -> HeartbeatConfig {
    HeartbeatConfig {
        period: Period::ms(200),
        dead_after: Period::ms(1600),
        settle: Period::ms(2000),
        freeze: Period::ms(6000),
    }
}

impl Process {
    async fn start(name: &str, server: &Server) -> Self {
        let (metrics, rng) = (Metrics::new(), Rng::system());
        let tasks = Tasks::new(&metrics);
        let config = Config {
            backend: "nats".to_owned(),
            urls: server.addresses().iter().map(|address| format!("nats://{address}")).collect(),
            ping_interval: Period::ms(200),
            reconnect_pause: Period::ms(200),
            ignore_discovered: true,
            ..Config::default()
        };
        let nats = Nats::connect(config, "test", name, &metrics, &rng, &tasks).await.expect("configured");
        let me = Node { incarnation: 1, ..Node::new(id(name), [Service::Group]) };
        let deps = HeartbeatDeps { bus: nats.bus(), clock: Clock::system(), rng, tasks: tasks.clone(), metrics };
        let (members, beats) = Heartbeats::start(rules(), "test", me, deps, || true);
        beats.serve();
        Self { members, beats, nats, tasks }
    }

    fn ring(&self) -> Vec<String> {
        self.members.snapshot().ring(Service::Group).nodes().iter().map(ToString::to_string).collect()
    }
}

async fn nodes(server: &Server) -> Vec<Process> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push(Process::start(name, server).await);
    }
    within(10.0, "all on the rings", || all.iter().all(|process| process.ring() == NAMES)).await;
    sleep(3.0).await;
    all
}

fn stands(all: &[Process]) -> bool {
    all.iter().all(|process| process.ring() == NAMES)
}

#[tokio::test]
async fn a_server_of_three_may_die_and_the_rings_do_not_move() {
    let servers = servers::Nats { nodes: 3, ..Default::default() }.start().await.expect("servers");
    let servers = Arc::new(servers);
    let all = nodes(&servers).await;
    for gone in 0..3 {
        servers.kill(gone).expect("killed");
        throughout(3.0, "without one server", || stands(&all)).await;
        servers.start_node(gone).await.expect("started again");
        throughout(1.0, "with it again", || stands(&all)).await;
    }
}

#[tokio::test]
async fn all_servers_may_be_away_and_afterwards_the_living_and_the_dead_are_told_apart() {
    let server = Arc::new(servers::Nats::default().start().await.expect("a server"));
    let mut all = nodes(&server).await;
    server.kill(0).expect("killed");
    throughout(5.0, "without a bus", || stands(&all)).await;
    let dead = all.pop().expect("four nodes");
    dead.tasks.shutdown(Duration::ZERO).await;
    server.start_node(0).await.expect("started again");
    let took = within(6.0, "one view", || all.iter().all(|process| process.ring() == NAMES[..3])).await;
    println!("one view {took:.2} s after the bus was back");
    all[2].beats.leave().await;
    within(1.0, "it left", || all.iter().all(|process| process.ring() == NAMES[..2])).await;
    all[2].beats.stop().await;
    all[2].nats.close().await;
    within(1.0, "it is gone", || !all[0].members.snapshot().lives(&id("c"))).await;
}
