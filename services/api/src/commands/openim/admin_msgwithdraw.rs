//! `spec/rest-messages.md` §3.5.

use linnet_proto::messages::RevokeRequest;
use linnet_types::{MsgKey, Refusal, code};

use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let from = body.at("From_Account").user(code::FROM_ACCOUNT, code::FROM_ACCOUNT)?.need(code::FROM_ACCOUNT)?;
    let to = body.at("To_Account").user(code::TO_ACCOUNT, code::TO_ACCOUNT)?.need(code::TO_ACCOUNT)?;
    let msg_key = body.at("MsgKey").string(code::MSG_KEY)?.need(code::MSG_KEY)?;
    if msg_key.parse::<MsgKey>().is_err() {
        return Err(Refusal::new(code::MSG_KEY, "MsgKey is not <MsgSeq>_<MsgRandom>_<MsgTime>"));
    }
    let request = RevokeRequest {
        app: call.app_id(),
        peer_a: from.clone(),
        peer_b: to.clone(),
        msg_key,
        sender: from.clone(),
        origin: call.origin(),
        ..RevokeRequest::default()
    };
    let results = call.ask(request).await?.results;
    match results.first().map_or(code::C2C_NO_MSG, |result| result.code) {
        code::OK => Ok(Reply::empty()),
        code::C2C_NO_MSG => {
            // Asked last: what a deleted account wrote can still be recalled.
            accounts::pair_must_exist(call, &from, &to).await?;
            Err(Refusal::new(code::C2C_NO_MSG, "no such message"))
        }
        refused => Err(Refusal::new(refused, "the message cannot be recalled")),
    }
}
