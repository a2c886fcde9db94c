//! Which nodes live, as snapshots. Whoever learns it (a script, a heartbeat listener) holds the writing half.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use linnet_types::NodeId;
use tokio::sync::watch;

use crate::ring::Ring;
use crate::service::Service;

/// A live node and what it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique for the life of the process.
    pub id: NodeId,
    /// Services it answers for.
    pub services: Vec<Service>,
    /// Those of them whose rings it is on. A node that is new, or is about to stop, answers calls and attracts nothing.
    pub attracts: Vec<Service>,
    /// Which life of that node this is: higher with every start.
    pub incarnation: u64,
    /// Where it answers calls, `host:port`; empty for a node of this process.
    pub address: String,
    /// What its build can do beyond the first protocol, by name; a record of a new kind is sent once every node names it.
    pub capabilities: Vec<String>,
}

impl Node {
    /// A node of this process that runs `services`.
    #[must_use]
    pub fn new(id: NodeId, services: impl IntoIterator<Item = Service>) -> Self {
        let services: Vec<_> = services.into_iter().collect();
        Self {
            id,
            attracts: services.clone(),
            services,
            incarnation: 0,
            address: String::new(),
            capabilities: Vec::new(),
        }
    }
}

/// The live nodes at one moment, with a ring for each service.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises with every change.
    pub version: u64,
    nodes: BTreeMap<NodeId, Node>,
    rings: BTreeMap<Service, Ring>,
}

impl Snapshot {
    fn new(version: u64, nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
        let drawn =
            |service| nodes.values().filter(move |node| node.attracts.contains(&service)).map(|node| node.id.clone());
        let rings = Service::ALL.into_iter().map(|service| (service, Ring::new(drawn(service)))).collect();
        Self { version, nodes, rings }
    }

    /// The ring of the nodes that attract what `service` owns.
    #[must_use]
    pub fn ring(&self, service: Service) -> &Ring {
        self.rings.get(&service).expect("a ring for every service")
    }

    /// The live nodes that answer for `service`, on its ring or not, sorted.
    pub fn serving(&self, service: Service) -> impl Iterator<Item = &NodeId> {
        self.nodes.values().filter(move |node| node.services.contains(&service)).map(|node| &node.id)
    }

    /// Whether `node` is live.
    #[must_use]
    pub fn lives(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    /// A live node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Every live node.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }
}

/// Reads the live nodes; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Members {
    current: Arc<ArcSwap<Snapshot>>,
    ahead_ms: Arc<AtomicI64>,
    changes: watch::Receiver<u64>,
}

/// Writes the live nodes that the [`Members`] of the same pair read. Every writer publishes whole snapshots.
#[derive(Clone, Debug)]
pub struct Script {
    current: Arc<ArcSwap<Snapshot>>,
    ahead_ms: Arc<AtomicI64>,
    changes: watch::Sender<u64>,
}

impl Members {
    /// One process that runs everything, for ever.
    #[must_use]
    pub fn alone(me: NodeId) -> Self {
        Self::scripted([Node::new(me, Service::ALL)]).0
    }

    /// Begins with `nodes`; the script changes them. Give each node a pair of its own to let their views differ.
    #[must_use]
    pub fn scripted(nodes: impl IntoIterator<Item = Node>) -> (Self, Script) {
        let current = Arc::new(ArcSwap::from_pointee(Snapshot::new(1, nodes)));
        let (sender, receiver) = watch::channel(1);
        let ahead_ms = Arc::<AtomicI64>::default();
        let members = Self { current: Arc::clone(&current), ahead_ms: Arc::clone(&ahead_ms), changes: receiver };
        (members, Script { current, ahead_ms, changes: sender })
    }

    /// The live nodes now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// How far the wall clocks of the live nodes are ahead of this node's, in milliseconds: the median, this node's own
    /// clock among them. One wrong clock among several moves it little, whichever node has it.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Shows the version of each new snapshot once it can be read.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl Script {
    /// Replaces all live nodes.
    pub fn set(&self, nodes: impl IntoIterator<Item = Node>) {
        let nodes: Vec<_> = nodes.into_iter().collect();
        self.update(|_| nodes);
    }

    /// Replaces all live nodes unless they are these already; the new version if it changed anything.
    pub(crate) fn change_to(&self, nodes: Vec<Node>) -> Option<u64> {
        let same = self.current.load().nodes.len() == nodes.len()
            && nodes.iter().all(|node| self.current.load().nodes.get(&node.id) == Some(node));
        (!same).then(|| {
            self.set(nodes);
            *self.changes.borrow()
        })
    }

    /// Tells how far the clocks of the others are ahead.
    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// Adds a node, or replaces what it runs.
    pub fn join(&self, node: Node) {
        self.update(|mut nodes| {
            nodes.retain(|known| known.id != node.id);
            nodes.push(node);
            nodes
        });
    }

    /// Takes a node off every ring.
    pub fn leave(&self, node: &NodeId) {
        self.update(|mut nodes| {
            nodes.retain(|known| known.id != *node);
            nodes
        });
    }

    /// The version is advanced under the watch's lock, so that concurrent writers do not lose each other's change.
    fn update(&self, change: impl FnOnce(Vec<Node>) -> Vec<Node>) {
        self.changes.send_modify(|version| {
            *version += 1;
            let nodes = change(self.current.load().nodes.values().cloned().collect());
            self.current.store(Arc::new(Snapshot::new(*version, nodes)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::RouteKey;

    fn node(name: &str, services: &[Service]) -> Node {
        Node::new(NodeId::trusted(name), services.iter().copied())
    }

    #[test]
    fn who_attracts_nothing_is_reachable_and_on_no_ring() {
        let leaving = Node { attracts: Vec::new(), ..node("a", &[Service::Group]) };
        let (members, _) = Members::scripted([leaving, node("b", &[Service::Group])]);
        let snapshot = members.snapshot();
        assert_eq!(snapshot.ring(Service::Group).nodes(), [NodeId::trusted("b")]);
        assert!(snapshot.lives(&NodeId::trusted("a")));
        assert_eq!(snapshot.serving(Service::Group).count(), 2);
    }

    #[tokio::test]
    async fn readers_see_each_change_with_its_ring() {
        let (members, script) = Members::scripted([node("a", &[Service::Group]), node("b", &[Service::Account])]);
        let mut changes = members.changes();
        let key = RouteKey::slot(1);
        assert_eq!(members.snapshot().ring(Service::Group).owner(&key), Some(&NodeId::trusted("a")));
        script.join(node("b", &[Service::Group]));
        changes.changed().await.expect("the script lives");
        assert_eq!((*changes.borrow_and_update(), members.snapshot().version), (2, 2));
        assert_eq!(members.snapshot().ring(Service::Group).nodes().len(), 2);
        assert_eq!(members.snapshot().ring(Service::Account).owner(&key), None);
        script.leave(&NodeId::trusted("a"));
        assert!(!members.snapshot().lives(&NodeId::trusted("a")));
        assert_eq!(members.snapshot().ring(Service::Group).owner(&key), Some(&NodeId::trusted("b")));
    }
}
