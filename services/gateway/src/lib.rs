//! The gateway: client sockets, sign-in, and the last hop of fan-out.
//!
//! ```text
//! HTTP server --upgrade--> shard (owns the socket) --frame--> sign-in: apps, UserSig, account, session     70xxx, 60018
//!                            |   |
//!                            |   +--request--> calls --> group | message-store | account | session --> reply
//!                            |                   sends: one lane a connection, handed over in order       10xxx, 20xxx
//!                            +<--batch-- deliver <-- linnet_delivery::Receiver <-- bus
//!                            |            rooms: bans, mutes, first stage of the rate, joins and leaves
//!                            +--> window -> one frame per subprotocol -> queue (bounded) -> one vectored write
//! ```
//!
//! Invariants: a batch reaches a shard once and is encoded once per subprotocol; a connection's queue is bounded, and what
//! is left out is said ("advanced to N") or counted; a user who was removed receives nothing after the record that says
//! so; every delivery has exactly one fate (`linnet_gateway_deliveries_*`).
#![warn(missing_docs)]

mod calls;
mod config;
mod deliver;
mod error;
mod events;
mod grpc;
mod hub;
mod interest;
mod lane;
mod metrics;
mod queue;
mod reads;
mod reassert;
mod requests;
mod resume;
mod rooms;
mod send;
mod session;
mod shard;
mod sig;
mod signin;
mod socket;
mod throttle;
mod upgrade;
mod view;
mod wire;
mod ws;

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::Cluster;
pub use linnet_delivery::LinkCount;
use linnet_delivery::{Receiver, ReceiverDeps};
use linnet_proto::gateway::{StatsReply, gateways_server::GatewaysServer};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::NodeId;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;

pub use config::Config;
pub use error::{Error, Result};
pub use events::Event;
pub use metrics::Totals;
pub use socket::listen;
pub use upgrade::{Answer, Gateway};

use crate::calls::Calls;
use crate::hub::{Hub, Parts};
use crate::metrics::{Ledger, Meters};
use crate::shard::{Command, INBOX, Shard};

const SWEEP: Duration = Duration::from_millis(500);
const SHAPING: Duration = Duration::from_millis(100);
/// A node that leaves sends its clients away in this many parts, one after another, so that they do not all sign in elsewhere
/// at once; those that are still here are served on.
const PARTS: u32 = 10;
const PART: Duration = Duration::from_millis(300);
/// What those of one part are told: come back after up to this long.
const COME_BACK_MS: u64 = 300;

/// What a gateway needs.
pub struct Deps {
    /// This node.
    pub node: NodeId,
    /// Start of this process, larger than that of any earlier one of this node: milliseconds will do.
    pub incarnation: u64,
    /// Site this gateway is in.
    pub site: String,
    /// Paths to other services.
    pub cluster: Cluster,
    /// Where batches come from.
    pub bus: Bus,
    /// Time.
    pub clock: Clock,
    /// Randomness, fit for tokens.
    pub rng: Rng,
    /// Owner of the gateway's tasks.
    pub tasks: Tasks,
    /// Where it counts.
    pub metrics: Metrics,
    /// Apps and their settings.
    pub apps: Apps,
}

/// A running gateway.
pub struct Running {
    /// Its gRPC services.
    pub routes: Routes,
    /// Accepts upgrades.
    pub gateway: Gateway,
    tasks: Tasks,
}

/// Starts the shards and subscribes for batches; upgrades may come when this returns.
///
/// # Errors
/// [`Error::Subscribe`] when the bus takes no subscription.
pub async fn start(config: Config, deps: Deps) -> Result<Running> {
    let tasks = deps.tasks.child("gateway");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if config.shards == 0 { cores } else { config.shards as usize };
    let (shards, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel::<Command>(INBOX)).unzip();
    let hub = Arc::new(Hub::new(Parts {
        calls: Calls::new(deps.cluster.clone(), config.call_timeout.get()),
        ledger: Ledger::new(&deps.metrics),
        meters: Meters::new(&deps.metrics),
        me: deps.node.as_str().to_owned(),
        incarnation: deps.incarnation,
        clock: deps.clock.clone(),
        rng: deps.rng.clone(),
        tasks: tasks.clone(),
        apps: deps.apps,
        shards,
        config,
    }));
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let ended = tasks.draining();
        let shard = Shard::new(index as u16, Arc::clone(&hub), inbox).run();
        tasks.spawn("gateway.shard", async move { ended.run_until_cancelled(shard).await });
    }
    let (receiver, delivered) = Receiver::new(ReceiverDeps {
        gateway: deps.node,
        incarnation: deps.incarnation,
        site: deps.site,
        bus: deps.bus.clone(),
        cluster: deps.cluster,
        clock: deps.clock,
        rng: deps.rng,
        tasks: tasks.clone(),
        metrics: deps.metrics,
        locals: Arc::new(deliver::LocalMembers(Arc::downgrade(&hub))),
    })
    .await?;
    let _ = hub.receiver.set(receiver);
    let (ended, deliver) = (tasks.draining(), deliver::run(Arc::clone(&hub), delivered));
    tasks.spawn("gateway.deliver", async move { ended.run_until_cancelled(deliver).await });
    let (ended, reassert) = (tasks.draining(), reassert::run(Arc::clone(&hub), deps.bus));
    tasks.spawn("gateway.losses", async move { ended.run_until_cancelled(reassert).await });
    tasks.spawn("gateway.ticks", ticks(Arc::clone(&hub)));
    let routes = Routes::new(GatewaysServer::new(grpc::Grpc(Arc::clone(&hub))));
    Ok(Running { routes, gateway: Gateway { hub }, tasks })
}

/// Everything that happens by the clock outside the shards.
async fn ticks(hub: Arc<Hub>) {
    let every = |period| {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    let (mut refresh, mut sweep, mut shaping) = (every(hub.config.refresh.get()), every(SWEEP), every(SHAPING));
    let mut live = every(hub.config.live_tick.get().max(Duration::from_millis(50)));
    let draining = hub.tasks.draining();
    // The first tick of an interval comes at once, before anybody is connected.
    refresh.tick().await;
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _ = shaping.tick() => hub.rooms.release_waiting(&hub),
            _ = live.tick() => hub.rooms.report(&hub).await,
            _ = sweep.tick() => {
                let hub = Arc::clone(&hub);
                let tasks = hub.tasks.clone();
                tasks.spawn("gateway.reads", async move { hub.reads.sweep(&hub).await });
            }
            _ = refresh.tick() => {
                let hub = Arc::clone(&hub);
                let tasks = hub.tasks.clone();
                tasks.spawn("gateway.refresh", async move { hub.refresh().await });
            }
        }
    }
}

impl Running {
    /// Sends every client away, stores what waits, and ends within about `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        let hub = &self.gateway.hub;
        hub.start_draining();
        for part in 0..PARTS {
            for shard in 0..hub.shards.len() {
                hub.tell(shard as u16, Command::Drain { part }).await;
            }
            if hub.meters.connections.get() == 0 {
                break;
            }
            tokio::time::sleep(PART).await;
        }
        hub.reads.flush_all(hub).await;
        let gone = async {
            while hub.meters.connections.get() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(deadline, gone).await;
        self.tasks.shutdown(deadline).await;
    }
}

impl Gateway {
    /// What happens on this gateway from now on, for people who watch. A slow watcher misses events.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.hub.events.watch()
    }

    /// The counters `linnet status` and load runs print.
    #[must_use]
    pub fn stats(&self) -> StatsReply {
        grpc::stats(&self.hub)
    }

    /// The accounting law of deliveries, term by term.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.hub.ledger.totals()
    }

    /// This gateway's side of the link law.
    #[must_use]
    pub fn link(&self) -> Option<LinkCount> {
        self.hub.receiver.get().map(Receiver::count)
    }
}
