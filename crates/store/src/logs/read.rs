//! Reading a log: history with revisions laid over it, and what recovery needs.

use bytes::Bytes;
use linnet_proto::store::{ClassSpan, LogHead, MessageHead, Revision, SeqJump};
use linnet_types::{Seq, UnixMillis};
use prost::Message;

use std::collections::HashMap;
use std::sync::Arc;

use super::head::current_head;
use super::log::Log;
use super::tables::{LogId, body_key, bucket_of, bucket_span, class_of, head_key, revision_key, seq_of};
use super::{Inner, Logs, Result};
use crate::rows::{self, Range, Table};

/// A page of history ends after about this many bytes.
const PAGE_BYTES: usize = 1 << 20;
/// What a message costs beside its content.
const ROW_BYTES: usize = 200;
/// Heads read at once in recovery.
const RECOVERY_STEP: usize = 500;
/// Rows that recovery of a log looks at, at most (`docs/architecture.md`, de-duplication).
pub const RECOVERY_ROWS: usize = 12_000;

/// A message as stored, with what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its position.
    pub seq: Seq,
    /// Everything but the content.
    pub head: MessageHead,
    /// The content: as modified last, empty when it was revoked.
    pub body: Bytes,
    /// What became of it; `None` = nothing.
    pub revision: Option<Revision>,
}

impl Stored {
    /// Whether it was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revision.as_ref().is_some_and(|revision| revision.revoke.is_some())
    }
}

/// A page of history. `messages` and `missing` together account for every seq of `from..=to`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Newest first.
    pub messages: Vec<Stored>,
    /// Ranges, inclusive, newest first, of seqs with no message any more: expired or cleared.
    pub missing: Vec<(Seq, Seq)>,
    /// The lowest seq accounted for.
    pub from: Seq,
    /// The highest seq accounted for; below `from` when the range asked for was empty.
    pub to: Seq,
    /// The lowest seq that can still be read.
    pub first_seq: Seq,
    /// The last seq of the log.
    pub last_seq: Seq,
}

/// Reads one log without owning it; a snapshot of where its tail was.
#[derive(Clone)]
pub struct Reader {
    pub(super) inner: Arc<Inner>,
    pub(super) id: LogId,
    pub(super) classes: Vec<ClassSpan>,
    pub(super) jumps: Vec<SeqJump>,
    pub(super) last_seq: u64,
    pub(super) first_seq: u64,
    pub(super) floor: u64,
}

impl Logs {
    /// A reader of a log; `None` when there is no such log.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn reader(&self, id: LogId) -> Result<Option<Reader>> {
        let head = current_head(&self.inner, id).await?;
        Ok(head.map(|head| self.reader_of(id, &head)))
    }

    /// A reader that trusts a head the caller has (a cached one sees no newer messages).
    #[must_use]
    pub fn reader_of(&self, id: LogId, head: &LogHead) -> Reader {
        Reader {
            inner: self.inner.clone(),
            id,
            classes: head.classes.clone(),
            jumps: head.jumps.clone(),
            last_seq: head.last_seq,
            first_seq: head.first_seq.max(1),
            floor: head.floor,
        }
    }
}

impl Log {
    /// A reader of this log up to its current tail.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            inner: self.inner.clone(),
            id: self.id,
            classes: self.classes.clone(),
            jumps: self.jumps.clone(),
            last_seq: self.tail.last_seq,
            first_seq: self.first_seq,
            floor: self.floor,
        }
    }

    /// The heads of the newest messages, newest first, back to `since` or `most` rows: what de-duplication starts from.
    /// Reads no bodies.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn recover(&self, since: UnixMillis, most: usize) -> Result<Vec<(Seq, MessageHead)>> {
        self.reader().recover(since, most).await
    }
}

impl Reader {
    /// The last seq.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq(self.last_seq)
    }

    /// Reads the newest messages of `from..=to`, newest first, at most `limit` of them and about 1 MB. The page says from
    /// where on it is complete; what was not reached is asked for again with a lower `to`.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn history(&self, from: Seq, to: Seq, limit: usize) -> Result<Page> {
        let high = to.0.min(self.last_seq);
        let low = from.0.max(1);
        let readable = self.first_seq.max(self.floor + 1);
        let mut page = Page {
            from: Seq(high + 1),
            to: Seq(high),
            first_seq: Seq(readable),
            last_seq: Seq(self.last_seq),
            ..Page::default()
        };
        let bottom = low.max(readable);
        let (mut next, mut bytes) = (high, 0);
        while next >= bottom && page.messages.len() < limit && bytes < PAGE_BYTES {
            let floor = bottom.max(bucket_span(bucket_of(next)).0);
            let want = limit - page.messages.len();
            let found = self.read_bucket(floor, next, want).await?;
            let whole = found.len() < want;
            let oldest = found.last().map_or(next + 1, |stored| stored.seq.0);
            if whole && oldest > floor {
                // The lower end of a stretch is gone: look how far down that goes.
                page.first_seq = self.first_seq().await?;
            }
            for stored in found {
                bytes += stored.body.len() + ROW_BYTES;
                page.missing(stored.seq.0 + 1, next);
                next = stored.seq.0 - 1;
                page.messages.push(stored);
                if bytes >= PAGE_BYTES {
                    break;
                }
            }
            if whole && bytes < PAGE_BYTES {
                page.missing(floor, next);
                next = floor - 1;
            }
            if page.first_seq.0 > next {
                break;
            }
        }
        if next < bottom.max(page.first_seq.0) && next >= low {
            page.missing(low, next);
            next = low - 1;
        }
        page.from = Seq(next + 1);
        Ok(page)
    }

    /// One message.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn message(&self, seq: Seq) -> Result<Option<Stored>> {
        let page = self.history(seq, seq, 1).await?;
        Ok(page.messages.into_iter().next())
    }

    /// One message without its content, whether cleared or not.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn head(&self, seq: Seq) -> Result<Option<MessageHead>> {
        let table = self.table(bucket_of(seq.0));
        let value = self.inner.store.get(table, &self.id.bucket(bucket_of(seq.0)), &head_key(seq.0)).await?;
        Ok(value.map(|value| decode_row(table, &value)).transpose()?)
    }

    /// See [`Log::recover`].
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn recover(&self, since: UnixMillis, most: usize) -> Result<Vec<(Seq, MessageHead)>> {
        let mut found = Vec::new();
        let mut next = self.last_seq;
        while next >= self.first_seq && found.len() < most {
            let (start, _) = bucket_span(bucket_of(next));
            let step = RECOVERY_STEP.min(most - found.len());
            let heads = self.heads_between(start, next, step, false).await?;
            let Some((lowest, _)) = heads.last() else {
                // Nothing there: expired from here on, or never stored.
                let Some(jump) = self.jumps.iter().find(|jump| (jump.after_seq + 1..=jump.to_seq).contains(&next))
                else {
                    break;
                };
                next = jump.after_seq;
                continue;
            };
            next = lowest - 1;
            for (seq, head) in heads {
                if head.time_ms < since.0 {
                    return Ok(found);
                }
                found.push((Seq(seq), head));
            }
        }
        Ok(found)
    }

    pub(super) fn table(&self, bucket: u64) -> Table {
        class_of(&self.classes, bucket).log()
    }

    /// Heads of `low..=high` of one bucket, newest first unless `ascending`.
    pub(super) async fn heads_between(
        &self,
        low: u64,
        high: u64,
        limit: usize,
        ascending: bool,
    ) -> Result<Vec<(u64, MessageHead)>> {
        let bucket = bucket_of(high);
        let table = self.table(bucket);
        let range = Range { descending: ascending, ..between(head_key(high), head_key(low), limit) };
        let rows = self.inner.store.scan(table, &self.id.bucket(bucket), range).await?;
        let decode = |row: &rows::Row| Ok((seq_of(table, &row.clustering)?, decode_row(table, &row.value)?));
        rows.iter().map(decode).collect()
    }

    /// Messages of `low..=high`, of one bucket, newest first.
    async fn read_bucket(&self, low: u64, high: u64, limit: usize) -> Result<Vec<Stored>> {
        let bucket = bucket_of(high);
        let (table, revisions) = (self.table(bucket), class_of(&self.classes, bucket).revision());
        let partition = self.id.bucket(bucket);
        let bodies = self.inner.store.scan(table, &partition, between(body_key(high), body_key(low), limit));
        let (heads, bodies) = futures::join!(self.heads_between(low, high, limit, false), bodies);
        let heads = heads?;
        let (Some((newest, _)), Some((oldest, _))) = (heads.first(), heads.last()) else { return Ok(Vec::new()) };
        let range = between(revision_key(*newest), revision_key(*oldest), 0);
        let mut overlay = HashMap::new();
        for row in self.inner.store.scan(revisions, &partition, range).await? {
            let revision: Revision = decode_row(revisions, &row.value)?;
            overlay.insert(seq_of(revisions, &row.clustering)?, revision);
        }
        let mut contents = HashMap::new();
        for row in bodies? {
            contents.insert(seq_of(table, &row.clustering)?, row.value);
        }
        let messages = heads.into_iter().filter_map(|(seq, head)| {
            // Head and body expire together; a page read at that moment may see one of them.
            let body = contents.remove(&seq)?;
            Some(lay_over(Seq(seq), head, body, overlay.remove(&seq)))
        });
        Ok(messages.collect())
    }
}

/// A message with what became of it.
pub(super) fn lay_over(seq: Seq, head: MessageHead, body: Bytes, revision: Option<Revision>) -> Stored {
    let body = match &revision {
        Some(revision) if revision.revoke.is_some() => Bytes::new(),
        Some(Revision { body: Some(modified), .. }) => modified.clone(),
        _ => body,
    };
    Stored { seq, head, body, revision }
}

fn between(first: Bytes, last: Bytes, limit: usize) -> Range {
    Range { from: Some(first), to: Some(crate::keys::after(&last)), descending: false, limit }
}

pub(super) fn decode_row<M: Message + Default>(table: Table, value: &[u8]) -> rows::Result<M> {
    M::decode(value).map_err(|e| rows::Error::Corrupt { table: table.name, why: e.to_string() })
}

impl Page {
    fn missing(&mut self, low: u64, high: u64) {
        if low > high {
            return;
        }
        match self.missing.last_mut() {
            Some((from, _)) if from.0 == high + 1 => from.0 = low,
            _ => self.missing.push((Seq(low), Seq(high))),
        }
    }
}
