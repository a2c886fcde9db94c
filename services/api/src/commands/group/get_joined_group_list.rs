//! `spec/rest-groups.md` §3.1.

use linnet_proto::group::{JoinedGroup, JoinedRequest};
use linnet_types::{GroupType, Refusal};
use serde::Serialize;
use serde_json::{Map, Value};

use super::show::{self, Filters};
use super::{BAD, account, group_type};
use crate::call::Call;
use crate::reply::Reply;

const MOST: u32 = 5_000;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    total_count: u32,
    group_id_list: Vec<Map<String, Value>>,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let missing = || Refusal::new(BAD, "Member_Account is missing");
    let limit = body.at("Limit").number(BAD)?.or(0);
    if limit > MOST {
        return Err(Refusal::new(BAD, format!("Limit must be at most {MOST}")));
    }
    let filters = Filters::of_joined(body.at("ResponseFilter"))?;
    let kind = group_type(body.any(&["GroupType", "Type"]))?.unwrap_or_default();
    let topics = body.at("SupportTopic").number::<u8>(BAD)?.value;
    if topics.is_some() && kind != GroupType::Community.wire() {
        return Err(Refusal::new(BAD, "SupportTopic needs GroupType Community"));
    }
    // Live rooms keep no members, so WithHugeGroups changes nothing; it must still be a number.
    body.at("WithHugeGroups").switch(BAD)?;
    let with_info = topics.is_some() || !filters.base.is_empty() || !filters.member.is_empty();
    let offset = body.at("Offset").number(BAD)?.or(0);
    let request = JoinedRequest {
        app: call.app_id(),
        user: account(body.at("Member_Account"))?.ok_or_else(missing)?,
        // What is filtered here is paged here.
        limit: if topics.is_some() { 0 } else { limit },
        offset: if topics.is_some() { 0 } else { offset },
        r#type: kind.to_owned(),
        with_inactive: body.at("WithNoActiveGroups").switch(BAD)?,
        with_info,
    };
    let reply = call.ask(request).await?;
    let (mut groups, mut total_count) = (reply.groups, reply.total);
    if let Some(wanted) = topics {
        groups.retain(|one| one.group.as_ref().is_some_and(|group| group.support_topic) == (wanted != 0));
        total_count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let usize_of = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let limit = if limit == 0 { usize::MAX } else { usize_of(limit) };
        groups = groups.into_iter().skip(usize_of(offset)).take(limit).collect();
    }
    let group_id_list = groups.iter().map(|group| item(call.app_id(), group, &filters)).collect();
    Reply::of(&Fields { total_count, group_id_list })
}

fn item(app: u32, joined: &JoinedGroup, filters: &Filters) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(group) = joined.group.as_ref().filter(|_| !filters.base.is_empty()) {
        out = show::group(app, group, filters);
    }
    out.insert("GroupId".to_owned(), joined.group_id.as_str().into());
    if let Some(own) = joined.self_.as_ref().filter(|_| !filters.member.is_empty()) {
        out.insert("SelfInfo".to_owned(), show::member(own, filters, true).into());
    }
    out
}
