//! What must hold of a [`History`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::record::{Conv, Entry, Fate, History, Hooked, Log, Screen, Told};

#[cfg(test)]
mod tests;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// An acknowledged message is not in the log.
    Lost,
    /// A message is there twice, or was shown twice.
    Duplicated,
    /// A sender's messages are out of order, or were shown so.
    Reordered,
    /// A position has two contents.
    SeqReused,
    /// A position has none.
    Hole,
    /// Somebody who was there does not have a stored message.
    Undelivered,
    /// The answer was not the truth.
    Untrue,
    /// After-webhooks: missing, told under two ids, out of order.
    Hooks,
    /// The counters do not add up.
    Counters,
    /// A client was ended by the server.
    Ended,
}

/// One thing that does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which law.
    pub law: Law,
    /// Where, and both versions.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.what)
    }
}

struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, law: Law, what: String) {
        self.0.push(Violation { law, what });
    }
}

/// Everything that does not hold.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    for (conv, log) in &history.logs {
        log_is_whole(conv, log, history.before.get(conv), &mut found);
    }
    sends_are_there(history, &mut found);
    orders(history, &mut found);
    readings_agree(history, &mut found);
    for screen in &history.screens {
        screen_is_true(history, screen, &mut found);
    }
    rooms_are_true(history, &mut found);
    if let Some(hooks) = &history.hooks {
        hooks_are_there(history, hooks, &mut found);
    }
    for law in &history.laws {
        found.add(Law::Counters, law.clone());
    }
    found.0
}

/// Positions have no hole, each one content, and the same as before; times do not go back; a token is there once.
fn log_is_whole(conv: &Conv, log: &Log, before: Option<&BTreeMap<u64, Entry>>, found: &mut Found) {
    for (one, other) in &log.twice {
        found.add(Law::SeqReused, format!("{conv}: history tells {one} and {other}"));
    }
    for seq in log.base + 1..=log.head {
        if !log.entries.contains_key(&seq) {
            found.add(Law::Hole, format!("{conv}: nothing at {seq}, the head is {}", log.head));
        }
    }
    if let Some((last, entry)) = log.entries.last_key_value().filter(|(last, _)| **last > log.head) {
        found.add(Law::Hole, format!("{conv}: {entry} at {last} is above the head {}", log.head));
    }
    for (seq, entry) in before.into_iter().flatten() {
        if log.entries.get(seq).is_some_and(|now| !now.same(entry)) {
            found.add(Law::SeqReused, format!("{conv}: was {entry}, is {}", log.entries[seq]));
        }
    }
    let mut last = 0;
    let mut tokens: HashMap<(&str, u32), &Entry> = HashMap::new();
    for entry in log.new_entries() {
        if entry.time_ms < last {
            found.add(Law::Untrue, format!("{conv}: time goes back to {entry} from {last}"));
        }
        last = last.max(entry.time_ms);
        if entry.tip {
            continue;
        }
        if let Some(first) = tokens.insert((&entry.from, entry.random), entry) {
            found.add(Law::Duplicated, format!("{conv}: {first} and {entry}"));
        }
    }
}

type Tokens<'a> = HashMap<(&'a Conv, &'a str, u32), &'a Entry>;

fn tokens(history: &History) -> Tokens<'_> {
    let logs = history.logs.iter();
    logs.flat_map(|(conv, log)| log.new_entries().map(move |e| ((conv, e.from.as_str(), e.random), e))).collect()
}

/// What every sender was told is so.
fn sends_are_there(history: &History, found: &mut Found) {
    let stored = tokens(history);
    let mut acknowledged: HashMap<(&Conv, u64), &Told> = HashMap::new();
    for told in history.sends.iter().filter(|told| !history.rooms.contains(&told.conv)) {
        let there = stored.get(&(&told.conv, told.from.as_str(), told.random)).copied();
        let who = || format!("{} {}/{} {:?}", told.conv, told.from, told.random, told.text);
        match (&told.fate, there) {
            (Fate::Stored(seq), None) => found.add(Law::Lost, format!("{}: acknowledged at {seq:?}", who())),
            (Fate::Stored(seq), Some(entry)) => {
                if seq.is_some_and(|seq| seq != entry.seq) {
                    found.add(Law::Untrue, format!("{}: acknowledged at {seq:?}, is {entry}", who()));
                }
                if entry.text != told.text {
                    found.add(Law::SeqReused, format!("{}: is {entry}", who()));
                }
            }
            (Fate::Refused(code), Some(entry)) => {
                found.add(Law::Untrue, format!("{}: refused with {code}, and stored: {entry}", who()));
            }
            (Fate::Shaped | Fate::Published, Some(entry)) => {
                found.add(Law::Untrue, format!("{}: told {:?}, and stored: {entry}", who(), told.fate));
            }
            (Fate::Published, None) => found.add(Law::Untrue, format!("{}: only published", who())),
            (Fate::Refused(_) | Fate::Shaped | Fate::Unknown, _) => {}
        }
        if let Fate::Stored(Some(seq)) = told.fate
            && let Some(other) = acknowledged.insert((&told.conv, seq), told)
        {
            let what =
                format!("{}: acknowledged at {seq}, as was {}/{} {:?}", who(), other.from, other.random, other.text);
            found.add(Law::SeqReused, what);
        }
    }
}

/// A writer's messages are stored in the order he sent them: what was answered before the next was sent, and what was
/// sent one behind the other and not refused in between.
fn orders(history: &History, found: &mut Found) {
    let stored = tokens(history);
    let mut writers: BTreeMap<usize, Vec<(&Told, u64)>> = BTreeMap::new();
    for told in &history.sends {
        if let Some(entry) = stored.get(&(&told.conv, told.from.as_str(), told.random)) {
            writers.entry(told.writer).or_default().push((told, entry.seq));
        }
    }
    for mut sends in writers.into_values() {
        sends.sort_by_key(|(told, _)| told.no);
        for (at, (later, seq)) in sends.iter().enumerate() {
            let wrong = sends[..at].iter().rev().find(|(earlier, before)| {
                let ordered = earlier.ended_ms <= later.begun_ms || (earlier.tries == 1 && later.tries == 1);
                ordered && before >= seq
            });
            if let Some((earlier, before)) = wrong {
                let what = format!(
                    "{}: {} sent {:?} (at {before}) before {:?} (at {seq})",
                    later.conv, later.from, earlier.text, later.text
                );
                found.add(Law::Reordered, what);
            }
        }
    }
}

/// Everybody reads the same log.
fn readings_agree(history: &History, found: &mut Found) {
    for reading in &history.readings {
        let Some(log) = history.logs.get(&reading.conv) else { continue };
        let expected: Vec<&Entry> = log.new_entries().collect();
        let (by, conv) = (&reading.by, &reading.conv);
        if expected.len() != reading.entries.len() {
            let what = format!("{conv}: {by} reads {} messages of {}", reading.entries.len(), expected.len());
            found.add(Law::Hole, what);
        }
        for (one, other) in expected.iter().zip(&reading.entries) {
            if (other.seq != 0 && one.seq != other.seq) || (!one.tip && !one.same(other)) {
                found.add(Law::SeqReused, format!("{conv}: {by} reads {other}, it is {one}"));
                break;
            }
        }
    }
}

/// What was shown is what is stored, once and in order; and of a device that follows, all of it.
fn screen_is_true(history: &History, screen: &Screen, found: &mut Found) {
    let user = &screen.user;
    if let Some(why) = &screen.ended {
        found.add(Law::Ended, format!("{user}: {why}"));
    }
    let nothing = Vec::new();
    for (conv, log) in &history.logs {
        let shown = screen.shown.get(conv).unwrap_or(&nothing);
        let mut last = 0;
        for entry in shown.iter().filter(|entry| entry.seq > log.base) {
            match log.entries.get(&entry.seq) {
                None => found.add(Law::SeqReused, format!("{conv}: {user} was shown {entry}, nothing is there")),
                Some(stored) if !stored.same(entry) => {
                    found.add(Law::SeqReused, format!("{conv}: {user} was shown {entry}, it is {stored}"));
                }
                Some(_) => {}
            }
            if screen.follows && entry.seq == last {
                found.add(Law::Duplicated, format!("{conv}: {user} was shown {entry} twice"));
            } else if screen.follows && entry.seq < last {
                found.add(Law::Reordered, format!("{conv}: {user} was shown {entry} after {last}"));
            }
            last = last.max(entry.seq);
        }
        let member = history.members.get(conv).is_some_and(|members| members.contains(user));
        if screen.follows && member {
            let has: BTreeSet<u64> = shown.iter().map(|entry| entry.seq).collect();
            let missing: Vec<u64> =
                log.new_entries().filter(|e| e.from != *user && !has.contains(&e.seq)).map(|e| e.seq).collect();
            if !missing.is_empty() {
                found.add(Law::Undelivered, format!("{conv}: {user} misses {missing:?} of {}", log.head));
            }
        }
    }
}

/// Live rooms: what was shown was published, once, each sender's in order.
fn rooms_are_true(history: &History, found: &mut Found) {
    let sends: HashMap<(&Conv, &str, u32), &Told> =
        history.sends.iter().map(|told| ((&told.conv, told.from.as_str(), told.random), told)).collect();
    for screen in &history.screens {
        for conv in &history.rooms {
            let user = &screen.user;
            let mut seen: HashMap<(&str, u32), u32> = HashMap::new();
            let mut last: HashMap<usize, &Told> = HashMap::new();
            for entry in screen.shown.get(conv).into_iter().flatten().filter(|entry| !entry.tip) {
                let Some(told) = sends.get(&(conv, entry.from.as_str(), entry.random)) else { continue };
                if !matches!(told.fate, Fate::Published | Fate::Unknown) {
                    found.add(
                        Law::Untrue,
                        format!("{conv}: {user} was shown {entry}, its sender was told {:?}", told.fate),
                    );
                }
                // A room keeps no log: a retry after an owner died may be published again.
                let times = seen.entry((&entry.from, entry.random)).or_default();
                *times += 1;
                if *times > told.tries.max(1) {
                    found.add(Law::Duplicated, format!("{conv}: {user} was shown {entry} {times} times"));
                }
                let before = last.insert(told.writer, told);
                if let Some(before) = before.filter(|before| before.no > told.no && told.tries == 1) {
                    found.add(Law::Reordered, format!("{conv}: {user} was shown {entry} after {:?}", before.text));
                }
            }
        }
    }
}

/// Every stored message of a user is told to the app under one id, in order of its conversation.
fn hooks_are_there(history: &History, hooks: &[Hooked], found: &mut Found) {
    let stored = tokens(history);
    let mut ids: HashMap<(&Conv, &str, u32), BTreeSet<&str>> = HashMap::new();
    let mut events: HashMap<&str, &Hooked> = HashMap::new();
    let mut last: HashMap<&Conv, u64> = HashMap::new();
    for hook in hooks.iter().filter(|hook| history.logs.contains_key(&hook.conv)) {
        let key = (&hook.conv, hook.entry.from.as_str(), hook.entry.random);
        let repeated = events.insert(&hook.id, hook);
        if let Some(first) = repeated.filter(|first| !first.entry.same(&hook.entry) || first.conv != hook.conv) {
            let what = format!("{}: id {} of {} also tells {}", hook.conv, hook.id, hook.entry, first.entry);
            found.add(Law::Hooks, what);
        }
        let new = ids.entry(key).or_default().insert(&hook.id);
        let Some(entry) = stored.get(&key).filter(|_| new && repeated.is_none()) else { continue };
        let before = last.entry(&hook.conv).or_default();
        if entry.seq < *before {
            found.add(Law::Hooks, format!("{}: {entry} is told after {before}", hook.conv));
        }
        *before = entry.seq.max(*before);
    }
    for (conv, log) in &history.logs {
        let untold = log.new_entries().filter(|entry| !entry.tip).filter_map(|entry| {
            let ids = ids.get(&(conv, entry.from.as_str(), entry.random)).map_or(0, BTreeSet::len);
            (ids != 1).then(|| format!("{conv}: {entry} was told under {ids} ids"))
        });
        for what in untold.collect::<Vec<_>>() {
            found.add(Law::Hooks, what);
        }
    }
}

impl History {
    /// How many after-webhooks are still to come.
    #[must_use]
    pub fn untold(&self, hooks: &[Hooked]) -> usize {
        let told: BTreeSet<_> =
            hooks.iter().map(|hook| (&hook.conv, hook.entry.from.as_str(), hook.entry.random)).collect();
        let stored = tokens(self);
        let mine = |key: &(&Conv, &str, u32)| !stored[key].tip && !told.contains(key);
        stored.keys().filter(|key| mine(key)).count()
    }
}
