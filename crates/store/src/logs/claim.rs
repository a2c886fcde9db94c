//! Activation: finds the tail of a log and claims it by raising its epoch.

use std::collections::VecDeque;

use linnet_proto::store::{ClassSpan, LogGuard, LogHead, LogOrigin};
use linnet_types::Epoch;
use prost::Message;

use super::cache::TailCache;
use super::head::{HeadRows, load_head};
use super::log::{HeadState, Log, Opening, RecentKeys, Tail, decode_guard};
use super::tables::{Class, LOG_ORIGIN, LogId, bucket_of, class_of, note_class};
use super::{Inner, Logs, Result};
use crate::rows::{self, Applied, Guard, GuardedBatch, Life};

/// Claims lost in a row before activation gives up: somebody else wants the log more.
const CLAIMS: u32 = 16;

/// Where the tail of a log is, before it is claimed.
struct Found {
    /// The guard of the tail's bucket, if it is there.
    guard: Option<Guard>,
    /// The larger of guard and what was known before.
    tail: Tail,
}

impl Logs {
    /// Claims a log for this node: raises its epoch, notes it in `log_head` and `open_logs`.
    ///
    /// Three round trips for a log that exists, four for a new one. Whoever owned it before finds its next write refused.
    /// Cancel-safe: an epoch raised for nothing does no harm.
    ///
    /// # Errors
    /// [`super::Error::Store`]: the store did not answer, or others kept claiming the log.
    pub async fn open(&self, opening: Opening) -> Result<Log> {
        let Opening { id, class, route } = opening;
        let HeadRows { head, epochs } = load_head(&self.inner.store, id).await?;
        let is_new = head.is_none();
        let head = head.unwrap_or_default();
        let mut classes = head.classes.clone();
        if is_new {
            classes = vec![ClassSpan { from_bucket: 0, days: origin(&self.inner, id, class).await?.days() }];
        }
        let claimant = self.inner.rng.u64();
        let tail = claim(&self.inner, id, &head, &mut classes, claimant).await?;
        let mut log = Log {
            inner: self.inner.clone(),
            id,
            class,
            route,
            claimant,
            open_epoch: tail.epoch,
            tail,
            classes,
            jumps: head.jumps,
            first_seq: head.first_seq.max(1),
            floor: head.floor,
            cursor: head.cursor,
            revoked: VecDeque::from(head.revoked),
            head: HeadState { old_epochs: epochs, ..HeadState::default() },
            recent: RecentKeys::default(),
            cache: TailCache::default(),
            pending: None,
            stale: false,
            confirmed: self.inner.clock.mono(),
        };
        let noted = super::open::note(&self.inner, id, log.open_row());
        let (written, noted) = futures::join!(log.write_head(), noted);
        written?;
        noted?;
        Ok(log)
    }
}

/// Decides, once for all, in which class a conversation begins.
async fn origin(inner: &Inner, id: LogId, wanted: Class) -> Result<Class> {
    let decode = |guard: &Guard| {
        let corrupt = |e: prost::DecodeError| rows::Error::Corrupt { table: LOG_ORIGIN.name, why: e.to_string() };
        LogOrigin::decode(&guard.data[..]).map(|origin| Class::for_days(origin.days)).map_err(corrupt)
    };
    let data = LogOrigin { days: wanted.days() }.encode_to_vec().into();
    let batch = GuardedBatch {
        table: LOG_ORIGIN,
        partition: id.partition(),
        expect: None,
        guard: Guard { epoch: Epoch(1), rev: 1, data },
        writes: Vec::new(),
        life: Life::Forever,
        guard_life: Life::Forever,
    };
    for _ in 0..CLAIMS {
        match inner.store.write(batch.clone()).await {
            Ok(Applied::Yes) => return Ok(wanted),
            Ok(Applied::No(Some(guard))) => return Ok(decode(&guard)?),
            // Written again until it is there: whichever of the attempts landed, there is only ever one.
            Ok(Applied::No(None)) | Err(rows::Error::Unknown { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(contended(LOG_ORIGIN).into())
}

async fn claim(inner: &Inner, id: LogId, head: &LogHead, classes: &mut Vec<ClassSpan>, claimant: u64) -> Result<Tail> {
    let mut known = from_head(head);
    for _ in 0..CLAIMS {
        let found = find(inner, id, known.clone(), classes).await?;
        known = found.tail.clone();
        let mut tail = found.tail;
        tail.epoch += 1;
        tail.data.claimant = claimant;
        let batch = claim_batch(id, classes, found.guard.as_ref(), &tail);
        match inner.store.write(batch).await {
            Ok(Applied::Yes) => return Ok(tail),
            // An own claim of unknown outcome is like anybody's: the next one goes above it.
            Ok(Applied::No(_)) | Err(rows::Error::Unknown { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(contended(class_of(classes, known.bucket).log()).into())
}

fn from_head(head: &LogHead) -> Tail {
    let data = LogGuard {
        ord: head.ord,
        last_time_ms: head.last_time_ms,
        group_epoch: head.group_epoch,
        generation: head.generation,
        ..LogGuard::default()
    };
    Tail { epoch: head.epoch, bucket: head.bucket, last_seq: head.last_seq, data }
}

/// Follows closed buckets from what is known to the tail.
async fn find(inner: &Inner, id: LogId, known: Tail, classes: &mut Vec<ClassSpan>) -> Result<Found> {
    let mut tail = known;
    // The last bucket was full when `log_head` was written.
    if bucket_of(tail.last_seq + 1) > tail.bucket {
        tail = tail.in_next_bucket();
    }
    let mut guard = read(inner, id, classes, tail.bucket).await?;
    if guard.is_none() && tail.last_seq > 0 {
        // The bucket `log_head` names has expired; the one after it, perhaps of a longer class, may not have.
        for class in Class::ALL {
            let next = inner.store.guard(class.log(), &id.bucket(tail.bucket + 1)).await?;
            if next.is_some() {
                tail.bucket += 1;
                note_class(classes, tail.bucket, class.days());
                guard = next;
                break;
            }
        }
    }
    while let Some(found) = &guard {
        tail = larger(&tail, class_of(classes, tail.bucket).log(), found)?;
        if !tail.data.closed {
            break;
        }
        note_class(classes, tail.bucket + 1, tail.data.next_days);
        tail = tail.in_next_bucket();
        guard = read(inner, id, classes, tail.bucket).await?;
    }
    Ok(Found { guard, tail })
}

async fn read(inner: &Inner, id: LogId, classes: &[ClassSpan], bucket: u64) -> Result<Option<Guard>> {
    Ok(inner.store.guard(class_of(classes, bucket).log(), &id.bucket(bucket)).await?)
}

/// The tail by its guard, and never less than what was known: a guard can have been made anew after it expired.
fn larger(known: &Tail, table: rows::Table, guard: &Guard) -> rows::Result<Tail> {
    let data = decode_guard(table, guard)?;
    Ok(Tail {
        epoch: known.epoch.max(guard.epoch.0),
        bucket: known.bucket,
        last_seq: known.last_seq.max(guard.rev),
        data: LogGuard {
            ord: known.data.ord.max(data.ord),
            last_time_ms: known.data.last_time_ms.max(data.last_time_ms),
            group_epoch: known.data.group_epoch.max(data.group_epoch),
            generation: known.data.generation.max(data.generation),
            ..data
        },
    })
}

/// Writes only the guard, over `found`.
pub(super) fn claim_batch(id: LogId, classes: &[ClassSpan], found: Option<&Guard>, tail: &Tail) -> GuardedBatch {
    let class = class_of(classes, tail.bucket);
    GuardedBatch {
        table: class.log(),
        partition: id.bucket(tail.bucket),
        expect: found.map(|guard| (guard.epoch, guard.rev)),
        guard: tail.guard(),
        writes: Vec::new(),
        life: class.life(),
        guard_life: class.guard_life(),
    }
}

/// Nobody won for a long time.
pub(super) fn contended(table: rows::Table) -> rows::Error {
    rows::Error::Unavailable { table: table.name, why: "others keep claiming it".to_owned() }
}
