//! `spec/rest-groups.md` §3.3; `get_group_shutted_uin` is its old name. Answers both spellings.

use linnet_proto::group::{MutedRequest, Until};
use linnet_types::Refusal;
use serde::Serialize;

use super::{no_topic, within_u32};
use crate::call::Call;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    group_id: String,
    muted_account_list: Vec<Muted>,
    shutted_uin_list: Vec<Shutted>,
}

#[derive(Serialize)]
struct Muted {
    #[serde(rename = "Member_Account")]
    member_account: String,
    #[serde(rename = "MutedUntil")]
    until: u64,
}

#[derive(Serialize)]
struct Shutted {
    #[serde(rename = "Member_Account")]
    member_account: String,
    #[serde(rename = "ShuttedUntil")]
    until: u64,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let group_id = call.body.at("GroupId").group()?;
    no_topic(&call.body)?;
    let muted = call.ask(MutedRequest { app: call.app_id(), group_id: group_id.clone() }).await?.muted;
    let shutted = |one: &Until| Shutted { member_account: one.user.clone(), until: within_u32(one.until_s) };
    let shutted_uin_list = muted.iter().map(shutted).collect();
    let muted_one = |one: Until| Muted { member_account: one.user, until: within_u32(one.until_s) };
    let muted_account_list = muted.into_iter().map(muted_one).collect();
    Reply::of(&Fields { group_id, muted_account_list, shutted_uin_list })
}
