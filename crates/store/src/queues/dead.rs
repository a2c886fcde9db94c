//! Dead letters: work given up, kept to be looked at and replayed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use linnet_proto::store::DeadRow;
use linnet_types::{SdkAppId, UnixMillis};

use super::{DEAD, DONE, DONE_LIFE, Item, Queues, WorkId, codec, partition_of};
use crate::keys::{self, Key, Parts};
use crate::record;
use crate::rows::{Life, Range, Result, Write};

/// How long a dead letter is kept.
const DEAD_LIFE: Life = Life::For(Duration::from_secs(30 * 24 * 3600));

/// Name of a dead letter within its app; as text what operators type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadId {
    /// When it was given up.
    pub died: UnixMillis,
    hash: u64,
}

impl fmt::Display for DeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.died, self.hash)
    }
}

impl FromStr for DeadId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (died, hash) = text.split_once('-').ok_or(())?;
        Ok(Self { died: UnixMillis(died.parse().map_err(drop)?), hash: u64::from_str_radix(hash, 16).map_err(drop)? })
    }
}

/// A piece of work that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadId,
    /// The work.
    pub item: Item,
    /// Why.
    pub why: String,
}

impl Queues {
    /// Gives work up: it becomes a dead letter, and counts as finished for producers that repeat it.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn bury(&self, item: &Item, now: UnixMillis, why: &str) -> Result<DeadId> {
        let id = DeadId { died: now, hash: hash(&item.id) };
        let row = DeadRow {
            key: item.id.key.clone(),
            at_ms: item.id.at.0,
            source: codec::source_to_row(item.id.source).into(),
            no: item.id.no,
            event: item.id.event.clone(),
            item: Some(codec::to_row(item)),
            why: why.to_owned(),
        };
        let write = record::row(clustering(id), &row);
        record::put(&self.store, DEAD, vec![(self.dead_partition(item.id.app), write)], DEAD_LIFE).await?;
        self.ack(std::slice::from_ref(&item.id)).await?;
        Ok(id)
    }

    /// Dead letters of one app, oldest first, at most `limit` after `after`.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn dead(&self, app: SdkAppId, after: Option<DeadId>, limit: usize) -> Result<Vec<DeadLetter>> {
        let from = after.map(|id| keys::after(&clustering(id)));
        let range = Range { from, limit, ..Range::default() };
        let rows = self.store.scan(DEAD, &self.dead_partition(app), range).await?;
        rows.iter().map(|row| letter(app, &row.clustering, &row.value)).collect()
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn dead_letter(&self, app: SdkAppId, id: DeadId) -> Result<Option<DeadLetter>> {
        let value = self.store.get(DEAD, &self.dead_partition(app), &clustering(id)).await?;
        value.map(|value| letter(app, &clustering(id), &value)).transpose()
    }

    /// Removes a dead letter; absent is fine.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn delete_dead(&self, app: SdkAppId, id: DeadId) -> Result<()> {
        let write = Write::Delete { clustering: clustering(id) };
        record::put(&self.store, DEAD, vec![(self.dead_partition(app), write)], DEAD_LIFE).await
    }

    /// Puts a dead letter back into the queue, with no tries counted; before newer work of its key. Returns the work, so its
    /// owner can be woken; `None` when there is no such letter.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat; the work may then be done twice.
    pub async fn replay(&self, app: SdkAppId, id: DeadId) -> Result<Option<Item>> {
        let Some(letter) = self.dead_letter(app, id).await? else { return Ok(None) };
        let item = Item { replayed: true, ..Item::new(letter.item.id, letter.item.payload) };
        // The mark goes, or the replayed work would be dropped should its flag be lost to a producer's repeat.
        let partition = codec::partition(self.queue, partition_of(item.id.app, &item.id.key));
        let unmark = Write::Delete { clustering: codec::clustering(&item.id) };
        record::put(&self.store, DONE, vec![(partition, unmark)], DONE_LIFE).await?;
        self.enqueue(std::slice::from_ref(&item)).await?;
        self.delete_dead(app, id).await?;
        Ok(Some(item))
    }

    fn dead_partition(&self, app: SdkAppId) -> Bytes {
        Key::new().text(self.queue).u32(app.0).done()
    }
}

fn clustering(id: DeadId) -> Bytes {
    Key::new().u64(id.died.0).u64(id.hash).done()
}

/// FNV-1a: two letters of one millisecond must not meet, and the name must not depend on a library's hash.
fn hash(id: &WorkId) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    codec::clustering(id).iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn letter(app: SdkAppId, clustering: &[u8], value: &[u8]) -> Result<DeadLetter> {
    let mut parts = Parts::new(DEAD.name, clustering);
    let id = DeadId { died: UnixMillis(parts.u64()?), hash: parts.u64()? };
    let row: DeadRow = record::decode(DEAD, value)?;
    let work = WorkId {
        app,
        key: row.key,
        at: UnixMillis(row.at_ms),
        source: codec::source_from_row(row.source)?,
        no: row.no,
        event: row.event,
    };
    Ok(DeadLetter { id, item: codec::from_row(work, row.item.unwrap_or_default()), why: row.why })
}
