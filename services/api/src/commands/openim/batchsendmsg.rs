//! `spec/rest-messages.md` §3.2.

use std::collections::HashMap;

use futures::StreamExt;
use linnet_proto::messages::SendC2cRequest;
use linnet_proto::msg::SendReply;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::outgoing;
use crate::call::Call;
use crate::commands::{accounts, message};
use crate::reply::Reply;

const MOST: usize = 500;
/// Sends of one call under way at once.
const AT_ONCE: usize = 32;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    error_list: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    #[serde(rename = "To_Account")]
    to_account: String,
    #[serde(rename = "ErrorCode")]
    error_code: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let to = call.body.at("To_Account").strings(code::BATCH_NOT_ARRAY, code::TO_ACCOUNT)?;
    let to = to.need(code::BATCH_NOT_ARRAY)?;
    if to.is_empty() {
        return Err(Refusal::new(code::BATCH_EMPTY, "To_Account is empty"));
    }
    if to.len() > MOST {
        return Err(Refusal::new(code::TOO_MANY_RECEIVERS, format!("To_Account has more than {MOST} elements")));
    }
    let (message, sync_other_machine) = outgoing(call, code::BATCH_TOO_LONG)?;
    call.world.limits.receivers(call.tenant(), to.len())?;
    let mut named = to.clone();
    named.push(message.from.clone());
    let existing = accounts::existing(call, &named).await?;
    if !call.app.is_admin(&message.from) && !existing.contains(&message.from) {
        return Err(Refusal::new(code::FROM_ACCOUNT, "From_Account is not registered"));
    }
    let to = accounts::distinct(to.iter().map(String::as_str));
    let request = |to: &String| SendC2cRequest {
        app: call.app_id(),
        to: to.clone(),
        message: Some(message.clone()),
        origin: call.origin(),
        sync_other_machine,
        trusted: true,
        no_webhooks: true,
        in_line: None,
    };
    let send = |to: String| async { (call.ask(request(&to)).await, to) };
    let receivers: Vec<String> = to.iter().filter(|id| existing.contains(*id)).cloned().collect();
    let outcomes: Vec<_> = futures::stream::iter(receivers).map(send).buffer_unordered(AT_ONCE).collect().await;
    let outcomes = outcomes.into_iter().map(|(outcome, to)| (to, outcome)).collect();
    reply(&to, outcomes)
}

fn reply(to: &[String], mut outcomes: HashMap<String, Result<SendReply, Refusal>>) -> Result<Reply, Refusal> {
    let mut sent = None;
    let mut error_list = Vec::new();
    let mut last = Refusal::new(code::TO_ACCOUNT_UNKNOWN, "invalid To_Account");
    for to_account in to {
        match outcomes.remove(to_account) {
            Some(Ok(done)) => drop(sent.get_or_insert(done)),
            Some(Err(refusal)) => {
                error_list.push(Failed { to_account: to_account.clone(), error_code: refusal.code });
                last = refusal;
            }
            None => error_list.push(Failed { to_account: to_account.clone(), error_code: code::ACCOUNT_UNKNOWN }),
        }
    }
    let msg_key = sent.map(|sent| message::key(sent.msg_seq, sent.random, sent.time_ms).to_string());
    let (none, all) = (msg_key.is_none(), error_list.is_empty());
    let reply = Reply::of(&Fields { msg_key, error_list })?;
    Ok(match (none, all) {
        (true, _) => reply.failed(&last),
        (_, true) => reply,
        _ => reply.partly(),
    })
}
