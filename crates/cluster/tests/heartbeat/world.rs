//! Processes that know each other by heartbeats over one bus, each with faults of its own, in paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linnet_bus::{FaultPlan, Faulty, Local};
use linnet_cluster::{HeartbeatConfig, HeartbeatDeps, Heartbeats, Members, Node, Service};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{NodeId, UnixMillis};

pub(crate) const CLUSTER: &str = "test";

/// The bus they share.
pub(crate) struct World {
    local: Local,
    clock: Clock,
    rng: Rng,
}

/// One process; killed when dropped.
pub(crate) struct Process {
    pub(crate) members: Members,
    pub(crate) beats: Heartbeats,
    pub(crate) faulty: Faulty,
    pub(crate) metrics: Metrics,
    pub(crate) progress: Arc<AtomicBool>,
    tasks: Tasks,
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::trusted(name)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let clock = Clock::simulated(UnixMillis(1_700_000_000_000));
        Self { local: Local::new(&Metrics::new()), clock, rng: Rng::seeded(seed) }
    }

    /// Starts `name` for the `life`-th time; it does not serve yet.
    pub(crate) fn start(&self, cluster: &str, name: &str, services: &[Service], life: u64) -> Process {
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        let rng = self.rng.fork(&format!("{name}#{life}"));
        let faulty = Faulty::new(self.local.bus(), rng.clone(), tasks.clone());
        let mut me = Node::new(id(name), services.iter().copied());
        (me.incarnation, me.address) = (life, format!("{name}:{life}"));
        let progress = Arc::new(AtomicBool::new(true));
        let probe = Arc::clone(&progress);
        let deps = HeartbeatDeps {
            bus: faulty.bus(),
            clock: self.clock.clone(),
            rng,
            tasks: tasks.clone(),
            metrics: metrics.clone(),
        };
        let rules = HeartbeatConfig::default();
        let (members, beats) = Heartbeats::start(rules, cluster, me, deps, move || probe.load(Ordering::Relaxed));
        Process { members, beats, faulty, metrics, progress, tasks }
    }

    /// As of a world whose clock is ahead.
    pub(crate) fn ahead(&self, by: Duration) -> Self {
        let clock = self.clock.skewed(i64::try_from(by.as_millis()).expect("not that far"));
        Self { local: self.local.clone(), clock, rng: self.rng.clone() }
    }

    /// Which life a process of `name` that starts now would have.
    pub(crate) async fn next_life(&self, name: &str, now: u64) -> u64 {
        linnet_cluster::next_life(&self.local.bus(), CLUSTER, &id(name), UnixMillis(now)).await
    }

    /// Starts a group node and lets it serve.
    pub(crate) fn group(&self, name: &str, life: u64) -> Process {
        let process = self.start(CLUSTER, name, &[Service::Group], life);
        process.beats.serve();
        process
    }

    /// Group nodes that are all settled.
    pub(crate) async fn settled<const N: usize>(&self, names: [&str; N]) -> [Process; N] {
        let processes = names.map(|name| self.group(name, 1));
        sleep(15.0).await;
        for process in &processes {
            assert_eq!(process.ring(), names, "everybody is on the ring");
        }
        processes
    }
}

impl Process {
    /// The ring of group nodes.
    pub(crate) fn ring(&self) -> Vec<String> {
        let snapshot = self.members.snapshot();
        snapshot.ring(Service::Group).nodes().iter().map(ToString::to_string).collect()
    }

    /// Who lives.
    pub(crate) fn live(&self) -> Vec<String> {
        self.members.snapshot().nodes().map(|node| node.id.to_string()).collect()
    }

    pub(crate) fn version(&self) -> u64 {
        self.members.snapshot().version
    }

    pub(crate) fn address(&self, of: &str) -> Option<String> {
        self.members.snapshot().node(&id(of)).map(|node| node.address.clone())
    }

    /// Everything the view says.
    pub(crate) fn view(&self) -> BTreeMap<String, Node> {
        self.members.snapshot().nodes().map(|node| (node.id.to_string(), node.clone())).collect()
    }

    pub(crate) fn value(&self, metric: &str) -> f64 {
        self.metrics.value(&format!("linnet_members_{metric}")).expect("exported")
    }

    /// SIGKILL.
    pub(crate) async fn kill(self) {
        self.tasks.shutdown(Duration::ZERO).await;
    }

    /// Hears nothing, and is not told.
    pub(crate) fn deafen(&self) {
        self.faulty.set(FaultPlan::dropping(100));
    }
}

pub(crate) async fn sleep(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// Waits until it holds; how long that took.
pub(crate) async fn within(limit: f64, what: &str, mut holds: impl FnMut() -> bool) -> f64 {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs_f64() <= limit, "not within {limit} s: {what}");
        sleep(0.01).await;
    }
    begun.elapsed().as_secs_f64()
}

/// Looks again and again that it holds.
pub(crate) async fn throughout(span: f64, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while begun.elapsed().as_secs_f64() < span {
        assert!(holds(), "no more after {:.2} s: {what}", begun.elapsed().as_secs_f64());
        sleep(0.01).await;
    }
}
