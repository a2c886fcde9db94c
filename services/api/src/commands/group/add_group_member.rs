//! `spec/rest-groups.md` §3.2.

use std::collections::HashMap;

use linnet_proto::group::AddMembersRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::BAD;
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::json::Object;
use crate::reply::Reply;

const MOST: usize = 300;
/// `Result` of who could not be added.
const FAILED: u32 = 0;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    member_list: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    #[serde(rename = "Member_Account")]
    member_account: String,
    #[serde(rename = "Result")]
    result: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    let list = body.at("MemberList").objects(BAD)?.need_within(MOST, BAD, code::GROUP_TOO_MANY)?;
    let id = |item: &Object<'_>| item.at("Member_Account").string(code::ACCOUNT_TYPE)?.need(BAD);
    let asked = list.iter().map(id).collect::<Result<Vec<_>, Refusal>>()?;
    let users = possible(asked.iter().map(String::as_str));
    if users.is_empty() {
        return Err(Refusal::new(code::GROUP_NO_USER, "no such account"));
    }
    let silence = body.at("Silence").switch(BAD)?;
    let request =
        AddMembersRequest { app: call.app_id(), group_id, users: users.clone(), silence, origin: call.origin() };
    let results = call.ask(request).await?.results;
    let results: HashMap<String, u32> = users.into_iter().zip(results).collect();
    let item = |member_account: String| {
        let result = results.get(&member_account).copied().unwrap_or(FAILED);
        Item { member_account, result }
    };
    Reply::of(&Fields { member_list: asked.into_iter().map(item).collect() })
}
