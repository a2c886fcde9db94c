//! Bodies of the webhooks about messages (`spec/webhooks.md` §4, §5.1, §6): sorted keys, elements byte for byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use linnet_proto::callback::Event;
use linnet_proto::msg::{Message, Origin, Priority};
use linnet_types::UnixMillis;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::msgkey::key_of;

/// Asked before a one-to-one message is stored.
pub(crate) const C2C_BEFORE: &str = "C2C.CallbackBeforeSendMsg";
/// Told after.
pub(crate) const C2C_AFTER: &str = "C2C.CallbackAfterSendMsg";
/// A reader's position moved.
pub(crate) const C2C_READ: &str = "C2C.CallbackAfterMsgReport";
/// A message was recalled.
pub(crate) const C2C_RECALLED: &str = "C2C.CallbackAfterMsgWithDraw";
/// A message reached a bot.
pub(crate) const BOT_C2C: &str = "Bot.OnC2CMessage";
/// Told after a group message.
pub(crate) const GROUP_AFTER: &str = "Group.CallbackAfterSendMsg";
/// A bot was mentioned.
pub(crate) const BOT_GROUP: &str = "Bot.OnGroupMessage";

/// Mention of everyone, as clients write it.
pub(crate) const AT_ALL: &str = "__kImSDK_MesssageAtALL__";

/// A JSON object with sorted keys.
#[derive(Debug, Default)]
struct Body(BTreeMap<&'static str, Box<RawValue>>);

impl Body {
    fn set(mut self, key: &'static str, value: impl Serialize) -> Self {
        let raw = serde_json::value::to_raw_value(&value).expect("plain values become JSON");
        self.0.insert(key, raw);
        self
    }

    /// The message's elements, unchanged.
    fn elements(mut self, json: &Bytes) -> Self {
        let text = std::str::from_utf8(json).unwrap_or("[]");
        // A body was checked before it was stored; what cannot be read back must not stop the rest of the log.
        let raw = RawValue::from_string(text.to_owned())
            .unwrap_or_else(|_| serde_json::value::to_raw_value(&[(); 0]).expect("an empty array is JSON"));
        self.0.insert("MsgBody", raw);
        self
    }

    fn done(self) -> Bytes {
        serde_json::to_vec(&self.0).expect("a map of JSON values becomes JSON").into()
    }
}

fn c2c(message: &Message, to: &str, now: UnixMillis) -> Body {
    let body = Body::default()
        .set("From_Account", &message.from)
        .set("To_Account", to)
        .set("MsgSeq", message.msg_seq)
        .set("MsgRandom", message.random)
        .set("MsgTime", UnixMillis(message.time_ms).secs())
        .set("MsgKey", key_of(message).to_string())
        .set("OnlineOnlyFlag", u8::from(message.online_only))
        .set("EventTime", now.0)
        .elements(&message.body);
    if message.cloud_custom_data.is_empty() { body } else { body.set("CloudCustomData", &message.cloud_custom_data) }
}

/// Body of [`C2C_BEFORE`]; the time is not final yet.
pub(crate) fn c2c_before(message: &Message, to: &str, now: UnixMillis) -> Bytes {
    let draft = Message { time_ms: now.0, ..message.clone() };
    c2c(&draft, to, now).done()
}

/// Body of [`C2C_AFTER`] and [`BOT_C2C`].
pub(crate) fn c2c_after(message: &Message, to: &str, result: u32, info: &str, unread: Option<u64>) -> Bytes {
    let unread = unread.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    c2c(message, to, UnixMillis(message.time_ms))
        .set("SendMsgResult", result)
        .set("ErrorInfo", info)
        .set("UnreadMsgNum", unread)
        .done()
}

/// Body of [`C2C_READ`].
pub(crate) fn c2c_read(reader: &str, peer: &str, last_read_s: u64, unread: u64, now: UnixMillis) -> Bytes {
    Body::default()
        .set("Report_Account", reader)
        .set("Peer_Account", peer)
        .set("LastReadTime", last_read_s)
        .set("UnreadMsgNum", unread)
        .set("EventTime", now.0)
        .done()
}

/// Body of [`C2C_RECALLED`].
pub(crate) fn c2c_recalled(from: &str, to: &str, msg_key: &str, unread: u64, now: UnixMillis) -> Bytes {
    Body::default()
        .set("From_Account", from)
        .set("To_Account", to)
        .set("MsgKey", msg_key)
        .set("UnreadMsgNum", unread)
        .set("EventTime", now.0)
        .done()
}

#[derive(Serialize)]
struct At<'a> {
    #[serde(rename = "GroupAtAllFlag")]
    all: u8,
    #[serde(rename = "GroupAt_Account", skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
}

fn group(message: &Message, group_id: &str, group_type: &str) -> Body {
    let operator = if message.origin_operator.is_empty() { &message.from } else { &message.origin_operator };
    let mut body = Body::default()
        .set("GroupId", group_id)
        .set("Type", group_type)
        .set("From_Account", &message.from)
        .set("Operator_Account", operator)
        .set("Random", message.random)
        .set("MsgSeq", message.seq)
        .set("MsgTime", UnixMillis(message.time_ms).secs())
        .set("OnlineOnlyFlag", u8::from(message.online_only))
        .set("MsgPriority", priority(message.priority()))
        .set("EventTime", message.time_ms)
        .elements(&message.body);
    if !message.cloud_custom_data.is_empty() {
        body = body.set("CloudCustomData", &message.cloud_custom_data);
    }
    if !message.mentions.is_empty() {
        let at = |who: &String| {
            let all = who == AT_ALL;
            serde_json::to_value(At { all: u8::from(all), account: (!all).then_some(who) }).expect("plain data")
        };
        body = body.set("GroupAtInfo", message.mentions.iter().map(at).collect::<Vec<_>>());
    }
    body
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "High",
        Priority::Normal => "Normal",
        Priority::Low => "Low",
        Priority::Lowest => "Lowest",
    }
}

/// Body of [`GROUP_AFTER`].
pub(crate) fn group_after(message: &Message, group_id: &str, group_type: &str) -> Bytes {
    group(message, group_id, group_type).done()
}

/// Body of [`BOT_GROUP`]: `robots` are the bots mentioned.
pub(crate) fn bot_group(message: &Message, group_id: &str, group_type: &str, robots: &[&str]) -> Bytes {
    group(message, group_id, group_type).set("AtRobots_Account", robots).done()
}

/// Where an event goes and how it is told apart.
pub(crate) struct Address<'a> {
    pub app: u32,
    pub command: &'static str,
    /// `c<ConvId>`: in order per conversation.
    pub key: String,
    /// Conversation, position and command.
    pub id: String,
    pub platform: &'a str,
    pub client_ip: &'a str,
    pub time_ms: u64,
}

impl Address<'_> {
    /// The event with its body.
    pub(crate) fn event(self, body: Bytes) -> Event {
        Event {
            app: self.app,
            command: self.command.to_owned(),
            key: self.key,
            id: self.id,
            body,
            client_ip: self.client_ip.to_owned(),
            platform: self.platform.to_owned(),
            time_ms: self.time_ms,
        }
    }
}

/// The address of an event derived from a stored message.
pub(crate) fn stored<'a>(app: u32, conv: u64, command: &'static str, message: &'a Message) -> Address<'a> {
    Address {
        app,
        command,
        key: format!("c{conv}"),
        id: format!("c{conv}-{}-{command}", message.seq),
        platform: &message.origin_platform,
        client_ip: &message.origin_ip,
        time_ms: message.time_ms,
    }
}

/// The address of an event about a call that stored nothing of its own; `what` tells it apart.
pub(crate) fn called<'a>(
    app: u32,
    conv: u64,
    command: &'static str,
    what: &str,
    origin: &'a Origin,
    now: UnixMillis,
) -> Address<'a> {
    Address {
        app,
        command,
        key: format!("c{conv}"),
        id: format!("c{conv}-{what}-{command}"),
        platform: &origin.platform,
        client_ip: &origin.client_ip,
        time_ms: now.0,
    }
}

#[cfg(test)]
mod tests;
