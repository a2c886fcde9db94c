//! Publish and subscribe between nodes: at most once, in order per publisher and subject while nothing is lost.
//!
//! Hides how bytes travel ([`Local`] within one process, [`Nats`] between many) and how subjects are
//! spelled ([`subject`]). It does not know what an event means: what makes delivery dependable is the numbering above it.
//!
//! - A publisher never waits for a receiver. A receiver that is too slow loses messages, and is told so **in their place**
//!   ([`Event::Lagged`]), so that it can ask for what it missed.
//! - [`Bus::flush`] returns once earlier subscriptions are in force and earlier messages have left: "subscribe, flush,
//!   register" leaves no hole.
//!
//! ```text
//! publisher --publish(Subject, Bytes)--> Port --> queue of each subscription --recv--> subscriber
//!                                                  full: dropped, counted, Lagged in its place
//! ```
#![warn(missing_docs)]

mod config;
mod faulty;
mod local;
mod nats;
mod permissions;
mod queue;
pub mod subject;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

pub use config::Config;
pub use faulty::{FaultCounts, FaultPlan, Faulty};
pub use local::Local;
pub use nats::Nats;
pub use permissions::Permissions;
pub use queue::{Event, Limits, Subscription};
pub use subject::Subject;

/// Why the bus did not take something. Never tells whether somebody received it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bus has no connection now; what was published is lost, and numbering will show it.
    #[error("the bus is not connected: {0}")]
    Disconnected(String),
    /// The bus was closed for good.
    #[error("the bus is closed")]
    Closed,
    /// The message is larger than the bus takes.
    #[error("a message of {bytes} bytes, and the bus takes {limit}")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// Largest payload.
        limit: usize,
    },
    /// The bus cannot be reached as it is configured.
    #[error("the configuration of the bus: {0}")]
    Config(String),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an implementation provides; used through [`Bus`].
#[async_trait]
pub trait Port: Send + Sync + 'static {
    /// See [`Bus::publish`].
    async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()>;
    /// See [`Bus::subscribe_with`].
    async fn subscribe(&self, subject: Subject, limits: Limits) -> Result<Subscription>;
    /// See [`Bus::flush`].
    async fn flush(&self) -> Result<()>;
    /// See [`Bus::connected`].
    fn connected(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }
}

/// A handle to the bus; clones share it.
#[derive(Clone)]
pub struct Bus {
    port: Arc<dyn Port>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bus")
    }
}

impl Bus {
    /// Wraps an implementation.
    pub fn new(port: impl Port) -> Self {
        Self { port: Arc::new(port) }
    }

    /// Sends `payload` to every subscription of `subject`, at most once each; does not wait for receivers. The bytes are
    /// shared, not copied, within a process.
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`] or [`Error::TooLarge`]: it will not arrive. Success promises nothing.
    pub async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        self.port.publish(subject, payload).await
    }

    /// Receives what is published to `subject` from now on, through a queue of the default [`Limits`].
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Disconnected`] when the subscription cannot even be noted.
    pub async fn subscribe(&self, subject: Subject) -> Result<Subscription> {
        self.port.subscribe(subject, Limits::default()).await
    }

    /// Like [`Bus::subscribe`], with a queue of other limits.
    ///
    /// # Errors
    /// As [`Bus::subscribe`].
    pub async fn subscribe_with(&self, subject: Subject, limits: Limits) -> Result<Subscription> {
        self.port.subscribe(subject, limits).await
    }

    /// Returns once this handle's earlier subscriptions are in force everywhere and its earlier messages have left.
    ///
    /// # Errors
    /// [`Error::Disconnected`] or [`Error::Closed`] when that cannot be said.
    pub async fn flush(&self) -> Result<()> {
        self.port.flush().await
    }

    /// Whether this node has a connection to the bus now: silence means nothing while it has none. Where there is nothing to
    /// connect to it stays true, and its sender is gone.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.port.connected()
    }
}
