//! Holding a group: claiming it, and writing its partitions under the guard.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::GroupGuardData;
use linnet_types::{ConvId, Epoch, SdkAppId, UnixMillis};

use super::Groups;
use super::layout::{self, GROUP, tag};
use super::model::GroupRecord;
use crate::record;
use crate::rows::{Applied, Error, Guard, GuardedBatch, Life, Result, Write};

/// Guards read at once.
const READS: usize = 16;
/// Attempts to claim before giving up.
const CLAIMS: u32 = 8;
/// Numbers of one tenure: epoch and count share 64 bits.
const NUMBER_BITS: u32 = 24;
/// Finished intents swept along by one batch.
const SWEEP: usize = 64;

/// One partition as its owner knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Guard as stored; `None`: the partition does not exist.
    pub(super) stored: Option<(Epoch, u64)>,
    /// Counters as stored.
    pub(super) data: GroupGuardData,
    /// Claimed, so that what is read stays true until we change it.
    pub(super) owned: bool,
    /// Intents that are done; their rows go with the next batch.
    pub(super) done: Vec<u64>,
}

/// A batch on its way, and what is true once it is in.
pub(super) struct Pending {
    slot: u16,
    batch: GuardedBatch,
    data: GroupGuardData,
    swept: usize,
}

/// A claimed group: the right to change it, until someone else claims it.
///
/// Not `Clone`: one holder a claim. After [`Error::Stale`] or [`Error::Unknown`] it must be dropped and the group claimed
/// again; every later call on it answers [`Error::Stale`].
#[derive(Debug)]
pub struct GroupGuard {
    pub(super) record: GroupRecord,
    pub(super) epoch: Epoch,
    pub(super) slots: Vec<Slot>,
    /// Profile row as stored.
    pub(super) profile: Bytes,
    /// Partitions that may hold outbox rows.
    pub(super) outbox: BTreeSet<u16>,
    next_number: u64,
    lost: Option<Epoch>,
}

impl GroupGuard {
    /// The group as stored.
    #[must_use]
    pub fn record(&self) -> &GroupRecord {
        &self.record
    }

    /// The epoch its log is fenced with. Rises by itself when a write had to be settled: read it for every append.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Tenant.
    #[must_use]
    pub fn app(&self) -> SdkAppId {
        self.record.app
    }

    /// Inner name.
    #[must_use]
    pub fn conv(&self) -> ConvId {
        self.record.conv
    }

    /// A group nobody knows yet, at epoch 1.
    pub(super) fn fresh(record: GroupRecord) -> Self {
        let slots = vec![Slot { owned: true, ..Slot::default() }; record.slots.into()];
        Self {
            record,
            epoch: Epoch(1),
            slots,
            profile: Bytes::new(),
            outbox: BTreeSet::new(),
            next_number: 0,
            lost: None,
        }
    }

    pub(super) fn slot_of(&self, user: &linnet_types::UserId) -> u16 {
        record::slot(user.as_str(), self.record.slots)
    }

    pub(super) fn partition(&self, slot: u16) -> Bytes {
        layout::partition(self.record.app, self.record.conv, slot)
    }

    /// The next number for an outbox row or an intent: rises across tenures, because epochs do.
    pub(super) fn number(&mut self) -> Result<u64> {
        if self.next_number >> NUMBER_BITS != 0 {
            return Err(self.lose(self.epoch));
        }
        let number = self.epoch.0 << NUMBER_BITS | self.next_number;
        self.next_number += 1;
        Ok(number)
    }

    /// The batch that writes `writes` and `data` to a claimed partition, and sweeps finished intents along.
    pub(super) fn prepare(&self, slot: u16, mut writes: Vec<Write>, data: GroupGuardData) -> Pending {
        let state = &self.slots[usize::from(slot)];
        debug_assert!(state.owned, "a partition is claimed before it is written");
        let swept = state.done.len().min(SWEEP);
        let sweep = |no: &u64| Write::Delete { clustering: layout::numbered_key(tag::INTENT, *no) };
        writes.extend(state.done[..swept].iter().map(sweep));
        let rev = state.stored.map_or(0, |(_, rev)| rev) + 1;
        let batch = GuardedBatch {
            table: GROUP,
            partition: self.partition(slot),
            expect: state.stored,
            guard: Guard { epoch: self.epoch, rev, data: record::encode(&data) },
            writes,
            life: Life::Forever,
            guard_life: Life::Forever,
        };
        Pending { slot, batch, data, swept }
    }

    /// Nothing may be done with this guard any more.
    pub(super) fn lose(&mut self, theirs: Epoch) -> Error {
        self.lost = Some(theirs);
        self.stale(theirs)
    }

    fn stale(&self, theirs: Epoch) -> Error {
        Error::Stale { table: GROUP.name, ours: self.epoch, theirs }
    }

    pub(super) fn usable(&self) -> Result<()> {
        self.lost.map_or(Ok(()), |theirs| Err(self.stale(theirs)))
    }

    /// Brings the counters of the record in line with the guards.
    fn count(&mut self) {
        let data = self.slots[0].data;
        self.record.member_count = self.slots.iter().map(|slot| slot.data.members).sum();
        self.record.info_seq = data.info_seq;
        self.record.live_seq = data.live_seq;
        self.record.destroyed = (data.destroyed_ms != 0).then_some(UnixMillis(data.destroyed_ms));
    }
}

impl Groups {
    /// Claims a group: raises its epoch, so that every other holder's next write is refused. `None` when there is no such
    /// group, or its creation was never finished. A dismissed one can be claimed, to be cleaned up ([`Groups::resume`]).
    ///
    /// # Errors
    /// [`Error::Stale`] when others claim it at the same time, again and again; [`Error`] of the store.
    pub async fn claim(&self, app: SdkAppId, conv: ConvId) -> Result<Option<GroupGuard>> {
        if !self.exists(app, conv).await? {
            return Ok(None);
        }
        let partition = layout::partition(app, conv, 0);
        let mut seen = Epoch(0);
        for _ in 0..CLAIMS {
            let Some(guard) = self.store.guard(GROUP, &partition).await? else { return Ok(None) };
            seen = guard.epoch;
            let raised = Guard { epoch: guard.epoch.next(), ..guard.clone() };
            match self.raise(partition.clone(), &guard, raised.clone()).await {
                Ok(true) => return self.load(app, conv, raised).await.map(Some),
                // After an unknown outcome the next, higher claim decides.
                Ok(false) | Err(Error::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Stale { table: GROUP.name, ours: seen, theirs: seen.next() })
    }

    /// Whether the claim still stands, as the store says now. For holders that answer from memory and have not written
    /// for a while.
    ///
    /// # Errors
    /// [`Error`] of the store.
    pub async fn still_holds(&self, held: &GroupGuard) -> Result<bool> {
        let guard = self.store.guard(GROUP, &held.partition(0)).await?;
        Ok(held.usable().is_ok() && guard.is_some_and(|guard| guard.epoch == held.epoch))
    }

    /// Reads what a claim of partition 0 made trustworthy.
    async fn load(&self, app: SdkAppId, conv: ConvId, guard: Guard) -> Result<GroupGuard> {
        // Noted as open before anything is done with it, so a node that takes over later finds it.
        self.put_open(app, conv, guard.epoch).await?;
        let first = layout::partition(app, conv, 0);
        let Some(profile) = self.store.get(GROUP, &first, &layout::profile_key()).await? else {
            return Err(record::corrupt(GROUP, format_args!("conversation {conv} has no profile")));
        };
        let mut held = GroupGuard::fresh(layout::profile_from_row(app, conv, &profile)?);
        held.epoch = guard.epoch;
        held.profile = profile;
        held.outbox = (0..held.record.slots).collect();
        held.slots = stream::iter(1..held.record.slots)
            .map(|slot| async move {
                let guard = self.store.guard(GROUP, &layout::partition(app, conv, slot)).await?;
                guard.map_or_else(|| Ok(Slot::default()), |guard| slot_from(&guard, false))
            })
            .buffered(READS)
            .try_collect()
            .await?;
        held.slots.insert(0, slot_from(&guard, true)?);
        held.count();
        Ok(held)
    }

    async fn raise(&self, partition: Bytes, from: &Guard, to: Guard) -> Result<bool> {
        let batch = GuardedBatch {
            table: GROUP,
            partition,
            expect: Some((from.epoch, from.rev)),
            guard: to,
            writes: Vec::new(),
            life: Life::Forever,
            guard_life: Life::Forever,
        };
        self.store.write(batch).await.map(|applied| applied.is_yes())
    }

    /// Claims partition `slot` for the holder, if it is not yet.
    pub(super) async fn own(&self, held: &mut GroupGuard, slot: u16) -> Result<()> {
        held.usable()?;
        let index = usize::from(slot);
        if held.slots[index].owned {
            return Ok(());
        }
        for _ in 0..CLAIMS {
            let partition = held.partition(slot);
            let Some(guard) = self.store.guard(GROUP, &partition).await? else {
                // Created empty, so that an earlier holder's first write to it is refused like any other.
                match self.store.write(empty(partition, held.epoch)).await {
                    Ok(_) | Err(Error::Unknown { .. }) => continue,
                    Err(error) => return Err(error),
                }
            };
            if guard.epoch > held.epoch {
                return Err(held.lose(guard.epoch));
            }
            let raised = Guard { epoch: held.epoch, ..guard.clone() };
            // Our own epoch already: this holder's earlier claim of it landed late.
            let done = guard.epoch == held.epoch
                || match self.raise(partition, &guard, raised.clone()).await {
                    Ok(done) => done,
                    Err(Error::Unknown { .. }) => false,
                    Err(error) => return Err(error),
                };
            if done {
                held.slots[index] = slot_from(&raised, true)?;
                // An earlier holder may have written until this very moment.
                held.outbox.insert(slot);
                held.count();
                return Ok(());
            }
        }
        Err(Error::Unavailable { table: GROUP.name, why: format!("partition {slot} could not be claimed") })
    }

    /// Writes one batch to a claimed partition and takes over `data` as its counters.
    pub(super) async fn write(
        &self,
        held: &mut GroupGuard,
        slot: u16,
        writes: Vec<Write>,
        data: GroupGuardData,
    ) -> Result<()> {
        held.usable()?;
        let pending = held.prepare(slot, writes, data);
        let answer = self.store.write(pending.batch.clone()).await;
        self.finish(held, pending, answer).await
    }

    /// Writes batches of different partitions, partition 0 first if it is among them, all at once: a community's change
    /// costs one round trip and, on one machine, one fsync. Every answer is taken over.
    pub(super) async fn write_many(&self, held: &mut GroupGuard, pending: Vec<Pending>) -> Vec<Result<()>> {
        debug_assert!(pending.windows(2).all(|pair| pair[0].slot < pair[1].slot), "settling needs to know partition 0");
        let answers = join_all(pending.iter().map(|pending| self.store.write(pending.batch.clone()))).await;
        let mut results = Vec::with_capacity(pending.len());
        for (pending, answer) in pending.into_iter().zip(answers) {
            results.push(self.finish(held, pending, answer).await);
        }
        results
    }

    /// Takes over what the store answered to a prepared batch.
    async fn finish(&self, held: &mut GroupGuard, pending: Pending, answer: Result<Applied>) -> Result<()> {
        let Pending { slot, batch, data, swept } = pending;
        let landed = (batch.guard.epoch, batch.guard.rev);
        let stored = match answer {
            Ok(Applied::Yes) => landed,
            Ok(Applied::No(theirs)) => return Err(held.lose(theirs.map_or(Epoch(0), |guard| guard.epoch))),
            Err(Error::Unknown { why, .. }) => self.settle(held, slot, landed, why).await?,
            Err(error) => return Err(error),
        };
        let slot = &mut held.slots[usize::from(slot)];
        slot.stored = Some(stored);
        slot.data = data;
        slot.done.drain(..swept);
        held.count();
        Ok(())
    }

    /// Finds out by a claim whether a write of unknown outcome is in, for good. Returns the guard afterwards if it is, an
    /// error if it is not; the holder goes on with a higher epoch in both cases.
    async fn settle(
        &self,
        held: &mut GroupGuard,
        slot: u16,
        landed: (Epoch, u64),
        why: String,
    ) -> Result<(Epoch, u64)> {
        let before = held.slots[usize::from(slot)].stored;
        if before.is_none() || held.lost.is_some() {
            // Nothing to claim yet, or no right to: the next holder finds it there or not.
            held.lose(held.epoch);
            return Err(Error::Unknown { table: GROUP.name, why });
        }
        let higher = held.epoch.next();
        if slot != 0 {
            // Partition 0 is the group's epoch: it rises first.
            let now = self.settle_one(held, 0, None, higher).await?;
            held.slots[0].stored = Some(now);
        }
        let now = self.settle_one(held, slot, Some(landed), higher).await?;
        held.epoch = higher;
        held.next_number = 0;
        if now.1 == landed.1 {
            return Ok(now);
        }
        held.slots[usize::from(slot)].stored = Some(now);
        Err(Error::Unavailable { table: GROUP.name, why: format!("settled as not written: {why}") })
    }

    /// Raises one partition from what we left, or from `landed`, to `higher`. Anything else found there, or a second
    /// unknown outcome, ends the tenure.
    async fn settle_one(
        &self,
        held: &mut GroupGuard,
        slot: u16,
        landed: Option<(Epoch, u64)>,
        higher: Epoch,
    ) -> Result<(Epoch, u64)> {
        let ours = held.slots[usize::from(slot)].stored;
        for _ in 0..CLAIMS {
            let read = self.store.guard(GROUP, &held.partition(slot)).await;
            let Ok(Some(guard)) = read else { break };
            let found = (guard.epoch, guard.rev);
            if Some(found) != ours && Some(found) != landed {
                // Claimed by another, before or after our write landed: no longer ours to tell.
                held.lose(guard.epoch);
                return Err(Error::Unknown { table: GROUP.name, why: format!("claimed by {} meanwhile", guard.epoch) });
            }
            let raised = Guard { epoch: higher, ..guard.clone() };
            match self.raise(held.partition(slot), &guard, raised).await {
                Ok(true) => return Ok((higher, guard.rev)),
                Ok(false) => {}
                Err(_) => break,
            }
        }
        held.lose(held.epoch);
        Err(Error::Unknown { table: GROUP.name, why: "a write could not be settled".to_owned() })
    }
}

/// The gravest of several errors: one that costs the guard before one that does not.
pub(super) fn gravest(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let mut gravest = Ok(());
    for result in results {
        match (&gravest, &result) {
            (_, Ok(())) | (Err(_), Err(Error::Unavailable { .. })) => {}
            (Ok(()) | Err(_), Err(_)) => gravest = result,
        }
    }
    gravest
}

fn empty(partition: Bytes, epoch: Epoch) -> GuardedBatch {
    GuardedBatch {
        table: GROUP,
        partition,
        expect: None,
        guard: Guard { epoch, rev: 1, data: record::encode(&GroupGuardData::default()) },
        writes: Vec::new(),
        life: Life::Forever,
        guard_life: Life::Forever,
    }
}

fn slot_from(guard: &Guard, owned: bool) -> Result<Slot> {
    let data = record::decode(GROUP, &guard.data)?;
    Ok(Slot { stored: Some((guard.epoch, guard.rev)), data, owned, done: Vec::new() })
}
