//! Profiles, login state, the block list.

use linnet_proto::account::profile_item;
use linnet_proto::{account, client, session};
use linnet_types::{Refusal, code};

use super::Ctx;
use crate::calls::answer;

const PROFILES: usize = 100;
const STATUSES: usize = 500;
const BLOCKS: usize = 1000;
const ITEMS: usize = 50;

pub(super) async fn profiles(ctx: &Ctx, ask: client::ProfileGet) -> Result<client::Profiles, Refusal> {
    if ask.users.len() > PROFILES {
        return Err(Refusal::new(code::PROFILE_BAD_PARAM, "at most 100 users"));
    }
    let users = if ask.users.is_empty() { vec![ctx.user()] } else { ask.users };
    let request = account::LookupRequest { app: ctx.app(), users, tags: Vec::new(), want_profile: true };
    let mut accounts = ctx.hub.calls.account(ctx.session.app, &ctx.session.user)?;
    let reply = answer(accounts.lookup(ctx.hub.calls.ask(request)).await, code::PROFILE_INTERNAL)?;
    Ok(client::Profiles { profiles: reply.accounts.into_iter().map(profile).collect() })
}

fn profile(account: account::Account) -> client::Profile {
    let item = |item: account::ProfileItem| {
        let (text, number) = match item.value {
            Some(profile_item::Value::Text(text)) => (text, 0),
            Some(profile_item::Value::Number(number)) => (String::new(), number),
            None => (String::new(), 0),
        };
        client::ProfileItem { tag: item.tag, text, number }
    };
    client::Profile {
        user: account.user,
        items: account.profile.into_iter().map(item).collect(),
        unknown: !account.exists,
    }
}

/// Tags whose values are numbers (`spec/rest-accounts.md` §3.1).
const NUMBERS: [&str; 5] = [
    "Tag_Profile_IM_BirthDay",
    "Tag_Profile_IM_Language",
    "Tag_Profile_IM_MsgSettings",
    "Tag_Profile_IM_Level",
    "Tag_Profile_IM_Role",
];

pub(super) async fn set_profile(ctx: &Ctx, ask: client::ProfileSet) -> Result<account::SetProfileReply, Refusal> {
    if ask.items.is_empty() || ask.items.len() > ITEMS {
        return Err(Refusal::new(code::PROFILE_BAD_PARAM, "1 to 50 items"));
    }
    let item = |item: client::ProfileItem| {
        let number = NUMBERS.contains(&item.tag.as_str()) || (item.text.is_empty() && item.number > 0);
        let value =
            if number { profile_item::Value::Number(item.number) } else { profile_item::Value::Text(item.text) };
        account::ProfileItem { tag: item.tag, value: Some(value) }
    };
    let request = account::SetProfileRequest {
        app: ctx.app(),
        user: ctx.user(),
        items: ask.items.into_iter().map(item).collect(),
        origin: ctx.origin(),
    };
    let mut accounts = ctx.hub.calls.account(ctx.session.app, &ctx.session.user)?;
    answer(accounts.set_profile(ctx.hub.calls.ask(request)).await, code::PROFILE_INTERNAL)
}

pub(super) async fn status(ctx: &Ctx, ask: client::Status) -> Result<client::Statuses, Refusal> {
    let app = ctx.hub.app(ctx.session.app).await?;
    if !app.settings.status {
        return Err(Refusal::new(code::STATUS_OFF, "user status is switched off for this app"));
    }
    if ask.users.is_empty() || ask.users.len() > STATUSES {
        return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "1 to 500 users"));
    }
    let request = session::StatusRequest { app: ctx.app(), users: ask.users };
    let mut sessions = ctx.hub.calls.session(ctx.session.app, &ctx.session.user)?;
    let reply = answer(sessions.status(ctx.hub.calls.ask(request)).await, code::ACCOUNT_INTERNAL)?;
    let status = |user: session::UserStatus| client::UserStatus {
        user: user.user,
        status: user.status,
        platforms: user.platforms.into_iter().map(|platform| platform.platform).collect(),
    };
    Ok(client::Statuses { statuses: reply.users.into_iter().map(status).collect() })
}

pub(super) async fn block(ctx: &Ctx, ask: client::Block) -> Result<account::BlockReply, Refusal> {
    let count = ask.add.len() + ask.remove.len();
    if count == 0 || count > BLOCKS {
        return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "1 to 1,000 users"));
    }
    let request = account::BlockRequest { app: ctx.app(), user: ctx.user(), add: ask.add, remove: ask.remove };
    let mut accounts = ctx.hub.calls.account(ctx.session.app, &ctx.session.user)?;
    answer(accounts.block(ctx.hub.calls.ask(request)).await, code::ACCOUNT_INTERNAL)
}
