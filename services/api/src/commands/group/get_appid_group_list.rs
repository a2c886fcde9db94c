//! `spec/rest-groups.md` §3.1.

use linnet_proto::group::ListRequest;
use linnet_types::Refusal;
use serde::Serialize;

use super::{BAD, group_type};
use crate::call::Call;
use crate::reply::Reply;

const MOST: u32 = 10_000;
/// A retired type: nothing is of it, but filters may still name it.
const RETIRED: &str = "BChatRoom";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    total_count: u64,
    group_id_list: Vec<Id>,
    next: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Id {
    group_id: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let limit = body.at("Limit").number(BAD)?.or(MOST);
    if limit == 0 || limit > MOST {
        return Err(Refusal::new(BAD, format!("Limit must be 1 to {MOST}")));
    }
    let next = body.at("Next").number_or_text(BAD)?.or(0);
    let filter = body.any(&["GroupType", "Type"]);
    if filter.string(BAD)?.value.as_deref() == Some(RETIRED) {
        return Reply::of(&Fields { total_count: 0, group_id_list: Vec::new(), next: 0 });
    }
    let r#type = group_type(filter)?.unwrap_or_default().to_owned();
    let list = call.ask(ListRequest { app: call.app_id(), limit, next, r#type }).await?;
    let group_id_list = list.group_ids.into_iter().map(|group_id| Id { group_id }).collect();
    Reply::of(&Fields { total_count: list.total, group_id_list, next: list.next })
}
