//! `spec/rest-messages.md` §3.1.

use linnet_proto::messages::SendC2cRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::outgoing;
use crate::call::Call;
use crate::commands::message;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    msg_time: u64,
    msg_key: String,
    msg_id: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let to = call.body.at("To_Account").user(code::TO_ACCOUNT, code::TO_ACCOUNT)?.need(code::TO_ACCOUNT)?;
    let (message, sync_other_machine) = outgoing(call, code::REQUEST_TOO_LONG)?;
    let from = message.from.clone();
    let request = SendC2cRequest {
        app: call.app_id(),
        to,
        message: Some(message),
        origin: call.origin(),
        sync_other_machine,
        trusted: true,
        no_webhooks: false,
        in_line: None,
    };
    let sent = call.ask(request).await?;
    let key = message::key(sent.msg_seq, sent.random, sent.time_ms);
    let msg_id = format!("{}-{}-{}", crc32fast::hash(from.as_bytes()), key.time_s, key.random);
    Reply::of(&Fields { msg_time: key.time_s, msg_key: key.to_string(), msg_id })
}
