//! Nodes with a transport of their own in one test process: what crosses between them crosses loopback TCP.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod certs;
pub(crate) mod relay;

use std::time::Duration;

use linnet_cluster::{
    Cluster, ClusterConfig, LocalNet, Members, Node, RemoteDeps, RemoteNet, Rpc, RpcConfig, Script, Service,
};
use linnet_runtime::{Metrics, Rng, Tasks};
use linnet_types::NodeId;
use tonic::service::Routes;

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::trusted(name)
}

/// A node as a process of its own would be.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) local: LocalNet,
    pub(crate) remote: RemoteNet,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) cluster: Cluster,
    pub(crate) script: Script,
}

/// Without TLS, on a free port.
pub(crate) fn open(name: &str) -> ClusterConfig {
    ClusterConfig {
        node: name.to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        insecure: true,
        ..ClusterConfig::default()
    }
}

impl Process {
    /// The path to a service of another node.
    pub(crate) fn to(&self, node: &str, service: Service) -> Rpc {
        self.cluster.for_node(service, &id(node)).expect("the node is known")
    }

    pub(crate) async fn start(name: &'static str, config: ClusterConfig, rpc: RpcConfig) -> Self {
        let (metrics, rng) = (Metrics::new(), Rng::seeded(1));
        let tasks = Tasks::new(&metrics);
        let local = LocalNet::new(rpc, &metrics);
        let deps =
            RemoteDeps { me: id(name), local: local.clone(), tasks: tasks.clone(), rng, metrics: metrics.clone() };
        let remote = RemoteNet::listen(&config, deps).await.expect("a free port");
        let (members, script) = Members::scripted([]);
        let cluster = Cluster::joined(id(name), members, local.clone(), remote.clone(), &metrics);
        Self { name, local, remote, tasks, metrics, cluster, script }
    }

    pub(crate) fn serve(&self, service: Service, routes: Routes) {
        self.local.register(id(self.name), service, routes);
    }

    /// What a heartbeat of this node says.
    pub(crate) fn node(&self, services: &[Service]) -> Node {
        let mut node = Node::new(id(self.name), services.iter().copied());
        node.address = self.remote.advertised().to_owned();
        node
    }

    pub(crate) async fn kill(self) {
        self.tasks.shutdown(Duration::ZERO).await;
    }
}

/// Waits until `holds`, for at most ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
