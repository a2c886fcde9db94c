//! `group_open_http_svc`: groups, their members and messages (`spec/rest-groups.md` §3).

pub(crate) mod add_group_member;
pub(crate) mod ban_group_member;
pub(crate) mod change_group_owner;
pub(crate) mod create_group;
pub(crate) mod delete_group_member;
pub(crate) mod destroy_group;
pub(crate) mod forbid_send_msg;
pub(crate) mod get_appid_group_list;
pub(crate) mod get_group_ban_member;
pub(crate) mod get_group_info;
pub(crate) mod get_group_member_info;
pub(crate) mod get_group_muted_account;
pub(crate) mod get_joined_group_list;
pub(crate) mod get_online_member_num;
pub(crate) mod get_role_in_group;
pub(crate) mod get_specified_group_member_info;
pub(crate) mod group_msg_get_simple;
pub(crate) mod group_msg_recall;
pub(crate) mod modify_group_base_info;
pub(crate) mod modify_group_member_info;
pub(crate) mod send_group_msg;
pub(crate) mod send_group_system_notification;
pub(crate) mod set_unread_msg_num;
pub(crate) mod unban_group_member;

mod show;

use bytes::Bytes;
use linnet_proto::group::{InfoRequest, KeyValue};
use linnet_types::{ApplyJoinOption, GroupType, InviteJoinOption, Refusal, code};

use crate::call::Call;
use crate::json::{Field, Object};

const BAD: u32 = code::GROUP_BAD_PARAM;

/// Topics are not served yet: a message for one must not land in the community.
fn no_topic(body: &Object<'_>) -> Result<(), Refusal> {
    match body.at("TopicId").string(BAD)?.or_default().as_str() {
        "" => Ok(()),
        _ => Err(Refusal::new(code::TOPICS_OFF, "topics are not switched on")),
    }
}

/// An optional account that must be a possible one.
fn account(field: Field<'_>) -> Result<Option<String>, Refusal> {
    Ok(field.user(code::ACCOUNT_TYPE, code::GROUP_NO_USER)?.value)
}

/// A list of accounts as given, with the documented cap.
fn accounts(field: Field<'_>, most: usize) -> Result<Vec<String>, Refusal> {
    field.strings(BAD, code::ACCOUNT_TYPE)?.need_within(most, BAD, code::GROUP_TOO_MANY)
}

/// Refuses unless the group is there, where nothing else is left to ask about it.
async fn must_exist(call: &Call<'_>, group_id: &str) -> Result<(), Refusal> {
    let request = InfoRequest { app: call.app_id(), group_id: group_id.to_owned(), ..InfoRequest::default() };
    call.ask(request).await.map(drop)
}

/// A group type in either generation of names; answers the wire value.
fn group_type(field: Field<'_>) -> Result<Option<&'static str>, Refusal> {
    let unknown = |text: String| Refusal::new(BAD, format!("{text}: no such group type"));
    let text = field.string(BAD)?.value;
    text.map(|text| GroupType::parse(&text).map(GroupType::wire).ok_or_else(|| unknown(text))).transpose()
}

fn apply_option(field: Field<'_>) -> Result<Option<String>, Refusal> {
    one_of(field, |text| ApplyJoinOption::parse(text).is_some())
}

fn invite_option(field: Field<'_>) -> Result<Option<String>, Refusal> {
    one_of(field, |text| InviteJoinOption::parse(text).is_some())
}

/// A string that `known` knows.
fn one_of(field: Field<'_>, known: impl Fn(&str) -> bool) -> Result<Option<String>, Refusal> {
    match field.string(BAD)?.value {
        Some(text) if !known(&text) => Err(Refusal::new(BAD, format!("{text}: no such value"))),
        text => Ok(text),
    }
}

/// When something ends, in seconds; what ends after the last `u32` is for ever, as the documents have no larger number.
fn within_u32(until_s: u64) -> u64 {
    until_s.min(u32::MAX.into())
}

/// `On` or `Off`.
fn on_off(field: Field<'_>) -> Result<Option<bool>, Refusal> {
    Ok(one_of(field, |text| matches!(text, "On" | "Off"))?.map(|text| text == "On"))
}

/// `[{"Key":…,"Value":…}]`; a missing value is an empty one.
fn custom(field: Field<'_>) -> Result<Vec<KeyValue>, Refusal> {
    let pair = |item: &Object<'_>| {
        let value = item.at("Value").string(BAD)?.or_default();
        Ok(KeyValue { key: item.at("Key").string(BAD)?.need(BAD)?, value: Bytes::from(value) })
    };
    field.objects(BAD)?.or_default().iter().map(pair).collect()
}
