//! Three simulated replicas: the faults a quorum store shows its clients, chosen by a seed. For tests.
//!
//! What it models, each counted in [`Counts`] so that a test can demand that it struck:
//!
//! - a write whose caller hears "unknown" and that was decided all the same; was lost; waits on one replica until some
//!   later operation finishes it; or **lands later, even after a serial read that did not see it**;
//! - an operation that was not done at all ([`Error::Unavailable`]);
//! - rows that have reached only one or two replicas, so that a quorum read meets a stale one.
//!
//! Runs under tokio's paused clock; the same seed and the same order of calls give the same faults.

mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use parking_lot::Mutex;

use crate::rows::{
    Applied, Error, Guard, GuardedBatch, Kind, MAX_BATCH_BYTES, PlainBatch, Range, Result, Row, Rows, Store, Table,
};
use state::State;

/// How often each fault strikes, in a thousand operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// An operation is not done, and its caller knows.
    pub unavailable_per_mille: u32,
    /// A write's caller does not learn the outcome.
    pub unknown_per_mille: u32,
    /// One replica hears of a write only later.
    pub lag_per_mille: u32,
    /// An operation takes up to this long each way.
    pub latency: Duration,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bad day: something goes wrong about every fifth time.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            unavailable_per_mille: 50,
            unknown_per_mille: 150,
            lag_per_mille: 400,
            latency: Duration::from_millis(4),
        }
    }
}

/// How often each kind of fault has struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations not done.
    pub unavailable: u64,
    /// Unknown to the caller, and decided.
    pub unknown_applied: u64,
    /// Unknown to the caller, and refused.
    pub unknown_refused: u64,
    /// Unknown to the caller, and gone.
    pub unknown_lost: u64,
    /// Unknown to the caller, and applied later.
    pub late_landed: u64,
    /// As before, though a serial read between the two had not seen it.
    pub late_landed_after_read: u64,
    /// Unknown to the caller; when it came, its condition no longer held.
    pub late_refused: u64,
    /// Accepted by one replica, and finished by a later operation.
    pub minority_finished: u64,
    /// Accepted by one replica, and overtaken.
    pub minority_dropped: u64,
    /// Writes that did not reach every replica at once.
    pub partial_write: u64,
    /// Reads that met a replica without the newest rows.
    pub stale_replica_read: u64,
}

impl Counts {
    /// Adds up the counts of several runs.
    pub fn add(&mut self, other: &Self) {
        let Self {
            unavailable,
            unknown_applied,
            unknown_refused,
            unknown_lost,
            late_landed,
            late_landed_after_read,
            late_refused,
            minority_finished,
            minority_dropped,
            partial_write,
            stale_replica_read,
        } = other;
        self.unavailable += unavailable;
        self.unknown_applied += unknown_applied;
        self.unknown_refused += unknown_refused;
        self.unknown_lost += unknown_lost;
        self.late_landed += late_landed;
        self.late_landed_after_read += late_landed_after_read;
        self.late_refused += late_refused;
        self.minority_finished += minority_finished;
        self.minority_dropped += minority_dropped;
        self.partial_write += partial_write;
        self.stale_replica_read += stale_replica_read;
    }

    /// The kinds that never struck: a simulation that ends with any of them has not tested what it claims.
    #[must_use]
    pub fn never_struck(&self) -> Vec<&'static str> {
        let kinds = [
            ("unavailable", self.unavailable),
            ("unknown_applied", self.unknown_applied),
            ("unknown_refused", self.unknown_refused),
            ("unknown_lost", self.unknown_lost),
            ("late_landed", self.late_landed),
            ("late_landed_after_read", self.late_landed_after_read),
            ("late_refused", self.late_refused),
            ("minority_finished", self.minority_finished),
            ("minority_dropped", self.minority_dropped),
            ("partial_write", self.partial_write),
            ("stale_replica_read", self.stale_replica_read),
        ];
        kinds.into_iter().filter(|(_, count)| *count == 0).map(|(kind, _)| kind).collect()
    }
}

/// The simulated store; clones share it.
#[derive(Clone)]
pub struct SimRows {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl SimRows {
    /// An empty store; `rng` decides every fault.
    #[must_use]
    pub fn new(rng: Rng, clock: Clock, faults: Faults) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(rng, faults))), clock }
    }

    /// The handle aggregates take.
    #[must_use]
    pub fn store(&self) -> Store {
        Arc::new(self.clone())
    }

    /// Changes how often faults strike from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// While down, no operation is done.
    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// How often each fault has struck.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// The way to the replicas or back.
    async fn travel(&self) {
        let latency = {
            let state = self.state.lock();
            let most = u64::try_from(state.faults.latency.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(state.rng.below(most))
        };
        if latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(latency).await;
        }
    }

    async fn perform<T>(&self, table: Table, operation: impl FnOnce(&mut State) -> Result<T> + Send) -> Result<T> {
        self.travel().await;
        let result = {
            let mut state = self.state.lock();
            state.step();
            if state.down || state.roll(state.faults.unavailable_per_mille) {
                state.counts.unavailable += 1;
                Err(Error::Unavailable { table: table.name, why: "simulated".to_owned() })
            } else {
                operation(&mut state)
            }
        };
        self.travel().await;
        result
    }
}

fn unknown(table: Table) -> Error {
    Error::Unknown { table: table.name, why: "simulated".to_owned() }
}

fn place(table: Table, partition: &[u8]) -> (&'static str, Bytes) {
    (table.name, Bytes::copy_from_slice(partition))
}

#[async_trait]
impl Rows for SimRows {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.perform(table, |state| Ok(state.serial_read(&place(table, partition), self.clock.now()))).await
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        let range = Range {
            from: Some(Bytes::copy_from_slice(clustering)),
            to: Some(crate::keys::after(clustering)),
            descending: false,
            limit: 1,
        };
        let rows = self.scan(table, partition, range).await?;
        Ok(rows.into_iter().next().map(|row| row.value))
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.perform(table, |state| Ok(state.rows(&place(table, partition), &range, self.clock.now()))).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        let table = batch.table;
        assert_eq!(table.kind, Kind::Guarded, "a guarded batch on {}", table.name);
        assert!(batch.bytes() <= MAX_BATCH_BYTES, "a batch of {} bytes on {}", batch.bytes(), table.name);
        self.perform(table, move |state| {
            let now = self.clock.now();
            if !state.roll(state.faults.unknown_per_mille) {
                return Ok(match state.conditional(&batch, now, true) {
                    Ok(()) => Applied::Yes,
                    Err(found) => Applied::No(found),
                });
            }
            if state.rng.chance(50) {
                state.leave_undecided(batch, now);
            } else if state.conditional(&batch, now, false).is_ok() {
                state.counts.unknown_applied += 1;
            } else {
                state.counts.unknown_refused += 1;
            }
            Err(unknown(table))
        })
        .await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        let table = batch.table;
        assert_eq!(table.kind, Kind::Plain, "a plain batch on {}", table.name);
        self.perform(table, move |state| {
            let told = !state.roll(state.faults.unknown_per_mille);
            state.plain(&batch, self.clock.now(), told);
            if told { Ok(()) } else { Err(unknown(table)) }
        })
        .await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.perform(table, |state| Ok(state.partitions(table.name, after, limit, self.clock.now()))).await
    }
}
