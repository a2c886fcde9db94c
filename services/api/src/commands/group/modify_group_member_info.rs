//! `spec/rest-groups.md` §3.2. A mute is a time from now, or in the oldest form the second it ends.

use linnet_proto::group::ModifyMemberRequest;
use linnet_types::Refusal;

use super::{BAD, account, custom, one_of};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let missing = || Refusal::new(BAD, "Member_Account is missing");
    let until = body.any(&["ShutUpUntil", "MuteUntil"]).number::<u64>(BAD)?.value;
    let mute_s = body.any(&["MuteTime", "ShutUpTime"]).number::<u32>(BAD)?.value.map(u64::from);
    let request = ModifyMemberRequest {
        app: call.app_id(),
        group_id: body.at("GroupId").group()?,
        user: account(body.at("Member_Account"))?.ok_or_else(missing)?,
        role: one_of(body.at("Role"), |text| matches!(text, "Admin" | "Member"))?,
        msg_flag: body.at("MsgFlag").string(BAD)?.value,
        name_card: body.at("NameCard").string(BAD)?.value,
        custom: custom(body.at("AppMemberDefinedData"))?,
        mute_s: mute_s.or_else(|| until.map(|until| until.saturating_sub(call.world.clock.now().secs()))),
        origin: call.origin(),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
