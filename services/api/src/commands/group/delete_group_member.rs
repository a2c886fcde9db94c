//! `spec/rest-groups.md` §3.2. Who is no member, or cannot be one, is passed over.

use linnet_proto::group::RemoveMembersRequest;
use linnet_types::Refusal;

use super::{BAD, accounts, must_exist};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 100;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let asked = accounts(body.at("MemberToDel_Account"), MOST)?;
    let group_id = body.at("GroupId").group()?;
    let users = possible(asked.iter().map(String::as_str));
    if users.is_empty() {
        must_exist(call, &group_id).await?;
        return Ok(Reply::empty());
    }
    let request = RemoveMembersRequest {
        app: call.app_id(),
        group_id,
        users,
        silence: body.at("Silence").switch(BAD)?,
        reason: body.at("Reason").string(BAD)?.or_default(),
        origin: call.origin(),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
