//! `spec/rest-groups.md` §4.1.

use linnet_proto::group::OnlineCountRequest;
use linnet_types::{Refusal, code};
use serde::Serialize;

use crate::call::Call;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    online_member_num: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let group_id = call.body.at("GroupId").group()?;
    let count = call.ask(OnlineCountRequest { app: call.app_id(), group_id }).await?;
    if count.not_live {
        return Err(Refusal::new(code::GROUP_NO_RIGHT, "not a live room"));
    }
    Reply::of(&Fields { online_member_num: count.online })
}
