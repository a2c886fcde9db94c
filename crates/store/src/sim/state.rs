//! What the three replicas hold, what is still on its way to them, and what was proposed but not decided.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use linnet_runtime::Rng;
use linnet_types::UnixMillis;

use super::{Counts, Faults};
use crate::rows::{Guard, GuardedBatch, Life, PlainBatch, Range, Row, Write};

pub(super) const REPLICAS: usize = 3;

type Place = (&'static str, Bytes);

#[derive(Clone, Debug)]
struct Cell {
    stamp: u64,
    /// `None`: deleted.
    value: Option<Bytes>,
    expires: u64,
}

/// Cells on their way to one replica.
#[derive(Debug)]
struct UnderWay {
    replica: usize,
    /// The step at which they arrive.
    due: u64,
    cells: Vec<(Bytes, Cell)>,
}

#[derive(Debug, Default)]
struct Part {
    /// What was decided, with its expiry.
    guard: Option<(Guard, u64)>,
    replicas: [BTreeMap<Bytes, Cell>; REPLICAS],
    under_way: Vec<UnderWay>,
}

/// A conditional batch whose caller was told "unknown" and that is not decided.
struct Undecided {
    place: Place,
    batch: GuardedBatch,
    now: UnixMillis,
    fate: Fate,
    /// A serial read has happened since: it "settled" nothing.
    read_since: bool,
}

#[derive(Clone, Copy)]
enum Fate {
    /// A paused coordinator goes on at this step, and looks at the condition again.
    Late(u64),
    /// Accepted by one replica: whoever contacts it next finishes the batch, if nothing was decided meanwhile.
    Minority(usize),
}

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) down: bool,
    step: u64,
    stamp: u64,
    parts: BTreeMap<Place, Part>,
    undecided: Vec<Undecided>,
}

/// How many replicas a write reaches before it is answered.
#[derive(Clone, Copy)]
enum Reach {
    Quorum,
    Minority,
}

impl State {
    pub(super) fn new(rng: Rng, faults: Faults) -> Self {
        Self {
            rng,
            faults,
            counts: Counts::default(),
            down: false,
            step: 0,
            stamp: 0,
            parts: BTreeMap::new(),
            undecided: Vec::new(),
        }
    }

    /// Time passes by one operation: what was late and is due, lands.
    pub(super) fn step(&mut self) {
        self.step += 1;
        let step = self.step;
        for late in self.take_undecided(|u| matches!(u.fate, Fate::Late(due) if due <= step)) {
            let landed = self.decide(&late);
            match (landed, late.read_since) {
                (true, true) => self.counts.late_landed_after_read += 1,
                (true, false) => self.counts.late_landed += 1,
                (false, _) => self.counts.late_refused += 1,
            }
        }
    }

    pub(super) fn roll(&self, per_mille: u32) -> bool {
        self.rng.below(1000) < u64::from(per_mille)
    }

    /// A serial read: contacts two replicas, finishes what they have accepted, and sees the decided guard.
    pub(super) fn serial_read(&mut self, place: &Place, now: UnixMillis) -> Option<Guard> {
        self.contact(place);
        for late in self.undecided.iter_mut().filter(|u| u.place == *place) {
            late.read_since = true;
        }
        self.guard(place, now)
    }

    /// A conditional batch that is decided now: `Err` holds the guard that stood in the way.
    pub(super) fn conditional(
        &mut self,
        batch: &GuardedBatch,
        now: UnixMillis,
        told: bool,
    ) -> Result<(), Option<Guard>> {
        let place = (batch.table.name, batch.partition.clone());
        self.contact(&place);
        let found = self.guard(&place, now);
        if found.as_ref().map(|guard| (guard.epoch, guard.rev)) != batch.expect {
            return Err(found);
        }
        self.apply(&place, batch, now, if told { Reach::Quorum } else { Reach::Minority });
        Ok(())
    }

    /// Keeps a batch undecided: it lands late, waits on one replica, or is lost.
    pub(super) fn leave_undecided(&mut self, batch: GuardedBatch, now: UnixMillis) {
        let fate = match self.rng.below(5) {
            0 | 1 => Fate::Late(self.step + 1 + self.rng.below(12)),
            2 | 3 => Fate::Minority(self.replica()),
            _ => {
                self.counts.unknown_lost += 1;
                return;
            }
        };
        let place = (batch.table.name, batch.partition.clone());
        self.undecided.push(Undecided { place, batch, now, fate, read_since: false });
    }

    /// Plain writes; `told` = the caller hears of success.
    pub(super) fn plain(&mut self, batch: &PlainBatch, now: UnixMillis, told: bool) {
        self.stamp += 1;
        let expires = expiry(now, batch.life);
        for (partition, write) in &batch.writes {
            let cells = vec![cell(write, self.stamp, expires)];
            let reach = if told { Reach::Quorum } else { Reach::Minority };
            self.spread(&(batch.table.name, partition.clone()), cells, reach);
        }
    }

    /// A quorum read of rows: two replicas, the newest cell of each key, both repaired.
    pub(super) fn rows(&mut self, place: &Place, range: &Range, now: UnixMillis) -> Vec<Row> {
        let pair = self.pair();
        self.arrive(place);
        let Some(part) = self.parts.get_mut(place) else { return Vec::new() };
        let Some(bounds) = bounds(range) else { return Vec::new() };
        let mut merged: BTreeMap<Bytes, Cell> = BTreeMap::new();
        for replica in pair {
            for (key, cell) in part.replicas[replica].range::<[u8], _>(bounds) {
                let newest = merged.entry(key.clone()).or_insert_with(|| cell.clone());
                if newest.stamp < cell.stamp {
                    *newest = cell.clone();
                }
            }
        }
        let stale = |replica: usize| {
            merged.iter().any(|(key, cell)| part.replicas[replica].get(key).is_none_or(|own| own.stamp < cell.stamp))
        };
        if pair.into_iter().any(stale) {
            self.counts.stale_replica_read += 1;
            for replica in pair {
                part.replicas[replica].extend(merged.iter().map(|(key, cell)| (key.clone(), cell.clone())));
            }
        }
        select(merged, range, now)
    }

    pub(super) fn partitions(
        &self,
        table: &'static str,
        after: Option<&[u8]>,
        limit: usize,
        now: UnixMillis,
    ) -> Vec<Bytes> {
        let live = |part: &Part| {
            part.guard.as_ref().is_some_and(|(_, expires)| alive(*expires, now))
                || part.replicas.iter().flat_map(BTreeMap::values).any(|c| c.value.is_some() && alive(c.expires, now))
        };
        let of_table = self.parts.iter().filter(|((name, partition), part)| {
            *name == table && after.is_none_or(|after| partition[..] > *after) && live(part)
        });
        of_table.map(|((_, partition), _)| partition.clone()).take(limit).collect()
    }

    fn guard(&self, place: &Place, now: UnixMillis) -> Option<Guard> {
        let (guard, expires) = self.parts.get(place)?.guard.as_ref()?;
        alive(*expires, now).then(|| guard.clone())
    }

    /// Two replicas answer a serial operation: what they accepted is finished, what was decided reaches everyone.
    fn contact(&mut self, place: &Place) {
        let pair = self.pair();
        let held = |u: &Undecided| u.place == *place && matches!(u.fate, Fate::Minority(r) if pair.contains(&r));
        for minority in self.take_undecided(held) {
            if self.decide(&minority) {
                self.counts.minority_finished += 1;
            } else {
                self.counts.minority_dropped += 1;
            }
        }
        let Some(part) = self.parts.get_mut(place) else { return };
        for late in std::mem::take(&mut part.under_way) {
            deliver(&mut part.replicas[late.replica], late.cells);
        }
    }

    fn take_undecided(&mut self, wanted: impl Fn(&Undecided) -> bool) -> Vec<Undecided> {
        let (taken, kept) = std::mem::take(&mut self.undecided).into_iter().partition(wanted);
        self.undecided = kept;
        taken
    }

    fn decide(&mut self, late: &Undecided) -> bool {
        let found = self.guard(&late.place, late.now).map(|guard| (guard.epoch, guard.rev));
        if found != late.batch.expect {
            return false;
        }
        self.apply(&late.place.clone(), &late.batch, late.now, Reach::Quorum);
        true
    }

    fn apply(&mut self, place: &Place, batch: &GuardedBatch, now: UnixMillis, reach: Reach) {
        self.stamp += 1;
        let expires = expiry(now, batch.life);
        let cells = batch.writes.iter().map(|write| cell(write, self.stamp, expires)).collect();
        let guard = (batch.guard.clone(), expiry(now, batch.guard_life));
        self.parts.entry(place.clone()).or_default().guard = Some(guard);
        self.spread(place, cells, reach);
    }

    fn spread(&mut self, place: &Place, cells: Vec<(Bytes, Cell)>, reach: Reach) {
        let lag = self.roll(self.faults.lag_per_mille);
        let first = self.replica();
        let due = self.step + 1 + self.rng.below(20);
        let at_once = match reach {
            Reach::Quorum if lag => 2,
            Reach::Quorum => REPLICAS,
            Reach::Minority => usize::from(self.rng.chance(50)),
        };
        if at_once < REPLICAS {
            self.counts.partial_write += 1;
        }
        let part = self.parts.entry(place.clone()).or_default();
        for turn in 0..REPLICAS {
            let replica = (first + turn) % REPLICAS;
            if turn < at_once {
                deliver(&mut part.replicas[replica], cells.clone());
            } else {
                part.under_way.push(UnderWay { replica, due: due + turn as u64, cells: cells.clone() });
            }
        }
    }

    fn arrive(&mut self, place: &Place) {
        let step = self.step;
        let Some(part) = self.parts.get_mut(place) else { return };
        let (due, rest): (Vec<UnderWay>, _) =
            std::mem::take(&mut part.under_way).into_iter().partition(|u| u.due <= step);
        part.under_way = rest;
        for late in due {
            deliver(&mut part.replicas[late.replica], late.cells);
        }
    }

    fn replica(&self) -> usize {
        usize::try_from(self.rng.below(REPLICAS as u64)).expect("below three")
    }

    fn pair(&self) -> [usize; 2] {
        let absent = self.replica();
        [(absent + 1) % REPLICAS, (absent + 2) % REPLICAS]
    }
}

fn deliver(replica: &mut BTreeMap<Bytes, Cell>, cells: Vec<(Bytes, Cell)>) {
    for (key, cell) in cells {
        let newest = replica.entry(key).or_insert_with(|| cell.clone());
        if newest.stamp < cell.stamp {
            *newest = cell;
        }
    }
}

fn cell(write: &Write, stamp: u64, expires: u64) -> (Bytes, Cell) {
    match write {
        Write::Put { clustering, value } => (clustering.clone(), Cell { stamp, value: Some(value.clone()), expires }),
        Write::Delete { clustering } => (clustering.clone(), Cell { stamp, value: None, expires: 0 }),
    }
}

type Keys<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The keys asked for; `None` when there can be none.
fn bounds(range: &Range) -> Option<Keys<'_>> {
    if let (Some(from), Some(to)) = (&range.from, &range.to)
        && from >= to
    {
        return None;
    }
    let from = range.from.as_deref().map_or(Bound::Unbounded, Bound::Included);
    Some((from, range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded)))
}

fn select(merged: BTreeMap<Bytes, Cell>, range: &Range, now: UnixMillis) -> Vec<Row> {
    let live = merged.into_iter().filter(|(_, cell)| alive(cell.expires, now));
    let rows = live.filter_map(|(clustering, cell)| cell.value.map(|value| Row { clustering, value }));
    let limit = if range.limit == 0 { usize::MAX } else { range.limit };
    if range.descending {
        let mut rows: Vec<Row> = rows.collect();
        rows.reverse();
        rows.truncate(limit);
        return rows;
    }
    rows.take(limit).collect()
}

fn expiry(now: UnixMillis, life: Life) -> u64 {
    match life {
        Life::Forever => 0,
        Life::For(span) => now.plus_ms(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).0.max(1),
    }
}

fn alive(expires: u64, now: UnixMillis) -> bool {
    expires == 0 || expires > now.0
}
