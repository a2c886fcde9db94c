//! `spec/rest-accounts.md` §3.4.

use linnet_proto::account::Account;
use linnet_proto::account::profile_item::Value;
use linnet_types::settings::words;
use linnet_types::{AppSettings, Refusal, code};
use serde::Serialize;

use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

const MOST: usize = 100;

const STANDARD: &[&str] = &[
    "Tag_Profile_IM_Nick",
    "Tag_Profile_IM_Gender",
    "Tag_Profile_IM_BirthDay",
    "Tag_Profile_IM_Location",
    "Tag_Profile_IM_SelfSignature",
    "Tag_Profile_IM_AllowType",
    "Tag_Profile_IM_Language",
    "Tag_Profile_IM_Image",
    "Tag_Profile_IM_MsgSettings",
    "Tag_Profile_IM_AdminForbidType",
    "Tag_Profile_IM_Level",
    "Tag_Profile_IM_Role",
];

#[derive(Serialize)]
struct Fields {
    #[serde(rename = "UserProfileItem")]
    users: Vec<User>,
    #[serde(rename = "Fail_Account", skip_serializing_if = "Vec::is_empty")]
    failed: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct User {
    #[serde(rename = "To_Account")]
    to_account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_item: Option<Vec<Item>>,
    result_code: u32,
    result_info: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    tag: String,
    value: Shown,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Text(String),
    Number(u32),
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::PROFILE_BAD_PARAM;
    let users = call.body.at("To_Account").strings(bad, code::ACCOUNT_TYPE)?;
    let users = users.need_within(MOST, code::PROFILE_NO_ACCOUNT, bad)?;
    let tags = call.body.at("TagList").strings(bad, bad)?.need_within(MOST, bad, bad)?;
    if let Some(tag) = tags.iter().find(|tag| !known(tag, &call.app.settings)) {
        return Err(Refusal::new(code::PROFILE_TAG, format!("{tag}: no such tag")));
    }
    let accounts = accounts::lookup(call, &users, &tags).await?;
    let there = |id: &String| accounts.get(id).filter(|account| account.exists);
    let failed = users.iter().filter(|id| there(id).is_none()).cloned().collect();
    let user = |to_account: String| {
        let profile_item = there(&to_account).map(|account| items(account, &tags));
        let (result_code, result_info) = match profile_item {
            Some(_) => (code::OK, ""),
            None => (code::PROFILE_ACCOUNT_UNKNOWN, "Err_Profile_Account_Not_Exist"),
        };
        User { to_account, profile_item, result_code, result_info }
    };
    Reply::of(&Fields { users: users.clone().into_iter().map(user).collect(), failed })
}

fn known(tag: &str, settings: &AppSettings) -> bool {
    let custom = |keyword| words(&settings.profile_tags).any(|word| word == keyword);
    STANDARD.contains(&tag) || tag.strip_prefix("Tag_Profile_Custom_").is_some_and(custom)
}

/// What is set, in the order asked.
fn items(account: &Account, tags: &[String]) -> Vec<Item> {
    let item = |tag: &String| {
        let found = account.profile.iter().find(|item| item.tag == *tag)?;
        let value = match found.value.clone()? {
            Value::Text(text) => Shown::Text(text),
            Value::Number(number) => Shown::Number(number),
        };
        Some(Item { tag: tag.clone(), value })
    };
    tags.iter().filter_map(item).collect()
}
