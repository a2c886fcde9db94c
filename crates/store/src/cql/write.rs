//! Conditional batches of one partition, and plain rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use scylla::response::query_result::QueryResult;
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::{CqlValue, Row as CqlRow};

use super::Cql;
use super::errors::{unavailable, write_error};
use super::read::guard_from;
use super::statements::{Form, Value, key};
use crate::rows::{Applied, Error, Guard, GuardedBatch, Life, PlainBatch, Result, Table, Write};

/// Partitions of one plain write that are written at a time.
const PARTITIONS: usize = 32;
/// Rows of one plain request, and their bytes; a larger write goes in several.
const PLAIN_ROWS: usize = 100;
const PLAIN_BYTES: usize = 32 << 10;

/// The largest key servers take is 65,535 bytes.
const MAX_KEY: usize = 60_000;

impl Cql {
    pub(super) async fn write_guarded(&self, batch: &GuardedBatch) -> Result<Applied> {
        let table = batch.table;
        let (requests, values) = self.guarded_batch(batch).await?;
        let answer = self.session.batch(&requests, &values).await.map_err(|error| write_error(table, &error))?;
        match answered(table, answer) {
            Ok(None) => Ok(Applied::Yes),
            Ok(Some(Refused { by })) => {
                self.metrics.refused.inc();
                match by {
                    Some(guard) => Ok(Applied::No(Some(guard))),
                    None => self.read_guard(table, &batch.partition).await.map(Applied::No),
                }
            }
            // An answer nobody can read leaves the outcome open.
            Err(why) => Err(Error::Unknown { table: table.name, why }),
        }
    }

    async fn guarded_batch(&self, batch: &GuardedBatch) -> Result<(Batch, Vec<Vec<Value>>)> {
        let table = batch.table;
        check_keys(table, &batch.partition, &batch.writes)?;
        let mut requests = Batch::new(BatchType::Unlogged);
        requests.set_execution_profile_handle(Some(self.lanes.guarded.profile.clone()));
        let form = if batch.expect.is_some() { Form::Advance } else { Form::Create };
        requests.append_statement(self.statement(table, form).await?);
        let guard = &batch.guard;
        let mut first = vec![
            Value::life(batch.guard_life),
            Value::bits(guard.epoch.0),
            Value::bits(guard.rev),
            Value::Blob(guard.data.clone()),
            key(&batch.partition),
        ];
        if let Some((epoch, rev)) = batch.expect {
            first.extend([Value::bits(epoch.0), Value::bits(rev)]);
        }
        let mut values = vec![first];
        for write in &batch.writes {
            let (form, row) = row(&batch.partition, write, batch.life);
            requests.append_statement(self.statement(table, form).await?);
            values.push(row);
        }
        let bytes = batch.bytes();
        if bytes > self.batch_limit {
            // Never cut in two: a batch is one change or none.
            let why = format!("a batch of {bytes} bytes is over the limit of {}", self.batch_limit);
            return Err(unavailable(table, why));
        }
        Ok((requests, values))
    }

    pub(super) async fn write_plain(&self, batch: PlainBatch) -> Result<()> {
        let PlainBatch { table, writes, life } = batch;
        // Of several writes to one row the last counts, and rows of one request share a timestamp.
        let mut partitions: BTreeMap<Bytes, BTreeMap<Bytes, Write>> = BTreeMap::new();
        for (partition, write) in writes {
            check_keys(table, &partition, std::slice::from_ref(&write))?;
            let (Write::Put { clustering, .. } | Write::Delete { clustering }) = &write;
            partitions.entry(partition).or_default().insert(clustering.clone(), write);
        }
        // One for all: a later write of ours has a later one, whatever order servers see them in.
        let stamp = self.stamps.next();
        let requests: Vec<(Bytes, Vec<Write>)> = partitions
            .into_iter()
            .flat_map(|(partition, rows)| {
                cut(rows.into_values()).into_iter().map(move |rows| (partition.clone(), rows))
            })
            .collect();
        stream::iter(requests.into_iter().map(Ok))
            .try_for_each_concurrent(PARTITIONS, |(partition, rows)| async move {
                let write = self.write_plain_rows(table, &partition, &rows, life, stamp);
                self.lanes.plain.run(table, write).await
            })
            .await
    }

    async fn write_plain_rows(
        &self,
        table: Table,
        partition: &Bytes,
        rows: &[Write],
        life: Life,
        stamp: i64,
    ) -> Result<()> {
        let mut requests = Batch::new(BatchType::Unlogged);
        requests.set_execution_profile_handle(Some(self.lanes.plain.profile.clone()));
        requests.set_is_idempotent(true);
        requests.set_timestamp(Some(stamp));
        let mut values = Vec::with_capacity(rows.len());
        for write in rows {
            let (form, row) = row(partition, write, life);
            requests.append_statement(self.statement(table, form).await?);
            values.push(row);
        }
        let answer = self.session.batch(&requests, &values).await;
        answer.map(drop).map_err(|error| write_error(table, &error))
    }
}

fn row(partition: &[u8], write: &Write, life: Life) -> (Form, Vec<Value>) {
    match write {
        Write::Put { clustering, value } => {
            let (clustering, value) = (Value::Blob(clustering.clone()), Value::Blob(value.clone()));
            (Form::Put, vec![key(partition), clustering, value, Value::life(life)])
        }
        Write::Delete { clustering } => (Form::Delete, vec![key(partition), Value::Blob(clustering.clone())]),
    }
}

/// Cuts rows into requests of a bounded size.
fn cut(rows: impl Iterator<Item = Write>) -> Vec<Vec<Write>> {
    let mut requests: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in rows {
        let size = match &write {
            Write::Put { clustering, value } => clustering.len() + value.len(),
            Write::Delete { clustering } => clustering.len(),
        };
        match requests.last_mut() {
            Some(last) if last.len() < PLAIN_ROWS && bytes + size <= PLAIN_BYTES => {
                last.push(write);
                bytes += size;
            }
            _ => {
                requests.push(vec![write]);
                bytes = size;
            }
        }
    }
    requests
}

fn check_keys(table: Table, partition: &[u8], writes: &[Write]) -> Result<()> {
    let long = writes.iter().any(|write| {
        let (Write::Put { clustering, .. } | Write::Delete { clustering }) = write;
        clustering.len() > MAX_KEY
    });
    if long || partition.len() > MAX_KEY { Err(unavailable(table, "a key of over 60,000 bytes")) } else { Ok(()) }
}

/// A conditional batch that was refused.
struct Refused {
    /// By which guard; `None`: the answer does not show all of one.
    by: Option<Guard>,
}

/// Reads the answer to a conditional batch by the names of its columns: servers differ in what a refused one returns.
fn answered(table: Table, answer: QueryResult) -> std::result::Result<Option<Refused>, String> {
    let (applied, row) = applied(answer)?;
    if applied {
        return Ok(None);
    }
    let column = |name: &str| row.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_ref());
    let number = |name: &str| column(name).and_then(CqlValue::as_bigint);
    let data = column("data").and_then(CqlValue::as_blob).map(Vec::as_slice);
    let by = guard_from(table, number("epoch"), number("rev"), data).unwrap_or_default();
    Ok(Some(Refused { by }))
}

/// One row, by the names of its columns.
type Named = Vec<(String, Option<CqlValue>)>;

/// Whether a conditional statement was applied, and the first row of the answer; the error says why that cannot be told.
pub(super) fn applied(answer: QueryResult) -> std::result::Result<(bool, Named), String> {
    let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
    let names = rows.column_specs().iter().map(|column| column.name().to_owned());
    let values = rows.first_row::<CqlRow>().map_err(|error| error.to_string())?.columns;
    let row: Named = names.zip(values).collect();
    let applied = row.iter().find(|(name, _)| name == "[applied]").and_then(|(_, value)| value.as_ref()?.as_boolean());
    applied.map(|applied| (applied, row)).ok_or_else(|| "an answer that says not whether it was applied".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rows_are_cut_by_count_and_size() {
        let put = |size: usize| Write::Put { clustering: Bytes::from_static(b"k"), value: vec![0; size].into() };
        let sizes = |sizes: Vec<usize>| cut(sizes.into_iter().map(put)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![1; 250]), [100, 100, 50]);
        assert_eq!(sizes(vec![20_000, 10_000, 20_000, 100_000, 1]), [2, 1, 1, 1]);
        assert!(sizes(vec![]).is_empty());
    }
}
