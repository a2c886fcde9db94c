//! Keys and rows of queues.

use bytes::Bytes;
use linnet_proto::store::{DeadRow, ParkedRow, QueueRow};
use linnet_types::{SdkAppId, UnixMillis};
use serde_json::{Value, json};

use super::{DEAD, DONE, Item, PARKED, QUEUE, Source, WorkId, queue_row};
use crate::keys::{Key, Parts};
use crate::record;
use crate::rows::{Result, Table};

pub(super) fn partition(queue: &str, partition: u16) -> Bytes {
    Key::new().text(queue).u32(partition.into()).done()
}

pub(super) fn key_prefix(app: SdkAppId, key: &str) -> Bytes {
    Key::new().u32(app.0).text(key).done()
}

pub(super) fn clustering(id: &WorkId) -> Bytes {
    Key::new().u32(id.app.0).text(&id.key).u64(id.at.0).u8(source_to_row(id.source)).u64(id.no).text(&id.event).done()
}

pub(super) fn source_to_row(source: Source) -> u8 {
    match source {
        Source::Outbox => 1,
        Source::Log => 2,
        Source::Other => 3,
    }
}

pub(super) fn source_from_row(source: u32) -> Result<Source> {
    match source {
        1 => Ok(Source::Outbox),
        2 => Ok(Source::Log),
        3 => Ok(Source::Other),
        other => Err(record::corrupt(QUEUE, format_args!("source {other}"))),
    }
}

pub(super) fn id(clustering: &[u8]) -> Result<WorkId> {
    let mut parts = Parts::new(QUEUE.name, clustering);
    Ok(WorkId {
        app: SdkAppId(parts.u32()?),
        key: parts.text()?,
        at: UnixMillis(parts.u64()?),
        source: source_from_row(parts.u8()?.into())?,
        no: parts.u64()?,
        event: parts.text()?,
    })
}

pub(super) fn item(clustering: &[u8], value: &[u8]) -> Result<Item> {
    Ok(from_row(id(clustering)?, queue_row(value)?))
}

pub(super) fn from_row(id: WorkId, row: QueueRow) -> Item {
    Item {
        id,
        payload: row.payload,
        attempts: row.attempts,
        next: UnixMillis(row.next_ms),
        first_try: (row.first_try_ms != 0).then_some(UnixMillis(row.first_try_ms)),
        last_error: row.last_error,
        replayed: row.replayed,
    }
}

pub(super) fn to_row(item: &Item) -> QueueRow {
    QueueRow {
        payload: item.payload.clone(),
        attempts: item.attempts,
        next_ms: item.next.0,
        first_try_ms: item.first_try.map_or(0, |at| at.0),
        last_error: item.last_error.clone(),
        replayed: item.replayed,
    }
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![QUEUE, DONE, DEAD, PARKED]
}

/// One row for people. Payloads are left out: they may hold what users wrote.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let queue = parts.text()?;
    if table == PARKED {
        let row: ParkedRow = record::decode(table, value)?;
        let app = Parts::new(table.name, clustering).u32()?;
        return Ok(json!({ "queue": queue, "app": app, "since_ms": row.since_ms, "until_ms": row.until_ms }));
    }
    if table == DEAD {
        let row: DeadRow = record::decode(table, value)?;
        let died = Parts::new(table.name, clustering).u64()?;
        return Ok(json!({
            "queue": queue, "app": parts.u32()?, "died_ms": died, "key": row.key, "event": row.event, "no": row.no,
            "why": row.why, "attempts": row.item.map_or(0, |item| item.attempts),
        }));
    }
    let id = id(clustering)?;
    let item = if table == DONE { None } else { Some(queue_row(value)?) };
    Ok(json!({
        "queue": queue, "partition": parts.u32()?, "app": id.app, "key": id.key, "at_ms": id.at, "event": id.event,
        "no": id.no, "done": item.is_none(),
        "attempts": item.as_ref().map(|item| item.attempts), "next_ms": item.as_ref().map(|item| item.next_ms),
        "last_error": item.as_ref().map(|item| item.last_error.clone()),
        "payload_bytes": item.map(|item| item.payload.len()),
    }))
}
