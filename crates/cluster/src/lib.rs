//! Where a service is and how to call it: live nodes, the hash ring, and one kind of call for local and remote.
//!
//! Hides how nodes are found, how keys are placed and whether a call leaves the process. Knows no business rule.
//!
//! - The ring only says where to **send**; it may be wrong for a while, and the guards of the store keep that harmless.
//! - Placement hashes explicit bytes with a fixed key, so nodes of different builds agree.
//! - Every call has a deadline, passes the target's concurrency limit or is shed with a retryable refusal, carries the
//!   trace, and is counted; in one process as over a connection.
//! - A handler is dropped at its next await point when the deadline passes or its caller goes away. What must finish once
//!   begun belongs to an actor or a task of its own.
//!
//! ```text
//! caller --Cluster::for_owner(Service, RouteKey)--> Ring --NodeId--> Rpc        nobody serves it -> BUSY, retryable
//!   Rpc: deadline, trace, metrics --> target: limit --> tonic Routes --> handler   over the limit -> BUSY, retryable
//! ```
#![warn(missing_docs)]

mod call;
pub mod certificate;
mod cluster;
mod config;
mod error;
mod heartbeat;
mod key;
mod members;
mod metrics;
mod net;
mod remote;
mod ring;
mod rpc;
mod service;
mod sim;

pub use cluster::Cluster;
pub use config::{ClusterConfig, RpcConfig};
pub use error::{Error, Result};
pub use heartbeat::{HeartbeatConfig, HeartbeatDeps, Heartbeats, next_life};
pub use key::RouteKey;
pub use members::{Members, Node, Script, Snapshot};
pub use net::LocalNet;
pub use remote::{RemoteDeps, RemoteNet};
pub use ring::Ring;
pub use rpc::Rpc;
pub use service::Service;
pub use sim::{NetCounts, NetFaults, Sim};
