//! How many messages a second pass through a group, and which.
//!
//! A stored group has a plain bucket in order of arrival ([`Bucket`]). A live room publishes at once while it is under its
//! budget; above it, what arrives is collected in slices and the best of each slice pass: higher priority first, at
//! random inside a priority ([`LiveShaper`], `spec/rest-groups.md` §4.2), weighted by what each message stands for: gateways
//! have thinned out before, and every message is to have the same chance. Pure: time is an argument, randomness a port.

use std::collections::VecDeque;

use linnet_runtime::Rng;
use linnet_types::{Priority, UnixMillis};

/// A token bucket: `rate` a second, as many at once.
#[derive(Debug)]
pub struct Bucket {
    /// Millitokens, so that no rate loses its fractions.
    level: u64,
    at: UnixMillis,
    rate: u32,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u32, now: UnixMillis) -> Self {
        Self { level: u64::from(rate) * 1_000, at: now, rate }
    }

    /// Whether one more passes now; `rate` may have changed since the last call, 0 lets everything pass.
    pub fn take(&mut self, rate: u32, now: UnixMillis) -> bool {
        if rate == 0 {
            self.rate = 0;
            return true;
        }
        let full = u64::from(rate) * 1_000;
        if self.rate == 0 {
            self.level = full;
        }
        self.rate = rate;
        let gained = now.since(self.at).min(1_000) * u64::from(rate);
        self.at = now.max(self.at);
        self.level = (self.level + gained).min(full);
        if self.level < 1_000 {
            return false;
        }
        self.level -= 1_000;
        true
    }
}

/// Length of a slice.
pub const SLICE_MS: u64 = 250;
/// Slices a message may wait for its turn.
const HOLD_MS: [u64; 4] = [1_000, SLICE_MS, SLICE_MS, SLICE_MS];
/// Most waiting messages, in seconds' worth of the rate; above it the worst is dropped at once.
const PENDING_SECONDS: usize = 4;
const WINDOW_MS: u64 = 1_000;

/// What a live room lets pass.
#[derive(Debug)]
pub struct LiveShaper<T> {
    rate: u32,
    /// (time, how many) admitted in the last second.
    window: VecDeque<(UnixMillis, u32)>,
    in_window: u32,
    /// In order of arrival.
    pending: [VecDeque<Waiting<T>>; 4],
    /// While shaping: when the next slice ends, and thousandths of messages it may let pass.
    slice: Option<(UnixMillis, u64)>,
}

/// One message, and what is known of it.
#[derive(Debug)]
pub struct Offer<T> {
    /// Its class.
    pub priority: Priority,
    /// Messages it stands for, at least 1.
    pub weight: u32,
    /// The message.
    pub item: T,
}

#[derive(Debug)]
struct Waiting<T> {
    at: UnixMillis,
    /// Its lot: the lowest pass first. Exponential with the weight as its rate, so that taking the lowest is drawing by
    /// weight without putting back.
    lot: f64,
    item: T,
}

/// What became of what was offered.
#[derive(Debug)]
pub struct Slice<T> {
    /// Pass now, in order of arrival inside a priority.
    pub admitted: Vec<T>,
    /// Dropped, with their priorities.
    pub dropped: Vec<(Priority, T)>,
}

impl<T> Default for Slice<T> {
    fn default() -> Self {
        Self { admitted: Vec::new(), dropped: Vec::new() }
    }
}

impl<T> Default for LiveShaper<T> {
    fn default() -> Self {
        Self {
            rate: 0,
            window: VecDeque::new(),
            in_window: 0,
            pending: std::array::from_fn(|_| VecDeque::new()),
            slice: None,
        }
    }
}

impl<T> LiveShaper<T> {
    /// Offers one message. `rate` is the room's cap a second, 0 = none. Returns what passes or is dropped at once; a
    /// message in neither list waits for [`LiveShaper::tick`].
    pub fn offer(&mut self, rate: u32, offer: Offer<T>, now: UnixMillis, rng: &Rng) -> Slice<T> {
        let Offer { priority, weight, item } = offer;
        let mut out = Slice::default();
        self.rate = rate;
        if rate == 0 {
            out.admitted.extend(self.drain());
            self.slice = None;
            out.admitted.push(item);
            return out;
        }
        self.forget(now);
        if self.slice.is_none() && self.in_window < rate {
            self.count(now, 1);
            out.admitted.push(item);
            return out;
        }
        self.slice.get_or_insert_with(|| (now.plus_ms(SLICE_MS), 0));
        self.pending[priority as usize].push_back(Waiting { at: now, lot: lot(weight, rng), item });
        if self.waiting() > (rate as usize).saturating_mul(PENDING_SECONDS).max(16) {
            out.dropped.extend(self.worst());
        }
        out
    }

    /// When [`LiveShaper::tick`] must be called; `None` while nothing is shaped.
    #[must_use]
    pub fn next_tick(&self) -> Option<UnixMillis> {
        self.slice.map(|(end, _)| end)
    }

    /// Ends the slice that is due: the best pass, what waited too long is dropped.
    pub fn tick(&mut self, now: UnixMillis) -> Slice<T> {
        let mut out = Slice::default();
        let Some((end, carried)) = self.slice else { return out };
        if now < end {
            return out;
        }
        self.forget(now);
        let started = UnixMillis(end.0.saturating_sub(SLICE_MS));
        let elapsed = now.since(started).min(WINDOW_MS);
        let budget = (carried + u64::from(self.rate) * elapsed).min(u64::from(self.rate) * 1_000);
        let room = u64::from(self.rate.saturating_sub(self.in_window));
        let mut left = (budget / 1_000).min(room);
        let allowed = left;
        for class in Priority::ALL {
            let picked = self.pick(class, usize::try_from(left).unwrap_or(usize::MAX));
            left -= picked.len() as u64;
            out.admitted.extend(picked);
        }
        let passed = allowed - left;
        self.count(now, u32::try_from(passed).unwrap_or(u32::MAX));
        self.expire(now, &mut out.dropped);
        let spare = left > 0 && self.waiting() == 0;
        // What the window held back is not saved up: a burst after a drought would starve the slices after it.
        let carried = (budget - passed * 1_000).min((u64::from(self.rate) * SLICE_MS).max(1_000));
        self.slice = (!spare).then(|| (now.plus_ms(SLICE_MS), carried));
        out
    }

    /// Everything that waits, dropped with the room.
    pub fn drain(&mut self) -> Vec<T> {
        self.pending.iter_mut().flat_map(|class| class.drain(..)).map(|waiting| waiting.item).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.iter().map(VecDeque::len).sum()
    }

    /// The `most` of a class with the lowest lots, in order of arrival.
    fn pick(&mut self, class: Priority, most: usize) -> Vec<T> {
        let queue = &mut self.pending[class as usize];
        if most == 0 || queue.is_empty() {
            return Vec::new();
        }
        let mut lots: Vec<f64> = queue.iter().map(|waiting| waiting.lot).collect();
        lots.sort_unstable_by(f64::total_cmp);
        let last = lots[most.min(lots.len()) - 1];
        let mut picked = Vec::with_capacity(most.min(lots.len()));
        let mut keep = VecDeque::with_capacity(queue.len());
        for waiting in queue.drain(..) {
            if waiting.lot <= last && picked.len() < most {
                picked.push(waiting.item);
            } else {
                keep.push_back(waiting);
            }
        }
        *queue = keep;
        picked
    }

    /// The one with the highest lot of the least important class.
    fn worst(&mut self) -> Option<(Priority, T)> {
        let class = Priority::ALL.into_iter().rev().find(|class| !self.pending[*class as usize].is_empty())?;
        let queue = &mut self.pending[class as usize];
        let (index, _) = queue.iter().enumerate().max_by(|(_, a), (_, b)| a.lot.total_cmp(&b.lot))?;
        queue.remove(index).map(|waiting| (class, waiting.item))
    }

    fn expire(&mut self, now: UnixMillis, dropped: &mut Vec<(Priority, T)>) {
        for class in Priority::ALL {
            let queue = &mut self.pending[class as usize];
            let mut keep = VecDeque::with_capacity(queue.len());
            for waiting in queue.drain(..) {
                if now.since(waiting.at).saturating_add(SLICE_MS) > HOLD_MS[class as usize] {
                    dropped.push((class, waiting.item));
                } else {
                    keep.push_back(waiting);
                }
            }
            *queue = keep;
        }
    }

    fn forget(&mut self, now: UnixMillis) {
        while let Some(&(at, n)) = self.window.front()
            && now.since(at) >= WINDOW_MS
        {
            self.window.pop_front();
            self.in_window -= n;
        }
    }

    fn count(&mut self, now: UnixMillis, n: u32) {
        if n == 0 {
            return;
        }
        self.in_window += n;
        match self.window.back_mut() {
            Some((at, count)) if *at == now => *count += n,
            _ => self.window.push_back((now, n)),
        }
    }
}

/// A lot for a message that stands for `weight`.
fn lot(weight: u32, rng: &Rng) -> f64 {
    // 53 bits, and never 0, which has no logarithm.
    let uniform = ((rng.u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight.max(1))
}

#[cfg(test)]
mod tests;
