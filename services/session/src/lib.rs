//! The session service: who is signed in where.
//!
//! ```text
//! gateway --SignIn--> session(owner of the user) --> Directory: one record per user, newest wins
//!                        |  recorded here: the gateway answers its client
//!                        +--PlacesChanged--> bus --> owners of conversations        repeated: the bus may lose it
//!                        +--Kick--> bus --> gateways of older sessions              lost: found by the next Refresh
//!                        +--State.StateChange--> callback                           best effort
//! gateway --Refresh (every 30 s)--> Directory: lives on, or "no longer current"     not refreshed for 90 s: ended
//! owner   --Where (500 users)--> Directory
//! directory emptied --SayAgain--> bus --> gateways --Refresh, spread over seconds--> rebuilt, the newest wins
//! ```
//!
//! What a user may have together is the app's `login.mode`; it is decided in one place for every implementation of the
//! [`Directory`]. A gateway that left the cluster takes its entries along at once.
#![warn(missing_docs)]

mod devices;
pub mod directory;
mod events;
mod grpc;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::Cluster;
use linnet_proto::session::sessions_server::SessionsServer;
use linnet_runtime::metrics::{Counter, Gauge};
use linnet_runtime::{Clock, Metrics, Tasks};
use tokio::sync::watch;
use tonic::service::Routes;

use directory::Directory;
use events::Events;
use grpc::{Lives, Service};
use tell::Teller;

/// How often dead sessions are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// What the service runs on.
#[derive(Clone)]
pub struct Deps {
    /// Live gateways, and the callback service.
    pub cluster: Cluster,
    /// Where hints and kicks go.
    pub bus: Bus,
    /// Login policies and webhook switches of apps.
    pub apps: Apps,
    /// The records: [`directory::Memory`] on one machine.
    pub directory: Arc<dyn Directory>,
    /// Time.
    pub clock: Clock,
    /// Owner of the service's tasks.
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
    /// Sends what waits to be told, within `deadline`. True when all of it left.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.tasks.shutdown(deadline).await
    }
}

/// Counters of the service.
#[derive(Clone, Debug)]
struct Meters {
    sign_ins: Counter,
    kicked: Counter,
    stale: Counter,
    expired: Counter,
    sessions: Gauge,
    events_lost: Counter,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        metrics.scope("session", |scope| Self {
            sign_ins: scope.counter("sign_ins", "Sign-ins recorded"),
            kicked: scope.counter("kicked", "Sessions closed because a newer one or an administrator pushed them out"),
            stale: scope.counter("stale", "Connections a gateway still had although they were no longer current"),
            expired: scope.counter("expired", "Sessions ended because their gateway did not refresh them"),
            sessions: scope.gauge("sessions", "Sessions in the directory"),
            events_lost: scope.counter("events_lost", "State.StateChange webhooks that could not be handed over"),
        })
    }
}

/// Starts the service.
#[must_use]
pub fn start(deps: Deps) -> Running {
    let tasks = deps.tasks.child("session");
    let meters = Meters::new(&deps.metrics);
    let lives = Lives::new(deps.cluster.clone(), deps.clock.clone());
    let teller = Teller::start(deps.bus, &deps.clock, &tasks);
    let events = Events::start(deps.cluster, deps.clock, &tasks, meters.events_lost.clone());
    let (directory, apps) = (deps.directory, deps.apps);
    let service = Service { directory, apps, lives, teller, events, meters, tasks: tasks.clone() };
    if let Some(losses) = service.directory.losses() {
        tasks.spawn("session.losses", losses_told(losses, service.teller.clone(), tasks.clone()));
    }
    tasks.spawn("session.expire", expire(service.clone(), tasks.clone()));
    Running { routes: Routes::new(SessionsServer::new(service)), tasks }
}

/// Passes on that records may be lost, one after the other.
async fn losses_told(mut losses: watch::Receiver<String>, teller: Teller, tasks: Tasks) {
    let draining = tasks.draining();
    loop {
        let loss = losses.borrow_and_update().clone();
        if !loss.is_empty() {
            teller.loss(loss).await;
        }
        tokio::select! {
            () = draining.cancelled() => return,
            changed = losses.changed() => if changed.is_err() { return },
        }
    }
}

async fn expire(service: Service, tasks: Tasks) {
    let draining = tasks.draining();
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            () = tokio::time::sleep(EXPIRE_EVERY) => service.expire().await,
        }
    }
}
