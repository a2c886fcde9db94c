//! `spec/rest-groups.md` §3.4.

use linnet_proto::group::BannedRequest;
use linnet_types::Refusal;
use serde::Serialize;

use super::{BAD, within_u32};
use crate::call::Call;
use crate::reply::Reply;

const MOST: u32 = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    banned_account_list: Vec<Item>,
    next_offset: u32,
}

#[derive(Serialize)]
struct Item {
    #[serde(rename = "Member_Account")]
    member_account: String,
    #[serde(rename = "BannedUntil")]
    until: u64,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    let offset = body.at("Offset").number(BAD)?.need(BAD)?;
    let limit = body.at("Limit").number(BAD)?.or(MOST);
    if limit == 0 || limit > MOST {
        return Err(Refusal::new(BAD, format!("Limit must be 1 to {MOST}")));
    }
    let page = call.ask(BannedRequest { app: call.app_id(), group_id, offset, limit }).await?;
    let item = |one: linnet_proto::group::Until| Item { member_account: one.user, until: within_u32(one.until_s) };
    let banned_account_list = page.banned.into_iter().map(item).collect();
    Reply::of(&Fields { banned_account_list, next_offset: page.next_offset })
}
