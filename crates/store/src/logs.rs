//! Conversation logs: gap-free, append-only, each written by one owner, safe with two.
//!
//! Hides buckets, guards, epochs, retention classes and what a write of unknown outcome needs. Invariants:
//!
//! - An acknowledged message is in the log for good (until its retention ends), at one seq; no seq has two contents, none is
//!   skipped. This holds with any number of nodes that believe they own the log, however late their writes land: each
//!   append is one conditional batch that names the epoch and the last seq it extends.
//! - Server time never decreases along a log. `ord` counts the countable messages.
//! - A log that was quiet longer than its retention goes on at the next seq: the tail is the larger of guard and `log_head`.
//!
//! ```text
//! open:   log_head -> guard of its bucket -> closed ones followed -> claim (epoch + 1)      another claims -> one of both is StaleOwner
//!                                   |  then log_head (open) and open_logs, before the first append
//! append: one batch {head, body} x n + guard, if epoch = mine and last seq = what I extend  refused -> StaleOwner, nothing was acknowledged
//!                                   |  durable here                                         unknown -> settle(): claim, then look
//! close:  log_head (closed, cursor) -> own open_logs row
//! ```

mod append;
mod cache;
mod claim;
mod describe;
mod head;
mod log;
mod open;
mod read;
mod revise;
mod search;
mod side;
mod tables;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use linnet_runtime::{Clock, Rng};
use linnet_types::{Epoch, Seq};

pub use linnet_proto::store::{LogHead, MessageHead, OpenLog, Revision, Revoke, RevokedSeq, Visibility};
pub use linnet_proto::store::{message_head::Kind as MessageKind, visibility::Kind as VisibilityKind};

pub use append::{Appended, Entry, MAX_BATCH, MAX_BATCH_BYTES, Settled, fit};
pub use describe::{describe, describe_guard, tables};
pub use log::{Log, Opening};
pub use read::{Page, RECOVERY_ROWS, Reader, Stored};
pub use side::{Side, SideKind};
pub use tables::{BUCKET_SEQS, Class, LOG_HEAD, LOG_ORIGIN, LogId, OPEN_LOGS, SLOTS};

use crate::rows::{self, Store};

/// Why an operation on a log was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another node has claimed the log: drop the actor. Nothing of the operation was done.
    #[error("epoch {ours} of the log was taken over")]
    StaleOwner {
        /// The epoch this owner held.
        ours: Epoch,
    },
    /// The caller's group epoch is lower than one the log has seen: the caller no longer owns the group.
    #[error("the group's epoch {theirs} is below {seen}, which the log has seen")]
    StaleGroup {
        /// The caller's.
        theirs: Epoch,
        /// The highest seen.
        seen: Epoch,
    },
    /// The outcome of an append is unknown: [`Log::settle`] before anything else.
    #[error("the outcome of the last append is unknown")]
    Unsettled,
    /// More than [`fit`] allows in one batch.
    #[error("{given} messages given, {fits} fit in this batch")]
    TooMany {
        /// Given.
        given: usize,
        /// What fits.
        fits: usize,
    },
    /// No such message: never stored, or expired.
    #[error("no message {0}")]
    NoSuchMessage(Seq),
    /// The message was changed meanwhile.
    #[error("the message is at version {}", .0.version)]
    Version(Box<Revision>),
    /// The store.
    #[error(transparent)]
    Store(#[from] rows::Error),
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Opens, lists and reads logs; cheap to clone.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Clock,
    rng: Rng,
    service: String,
}

impl Logs {
    /// The logs in `store`, opened by `service` (its name in `open_logs`).
    #[must_use]
    pub fn new(store: Store, clock: Clock, rng: Rng, service: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { store, clock, rng, service: service.into() }) }
    }
}
