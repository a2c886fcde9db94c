//! The account service: apps (tenants) and who a person is.
//!
//! ```text
//! api, gateway --Lookup--> account --> store                        unknown user: `exists` false, never an error
//! api --Kick--> account: kick time written --> session: sessions closed --> the second has turned --> answer
//! linnet app set --UpdateApp--> account: record written --> bus: app_changed --> every node's cache
//! ```
//!
//! Every record is guarded by a revision in the store, so any node may serve any call; routing by user only keeps the
//! races short.

mod admin;
mod grpc;
mod profile;

use linnet_bus::Bus;
use linnet_cluster::Cluster;
use linnet_proto::account::accounts_server::AccountsServer;
use linnet_runtime::{Clock, Rng};
use linnet_store::Store;
use linnet_types::{Refusal, code};
use tonic::service::Routes;

/// What the service runs on.
#[derive(Clone)]
pub struct Deps {
    /// Other services.
    pub cluster: Cluster,
    /// Where changes of apps are told.
    pub bus: Bus,
    /// Apps, accounts and block lists.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// New keys.
    pub rng: Rng,
}

/// The running service.
pub struct Running {
    /// Its gRPC services.
    pub routes: Routes,
}

/// Starts the service; it holds nothing in memory and needs no stopping.
#[must_use]
pub fn start(deps: Deps) -> Running {
    let service = grpc::Service::new(deps);
    Running { routes: Routes::new(AccountsServer::new(service)) }
}

/// A fault of the store as the caller sees it; the cause is in the log.
fn fault(error: &linnet_store::Error) -> Refusal {
    tracing::error!(%error, "account store");
    match error {
        linnet_store::Error::Corrupt { .. } | linnet_store::Error::Open { .. } => {
            Refusal::new(code::ACCOUNT_INTERNAL, "internal error")
        }
        linnet_store::Error::Unavailable { why, .. } if why.starts_with(linnet_store::embedded::DISK_FULL) => {
            Refusal::retry(code::ACCOUNT_TIMEOUT, "the disk of the store is full", 500)
        }
        _ => Refusal::retry(code::ACCOUNT_TIMEOUT, "the store did not answer; retry", 500),
    }
}
