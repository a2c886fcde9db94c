//! A Linnet cluster on one machine: real servers, relays between processes, faults.
//!
//! [`servers`] installs and runs the servers a cluster leans on (NATS, Redis, a CQL server), for tests and for the
//! cluster. [`relay`] carries every link between processes and breaks it on request. [`Cluster`] is all of it with the
//! services; `deploy/local/cluster` is its command line. Nothing here is part of the product; everything started is ended by its process id, and only if that id still
//! is the process that was started.
#![warn(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a tool beside the product, outside its runtime")]

pub mod certs;
pub mod cluster;
mod http;
pub mod ports;
pub mod process;
pub mod relay;
pub mod servers;

pub use cluster::{Cluster, Options};
