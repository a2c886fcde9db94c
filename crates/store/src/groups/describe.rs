//! Rows of groups for people.

use linnet_proto::store as pb;
use linnet_types::{ConvId, SdkAppId};
use serde_json::{Value, json};

use super::derived::open_from_key;
use super::layout::{self, APP_GROUP, GROUP, JOINED, NAME, OPEN, tag};
use crate::keys::Parts;
use crate::record;
use crate::rows::{Guard, Result, Table};

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![NAME, GROUP, JOINED, APP_GROUP, OPEN]
}

/// One row for people. Bodies of events are left out: they may hold what users wrote.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    if table == OPEN {
        let open = open_from_key(clustering)?;
        return Ok(json!({ "slot": parts.u8()?, "app": open.app, "conv": open.conv, "epoch": open.epoch }));
    }
    let app = SdkAppId(parts.u32()?);
    if table == NAME {
        let (name, generation) = layout::name_from_row(Some(value))?;
        return Ok(json!({
            "app": app, "group": parts.text()?, "conv": name.map(|name| name.conv), "generation": generation,
        }));
    }
    if table == JOINED {
        let row: pb::JoinedRow = record::decode(table, value)?;
        return Ok(json!({
            "app": app, "user": parts.text()?, "conv": Parts::new(table.name, clustering).u64()?, "group": row.group,
            "role": layout::role_from_row(row.role).wire(), "joined_ms": row.joined_ms,
        }));
    }
    if table == APP_GROUP {
        let row: pb::AppGroupRow = record::decode(table, value)?;
        return Ok(json!({
            "app": app, "conv": Parts::new(table.name, clustering).u64()?, "group": row.group,
            "created_ms": row.created_ms,
        }));
    }
    let conv = ConvId(parts.u64()?);
    let slot = parts.u32()?;
    let row = group_row(app, conv, clustering, value)?;
    Ok(json!({ "app": app, "conv": conv, "slot": slot, "row": row }))
}

/// The guard of a group's partition for people; `None` for other tables.
///
/// # Errors
/// [`crate::Error::Corrupt`] when it is not what this aggregate writes.
pub fn describe_guard(table: Table, guard: &Guard) -> Result<Option<Value>> {
    if table != GROUP {
        return Ok(None);
    }
    let data: pb::GroupGuardData = record::decode(table, &guard.data)?;
    Ok(Some(json!({
        "members": data.members, "live_seq": data.live_seq, "info_seq": data.info_seq,
        "destroyed_ms": data.destroyed_ms,
    })))
}

fn group_row(app: SdkAppId, conv: ConvId, clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(GROUP.name, clustering);
    let kind = parts.u8()?;
    Ok(match kind {
        tag::PROFILE => {
            let record = layout::profile_from_row(app, conv, value)?;
            json!({
                "kind": "profile", "group": record.group, "generation": record.generation, "type": record.kind.wire(),
                "slots": record.slots, "owner": record.owner, "admins": record.admins, "name": record.name,
                "created_ms": record.created, "last_info_ms": record.last_info, "max_members": record.max_members,
                "apply": record.apply.wire(), "invite": record.invite.wire(), "mute_all": record.mute_all,
                "history_before_join": record.history_before_join, "activated": record.activated,
            })
        }
        tag::MEMBER => {
            let row: pb::GroupMemberRow = record::decode(GROUP, value)?;
            json!({
                "kind": "member", "user": parts.text()?, "joined_ms": row.joined_ms, "join_seq": row.join_seq,
                "visible_from": row.visible_from, "msg_flag": row.msg_flag, "last_send_ms": row.last_send_ms,
            })
        }
        tag::MUTE | tag::BAN => {
            let row = layout::restriction_from_row(value)?;
            json!({
                "kind": if kind == tag::MUTE { "mute" } else { "ban" }, "user": parts.text()?, "until_ms": row.until,
                "since_ms": row.since, "operator": row.operator,
            })
        }
        tag::APPLICATION => {
            let row = layout::application_from_row(value)?;
            json!({ "kind": "application", "user": parts.text()?, "at_ms": row.at, "inviter": row.inviter })
        }
        tag::OUTBOX => {
            let no = parts.u64()?;
            let event = layout::outbox_from_row(no, value)?;
            json!({
                "kind": "event", "no": no, "at_ms": event.at, "event": event.event, "body_bytes": event.body.len(),
            })
        }
        tag::INTENT => {
            let row: pb::GroupIntentRow = record::decode(GROUP, value)?;
            json!({ "kind": "intent", "no": parts.u64()?, "users": row.users })
        }
        other => return Err(record::corrupt(GROUP, format_args!("row of kind {other}"))),
    })
}
