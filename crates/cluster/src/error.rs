//! Why a node cannot take part.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What stands in the way of calls between processes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port for calls cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
    /// A key of the configuration is not what it must be.
    #[error("cluster.{key}: {what}")]
    Config {
        /// The key within `[cluster]`.
        key: &'static str,
        /// What is wrong and what to do.
        what: String,
    },
    /// A certificate or key cannot be used.
    #[error("{}: {what}", path.display())]
    Certificate {
        /// The PEM file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
