//! What every way of sending shares: elements kept as they came, switches, mentions, and how a message is shown again.

use bytes::Bytes;
use linnet_proto::msg::{Message, MessageKind, Priority};
use linnet_types::{MsgBody, MsgKey, Refusal};
use serde_json::value::RawValue;

use crate::call::Call;
use crate::json::Field;

/// Which code a bad field has; the two kinds of conversation have their own.
pub(crate) struct Codes {
    /// A field of a wrong type.
    pub(crate) bad: u32,
    /// `MsgBody` is missing or an element is wrong; `None` keeps the code of the check.
    pub(crate) body: Option<u32>,
    pub(crate) body_missing: u32,
    pub(crate) too_long: u32,
    pub(crate) offline_push: u32,
}

/// The fields that all sends have. `from`, the token and what only one kind knows are the caller's to fill.
pub(crate) fn parse(call: &Call<'_>, codes: &Codes) -> Result<Message, Refusal> {
    let (body, bad) = (&call.body, codes.bad);
    let elements = body.at("MsgBody").raw().need(codes.body_missing)?;
    let elements = MsgBody::parse(elements.get())
        .map_err(|refusal| Refusal { code: codes.body.unwrap_or(refusal.code), ..refusal })?;
    let cloud_custom_data = body.at("CloudCustomData").string(bad)?.or_default();
    let most = usize::try_from(call.app.settings.message_bytes).unwrap_or(usize::MAX);
    if elements.len() + cloud_custom_data.len() > most {
        return Err(Refusal::new(codes.too_long, format!("MsgBody and CloudCustomData are over {most} bytes")));
    }
    let control = body.at("SendMsgControl").strings(bad, bad)?.or_default();
    let forbid = body.at("ForbidCallbackControl").strings(bad, bad)?.or_default();
    let has = |list: &[String], word: &str| list.iter().any(|one| one == word);
    let content = Bytes::copy_from_slice(elements.as_json().as_bytes());
    Ok(Message {
        content_hash: linnet_admission::content_hash(&content, &cloud_custom_data),
        body: content,
        cloud_custom_data,
        kind: MessageKind::Chat.into(),
        no_unread: has(&control, "NoUnread"),
        no_last_msg: has(&control, "NoLastMsg"),
        with_mute_notifications: has(&control, "WithMuteNotifications"),
        online_only: body.any(&["OnlineOnlyFlag", "MsgOnlineOnlyFlag"]).switch(bad)?,
        forbid_before: has(&forbid, "ForbidBeforeSendMsgCallback"),
        forbid_after: has(&forbid, "ForbidAfterSendMsgCallback"),
        need_receipt: body.any(&["IsNeedReadReceipt", "NeedReadReceipt"]).switch(bad)?,
        supports_extension: body.at("SupportMessageExtension").switch(bad)?,
        offline_push: offline_push(body.at("OfflinePushInfo"), codes.offline_push)?,
        origin_operator: call.origin.operator.clone(),
        origin_platform: call.origin.platform.clone(),
        origin_ip: call.origin.client_ip.clone(),
        ..Message::default()
    })
}

fn offline_push(field: Field<'_>, wrong: u32) -> Result<Bytes, Refusal> {
    if field.object(wrong)?.value.is_none() {
        return Ok(Bytes::new());
    }
    Ok(Bytes::copy_from_slice(field.raw().need(wrong)?.get().as_bytes()))
}

/// The public key of a one-to-one message.
pub(crate) fn key(msg_seq: u32, random: u32, time_ms: u64) -> MsgKey {
    MsgKey { msg_seq, random, time_s: time_ms / 1000 }
}

/// The elements of a stored message as they were received; `[]` when they are gone.
pub(crate) fn elements(body: &Bytes) -> Box<RawValue> {
    let stored = std::str::from_utf8(body).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok());
    stored.unwrap_or_else(|| RawValue::from_string("[]".to_owned()).expect("valid JSON"))
}

/// 1 to 4, as history shows priorities (`spec/rest-groups.md` §3.5).
pub(crate) fn priority_number(message: &Message) -> u32 {
    match message.priority() {
        Priority::High => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
        Priority::Lowest => 4,
    }
}
