//! `spec/rest-groups.md` §3.2. Who is no member, or cannot be one, is passed over.

use linnet_proto::group::RemoveMembersRequest;
use linnet_types::Refusal;

use super::{BAD, accounts};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 100;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let asked = accounts(body.at("MemberToDel_Account"), MOST)?;
    let request = RemoveMembersRequest {
        app: call.app_id(),
        group_id: body.at("GroupId").group()?,
        users: possible(asked.iter().map(String::as_str)),
        silence: body.at("Silence").switch(BAD)?,
        reason: body.at("Reason").string(BAD)?.or_default(),
        origin: call.origin(),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
