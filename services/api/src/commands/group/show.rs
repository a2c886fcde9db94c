//! Groups and members as replies show them, all fields or those a filter names (`spec/rest-groups.md` §1.7).

use bytes::Bytes;
use linnet_proto::group::{Group, KeyValue, Member};
use linnet_types::{GroupType, Refusal};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{BAD, within_u32};
use crate::json::{Field, Object};

/// Which fields are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(Option<Vec<String>>);

impl Filter {
    /// Everything.
    pub(super) fn all() -> Self {
        Self(None)
    }

    /// What `field` lists; everything when it is not there.
    pub(super) fn read(field: Field<'_>) -> Result<Self, Refusal> {
        Ok(Self(field.strings(BAD, BAD)?.value))
    }

    /// What `field` lists; nothing when it is not there.
    pub(super) fn read_strict(field: Field<'_>) -> Result<Self, Refusal> {
        Ok(Self(Some(Self::read(field)?.0.unwrap_or_default())))
    }

    /// Whether it names nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether one of `names` is shown.
    pub(super) fn shows(&self, names: &[&str]) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.iter().any(|one| names.contains(&one.as_str())))
    }
}

/// The filters of one call.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    pub(super) base: Filter,
    pub(super) member: Filter,
    pub(super) group_custom: Filter,
    pub(super) member_custom: Filter,
}

impl Filters {
    /// `ResponseFilter` of `get_group_info`: without one everything is shown, with one only what it names.
    pub(super) fn of_groups(field: Field<'_>) -> Result<Self, Refusal> {
        let Some(filter) = field.object(BAD)?.value else { return Ok(Self::all()) };
        let read = |name| Filter::read_strict(filter.at(name));
        Ok(Self {
            base: read("GroupBaseInfoFilter")?,
            member: read("MemberInfoFilter")?,
            group_custom: read("AppDefinedDataFilter_Group")?,
            member_custom: read("AppDefinedDataFilter_GroupMember")?,
        })
    }

    /// `ResponseFilter` of `get_joined_group_list`: without one only ids are shown.
    pub(super) fn of_joined(field: Field<'_>) -> Result<Self, Refusal> {
        let filter = field.object(BAD)?.or(Object::default());
        let read = |name| Filter::read_strict(filter.at(name));
        Ok(Self {
            base: read("GroupBaseInfoFilter")?,
            member: read("SelfInfoFilter")?,
            group_custom: read("AppDefinedDataFilter_Group")?,
            member_custom: read("AppDefinedDataFilter_GroupMember")?,
        })
    }

    /// The filters beside the other fields of the member commands: without any everything is shown.
    pub(super) fn of_members(body: &Object<'_>) -> Result<Self, Refusal> {
        let (member, custom) = (body.at("MemberInfoFilter"), body.at("AppDefinedDataFilter_GroupMember"));
        let member_custom = if member.is_there() { Filter::read_strict(custom)? } else { Filter::read(custom)? };
        Ok(Self { member: Filter::read(member)?, member_custom, ..Self::all() })
    }

    fn all() -> Self {
        Self { base: Filter::all(), member: Filter::all(), group_custom: Filter::all(), member_custom: Filter::all() }
    }
}

/// A reply object under construction: names of a field, both spellings, and its value if the filter shows it.
struct Shown<'f> {
    filter: &'f Filter,
    fields: Map<String, Value>,
}

impl Shown<'_> {
    fn put(&mut self, names: &[&str], value: impl Into<Value>) {
        if self.filter.shows(names) {
            let value = value.into();
            self.fields.extend(names.iter().map(|name| ((*name).to_owned(), value.clone())));
        }
    }
}

/// A group with the fields that `filters` show, without `GroupId`, outcome and members.
pub(super) fn group(app: u32, group: &Group, filters: &Filters) -> Map<String, Value> {
    let kind = GroupType::parse(&group.r#type);
    let mut out = Shown { filter: &filters.base, fields: Map::new() };
    out.put(&["Type"], group.r#type.as_str());
    out.put(&["Name"], group.name.as_str());
    out.put(&["Introduction"], group.introduction.as_str());
    out.put(&["Notification"], group.notification.as_str());
    out.put(&["FaceUrl"], group.face_url.as_str());
    out.put(&["Owner_Account"], group.owner.as_str());
    out.put(&["Appid"], app);
    out.put(&["CreateTime"], group.create_time_s);
    out.put(&["InfoSeq"], group.info_seq);
    out.put(&["LastInfoTime"], group.last_info_time_s);
    out.put(&["LastMsgTime"], group.last_msg_time_s);
    out.put(&["NextMsgSeq"], group.next_msg_seq);
    out.put(&["MemberNum"], group.member_num);
    out.put(&["MaxMemberNum"], group.max_member_num);
    out.put(&["ApplyJoinOption"], group.apply_join_option.as_str());
    if kind.is_some_and(GroupType::is_live) {
        out.put(&["OnlineMemberNum"], group.online);
    } else {
        out.put(&["InviteJoinOption"], group.invite_join_option.as_str());
    }
    out.put(&["MuteAllMember", "ShutUpAllMember"], on_off(group.mute_all));
    match kind {
        Some(GroupType::Community) => out.put(&["SupportTopic"], u8::from(group.support_topic)),
        Some(GroupType::AVChatRoom) | None => {}
        Some(_) => out.put(&["HistoryMsgBeforeJoin"], on_off(group.history_before_join)),
    }
    let custom = custom(&group.custom, &filters.group_custom);
    if !custom.is_empty() {
        out.fields.insert("AppDefinedData".to_owned(), Value::Array(custom));
    }
    out.fields
}

/// A member with the fields that `filters` show; `Member_Account` always, unless it is the caller's own membership.
pub(super) fn member(member: &Member, filters: &Filters, own: bool) -> Map<String, Value> {
    let mut out = Shown { filter: &filters.member, fields: Map::new() };
    if !own {
        out.fields.insert("Member_Account".to_owned(), member.user.as_str().into());
    }
    out.put(&["Role"], member.role.as_str());
    out.put(&["JoinTime"], member.join_time_s);
    out.put(&["MsgSeq"], member.read_seq);
    out.put(&["MsgFlag"], member.msg_flag.as_str());
    out.put(&["LastSendMsgTime"], member.last_send_time_s);
    out.put(&["NameCard"], member.name_card.as_str());
    out.put(&["MuteUntil", "ShutUpUntil"], within_u32(member.mute_until_s));
    let custom = custom(&member.custom, &filters.member_custom);
    if !custom.is_empty() {
        out.fields.insert("AppMemberDefinedData".to_owned(), Value::Array(custom));
    }
    out.fields
}

/// Members of a page.
pub(super) fn members(list: &[Member], filters: &Filters) -> Vec<Map<String, Value>> {
    list.iter().map(|one| member(one, filters, false)).collect()
}

fn custom(pairs: &[KeyValue], filter: &Filter) -> Vec<Value> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pair<'a> {
        key: &'a str,
        value: String,
    }
    let pair =
        |pair: &KeyValue| Pair { key: &pair.key, value: text(&pair.value) }.serialize(serde_json::value::Serializer);
    let shown = pairs.iter().filter(|pair| filter.shows(&[pair.key.as_str()]));
    shown.map(|one| pair(one).expect("two strings")).collect()
}

/// Values come from JSON strings; other bytes cannot be shown in one.
fn text(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn on_off(on: bool) -> &'static str {
    if on { "On" } else { "Off" }
}
