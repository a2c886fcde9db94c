//! Rows of a log for people.

use linnet_proto::store::{LogGuard, LogOrigin, MessageHead, Revision, RevisionGuard, visibility};
use serde_json::{Value, json};

use super::head::decode_head;
use super::read::decode_row;
use super::side::SideKind;
use super::tables::{Class, LOG_HEAD, LOG_ORIGIN, OPEN_LOGS, is_head, seq_of};
use crate::keys::Parts;
use crate::rows::{Guard, Result, Table};

/// The tables of logs.
#[must_use]
pub fn tables() -> Vec<Table> {
    let of_class = |class: Class| [class.log(), class.revision(), class.side()];
    Class::ALL.into_iter().flat_map(of_class).chain([LOG_ORIGIN, LOG_HEAD, OPEN_LOGS]).collect()
}

/// One row for people.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what a log writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    if table == OPEN_LOGS {
        let row = super::open::decode(value)?;
        return Ok(json!({ "app": row.app, "conv": row.conv, "epoch": row.epoch, "route": row.route,
            "opened_ms": row.opened_ms, "days": row.days }));
    }
    let mut parts = Parts::new(table.name, partition);
    let (app, conv) = (parts.u32()?, parts.u64()?);
    if table == LOG_HEAD {
        return head_row(app, conv, value);
    }
    let bucket = parts.u64()?;
    let row = if Class::ALL.into_iter().any(|class| class.log() == table) {
        message_row(table, clustering, value)?
    } else if Class::ALL.into_iter().any(|class| class.revision() == table) {
        revision_row(table, clustering, value)?
    } else {
        side_row(table, clustering, value)?
    };
    Ok(json!({ "app": app, "conv": conv, "bucket": bucket, "row": row }))
}

/// The guard of a log table for people; `None` for tables of other aggregates.
///
/// # Errors
/// [`crate::Error::Corrupt`].
pub fn describe_guard(table: Table, guard: &Guard) -> Result<Option<Value>> {
    if table == LOG_ORIGIN {
        let data: LogOrigin = decode_row(table, &guard.data)?;
        return Ok(Some(json!({ "days": data.days })));
    }
    if Class::ALL.into_iter().any(|class| class.log() == table) {
        let data: LogGuard = decode_row(table, &guard.data)?;
        return Ok(Some(json!({
            "last_seq": guard.rev, "ord": data.ord, "last_time_ms": data.last_time_ms,
            "first_time_ms": data.first_time_ms, "closed": data.closed, "group_epoch": data.group_epoch,
            "generation": data.generation, "last_batch": hex::encode(data.last_batch.to_be_bytes()),
            "claimant": hex::encode(data.claimant.to_be_bytes()),
        })));
    }
    if Class::ALL.into_iter().any(|class| class.revision() == table) {
        let data: RevisionGuard = decode_row(table, &guard.data)?;
        return Ok(Some(json!({ "last_write": hex::encode(data.last_write.to_be_bytes()) })));
    }
    Ok(None)
}

fn head_row(app: u32, conv: u64, value: &[u8]) -> Result<Value> {
    let head = decode_head(value)?;
    let revoked: Vec<u64> = head.revoked.iter().map(|revoked| revoked.seq).collect();
    let classes: Vec<Value> =
        head.classes.iter().map(|span| json!({ "from_bucket": span.from_bucket, "days": span.days })).collect();
    let jumps: Vec<[u64; 2]> = head.jumps.iter().map(|jump| [jump.after_seq, jump.to_seq]).collect();
    Ok(json!({
        "app": app, "conv": conv, "open": head.open, "epoch": head.epoch, "group_epoch": head.group_epoch,
        "generation": head.generation, "bucket": head.bucket, "last_seq": head.last_seq, "ord": head.ord,
        "last_time_ms": head.last_time_ms, "first_seq": head.first_seq, "floor": head.floor, "cursor": head.cursor,
        "revoked": revoked, "classes": classes, "route": head.route, "jumps": jumps,
    }))
}

fn message_row(table: Table, clustering: &[u8], value: &[u8]) -> Result<Value> {
    let seq = seq_of(table, clustering)?;
    if !is_head(clustering) {
        return Ok(json!({ "seq": seq, "body_bytes": value.len(), "body": String::from_utf8_lossy(value) }));
    }
    let head: MessageHead = decode_row(table, value)?;
    let visibility = head.visibility.as_ref().map(|seen| {
        let kind = visibility::Kind::try_from(seen.kind).map_or("?", |kind| kind.as_str_name());
        json!({ "kind": kind, "users": seen.users })
    });
    Ok(json!({
        "seq": seq, "sender": head.sender, "random": head.random, "msg_seq": head.msg_seq,
        "msg_seq_filled": head.msg_seq_filled, "content_hash": hex::encode(head.content_hash.to_be_bytes()),
        "time_ms": head.time_ms, "flags": head.flags, "ord": head.ord, "countable": head.countable,
        "size": head.size, "visibility": visibility, "kind": head.kind().as_str_name(), "priority": head.priority,
    }))
}

fn revision_row(table: Table, clustering: &[u8], value: &[u8]) -> Result<Value> {
    let revision: Revision = decode_row(table, value)?;
    let revoke = revision.revoke.as_ref();
    let revoke = revoke.map(|revoke| json!({ "by": revoke.by, "reason": revoke.reason, "time_ms": revoke.time_ms }));
    Ok(json!({
        "seq": seq_of(table, clustering)?, "version": revision.version, "time_ms": revision.time_ms, "revoke": revoke,
        "body": revision.body.as_ref().map(|body| String::from_utf8_lossy(body)), "extra_bytes": revision.extra.len(),
    }))
}

fn side_row(table: Table, clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, clustering);
    let kind = match parts.u8()? {
        kind if kind == SideKind::Receipt as u8 => "receipt",
        kind if kind == SideKind::Deleted as u8 => "deleted",
        _ => "?",
    };
    Ok(json!({ "kind": kind, "seq": parts.u64()?, "user": parts.text()?, "value_bytes": value.len() }))
}
