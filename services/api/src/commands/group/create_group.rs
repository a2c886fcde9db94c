//! `spec/rest-groups.md` §3.1. Which fields a type takes is the group service's to say.

use linnet_proto::group::{CreateRequest, Member};
use linnet_types::{GroupId, GroupType, Refusal, Role, code};
use serde::Serialize;

use super::{BAD, account, apply_option, custom, group_type, invite_option};
use crate::call::Call;
use crate::json::Object;
use crate::reply::Reply;

const MEMBERS: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    group_id: String,
    r#type: String,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let text = |name| Ok(body.at(name).string(BAD)?.or_default());
    let missing = || Refusal::new(BAD, "Type is missing");
    let kind = group_type(body.at("Type"))?.ok_or_else(missing)?;
    let group_id: String = text("GroupId")?;
    if !group_id.is_empty() {
        GroupId::parse_custom(&group_id, kind == GroupType::Community.wire())?;
    }
    let members = body.at("MemberList").objects(BAD)?.within(MEMBERS, code::GROUP_TOO_MANY)?.or_default();
    let request = CreateRequest {
        app: call.app_id(),
        r#type: kind.to_owned(),
        name: body.at("Name").string(BAD)?.need(BAD)?,
        owner: account_or_none(body)?,
        group_id,
        introduction: text("Introduction")?,
        notification: text("Notification")?,
        face_url: text("FaceUrl")?,
        max_member_num: body.any(&["MaxMemberCount", "MaxMemberNum"]).number(BAD)?.or(0),
        apply_join_option: apply_option(body.at("ApplyJoinOption"))?.unwrap_or_default(),
        invite_join_option: invite_option(body.at("InviteJoinOption"))?.unwrap_or_default(),
        custom: custom(body.at("AppDefinedData"))?,
        members: members.iter().map(member).collect::<Result<_, _>>()?,
        support_topic: body.at("SupportTopic").switch(BAD)?,
        origin: call.origin(),
    };
    let made = call.ask(request).await?;
    Reply::of(&Fields { group_id: made.group_id, r#type: made.r#type })
}

/// An empty owner is none.
fn account_or_none(body: &Object<'_>) -> Result<String, Refusal> {
    let field = body.at("Owner_Account");
    if field.string(code::ACCOUNT_TYPE)?.value.is_none_or(|text| text.is_empty()) {
        return Ok(String::new());
    }
    Ok(account(field)?.unwrap_or_default())
}

fn member(item: &Object<'_>) -> Result<Member, Refusal> {
    let missing = || Refusal::new(BAD, "Member_Account is missing");
    let role = item.at("Role").string(BAD)?.or_default();
    Ok(Member {
        user: account(item.at("Member_Account"))?.ok_or_else(missing)?,
        role: if Role::parse(&role) == Some(Role::Admin) { role } else { String::new() },
        name_card: item.at("NameCard").string(BAD)?.or_default(),
        custom: custom(item.at("AppMemberDefinedData"))?,
        ..Member::default()
    })
}
