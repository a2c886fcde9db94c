//! `spec/rest-messages.md` §3.6.

use linnet_proto::messages::ReadC2cRequest;
use linnet_types::{Refusal, code};

use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let reader = body.at("Report_Account").user(code::FROM_ACCOUNT, code::FROM_ACCOUNT)?.need(code::FROM_ACCOUNT)?;
    let peer = body.at("Peer_Account").user(code::TO_ACCOUNT, code::TO_ACCOUNT)?.need(code::TO_ACCOUNT)?;
    // Documented as a string, sent as a number.
    let time_s = body.at("MsgReadTime").number_or_text(code::OPENIM_BAD_JSON)?.or(0);
    accounts::pair_must_exist(call, &reader, &peer).await?;
    let request = ReadC2cRequest { app: call.app_id(), reader, peer, seq: 0, time_s, origin: call.origin() };
    call.ask(request).await?;
    Ok(Reply::empty())
}
