//! `spec/rest-accounts.md` §2.6; `querystate` is its old name. Answers both `Status` and `State`.

use std::collections::HashMap;

use linnet_cluster::Service;
use linnet_proto::session::{StatusRequest, UserStatus};
use linnet_types::{Platform, Refusal, code};
use serde::Serialize;

use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

const MOST: usize = 500;
const OFFLINE: &str = "Offline";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    query_result: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    error_list: Vec<Failed>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(rename = "To_Account")]
    to_account: String,
    status: String,
    state: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<Detail>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Detail {
    platform: String,
    status: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    #[serde(rename = "To_Account")]
    to_account: String,
    error_code: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::OPENIM_BAD_JSON;
    let users = call.body.at("To_Account").strings(bad, code::TO_ACCOUNT)?;
    let users = users.need_within(MOST, bad, code::TOO_MANY_RECEIVERS)?;
    let detail = call.body.at("IsNeedDetail").switch(bad)?;
    let existing = accounts::existing(call, &users).await?;
    let mut there: Vec<_> = existing.iter().cloned().collect();
    there.sort_unstable();
    let groups = accounts::split(call, Service::Session, &there, MOST)?;
    let ask = |users| call.ask(StatusRequest { app: call.app_id(), users });
    let replies = futures::future::try_join_all(groups.into_iter().map(ask)).await?;
    let states: HashMap<String, UserStatus> =
        replies.into_iter().flat_map(|reply| reply.users).map(|state| (state.user.clone(), state)).collect();
    let (mut query_result, mut error_list) = (Vec::new(), Vec::new());
    for user in users {
        if existing.contains(&user) {
            query_result.push(item(states.get(&user).cloned().unwrap_or_default(), user, detail));
        } else {
            error_list.push(Failed { to_account: user, error_code: code::ACCOUNT_UNKNOWN });
        }
    }
    Reply::of(&Fields { query_result, error_list })
}

fn item(state: UserStatus, to_account: String, with_detail: bool) -> Item {
    let status = if state.status.is_empty() { OFFLINE.to_owned() } else { state.status };
    let one =
        |one: linnet_proto::session::PlatformStatus| Detail { platform: platform(one.platform), status: one.status };
    let detail = if with_detail { state.platforms.into_iter().map(one).collect() } else { Vec::new() };
    Item { to_account, state: status.clone(), status, detail }
}

/// The documents' name of a platform.
fn platform(name: String) -> String {
    if Platform::parse(&name) == Some(Platform::Windows) { "PC".to_owned() } else { name }
}
