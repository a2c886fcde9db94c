//! Offline push: devices and tokens, what a receiver wants, plans, and delivery to providers.
//!
//! ```text
//! message-store --Advanced--> pieces of work, by conversation             tips, live rooms, PushFlag 1: nobody is told
//!                  | durable here
//!                  +--> planner: at once, or when a group's window is over
//!                         members by pages of 500 -> presence -> options, quiet time -> devices     each skip is counted
//!                         | durable here
//!                         +--> sender: at the app's rate -> provider      not taken: again, until too old, then dead letter
//!                                                           `- names invalid tokens: removed
//! ```
//!
//! Invariants: at least once, with the same `RequestID` for the same request; a message of a pair and a mention are told at
//! once, others of a group together; who is told of a message at once is not told again in the round; a provider that is
//! down holds up its own app only.
//!
//! To change who is told, open `page` and `options`; what is told together, `trigger` and `plan`; what a provider gets,
//! `provider`; what is done when it does not take it, `sender`.
#![warn(missing_docs)]

mod calls;
mod error;
mod grpc;
mod info;
mod metrics;
mod options;
mod page;
mod plan;
mod planner;
mod provider;
mod rate;
mod sender;
mod trigger;
mod users;

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::{Cluster, RouteKey, Service as Role};
use linnet_proto::push::pushes_server::PushesServer;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::Store;
use linnet_store::push::Push;
use linnet_store::queues::{PARTITIONS, Waiting};
use linnet_work::Worker;
use tonic::service::Routes;

pub use provider::{Fault, Provider, Taken};

use crate::calls::Calls;
use crate::metrics::Meters;
use crate::page::Pages;
use crate::planner::Planner;
use crate::sender::Sender;
use crate::users::Users;

/// Keys worked on at once, and of one app.
const PLANS: (usize, usize) = (64, 32);
const REQUESTS: (usize, usize) = (256, 16);
/// Queues are measured this often, and each partition to at most so many rows.
const MEASURE_EVERY: Duration = Duration::from_secs(15);
const MEASURED: usize = 1_000;
/// Largest call: the messages of one round.
const CALL_BYTES: usize = 32 << 20;

linnet_runtime::config! {
    /// Offline push.
    pub struct Config {
        /// Every app may name private and loopback addresses as its push provider. `dev` turns it on; on a shared machine it
        /// lets an app's settings reach what only this machine can reach.
        pub allow_private: bool = false, "", restart;
    }
}

/// What the service runs on.
#[derive(Clone)]
pub struct Deps {
    /// Which partitions of the queues are ours, and the other services.
    pub cluster: Cluster,
    /// Wakes workers.
    pub bus: Bus,
    /// Devices, options and the queues.
    pub store: Store,
    /// Settings of apps.
    pub apps: Apps,
    /// Time.
    pub clock: Clock,
    /// Jitter of retries.
    pub rng: Rng,
    /// Owner of the workers.
    pub tasks: Tasks,
    /// Counters.
    pub metrics: Metrics,
}

/// The running service.
pub struct Running {
    /// Its gRPC services.
    pub routes: Routes,
    tasks: Tasks,
}

impl Running {
    /// Finishes requests that are out, within `deadline`; what waits is stored. True when all of them ended.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.tasks.shutdown(deadline).await
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for push providers")]
pub struct Error(#[from] reqwest::Error);

/// Starts the workers and goes on with what the queues hold.
///
/// # Errors
/// When no HTTP client can be built.
pub fn start(config: &Config, deps: Deps) -> Result<Running, Error> {
    let provider = provider::Http::new(config.allow_private)?;
    Ok(start_with(Arc::new(provider), deps))
}

/// Starts the service with a provider of the caller's choice for every app.
#[must_use]
pub fn start_with(provider: Arc<dyn Provider>, deps: Deps) -> Running {
    let tasks = deps.tasks.child("push");
    let meters = Meters::new(&deps.metrics);
    let store = Push::new(deps.store.clone());
    let work = linnet_work::Deps {
        store: deps.store,
        cluster: deps.cluster.clone(),
        bus: deps.bus,
        clock: deps.clock.clone(),
        tasks: tasks.clone(),
    };
    let sender = Sender::new(sender::Parts {
        provider,
        store: store.clone(),
        apps: deps.apps.clone(),
        cluster: deps.cluster.clone(),
        clock: deps.clock.clone(),
        rng: deps.rng,
        meters: meters.clone(),
    });
    let options =
        |queue, batch, (at_once, per_app)| linnet_work::Options { queue, service: Role::Push, batch, at_once, per_app };
    let sending = Worker::start(options(sender::QUEUE, sender::BATCH, REQUESTS), work.clone(), Arc::new(sender));
    let pages = Pages { store: store.clone(), calls: Calls::new(deps.cluster.clone()), meters: meters.clone() };
    let planner = Arc::new(Planner::new(pages, deps.apps, deps.clock.clone(), sending.clone()));
    let handler = Arc::clone(&planner);
    let planning = Worker::start(options(planner::QUEUE, planner::BATCH, PLANS), work, handler);
    let queues = [(planner::QUEUE, planning.clone()), (sender::QUEUE, sending.clone())];
    tasks.spawn("push.measure", measure(queues, deps.cluster, deps.clock.clone(), meters, tasks.clone()));
    let users = Users::new(store, deps.clock.clone());
    let service = grpc::Service { users, planner, planning, sending, clock: deps.clock };
    let server = PushesServer::new(service).max_decoding_message_size(CALL_BYTES);
    Running { routes: Routes::new(server), tasks }
}

/// Shows what waits in this node's partitions.
async fn measure(queues: [(&'static str, Worker); 2], cluster: Cluster, clock: Clock, meters: Meters, tasks: Tasks) {
    let ending = tasks.draining();
    loop {
        for (name, worker) in &queues {
            let mut all = Waiting::default();
            for partition in 0..PARTITIONS {
                if !cluster.owns(Role::Push, RouteKey::slot(partition.into())) {
                    continue;
                }
                let Ok(waiting) = worker.queues().waiting(partition, MEASURED).await else { continue };
                all.depth += waiting.depth;
                all.oldest = all.oldest.into_iter().chain(waiting.oldest).min();
            }
            let age_s = all.oldest.map_or(0, |at| clock.now().since(at) / 1_000);
            meters.waiting(name, all.depth, age_s);
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}
