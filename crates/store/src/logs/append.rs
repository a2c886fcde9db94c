//! Appending: one conditional batch that extends the tail, and what to do when its outcome is unknown.

use linnet_proto::store::{LogGuard, MessageHead, SeqJump, Visibility, message_head};
use linnet_types::{Epoch, Seq, UnixMillis, UserId};
use prost::Message;

use bytes::Bytes;

use super::claim::{claim_batch, contended};
use super::log::{Log, Tail};
use super::read::Stored;
use super::tables::{BUCKET_SEQS, body_key, bucket_of, bucket_span, class_of, head_key, note_class};
use super::{Error, Result};
use crate::rows::{self, Applied, Guard, GuardedBatch, Write};

/// Messages of one batch.
pub const MAX_BATCH: usize = 20;
/// Bytes of one batch; Cassandra's default threshold is 50 KB.
pub const MAX_BATCH_BYTES: usize = 48 * 1024;
/// What a head and two keys add to a body.
const ROW_BYTES: usize = 200;
/// Attempts at a claim that settles.
const CLAIMS: u32 = 32;

/// A message to append.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who sent it.
    pub sender: UserId,
    /// The sender's random.
    pub random: u32,
    /// The caller's `MsgSeq`; `Some` in one-to-one conversations, where it is part of the message's public key.
    pub msg_seq: Option<u32>,
    /// The `MsgSeq` was filled in for the caller.
    pub msg_seq_filled: bool,
    /// Hash of the content, for de-duplication.
    pub content_hash: u64,
    /// The service's own bits.
    pub flags: u32,
    /// Who may see it; `None` = everyone.
    pub visibility: Option<Visibility>,
    /// Message or tip.
    pub kind: message_head::Kind,
    /// 0 highest to 3 lowest.
    pub priority: u32,
    /// Counts as unread for others.
    pub countable: bool,
    /// The content, encoded by the service.
    pub body: Bytes,
}

impl Entry {
    /// A message that everyone may see and that counts as unread; the other fields are what nothing was said of.
    #[must_use]
    pub fn message(sender: UserId, random: u32, body: Bytes) -> Self {
        Self {
            sender,
            random,
            msg_seq: None,
            msg_seq_filled: false,
            content_hash: 0,
            flags: 0,
            visibility: None,
            kind: message_head::Kind::Message,
            priority: 0,
            countable: true,
            body,
        }
    }

    /// Bytes it adds to a batch, about.
    #[must_use]
    pub fn cost(&self) -> usize {
        let listed = self.visibility.as_ref().map_or(0, |seen| seen.users.iter().map(|user| user.len() + 2).sum());
        self.body.len() + self.sender.as_str().len() + listed + ROW_BYTES
    }
}

/// What an appended message was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub seq: Seq,
    /// Countable messages up to and including it.
    pub ord: u64,
    /// Server time.
    pub time: UnixMillis,
}

/// The outcome of an append that was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All of the batch is in.
    Stored(Vec<Appended>),
    /// None of it is, nor ever will be: it may be appended again.
    NotStored,
}

/// An append whose outcome is unknown.
#[derive(Debug)]
pub(super) struct Pending {
    before: Tail,
    after: Tail,
    /// It was to make the bucket.
    creates: bool,
    appended: Vec<Appended>,
    /// For the cache; empty while that is.
    stored: Vec<Stored>,
}

/// How many of `entries`, from the first, make one batch of a log whose last seq is `last`: at most 20, 48 KB, and the
/// rest of the bucket. At least 1, whatever its size, when there are any.
#[must_use]
pub fn fit(entries: &[Entry], last: Seq) -> usize {
    let (_, end) = bucket_span(bucket_of(last.0 + 1));
    let room = usize::try_from(end - last.0).unwrap_or(usize::MAX);
    let mut bytes = 0;
    let by_size = entries.iter().take_while(|entry| {
        bytes += entry.cost();
        bytes <= MAX_BATCH_BYTES
    });
    by_size.count().clamp(1, MAX_BATCH).min(room).min(entries.len())
}

impl Log {
    /// Appends a batch; on success all of it is durable. Checked in this order: ownership, the group's fence, size.
    ///
    /// Not cancel-safe: a future dropped half-way leaves an unknown outcome, and the log [unsettled](Self::is_unsettled).
    /// One round trip (one fsync on one machine, shared with all that wait).
    ///
    /// # Errors
    /// [`Error::StaleOwner`], [`Error::StaleGroup`], [`Error::TooMany`] and [`Error::Store`]: nothing was stored, nothing
    /// assigned. [`Error::Unsettled`]: this or an earlier append may be in; only [`settle`](Self::settle) goes on.
    pub async fn append(&mut self, entries: Vec<Entry>, group_epoch: Epoch) -> Result<Vec<Appended>> {
        self.may_append(&entries, group_epoch)?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        self.load_recent(&entries).await?;
        let creates = bucket_of(self.tail.last_seq + 1) != self.tail.bucket;
        let before = self.tail.clone();
        let mut after = if creates { before.in_next_bucket() } else { before.clone() };
        let expect = (!creates).then_some((Epoch(before.epoch), before.last_seq));
        let (appended, stored, writes) = self.rows(&mut after, entries);
        after.data.group_epoch = group_epoch.0;
        after.data.last_batch = self.inner.rng.u64();
        if after.last_seq % BUCKET_SEQS == 0 {
            after.data.closed = true;
            after.data.next_days = self.class.days();
        }
        let class = class_of(&self.classes, after.bucket);
        let batch = GuardedBatch {
            table: class.log(),
            partition: self.id.bucket(after.bucket),
            expect,
            guard: after.guard(),
            writes,
            life: class.life(),
            guard_life: class.guard_life(),
        };
        // Pending before the await: a caller that gives up waiting leaves it unsettled, not forgotten.
        self.pending = Some(Pending { before, after, creates, appended, stored });
        match self.inner.store.write(batch).await {
            Ok(Applied::Yes) => Ok(self.accept()),
            Ok(Applied::No(_)) => {
                self.pending = None;
                Err(self.depose())
            }
            Err(rows::Error::Unknown { .. }) => Err(Error::Unsettled),
            Err(e) => {
                self.pending = None;
                Err(e.into())
            }
        }
    }

    /// Finds out what became of an append of unknown outcome: claims the log again, which refuses the append for ever if it
    /// is not in by now, and looks. (Reading is not enough: the write may land after the read.)
    ///
    /// Cancel-safe; repeat until it answers.
    ///
    /// # Errors
    /// [`Error::StaleOwner`]: another owner claimed the log; whether the batch is in, its recovery will tell. [`Error::Store`].
    pub async fn settle(&mut self) -> Result<Settled> {
        self.usable()?;
        let Some(pending) = &self.pending else { return Ok(Settled::NotStored) };
        let base = if pending.creates { pending.before.in_next_bucket() } else { pending.before.clone() };
        let batch_name = pending.after.data.last_batch;
        let claimed = self.raise(base, |_| ()).await?;
        if claimed.data.last_batch == batch_name {
            let appended = self.accept();
            self.tail = claimed;
            return Ok(Settled::Stored(appended));
        }
        self.pending = None;
        self.tail = claimed;
        Ok(Settled::NotStored)
    }

    /// Makes the log refuse every append of a group epoch below `group_epoch`: done by a new owner of the group before it
    /// accepts any command.
    ///
    /// # Errors
    /// [`Error::StaleGroup`] when the log has seen a higher one; [`Error::StaleOwner`], [`Error::Unsettled`], [`Error::Store`].
    pub async fn fence(&mut self, group_epoch: Epoch) -> Result<()> {
        self.may_append(&[], group_epoch)?;
        if self.tail.data.group_epoch == group_epoch.0 {
            return Ok(());
        }
        let raised = |tail: &mut Tail| tail.data.group_epoch = tail.data.group_epoch.max(group_epoch.0);
        self.tail = self.raise(self.open_tail(), raised).await?;
        self.touch(0);
        Ok(())
    }

    /// Goes on `margin` seqs further in a new generation: after a restore from a backup, which may lack messages that
    /// clients have seen. Positions of a lower generation are void.
    ///
    /// # Errors
    /// [`Error::StaleOwner`], [`Error::Unsettled`]; [`Error::Store`]: repeat, which jumps again.
    pub async fn restore(&mut self, margin: u64) -> Result<()> {
        self.may_append(&[], self.group_epoch())?;
        let base = self.open_tail();
        let (after_seq, to_seq) = (base.last_seq, base.last_seq + margin);
        let (generation, next_days) = (base.data.generation + 1, self.class.days());
        let jumped = |tail: &mut Tail| {
            tail.last_seq = to_seq;
            tail.data.generation = generation;
            if bucket_of(to_seq + 1) != tail.bucket {
                tail.data.closed = true;
                tail.data.next_days = next_days;
            }
        };
        self.tail = self.raise(base, jumped).await?;
        if self.tail.data.closed {
            note_class(&mut self.classes, self.tail.bucket + 1, self.tail.data.next_days);
        }
        self.cache.clear();
        self.jumps.push(SeqJump { after_seq, to_seq });
        self.touch(0);
        self.write_head().await
    }

    /// The tail in the bucket that the next message goes to.
    fn open_tail(&self) -> Tail {
        if self.tail.data.closed { self.tail.in_next_bucket() } else { self.tail.clone() }
    }

    fn may_append(&self, entries: &[Entry], group_epoch: Epoch) -> Result<()> {
        self.usable()?;
        if self.pending.is_some() {
            return Err(Error::Unsettled);
        }
        if group_epoch < self.group_epoch() {
            return Err(Error::StaleGroup { theirs: group_epoch, seen: self.group_epoch() });
        }
        let fits = fit(entries, self.last_seq());
        if fits < entries.len() {
            return Err(Error::TooMany { given: entries.len(), fits });
        }
        Ok(())
    }

    /// Claims the bucket of `base` over whatever guard of ours is there; returns what was there, changed, at the epoch
    /// claimed. `change` may be applied to its own outcome.
    async fn raise(&mut self, base: Tail, change: impl Fn(&mut Tail) + Send) -> Result<Tail> {
        let table = class_of(&self.classes, base.bucket).log();
        let partition = self.id.bucket(base.bucket);
        for _ in 0..CLAIMS {
            let found = self.inner.store.guard(table, &partition).await?;
            if found.is_some() && !self.is_mine(table, found.as_ref())? {
                return Err(self.depose());
            }
            let mut tail = match &found {
                Some(guard) => self.tail_of(table, base.bucket, guard)?,
                None => base.clone(),
            };
            tail.epoch = tail.epoch.max(self.tail.epoch) + 1;
            tail.data.claimant = self.claimant;
            change(&mut tail);
            match self.inner.store.write(claim_batch(self.id, &self.classes, found.as_ref(), &tail)).await {
                Ok(Applied::Yes) => {
                    self.confirmed = self.inner.clock.mono();
                    return Ok(tail);
                }
                Ok(Applied::No(_)) | Err(rows::Error::Unknown { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(contended(table).into())
    }

    fn tail_of(&self, table: rows::Table, bucket: u64, guard: &Guard) -> Result<Tail> {
        let data: LogGuard = super::log::decode_guard(table, guard)?;
        Ok(Tail { epoch: guard.epoch.0, bucket, last_seq: guard.rev, data })
    }

    /// The pending batch is in.
    fn accept(&mut self) -> Vec<Appended> {
        let pending = self.pending.take().expect("called with a pending batch");
        self.tail = pending.after;
        self.confirmed = self.inner.clock.mono();
        if self.tail.data.closed {
            note_class(&mut self.classes, self.tail.bucket + 1, self.tail.data.next_days);
        }
        self.head.urgent |= pending.creates;
        self.touch(pending.appended.len() as u64);
        for stored in pending.stored {
            self.cache.push(stored);
        }
        pending.appended
    }

    fn rows(&mut self, tail: &mut Tail, entries: Vec<Entry>) -> (Vec<Appended>, Vec<Stored>, Vec<Write>) {
        let now = self.inner.clock.now().0;
        let mut appended = Vec::with_capacity(entries.len());
        let mut stored = Vec::new();
        let mut writes = Vec::with_capacity(entries.len() * 2);
        for entry in entries {
            let time_ms = self.recent.time_for(&entry, now.max(tail.data.last_time_ms));
            tail.last_seq += 1;
            tail.data.last_time_ms = time_ms;
            tail.data.ord += u64::from(entry.countable);
            if tail.data.first_time_ms == 0 {
                tail.data.first_time_ms = time_ms;
            }
            let (seq, ord) = (tail.last_seq, tail.data.ord);
            let head = head(&entry, time_ms, ord);
            writes.push(Write::Put { clustering: head_key(seq), value: head.encode_to_vec().into() });
            writes.push(Write::Put { clustering: body_key(seq), value: entry.body.clone() });
            appended.push(Appended { seq: Seq(seq), ord, time: UnixMillis(time_ms) });
            if self.cache.is_filled() {
                stored.push(Stored { seq: Seq(seq), head, body: entry.body, revision: None });
            }
        }
        (appended, stored, writes)
    }

    /// Before the first keyed message after activation: the keys that are taken in the second it may fall into.
    async fn load_recent(&mut self, entries: &[Entry]) -> Result<()> {
        let keyed = entries.iter().any(|entry| entry.msg_seq.is_some());
        let second = self.last_time().secs();
        if self.recent.loaded || !keyed {
            return Ok(());
        }
        if self.last_seq().0 > 0 && self.inner.clock.now().secs() <= second {
            let heads = self.recover(UnixMillis::from_secs(second), BUCKET_SEQS as usize).await?;
            self.recent.second = second;
            let keys = heads.into_iter().filter_map(|(_, head)| head.msg_seq.map(|seq| (seq, head.random)));
            self.recent.keys.extend(keys);
        }
        self.recent.loaded = true;
        Ok(())
    }
}

impl super::log::RecentKeys {
    /// Server time for a message: `at_least`, or the next second when its public key (caller's seq, random, second) is
    /// taken. A batch that fails leaves its keys behind, which at worst gives its repeat the next second.
    fn time_for(&mut self, entry: &Entry, at_least: u64) -> u64 {
        let Some(msg_seq) = entry.msg_seq else { return at_least };
        let key = (msg_seq, entry.random);
        let mut time_ms = at_least;
        if time_ms / 1000 == self.second && self.keys.contains(&key) {
            time_ms = (self.second + 1) * 1000;
        }
        if time_ms / 1000 != self.second {
            self.second = time_ms / 1000;
            self.keys.clear();
        }
        self.keys.insert(key);
        time_ms
    }
}

fn head(entry: &Entry, time_ms: u64, ord: u64) -> MessageHead {
    MessageHead {
        sender: entry.sender.as_str().to_owned(),
        random: entry.random,
        msg_seq: entry.msg_seq,
        msg_seq_filled: entry.msg_seq_filled,
        content_hash: entry.content_hash,
        time_ms,
        flags: entry.flags,
        ord,
        countable: entry.countable,
        size: u32::try_from(entry.body.len()).unwrap_or(u32::MAX),
        visibility: entry.visibility.clone(),
        kind: entry.kind.into(),
        priority: entry.priority,
    }
}
