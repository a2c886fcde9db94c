//! `spec/rest-messages.md` §3.4: pages run backwards in time, a page ascends.

use linnet_proto::messages::HistoryRequest;
use linnet_proto::msg::Message;
use linnet_types::{MsgKey, Refusal, code};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::call::Call;
use crate::commands::{accounts, message};
use crate::reply::Reply;

const MOST: u32 = 100;
const PAGE_BYTES: u32 = 13 * 1024;
const RECALLED: u32 = 8;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    complete: u8,
    msg_cnt: usize,
    last_msg_time: u64,
    last_msg_key: String,
    msg_list: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(rename = "From_Account")]
    from_account: String,
    #[serde(rename = "To_Account")]
    to_account: String,
    msg_seq: u32,
    msg_random: u32,
    msg_time_stamp: u64,
    msg_flag_bits: u32,
    is_peer_read: u8,
    msg_key: String,
    msg_body: Box<RawValue>,
    cloud_custom_data: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (body, bad) = (&call.body, code::OPENIM_BAD_JSON);
    let operator = body.any(&["Operator_Account", "From_Account"]).user(code::FROM_ACCOUNT, code::FROM_ACCOUNT)?;
    let operator = operator.need(code::FROM_ACCOUNT)?;
    let peer = body.any(&["Peer_Account", "To_Account"]).user(code::TO_ACCOUNT, code::TO_ACCOUNT)?;
    let peer = peer.need(code::TO_ACCOUNT)?;
    let last = body.at("LastMsgKey").string(code::MSG_KEY)?.or_default();
    if !last.is_empty() && last.parse::<MsgKey>().is_err() {
        return Err(Refusal::new(code::MSG_KEY, "LastMsgKey is not a message key"));
    }
    let request = HistoryRequest {
        app: call.app_id(),
        peer_a: operator.clone(),
        peer_b: peer.clone(),
        viewer: operator.clone(),
        from_time_s: body.at("MinTime").number(bad)?.need(bad)?,
        to_time_s: body.at("MaxTime").number(bad)?.need(bad)?,
        limit: body.at("MaxCnt").number::<u32>(bad)?.need(bad)?.clamp(1, MOST),
        max_bytes: PAGE_BYTES,
        before_msg_key: last,
        ..HistoryRequest::default()
    };
    let page = call.ask(request).await?;
    if page.messages.is_empty() {
        // Asked only here: what was written with an account deleted since can still be read.
        accounts::pair_must_exist(call, &operator, &peer).await?;
    }
    let item = |message| item(message, &operator, &peer);
    let msg_list: Vec<_> = page.messages.into_iter().rev().map(item).collect();
    let oldest = msg_list.first();
    Reply::of(&Fields {
        complete: page.complete.into(),
        msg_cnt: msg_list.len(),
        last_msg_time: oldest.map_or(0, |item| item.msg_time_stamp),
        last_msg_key: oldest.map(|item| item.msg_key.clone()).unwrap_or_default(),
        msg_list,
    })
}

fn item(message: Message, operator: &str, peer: &str) -> Item {
    let to = if message.from == operator { peer } else { operator };
    let key = message::key(message.msg_seq, message.random, message.time_ms);
    Item {
        to_account: to.to_owned(),
        msg_seq: message.msg_seq,
        msg_random: message.random,
        msg_time_stamp: key.time_s,
        msg_flag_bits: if message.revoked { RECALLED } else { 0 },
        is_peer_read: message.peer_read.into(),
        msg_key: key.to_string(),
        msg_body: message::elements(&message.body),
        from_account: message.from,
        cloud_custom_data: message.cloud_custom_data,
    }
}
