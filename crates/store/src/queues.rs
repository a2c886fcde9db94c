//! Stored work queues: at least once, in order per key, for webhooks and whatever else must survive.
//!
//! ```text
//! queue        (queue, partition)  plain  rows sort by app, key, time, id: one key's work is together and in order
//! queue_done   (queue, partition)  plain  ids of finished work, for a while: producers may repeat themselves
//! queue_dead   (queue, app)        plain  work given up, by time
//! queue_parked (queue)             plain  apps whose work waits
//! ```
//!
//! - Work is put by many and taken by the one owner of its partition. Its clustering key is its identity, so putting it twice
//!   is putting it once, and a finished id is dropped when it is read again.
//! - Because rows sort by app first, an app that is parked costs its neighbours one step over all its rows.

mod codec;
mod dead;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::{ParkedRow, QueueRow};
use linnet_types::{SdkAppId, UnixMillis};
use std::time::Duration;

pub use codec::{describe, tables};
pub use dead::{DeadId, DeadLetter};

use crate::keys::{self, Key, Parts};
use crate::record;
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const QUEUE: Table = Table { name: "queue", kind: Kind::Plain };
const DONE: Table = Table { name: "queue_done", kind: Kind::Plain };
const DEAD: Table = Table { name: "queue_dead", kind: Kind::Plain };
const PARKED: Table = Table { name: "queue_parked", kind: Kind::Plain };

/// Partitions of a queue.
pub const PARTITIONS: u16 = 256;
/// How long finished work is remembered: longer than a producer's cursor can lag.
const DONE_LIFE: Life = Life::For(Duration::from_secs(72 * 3600));
/// Rows read at once when counting.
const COUNT_PAGE: usize = 1_000;
/// Finished ids looked up at once.
const READS: usize = 32;

/// What a piece of work is about; equal ids are the same work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId {
    /// Tenant.
    pub app: SdkAppId,
    /// Its work is done one at a time and in order; a conversation, for example.
    pub key: String,
    /// When it happened, by the stored record it comes from, so that a repeat says the same. Orders the work of a key.
    pub at: UnixMillis,
    /// Which numbering `no` belongs to: see [`Source`].
    pub source: Source,
    /// Seq or outbox number.
    pub no: u64,
    /// Name of the event.
    pub event: String,
}

/// Where a piece of work was derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An outbox row; `no` is its number.
    Outbox,
    /// A message; `no` is its seq.
    Log,
    /// Something else; `no` is the producer's.
    Other,
}

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Identity.
    pub id: WorkId,
    /// For the worker.
    pub payload: Bytes,
    /// Tries that failed.
    pub attempts: u32,
    /// Not before this.
    pub next: UnixMillis,
    /// The first try.
    pub first_try: Option<UnixMillis>,
    /// Why the last try failed.
    pub last_error: String,
    /// Put back from the dead letters: done again although it was finished.
    pub replayed: bool,
}

impl Item {
    /// Work to be done at once.
    #[must_use]
    pub fn new(id: WorkId, payload: impl Into<Bytes>) -> Self {
        Self {
            id,
            payload: payload.into(),
            attempts: 0,
            next: UnixMillis(0),
            first_try: None,
            last_error: String::new(),
            replayed: false,
        }
    }
}

/// Where a walk over the keys of a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCursor {
    app: SdkAppId,
    key: String,
}

/// What waits in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Rows, at most what was asked for.
    pub depth: usize,
    /// When the oldest of them happened.
    pub oldest: Option<UnixMillis>,
}

/// An app whose work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Tenant.
    pub app: SdkAppId,
    /// Since when.
    pub since: UnixMillis,
    /// When its work is looked at again.
    pub until: UnixMillis,
}

/// The partition of a key: what a producer wakes and an owner reads.
#[must_use]
pub fn partition_of(app: SdkAppId, key: &str) -> u16 {
    record::slot(&format!("{app}/{key}"), PARTITIONS)
}

/// One queue.
#[derive(Clone)]
pub struct Queues {
    store: Store,
    queue: &'static str,
}

impl Queues {
    /// The queue named `queue` over `store`.
    #[must_use]
    pub fn new(store: Store, queue: &'static str) -> Self {
        Self { store, queue }
    }

    /// Adds work, all of it in one write; what is there already stays once, though its tries start anew. Returns when it is
    /// durable.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn enqueue(&self, items: &[Item]) -> Result<()> {
        let writes = items.iter().map(|item| self.row(item)).collect();
        record::put(&self.store, QUEUE, writes, Life::Forever).await
    }

    /// The oldest work of each key of `partition`, at most `limit` keys after `after`, leaving out the apps in `skip`;
    /// `None` beside the page = every key was seen. Only for the owner of the partition.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn heads(
        &self,
        partition: u16,
        after: Option<&KeyCursor>,
        limit: usize,
        skip: &[SdkAppId],
    ) -> Result<(Vec<Item>, Option<KeyCursor>)> {
        let limit = limit.max(1);
        let mut from =
            after.map(|cursor| codec::key_prefix(cursor.app, &cursor.key)).and_then(|key| keys::after_prefix(&key));
        let mut heads: Vec<Item> = Vec::new();
        while heads.len() < limit {
            let range = Range { from: from.take(), limit: 1, ..Range::default() };
            let rows = self.store.scan(QUEUE, &codec::partition(self.queue, partition), range).await?;
            let Some(row) = rows.first() else { return Ok((heads, None)) };
            let item = codec::item(&row.clustering, &row.value)?;
            if skip.contains(&item.id.app) {
                let app = Key::new().u32(item.id.app.0).done();
                let Some(next) = keys::after_prefix(&app) else { return Ok((heads, None)) };
                from = Some(next);
                continue;
            }
            if self.finished(partition, &item).await? {
                self.drop_row(partition, &item.id).await?;
                from = Some(row.clustering.clone());
                continue;
            }
            from = keys::after_prefix(&codec::key_prefix(item.id.app, &item.id.key));
            heads.push(item);
        }
        let next = heads.last().map(|item| KeyCursor { app: item.id.app, key: item.id.key.clone() });
        Ok((heads, next))
    }

    /// The work of one key, oldest first, at most `limit`. Only for the owner of its partition.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn of_key(&self, app: SdkAppId, key: &str, limit: usize) -> Result<Vec<Item>> {
        let partition = partition_of(app, key);
        let mut range = Range { limit, ..keys::prefix(codec::key_prefix(app, key)) };
        let mut items = Vec::new();
        loop {
            let rows = self.store.scan(QUEUE, &codec::partition(self.queue, partition), range.clone()).await?;
            let read: Result<Vec<Item>> = rows.iter().map(|row| codec::item(&row.clustering, &row.value)).collect();
            let finished: Vec<(Item, bool)> = stream::iter(read?)
                .map(|item| async move {
                    let finished = self.finished(partition, &item).await?;
                    Ok::<_, crate::Error>((item, finished))
                })
                .buffered(READS)
                .try_collect()
                .await?;
            for (item, finished) in finished {
                if finished {
                    self.drop_row(partition, &item.id).await?;
                } else {
                    items.push(item);
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() == range.limit && items.len() < limit) else {
                return Ok(items);
            };
            range.from = Some(keys::after(&last.clustering));
            range.limit = limit - items.len();
        }
    }

    /// Finishes work: it is remembered, then removed.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn ack(&self, ids: &[WorkId]) -> Result<()> {
        let mark = |id: &WorkId| {
            let partition = codec::partition(self.queue, partition_of(id.app, &id.key));
            (partition, Write::Put { clustering: codec::clustering(id), value: Bytes::new() })
        };
        record::put(&self.store, DONE, ids.iter().map(mark).collect(), DONE_LIFE).await?;
        self.drop_rows(ids).await
    }

    /// Puts work off after a failed try; it keeps its place before the rest of its key.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn retry(&self, item: &Item, now: UnixMillis, next: UnixMillis, why: &str) -> Result<Item> {
        let later = Item {
            attempts: item.attempts.saturating_add(1),
            next,
            first_try: item.first_try.or(Some(now)),
            last_error: why.to_owned(),
            ..item.clone()
        };
        record::put(&self.store, QUEUE, vec![self.row(&later)], Life::Forever).await?;
        Ok(later)
    }

    /// What waits in one partition; reads at most `most` rows.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn waiting(&self, partition: u16, most: usize) -> Result<Waiting> {
        let mut waiting = Waiting::default();
        let mut from = None;
        while waiting.depth < most {
            let limit = COUNT_PAGE.min(most - waiting.depth);
            let range = Range { from: from.take(), limit, ..Range::default() };
            let rows = self.store.scan(QUEUE, &codec::partition(self.queue, partition), range).await?;
            for row in &rows {
                let at = codec::id(&row.clustering)?.at;
                waiting.oldest = Some(waiting.oldest.map_or(at, |oldest| oldest.min(at)));
            }
            waiting.depth += rows.len();
            let Some(last) = rows.last().filter(|_| rows.len() == limit) else { break };
            from = Some(keys::after(&last.clustering));
        }
        Ok(waiting)
    }

    /// Parks an app: workers pass [`Queues::parked`] to [`Queues::heads`] as what to skip, until `until`.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn park(&self, parked: Parked) -> Result<()> {
        let row = ParkedRow { since_ms: parked.since.0, until_ms: parked.until.0 };
        let write = record::row(Key::new().u32(parked.app.0).done(), &row);
        record::put(&self.store, PARKED, vec![(Key::new().text(self.queue).done(), write)], Life::Forever).await
    }

    /// Ends the parking of an app.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn unpark(&self, app: SdkAppId) -> Result<()> {
        let write = Write::Delete { clustering: Key::new().u32(app.0).done() };
        record::put(&self.store, PARKED, vec![(Key::new().text(self.queue).done(), write)], Life::Forever).await
    }

    /// Every parked app, those whose time is over too.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn parked(&self) -> Result<Vec<Parked>> {
        let rows = self.store.scan(PARKED, &Key::new().text(self.queue).done(), Range::default()).await?;
        let parked = |row: &crate::rows::Row| {
            let app = SdkAppId(Parts::new(PARKED.name, &row.clustering).u32()?);
            let value: ParkedRow = record::decode(PARKED, &row.value)?;
            Ok(Parked { app, since: UnixMillis(value.since_ms), until: UnixMillis(value.until_ms) })
        };
        rows.iter().map(parked).collect()
    }

    fn row(&self, item: &Item) -> (Bytes, Write) {
        let partition = codec::partition(self.queue, partition_of(item.id.app, &item.id.key));
        (partition, record::row(codec::clustering(&item.id), &codec::to_row(item)))
    }

    async fn finished(&self, partition: u16, item: &Item) -> Result<bool> {
        if item.replayed {
            return Ok(false);
        }
        let partition = codec::partition(self.queue, partition);
        Ok(self.store.get(DONE, &partition, &codec::clustering(&item.id)).await?.is_some())
    }

    async fn drop_row(&self, partition: u16, id: &WorkId) -> Result<()> {
        debug_assert_eq!(partition, partition_of(id.app, &id.key));
        self.drop_rows(std::slice::from_ref(id)).await
    }

    async fn drop_rows(&self, ids: &[WorkId]) -> Result<()> {
        let gone = |id: &WorkId| {
            let partition = codec::partition(self.queue, partition_of(id.app, &id.key));
            (partition, Write::Delete { clustering: codec::clustering(id) })
        };
        record::put(&self.store, QUEUE, ids.iter().map(gone).collect(), Life::Forever).await
    }
}

fn queue_row(value: &[u8]) -> Result<QueueRow> {
    record::decode(QUEUE, value)
}
