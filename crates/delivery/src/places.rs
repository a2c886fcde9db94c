//! The owner's idea of where users are: a cache in front of the session service, kept fresh by hints on the bus.
//!
//! What is sent to a user nobody asked about yet waits, in order, for the answer; later sends queue behind it, so nothing
//! overtakes. A user who turns up on another gateway within seconds of a send has that gateway told how far each
//! conversation is, which covers the moment between his sign-in and the arrival of the hint.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_types::{NodeId, SdkAppId, UserId};

/// Life of an entry that no hint renews.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(60);
/// An entry in use is asked for again at this age, while it still serves.
const REFRESH_AT: Duration = Duration::from_secs(45);
/// Life of a guess made because the session service did not answer.
const GUESS_FOR: Duration = Duration::from_secs(2);
/// A gateway that gains a user is told of what was sent to him this long ago: while the hint was on its way.
const RECENT_FOR: Duration = Duration::from_secs(6);
/// The same when hints may have been lost: as long as a wrong entry could live.
const RECENT_KEEP: Duration = FRESH_FOR;
/// Conversations remembered for that, per user.
const RECENT_MAX: usize = 16;
/// Batches that wait for one user's place; of older ones only the heads are told.
const WAITING_MAX: usize = 64;
/// Users remembered.
const USERS_MAX: usize = 200_000;

/// One batch for users by name.
#[derive(Debug)]
pub(crate) struct Direct {
    /// Tells conversations apart (`conv`), or 0 for events of a user.
    pub(crate) conv: u64,
    /// Of its owner; what a deposed one still sends does not stand for the conversation.
    pub(crate) epoch: u64,
    /// The batch, encoded, without users.
    pub(crate) batch: Bytes,
    /// What is sent in its place when it may be a repetition: the same head without records.
    pub(crate) announce: Bytes,
}

pub(crate) type Key = (SdkAppId, UserId);

/// Users of one gateway, by position in the list they were given in.
pub(crate) type Group = (NodeId, Vec<usize>);

/// What an answer sets free: a batch for one gateway and the user asked about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) gateway: NodeId,
    pub(crate) batch: Bytes,
}

#[derive(Debug, Default)]
struct Entry {
    gateways: Vec<NodeId>,
    rev: u64,
    /// `None`: not known.
    learned: Option<Duration>,
    life: Duration,
    /// A question is queued or on its way.
    asked: bool,
    /// The session service was away: these are all gateways, but those that said they do not have the user.
    guessed: bool,
    waiting: VecDeque<Arc<Direct>>,
    recent: VecDeque<Recent>,
}

/// What a gateway that gains the user is told of one conversation, or of his own events.
#[derive(Debug)]
struct Recent {
    at: Duration,
    conv: u64,
    epoch: u64,
    batch: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Places {
    users: HashMap<SdkAppId, HashMap<UserId, Entry>>,
    /// Users in the order they came in, for forgetting.
    order: VecDeque<(Duration, Key)>,
    wanted: Vec<Key>,
}

impl Places {
    /// Groups those whose place is known by gateway, and lets `direct` wait for the others.
    pub(crate) fn route(&mut self, now: Duration, app: SdkAppId, users: &[UserId], direct: &Arc<Direct>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let known = self.users.entry(app).or_default();
        for (index, user) in users.iter().enumerate() {
            let entry = match known.get_mut(user) {
                Some(entry) => entry,
                None => {
                    self.order.push_back((now, (app, user.clone())));
                    known.entry(user.clone()).or_default()
                }
            };
            let age = entry.age(now);
            if !entry.asked && age.is_none_or(|age| age > REFRESH_AT) {
                entry.asked = true;
                self.wanted.push((app, user.clone()));
            }
            if age.is_none() {
                entry.wait(now, direct);
                continue;
            }
            entry.remember(now, direct);
            for gateway in &entry.gateways {
                match groups.iter_mut().find(|(name, _)| name == gateway) {
                    Some((_, members)) => members.push(index),
                    None => groups.push((gateway.clone(), vec![index])),
                }
            }
        }
        groups
    }

    /// Users to ask the session service about; each is handed out once until its answer.
    pub(crate) fn take_wanted(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.wanted)
    }

    /// The session service's answer. An answer older than a hint that came meanwhile changes nothing but ends the wait.
    pub(crate) fn answer(&mut self, now: Duration, key: &Key, gateways: Vec<NodeId>, rev: u64) -> Vec<Freed> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        entry.asked = false;
        if entry.learned.is_some() && rev < entry.rev {
            entry.learned = Some(now);
            return Vec::new();
        }
        entry.learn(now, gateways, rev, FRESH_FOR)
    }

    /// The session service did not answer: `everywhere` are the gateways the user may be on.
    pub(crate) fn guess(&mut self, now: Duration, key: &Key, everywhere: &[NodeId]) -> Vec<Freed> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        entry.asked = false;
        if entry.age(now).is_some() {
            return Vec::new();
        }
        let rev = entry.rev;
        // Guessed again: gateways that were tried lately need not hear again of what they were sent.
        let again = entry.guessed;
        if again {
            (entry.learned, entry.life) = (Some(now), GUESS_FOR);
        }
        let freed = entry.learn(now, everywhere.to_vec(), rev, GUESS_FOR);
        entry.guessed = true;
        freed
    }

    /// A presence hint: all places of a user as of `rev`. Ignored for users nobody sends to, and when old.
    pub(crate) fn hint(&mut self, now: Duration, key: &Key, gateways: Vec<NodeId>, rev: u64) -> Vec<Freed> {
        match self.get(key) {
            Some(entry) if rev > entry.rev => entry.learn(now, gateways, rev, FRESH_FOR),
            _ => Vec::new(),
        }
    }

    /// A gateway does not have this user (any more).
    pub(crate) fn moved(&mut self, key: &Key, gateway: &NodeId) {
        let Some(entry) = self.get(key) else { return };
        if entry.guessed {
            // Asking would bring another guess, and that another "moved".
            entry.gateways.retain(|guess| guess != gateway);
            return;
        }
        if !entry.gateways.contains(gateway) || entry.asked {
            return;
        }
        (entry.learned, entry.asked) = (None, true);
        self.wanted.push(key.clone());
    }

    /// Hints may have been lost: nothing is known any more, and those who were sent to are asked about at once. Walks all
    /// users; for the rare moment when the bus comes back.
    pub(crate) fn distrust(&mut self) {
        for (app, users) in &mut self.users {
            for (user, entry) in users {
                entry.learned = None;
                if !entry.asked && !entry.recent.is_empty() {
                    entry.asked = true;
                    self.wanted.push((*app, user.clone()));
                }
            }
        }
    }

    /// Forgets users who were not sent to for a while, and the oldest above the bound.
    pub(crate) fn sweep(&mut self, now: Duration) {
        // A slice at a time: this runs under the lock of every direct publish.
        for _ in 0..2_000 {
            let crowded = self.order.len() > USERS_MAX;
            match self.order.front() {
                Some((since, _)) if crowded || *since + FRESH_FOR < now => {}
                _ => return,
            }
            let Some((_, key)) = self.order.pop_front() else { return };
            let Some(entry) = self.get(&key) else { continue };
            if entry.asked || !entry.waiting.is_empty() || (!crowded && entry.age(now).is_some()) {
                self.order.push_back((now, key));
            } else if let Some(users) = self.users.get_mut(&key.0) {
                users.remove(&key.1);
                if users.is_empty() {
                    self.users.remove(&key.0);
                }
            }
        }
    }

    fn get(&mut self, (app, user): &Key) -> Option<&mut Entry> {
        self.users.get_mut(app)?.get_mut(user)
    }
}

impl Entry {
    /// Time since the place was learned; `None` when it is not known (any more).
    fn age(&self, now: Duration) -> Option<Duration> {
        let age = now.saturating_sub(self.learned?);
        (age <= self.life).then_some(age)
    }

    fn wait(&mut self, now: Duration, direct: &Arc<Direct>) {
        self.waiting.push_back(Arc::clone(direct));
        if self.waiting.len() > WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.remember(now, &oldest);
        }
    }

    fn remember(&mut self, now: Duration, direct: &Direct) {
        let Direct { conv, epoch, .. } = *direct;
        if self.recent.iter().any(|newer| newer.conv == conv && newer.epoch > epoch) {
            return;
        }
        self.recent.retain(|old| old.at + RECENT_KEEP >= now && (old.conv == 0 || old.conv != conv));
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { at: now, conv, epoch, batch: direct.repeated() });
    }

    fn learn(&mut self, now: Duration, gateways: Vec<NodeId>, rev: u64, life: Duration) -> Vec<Freed> {
        let mut freed = Vec::new();
        let known = self.age(now).is_some();
        let window = if known { RECENT_FOR } else { RECENT_KEEP };
        for gateway in gateways.iter().filter(|gateway| !known || !self.gateways.contains(gateway)) {
            let recent = self.recent.iter().filter(|recent| recent.at + window >= now);
            freed.extend(recent.map(|recent| Freed { gateway: gateway.clone(), batch: recent.batch.clone() }));
        }
        for direct in std::mem::take(&mut self.waiting) {
            freed
                .extend(gateways.iter().map(|gateway| Freed { gateway: gateway.clone(), batch: direct.batch.clone() }));
            self.remember(now, &direct);
        }
        (self.gateways, self.rev, self.learned, self.life) = (gateways, rev, Some(now), life);
        self.guessed = false;
        freed
    }
}

impl Direct {
    /// Events of a user have no log behind them: they are sent again whole.
    fn repeated(&self) -> Bytes {
        if self.conv == 0 { self.batch.clone() } else { self.announce.clone() }
    }
}

#[cfg(test)]
mod tests;
