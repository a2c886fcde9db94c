//! Read positions: plain rows under the user, one a conversation, written by the user's owner.

use std::cmp::Ordering;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::PositionRow;
use linnet_types::{ConvId, SdkAppId, Seq, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{Key, Parts};
use crate::record;
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const POSITION: Table = Table { name: "position", kind: Kind::Plain };
/// Rows read at once by [`Positions::get_many`].
const READS: usize = 32;

/// A user's place in a conversation; unread = `head.ord - read_ord - own_since + adjust - countable revoked since`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Everything up to here is read.
    pub read_seq: Seq,
    /// Countable messages up to `read_seq`.
    pub read_ord: u64,
    /// The user's own countable messages since.
    pub own_since: u64,
    /// How far own messages are counted in `own_since`, so that counting a message twice changes nothing.
    pub own_to: Seq,
    /// Added to the count: a count set from outside.
    pub adjust: i64,
    /// Generation of the log the numbers belong to; a newer one drops them.
    pub generation: u32,
    /// When it was last read.
    pub read_at: UnixMillis,
}

impl Position {
    /// The further of two positions: a newer generation wins, then the larger `read_seq`; at the same place the newer
    /// adjustment, the larger count of own messages and the later time.
    #[must_use]
    pub fn merge(self, new: Self) -> Self {
        match (new.generation, new.read_seq).cmp(&(self.generation, self.read_seq)) {
            Ordering::Less => self,
            Ordering::Greater => new,
            Ordering::Equal => Self {
                own_since: self.own_since.max(new.own_since),
                own_to: self.own_to.max(new.own_to),
                read_ord: self.read_ord.max(new.read_ord),
                read_at: self.read_at.max(new.read_at),
                ..new
            },
        }
    }
}

/// The position of one user in one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whose.
    pub user: UserId,
    /// Where.
    pub conv: ConvId,
    /// What.
    pub position: Position,
}

/// Read positions of every user.
#[derive(Clone)]
pub struct Positions {
    store: Store,
}

impl Positions {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Reads one position.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get(&self, app: SdkAppId, user: &UserId, conv: ConvId) -> Result<Option<Position>> {
        let value = self.store.get(POSITION, &partition(app, user), &clustering(conv)).await?;
        value.map(|value| from_row(&value)).transpose()
    }

    /// Reads the positions of one user in `convs`, in that order.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get_many(&self, app: SdkAppId, user: &UserId, convs: &[ConvId]) -> Result<Vec<Option<Position>>> {
        stream::iter(convs.to_vec()).map(|conv| self.get(app, user, conv)).buffered(READS).try_collect().await
    }

    /// Every position of one user, by conversation.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn all(&self, app: SdkAppId, user: &UserId) -> Result<Vec<(ConvId, Position)>> {
        let rows = self.store.scan(POSITION, &partition(app, user), Range::default()).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let conv = ConvId(Parts::new(POSITION.name, &row.clustering).u64()?);
            all.push((conv, from_row(&row.value)?));
        }
        Ok(all)
    }

    /// Moves positions forward ([`Position::merge`]) and returns what is stored now, in the same order; one write for all.
    /// Only the owner of a user may call it: between read and write nobody else may write.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn merge(&self, app: SdkAppId, new: &[Placed]) -> Result<Vec<Position>> {
        let old: Vec<Option<Position>> = stream::iter(new.to_vec())
            .map(|place| async move { self.get(app, &place.user, place.conv).await })
            .buffered(READS)
            .try_collect()
            .await?;
        let mut merged = Vec::with_capacity(new.len());
        let mut writes: Vec<(Bytes, Write)> = Vec::new();
        for (place, old) in new.iter().zip(old) {
            let now = old.map_or(place.position, |old| old.merge(place.position));
            if old != Some(now) {
                writes.push(put(app, &Placed { position: now, ..place.clone() }));
            }
            merged.push(now);
        }
        record::put(&self.store, POSITION, writes, Life::Forever).await?;
        Ok(merged)
    }

    /// Stores positions as they are, backwards too: a join, a count set from outside.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set(&self, app: SdkAppId, new: &[Placed]) -> Result<()> {
        record::put(&self.store, POSITION, new.iter().map(|place| put(app, place)).collect(), Life::Forever).await
    }

    /// Removes one position.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn remove(&self, app: SdkAppId, user: &UserId, conv: ConvId) -> Result<()> {
        let gone = Write::Delete { clustering: clustering(conv) };
        record::put(&self.store, POSITION, vec![(partition(app, user), gone)], Life::Forever).await
    }
}

fn partition(app: SdkAppId, user: &UserId) -> Bytes {
    Key::new().u32(app.0).text(user.as_str()).done()
}

fn clustering(conv: ConvId) -> Bytes {
    Key::new().u64(conv.0).done()
}

fn put(app: SdkAppId, place: &Placed) -> (Bytes, Write) {
    let row = PositionRow {
        read_seq: place.position.read_seq.0,
        read_ord: place.position.read_ord,
        own_since: place.position.own_since,
        own_to: place.position.own_to.0,
        adjust: place.position.adjust,
        generation: place.position.generation,
        read_ms: place.position.read_at.0,
    };
    (partition(app, &place.user), record::row(clustering(place.conv), &row))
}

fn from_row(value: &[u8]) -> Result<Position> {
    let row: PositionRow = record::decode(POSITION, value)?;
    Ok(Position {
        read_seq: Seq(row.read_seq),
        read_ord: row.read_ord,
        own_since: row.own_since,
        own_to: Seq(row.own_to),
        adjust: row.adjust,
        generation: row.generation,
        read_at: UnixMillis(row.read_ms),
    })
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![POSITION]
}

/// One row for people.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let (app, user) = (parts.u32()?, parts.text()?);
    let conv = Parts::new(table.name, clustering).u64()?;
    let at = from_row(value)?;
    Ok(json!({
        "app": app, "user": user, "conv": conv, "read_seq": at.read_seq, "read_ord": at.read_ord,
        "own_since": at.own_since, "own_to": at.own_to, "adjust": at.adjust, "generation": at.generation, "read_ms": at.read_at,
    }))
}

#[cfg(test)]
mod tests;
