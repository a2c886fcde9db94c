//! What is written down during a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A conversation, the same for everybody in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conv {
    /// Two users, the smaller id first.
    Pair(String, String),
    /// A group of any kind.
    Group(String),
}

impl Conv {
    /// The pair of two users.
    #[must_use]
    pub fn pair(one: &str, other: &str) -> Self {
        let (a, b) = if one < other { (one, other) } else { (other, one) };
        Self::Pair(a.to_owned(), b.to_owned())
    }

    /// The conversation that `user` calls `view`.
    #[must_use]
    pub fn of(view: &str, user: &str) -> Option<Self> {
        match view.split_once(':')? {
            ("C2C", peer) => Some(Self::pair(user, peer)),
            ("GROUP", id) => Some(Self::Group(id.to_owned())),
            _ => None,
        }
    }

    /// What `user` calls it: `C2C:<peer>` or `GROUP:<id>`.
    #[must_use]
    pub fn view(&self, user: &str) -> String {
        match self {
            Self::Pair(a, b) if a == user => format!("C2C:{b}"),
            Self::Pair(a, _) => format!("C2C:{a}"),
            Self::Group(id) => format!("GROUP:{id}"),
        }
    }
}

impl fmt::Display for Conv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(a, b) => write!(f, "C2C:{a}:{b}"),
            Self::Group(id) => write!(f, "GROUP:{id}"),
        }
    }
}

/// One message, wherever it was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Position; 0 where the place does not tell it.
    pub seq: u64,
    /// Who wrote it.
    pub from: String,
    /// His token.
    pub random: u32,
    /// Its text; empty for a tip.
    pub text: String,
    /// Server time in ms; 0 where the place does not tell it.
    pub time_ms: u64,
    /// A tip of the group.
    pub tip: bool,
}

impl Entry {
    /// Whether both are the same message.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        (&self.from, self.random, &self.text) == (&other.from, other.random, &other.text)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} {:?} at {}", self.seq, self.from, self.random, self.text, self.time_ms)
    }
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In the log; the position unless the caller is not told it.
    Stored(Option<u64>),
    /// Delivered to who is there.
    Published,
    /// Dropped because the group is over its rate, and said so.
    Shaped,
    /// Refused for good with this code, and no try before it went unanswered.
    Refused(u32),
    /// Nobody knows: never answered, or refused for good after a try without an answer.
    Unknown,
}

/// A send as its sender saw it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Where to.
    pub conv: Conv,
    /// Sender.
    pub from: String,
    /// Who writes: sends of one writer have an order.
    pub writer: usize,
    /// Its place in that order.
    pub no: u32,
    /// Token.
    pub random: u32,
    /// Text, new for every send.
    pub text: String,
    /// Tries that were made; what a client repeats by itself after a reconnect is not counted.
    pub tries: u32,
    /// The first try, in ms of the run.
    pub begun_ms: u64,
    /// The last answer, in ms of the run.
    pub ended_ms: u64,
    /// The outcome.
    pub fate: Fate,
    /// What each try but the last was told, and when.
    pub trail: Vec<String>,
}

/// What one device was shown or pushed.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The user.
    pub user: String,
    /// Follows conversations and closes gaps; else it only writes down what is pushed to it.
    pub follows: bool,
    /// Messages by conversation in the order they came.
    pub shown: BTreeMap<Conv, Vec<Entry>>,
    /// Connections that were lost: what was under way then was sent again, and may have been done twice.
    pub drops: u32,
    /// Times it was away from a live room: ms of the run.
    pub away: Vec<(u64, u64)>,
    /// Why the session is over.
    pub ended: Option<String>,
}

/// A log as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What is at or below it belongs to before the run.
    pub base: u64,
    /// The last position as the owner tells it.
    pub head: u64,
    /// What is stored, by position; from some way below `base`.
    pub entries: BTreeMap<u64, Entry>,
    /// Positions told twice, with both contents.
    pub twice: Vec<(Entry, Entry)>,
}

impl Log {
    /// Adds what a page says.
    pub fn add(&mut self, entry: Entry) {
        match self.entries.get(&entry.seq) {
            Some(there) => self.twice.push((there.clone(), entry)),
            None => drop(self.entries.insert(entry.seq, entry)),
        }
    }

    /// What the run wrote.
    pub fn new_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.base + 1..).map(|(_, entry)| entry)
    }
}

/// The same log as somebody else reads it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who read.
    pub by: String,
    /// What.
    pub conv: Conv,
    /// What was there above the base, oldest first; `seq` 0 where the surface does not tell it.
    pub entries: Vec<Entry>,
}

/// An after-webhook as the app's server got it, in order of arrival.
#[derive(Clone, Debug)]
pub struct Hooked {
    /// `RequestID`.
    pub id: String,
    /// Which conversation.
    pub conv: Conv,
    /// The message.
    pub entry: Entry,
}

/// Everything of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Logs as they are at the end.
    pub logs: BTreeMap<Conv, Log>,
    /// The same logs as the runs before left them.
    pub before: BTreeMap<Conv, BTreeMap<u64, Entry>>,
    /// The same logs read by others.
    pub readings: Vec<Reading>,
    /// Who of those signed in is in which conversation.
    pub members: BTreeMap<Conv, BTreeSet<String>>,
    /// Live rooms: not stored.
    pub rooms: BTreeSet<Conv>,
    /// Every send.
    pub sends: Vec<Told>,
    /// Every device.
    pub screens: Vec<Screen>,
    /// After-webhooks; `None` when the app asks for none.
    pub hooks: Option<Vec<Hooked>>,
    /// Accounting laws that are not exact, in words.
    pub laws: Vec<String>,
}
