//! `spec/rest-messages.md` §3.7.

use linnet_proto::messages::UnreadC2cRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

const MOST: usize = 10;

#[derive(Serialize)]
struct Total {
    #[serde(rename = "AllC2CUnreadMsgNum")]
    total: u64,
}

#[derive(Serialize)]
struct Fields {
    #[serde(rename = "C2CUnreadMsgNumList")]
    list: Vec<Unread>,
    #[serde(rename = "ErrorList", skip_serializing_if = "Vec::is_empty")]
    error_list: Vec<Failed>,
}

#[derive(Serialize)]
struct Unread {
    #[serde(rename = "Peer_Account")]
    peer_account: String,
    #[serde(rename = "C2CUnreadMsgNum")]
    unread: u64,
}

#[derive(Serialize)]
struct Failed {
    #[serde(rename = "Peer_Account")]
    peer_account: String,
    #[serde(rename = "ErrorCode")]
    error_code: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::OPENIM_BAD_JSON;
    let user = call.body.at("To_Account").user(code::TO_ACCOUNT, code::TO_ACCOUNT)?.need(code::TO_ACCOUNT)?;
    let peers = call.body.at("Peer_Account").strings(bad, code::TO_ACCOUNT)?.within(MOST, bad)?.or_default();
    let mut named = peers.clone();
    named.push(user.clone());
    let existing = accounts::existing(call, &named).await?;
    if !existing.contains(&user) {
        return Err(Refusal::new(code::TO_ACCOUNT, "To_Account is not registered"));
    }
    let (asked, unknown): (Vec<_>, Vec<_>) = peers.iter().cloned().partition(|id| existing.contains(id));
    if asked.is_empty() && !unknown.is_empty() {
        return fields(asked, Vec::new(), unknown);
    }
    let reply =
        call.ask(UnreadC2cRequest { app: call.app_id(), user, peers: asked.clone(), ..Default::default() }).await?;
    if peers.is_empty() {
        return Reply::of(&Total { total: reply.total });
    }
    fields(asked, reply.unread, unknown)
}

fn fields(asked: Vec<String>, unread: Vec<u64>, unknown: Vec<String>) -> Result<Reply, Refusal> {
    let list = asked.into_iter().zip(unread).map(|(peer_account, unread)| Unread { peer_account, unread }).collect();
    let failed = |peer_account| Failed { peer_account, error_code: code::ACCOUNT_UNKNOWN };
    Reply::of(&Fields { list, error_list: unknown.into_iter().map(failed).collect() })
}
