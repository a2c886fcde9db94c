//! `spec/rest-groups.md` §3.2. The count is clamped by the owner of the user's list, who knows the total.

use linnet_proto::group::InfoRequest;
use linnet_proto::messages::SetUnreadRequest;
use linnet_types::{GroupType, Refusal, code};

use super::{BAD, account};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let missing = || Refusal::new(BAD, "Member_Account is missing");
    let (app, group_id) = (call.app_id(), body.at("GroupId").group()?);
    let user = account(body.at("Member_Account"))?.ok_or_else(missing)?;
    let unread = body.at("UnreadMsgNum").number(BAD)?.need(BAD)?;
    let info = call.ask(InfoRequest { app, group_id: group_id.clone(), self_: user.clone() }).await?;
    let kind = info.group.and_then(|group| GroupType::parse(&group.r#type));
    if !kind.is_some_and(GroupType::counts_unread) {
        return Err(Refusal::new(code::GROUP_NO_RIGHT, "groups of this type have no unread count"));
    }
    if info.self_.is_none() {
        return Err(Refusal::new(code::GROUP_NO_RIGHT, "Member_Account is not a member"));
    }
    call.ask(SetUnreadRequest { app, user, group_id, unread }).await?;
    Ok(Reply::empty())
}
