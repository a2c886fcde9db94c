//! The one writer: takes everything that waits, checks every condition, and commits it all with one fsync.
//!
//! The engine does not merge commits by itself; callers that each sync were measured nine times slower. A commit is made
//! of final states (one per key), since the engine cannot hold two writes of one key in one batch.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode};
use linnet_runtime::Clock;
use linnet_types::UnixMillis;
use tokio::sync::{mpsc, oneshot};

use super::envelope::{self, MAX_KEY};
use super::metrics::StoreMetrics;
use super::space::Space;
use crate::rows::{Applied, Error, Guard, GuardedBatch, Kind, PlainBatch, Result, Table, Write};

/// Requests waiting at most (of 48 KB at most, from logs); beyond it, writers wait for a place.
pub(super) const QUEUE: usize = 1024;
/// One commit takes at most about this many bytes, so that a burst does not make its first writer wait for its last.
const COMMIT_BYTES: usize = 4 << 20;

pub(super) enum Request {
    Guarded(GuardedBatch, oneshot::Sender<Result<Applied>>),
    Plain(PlainBatch, oneshot::Sender<Result<()>>),
    /// Keys found expired; looked at again before they go.
    Sweep(Vec<Bytes>),
}

/// An answer that is sent once its commit is durable.
enum Answer {
    Guarded(oneshot::Sender<Result<Applied>>, Table),
    Plain(oneshot::Sender<Result<()>>, Table),
}

pub(super) struct Committer {
    pub(super) db: Database,
    pub(super) rows: Keyspace,
    pub(super) clock: Clock,
    pub(super) metrics: StoreMetrics,
    pub(super) space: Space,
}

#[derive(Default)]
struct Staged {
    /// Sealed value per engine key; `None` removes.
    states: HashMap<Bytes, Option<Bytes>>,
    /// Guards as they will be, for conditions later in the same commit.
    guards: HashMap<Bytes, Guard>,
    answers: Vec<Answer>,
    bytes: usize,
}

impl Committer {
    /// Runs until every sender is gone. On its own thread: it blocks.
    pub(super) fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(QUEUE);
        while requests.blocking_recv_many(&mut waiting, QUEUE) > 0 {
            let mut staged = Staged::default();
            let mut queue = std::mem::take(&mut waiting).into_iter();
            for request in queue.by_ref() {
                self.stage(&mut staged, request);
                if staged.bytes >= COMMIT_BYTES {
                    self.commit(std::mem::take(&mut staged));
                }
            }
            self.commit(staged);
        }
    }

    fn stage(&self, staged: &mut Staged, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Guarded(batch, reply) => match self.stage_guarded(staged, &batch, now) {
                Ok(Applied::Yes) => staged.answers.push(Answer::Guarded(reply, batch.table)),
                refused => drop(reply.send(refused)),
            },
            Request::Plain(batch, reply) => match stage_plain(staged, &batch, now) {
                Ok(()) => staged.answers.push(Answer::Plain(reply, batch.table)),
                refused => drop(reply.send(refused)),
            },
            Request::Sweep(keys) => {
                for key in keys {
                    self.stage_sweep(staged, key, now);
                }
            }
        }
    }

    fn stage_guarded(&self, staged: &mut Staged, batch: &GuardedBatch, now: UnixMillis) -> Result<Applied> {
        let table = batch.table;
        if table.kind != Kind::Guarded {
            return Err(misuse(table, "a guarded batch on a plain table"));
        }
        let guard_key = envelope::guard_key(table, &batch.partition);
        check_keys(table, &batch.partition, batch.writes.iter())?;
        let found = match staged.guards.get(&guard_key) {
            Some(guard) => Some(guard.clone()),
            None => read_guard(&self.rows, table, &guard_key, now)?,
        };
        if found.as_ref().map(|guard| (guard.epoch, guard.rev)) != batch.expect {
            self.metrics.refused.inc();
            return Ok(Applied::No(found));
        }
        let expires = envelope::expiry(now, batch.guard_life);
        staged.put(guard_key.clone(), expires, &envelope::encode_guard(&batch.guard));
        staged.guards.insert(guard_key, batch.guard.clone());
        let expires = envelope::expiry(now, batch.life);
        for write in &batch.writes {
            staged.write(table, &batch.partition, write, expires);
        }
        Ok(Applied::Yes)
    }

    fn stage_sweep(&self, staged: &mut Staged, key: Bytes, now: UnixMillis) {
        if staged.states.contains_key(&key) {
            return;
        }
        let expired = matches!(self.rows.get(&key), Ok(Some(value)) if envelope::may_drop(&value, now));
        if expired {
            self.metrics.swept.inc();
            staged.states.insert(key, None);
        }
    }

    fn commit(&self, staged: Staged) {
        if staged.states.is_empty() {
            return;
        }
        let outcome = match self.space.check() {
            Ok(()) => self.write(&staged),
            Err(full) => Err(Failure::NotDone(full)),
        };
        self.metrics.requests_per_commit.observe(staged.answers.len() as f64);
        for answer in staged.answers {
            match answer {
                Answer::Guarded(reply, table) => drop(reply.send(failed(&outcome, table).map(|()| Applied::Yes))),
                Answer::Plain(reply, table) => drop(reply.send(failed(&outcome, table))),
            }
        }
    }

    fn write(&self, staged: &Staged) -> std::result::Result<(), Failure> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in &staged.states {
            match value {
                Some(value) => batch.insert(&self.rows, key.clone(), value.clone()),
                None => batch.remove(&self.rows, key.clone()),
            }
        }
        let started = self.clock.mono();
        let result = batch.commit();
        self.metrics.commit_seconds.observe(self.clock.mono().saturating_sub(started).as_secs_f64());
        match result {
            Ok(()) => {
                self.metrics.commits.inc();
                self.metrics.bytes.inc_by(staged.bytes as u64);
                Ok(())
            }
            // The engine writes nothing more after a failed write or sync, as nobody can say what is on the disk.
            Err(fjall::Error::Poisoned) => {
                Err(Failure::NotDone("an earlier write failed; restart to recover what is on the disk".to_owned()))
            }
            Err(e) => {
                tracing::error!(error = %e, "a commit failed; the store takes no more writes until it is opened again");
                self.metrics.stopped.set(1);
                Err(Failure::Unknown(e.to_string()))
            }
        }
    }
}

enum Failure {
    NotDone(String),
    Unknown(String),
}

fn failed(outcome: &std::result::Result<(), Failure>, table: Table) -> Result<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(Failure::NotDone(why)) => Err(Error::Unavailable { table: table.name, why: why.clone() }),
        Err(Failure::Unknown(why)) => Err(Error::Unknown { table: table.name, why: why.clone() }),
    }
}

impl Staged {
    fn put(&mut self, key: Bytes, expires: u64, data: &[u8]) {
        let sealed = envelope::seal(&key, expires, data);
        self.bytes += key.len() + sealed.len();
        self.states.insert(key, Some(sealed));
    }

    fn write(&mut self, table: Table, partition: &[u8], write: &Write, expires: u64) {
        match write {
            Write::Put { clustering, value } => {
                self.put(envelope::row_key(table, partition, clustering), expires, value);
            }
            Write::Delete { clustering } => {
                let key = envelope::row_key(table, partition, clustering);
                self.bytes += key.len();
                self.states.insert(key, None);
            }
        }
    }
}

fn stage_plain(staged: &mut Staged, batch: &PlainBatch, now: UnixMillis) -> Result<()> {
    if batch.table.kind != Kind::Plain {
        return Err(misuse(batch.table, "a plain batch on a guarded table"));
    }
    for (partition, write) in &batch.writes {
        check_keys(batch.table, partition, std::iter::once(write))?;
    }
    let expires = envelope::expiry(now, batch.life);
    for (partition, write) in &batch.writes {
        staged.write(batch.table, partition, write, expires);
    }
    Ok(())
}

fn check_keys<'a>(table: Table, partition: &[u8], mut writes: impl Iterator<Item = &'a Write>) -> Result<()> {
    let prefix = envelope::clustering_at(table, partition);
    let long = writes.any(|write| {
        let (Write::Put { clustering, .. } | Write::Delete { clustering }) = write;
        prefix + clustering.len() > MAX_KEY
    });
    if long || prefix > MAX_KEY { Err(misuse(table, "a key of over 60,000 bytes")) } else { Ok(()) }
}

fn misuse(table: Table, why: &str) -> Error {
    Error::Unavailable { table: table.name, why: why.to_owned() }
}

/// Reads a live guard.
pub(super) fn read_guard(rows: &Keyspace, table: Table, guard_key: &[u8], now: UnixMillis) -> Result<Option<Guard>> {
    let Some(sealed) = rows.get(guard_key).map_err(|e| read_error(table, &e))? else { return Ok(None) };
    let Some(data) = envelope::unseal(table.name, guard_key, &sealed.into(), now)? else { return Ok(None) };
    envelope::decode_guard(table.name, &data).map(Some)
}

/// A failed read: damage, or a disk that does not answer.
pub(super) fn read_error(table: Table, error: &fjall::Error) -> Error {
    match error {
        fjall::Error::Io(e) => Error::Unavailable { table: table.name, why: e.to_string() },
        fjall::Error::Storage(fjall::LsmError::Io(e)) => Error::Unavailable { table: table.name, why: e.to_string() },
        damage => Error::Corrupt { table: table.name, why: damage.to_string() },
    }
}

/// How long a thread waits before it looks again whether it should end.
pub(super) const TICK: Duration = Duration::from_millis(200);
