//! Conversations of pairs, and each user's list of conversations.
//!
//! A pair's [`ConvId`] is allocated once, under (app, smaller user, larger user): a guarded record, so two first messages
//! crossing each other meet in one conversation. What a user does to his list is in plain rows written by his owner.

use std::future::Future;

use bytes::Bytes;
use linnet_proto::store::{ConversationRow, PairConvRow, PairRow, PairSide as PairSideRow, RowVersion};
use linnet_types::{ConvId, ConversationKey, SdkAppId, Seq, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{self, Key, Parts};
use crate::record::{self, Decision};
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const PAIR: Table = Table { name: "pair", kind: Kind::Guarded };
const PAIR_CONV: Table = Table { name: "pair_conv", kind: Kind::Plain };
const CONVERSATION: Table = Table { name: "conversation", kind: Kind::Plain };

/// What one side of a pair did to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairSide {
    /// The side sees nothing below this seq: it cleared its history.
    pub floor: Seq,
    /// Head of the log when the side deleted the conversation; 0 = it did not.
    pub deleted_at: Seq,
    /// When the side pinned it.
    pub pinned: Option<UnixMillis>,
    /// Out of the side's list until touched again.
    pub hidden: bool,
}

/// The conversation of two users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its inner name.
    pub conv: ConvId,
    /// Both users, smaller id first (equal in a conversation with oneself).
    pub users: (UserId, UserId),
    /// Their sides, in the order of `users`.
    pub sides: (PairSide, PairSide),
    /// When it was created.
    pub created: UnixMillis,
}

impl Pair {
    /// The side of `user`; `None` when he is neither.
    #[must_use]
    pub fn side(&self, user: &UserId) -> Option<&PairSide> {
        if *user == self.users.0 { Some(&self.sides.0) } else { (*user == self.users.1).then_some(&self.sides.1) }
    }

    /// The side of `user`, to change it.
    #[must_use]
    pub fn side_mut(&mut self, user: &UserId) -> Option<&mut PairSide> {
        if *user == self.users.0 {
            Some(&mut self.sides.0)
        } else {
            (*user == self.users.1).then_some(&mut self.sides.1)
        }
    }

    /// The other user.
    #[must_use]
    pub fn peer(&self, user: &UserId) -> &UserId {
        if *user == self.users.0 { &self.users.1 } else { &self.users.0 }
    }
}

/// One conversation in one user's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the user names it; tells the kind.
    pub key: ConversationKey,
    /// Its inner name.
    pub conv: ConvId,
    /// When the user last touched it, or its first message.
    pub touched: UnixMillis,
    /// When it was pinned.
    pub pinned: Option<UnixMillis>,
    /// The user sees nothing below this seq.
    pub floor: Seq,
    /// Head of the log when the user deleted it from his list; it is back once the head is larger. 0 = he did not.
    pub deleted_at: Seq,
    /// Added to the computed unread count.
    pub adjust: i64,
}

/// Pairs and lists of every user.
#[derive(Clone)]
pub struct Conversations {
    store: Store,
}

impl Conversations {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The conversation of two users, if they have one. Their order does not matter.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn pair(&self, app: SdkAppId, a: &UserId, b: &UserId) -> Result<Option<Pair>> {
        let users = ordered(a, b);
        let value = record::load(&self.store, PAIR, &pair_partition(app, &users)).await?;
        value.map(|value| pair_from_row(users, &value)).transpose()
    }

    /// The conversation of two users, created if absent with an id from `next_conv`; `true` beside it when this call
    /// created it. Of two calls at once one creates, the other gets the same conversation (and wastes an id).
    ///
    /// # Errors
    /// [`crate::Error`], that of `next_conv` too.
    pub async fn open_pair<F, Fut>(
        &self,
        app: SdkAppId,
        a: &UserId,
        b: &UserId,
        now: UnixMillis,
        next_conv: F,
    ) -> Result<(Pair, bool)>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<ConvId>> + Send,
    {
        if let Some(pair) = self.pair(app, a, b).await? {
            return Ok((pair, false));
        }
        let users = ordered(a, b);
        let conv = next_conv().await?;
        // First, so that every conversation that exists can be traced back to its users; of a lost race nobody asks.
        let trace = PairConvRow { smaller: users.0.as_str().to_owned(), larger: users.1.as_str().to_owned() };
        let writes = vec![(conv_partition(app, conv), record::row(Key::new().u8(0).done(), &trace))];
        record::put(&self.store, PAIR_CONV, writes, Life::Forever).await?;
        record::change(&self.store, PAIR, pair_partition(app, &users), |old| {
            if let Some(old) = old {
                return Ok(Decision::Keep((pair_from_row(users.clone(), old)?, false)));
            }
            let pair = Pair { conv, users: users.clone(), sides: Default::default(), created: now };
            Ok(Decision::Write(record::encode(&pair_to_row(&pair)), (pair, true)))
        })
        .await
    }

    /// Whose conversation `conv` is; `None` when it is no pair's.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn pair_users(&self, app: SdkAppId, conv: ConvId) -> Result<Option<(UserId, UserId)>> {
        let value = self.store.get(PAIR_CONV, &conv_partition(app, conv), &Key::new().u8(0).done()).await?;
        let Some(value) = value else { return Ok(None) };
        let row: PairConvRow = record::decode(PAIR_CONV, &value)?;
        Ok(Some((UserId::trusted(row.smaller), UserId::trusted(row.larger))))
    }

    /// Changes a pair and returns it as it is now; `None` when the two have no conversation. `edit` runs again for every
    /// lost race; only the sides can change.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn update_pair(
        &self,
        app: SdkAppId,
        a: &UserId,
        b: &UserId,
        mut edit: impl FnMut(&mut Pair) + Send,
    ) -> Result<Option<Pair>> {
        let users = ordered(a, b);
        record::change(&self.store, PAIR, pair_partition(app, &users), |old| {
            let Some(old) = old else { return Ok(Decision::Keep(None)) };
            let old = pair_from_row(users.clone(), old)?;
            let mut pair = old.clone();
            edit(&mut pair);
            let pair = Pair { sides: pair.sides, ..old.clone() };
            Ok(match pair == old {
                true => Decision::Keep(Some(pair)),
                false => Decision::Write(record::encode(&pair_to_row(&pair)), Some(pair)),
            })
        })
        .await
    }

    /// One conversation of a user's list.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn entry(&self, app: SdkAppId, user: &UserId, key: &ConversationKey) -> Result<Option<Entry>> {
        let value = self.store.get(CONVERSATION, &user_partition(app, user), &entry_clustering(key)).await?;
        value.map(|value| entry_from_row(key.clone(), &value)).transpose()
    }

    /// A user's conversations by key, at most `limit` after `after`; 0 = all.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn entries(
        &self,
        app: SdkAppId,
        user: &UserId,
        after: Option<&ConversationKey>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let from = after.map(|key| keys::after(&entry_clustering(key)));
        let range = Range { from, limit, ..Range::default() };
        let rows = self.store.scan(CONVERSATION, &user_partition(app, user), range).await?;
        rows.iter().map(|row| entry_from_row(entry_key(&row.clustering)?, &row.value)).collect()
    }

    /// Stores conversations of users' lists in one write: both sides of a first message, for example.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn put_entries(&self, app: SdkAppId, entries: &[(UserId, Entry)]) -> Result<()> {
        let put = |(user, entry): &(UserId, Entry)| {
            (user_partition(app, user), record::row(entry_clustering(&entry.key), &entry_to_row(entry)))
        };
        record::put(&self.store, CONVERSATION, entries.iter().map(put).collect(), Life::Forever).await
    }

    /// Takes one conversation off a user's list for good.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn remove_entry(&self, app: SdkAppId, user: &UserId, key: &ConversationKey) -> Result<()> {
        let gone = Write::Delete { clustering: entry_clustering(key) };
        record::put(&self.store, CONVERSATION, vec![(user_partition(app, user), gone)], Life::Forever).await
    }
}

fn ordered(a: &UserId, b: &UserId) -> (UserId, UserId) {
    if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

fn pair_partition(app: SdkAppId, users: &(UserId, UserId)) -> Bytes {
    Key::new().u32(app.0).text(users.0.as_str()).text(users.1.as_str()).done()
}

fn conv_partition(app: SdkAppId, conv: ConvId) -> Bytes {
    Key::new().u32(app.0).u64(conv.0).done()
}

fn user_partition(app: SdkAppId, user: &UserId) -> Bytes {
    Key::new().u32(app.0).text(user.as_str()).done()
}

fn entry_clustering(key: &ConversationKey) -> Bytes {
    match key {
        ConversationKey::C2c(peer) => Key::new().u8(0).text(peer.as_str()).done(),
        ConversationKey::Group(group) => Key::new().u8(1).text(group.as_str()).done(),
    }
}

fn entry_key(clustering: &[u8]) -> Result<ConversationKey> {
    let mut parts = Parts::new(CONVERSATION.name, clustering);
    Ok(match parts.u8()? {
        0 => ConversationKey::C2c(UserId::trusted(parts.text()?)),
        1 => ConversationKey::Group(linnet_types::GroupId::trusted(parts.text()?)),
        other => return Err(record::corrupt(CONVERSATION, format_args!("conversation of kind {other}"))),
    })
}

fn time(ms: u64) -> Option<UnixMillis> {
    (ms != 0).then_some(UnixMillis(ms))
}

fn pair_to_row(pair: &Pair) -> PairRow {
    let side = |side: &PairSide| {
        Some(PairSideRow {
            floor: side.floor.0,
            deleted_at: side.deleted_at.0,
            pinned_ms: side.pinned.map_or(0, |at| at.0),
            hidden: side.hidden,
        })
    };
    PairRow {
        version: RowVersion::RowVersion1.into(),
        conv: pair.conv.0,
        smaller: side(&pair.sides.0),
        larger: side(&pair.sides.1),
        created_ms: pair.created.0,
    }
}

fn pair_from_row(users: (UserId, UserId), value: &[u8]) -> Result<Pair> {
    let row: PairRow = record::decode(PAIR, value)?;
    let side = |side: Option<PairSideRow>| {
        let side = side.unwrap_or_default();
        PairSide {
            floor: Seq(side.floor),
            deleted_at: Seq(side.deleted_at),
            pinned: time(side.pinned_ms),
            hidden: side.hidden,
        }
    };
    Ok(Pair {
        conv: ConvId(row.conv),
        users,
        sides: (side(row.smaller), side(row.larger)),
        created: UnixMillis(row.created_ms),
    })
}

fn entry_to_row(entry: &Entry) -> ConversationRow {
    ConversationRow {
        conv: entry.conv.0,
        touched_ms: entry.touched.0,
        pinned_ms: entry.pinned.map_or(0, |at| at.0),
        floor: entry.floor.0,
        deleted_at: entry.deleted_at.0,
        adjust: entry.adjust,
    }
}

fn entry_from_row(key: ConversationKey, value: &[u8]) -> Result<Entry> {
    let row: ConversationRow = record::decode(CONVERSATION, value)?;
    Ok(Entry {
        key,
        conv: ConvId(row.conv),
        touched: UnixMillis(row.touched_ms),
        pinned: time(row.pinned_ms),
        floor: Seq(row.floor),
        deleted_at: Seq(row.deleted_at),
        adjust: row.adjust,
    })
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![PAIR, PAIR_CONV, CONVERSATION]
}

/// One row for people.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let app = parts.u32()?;
    if table == PAIR_CONV {
        let row: PairConvRow = record::decode(table, value)?;
        return Ok(json!({ "app": app, "conv": parts.u64()?, "users": [row.smaller, row.larger] }));
    }
    let user = UserId::trusted(parts.text()?);
    if table == CONVERSATION {
        let entry = entry_from_row(entry_key(clustering)?, value)?;
        return Ok(json!({
            "app": app, "user": user, "conversation": entry.key.to_string(), "conv": entry.conv,
            "touched_ms": entry.touched, "pinned_ms": entry.pinned, "floor": entry.floor,
            "deleted_at": entry.deleted_at, "adjust": entry.adjust,
        }));
    }
    let pair = pair_from_row((user, UserId::trusted(parts.text()?)), value)?;
    let side = |side: &PairSide| {
        json!({
            "floor": side.floor, "deleted_at": side.deleted_at, "pinned_ms": side.pinned, "hidden": side.hidden,
        })
    };
    Ok(json!({
        "app": app, "users": [pair.users.0, pair.users.1], "conv": pair.conv, "created_ms": pair.created,
        "sides": [side(&pair.sides.0), side(&pair.sides.1)],
    }))
}

#[cfg(test)]
mod tests;
