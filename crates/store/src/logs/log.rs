//! The state an owner keeps of a log it has claimed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use linnet_proto::store::{ClassSpan, LogGuard, LogHead, RevokedSeq, SeqJump};
use linnet_types::{Epoch, Seq, UnixMillis};
use prost::Message;

use super::append::Pending;
use super::cache::TailCache;
use super::tables::{Class, LogId, bucket_of, class_of};
use super::{Error, Inner, Result};
use crate::rows::{self, Guard};

/// How an owner opens a log.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Which.
    pub id: LogId,
    /// How long its messages are to be kept; takes effect at the next bucket.
    pub class: Class,
    /// The key the ring finds the owner by; kept so that a node can tell which open logs are its own.
    pub route: String,
}

/// The tail of a log: everything the guard says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) epoch: u64,
    /// The bucket whose guard this is.
    pub(super) bucket: u64,
    pub(super) last_seq: u64,
    pub(super) data: LogGuard,
}

impl Tail {
    pub(super) fn guard(&self) -> Guard {
        Guard { epoch: Epoch(self.epoch), rev: self.last_seq, data: self.data.encode_to_vec().into() }
    }

    /// The tail once the log goes on in its next bucket; nothing is written.
    pub(super) fn in_next_bucket(&self) -> Self {
        let data = LogGuard { first_time_ms: 0, closed: false, next_days: 0, ..self.data };
        Self { bucket: bucket_of(self.last_seq + 1), data, ..self.clone() }
    }
}

pub(super) fn decode_guard(table: rows::Table, guard: &Guard) -> rows::Result<LogGuard> {
    let corrupt = |e: prost::DecodeError| rows::Error::Corrupt { table: table.name, why: format!("guard: {e}") };
    LogGuard::decode(&guard.data[..]).map_err(corrupt)
}

/// When `log_head` was written and what has changed since.
#[derive(Debug, Default)]
pub(super) struct HeadState {
    /// Since when something is unwritten.
    pub(super) dirty_since: Option<Duration>,
    /// Messages appended since it was written.
    pub(super) unwritten: u64,
    /// It must not wait for its second.
    pub(super) urgent: bool,
    /// Epochs of rows to remove with the next write.
    pub(super) old_epochs: Vec<u64>,
}

/// Keys of the messages of the newest second, to keep `MsgKey`s apart.
#[derive(Debug, Default)]
pub(super) struct RecentKeys {
    pub(super) second: u64,
    pub(super) keys: HashSet<(u32, u32)>,
    /// The keys of the newest second that were stored before this activation are in.
    pub(super) loaded: bool,
}

/// A claimed log. One at a time per process; not `Clone`, its owner is an actor.
pub struct Log {
    pub(super) inner: Arc<Inner>,
    pub(super) id: LogId,
    pub(super) class: Class,
    pub(super) route: String,
    /// Names this activation in the guards it claims.
    pub(super) claimant: u64,
    /// Key of its row in `open_logs`.
    pub(super) open_epoch: u64,
    pub(super) tail: Tail,
    pub(super) classes: Vec<ClassSpan>,
    pub(super) jumps: Vec<SeqJump>,
    pub(super) first_seq: u64,
    pub(super) floor: u64,
    pub(super) cursor: u64,
    pub(super) revoked: VecDeque<RevokedSeq>,
    pub(super) head: HeadState,
    pub(super) recent: RecentKeys,
    pub(super) cache: TailCache,
    pub(super) pending: Option<Pending>,
    pub(super) stale: bool,
    /// Monotonic time of the last conditional write or guard read that showed the log is still ours.
    pub(super) confirmed: Duration,
}

impl Log {
    /// Which log.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The epoch held. Answers from memory carry it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.tail.epoch)
    }

    /// The last seq assigned; 0 in an empty log.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq(self.tail.last_seq)
    }

    /// Countable messages so far.
    #[must_use]
    pub fn ord(&self) -> u64 {
        self.tail.data.ord
    }

    /// Server time of the last message; 0 in an empty log.
    #[must_use]
    pub fn last_time(&self) -> UnixMillis {
        UnixMillis(self.tail.data.last_time_ms)
    }

    /// The highest group epoch seen.
    #[must_use]
    pub fn group_epoch(&self) -> Epoch {
        Epoch(self.tail.data.group_epoch)
    }

    /// Raised by a restore from a backup; positions of a lower generation are void.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.tail.data.generation
    }

    /// Messages at or below are cleared for everyone.
    #[must_use]
    pub fn floor(&self) -> Seq {
        Seq(self.floor)
    }

    /// Side effects are taken up to here.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        Seq(self.cursor)
    }

    /// Whether another owner was met; nothing more can be done with it.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether the outcome of an append is open; see [`Log::settle`].
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.pending.is_some()
    }

    /// Changes the retention of messages to come, from the next bucket on.
    pub fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// Time since the store last showed that the log is still ours. Above 8 s, [`confirm`](Self::confirm) before
    /// answering from memory.
    #[must_use]
    pub fn unconfirmed_for(&self) -> Duration {
        self.inner.clock.mono().saturating_sub(self.confirmed)
    }

    /// Reads the guard: is the log still ours?
    ///
    /// # Errors
    /// [`Error::StaleOwner`] when it is not; [`Error::Store`].
    pub async fn confirm(&mut self) -> Result<()> {
        self.usable()?;
        let table = class_of(&self.classes, self.tail.bucket).log();
        let guard = self.inner.store.guard(table, &self.id.bucket(self.tail.bucket)).await?;
        if !self.is_mine(table, guard.as_ref())? {
            return Err(self.depose());
        }
        // A full bucket is not claimed any more: a new owner claims the next.
        if self.tail.data.closed {
            let next = self.tail.in_next_bucket().bucket;
            let table = class_of(&self.classes, next).log();
            let guard = self.inner.store.guard(table, &self.id.bucket(next)).await?;
            if guard.is_some() && !self.is_mine(table, guard.as_ref())? {
                return Err(self.depose());
            }
        }
        self.confirmed = self.inner.clock.mono();
        Ok(())
    }

    /// Whether this activation wrote the guard.
    pub(super) fn is_mine(&self, table: rows::Table, guard: Option<&Guard>) -> Result<bool> {
        match guard {
            Some(guard) => Ok(decode_guard(table, guard)?.claimant == self.claimant),
            None => Ok(false),
        }
    }

    /// What `log_head` says of this log now.
    #[must_use]
    pub fn snapshot(&self) -> LogHead {
        LogHead {
            open: true,
            epoch: self.tail.epoch,
            group_epoch: self.tail.data.group_epoch,
            generation: self.tail.data.generation,
            bucket: self.tail.bucket,
            last_seq: self.tail.last_seq,
            ord: self.tail.data.ord,
            last_time_ms: self.tail.data.last_time_ms,
            first_seq: self.first_seq,
            floor: self.floor,
            cursor: self.cursor,
            revoked: self.revoked.iter().copied().collect(),
            classes: self.classes.clone(),
            route: self.route.clone(),
            jumps: self.jumps.clone(),
        }
    }

    pub(super) fn usable(&self) -> Result<()> {
        if self.stale { Err(Error::StaleOwner { ours: self.epoch() }) } else { Ok(()) }
    }

    pub(super) fn depose(&mut self) -> Error {
        self.stale = true;
        Error::StaleOwner { ours: self.epoch() }
    }
}
