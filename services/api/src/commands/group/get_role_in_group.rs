//! `spec/rest-groups.md` §3.2.

use std::collections::HashMap;

use linnet_proto::group::RolesRequest;
use linnet_types::Refusal;
use serde::Serialize;

use super::{accounts, must_exist};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 500;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    user_id_list: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    #[serde(rename = "Member_Account")]
    member_account: String,
    #[serde(rename = "Role")]
    role: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let group_id = call.body.at("GroupId").group()?;
    let asked = accounts(call.body.at("User_Account"), MOST)?;
    let users = possible(asked.iter().map(String::as_str));
    let mut roles: HashMap<String, String> = HashMap::new();
    if users.is_empty() {
        must_exist(call, &group_id).await?;
    } else {
        let reply = call.ask(RolesRequest { app: call.app_id(), group_id, users: users.clone() }).await?;
        roles.extend(users.into_iter().zip(reply.roles));
    }
    let item = |member_account: String| {
        let role = roles.get(&member_account).cloned().unwrap_or_else(|| "NotMember".to_owned());
        Item { member_account, role }
    };
    Reply::of(&Fields { user_id_list: asked.into_iter().map(item).collect() })
}
