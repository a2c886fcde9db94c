//! How messages of some users reach a user. Of a group it is the member's `MsgFlag` (`spec/rest-groups.md` §3.2).

use linnet_proto::push::{Option as Receive, SetOptionsRequest};
use linnet_types::{Refusal, code};

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

const MOST: usize = 100;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = super::user(call).await?;
    let peers = body.at("To_Account").strings(BAD, code::TO_ACCOUNT)?;
    let peers = peers.need_within(MOST, BAD, code::TOO_MANY_RECEIVERS)?;
    let option = body.at("MsgFlag").string(BAD)?.need(BAD)?;
    let options = peers.into_iter().map(|peer| Receive { conv: format!("C2C:{peer}"), option: option.clone() });
    call.ask(SetOptionsRequest { app: call.app_id(), user, options: options.collect() }).await?;
    Ok(Reply::empty())
}
