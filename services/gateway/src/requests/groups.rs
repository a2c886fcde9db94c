//! Groups as their members manage them.

use bytes::Bytes;
use linnet_proto::{client, group};
use linnet_types::{GroupId, Refusal, code};
use tonic::{Response, Status};

use super::Ctx;
use crate::calls::{answer, group_id};

/// Most users of one request (`spec/rest-groups.md` §3).
const MEMBERS: usize = 100;
const INVITED: usize = 20;
const LIST: u32 = 500;

fn bad(why: &str) -> Refusal {
    Refusal::new(code::GROUP_BAD_PARAM, why)
}

fn reply<T>(reply: Result<Response<T>, Status>) -> Result<T, Refusal> {
    answer(reply, code::GROUP_INTERNAL)
}

fn users(users: &[String], most: usize) -> Result<(), Refusal> {
    if users.is_empty() {
        return Err(bad("no users given"));
    }
    if users.len() > most {
        return Err(Refusal::new(code::GROUP_TOO_MANY, format!("at most {most} users")));
    }
    Ok(())
}

fn inner(custom: Vec<client::KeyValue>) -> Vec<group::KeyValue> {
    custom.into_iter().map(|pair| group::KeyValue { key: pair.key, value: pair.value.into() }).collect()
}

fn outer(custom: Vec<group::KeyValue>) -> Vec<client::KeyValue> {
    let text = |value: Bytes| String::from_utf8_lossy(&value).into_owned();
    custom.into_iter().map(|pair| client::KeyValue { key: pair.key, value: text(pair.value) }).collect()
}

pub(crate) fn group(inner: group::Group, own: Option<group::Member>) -> client::Group {
    client::Group {
        group_id: inner.group_id,
        r#type: inner.r#type,
        name: inner.name,
        introduction: inner.introduction,
        notification: inner.notification,
        face_url: inner.face_url,
        owner: inner.owner,
        create_time_s: inner.create_time_s,
        member_num: inner.member_num,
        max_member_num: inner.max_member_num,
        apply_join_option: inner.apply_join_option,
        invite_join_option: inner.invite_join_option,
        mute_all: inner.mute_all,
        custom: outer(inner.custom),
        admins: inner.admins,
        next_seq: inner.next_msg_seq,
        self_: own.map(member),
    }
}

fn member(inner: group::Member) -> client::Member {
    client::Member {
        user: inner.user,
        role: inner.role,
        join_time_s: inner.join_time_s,
        name_card: inner.name_card,
        mute_until_s: inner.mute_until_s,
        msg_flag: inner.msg_flag,
        custom: outer(inner.custom),
    }
}

pub(super) async fn create(ctx: &Ctx, ask: client::GroupCreate) -> Result<client::GroupCreated, Refusal> {
    if ask.members.len() > MEMBERS {
        return Err(Refusal::new(code::GROUP_TOO_MANY, "at most 100 members"));
    }
    // Without an id of its own any node may make the group: it chooses one it owns.
    let mut owner = if ask.group_id.is_empty() {
        ctx.hub.calls.any_group()?
    } else {
        ctx.hub.calls.group(ctx.session.app, &group_id(&ask.group_id)?)?
    };
    let member = |user: String| group::Member { user, ..group::Member::default() };
    let request = group::CreateRequest {
        app: ctx.app(),
        r#type: ask.r#type,
        name: ask.name,
        owner: ctx.user(),
        group_id: ask.group_id,
        introduction: ask.introduction,
        notification: ask.notification,
        face_url: ask.face_url,
        max_member_num: ask.max_member_num,
        apply_join_option: ask.apply_join_option,
        invite_join_option: ask.invite_join_option,
        custom: inner(ask.custom),
        members: ask.members.into_iter().map(member).collect(),
        support_topic: false,
        origin: ctx.origin(),
    };
    let made = reply(owner.create(ctx.hub.calls.ask(request)).await)?;
    Ok(client::GroupCreated { group_id: made.group_id, r#type: made.r#type })
}

pub(super) async fn info(ctx: &Ctx, ask: client::GroupInfo) -> Result<client::Group, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::InfoRequest { app: ctx.app(), group_id: ask.group_id, self_: ctx.user() };
    let found = reply(ctx.hub.calls.group(ctx.session.app, &id)?.info(ctx.hub.calls.ask(request)).await)?;
    let Some(inner) = found.group else { return Err(Refusal::new(code::GROUP_UNKNOWN, "no such group")) };
    Ok(group(inner, found.self_))
}

pub(super) async fn update(ctx: &Ctx, ask: client::GroupUpdate) -> Result<group::ModifyReply, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::ModifyRequest {
        app: ctx.app(),
        group_id: ask.group_id,
        name: ask.name,
        introduction: ask.introduction,
        notification: ask.notification,
        face_url: ask.face_url,
        apply_join_option: ask.apply_join_option,
        invite_join_option: ask.invite_join_option,
        mute_all: ask.mute_all,
        custom: inner(ask.custom),
        origin: ctx.origin(),
        ..group::ModifyRequest::default()
    };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.modify(ctx.hub.calls.ask(request)).await)
}

pub(super) async fn dismiss(ctx: &Ctx, ask: client::GroupDismiss) -> Result<group::DestroyReply, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::DestroyRequest { app: ctx.app(), group_id: ask.group_id, origin: ctx.origin() };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.destroy(ctx.hub.calls.ask(request)).await)
}

pub(super) async fn join(ctx: &Ctx, ask: client::GroupJoin) -> Result<client::GroupJoined, Refusal> {
    let id = group_id(&ask.group_id)?;
    ctx.hub.rooms.join(&ctx.hub, ctx.at, &ctx.session, &id, &ask.wording).await
}

pub(super) async fn quit(ctx: &Ctx, ask: client::GroupQuit) -> Result<(), Refusal> {
    let id = group_id(&ask.group_id)?;
    if ctx.hub.rooms.quit(&ctx.hub, &ctx.session, &id).await? {
        return Ok(());
    }
    let request = group::QuitRequest { app: ctx.app(), group_id: ask.group_id, user: ctx.user(), origin: ctx.origin() };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.quit(ctx.hub.calls.ask(request)).await).map(drop)
}

pub(super) async fn invite(ctx: &Ctx, ask: client::GroupInvite) -> Result<client::GroupResults, Refusal> {
    users(&ask.users, INVITED)?;
    let id = group_id(&ask.group_id)?;
    let request = group::AddMembersRequest {
        app: ctx.app(),
        group_id: ask.group_id.clone(),
        users: ask.users.clone(),
        silence: false,
        origin: ctx.origin(),
    };
    let added = reply(ctx.hub.calls.group(ctx.session.app, &id)?.add_members(ctx.hub.calls.ask(request)).await)?;
    let result = |(user, result): (String, u32)| {
        let status = match result {
            1 => "added",
            2 => "already",
            3 => "waiting",
            _ => "failed",
        };
        client::GroupResult { user, status: status.to_owned() }
    };
    let results = ask.users.into_iter().zip(added.results).map(result).collect();
    Ok(client::GroupResults { group_id: ask.group_id, results })
}

pub(super) async fn kick(ctx: &Ctx, ask: client::GroupKick) -> Result<(), Refusal> {
    users(&ask.users, MEMBERS)?;
    let id = group_id(&ask.group_id)?;
    let mut owner = ctx.hub.calls.group(ctx.session.app, &id)?;
    if ask.ban_s > 0 {
        let request = group::BanRequest {
            app: ctx.app(),
            group_id: ask.group_id,
            users: ask.users,
            duration_s: ask.ban_s,
            description: ask.reason,
            origin: ctx.origin(),
        };
        return reply(owner.ban(ctx.hub.calls.ask(request)).await).map(drop);
    }
    let request = group::RemoveMembersRequest {
        app: ctx.app(),
        group_id: ask.group_id,
        users: ask.users,
        silence: false,
        reason: ask.reason,
        origin: ctx.origin(),
    };
    reply(owner.remove_members(ctx.hub.calls.ask(request)).await).map(drop)
}

pub(super) async fn mute(ctx: &Ctx, ask: client::GroupMute) -> Result<group::MuteReply, Refusal> {
    users(&ask.users, MEMBERS)?;
    let id = group_id(&ask.group_id)?;
    let request = group::MuteRequest {
        app: ctx.app(),
        group_id: ask.group_id,
        users: ask.users,
        mute_s: ask.mute_s,
        origin: ctx.origin(),
    };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.mute(ctx.hub.calls.ask(request)).await)
}

async fn modify_member(
    ctx: &Ctx,
    id: &GroupId,
    request: group::ModifyMemberRequest,
) -> Result<group::ModifyMemberReply, Refusal> {
    let request = group::ModifyMemberRequest {
        app: ctx.app(),
        group_id: id.as_str().to_owned(),
        origin: ctx.origin(),
        ..request
    };
    reply(ctx.hub.calls.group(ctx.session.app, id)?.modify_member(ctx.hub.calls.ask(request)).await)
}

pub(super) async fn role(ctx: &Ctx, ask: client::GroupRole) -> Result<group::ModifyMemberReply, Refusal> {
    if !matches!(ask.role.as_str(), "Admin" | "Member") {
        return Err(bad("role is Admin or Member"));
    }
    let request =
        group::ModifyMemberRequest { user: ask.user, role: Some(ask.role), ..group::ModifyMemberRequest::default() };
    modify_member(ctx, &group_id(&ask.group_id)?, request).await
}

pub(super) async fn update_member(
    ctx: &Ctx,
    ask: client::GroupMemberUpdate,
) -> Result<group::ModifyMemberReply, Refusal> {
    let request = group::ModifyMemberRequest {
        user: if ask.user.is_empty() { ctx.user() } else { ask.user },
        msg_flag: ask.msg_flag,
        name_card: ask.name_card,
        custom: inner(ask.custom),
        ..group::ModifyMemberRequest::default()
    };
    modify_member(ctx, &group_id(&ask.group_id)?, request).await
}

pub(super) async fn members(ctx: &Ctx, ask: client::GroupMembers) -> Result<client::Members, Refusal> {
    let id = group_id(&ask.group_id)?;
    if ask.limit > LIST {
        return Err(bad("limit is at most 500"));
    }
    let request = group::MembersRequest {
        app: ctx.app(),
        group_id: ask.group_id.clone(),
        limit: if ask.limit == 0 { 100 } else { ask.limit },
        cursor: ask.cursor,
        roles: ask.roles,
        origin: ctx.origin(),
        ..group::MembersRequest::default()
    };
    let found = reply(ctx.hub.calls.group(ctx.session.app, &id)?.members(ctx.hub.calls.ask(request)).await)?;
    Ok(client::Members {
        group_id: ask.group_id,
        members: found.members.into_iter().map(member).collect(),
        member_num: found.member_num,
        cursor: found.cursor,
    })
}

pub(super) async fn list(ctx: &Ctx, ask: client::GroupList) -> Result<client::Groups, Refusal> {
    let request = group::JoinedRequest {
        app: ctx.app(),
        user: ctx.user(),
        limit: if ask.limit == 0 { LIST } else { ask.limit.min(LIST) },
        offset: ask.offset,
        with_info: true,
        ..group::JoinedRequest::default()
    };
    let found = reply(ctx.hub.calls.any_group()?.joined(ctx.hub.calls.ask(request)).await)?;
    let groups = found.groups.into_iter().map(|joined| {
        let bare = group::Group { group_id: joined.group_id, r#type: joined.r#type, ..group::Group::default() };
        group(joined.group.unwrap_or(bare), joined.self_)
    });
    Ok(client::Groups { groups: groups.collect(), total: found.total })
}

pub(super) async fn applications(ctx: &Ctx, ask: client::GroupApplications) -> Result<client::Applications, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::ApplicationsRequest { app: ctx.app(), group_id: ask.group_id, origin: ctx.origin() };
    let found = reply(ctx.hub.calls.group(ctx.session.app, &id)?.applications(ctx.hub.calls.ask(request)).await)?;
    let application = |inner: group::Application| client::Application {
        id: inner.id,
        group_id: inner.group_id,
        user: inner.user,
        kind: inner.kind,
        inviter: inner.inviter,
        wording: inner.wording,
        time_s: inner.time_s,
    };
    Ok(client::Applications { applications: found.applications.into_iter().map(application).collect() })
}

pub(super) async fn handle(ctx: &Ctx, ask: client::GroupHandle) -> Result<group::HandleApplicationReply, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::HandleApplicationRequest {
        app: ctx.app(),
        group_id: ask.group_id,
        id: ask.id,
        accept: ask.accept,
        reason: ask.reason,
        origin: ctx.origin(),
    };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.handle_application(ctx.hub.calls.ask(request)).await)
}

pub(super) async fn transfer(ctx: &Ctx, ask: client::GroupTransfer) -> Result<group::ChangeOwnerReply, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request =
        group::ChangeOwnerRequest { app: ctx.app(), group_id: ask.group_id, new_owner: ask.user, origin: ctx.origin() };
    reply(ctx.hub.calls.group(ctx.session.app, &id)?.change_owner(ctx.hub.calls.ask(request)).await)
}

pub(super) async fn online(ctx: &Ctx, ask: client::OnlineCount) -> Result<client::Online, Refusal> {
    let id = group_id(&ask.group_id)?;
    let request = group::OnlineCountRequest { app: ctx.app(), group_id: ask.group_id.clone() };
    let found = reply(ctx.hub.calls.group(ctx.session.app, &id)?.online_count(ctx.hub.calls.ask(request)).await)?;
    if found.not_live {
        return Err(Refusal::new(code::GROUP_NO_RIGHT, "not a live room"));
    }
    Ok(client::Online { group_id: ask.group_id, online: found.online })
}
