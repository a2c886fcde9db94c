//! Offline push: this device's token, receive options, quiet time (`docs/push.md`).

use linnet_proto::{client, group, push};
use linnet_types::{ConversationKey, GroupId, Refusal, code};

use super::Ctx;
use crate::calls::answer;

/// Conversations of one request.
const SET: usize = 30;
const GET: usize = 100;
const DEFAULT: &str = "AcceptAndNotify";

fn bad(why: &str) -> Refusal {
    Refusal::new(code::MSG_BAD_PARAM, why)
}

pub(super) async fn set_device(ctx: &Ctx, ask: client::DeviceSet) -> Result<push::SetDeviceReply, Refusal> {
    let device = push::Device {
        instance: ctx.session.instance.clone(),
        platform: ctx.session.platform.wire().to_owned(),
        vendor: ask.vendor,
        token: ask.token,
        business_id: ask.business_id,
        language: ask.language,
        updated_ms: 0,
    };
    let request = push::SetDeviceRequest { app: ctx.app(), user: ctx.user(), device: Some(device), badge: ask.badge };
    let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
    answer(pushes.set_device(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)
}

pub(super) async fn remove_device(ctx: &Ctx) -> Result<push::RemoveDevicesReply, Refusal> {
    let instances = vec![ctx.session.instance.clone()];
    let request = push::RemoveDevicesRequest {
        app: ctx.app(),
        user: ctx.user(),
        instances,
        ..push::RemoveDevicesRequest::default()
    };
    let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
    answer(pushes.remove_devices(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)
}

pub(super) async fn badge(ctx: &Ctx, ask: client::Badge) -> Result<push::SetBadgeReply, Refusal> {
    let request = push::SetBadgeRequest { app: ctx.app(), user: ctx.user(), badge: ask.count };
    let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
    answer(pushes.set_badge(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)
}

/// Options of pairs are kept by the push service, those of groups with the member.
pub(super) async fn set_options(ctx: &Ctx, ask: client::ReceiveSet) -> Result<(), Refusal> {
    if ask.convs.is_empty() || ask.convs.len() > SET {
        return Err(bad("1 to 30 conversations"));
    }
    let (mut pairs, mut groups) = (Vec::new(), Vec::new());
    for conv in ask.convs {
        match conv.parse()? {
            ConversationKey::C2c(_) => pairs.push(push::Option { conv, option: ask.option.clone() }),
            ConversationKey::Group(group) => groups.push(group),
        }
    }
    if !pairs.is_empty() {
        let request = push::SetOptionsRequest { app: ctx.app(), user: ctx.user(), options: pairs };
        let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
        answer(pushes.set_options(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)?;
    }
    for group in groups {
        let request = group::ModifyMemberRequest {
            app: ctx.app(),
            group_id: group.as_str().to_owned(),
            user: ctx.user(),
            msg_flag: Some(ask.option.clone()),
            origin: ctx.origin(),
            ..group::ModifyMemberRequest::default()
        };
        let mut owner = ctx.hub.calls.group(ctx.session.app, &group)?;
        answer(owner.modify_member(ctx.hub.calls.ask(request)).await, code::GROUP_INTERNAL)?;
    }
    Ok(())
}

pub(super) async fn options(ctx: &Ctx, ask: client::ReceiveGet) -> Result<client::Receives, Refusal> {
    if ask.convs.len() > GET {
        return Err(bad("at most 100 conversations"));
    }
    let (mut pairs, mut found) = (Vec::new(), Vec::new());
    let all = ask.convs.is_empty();
    for conv in ask.convs {
        match conv.parse()? {
            ConversationKey::C2c(_) => pairs.push(conv),
            ConversationKey::Group(group) => found.push(of_group(ctx, conv, &group).await?),
        }
    }
    let mut more = false;
    if all || !pairs.is_empty() {
        let request =
            push::OptionsRequest { app: ctx.app(), user: ctx.user(), convs: pairs, after: ask.after, limit: 0 };
        let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
        let reply = answer(pushes.options(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)?;
        found.extend(reply.options.into_iter().map(|one| client::Receive { conv: one.conv, option: one.option }));
        more = reply.more;
    }
    Ok(client::Receives { options: found, more })
}

async fn of_group(ctx: &Ctx, conv: String, group: &GroupId) -> Result<client::Receive, Refusal> {
    let request = group::InfoRequest { app: ctx.app(), group_id: group.as_str().to_owned(), self_: ctx.user() };
    let mut owner = ctx.hub.calls.group(ctx.session.app, group)?;
    let info = answer(owner.info(ctx.hub.calls.ask(request)).await, code::GROUP_INTERNAL)?;
    let option = info.self_.map_or_else(|| DEFAULT.to_owned(), |member| member.msg_flag);
    Ok(client::Receive { conv, option })
}

pub(super) async fn set_quiet(ctx: &Ctx, ask: client::QuietSet) -> Result<push::SetQuietReply, Refusal> {
    let quiet = ask.quiet.unwrap_or_default();
    let quiet = push::QuietTime {
        option: quiet.option,
        start_s: quiet.start_s,
        duration_s: quiet.duration_s,
        repeated: quiet.repeated,
        utc_offset_s: quiet.utc_offset_s,
        set_ms: 0,
    };
    let request = push::SetQuietRequest { app: ctx.app(), user: ctx.user(), quiet: Some(quiet) };
    let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
    answer(pushes.set_quiet(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)
}

pub(super) async fn quiet(ctx: &Ctx) -> Result<client::Quiet, Refusal> {
    let request = push::QuietRequest { app: ctx.app(), user: ctx.user() };
    let mut pushes = ctx.hub.calls.push(ctx.session.app, &ctx.session.user)?;
    let reply = answer(pushes.quiet(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)?;
    let Some(quiet) = reply.quiet else { return Ok(client::Quiet::default()) };
    Ok(client::Quiet {
        option: quiet.option,
        start_s: quiet.start_s,
        duration_s: quiet.duration_s,
        repeated: quiet.repeated,
        utc_offset_s: quiet.utc_offset_s,
    })
}
