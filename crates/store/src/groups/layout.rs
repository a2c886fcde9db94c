//! Tables, keys and row conversions of groups.

use std::collections::BTreeMap;

use bytes::Bytes;
use linnet_proto::store as pb;
use linnet_types::{ApplyJoinOption, ConvId, GroupId, GroupType, InviteJoinOption, Role, SdkAppId, Seq};
use linnet_types::{UnixMillis, UserId};

use super::model::{Application, GroupName, GroupRecord, Member, OutboxEvent, Restriction};
use crate::keys::{Key, Parts};
use crate::record;
use crate::rows::{Kind, Result, Table};

/// (app, group id) -> current conversation.
pub(super) const NAME: Table = Table { name: "group_name", kind: Kind::Guarded };
/// (app, conv, slot): everything a group knows. Slot 0 also holds the profile.
pub(super) const GROUP: Table = Table { name: "group", kind: Kind::Guarded };
/// (app, user) -> his groups; derived.
pub(super) const JOINED: Table = Table { name: "joined", kind: Kind::Plain };
/// (app, kind) -> groups by conv; derived.
pub(super) const APP_GROUP: Table = Table { name: "app_group", kind: Kind::Plain };
/// (slot) -> groups that were claimed and not closed.
pub(super) const OPEN: Table = Table { name: "open_group", kind: Kind::Plain };

/// Kinds of rows in a partition of [`GROUP`].
pub(super) mod tag {
    pub(crate) const APPLICATION: u8 = b'a';
    pub(crate) const BAN: u8 = b'b';
    pub(crate) const INTENT: u8 = b'i';
    pub(crate) const MEMBER: u8 = b'm';
    pub(crate) const MUTE: u8 = b'u';
    pub(crate) const OUTBOX: u8 = b'o';
    pub(crate) const PROFILE: u8 = b'p';
}

pub(super) fn name_partition(app: SdkAppId, group: &GroupId) -> Bytes {
    Key::new().u32(app.0).text(group.as_str()).done()
}

pub(super) fn partition(app: SdkAppId, conv: ConvId, slot: u16) -> Bytes {
    Key::new().u32(app.0).u64(conv.0).u32(slot.into()).done()
}

pub(super) fn profile_key() -> Bytes {
    Key::new().u8(tag::PROFILE).done()
}

pub(super) fn user_key(tag: u8, user: &UserId) -> Bytes {
    Key::new().u8(tag).text(user.as_str()).done()
}

pub(super) fn numbered_key(tag: u8, no: u64) -> Bytes {
    Key::new().u8(tag).u64(no).done()
}

pub(super) fn tag_key(tag: u8) -> Bytes {
    Key::new().u8(tag).done()
}

pub(super) fn key_user(key: &[u8]) -> Result<UserId> {
    let mut parts = Parts::new(GROUP.name, key);
    parts.u8()?;
    Ok(UserId::trusted(parts.text()?))
}

pub(super) fn key_number(key: &[u8]) -> Result<u64> {
    let mut parts = Parts::new(GROUP.name, key);
    parts.u8()?;
    parts.u64()
}

pub(super) fn user_partition(app: SdkAppId, user: &UserId) -> Bytes {
    Key::new().u32(app.0).text(user.as_str()).done()
}

pub(super) fn conv_key(conv: ConvId) -> Bytes {
    Key::new().u64(conv.0).done()
}

pub(super) fn app_partition(app: SdkAppId, kind: GroupType) -> Bytes {
    // A kind has a small positive number.
    Key::new().u32(app.0).u8(kind_to_row(kind) as u8).done()
}

pub(super) fn kind_to_row(kind: GroupType) -> pb::GroupKind {
    match kind {
        GroupType::Work => pb::GroupKind::Work,
        GroupType::Public => pb::GroupKind::Public,
        GroupType::Meeting => pb::GroupKind::Meeting,
        GroupType::AVChatRoom => pb::GroupKind::AvChatRoom,
        GroupType::Community => pb::GroupKind::Community,
    }
}

pub(super) fn kind_from_row(table: Table, kind: i32) -> Result<GroupType> {
    Ok(match pb::GroupKind::try_from(kind) {
        Ok(pb::GroupKind::Work) => GroupType::Work,
        Ok(pb::GroupKind::Public) => GroupType::Public,
        Ok(pb::GroupKind::Meeting) => GroupType::Meeting,
        Ok(pb::GroupKind::AvChatRoom) => GroupType::AVChatRoom,
        Ok(pb::GroupKind::Community) => GroupType::Community,
        Ok(pb::GroupKind::Unspecified) | Err(_) => {
            return Err(record::corrupt(table, format_args!("group of kind {kind}")));
        }
    })
}

pub(super) fn role_to_row(role: Role) -> pb::GroupRole {
    match role {
        Role::Member => pb::GroupRole::Member,
        Role::Admin => pb::GroupRole::Admin,
        Role::Owner => pb::GroupRole::Owner,
    }
}

pub(super) fn role_from_row(role: i32) -> Role {
    match pb::GroupRole::try_from(role) {
        Ok(pb::GroupRole::Owner) => Role::Owner,
        Ok(pb::GroupRole::Admin) => Role::Admin,
        Ok(pb::GroupRole::Member | pb::GroupRole::Unspecified) | Err(_) => Role::Member,
    }
}

fn texts(map: &BTreeMap<String, String>) -> Vec<pb::NamedText> {
    map.iter().map(|(name, text)| pb::NamedText { name: name.clone(), text: text.clone() }).collect()
}

fn map(texts: Vec<pb::NamedText>) -> BTreeMap<String, String> {
    texts.into_iter().map(|named| (named.name, named.text)).collect()
}

pub(super) fn profile_to_row(record: &GroupRecord) -> pb::GroupProfileRow {
    pb::GroupProfileRow {
        version: pb::RowVersion::RowVersion1.into(),
        group: record.group.as_str().to_owned(),
        generation: record.generation,
        kind: kind_to_row(record.kind).into(),
        slots: record.slots.into(),
        name: record.name.clone(),
        introduction: record.introduction.clone(),
        notification: record.notification.clone(),
        face_url: record.face_url.clone(),
        owner: record.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        admins: record.admins.iter().map(ToString::to_string).collect(),
        created_ms: record.created.0,
        last_info_ms: record.last_info.0,
        max_members: record.max_members,
        apply_option: record.apply.wire().to_owned(),
        invite_option: record.invite.wire().to_owned(),
        mute_all: record.mute_all,
        custom: texts(&record.custom),
        history_before_join: record.history_before_join,
        activated: record.activated,
        support_topic: record.support_topic,
        settings: record.settings.clone(),
    }
}

/// The record without what the guards know: counters.
pub(super) fn profile_from_row(app: SdkAppId, conv: ConvId, value: &[u8]) -> Result<GroupRecord> {
    let row: pb::GroupProfileRow = record::decode(GROUP, value)?;
    let option = |text: &str| record::corrupt(GROUP, format_args!("join option {text}"));
    let slots = u16::try_from(row.slots).ok().filter(|slots| *slots > 0);
    Ok(GroupRecord {
        app,
        conv,
        group: GroupId::trusted(row.group),
        generation: row.generation,
        kind: kind_from_row(GROUP, row.kind)?,
        slots: slots.ok_or_else(|| record::corrupt(GROUP, format_args!("{} slots", row.slots)))?,
        name: row.name,
        introduction: row.introduction,
        notification: row.notification,
        face_url: row.face_url,
        owner: (!row.owner.is_empty()).then(|| UserId::trusted(row.owner)),
        admins: row.admins.into_iter().map(UserId::trusted).collect(),
        created: UnixMillis(row.created_ms),
        last_info: UnixMillis(row.last_info_ms),
        info_seq: 0,
        member_count: 0,
        max_members: row.max_members,
        apply: ApplyJoinOption::parse(&row.apply_option).ok_or_else(|| option(&row.apply_option))?,
        invite: InviteJoinOption::parse(&row.invite_option).ok_or_else(|| option(&row.invite_option))?,
        mute_all: row.mute_all,
        custom: map(row.custom),
        history_before_join: row.history_before_join,
        activated: row.activated,
        support_topic: row.support_topic,
        settings: row.settings,
        live_seq: 0,
        destroyed: None,
    })
}

pub(super) fn member_to_row(member: &Member) -> pb::GroupMemberRow {
    pb::GroupMemberRow {
        joined_ms: member.joined.0,
        join_seq: member.join_seq.0,
        join_ord: member.join_ord,
        visible_from: member.visible_from.0,
        name_card: member.name_card.clone(),
        custom: texts(&member.custom),
        msg_flag: member.msg_flag.clone(),
        last_send_ms: member.last_send.map_or(0, |at| at.0),
    }
}

pub(super) fn member_from_row(record: &GroupRecord, user: UserId, value: &[u8]) -> Result<Member> {
    let row: pb::GroupMemberRow = record::decode(GROUP, value)?;
    Ok(Member {
        role: record.role(&user),
        user,
        joined: UnixMillis(row.joined_ms),
        join_seq: Seq(row.join_seq),
        join_ord: row.join_ord,
        visible_from: Seq(row.visible_from),
        name_card: row.name_card,
        custom: map(row.custom),
        msg_flag: row.msg_flag,
        last_send: (row.last_send_ms != 0).then_some(UnixMillis(row.last_send_ms)),
    })
}

pub(super) fn restriction_to_row(restriction: &Restriction) -> pb::GroupRestrictionRow {
    pb::GroupRestrictionRow {
        until_ms: restriction.until.0,
        since_ms: restriction.since.0,
        operator: restriction.operator.clone(),
        description: restriction.description.clone(),
    }
}

pub(super) fn restriction_from_row(value: &[u8]) -> Result<Restriction> {
    let row: pb::GroupRestrictionRow = record::decode(GROUP, value)?;
    Ok(Restriction {
        until: UnixMillis(row.until_ms),
        since: UnixMillis(row.since_ms),
        operator: row.operator,
        description: row.description,
    })
}

pub(super) fn application_to_row(application: &Application) -> pb::GroupApplicationRow {
    pb::GroupApplicationRow {
        at_ms: application.at.0,
        inviter: application.inviter.as_ref().map(ToString::to_string).unwrap_or_default(),
        text: application.text.clone(),
    }
}

pub(super) fn application_from_row(value: &[u8]) -> Result<Application> {
    let row: pb::GroupApplicationRow = record::decode(GROUP, value)?;
    let inviter = (!row.inviter.is_empty()).then(|| UserId::trusted(row.inviter));
    Ok(Application { at: UnixMillis(row.at_ms), inviter, text: row.text })
}

pub(super) fn outbox_from_row(no: u64, value: &[u8]) -> Result<OutboxEvent> {
    let row: pb::GroupOutboxRow = record::decode(GROUP, value)?;
    Ok(OutboxEvent { no, at: UnixMillis(row.at_ms), event: row.event, body: row.body })
}

/// `None` in the first place: the id is free; the generation of its last group is beside it.
pub(super) fn name_from_row(value: Option<&[u8]>) -> Result<(Option<GroupName>, u32)> {
    let Some(value) = value else { return Ok((None, 0)) };
    let row: pb::GroupNameRow = record::decode(NAME, value)?;
    if row.conv == 0 {
        return Ok((None, row.generation));
    }
    let kind = kind_from_row(NAME, row.kind)?;
    Ok((Some(GroupName { conv: ConvId(row.conv), generation: row.generation, kind }), row.generation))
}
