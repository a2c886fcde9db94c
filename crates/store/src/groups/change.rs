//! Changing a group: one batch where one partition holds everything, several in a safe order where not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::{GroupGuardData, GroupIntentRow};
use linnet_types::{Role, UnixMillis, UserId};
use prost::Message;

use super::guard::{Pending, gravest};
use super::layout::{self, GROUP, tag};
use super::model::{Change, Done, Edit, Event, GroupRecord, UserEdit};
use super::{GroupGuard, Groups};
use crate::record;
use crate::rows::{Error, Result, Write};

/// Accounts changed in one batch, and the bytes of their rows and events: with what else a batch holds it stays below the
/// 50 KB that CQL servers take.
const USERS: usize = 64;
const USER_BYTES: usize = 24 << 10;
/// Bytes of rows and events that go with the profile in the last batch; more go before it.
const LAST_BYTES: usize = 32 << 10;
/// What a row costs beside its key and value, about.
const ROW_BYTES: usize = 64;
/// Rows read at once.
const READS: usize = 32;

/// An intent that is stored and not yet carried out.
pub(super) struct Intent {
    pub(super) slot: u16,
    pub(super) no: u64,
    pub(super) users: Vec<UserId>,
}

/// One batch to be.
#[derive(Default)]
struct Batch {
    slot: u16,
    writes: Vec<Write>,
    added: Vec<UserId>,
    removed: Vec<UserId>,
    /// Members whose role changes with the record.
    retitled: Vec<UserId>,
    events: Vec<Event>,
}

impl Batch {
    /// About how much of a conditional batch it takes; beside it there may be an intent, the guard and the profile.
    fn bytes(&self) -> usize {
        let writes = self.writes.iter().map(|write| match write {
            Write::Put { clustering, value } => clustering.len() + value.len() + ROW_BYTES,
            Write::Delete { clustering } => clustering.len() + ROW_BYTES,
        });
        writes.sum::<usize>() + events_bytes(&self.events)
    }

    fn takes(&self, next: &Self, users: usize) -> bool {
        users < USERS && self.bytes() + next.bytes() <= USER_BYTES
    }

    fn append(&mut self, next: Self) {
        self.writes.extend(next.writes);
        self.added.extend(next.added);
        self.removed.extend(next.removed);
        self.events.extend(next.events);
    }
}

fn events_bytes(events: &[Event]) -> usize {
    events.iter().map(|event| event.event.len() + event.body.len() + ROW_BYTES).sum()
}

/// One batch ready to be written, and what is true once it is in.
type Ready = (Pending, Outcome);

struct Outcome {
    added: Vec<UserId>,
    removed: Vec<UserId>,
    profile: Option<(Bytes, GroupRecord)>,
    intent: Option<Intent>,
}

impl Groups {
    /// Applies a change and, when it is durable, brings the derived tables in line.
    ///
    /// All of it is in one batch when the group has one partition and the change at most 64 accounts and 24 KB. Otherwise
    /// it is several, and an error may leave some of them done: rights that end are gone before anything else happens, new ones
    /// come last, so repeating the change is safe (its events may be told twice).
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::Unknown`]: drop the guard, claim again. [`Error::Unavailable`]: the failing batch is
    /// surely not done; the guard is still good.
    pub async fn apply(&self, held: &mut GroupGuard, change: Change) -> Result<Done> {
        let (done, intents) = self.apply_truth(held, change).await?;
        self.carry_out(held, intents).await;
        Ok(done)
    }

    /// Hands out `count` sequences of a live room, in the guard before they are used, so that none comes twice. The first
    /// ever is 1.
    ///
    /// # Errors
    /// As [`Groups::apply`].
    pub async fn reserve_live_seqs(&self, held: &mut GroupGuard, count: u64) -> Result<std::ops::Range<u64>> {
        let mut data = held.slots[0].data;
        let from = data.live_seq.max(1);
        data.live_seq = from + count;
        self.write(held, 0, Vec::new(), data).await?;
        Ok(from..from + count)
    }

    /// The change itself, without the derived tables.
    pub(super) async fn apply_truth(&self, held: &mut GroupGuard, change: Change) -> Result<(Done, Vec<Intent>)> {
        held.usable()?;
        if held.record.destroyed.is_some() {
            return Err(Error::Unavailable { table: GROUP.name, why: "the group is dismissed".to_owned() });
        }
        let at = change.at;
        let next = next_record(held, &change);
        let (mut batches, rest) = self.batches(held, change).await?;
        let touched: BTreeSet<&UserId> =
            batches.iter().flat_map(|batch| batch.added.iter().chain(&batch.removed)).collect();
        let retitled = retitled(&held.record, &next, &touched);
        let mut done = Done::default();
        let mut intents = Vec::new();
        let with_last = |batch: &Batch| batch.slot == 0 && batch.bytes() + events_bytes(&rest) <= LAST_BYTES;
        let last = if batches.len() == 1 && with_last(&batches[0]) {
            batches.pop().unwrap_or_default()
        } else {
            Batch::default()
        };
        if !batches.is_empty() {
            let narrowed = narrowed(&held.record, &next);
            if narrowed != held.record {
                let first = held.ready(Batch::default(), &narrowed, at)?;
                self.write_all(held, first.into_iter().collect(), &mut done, &mut intents).await?;
            }
        }
        for round in rounds(batches) {
            let same = held.record.clone();
            let mut ready = Vec::with_capacity(round.len());
            for batch in round {
                ready.extend(held.ready(batch, &same, at)?);
            }
            self.write_all(held, ready, &mut done, &mut intents).await?;
        }
        let last = Batch { retitled, events: last.events.into_iter().chain(rest).collect(), ..last };
        let last = held.ready(last, &next, at)?;
        self.write_all(held, last.into_iter().collect(), &mut done, &mut intents).await?;
        Ok((done, intents))
    }

    /// Splits the edits of accounts into batches and reads what they change. Events that go with no account are beside.
    async fn batches(&self, held: &mut GroupGuard, change: Change) -> Result<(Vec<Batch>, Vec<Event>)> {
        let mut by_slot: BTreeMap<u16, BTreeMap<UserId, UserEdit>> = BTreeMap::new();
        for edit in change.users {
            by_slot.entry(held.slot_of(&edit.user)).or_default().insert(edit.user.clone(), edit);
        }
        let mut about: BTreeMap<UserId, Vec<Event>> = BTreeMap::new();
        let mut rest = Vec::new();
        for event in change.events {
            match &event.about {
                Some(user) if by_slot.get(&held.slot_of(user)).is_some_and(|edits| edits.contains_key(user)) => {
                    about.entry(user.clone()).or_default().push(event);
                }
                _ => rest.push(event),
            }
        }
        let mut batches = Vec::new();
        for (slot, edits) in by_slot {
            self.own(held, slot).await?;
            let edits: Vec<UserEdit> = edits.into_values().collect();
            let mut batch = Batch { slot, ..Batch::default() };
            let mut users = 0;
            for (edit, was) in edits.iter().zip(self.were_members(held, slot, &edits).await?) {
                let mut one = Batch { slot, ..Batch::default() };
                edit_user(&mut one, edit, was);
                one.events = about.remove(&edit.user).unwrap_or_default();
                if users > 0 && !batch.takes(&one, users) {
                    batches.push(std::mem::replace(&mut batch, Batch { slot, ..Batch::default() }));
                    users = 0;
                }
                batch.append(one);
                users += 1;
            }
            if !batch.writes.is_empty() || !batch.events.is_empty() {
                batches.push(batch);
            }
        }
        Ok((batches, rest))
    }

    async fn were_members(&self, held: &GroupGuard, slot: u16, edits: &[UserEdit]) -> Result<Vec<bool>> {
        // A partition nobody wrote yet holds nobody.
        if held.slots[usize::from(slot)].stored.is_none() {
            return Ok(vec![false; edits.len()]);
        }
        let partition = held.partition(slot);
        let keys: Vec<Option<Bytes>> = edits
            .iter()
            .map(|edit| (!edit.member.is_keep()).then(|| layout::user_key(tag::MEMBER, &edit.user)))
            .collect();
        stream::iter(keys)
            .map(|key| {
                let partition = partition.clone();
                async move {
                    let Some(key) = key else { return Ok(false) };
                    Ok(self.store.get(GROUP, &partition, &key).await?.is_some())
                }
            })
            .buffered(READS)
            .try_collect()
            .await
    }

    async fn write_all(
        &self,
        held: &mut GroupGuard,
        ready: Vec<Ready>,
        done: &mut Done,
        intents: &mut Vec<Intent>,
    ) -> Result<()> {
        let (pending, outcomes): (Vec<Pending>, Vec<Outcome>) = ready.into_iter().unzip();
        let results = self.write_many(held, pending).await;
        for (outcome, _) in outcomes.into_iter().zip(&results).filter(|(_, result)| result.is_ok()) {
            if let Some((row, record)) = outcome.profile {
                held.record = GroupRecord { member_count: held.record.member_count, ..record };
                held.profile = row;
            }
            done.added.extend(outcome.added);
            done.removed.extend(outcome.removed);
            intents.extend(outcome.intent);
        }
        gravest(results)
    }
}

impl GroupGuard {
    /// Makes a batch ready to be written; `None` when it changes nothing.
    fn ready(&mut self, batch: Batch, next: &GroupRecord, at: UnixMillis) -> Result<Option<Ready>> {
        let Batch { slot, mut writes, added, removed, retitled, events } = batch;
        let mut data = self.slots[usize::from(slot)].data;
        let profile = (slot == 0).then(|| changed_profile(self, next, at, &mut data)).flatten();
        if let Some((row, _)) = &profile {
            writes.push(Write::Put { clustering: layout::profile_key(), value: row.clone() });
        }
        writes.extend(self.event_rows(slot, at, events)?);
        let users: Vec<UserId> = added.iter().chain(&removed).chain(&retitled).cloned().collect();
        // A new group has one even when nobody is in it: its place in the app's list is derived, too.
        let is_new = slot == 0 && self.profile.is_empty();
        let intent = match users.is_empty() && !is_new {
            true => None,
            false => Some(Intent { slot, no: self.number()?, users }),
        };
        if let Some(intent) = &intent {
            let row = GroupIntentRow { users: intent.users.iter().map(ToString::to_string).collect() };
            writes.push(record::row(layout::numbered_key(tag::INTENT, intent.no), &row));
        }
        if writes.is_empty() {
            return Ok(None);
        }
        data.members = data.members.saturating_add(added.len() as u32).saturating_sub(removed.len() as u32);
        let pending = self.prepare(slot, writes, data);
        Ok(Some((pending, Outcome { added, removed, profile, intent })))
    }
}

/// The first batch of each partition, then the second of each, and so on.
fn rounds(batches: Vec<Batch>) -> Vec<Vec<Batch>> {
    let mut rounds: Vec<Vec<Batch>> = Vec::new();
    for batch in batches {
        match rounds.iter_mut().find(|round| round.iter().all(|other| other.slot != batch.slot)) {
            Some(round) => round.push(batch),
            None => rounds.push(vec![batch]),
        }
    }
    rounds
}

/// The rows of one account, and whether a membership begins or ends.
fn edit_user(batch: &mut Batch, edit: &UserEdit, was_member: bool) {
    let user = &edit.user;
    row(batch, tag::MEMBER, user, &edit.member, layout::member_to_row);
    row(batch, tag::MUTE, user, &edit.mute, layout::restriction_to_row);
    row(batch, tag::BAN, user, &edit.ban, layout::restriction_to_row);
    row(batch, tag::APPLICATION, user, &edit.application, layout::application_to_row);
    match (&edit.member, was_member) {
        (Edit::Put(_), false) => batch.added.push(user.clone()),
        (Edit::Remove, true) => batch.removed.push(user.clone()),
        (Edit::Keep, _) | (Edit::Put(_), true) | (Edit::Remove, false) => {}
    }
}

fn row<T, M: Message>(batch: &mut Batch, tag: u8, user: &UserId, edit: &Edit<T>, to_row: fn(&T) -> M) {
    let clustering = layout::user_key(tag, user);
    match edit {
        Edit::Keep => {}
        Edit::Put(value) => batch.writes.push(record::row(clustering, &to_row(value))),
        Edit::Remove => batch.writes.push(Write::Delete { clustering }),
    }
}

/// The record after `change`: its profile, with the roles its memberships say.
fn next_record(held: &GroupGuard, change: &Change) -> GroupRecord {
    let old = &held.record;
    let mut next = change.record.clone().unwrap_or_else(|| old.clone());
    for edit in &change.users {
        match &edit.member {
            Edit::Put(member) => next.set_role(&edit.user, member.role),
            Edit::Remove => next.set_role(&edit.user, Role::Member),
            Edit::Keep => {}
        }
    }
    GroupRecord {
        app: old.app,
        conv: old.conv,
        group: old.group.clone(),
        generation: old.generation,
        kind: old.kind,
        slots: old.slots,
        last_info: old.last_info,
        info_seq: old.info_seq,
        member_count: old.member_count,
        live_seq: old.live_seq,
        destroyed: old.destroyed,
        ..next
    }
}

/// `old` without the roles `next` takes away.
fn narrowed(old: &GroupRecord, next: &GroupRecord) -> GroupRecord {
    let mut narrowed = old.clone();
    narrowed.admins.retain(|user| next.role(user) >= Role::Admin);
    if old.owner != next.owner {
        narrowed.owner = None;
    }
    narrowed
}

/// Accounts whose role differs and whose membership does not.
fn retitled(old: &GroupRecord, next: &GroupRecord, touched: &BTreeSet<&UserId>) -> Vec<UserId> {
    let titled = |record: &GroupRecord| record.admins.iter().chain(&record.owner).cloned().collect::<BTreeSet<_>>();
    titled(old)
        .union(&titled(next))
        .filter(|user| old.role(user) != next.role(user) && !touched.contains(user))
        .cloned()
        .collect()
}

/// The profile row, if it changes, and the record it stands for; `data` gets the new info seq if more than admins changed.
fn changed_profile(
    held: &GroupGuard,
    next: &GroupRecord,
    at: UnixMillis,
    data: &mut GroupGuardData,
) -> Option<(Bytes, GroupRecord)> {
    // Counters have moved on with earlier batches of the same change.
    let mut record = GroupRecord {
        member_count: held.record.member_count,
        info_seq: held.record.info_seq,
        live_seq: held.record.live_seq,
        last_info: held.record.last_info,
        ..next.clone()
    };
    let first = held.profile.is_empty();
    if record == held.record && !first {
        return None;
    }
    let admins_only = GroupRecord { admins: held.record.admins.clone(), ..record.clone() } == held.record;
    if !admins_only && !first {
        data.info_seq += 1;
        record.last_info = at;
    }
    record.info_seq = data.info_seq;
    Some((record::encode(&layout::profile_to_row(&record)), record))
}
