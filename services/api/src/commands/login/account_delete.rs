//! `spec/rest-accounts.md` §2.3.

use std::collections::HashMap;

use linnet_proto::account::DeleteRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::user_ids;
use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

const MOST: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    result_item: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    result_code: u32,
    result_info: String,
    #[serde(rename = "UserID")]
    user_id: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::ACCOUNT_BAD_PARAM;
    let asked = user_ids(call.body.at("DeleteItem").objects(bad)?.need_within(MOST, bad, bad)?)?;
    let mut results: HashMap<String, (u32, String)> = HashMap::new();
    for users in accounts::by_owner(call, &accounts::distinct(asked.iter().map(String::as_str)), MOST)? {
        let request = DeleteRequest { app: call.app_id(), users, origin: call.origin() };
        let done = call.ask(request).await?.results;
        results.extend(done.into_iter().map(|result| (result.user, (result.code, result.info))));
    }
    let item = |user_id: String| {
        let missing = || (code::ACCOUNT_INTERNAL, "internal error".to_owned());
        let (result_code, info) = results.get(&user_id).cloned().unwrap_or_else(missing);
        Item { result_code, result_info: accounts::token(result_code).map_or(info, str::to_owned), user_id }
    };
    Reply::of(&Fields { result_item: asked.into_iter().map(item).collect() })
}
