//! `spec/rest-groups.md` §3.5: each message has an outcome of its own.

use linnet_proto::group::RecallRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::{BAD, no_topic};
use crate::call::Call;
use crate::json::Object;
use crate::reply::Reply;

const MOST: usize = 10;
const REASON_BYTES: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    recall_ret_list: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    msg_seq: u64,
    ret_code: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    no_topic(body)?;
    let list = body.at("MsgSeqList").objects(BAD)?.need_within(MOST, BAD, BAD)?;
    let seq = |item: &Object<'_>| item.at("MsgSeq").number::<u64>(BAD)?.need(BAD);
    let seqs = list.iter().map(seq).collect::<Result<Vec<_>, Refusal>>()?;
    let reason = body.at("Reason").string_within(REASON_BYTES, BAD, BAD)?.or_default();
    let request = RecallRequest { app: call.app_id(), group_id, seqs: seqs.clone(), reason, origin: call.origin() };
    let codes = call.ask(request).await?.codes.into_iter().chain(std::iter::repeat(code::GROUP_INTERNAL));
    let item = |(msg_seq, ret_code)| Item { msg_seq, ret_code };
    Reply::of(&Fields { recall_ret_list: seqs.into_iter().zip(codes).map(item).collect() })
}
