//! The callback service: everything that asks or tells the app's backend.
//!
//! ```text
//! owner --Before--> post once, at most the app's time-out                  failed: the app's policy, pass or block
//! owner --Enqueue--> stored queue --> one worker a key --> post, in order  time-out: dead letter, or retried if the app says so
//!                     | durable here                                       else: retried in place up to 24 h, then dead letter
//! edge  --Post--> memory --> post, in order per key                        lost by a kill, counted
//! ```
//!
//! Partitions of the queue belong to nodes by the ring. Any node takes events and hands them to their owner; where it does not
//! answer they are stored all the same, and the owner is woken over the bus, or finds them when the ring changes or it
//! looks. Two nodes that both believe they own a partition deliver twice, each in order, with equal `RequestID`s.
//!
//! Invariants: a key has one delivery in flight and keeps its order; an app whose server is down is probed every 5 s and
//! holds up nobody else; every attempt is signed anew and carries the same `RequestID`; targets on private addresses are
//! refused unless allowed.

mod answer;
mod breaker;
mod forward;
mod grpc;
mod live;
mod request;
mod samples;
mod sender;
mod slots;
mod worker;

use std::sync::Arc;

use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::Cluster;
use linnet_proto::callback::callbacks_server::CallbacksServer;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::Store;
use tonic::service::Routes;

pub use grpc::WatchEvents;

linnet_runtime::config! {
    /// Webhooks to the apps' own servers.
    pub struct Config {
        /// Every app may name private and loopback addresses as its webhook URL. `dev` turns it on; on a shared machine it
        /// lets an app's settings reach what only this machine can reach.
        pub allow_private: bool = false, "", restart;
    }
}

/// What the service runs on.
#[derive(Clone)]
pub struct Deps {
    /// Which partitions of the queue are ours.
    pub cluster: Cluster,
    /// Wakes workers.
    pub bus: Bus,
    /// The queue.
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
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for webhooks")]
pub struct Error(#[from] reqwest::Error);

/// Starts the workers and goes on with what the queue holds.
///
/// # Errors
/// When no HTTP client can be built.
pub fn start(config: &Config, deps: Deps) -> Result<Running, Error> {
    let sender = sender::Sender::new(config.allow_private, deps.clock.clone())?;
    let courier = Arc::new(worker::Courier::new(sender, &deps));
    let worker = worker::start(Arc::clone(&courier), &deps);
    let live = live::Live::new(Arc::clone(&courier), &deps.tasks);
    let service = grpc::Service::new(deps.cluster, courier, worker, live);
    Ok(Running { routes: Routes::new(CallbacksServer::new(service)) })
}
