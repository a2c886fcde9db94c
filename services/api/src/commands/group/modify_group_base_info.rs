//! `spec/rest-groups.md` §3.1.

use linnet_proto::group::ModifyRequest;
use linnet_types::Refusal;

use super::{BAD, account, apply_option, custom, invite_option, on_off};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let text = |name| Ok::<_, Refusal>(body.at(name).string(BAD)?.value);
    let request = ModifyRequest {
        app: call.app_id(),
        group_id: body.at("GroupId").group()?,
        name: text("Name")?,
        introduction: text("Introduction")?,
        notification: text("Notification")?,
        face_url: text("FaceUrl")?,
        max_member_num: body.any(&["MaxMemberNum", "MaxMemberCount"]).number(BAD)?.value,
        apply_join_option: apply_option(body.at("ApplyJoinOption"))?,
        invite_join_option: invite_option(body.at("InviteJoinOption"))?,
        mute_all: on_off(body.any(&["MuteAllMember", "ShutUpAllMember"]))?,
        custom: custom(body.at("AppDefinedData"))?,
        history_before_join: on_off(body.at("HistoryMsgBeforeJoin"))?,
        origin: call.origin_as(account(body.at("From_Account"))?),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
