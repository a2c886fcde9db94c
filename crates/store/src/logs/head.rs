//! `log_head`: what is known of a log without reading its buckets, and closing.
//!
//! A row per epoch in a plain table: the highest epoch is the truth, so whatever a deposed owner still writes is not seen.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use linnet_proto::store::{LogHead, RevokedSeq};
use linnet_types::Seq;
use prost::Message;

use super::log::{HeadState, Log, decode_guard};
use super::tables::{LOG_HEAD, LogId, bucket_of, class_of, note_class};
use super::{Inner, Logs, Result};
use crate::keys::Key;
use crate::rows::{self, Life, PlainBatch, Range, Store, Write};

/// `log_head` lags by at most this much time …
const LAG: Duration = Duration::from_secs(1);
/// … or this many messages.
const LAG_MESSAGES: u64 = 64;
/// Revoked messages remembered.
const REVOKED: usize = 100;
/// Repeats of a plain write before its caller hears of it.
const REPEATS: u32 = 4;
/// Logs looked up at once.
const AT_ONCE: usize = 32;

pub(super) struct HeadRows {
    pub(super) head: Option<LogHead>,
    /// Epochs of the rows found.
    pub(super) epochs: Vec<u64>,
}

pub(super) fn decode_head(value: &[u8]) -> rows::Result<LogHead> {
    LogHead::decode(value).map_err(|e| rows::Error::Corrupt { table: LOG_HEAD.name, why: e.to_string() })
}

pub(super) async fn load_head(store: &Store, id: LogId) -> Result<HeadRows> {
    let rows = store.scan(LOG_HEAD, &id.partition(), Range { limit: 16, ..Range::default() }).await?;
    let head = rows.first().map(|row| decode_head(&row.value)).transpose()?;
    let epochs = rows.iter().filter_map(|row| row.clustering.first_chunk()).map(|desc| !u64::from_be_bytes(*desc));
    Ok(HeadRows { head, epochs: epochs.collect() })
}

/// Writes until it is there or the store stays away.
pub(super) async fn put(store: &Store, batch: PlainBatch) -> rows::Result<()> {
    for _ in 1..REPEATS {
        if store.put(batch.clone()).await.is_ok() {
            return Ok(());
        }
    }
    store.put(batch).await
}

impl Log {
    /// Whether `log_head` must be written now: 1 s or 64 messages after a change, or a bucket was begun.
    #[must_use]
    pub fn head_due(&self) -> bool {
        self.head_due_in() == Some(Duration::ZERO)
    }

    /// Time until `log_head` must be written; `None` while it is up to date.
    #[must_use]
    pub fn head_due_in(&self) -> Option<Duration> {
        let since = self.head.dirty_since?;
        if self.head.urgent || self.head.unwritten >= LAG_MESSAGES {
            return Some(Duration::ZERO);
        }
        Some(LAG.saturating_sub(self.inner.clock.mono().saturating_sub(since)))
    }

    /// Writes `log_head`. Idempotent; the owner calls it when it is [due](Self::head_due).
    ///
    /// # Errors
    /// [`super::Error::StaleOwner`] when the log is known to be lost; [`super::Error::Store`]: call again.
    pub async fn write_head(&mut self) -> Result<()> {
        self.usable()?;
        self.put_head(true).await
    }

    async fn put_head(&mut self, open: bool) -> Result<()> {
        let own = self.tail.epoch;
        let head = LogHead { open, ..self.snapshot() };
        let row_key = |epoch: u64| Key::new().u64_desc(epoch).done();
        let partition = self.id.partition();
        let mut writes =
            vec![(partition.clone(), Write::Put { clustering: row_key(own), value: head.encode_to_vec().into() })];
        for epoch in self.head.old_epochs.iter().filter(|epoch| **epoch < own) {
            writes.push((partition.clone(), Write::Delete { clustering: row_key(*epoch) }));
        }
        put(&self.inner.store, PlainBatch { table: LOG_HEAD, writes, life: Life::Forever }).await?;
        self.head = HeadState { old_epochs: vec![own], ..HeadState::default() };
        Ok(())
    }

    /// Something `log_head` says has changed.
    pub(super) fn touch(&mut self, messages: u64) {
        self.head.unwritten += messages;
        self.head.dirty_since.get_or_insert_with(|| self.inner.clock.mono());
    }

    /// Notes that side effects are taken up to `seq`; reaches the store with the next [`write_head`](Self::write_head).
    pub fn set_cursor(&mut self, seq: Seq) {
        if seq.0 > self.cursor {
            self.cursor = seq.0;
            self.touch(0);
        }
    }

    /// Clears the history up to `seq` for everyone, durably. Deletes nothing.
    ///
    /// # Errors
    /// [`super::Error::StaleOwner`], [`super::Error::Store`].
    pub async fn raise_floor(&mut self, seq: Seq) -> Result<()> {
        self.usable()?;
        self.floor = self.floor.max(seq.0.min(self.tail.last_seq));
        self.touch(0);
        self.head.urgent = true;
        self.write_head().await
    }

    pub(super) fn note_revoked(&mut self, revoked: RevokedSeq) {
        if self.revoked.iter().any(|known| known.seq == revoked.seq) {
            return;
        }
        if self.revoked.len() >= REVOKED {
            self.revoked.pop_front();
        }
        self.revoked.push_back(revoked);
        self.touch(0);
    }

    /// Closes the log cleanly: `log_head` with the cursor first, then its own row of the open logs. The epoch stays claimed.
    ///
    /// # Errors
    /// [`super::Error::StaleOwner`]: nothing to close. [`super::Error::Store`]: it stays listed as open, which is safe.
    pub async fn close(mut self) -> Result<()> {
        self.usable()?;
        self.confirm().await?;
        self.put_head(false).await?;
        self.remove_open_row().await
    }
}

impl Logs {
    /// The heads of many logs; where a log is open, with what its guard says beyond its row. `None` = no such log.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn heads(&self, ids: &[LogId]) -> Result<Vec<Option<LogHead>>> {
        let lookups = ids.iter().copied().map(|id| current_head(&self.inner, id));
        stream::iter(lookups).buffered(AT_ONCE).try_collect().await
    }
}

/// The head row, brought up to date from the guards when the log is open.
pub(super) async fn current_head(inner: &Inner, id: LogId) -> Result<Option<LogHead>> {
    let Some(mut head) = load_head(&inner.store, id).await?.head else { return Ok(None) };
    if !head.open {
        return Ok(Some(head));
    }
    let mut bucket = head.bucket.max(bucket_of(head.last_seq + 1));
    loop {
        let table = class_of(&head.classes, bucket).log();
        let Some(guard) = inner.store.guard(table, &id.bucket(bucket)).await? else { break };
        let data = decode_guard(table, &guard)?;
        if guard.rev >= head.last_seq {
            head.bucket = bucket;
            head.last_seq = guard.rev;
            head.ord = data.ord;
            head.last_time_ms = data.last_time_ms;
            head.generation = data.generation;
        }
        head.epoch = head.epoch.max(guard.epoch.0);
        head.group_epoch = head.group_epoch.max(data.group_epoch);
        if !data.closed {
            break;
        }
        note_class(&mut head.classes, bucket + 1, data.next_days);
        bucket = bucket_of(guard.rev + 1).max(bucket + 1);
    }
    Ok(Some(head))
}
