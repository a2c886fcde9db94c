//! What is derived from groups: user -> groups, app -> groups, and which groups are open.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::{AppGroupRow, GroupIntentRow, JoinedRow};
use linnet_types::{ConvId, Epoch, GroupId, GroupType, SdkAppId, Seq, UnixMillis, UserId};

use super::change::Intent;
use super::guard::gravest;
use super::layout::{self, APP_GROUP, GROUP, JOINED, OPEN, tag};
use super::model::{AppGroup, GroupRecord, Joined, OpenGroup};
use super::{GroupGuard, Groups};
use crate::keys::{self, Key, Parts};
use crate::record;
use crate::rows::{Life, Range, Result, Row, Write};

/// Partitions the open groups spread over.
pub const OPEN_SLOTS: u8 = 64;
/// Members cleaned up by one batch.
const PURGE: usize = 64;
/// Reverse rows written by one batch.
const DERIVE: usize = 256;
/// Rows read at once.
const READS: usize = 32;
/// Rows read at once when counting.
const COUNT_PAGE: usize = 10_000;
/// Every kind, in the order listings merge.
const KINDS: [GroupType; 5] =
    [GroupType::Work, GroupType::Public, GroupType::Meeting, GroupType::AVChatRoom, GroupType::Community];

impl Groups {
    /// The groups of one user, by conversation. Derived: may be behind his latest change for a moment after a crash, so
    /// what it says is checked with the group before it grants anything.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn joined(&self, app: SdkAppId, user: &UserId) -> Result<Vec<Joined>> {
        let rows = self.store.scan(JOINED, &layout::user_partition(app, user), Range::default()).await?;
        let mut joined = Vec::with_capacity(rows.len());
        for row in rows {
            let conv = ConvId(Parts::new(JOINED.name, &row.clustering).u64()?);
            let value: JoinedRow = record::decode(JOINED, &row.value)?;
            joined.push(Joined {
                conv,
                group: GroupId::trusted(value.group),
                kind: layout::kind_from_row(JOINED, value.kind)?,
                role: layout::role_from_row(value.role),
                joined: UnixMillis(value.joined_ms),
                visible_from: Seq(value.visible_from),
                join_ord: value.join_ord,
                join_seq: Seq(value.join_seq),
            });
        }
        Ok(joined)
    }

    /// The groups of one app, of one kind or all, by conversation, at most `limit` after `after` (0 = from the start).
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn groups_of_app(
        &self,
        app: SdkAppId,
        kind: Option<GroupType>,
        after: ConvId,
        limit: usize,
    ) -> Result<Vec<AppGroup>> {
        let mut groups = Vec::new();
        for kind in KINDS.into_iter().filter(|each| kind.is_none_or(|kind| kind == *each)) {
            let from = layout::conv_key(ConvId(after.0.saturating_add(1)));
            let range = Range { from: Some(from), limit, ..Range::default() };
            for row in self.store.scan(APP_GROUP, &layout::app_partition(app, kind), range).await? {
                let conv = ConvId(Parts::new(APP_GROUP.name, &row.clustering).u64()?);
                let value: AppGroupRow = record::decode(APP_GROUP, &row.value)?;
                let group = GroupId::trusted(value.group);
                groups.push(AppGroup { conv, group, kind, created: UnixMillis(value.created_ms) });
            }
        }
        groups.sort_unstable_by_key(|group| group.conv);
        groups.truncate(limit);
        Ok(groups)
    }

    /// Counts the groups of one app by reading its list; cost grows with the count.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn count_of_app(&self, app: SdkAppId, kind: Option<GroupType>) -> Result<u64> {
        let mut count = 0;
        for kind in KINDS.into_iter().filter(|each| kind.is_none_or(|kind| kind == *each)) {
            let mut from = None;
            loop {
                let range = Range { from: from.take(), limit: COUNT_PAGE, ..Range::default() };
                let rows = self.store.scan(APP_GROUP, &layout::app_partition(app, kind), range).await?;
                count += rows.len() as u64;
                let Some(last) = rows.last().filter(|_| rows.len() == COUNT_PAGE) else { break };
                from = Some(keys::after(&last.clustering));
            }
        }
        Ok(count)
    }

    /// The groups of one slot (below [`OPEN_SLOTS`]) that were claimed and not closed: a node that starts or takes over
    /// claims its own, runs [`Groups::resume`] and empties their outboxes.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn open(&self, slot: u8) -> Result<Vec<OpenGroup>> {
        let rows = self.store.scan(OPEN, &open_partition(slot), Range::default()).await?;
        rows.iter().map(|row| open_from_key(&row.clustering)).collect()
    }

    /// Finishes what an earlier holder, or a failed write, left undone: derived rows of membership changes; for a dismissed
    /// group its id, and the rows of its members. May be called any time; call it after every claim.
    ///
    /// # Errors
    /// As [`Groups::apply`]: call again.
    pub async fn resume(&self, held: &mut GroupGuard) -> Result<()> {
        held.usable()?;
        if held.record.destroyed.is_some() {
            self.release(held).await?;
            return self.purge(held).await;
        }
        let (app, conv) = (held.record.app, held.record.conv);
        let found: Vec<(u16, Vec<Row>)> = stream::iter(0..held.record.slots)
            .map(|slot| async move {
                let range = keys::prefix(layout::tag_key(tag::INTENT));
                Ok((slot, self.store.scan(GROUP, &layout::partition(app, conv, slot), range).await?))
            })
            .buffered(READS)
            .try_collect()
            .await?;
        let mut intents = Vec::new();
        for (slot, rows) in found.into_iter().filter(|(_, rows)| !rows.is_empty()) {
            self.own(held, slot).await?;
            for row in rows {
                let no = layout::key_number(&row.clustering)?;
                let intent: GroupIntentRow = record::decode(GROUP, &row.value)?;
                if !held.slots[usize::from(slot)].done.contains(&no) {
                    intents.push(Intent { slot, no, users: intent.users.into_iter().map(UserId::trusted).collect() });
                }
            }
        }
        if intents.iter().any(|intent| intent.slot == 0) {
            self.put_index(&held.record).await?;
        }
        self.derive_all(held, intents).await
    }

    /// Ends a tenure in order: sweeps finished intents and, if nothing is left to do for the group, takes it off the open
    /// ones. The guard must not be used afterwards.
    ///
    /// # Errors
    /// As [`Groups::apply`]; the group then just stays open.
    pub async fn close(&self, mut held: GroupGuard) -> Result<()> {
        loop {
            let swept = (0..held.record.slots).filter(|slot| !held.slots[usize::from(*slot)].done.is_empty());
            let pending: Vec<_> =
                swept.map(|slot| held.prepare(slot, Vec::new(), held.slots[usize::from(slot)].data)).collect();
            if pending.is_empty() {
                break;
            }
            gravest(self.write_many(&mut held, pending).await)?;
        }
        // Everywhere: an earlier holder may have stored an event where this one never looked.
        held.outbox = (0..held.record.slots).collect();
        let told = self.outbox(&held, 0, 1).await?.is_empty();
        let clean = held.record.destroyed.is_none() || held.record.member_count == 0;
        for slot in 0..held.record.slots {
            let range = Range { limit: 1, ..keys::prefix(layout::tag_key(tag::INTENT)) };
            if !self.store.scan(GROUP, &held.partition(slot), range).await?.is_empty() {
                return Ok(());
            }
        }
        if told && clean { self.remove_open(held.app(), held.conv(), held.epoch).await } else { Ok(()) }
    }

    /// Carries out fresh intents. A failure is not the caller's: the intents stay and `resume` finds them.
    pub(super) async fn carry_out(&self, held: &mut GroupGuard, intents: Vec<Intent>) {
        if let Err(error) = self.derive_all(held, intents).await {
            tracing::warn!(%error, "derived rows of a group are late");
        }
    }

    async fn derive_all(&self, held: &mut GroupGuard, intents: Vec<Intent>) -> Result<()> {
        let users: Vec<UserId> = intents.iter().flat_map(|intent| intent.users.iter().cloned()).collect();
        self.derive(held, &users).await?;
        for intent in intents {
            held.slots[usize::from(intent.slot)].done.push(intent.no);
        }
        Ok(())
    }

    /// Writes the reverse rows of `users` as the group says now.
    async fn derive(&self, held: &GroupGuard, users: &[UserId]) -> Result<()> {
        for users in users.chunks(DERIVE) {
            let writes: Vec<(Bytes, Write)> = stream::iter(users.to_vec())
                .map(|user| self.joined_write(held, user))
                .buffered(READS)
                .try_collect()
                .await?;
            record::put(&self.store, JOINED, writes, Life::Forever).await?;
        }
        Ok(())
    }

    async fn joined_write(&self, held: &GroupGuard, user: UserId) -> Result<(Bytes, Write)> {
        let clustering = layout::conv_key(held.record.conv);
        let key = layout::user_key(tag::MEMBER, &user);
        let member = match held.record.destroyed {
            None => self.store.get(GROUP, &held.partition(held.slot_of(&user)), &key).await?,
            Some(_) => None,
        };
        let write = match member {
            None => Write::Delete { clustering },
            Some(value) => record::row(clustering, &joined_row(&held.record, &user, &value)?),
        };
        Ok((layout::user_partition(held.record.app, &user), write))
    }

    /// Removes the users' rows of a dismissed group: first what is derived, then the truth, so a crash repeats only.
    async fn purge(&self, held: &mut GroupGuard) -> Result<()> {
        for slot in 0..held.record.slots {
            for kind in [tag::MEMBER, tag::MUTE, tag::BAN, tag::APPLICATION, tag::INTENT] {
                loop {
                    let range = Range { limit: PURGE, ..keys::prefix(layout::tag_key(kind)) };
                    let rows = self.store.scan(GROUP, &held.partition(slot), range).await?;
                    if rows.is_empty() {
                        break;
                    }
                    self.own(held, slot).await?;
                    let mut data = held.slots[usize::from(slot)].data;
                    if kind == tag::MEMBER {
                        let users: Result<Vec<_>> = rows.iter().map(|row| layout::key_user(&row.clustering)).collect();
                        self.derive(held, &users?).await?;
                        data.members = data.members.saturating_sub(rows.len() as u32);
                    }
                    if kind == tag::INTENT {
                        // A row is changed at most once a batch; the sweep must not take these too.
                        held.slots[usize::from(slot)].done.clear();
                    }
                    let writes = rows.into_iter().map(|row| Write::Delete { clustering: row.clustering }).collect();
                    self.write(held, slot, writes, data).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn put_index(&self, record: &GroupRecord) -> Result<()> {
        let row = AppGroupRow { group: record.group.as_str().to_owned(), created_ms: record.created.0 };
        let write = record::row(layout::conv_key(record.conv), &row);
        let partition = layout::app_partition(record.app, record.kind);
        record::put(&self.store, APP_GROUP, vec![(partition, write)], Life::Forever).await
    }

    pub(super) async fn remove_index(&self, record: &GroupRecord) -> Result<()> {
        let write = Write::Delete { clustering: layout::conv_key(record.conv) };
        let partition = layout::app_partition(record.app, record.kind);
        record::put(&self.store, APP_GROUP, vec![(partition, write)], Life::Forever).await
    }

    pub(super) async fn put_open(&self, app: SdkAppId, conv: ConvId, epoch: Epoch) -> Result<()> {
        let write = Write::Put { clustering: open_key(app, conv).u64(epoch.0).done(), value: Bytes::new() };
        record::put(&self.store, OPEN, vec![(open_partition(open_slot(app, conv)), write)], Life::Forever).await
    }

    /// Removes the notes of this tenure and earlier ones; a later holder's stays.
    pub(super) async fn remove_open(&self, app: SdkAppId, conv: ConvId, epoch: Epoch) -> Result<()> {
        let partition = open_partition(open_slot(app, conv));
        let to = Some(open_key(app, conv).u64(epoch.0.saturating_add(1)).done());
        let range = Range { to, ..keys::prefix(open_key(app, conv).done()) };
        let rows = self.store.scan(OPEN, &partition, range).await?;
        let gone = rows.into_iter().map(|row| (partition.clone(), Write::Delete { clustering: row.clustering }));
        record::put(&self.store, OPEN, gone.collect(), Life::Forever).await
    }
}

fn joined_row(record: &GroupRecord, user: &UserId, member: &[u8]) -> Result<JoinedRow> {
    let member = layout::member_from_row(record, user.clone(), member)?;
    Ok(JoinedRow {
        group: record.group.as_str().to_owned(),
        kind: layout::kind_to_row(record.kind).into(),
        role: layout::role_to_row(member.role).into(),
        joined_ms: member.joined.0,
        visible_from: member.visible_from.0,
        join_ord: member.join_ord,
        join_seq: member.join_seq.0,
    })
}

fn open_slot(app: SdkAppId, conv: ConvId) -> u8 {
    // The remainder is below 64.
    (crc32fast::hash(&open_key(app, conv).done()) % u32::from(OPEN_SLOTS)) as u8
}

fn open_partition(slot: u8) -> Bytes {
    Key::new().u8(slot).done()
}

fn open_key(app: SdkAppId, conv: ConvId) -> Key {
    Key::new().u32(app.0).u64(conv.0)
}

pub(super) fn open_from_key(key: &[u8]) -> Result<OpenGroup> {
    let mut parts = Parts::new(OPEN.name, key);
    Ok(OpenGroup { app: SdkAppId(parts.u32()?), conv: ConvId(parts.u64()?), epoch: Epoch(parts.u64()?) })
}
