//! From batches to frames: windows, visibility, and bytes shared by their receivers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_proto::delivery::{control, record};

use super::{Shard, Targets};
use crate::metrics::Fate;
use crate::queue::{Class, Head, Outgoing};
use crate::session::ConnRef;
use crate::view::{Prepared, Side};
use crate::wire::Wire;

/// A window is cut short at this many items or bytes of bodies.
const WINDOW_ITEMS: usize = 20;
const WINDOW_BYTES: usize = 8 << 10;
/// Most items and about the most bytes of one frame.
const FRAME_ITEMS: usize = 128;
const FRAME_BYTES: usize = 64 << 10;
/// A conversation without members or news is forgotten after this long.
const IDLE: Duration = Duration::from_secs(1);

/// A stretch of one batch that waits for the end of its window.
#[derive(Debug)]
struct Run {
    batch: Arc<Prepared>,
    entries: std::ops::Range<usize>,
    to: Targets,
}

/// What a shard knows of one conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Slots listed, for registered conversations.
    members: Vec<u32>,
    runs: Vec<Run>,
    items: usize,
    bytes: usize,
    due: Option<Duration>,
    last: Option<Duration>,
    live: bool,
}

impl Conversation {
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(at) = self.members.iter().position(|member| *member == slot) {
            self.members.swap_remove(at);
        }
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.members.is_empty() && self.runs.is_empty() && self.last.is_none_or(|last| now > last + IDLE)
    }

    /// How long news may wait to be merged after news went out (`docs/architecture.md`, Level 2).
    fn window(&self, shards: usize) -> Duration {
        let local = self.members.len() * shards;
        Duration::from_millis(match local {
            0..=1_000 => 20,
            1_001..=10_000 => 50,
            _ if self.live => 250,
            _ => 100,
        })
    }
}

/// Frames already built for one set of receivers.
type Built = Vec<((Side, Wire, u128), Option<Outgoing>)>;

impl Shard {
    pub(super) fn enter(&mut self, at: ConnRef, conv: u64, first: Option<Bytes>) {
        let Some(conn) = self.get(at) else { return };
        if conn.session().is_none() || conn.convs.contains(&conv) {
            return;
        }
        conn.convs.push(conv);
        if first.is_some() {
            // What waits is in `first` already: the others get it before the newcomer is listed.
            self.flush(conv);
        }
        self.convs.entry(conv).or_default().members.push(at.slot);
        self.hub.meters.listed.inc();
        if let Some(first) = first {
            self.queue(at.slot, Outgoing::control(first));
        }
    }

    pub(super) fn unlist(&mut self, slot: u32, conv: u64) {
        if let Some(conn) = self.conns.get_mut(slot as usize) {
            let before = conn.convs.len();
            conn.convs.retain(|listed| *listed != conv);
            self.hub.meters.listed.dec_by((before - conn.convs.len()) as i64);
        }
        if let Some(listed) = self.convs.get_mut(&conv) {
            listed.remove(slot);
        }
    }

    /// Takes a batch: control records act in their place between messages, the rest waits for its window.
    pub(super) fn batch(&mut self, batch: &Arc<Prepared>, to: &Targets, joins: &[(usize, Vec<ConnRef>)]) {
        let mut from = 0;
        for (at, entry) in batch.entries.iter().enumerate() {
            let Some(record::Kind::Control(control)) = &entry.record.kind else { continue };
            let Some(kind) = &control.kind else { continue };
            if !matches!(
                kind,
                control::Kind::Joined(_)
                    | control::Kind::Left(_)
                    | control::Kind::Kicked(_)
                    | control::Kind::Dismissed(_)
            ) {
                continue;
            }
            self.wait(batch, from..at, to);
            self.flush(batch.conv);
            self.membership(batch.conv, batch.app, kind, joins.iter().find(|(index, _)| *index == at));
            from = at + 1;
        }
        self.wait(batch, from..batch.entries.len(), to);
    }

    fn membership(&mut self, conv: u64, app: u32, kind: &control::Kind, joined: Option<&(usize, Vec<ConnRef>)>) {
        match kind {
            control::Kind::Joined(_) => {
                let index = self.index;
                for at in joined.iter().flat_map(|(_, refs)| refs).filter(|at| at.shard == index) {
                    self.enter(*at, conv, None);
                }
            }
            control::Kind::Left(gone) | control::Kind::Kicked(gone) => {
                self.unlist_where(conv, |at_app, user| at_app == app && gone.users.iter().any(|name| name == user));
            }
            control::Kind::Dismissed(_) => self.unlist_where(conv, |_, _| true),
            _ => {}
        }
    }

    fn unlist_where(&mut self, conv: u64, gone: impl Fn(u32, &str) -> bool) {
        let Some(listed) = self.convs.get(&conv) else { return };
        let slots: Vec<u32> = listed
            .members
            .iter()
            .copied()
            .filter(|slot| {
                let session = self.conns.get(*slot as usize).and_then(|conn| conn.session());
                session.is_none_or(|session| gone(session.app.0, session.user.as_str()))
            })
            .collect();
        for slot in slots {
            self.unlist(slot, conv);
        }
    }

    fn wait(&mut self, batch: &Arc<Prepared>, entries: std::ops::Range<usize>, to: &Targets) {
        let shown = batch.entries[entries.clone()].iter().filter(|entry| entry.shown()).count();
        if shown == 0 {
            return;
        }
        let run = Run { batch: Arc::clone(batch), entries, to: to.clone() };
        if batch.conv == 0 {
            return self.deliver(&[run], &[]);
        }
        let now = self.hub.clock.mono();
        let shards = self.hub.shards.len();
        let conv = self.convs.entry(batch.conv).or_default();
        conv.live |= batch.live;
        conv.items += shown;
        conv.bytes += run.batch.entries[run.entries.clone()].iter().map(|entry| entry.weight()).sum::<usize>();
        conv.runs.push(run);
        let due = conv.last.map_or(now, |last| last + conv.window(shards));
        if due <= now || conv.items >= WINDOW_ITEMS || conv.bytes >= WINDOW_BYTES {
            self.flush(batch.conv);
        } else if conv.due.is_none() {
            conv.due = Some(due);
            self.windows.insert((due, batch.conv));
        }
    }

    pub(super) fn close_windows(&mut self) {
        let now = self.hub.clock.mono();
        while let Some(&(due, conv)) = self.windows.first()
            && due <= now
        {
            self.windows.remove(&(due, conv));
            self.flush(conv);
        }
    }

    /// Ends the window of a conversation.
    fn flush(&mut self, id: u64) {
        let Some(conv) = self.convs.get_mut(&id) else { return };
        if let Some(due) = conv.due.take() {
            self.windows.remove(&(due, id));
        }
        if conv.runs.is_empty() {
            return;
        }
        let runs = std::mem::take(&mut conv.runs);
        let members = std::mem::take(&mut conv.members);
        (conv.items, conv.bytes) = (0, 0);
        conv.last = Some(self.hub.clock.mono());
        self.deliver(&runs, &members);
        // Overflowing receivers may have been closed meanwhile: they took themselves out of an empty list.
        let alive = |slot: &u32| {
            let conn = self.conns.get(*slot as usize);
            conn.is_some_and(|conn| conn.session().is_some() && conn.convs.contains(&id))
        };
        let kept: Vec<u32> = members.into_iter().filter(alive).collect();
        if let Some(conv) = self.convs.get_mut(&id) {
            conv.members = kept;
        }
    }

    /// Builds frames and hands them to the receivers.
    fn deliver(&mut self, runs: &[Run], members: &[u32]) {
        let mut flat: Vec<(usize, usize)> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            flat.extend(run.entries.clone().filter(|at| run.batch.entries[*at].shown()).map(|at| (index, at)));
        }
        let mut rest = &flat[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(run, at): &&(usize, usize)| {
                bytes += runs[*run].batch.entries[*at].weight();
                bytes <= FRAME_BYTES
            };
            let count = rest.iter().take(FRAME_ITEMS).take_while(fits).count().max(1);
            let (chunk, after) = rest.split_at(count);
            rest = after;
            self.deliver_chunk(runs, members, chunk);
        }
    }

    fn deliver_chunk(&mut self, runs: &[Run], members: &[u32], chunk: &[(usize, usize)]) {
        let mut built = Built::new();
        let mut traced = 0;
        if runs.iter().all(|run| matches!(run.to, Targets::Members)) {
            let plain = chunk.iter().all(|(run, at)| runs[*run].batch.entries[*at].for_all());
            let all = mask_of(chunk.len());
            for slot in members {
                let Some(conn) = self.conns.get(*slot as usize) else { continue };
                let Some(session) = conn.session() else { continue };
                let (wire, number) = (conn.wire, conn.number);
                let mask = if plain { all } else { visible(runs, chunk, session.user.as_str(), number, None) };
                traced += usize::from(self.hand(*slot, runs, chunk, Side::First, wire, mask, &mut built));
            }
        } else {
            let mut receivers: Vec<ConnRef> = Vec::new();
            for run in runs {
                match &run.to {
                    Targets::Only(refs) => receivers.extend(refs.iter().filter(|at| at.shard == self.index)),
                    Targets::Members => receivers.extend(members.iter().filter_map(|slot| {
                        let conn = self.conns.get(*slot as usize)?;
                        Some(ConnRef { shard: self.index, slot: *slot, number: conn.number })
                    })),
                }
            }
            receivers.sort_unstable_by_key(|at| (at.slot, at.number));
            receivers.dedup();
            // Batches of one conversation mostly name the same users: then nobody has to be looked for in each list.
            let same = runs.windows(2).all(|pair| same_targets(&pair[0].to, &pair[1].to));
            for at in receivers {
                let Some(session) = self.get(at).and_then(|conn| conn.session().cloned()) else {
                    // The connection ended between the batch's arrival and now.
                    let missed = chunk.iter().filter(|(run, _)| aims_at(&runs[*run].to, at)).count() as u64;
                    self.hub.ledger.arrive(missed);
                    self.hub.ledger.fate(Fate::Closed, missed);
                    continue;
                };
                let user = session.user.as_str();
                let mask = visible(runs, chunk, user, at.number, (!same).then_some(at));
                let side = runs[0].batch.side(user);
                let wire = self.conns[at.slot as usize].wire;
                traced += usize::from(self.hand(at.slot, runs, chunk, side, wire, mask, &mut built));
            }
        }
        self.hub.trace_delivered(runs.iter().map(|run| &run.batch), traced);
    }

    /// Queues the frame of the entries in `mask`; false when there are none.
    #[expect(clippy::too_many_arguments, reason = "the inner step of fan-out; a struct would be built per receiver")]
    fn hand(
        &mut self,
        slot: u32,
        runs: &[Run],
        chunk: &[(usize, usize)],
        side: Side,
        wire: Wire,
        mask: u128,
        built: &mut Built,
    ) -> bool {
        if mask == 0 {
            return false;
        }
        let key = (side, wire, mask);
        let frame = match built.iter().find(|(known, _)| *known == key) {
            Some((_, frame)) => frame.clone(),
            None => {
                let frame = build(runs, chunk, key);
                built.push((key, frame.clone()));
                frame
            }
        };
        let Some(frame) = frame else { return false };
        self.hub.ledger.arrive(frame.items.into());
        self.queue(slot, frame);
        true
    }
}

fn mask_of(count: usize) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

fn same_targets(one: &Targets, other: &Targets) -> bool {
    match (one, other) {
        (Targets::Members, Targets::Members) => true,
        (Targets::Only(one), Targets::Only(other)) => one == other,
        _ => false,
    }
}

fn aims_at(to: &Targets, at: ConnRef) -> bool {
    match to {
        Targets::Members => true,
        Targets::Only(refs) => refs.contains(&at),
    }
}

fn visible(runs: &[Run], chunk: &[(usize, usize)], user: &str, number: u64, at: Option<ConnRef>) -> u128 {
    let mut mask = 0;
    for (bit, (run, entry)) in chunk.iter().enumerate() {
        let run = &runs[*run];
        let aimed = at.is_none_or(|at| aims_at(&run.to, at));
        if aimed && run.batch.entries[*entry].visible_to(user, number) {
            mask |= 1 << bit;
        }
    }
    mask
}

fn build(runs: &[Run], chunk: &[(usize, usize)], (side, wire, mask): (Side, Wire, u128)) -> Option<Outgoing> {
    let mut items: Vec<Bytes> = Vec::with_capacity(chunk.len());
    let (mut class, mut head) = (None, 0);
    for (bit, (run, at)) in chunk.iter().enumerate() {
        if mask & (1 << bit) == 0 {
            continue;
        }
        let batch = &runs[*run].batch;
        let entry = &batch.entries[*at];
        let item = batch.item(entry, side, wire);
        if item.is_empty() {
            continue;
        }
        items.push(item);
        class = Some(join(class, entry.class(batch.live)));
        head = head.max(batch.head_seq);
    }
    let class = class?;
    let head = (class == Class::Stored).then(|| Head { name: runs[0].batch.name(side).into(), seq: head });
    Some(Outgoing { bytes: wire.push(items.iter()), items: items.len() as u32, class, head })
}

/// The class of a frame that holds both: what must not be lost decides.
fn join(before: Option<Class>, next: Class) -> Class {
    match (before, next) {
        (None, class) => class,
        (Some(Class::Droppable(a)), Class::Droppable(b)) => Class::Droppable(a.min(b)),
        (Some(before), next) => before.max(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_decides_the_class() {
        assert_eq!(join(Some(Class::Droppable(3)), Class::Droppable(1)), Class::Droppable(1));
        assert_eq!(join(Some(Class::Droppable(0)), Class::Stored), Class::Stored);
        assert_eq!(join(Some(Class::Control), Class::Stored), Class::Control);
    }

    #[test]
    fn windows_grow_with_local_members() {
        let window = |members: u32, live| {
            let conv = Conversation { members: (0..members).collect(), live, ..Conversation::default() };
            conv.window(2).as_millis()
        };
        assert_eq!(
            (window(500, false), window(501, false), window(5_001, false), window(5_001, true)),
            (20, 50, 100, 250)
        );
    }
}
