//! Reading guards, rows and partition keys.

use bytes::Bytes;
use linnet_types::Epoch;
use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use std::ops::ControlFlow;

use super::Cql;
use super::errors::{corrupt, unavailable};
use super::statements::{Form, Value, key, partition_of};
use crate::rows::{Guard, Range, Result, Row, Table};

impl Cql {
    pub(super) async fn read_guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        let statement = self.statement(table, Form::Guard).await?;
        let answer = self.session.execute_unpaged(&statement, vec![key(partition)]).await;
        let answer = answer.map_err(|error| unavailable(table, error))?;
        let rows = answer.into_rows_result().map_err(|error| corrupt(table, error))?;
        let row = rows.maybe_first_row::<(Option<i64>, Option<i64>, Option<&[u8]>)>();
        let (epoch, rev, data) = row.map_err(|error| corrupt(table, error))?.unwrap_or_default();
        guard_from(table, epoch, rev, data)
    }

    pub(super) async fn read_value(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        let statement = self.statement(table, Form::Get).await?;
        let values = vec![key(partition), Value::Blob(Bytes::copy_from_slice(clustering))];
        let answer = self.session.execute_unpaged(&statement, values).await;
        let answer = answer.map_err(|error| unavailable(table, error))?;
        let rows = answer.into_rows_result().map_err(|error| corrupt(table, error))?;
        let row = rows.maybe_first_row::<(&[u8],)>().map_err(|error| corrupt(table, error))?;
        Ok(row.map(|(value,)| Bytes::copy_from_slice(value)))
    }

    pub(super) async fn read_range(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        if let (Some(from), Some(to)) = (&range.from, &range.to)
            && from >= to
        {
            return Ok(Vec::new());
        }
        let form = Form::Scan { bounded: range.to.is_some(), descending: range.descending };
        let mut values = vec![key(partition), Value::Blob(range.from.unwrap_or_default())];
        values.extend(range.to.map(Value::Blob));
        values.push(limit(range.limit));
        let mut found = Vec::new();
        self.pages(table, form, values, |rows| {
            for row in rows.rows::<(&[u8], &[u8])>().map_err(|error| corrupt(table, error))? {
                // Copied: a kept row must not keep its whole page.
                let (clustering, value) = row.map_err(|error| corrupt(table, error))?;
                let (clustering, value) = (Bytes::copy_from_slice(clustering), Bytes::copy_from_slice(value));
                found.push(Row { clustering, value });
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    pub(super) async fn read_partitions(&self, table: Table, after: Option<&[u8]>, most: usize) -> Result<Vec<Bytes>> {
        let mut found = Vec::new();
        if most == 0 {
            return Ok(found);
        }
        let mut values: Vec<Value> = after.map(key).into_iter().collect();
        values.push(limit(most));
        self.pages(table, Form::Partitions { after: after.is_some() }, values, |rows| {
            for row in rows.rows::<(&[u8],)>().map_err(|error| corrupt(table, error))? {
                let (key,) = row.map_err(|error| corrupt(table, error))?;
                found.push(partition_of(table, key)?);
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Runs a statement page by page.
    async fn pages(
        &self,
        table: Table,
        form: Form,
        values: Vec<Value>,
        mut take: impl FnMut(QueryRowsResult) -> Result<()> + Send,
    ) -> Result<()> {
        let statement = self.statement(table, form).await?;
        let mut state = PagingState::start();
        loop {
            let answer = self.session.execute_single_page(&statement, &values, state).await;
            let (page, next) = answer.map_err(|error| unavailable(table, error))?;
            take(page.into_rows_result().map_err(|error| corrupt(table, error))?)?;
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(more) => state = more,
            }
        }
    }
}

/// A guard from its columns: all of them or none.
pub(super) fn guard_from(
    table: Table,
    epoch: Option<i64>,
    rev: Option<i64>,
    data: Option<&[u8]>,
) -> Result<Option<Guard>> {
    let bits = |number: i64| u64::from_ne_bytes(number.to_ne_bytes());
    match (epoch, rev, data) {
        (None, None, None) => Ok(None),
        (Some(epoch), Some(rev), Some(data)) => {
            let data = Bytes::copy_from_slice(data);
            Ok(Some(Guard { epoch: Epoch(bits(epoch)), rev: bits(rev), data }))
        }
        _ => Err(corrupt(table, "half a guard")),
    }
}

/// Most rows; 0 = all.
fn limit(rows: usize) -> Value {
    Value::Int(if rows == 0 { i32::MAX } else { i32::try_from(rows).unwrap_or(i32::MAX) })
}
