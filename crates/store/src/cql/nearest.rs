//! Which server is asked: a replica of the row in our data centre, and of those one that answers.
//!
//! A paused server keeps its connections until keep-alive gives them up, and every write sent to it until then has an
//! unknown outcome. So a server that owes an answer for long is asked last, until it has answered something.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use linnet_runtime::Clock;
use parking_lot::RwLock;
use scylla::cluster::{ClusterState, NodeRef};
use scylla::errors::RequestAttemptError;
use scylla::policies::load_balancing::{DefaultPolicy, FallbackPlan, LoadBalancingPolicy, RoutingInfo};
use scylla::routing::Shard;

/// A server that owes an answer for longer is asked last.
const SLOW: Duration = Duration::from_millis(500);
/// Between two reads that are sent to such a server, to see whether it answers again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Replicas of the row first, never beyond the data centre.
pub(super) fn nearest(datacenter: &str) -> Arc<dyn LoadBalancingPolicy> {
    let policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    if datacenter.is_empty() { policy.build() } else { policy.prefer_datacenter(datacenter.to_owned()).build() }
}

/// What is known of each server; shared by all classes of work.
pub(super) struct Answers {
    clock: Clock,
    servers: RwLock<HashMap<[u8; 16], Arc<Answer>>>,
}

#[derive(Default)]
struct Answer {
    /// When it was first asked since it last answered, in milliseconds; 0: it owes nothing.
    asked: AtomicU64,
    owes_for_long: AtomicBool,
    probed: AtomicU64,
}

impl Answers {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, servers: RwLock::default() })
    }

    /// Milliseconds, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.mono().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn of(&self, server: [u8; 16]) -> Arc<Answer> {
        if let Some(known) = self.servers.read().get(&server) {
            return known.clone();
        }
        self.servers.write().entry(server).or_default().clone()
    }

    fn owes_for_long(&self, server: [u8; 16]) -> bool {
        let answer = self.of(server);
        let asked = answer.asked.load(Ordering::Relaxed);
        if asked != 0 && u128::from(self.now().saturating_sub(asked)) > SLOW.as_millis() {
            answer.owes_for_long.store(true, Ordering::Relaxed);
        }
        answer.owes_for_long.load(Ordering::Relaxed)
    }

    /// Whether it is time to see whether a server answers again; says so once.
    fn probe(&self, server: [u8; 16]) -> bool {
        let (answer, now) = (self.of(server), self.now());
        let last = answer.probed.load(Ordering::Relaxed);
        u128::from(now.saturating_sub(last)) >= PROBE_EVERY.as_millis()
            && answer.probed.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn asks(&self, server: [u8; 16]) {
        let _ = self.of(server).asked.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn answers(&self, server: [u8; 16]) {
        let answer = self.of(server);
        answer.asked.store(0, Ordering::Relaxed);
        answer.owes_for_long.store(false, Ordering::Relaxed);
    }
}

/// [`nearest`], with the servers that owe an answer for long last.
pub(super) struct Answering {
    pub(super) inner: Arc<dyn LoadBalancingPolicy>,
    pub(super) answers: Arc<Answers>,
    /// Whether its requests may be lost: they see whether a server answers again.
    pub(super) probes: bool,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answering({:?})", self.inner)
    }
}

fn id(node: NodeRef<'_>) -> [u8; 16] {
    *node.host_id.as_bytes()
}

impl LoadBalancingPolicy for Answering {
    fn pick<'a>(&'a self, request: &'a RoutingInfo, cluster: &'a ClusterState) -> Option<(NodeRef<'a>, Option<Shard>)> {
        let mut choice = self.inner.pick(request, cluster).or_else(|| self.inner.fallback(request, cluster).next())?;
        let first = id(choice.0);
        if self.answers.owes_for_long(first) && !(self.probes && self.answers.probe(first)) {
            let mut others = self.inner.fallback(request, cluster);
            choice = others.find(|(node, _)| !self.answers.owes_for_long(id(node))).unwrap_or(choice);
        }
        self.answers.asks(id(choice.0));
        Some(choice)
    }

    fn fallback<'a>(&'a self, request: &'a RoutingInfo, cluster: &'a ClusterState) -> FallbackPlan<'a> {
        let plan = self.inner.fallback(request, cluster);
        let (last, first): (Vec<_>, Vec<_>) = plan.partition(|(node, _)| self.answers.owes_for_long(id(node)));
        Box::new(first.into_iter().chain(last))
    }

    fn on_request_success(&self, request: &RoutingInfo, latency: Duration, node: NodeRef<'_>) {
        self.answers.answers(id(node));
        self.inner.on_request_success(request, latency, node);
    }

    fn on_request_failure(
        &self,
        request: &RoutingInfo,
        latency: Duration,
        node: NodeRef<'_>,
        error: &RequestAttemptError,
    ) {
        // An error is an answer; a broken connection is one fewer to ask by.
        self.answers.answers(id(node));
        self.inner.on_request_failure(request, latency, node, error);
    }

    fn name(&self) -> String {
        "Answering".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use linnet_types::UnixMillis;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_owes_an_answer_for_long_is_asked_last_until_it_answers() {
        let answers = Answers::new(Clock::simulated(UnixMillis(1)));
        let (paused, quick) = ([1; 16], [2; 16]);
        answers.asks(paused);
        answers.asks(quick);
        answers.answers(quick);
        assert!(!answers.owes_for_long(paused));
        tokio::time::advance(SLOW * 2).await;
        assert!(answers.owes_for_long(paused) && !answers.owes_for_long(quick));
        assert!(answers.probe(paused) && !answers.probe(paused), "one request a second finds out");
        answers.asks(paused);
        assert!(answers.owes_for_long(paused), "being asked is no answer");
        answers.answers(paused);
        assert!(!answers.owes_for_long(paused));
    }
}
