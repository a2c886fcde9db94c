//! `spec/rest-groups.md` §3.5.

use linnet_proto::group::SendRequest;
use linnet_proto::msg::{Outcome, Priority as Wire, Visibility};
use linnet_types::{Priority, Refusal, UserId, code};
use serde::Serialize;

use super::{BAD, account, no_topic};
use crate::call::Call;
use crate::commands::accounts;
use crate::commands::message::{self, Codes};
use crate::json::{Field, Object};
use crate::reply::Reply;

const CODES: Codes =
    Codes { bad: BAD, body: Some(BAD), body_missing: BAD, too_long: code::MSG_TOO_LONG, offline_push: BAD };
const RECEIVERS: usize = 50;
const MENTIONS: usize = 30;
/// Mentions everybody; clients know this text.
const EVERYBODY: &str = "__kImSDK_MesssageAtALL__";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    msg_time: u64,
    msg_seq: u64,
    msg_drop_reason: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    no_topic(body)?;
    let from = account(body.at("From_Account"))?.unwrap_or_else(|| call.admin.to_string());
    let random = body.at("Random").number(BAD)?.need(BAD)?;
    let mut message = message::parse(call, &CODES)?;
    message.from = from;
    message.random = random;
    message.priority = priority(body.at("MsgPriority"))?.into();
    message.mentions = mentions(body.at("GroupAtInfo"))?;
    message.visible_to = receivers(body.at("To_Account"))?;
    if !message.visible_to.is_empty() {
        message.visibility = Visibility::Listed.into();
        message.no_unread = true;
    }
    if message.online_only && (message.no_unread || message.no_last_msg) {
        return Err(Refusal::new(BAD, "SendMsgControl and To_Account do not go with OnlineOnlyFlag"));
    }
    if message.online_only && message.need_receipt {
        return Err(Refusal::new(code::GROUP_ONLINE_RECEIPT, "online-only messages have no receipts"));
    }
    // He need not be a member, so the group does not know whether he exists.
    if !call.app.is_admin(&message.from) {
        accounts::must_exist(call, &message.from, code::GROUP_NO_USER).await?;
    }
    let request = SendRequest {
        app: call.app_id(),
        group_id,
        message: Some(message),
        origin: call.origin(),
        ..SendRequest::default()
    };
    let sent = call.ask(request).await?;
    let shaped = sent.outcome() == Outcome::Shaped;
    Reply::of(&Fields {
        msg_time: sent.time_ms / 1000,
        msg_seq: if shaped { 0 } else { sent.seq },
        msg_drop_reason: if shaped { sent.drop_reason } else { String::new() },
    })
}

fn priority(field: Field<'_>) -> Result<Wire, Refusal> {
    let Some(text) = field.string(BAD)?.value else { return Ok(Wire::Normal) };
    let unknown = || Refusal::new(BAD, "MsgPriority must be High, Normal, Low or Lowest");
    Ok(match Priority::parse(&text).ok_or_else(unknown)? {
        Priority::High => Wire::High,
        Priority::Normal => Wire::Normal,
        Priority::Low => Wire::Low,
        Priority::Lowest => Wire::Lowest,
    })
}

fn receivers(field: Field<'_>) -> Result<Vec<String>, Refusal> {
    let receivers = field.strings(BAD, code::ACCOUNT_TYPE)?.within(RECEIVERS, BAD)?.or_default();
    if receivers.iter().any(|user| UserId::parse(user).is_err()) {
        return Err(Refusal::new(code::GROUP_NO_USER, "To_Account: no such account"));
    }
    Ok(receivers)
}

fn mentions(field: Field<'_>) -> Result<Vec<String>, Refusal> {
    let mention = |item: &Object<'_>| {
        if item.at("GroupAtAllFlag").switch(BAD)? {
            return Ok(EVERYBODY.to_owned());
        }
        account(item.at("GroupAt_Account"))?.ok_or_else(|| Refusal::new(BAD, "GroupAt_Account is missing"))
    };
    field.objects(BAD)?.within(MENTIONS, code::GROUP_MENTIONS)?.or_default().iter().map(mention).collect()
}
