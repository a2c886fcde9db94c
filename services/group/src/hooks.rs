//! Bodies of the webhooks this service tells and asks (`spec/webhooks.md` §5), keys sorted, without `CallbackCommand`.
//!
//! Message bodies go in as they were received, byte for byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use linnet_proto::callback;
use linnet_proto::group::KeyValue;
use linnet_proto::msg::{Message, Origin};
use linnet_types::{GroupType, Priority, Refusal, SdkAppId, UnixMillis, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

/// Commands, as `webhook.events` names them.
pub mod command {
    /// Before a group is created.
    pub const BEFORE_CREATE: &str = "Group.CallbackBeforeCreateGroup";
    /// A group was created.
    pub const AFTER_CREATE: &str = "Group.CallbackAfterCreateGroup";
    /// Before a user enters or applies.
    pub const BEFORE_APPLY: &str = "Group.CallbackBeforeApplyJoinGroup";
    /// Before users are brought in.
    pub const BEFORE_INVITE: &str = "Group.CallbackBeforeInviteJoinGroup";
    /// Members came.
    pub const AFTER_JOIN: &str = "Group.CallbackAfterNewMemberJoin";
    /// Members went.
    pub const AFTER_EXIT: &str = "Group.CallbackAfterMemberExit";
    /// Before a message.
    pub const BEFORE_SEND: &str = "Group.CallbackBeforeSendMsg";
    /// A message was stored, or accepted in a live room.
    pub const AFTER_SEND: &str = "Group.CallbackAfterSendMsg";
    /// A message was refused or shaped.
    pub const SEND_EXCEPTION: &str = "Group.CallbackSendMsgException";
    /// Messages were recalled.
    pub const AFTER_RECALL: &str = "Group.CallbackAfterRecallMsg";
    /// A join filled the group or found it full.
    pub const AFTER_FULL: &str = "Group.CallbackAfterGroupFull";
    /// A group was dismissed.
    pub const AFTER_DESTROY: &str = "Group.CallbackAfterGroupDestroyed";
    /// Name, introduction, notification or face changed.
    pub const AFTER_INFO: &str = "Group.CallbackAfterGroupInfoChanged";
    /// The group has another owner.
    pub const AFTER_OWNER: &str = "Group.CallbackAfterChangeGroupOwner";
    /// Role or name card of a member changed.
    pub const AFTER_MEMBER: &str = "Group.CallbackAfterMemberFieldChanged";
    /// Users came into or went out of a live room.
    pub const STATE: &str = "Group.CallbackOnMemberStateChange";
}

/// A JSON object with sorted keys.
#[derive(Debug, Default)]
pub struct Body(BTreeMap<&'static str, Box<RawValue>>);

#[derive(Serialize)]
struct Account<'a> {
    #[serde(rename = "Member_Account")]
    id: &'a str,
}

impl Body {
    /// The fields most bodies share.
    #[must_use]
    pub fn of(group: &str, kind: GroupType, now: UnixMillis) -> Self {
        Self::default().with("GroupId", group).with("Type", kind.wire()).with("EventTime", &now.0)
    }

    /// Adds a field.
    #[must_use]
    pub fn with<T: Serialize + ?Sized>(mut self, key: &'static str, value: &T) -> Self {
        let raw = serde_json::value::to_raw_value(value).expect("plain data is always JSON");
        self.0.insert(key, raw);
        self
    }

    /// Adds who caused it.
    #[must_use]
    pub fn operator(self, origin: &Origin) -> Self {
        self.with("Operator_Account", &origin.operator)
    }

    /// Adds a list of accounts.
    #[must_use]
    pub fn accounts<'a>(self, key: &'static str, users: impl IntoIterator<Item = &'a UserId>) -> Self {
        let list: Vec<_> = users.into_iter().map(|user| Account { id: user.as_str() }).collect();
        self.with(key, &list)
    }

    /// Adds JSON text as it is; text that is not JSON is left out.
    #[must_use]
    pub fn raw(mut self, key: &'static str, json: &[u8]) -> Self {
        if let Ok(raw) = serde_json::from_slice::<Box<RawValue>>(json) {
            self.0.insert(key, raw);
        }
        self
    }

    /// The text of the object.
    #[must_use]
    pub fn json(&self) -> Bytes {
        serde_json::to_vec(&self.0).expect("a map of JSON values is JSON").into()
    }
}

/// Before or after a message, or its failure; `seq` and `time_ms` are shown when given.
#[must_use]
pub fn message(group: &str, kind: GroupType, message: &Message, now: UnixMillis, stored: Option<(u64, u64)>) -> Body {
    let operator = if message.origin_operator.is_empty() { &message.from } else { &message.origin_operator };
    let online_only = u8::from(message.online_only && !kind.is_live());
    let mut body = Body::of(group, kind, now)
        .with("From_Account", &message.from)
        .with("Operator_Account", operator)
        .with("Random", &message.random)
        .with("OnlineOnlyFlag", &online_only)
        .with("MsgPriority", priority(message).wire())
        .raw("MsgBody", &message.body)
        .with("CloudCustomData", &message.cloud_custom_data);
    if let Some((seq, time_ms)) = stored {
        body = body.with("MsgSeq", &seq).with("MsgTime", &(time_ms / 1_000));
    }
    body
}

/// A message that was not sent.
#[must_use]
pub fn exception(group: &str, kind: GroupType, failed: &Message, now: UnixMillis, why: &Refusal) -> Body {
    message(group, kind, failed, now, None).with("ErrorCode", &why.code).with("ErrorInfo", &why.info)
}

/// A live room's users came (`Online`, `Join`) or went (`Offline`, `Quit`).
#[must_use]
pub fn state(group: &str, online: bool, users: &[UserId], now: UnixMillis) -> Body {
    let (kind, cause) = if online { ("Online", "Join") } else { ("Offline", "Quit") };
    Body::of(group, GroupType::AVChatRoom, now)
        .with("EventType", kind)
        .with("EventCause", cause)
        .accounts("MemberList", users)
}

/// Custom fields as `UserDefinedDataList` shows them.
#[must_use]
pub fn custom(body: Body, fields: &[KeyValue]) -> Body {
    #[derive(Serialize)]
    struct Field<'a> {
        #[serde(rename = "Key")]
        key: &'a str,
        #[serde(rename = "Value")]
        value: std::borrow::Cow<'a, str>,
    }
    if fields.is_empty() {
        return body;
    }
    let list: Vec<_> = fields.iter().map(|f| Field { key: &f.key, value: String::from_utf8_lossy(&f.value) }).collect();
    body.with("UserDefinedDataList", &list)
}

/// Priority of an inner message.
#[must_use]
pub fn priority(message: &Message) -> Priority {
    use linnet_proto::msg::Priority as P;
    match message.priority() {
        P::High => Priority::High,
        P::Normal => Priority::Normal,
        P::Low => Priority::Low,
        P::Lowest => Priority::Lowest,
    }
}

/// What the outbox keeps of an event, and what is needed to hand it on.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Stored {
    /// Address of the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// Platform of the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The body.
    pub body: Box<RawValue>,
}

/// An outbox row's text.
#[must_use]
pub fn stored(body: &Body, origin: &Origin) -> Bytes {
    let body = serde_json::value::to_raw_value(&body.0).expect("a map of JSON values is JSON");
    let row = Stored { client_ip: origin.client_ip.clone(), platform: origin.platform.clone(), body };
    serde_json::to_vec(&row).expect("plain data is always JSON").into()
}

/// An event for the callback service. `id` names the delivery; `key` orders it.
#[must_use]
pub fn event(
    app: SdkAppId,
    command: &str,
    conv: u64,
    id: String,
    body: Bytes,
    origin: &Origin,
    now: UnixMillis,
) -> callback::Event {
    callback::Event {
        app: app.0,
        command: command.to_owned(),
        key: format!("c{conv}"),
        id,
        body,
        client_ip: origin.client_ip.clone(),
        platform: origin.platform.clone(),
        time_ms: now.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_sorted_and_keep_elements_as_received() {
        let element = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi","z":5.0,"a":12345678901234567890}}]"#;
        let sent = Message {
            from: "u7".into(),
            random: 31337,
            body: element.into(),
            origin_operator: "admin".into(),
            ..Message::default()
        };
        let text = message("room9", GroupType::AVChatRoom, &sent, UnixMillis(1_760_000_000_123), None).json();
        let want = format!(
            r#"{{"CloudCustomData":"","EventTime":1760000000123,"From_Account":"u7","GroupId":"room9","MsgBody":{element},"MsgPriority":"Normal","OnlineOnlyFlag":0,"Operator_Account":"admin","Random":31337,"Type":"AVChatRoom"}}"#
        );
        assert_eq!(String::from_utf8(text.into()).expect("JSON"), want);
    }

    #[test]
    fn lists_of_accounts_and_custom_fields() {
        let body = Body::of("g", GroupType::Work, UnixMillis(5)).accounts("MemberList", &[UserId::trusted("a")]);
        let body = custom(body, &[KeyValue { key: "k".into(), value: b"v".to_vec().into() }]);
        let want = r#"{"EventTime":5,"GroupId":"g","MemberList":[{"Member_Account":"a"}],"Type":"Private","UserDefinedDataList":[{"Key":"k","Value":"v"}]}"#;
        assert_eq!(String::from_utf8(body.json().into()).expect("JSON"), want);
    }

    #[test]
    fn an_outbox_row_comes_back_as_it_went_in() {
        let origin = Origin { client_ip: "10.0.0.1".into(), platform: "RESTAPI".into(), ..Origin::default() };
        let body = Body::of("g", GroupType::Public, UnixMillis(5)).operator(&origin);
        let row: Stored = serde_json::from_slice(&stored(&body, &origin)).expect("JSON");
        assert_eq!(row.body.get().as_bytes(), body.json());
        assert_eq!((row.client_ip.as_str(), row.platform.as_str()), ("10.0.0.1", "RESTAPI"));
    }
}
