//! Conversation logs, one-to-one sending, lists and read positions.
//!
//! One actor per active conversation assigns positions; the store's guard makes that safe with two. Lists and unread
//! counts are computed from ends of logs and read positions, never written on send.
//!
//! ```text
//! SendC2c --> accounts, blocks --> admission --> actor --append--> log          refused, duplicate: before anything is assigned
//! Append (group) ------------------------------>   |  durable here: answered
//!                                                  +--> both users' devices     (a group publishes itself)
//!                                                  +--cursor--> own messages counted, after-webhooks, bots    at least once
//! History, Heads <-- newest rows in memory, older ones from the store
//! Sync <-- user's entries + groups, one Heads per owner, positions              at the user's owner
//! ```
//!
//! To change what is sent and refused, open `c2c`; batches and acknowledgements, `actor`; what follows from a message,
//! `effects`; what a viewer sees, `view`; unread counts, `unread`; lists, `lists`.

mod actor;
mod c2c;
mod config;
mod effects;
mod error;
mod group_log;
mod grpc;
mod heads;
mod history;
mod lists;
mod metrics;
mod msgkey;
mod owners;
mod places;
mod recall;
mod service;
mod state;
mod stored;
mod takeover;
mod totals;
mod unread;
mod view;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::Admission;
use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::Cluster;
use linnet_delivery::{Publisher, PublisherDeps};
use linnet_proto::messages::StatsReply;
use linnet_proto::messages::messages_server::MessagesServer;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::Store;
use linnet_store::conversations::Conversations;
use linnet_store::ids::ConvIds;
use linnet_store::logs::Logs;
use linnet_store::positions::Positions;
use linnet_types::NodeId;
use tonic::service::Routes;

pub use config::Config;
pub use error::{Error, Result};

use crate::grpc::NoRegistration;
use crate::metrics::Meters;
use crate::owners::Owners;
use crate::service::Service;
use crate::state::Ctx;

/// Name of this service where it names itself: open logs, metrics.
pub const NAME: &str = "message-store";
/// While it drains, what is still open is told again this often.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What the service stands on.
pub struct Deps {
    /// This node.
    pub node: NodeId,
    /// Start of this process: rises with every start of the same node.
    pub incarnation: u64,
    /// This node's site.
    pub site: String,
    /// The other services.
    pub cluster: Cluster,
    /// Where batches go.
    pub bus: Bus,
    /// Where everything is kept.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Owner of the service's tasks.
    pub tasks: Tasks,
    /// Where it counts.
    pub metrics: Metrics,
    /// Apps and their settings.
    pub apps: Apps,
}

/// The running service.
pub struct Running {
    /// Its gRPC services, `Messages` and `Delivery`, to be registered with the cluster.
    pub routes: Routes,
    service: Service,
    tasks: Tasks,
}

/// Starts the service; it serves once `Running::routes` are registered.
///
/// # Errors
/// None today; a service's start may fail.
pub async fn start(config: Config, deps: Deps) -> Result<Running> {
    let tasks = deps.tasks.child(NAME);
    let ask = Arc::new(deps.cluster.clone());
    let publisher = Publisher::new(PublisherDeps {
        node: deps.node,
        incarnation: deps.incarnation,
        service: linnet_cluster::Service::MessageStore,
        site: deps.site,
        bus: deps.bus,
        cluster: deps.cluster.clone(),
        clock: deps.clock.clone(),
        rng: deps.rng.fork("message-store.delivery"),
        tasks: tasks.clone(),
        metrics: deps.metrics.clone(),
    });
    let ctx = Arc::new(Ctx {
        config,
        logs: Logs::new(deps.store.clone(), deps.clock.clone(), deps.rng.fork("message-store.logs"), NAME),
        conversations: Conversations::new(deps.store.clone()),
        positions: Positions::new(deps.store.clone()),
        ids: ConvIds::new(deps.store),
        cluster: deps.cluster,
        publisher: publisher.clone(),
        apps: deps.apps,
        admission: Admission::new("message_store", ask, deps.clock.clone(), &tasks, &deps.metrics),
        clock: deps.clock,
        rng: deps.rng.fork("message-store"),
        tasks: tasks.clone(),
        meters: Meters::new(&deps.metrics),
    });
    let owners = Owners::new(Arc::clone(&ctx));
    let service = Service::new(ctx, owners.clone());
    let routes =
        Routes::new(MessagesServer::new(service.clone())).add_service(publisher.service(Arc::new(NoRegistration)));
    tasks.spawn("takeover", takeover::run(owners));
    Ok(Running { routes, service, tasks })
}

impl Running {
    /// The owner's accounting law over one-to-one sends, term by term.
    #[must_use]
    pub fn stats(&self) -> StatsReply {
        self.service.ctx.meters.stats()
    }

    /// Conversations in memory.
    #[must_use]
    pub fn active(&self) -> usize {
        self.service.owners.len()
    }

    /// Lets go of every conversation at a bounded rate, for at most `deadline`: for a node that has left the ring and goes.
    /// Each finishes what it has taken and closes its log; calls that still come are told that it moved. True when all are
    /// closed.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let owners = &self.service.owners;
        owners.drain();
        let closed = async {
            while owners.yield_lost().await > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        tokio::time::timeout(deadline, closed).await.is_ok()
    }

    /// Finishes what was accepted, closes every log cleanly, and ends; what takes longer than `deadline` is dropped, which
    /// loses nothing that was acknowledged.
    pub async fn stop(self, deadline: Duration) {
        self.service.owners.drain();
        self.tasks.shutdown(deadline).await;
    }
}
