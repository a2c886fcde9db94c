//! `spec/rest-accounts.md` §2.4.

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
    #[serde(rename = "UserID")]
    user_id: String,
    result_code: u32,
    result_info: &'static str,
    account_status: &'static str,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::ACCOUNT_BAD_PARAM;
    let users = user_ids(call.body.at("CheckItem").objects(bad)?.need_within(MOST, bad, bad)?)?;
    let known = accounts::lookup(call, &users, &[]).await?;
    let item = |user_id: String| {
        let account = known.get(&user_id);
        let (result_code, result_info) = match account {
            Some(_) => (code::OK, ""),
            None => (bad, "UserID is not a possible id"),
        };
        let exists = account.is_some_and(|account| account.exists);
        Item { user_id, result_code, result_info, account_status: if exists { "Imported" } else { "NotImported" } }
    };
    Reply::of(&Fields { result_item: users.into_iter().map(item).collect() })
}
