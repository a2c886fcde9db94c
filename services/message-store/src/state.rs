//! What every part of the service shares, and what is known of one active conversation without asking its actor.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linnet_admission::Admission;
use linnet_admission::apps::Apps;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_delivery::{ConvName, Publisher};
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::conversations::Conversations;
use linnet_store::ids::ConvIds;
use linnet_store::logs::{LogHead, LogId, Logs};
use linnet_store::positions::Positions;
use linnet_types::{ConvId, ConversationKey, GroupId, SdkAppId, UserId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::Config;
use crate::metrics::Meters;
use crate::stored::Row;

/// An owner that answers from memory has seen its guard this recently, or it looks: another may own the log by now.
const CONFIRMED_MS: u64 = 8_000;

/// Shared by handlers, actors and tasks.
pub(crate) struct Ctx {
    pub config: Config,
    pub logs: Logs,
    pub conversations: Conversations,
    pub positions: Positions,
    pub ids: ConvIds,
    pub cluster: Cluster,
    pub publisher: Publisher,
    pub apps: Apps,
    pub admission: Admission,
    pub clock: Clock,
    pub rng: Rng,
    pub tasks: Tasks,
    pub meters: Meters,
}

impl Ctx {
    /// Version of the ring as this node sees it.
    pub(crate) fn ring(&self) -> u64 {
        *self.cluster.changes().borrow()
    }
}

/// The public name of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Two users, smaller id first.
    Pair(UserId, UserId),
    /// A group.
    Group(GroupId),
}

impl Subject {
    /// The pair of two users, in any order.
    pub(crate) fn pair(one: &UserId, other: &UserId) -> Self {
        if one <= other { Self::Pair(one.clone(), other.clone()) } else { Self::Pair(other.clone(), one.clone()) }
    }

    /// The key its owner is found by.
    pub(crate) fn route(&self, id: LogId) -> RouteKey {
        match self {
            Self::Pair(a, b) => RouteKey::pair(id.app, a, b),
            Self::Group(_) => RouteKey::conv(id.conv),
        }
    }

    pub(crate) fn name(&self) -> ConvName {
        match self {
            Self::Pair(a, b) => ConvName::Pair(a.clone(), b.clone()),
            Self::Group(group) => ConvName::Group(group.clone()),
        }
    }

    pub(crate) fn is_pair(&self) -> bool {
        matches!(self, Self::Pair(..))
    }

    /// The other user of a pair (the user himself when he writes to himself).
    pub(crate) fn peer(&self, user: &str) -> Option<&UserId> {
        match self {
            Self::Pair(a, b) => Some(if a.as_str() == user { b } else { a }),
            Self::Group(_) => None,
        }
    }

    /// The conversation as `user` names it.
    pub(crate) fn key_for(&self, user: &str) -> ConversationKey {
        match self {
            Self::Pair(..) => ConversationKey::C2c(self.peer(user).expect("a pair has a peer").clone()),
            Self::Group(group) => ConversationKey::Group(group.clone()),
        }
    }
}

/// As `open_logs` keeps it, so that a node can tell which open logs are its own. Ids have no tab in them.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(a, b) => write!(f, "pair\t{a}\t{b}"),
            Self::Group(group) => write!(f, "group\t{group}"),
        }
    }
}

impl FromStr for Subject {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('\t');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("pair"), Some(a), Some(b), None) => Ok(Self::Pair(UserId::trusted(a), UserId::trusted(b))),
            (Some("group"), Some(group), None, None) => Ok(Self::Group(GroupId::trusted(group))),
            _ => Err(()),
        }
    }
}

/// Id of a log from its wire form.
pub(crate) fn log_id(app: u32, conv: u64) -> LogId {
    LogId { app: SdkAppId(app), conv: ConvId(conv) }
}

/// Whether this node should own the conversation, as far as it knows.
pub(crate) fn owned(cluster: &Cluster, id: LogId, subject: &Subject) -> bool {
    cluster.owns(Service::MessageStore, subject.route(id))
}

/// Where an actor stands.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The log is being claimed and recovered.
    Opening,
    /// What is known of it.
    Open(Arc<LogHead>),
    /// The actor has ended, or could not begin.
    Closed,
}

impl Shown {
    pub(crate) fn head(&self) -> Option<Arc<LogHead>> {
        match self {
            Self::Open(head) => Some(Arc::clone(head)),
            Self::Opening | Self::Closed => None,
        }
    }
}

/// What an actor shows of its log; read by everyone, written by the actor alone.
pub(crate) struct Shared {
    pub id: LogId,
    pub subject: Subject,
    shown: watch::Sender<Shown>,
    tail: Mutex<Tail>,
    /// Side effects are taken up to here; written by their task, saved by the actor.
    cursor: AtomicU64,
    /// When the store last showed that the log is ours: monotonic ms, and version of the ring.
    confirmed: Mutex<(u64, u64)>,
    /// Who sent what was revoked lately.
    revoked_by: Mutex<HashMap<u64, String>>,
}

impl Shared {
    pub(crate) fn new(id: LogId, subject: Subject, config: &Config) -> Self {
        Self {
            id,
            subject,
            shown: watch::channel(Shown::Opening).0,
            tail: Mutex::new(Tail::new(config.tail_messages, config.tail_bytes.bytes())),
            cursor: AtomicU64::new(0),
            confirmed: Mutex::default(),
            revoked_by: Mutex::default(),
        }
    }

    /// What is known of the log now; `None` unless it is open.
    pub(crate) fn head(&self) -> Option<Arc<LogHead>> {
        self.shown.borrow().head()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }

    /// Shows the log as it is after a write or a claim that ended at `now` and began under version `ring` of the ring.
    pub(crate) fn show(&self, head: LogHead, now: Duration, ring: u64) {
        self.confirm(now, ring);
        self.shown.send_replace(Shown::Open(Arc::new(head)));
    }

    /// The store showed that the log is ours.
    pub(crate) fn confirm(&self, now: Duration, ring: u64) {
        let mut confirmed = self.confirmed.lock();
        *confirmed = (confirmed.0.max(millis(now)), confirmed.1.max(ring));
    }

    /// Whether the store showed lately, and since the ring last changed, that the log is ours: memory may answer.
    pub(crate) fn is_confirmed(&self, now: Duration, ring: u64) -> bool {
        let (at_ms, under) = *self.confirmed.lock();
        under >= ring && millis(now).saturating_sub(at_ms) < CONFIRMED_MS
    }

    pub(crate) fn closed(&self) {
        self.shown.send_replace(Shown::Closed);
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    pub(crate) fn set_cursor(&self, seq: u64) {
        self.cursor.fetch_max(seq, Ordering::AcqRel);
    }

    /// Begins anew: nothing is known of rows up to `head`.
    pub(crate) fn reset_tail(&self, head: u64) {
        self.tail.lock().reset(head);
    }

    /// Adds rows that follow those known.
    pub(crate) fn push(&self, rows: Vec<Arc<Row>>) {
        self.tail.lock().push(rows);
    }

    /// Adds rows, oldest first, that end where the known ones begin, as long as they fit. Rows that were read before the
    /// last change ([`Shared::changes`]) are not taken: what was recalled meanwhile must not come back.
    pub(crate) fn preload(&self, rows: Vec<Arc<Row>>, changes: u64) {
        let mut tail = self.tail.lock();
        if tail.changes == changes {
            tail.preload(rows);
        }
    }

    /// Changes of rows that were stored, so far.
    pub(crate) fn changes(&self) -> u64 {
        self.tail.lock().changes
    }

    /// Rows of `from..=to`, oldest first, if all of them are in memory.
    pub(crate) fn rows(&self, from: u64, to: u64) -> Option<Vec<Arc<Row>>> {
        self.tail.lock().range(from, to)
    }

    /// Changes a row in memory, if it is there.
    pub(crate) fn amend(&self, seq: u64, change: impl FnOnce(&mut Row)) {
        self.tail.lock().amend(seq, change);
    }

    pub(crate) fn note_revoked(&self, seq: u64, from: &str) {
        self.revoked_by.lock().insert(seq, from.to_owned());
    }

    pub(crate) fn revoked_by(&self, seq: u64) -> Option<String> {
        self.revoked_by.lock().get(&seq).cloned()
    }
}

/// The newest rows of a log: all that are stored from `from` on.
struct Tail {
    rows: VecDeque<Arc<Row>>,
    from: u64,
    changes: u64,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Tail {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self { rows: VecDeque::new(), from: u64::MAX, changes: 0, bytes: 0, most, most_bytes }
    }

    fn reset(&mut self, head: u64) {
        self.rows.clear();
        (self.from, self.bytes) = (head + 1, 0);
    }

    fn push(&mut self, rows: Vec<Arc<Row>>) {
        for row in rows {
            self.bytes += size(&row);
            self.rows.push_back(row);
        }
        while self.rows.len() > self.most || self.bytes > self.most_bytes {
            let Some(row) = self.rows.pop_front() else { break };
            self.bytes -= size(&row);
            self.from = row.message.seq + 1;
        }
    }

    fn preload(&mut self, rows: Vec<Arc<Row>>) {
        for row in rows.into_iter().rev() {
            let fits = self.rows.len() < self.most && self.bytes + size(&row) <= self.most_bytes;
            if !fits || row.message.seq + 1 != self.from {
                return;
            }
            self.bytes += size(&row);
            self.from = row.message.seq;
            self.rows.push_front(row);
        }
    }

    fn range(&self, from: u64, to: u64) -> Option<Vec<Arc<Row>>> {
        if from < self.from {
            return None;
        }
        let inside = |row: &&Arc<Row>| (from..=to).contains(&row.message.seq);
        Some(self.rows.iter().filter(inside).cloned().collect())
    }

    fn amend(&mut self, seq: u64, change: impl FnOnce(&mut Row)) {
        self.changes += 1;
        let Some(row) = self.rows.iter_mut().find(|row| row.message.seq == seq) else { return };
        let before = size(row);
        change(Arc::make_mut(row));
        self.bytes = self.bytes - before + size(row);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn size(row: &Row) -> usize {
    row.message.body.len() + row.message.cloud_custom_data.len() + row.message.offline_push.len() + 200
}

#[cfg(test)]
mod tests {
    use super::*;
    use linnet_proto::msg::Message;

    fn row(seq: u64) -> Arc<Row> {
        Arc::new(Row { message: Message { seq, ..Message::default() }, ..Row::default() })
    }

    #[test]
    fn a_subject_survives_its_text_form() {
        for subject in [
            Subject::pair(&UserId::trusted("b/1"), &UserId::trusted("a b")),
            Subject::Group(GroupId::trusted("@TGS#_x")),
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!("pair\ta".parse::<Subject>().is_err());
    }

    #[test]
    fn the_tail_answers_only_for_what_it_has_whole() {
        let mut tail = Tail::new(3, 10_000);
        tail.reset(10);
        assert_eq!(tail.range(10, 10), None);
        assert_eq!(tail.range(11, 20), Some(Vec::new()));
        tail.push((11..=15).map(row).collect());
        assert_eq!(tail.range(12, 15), None);
        assert_eq!(tail.range(13, 14).map(|rows| rows.len()), Some(2));
        assert_eq!(tail.bytes, 600);
    }

    #[test]
    fn rows_read_before_a_recall_do_not_come_back() {
        let shared = Shared::new(log_id(1, 2), Subject::Group(GroupId::trusted("g")), &Config::default());
        shared.reset_tail(3);
        let read_at = shared.changes();
        shared.amend(3, |row| row.message.revoked = true);
        shared.preload(vec![row(3)], read_at);
        assert!(shared.rows(3, 3).is_none());
        shared.preload(vec![row(3)], shared.changes());
        assert!(shared.rows(3, 3).is_some());
    }

    #[test]
    fn rows_before_the_tail_are_taken_only_without_a_gap() {
        let mut tail = Tail::new(10, 10_000);
        tail.reset(5);
        tail.preload(vec![row(2), row(4), row(5)]);
        assert_eq!((tail.from, tail.rows.len()), (4, 2));
        assert!(tail.range(4, 5).is_some() && tail.range(3, 5).is_none());
    }
}
