//! The narrow port every backend implements: rows in partitions, conditional batches on a partition's guard.
//!
//! A row is (table, partition, clustering, value). Values are versioned protobuf that a backend never looks into.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_types::Epoch;

/// A handle to the store; cheap to clone.
pub type Store = Arc<dyn Rows>;

/// What can go wrong below an aggregate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The write may or may not be there, now or later. Settle it by claiming the partition (a higher epoch).
    #[error("outcome of a write to {table} is unknown: {why}")]
    Unknown {
        /// Table.
        table: &'static str,
        /// Cause, for the log.
        why: String,
    },
    /// Nothing was done; the caller may retry.
    #[error("{table} is unavailable: {why}")]
    Unavailable {
        /// Table.
        table: &'static str,
        /// Cause, for the log.
        why: String,
    },
    /// The partition was claimed by someone else, or our hold on it is in doubt: drop what is in memory and claim again.
    #[error("{table} is held by epoch {theirs}, not by {ours}")]
    Stale {
        /// Table.
        table: &'static str,
        /// The epoch we wrote with.
        ours: Epoch,
        /// The epoch found.
        theirs: Epoch,
    },
    /// Stored bytes that cannot be read back. Never retried.
    #[error("corrupt row in {table}: {why}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// What was wrong.
        why: String,
    },
    /// The store did not open: damaged, locked by another process, or not reachable.
    #[error("cannot open the store at {path}: {why}")]
    Open {
        /// The folder, or the file that is damaged.
        path: String,
        /// Cause.
        why: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// How rows of a table may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every write is one [`GuardedBatch`].
    Guarded,
    /// Every write is a [`PlainBatch`]: last writer wins, repeatable.
    Plain,
}

/// One table. Declared as a constant beside the aggregate that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name, also of the keyspace or CQL table.
    pub name: &'static str,
    /// Write rule.
    pub kind: Kind,
}

/// How long a row is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until deleted.
    Forever,
    /// Gone after this long; a backend hides the row from then on and frees the space when it likes.
    For(Duration),
}

/// The static columns of a guarded partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The owner's fencing number.
    pub epoch: Epoch,
    /// Advanced by every write; in a log the last seq.
    pub rev: u64,
    /// The aggregate's own counters, protobuf.
    pub data: Bytes,
}

/// One row change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Inserts or replaces.
    Put {
        /// Clustering key; rows of a partition sort by its bytes.
        clustering: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Removes; absent is fine.
    Delete {
        /// Clustering key.
        clustering: Bytes,
    },
}

/// A conditional batch in one guarded partition: applied as a whole if the stored guard is as expected, else refused as
/// a whole. Always writes the guard.
#[derive(Clone, Debug)]
pub struct GuardedBatch {
    /// A guarded table.
    pub table: Table,
    /// Partition key.
    pub partition: Bytes,
    /// `None`: the partition must not exist. `Some((epoch, rev))`: its guard must hold exactly these.
    pub expect: Option<(Epoch, u64)>,
    /// The guard afterwards; `rev` must differ from the expected one or the epoch must rise.
    pub guard: Guard,
    /// Row changes, in any order; at most one per clustering key.
    pub writes: Vec<Write>,
    /// Life of the rows written.
    pub life: Life,
    /// Life of the guard: at least that of the rows, and rewritten with every batch, so an active partition's guard
    /// never expires under it.
    pub guard_life: Life,
}

/// The largest conditional batch every backend takes: Cassandra's `batch_size_fail_threshold`. Aggregates stay below it.
pub const MAX_BATCH_BYTES: usize = 50 << 10;
/// What a row costs in a batch beside its keys and value, about.
const ROW_OVERHEAD: usize = 32;

impl GuardedBatch {
    /// About what it takes on its way to a server, where every row names its partition.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let row = self.partition.len() + ROW_OVERHEAD;
        let writes = self.writes.iter().map(|write| match write {
            Write::Put { clustering, value } => clustering.len() + value.len() + row,
            Write::Delete { clustering } => clustering.len() + row,
        });
        self.guard.data.len() + row + writes.sum::<usize>()
    }
}

/// Outcome of a conditional batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All of it is durable.
    Yes,
    /// None of it is, nor ever will be; this is the guard that stood in the way.
    No(Option<Guard>),
}

impl Applied {
    /// Whether the batch was applied.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// Unconditional writes, possibly in several plain partitions; idempotent, so an unknown outcome is settled by repeating.
#[derive(Clone, Debug)]
pub struct PlainBatch {
    /// A plain table.
    pub table: Table,
    /// (partition, change).
    pub writes: Vec<(Bytes, Write)>,
    /// Life of the rows written.
    pub life: Life,
}

/// One row read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Clustering key.
    pub clustering: Bytes,
    /// Value.
    pub value: Bytes,
}

/// Which rows of a partition a scan returns.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// First clustering key, inclusive; `None` = from the start.
    pub from: Option<Bytes>,
    /// Last clustering key, exclusive; `None` = to the end.
    pub to: Option<Bytes>,
    /// Largest key first.
    pub descending: bool,
    /// Most rows; 0 = all.
    pub limit: usize,
}

/// The port. Implementations: `fjall` (one machine), `sim` (three replicas by seed), CQL (cluster).
///
/// Reads of a guarded partition see every batch answered [`Applied::Yes`] before the read began (serial consistency for
/// [`guard`](Self::guard); rows at quorum).
#[async_trait]
pub trait Rows: Send + Sync + 'static {
    /// Reads the guard at serial consistency.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>>;

    /// Reads one row.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>>;

    /// Reads a range of rows of one partition.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>>;

    /// Writes one conditional batch; returns when it is durable.
    ///
    /// # Errors
    /// [`Error::Unknown`]: it may be applied now, later or never, until the partition is claimed. [`Error::Unavailable`]:
    /// it was not applied and never will be.
    async fn write(&self, batch: GuardedBatch) -> Result<Applied>;

    /// Writes plain rows; returns when they are durable.
    ///
    /// # Errors
    /// [`Error::Unknown`] and [`Error::Unavailable`] alike mean: repeat.
    async fn put(&self, batch: PlainBatch) -> Result<()>;

    /// Partition keys of a table, each once, those after `after` in an order that stays the same, at most `limit`; for
    /// `inspect`, recovery and export, never on a request path. The order is that of the keys where
    /// [`in_key_order`](Self::in_key_order) says so, else the backend's own (CQL: of the keys' tokens).
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>>;

    /// Whether [`partitions`](Self::partitions) go by the order of their keys: then all with one beginning are neighbours.
    fn in_key_order(&self) -> bool {
        true
    }
}
