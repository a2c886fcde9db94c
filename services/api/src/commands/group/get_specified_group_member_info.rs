//! `spec/rest-groups.md` §3.2. Who is no member is left out.

use linnet_proto::group::MembersRequest;
use linnet_types::Refusal;
use serde::Serialize;
use serde_json::{Map, Value};

use super::show::{self, Filters};
use super::{accounts, must_exist};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 50;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    group_id: String,
    member_list: Vec<Map<String, Value>>,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    let asked = accounts(body.at("Member_List_Account"), MOST)?;
    let filters = Filters::of_members(body)?;
    let only = possible(asked.iter().map(String::as_str));
    let mut members = Vec::new();
    if only.is_empty() {
        must_exist(call, &group_id).await?;
    } else {
        let request = MembersRequest {
            app: call.app_id(),
            group_id: group_id.clone(),
            limit: 50,
            only,
            origin: call.origin(),
            ..MembersRequest::default()
        };
        members = call.ask(request).await?.members;
    }
    Reply::of(&Fields { group_id, member_list: show::members(&members, &filters) })
}
