//! Groups: members, roles, rights, speaking, live rooms, and the fan-out of everything that happens in them.
//!
//! ```text
//! gateway, api --Send--> admission: de-duplicate -> before-webhook          refused, dropped, rewritten
//!                            |  in the sender's order
//!                        group actor: rights again -> shaping               SHAPED (told success), 10017, 10007
//!                            +--Append(batch, epoch)--> message-store       unknown -> settled by fence and read
//!                            |  durable here; senders are answered
//!                            +--numbered batch--> delivery --> gateways
//! commands ------------> group actor: rules -> change + events: one guarded batch
//!                            +--outbox--> callback queue                    survives a kill
//! ```
//!
//! - One actor per active group. It claims the group's guard and fences its log before the first command, so an earlier
//!   owner changes nothing and stores nothing afterwards.
//! - What differs by kind of group is in one table ([`rules`]).
//! - Nothing slow is awaited in an actor: accounts and webhooks are asked before it has its turn.
//! - A live room is the same actor without a log: shaping by priority, sequences reserved in the guard, viewers known to
//!   gateways.

mod commands;
mod config;
mod create;
mod directory;
mod error;
mod group;
mod grpc;
pub mod hooks;
mod hub;
mod index;
mod law;
pub mod limits;
mod remote;
pub mod rules;
pub mod shaping;
mod shared;
mod takeover;
#[cfg(test)]
mod tests;
pub mod tips;

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::Admission;
use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::{Cluster, Service};
use linnet_delivery::{Publisher, PublisherDeps};
use linnet_proto::group::groups_server::GroupsServer;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::Store;
use linnet_store::groups::Groups;
use linnet_store::ids::ConvIds;
use linnet_store::positions::Positions;
use linnet_types::NodeId;
use tonic::service::Routes;

pub use config::Config;
pub use error::Result;

use crate::grpc::Grpc;
use crate::law::Law;
use crate::shared::{Parts, Shared};

/// While it drains, what is still in memory is told again this often.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What the service runs on.
pub struct Deps {
    /// This node.
    pub node: NodeId,
    /// Its site.
    pub site: String,
    /// Rises with every start of this node.
    pub incarnation: u64,
    /// Other services.
    pub cluster: Cluster,
    /// Where batches go.
    pub bus: Bus,
    /// Groups and members.
    pub store: Store,
    /// Settings of apps.
    pub apps: Apps,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Owner of the service's tasks.
    pub tasks: Tasks,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The running service.
pub struct Running {
    /// Its gRPC services: `Groups` and `Delivery`.
    pub routes: Routes,
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Running {
    /// Lets go of every group at a bounded rate, for at most `deadline`: for a node that has left the ring and goes. Calls
    /// that still come are told that it moved. True when all were.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.hub.drain();
        let gone = async {
            while self.shared.hub.yield_lost(&self.shared).await > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        tokio::time::timeout(deadline, gone).await.is_ok()
    }

    /// Finishes what was accepted and lets go of every group, for at most `deadline`. True when all were.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.tasks.shutdown(deadline).await
    }
}

/// Starts the service.
#[must_use]
pub fn start(config: Config, deps: Deps) -> Running {
    let tasks = deps.tasks.child("group");
    let publisher = Publisher::new(PublisherDeps {
        node: deps.node,
        incarnation: deps.incarnation,
        service: Service::Group,
        site: deps.site,
        bus: deps.bus,
        cluster: deps.cluster.clone(),
        clock: deps.clock.clone(),
        rng: deps.rng.fork("group-delivery"),
        tasks: tasks.clone(),
        metrics: deps.metrics.clone(),
    });
    let ask = Arc::new(deps.cluster.clone());
    let admission = Admission::new("group", ask, deps.clock.clone(), &tasks, &deps.metrics);
    let shared = Shared::new(Parts {
        config,
        cluster: deps.cluster,
        groups: Groups::new(deps.store.clone()),
        ids: ConvIds::new(deps.store.clone()),
        positions: Positions::new(deps.store),
        publisher: publisher.clone(),
        admission,
        apps: deps.apps,
        clock: deps.clock,
        rng: deps.rng.fork("group"),
        tasks: tasks.clone(),
        law: Law::new(&deps.metrics),
    });
    let takeover = Arc::clone(&shared);
    tasks.spawn("group.takeover", async move { takeover.follow_ring().await });
    let grpc = Grpc { shared: Arc::clone(&shared) };
    let delivery = publisher.service(Arc::new(grpc.clone()));
    Running { routes: Routes::new(GroupsServer::new(grpc)).add_service(delivery), shared, tasks }
}
