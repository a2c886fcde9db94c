//! `spec/rest-groups.md` §3.2. Communities page by `Next`, the others by `Offset`.

use linnet_proto::group::MembersRequest;
use linnet_types::id::COMMUNITY_PREFIX;
use linnet_types::{Refusal, Role};
use serde::Serialize;
use serde_json::{Map, Value};

use super::BAD;
use super::show::{self, Filters};
use crate::call::Call;
use crate::json::Field;
use crate::reply::Reply;

const MOST: u32 = 6_000;
/// Members of a page of a community when nothing is said.
const COMMUNITY_PAGE: u32 = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    member_num: u32,
    member_list: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    let community = group_id.starts_with(COMMUNITY_PREFIX);
    let usual = if community { COMMUNITY_PAGE } else { MOST };
    let limit = body.at("Limit").number(BAD)?.value.filter(|limit| *limit > 0).unwrap_or(usual);
    if limit > MOST {
        return Err(Refusal::new(BAD, format!("Limit must be at most {MOST}")));
    }
    let roles = body.at("MemberRoleFilter").strings(BAD, BAD)?.or_default();
    if let Some(role) = roles.iter().find(|role| Role::parse(role).is_none()) {
        return Err(Refusal::new(BAD, format!("{role}: no such role")));
    }
    let filters = Filters::of_members(body)?;
    let request = MembersRequest {
        app: call.app_id(),
        group_id,
        limit,
        offset: body.at("Offset").number(BAD)?.or(0),
        cursor: cursor(body.at("Next"))?,
        roles,
        only: Vec::new(),
        origin: call.origin(),
    };
    let page = call.ask(request).await?;
    let member_list = show::members(&page.members, &filters);
    Reply::of(&Fields { member_num: page.member_num, member_list, next: community.then_some(page.cursor) })
}

/// A string, or the 0 of older documents.
fn cursor(field: Field<'_>) -> Result<String, Refusal> {
    match field.number::<u64>(BAD).map(|found| found.or(0)) {
        Ok(0) => Ok(String::new()),
        _ => Ok(field.string(BAD)?.or_default()),
    }
}
