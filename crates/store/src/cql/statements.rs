//! The statements a table is read and written with, prepared once.
//!
//! A guarded table has the guard in static columns of the partition it guards:
//!
//! ```text
//! (partition blob, clustering blob, value blob, epoch bigint static, rev bigint static, data blob static)
//! ```
//!
//! A plain one has the first three. Servers refuse an empty partition key, so every key begins with a byte of ours.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use scylla::client::session::Session;
use scylla::cluster::metadata::ColumnType;
use scylla::serialize::SerializationError;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::errors::{corrupt, unavailable};
use super::lanes::{Lane, Lanes};
use crate::rows::{Kind, Life, Result, Table};

/// Rows fetched at a time.
pub(super) const PAGE_ROWS: i32 = 1000;
/// First byte of every partition key: says how the rest is written.
const KEY_VERSION: u8 = 1;

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// The guard of a partition.
    Guard,
    /// One value.
    Get,
    /// A range of rows.
    Scan { bounded: bool, descending: bool },
    /// Sets a guard that is there, if it is as expected.
    Advance,
    /// Sets a guard where there is none: a new partition, or one whose guard has expired.
    Create,
    /// Inserts or replaces a row.
    Put,
    /// Removes a row.
    Delete,
    /// Partition keys of the table.
    Partitions { after: bool },
}

impl Form {
    pub(super) const GUARDED: [Self; 3] = [Self::Guard, Self::Advance, Self::Create];
    pub(super) const ALL: [Self; 8] = [
        Self::Get,
        Self::Put,
        Self::Delete,
        Self::Scan { bounded: false, descending: false },
        Self::Scan { bounded: false, descending: true },
        Self::Scan { bounded: true, descending: false },
        Self::Scan { bounded: true, descending: true },
        Self::Partitions { after: true },
    ];

    fn cql(self, table: &str) -> String {
        match self {
            Self::Guard => format!("SELECT DISTINCT epoch, rev, data FROM {table} WHERE partition = ?"),
            Self::Get => format!("SELECT value FROM {table} WHERE partition = ? AND clustering = ?"),
            Self::Scan { bounded, descending } => format!(
                "SELECT clustering, value FROM {table} WHERE partition = ? AND clustering >= ?{}{} LIMIT ?",
                if bounded { " AND clustering < ?" } else { "" },
                if descending { " ORDER BY clustering DESC" } else { "" },
            ),
            Self::Advance => format!(
                "UPDATE {table} USING TTL ? SET epoch = ?, rev = ?, data = ? WHERE partition = ? IF epoch = ? AND rev = ?"
            ),
            Self::Create => format!(
                "UPDATE {table} USING TTL ? SET epoch = ?, rev = ?, data = ? WHERE partition = ? IF epoch = null AND rev = null"
            ),
            Self::Put => format!("INSERT INTO {table} (partition, clustering, value) VALUES (?, ?, ?) USING TTL ?"),
            Self::Delete => format!("DELETE FROM {table} WHERE partition = ? AND clustering = ?"),
            Self::Partitions { after } => {
                let beyond = if after { " WHERE token(partition) > token(?)" } else { "" };
                format!("SELECT DISTINCT partition FROM {table}{beyond} LIMIT ?")
            }
        }
    }

    fn lane(self, kind: Kind, lanes: &Lanes) -> &Lane {
        match (self, kind) {
            (Self::Guard, _) => &lanes.serial,
            (Self::Get | Self::Scan { .. }, _) => &lanes.page,
            (Self::Put | Self::Delete, Kind::Plain) => &lanes.plain,
            (Self::Put | Self::Delete | Self::Advance | Self::Create, _) => &lanes.guarded,
            (Self::Partitions { .. }, _) => &lanes.scan,
        }
    }

    /// Whether doing it twice is doing it once.
    fn repeatable(self, kind: Kind) -> bool {
        match self {
            Self::Guard | Self::Get | Self::Scan { .. } | Self::Partitions { .. } => true,
            Self::Put | Self::Delete => kind == Kind::Plain,
            Self::Advance | Self::Create => false,
        }
    }
}

/// Prepared statements by table and form.
pub(super) struct Statements {
    keyspace: String,
    timeout: Duration,
    known: RwLock<HashMap<(&'static str, Form), PreparedStatement>>,
}

impl Statements {
    pub(super) fn new(keyspace: &str, timeout: Duration) -> Self {
        Self { keyspace: keyspace.to_owned(), timeout, known: RwLock::default() }
    }

    /// The statement, prepared now if it is not yet.
    pub(super) async fn get(
        &self,
        session: &Session,
        lanes: &Lanes,
        table: Table,
        form: Form,
    ) -> Result<PreparedStatement> {
        if let Some(known) = self.known.read().get(&(table.name, form)) {
            return Ok(known.clone());
        }
        let cql = form.cql(&format!("{}.\"{}\"", self.keyspace, table.name));
        let statement = Statement::new(cql).with_page_size(PAGE_ROWS);
        // Bounded by us: the driver waits for every server, however long one takes.
        let prepared = tokio::time::timeout(self.timeout, session.prepare(statement)).await;
        let prepared = prepared.map_err(|_| unavailable(table, "a statement could not be prepared in time"))?;
        let mut prepared = prepared.map_err(|error| unavailable(table, error))?;
        prepared.set_is_idempotent(form.repeatable(table.kind));
        prepared.set_execution_profile_handle(Some(form.lane(table.kind, lanes).profile.clone()));
        self.known.write().insert((table.name, form), prepared.clone());
        Ok(prepared)
    }
}

/// One bound value. Owned, because borrowed ones make the driver's futures hard to send between threads.
pub(super) enum Value {
    Blob(Bytes),
    Big(i64),
    Int(i32),
}

impl SerializeValue for Value {
    fn serialize<'b>(
        &self,
        kind: &ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> std::result::Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Blob(bytes) => bytes.serialize(kind, writer),
            Self::Big(number) => number.serialize(kind, writer),
            Self::Int(number) => number.serialize(kind, writer),
        }
    }
}

impl Value {
    /// A 64-bit number by its bits: numbers are only compared for equality there.
    pub(super) fn bits(number: u64) -> Self {
        Self::Big(i64::from_ne_bytes(number.to_ne_bytes()))
    }

    /// A life in whole seconds, rounded up; 0 = for ever.
    pub(super) fn life(life: Life) -> Self {
        Self::Int(match life {
            Life::Forever => 0,
            Life::For(span) => {
                let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
                i32::try_from(seconds.clamp(1, MAX_TTL)).expect("below the largest life")
            }
        })
    }
}

/// Servers take no longer life: 20 years.
const MAX_TTL: u64 = 20 * 365 * 86_400;

/// The partition key as stored.
pub(super) fn key(partition: &[u8]) -> Value {
    let mut key = BytesMut::with_capacity(partition.len() + 1);
    key.put_u8(KEY_VERSION);
    key.put_slice(partition);
    Value::Blob(key.freeze())
}

/// Reads a stored partition key.
pub(super) fn partition_of(table: Table, key: &[u8]) -> Result<Bytes> {
    match key {
        [KEY_VERSION, partition @ ..] => Ok(Bytes::copy_from_slice(partition)),
        _ => Err(corrupt(table, "a partition key of an unknown form")),
    }
}
