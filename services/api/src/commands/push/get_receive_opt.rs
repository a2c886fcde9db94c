//! How messages of some users reach a user; without names, all that differ from the default.

use linnet_proto::push::OptionsRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

const MOST: usize = 100;
const C2C: &str = "C2C:";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    items: Vec<Item>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(rename = "To_Account")]
    to_account: String,
    msg_flag: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = super::user(call).await?;
    let peers = body.at("To_Account").strings(BAD, code::TO_ACCOUNT)?;
    let peers = peers.within(MOST, code::TOO_MANY_RECEIVERS)?.or_default();
    let after = match body.at("Next").string(BAD)?.or_default() {
        start if start.is_empty() => start,
        peer => format!("{C2C}{peer}"),
    };
    let convs = peers.into_iter().map(|peer| format!("{C2C}{peer}")).collect();
    let reply = call.ask(OptionsRequest { app: call.app_id(), user, convs, after, limit: 0 }).await?;
    let peer = |conv: &str| conv.strip_prefix(C2C).unwrap_or(conv).to_owned();
    let next = reply.options.last().filter(|_| reply.more).map(|last| peer(&last.conv)).unwrap_or_default();
    let item = |one: linnet_proto::push::Option| Item { to_account: peer(&one.conv), msg_flag: one.option };
    Reply::of(&Fields { items: reply.options.into_iter().map(item).collect(), next })
}
