//! Lists, history, read positions, revoking, deleting.

use linnet_proto::{client, group, messages};
use linnet_types::{ConvId, ConversationKey, GroupId, GroupType, Refusal, UserId, code};

use super::Ctx;
use crate::calls::answer;
use crate::reads;
use crate::view;

/// Conversations asked for by name, and seqs of one deletion.
const ONLY: usize = 100;
const SEQS: usize = 100;
/// Largest and usual page.
const PAGE: u32 = 100;
const USUAL_PAGE: u32 = 20;

fn bad(why: &str) -> Refusal {
    Refusal::new(code::MSG_BAD_PARAM, why)
}

pub(super) async fn sync(ctx: &Ctx, ask: client::Sync) -> Result<client::Synced, Refusal> {
    if ask.only.len() > ONLY {
        return Err(bad("at most 100 conversations in only"));
    }
    for name in &ask.only {
        name.parse::<ConversationKey>()?;
    }
    let request = messages::SyncRequest {
        app: ctx.app(),
        user: ctx.user(),
        since_ms: ask.since_ms,
        limit: ask.limit,
        cursor: ask.cursor,
        only: ask.only,
    };
    let mut lists = ctx.hub.calls.lists(ctx.session.app, &ctx.session.user)?;
    let reply = answer(lists.sync(ctx.hub.calls.ask(request)).await, code::CONTACT_INTERNAL)?;
    Ok(client::Synced {
        conversations: reply.conversations.into_iter().map(conversation).collect(),
        position_ms: reply.position_ms,
        cursor: reply.cursor,
        more: reply.more,
        total_unread: reply.total_unread,
    })
}

fn conversation(inner: messages::Conversation) -> client::Conversation {
    let pair = inner.key.starts_with("C2C:");
    client::Conversation {
        conv: inner.key,
        head: inner.head_seq,
        first_seq: inner.first_seq,
        read_seq: inner.read_seq,
        unread: inner.unread,
        time_ms: inner.time_ms,
        pinned: inner.pinned_ms > 0,
        last: inner.last.as_ref().map(|last| view::message(last, pair)),
        peer_read_seq: inner.peer_read_seq,
        group_type: inner.group_type,
        name: inner.group_name,
        face_url: inner.face_url,
        generation: inner.generation,
        deleted: inner.deleted,
        mentions: inner.mentions,
    }
}

pub(super) async fn history(ctx: &Ctx, ask: client::History) -> Result<client::Page, Refusal> {
    if ask.limit > PAGE {
        return Err(bad("limit is at most 100"));
    }
    if ask.to_seq > 0 && ask.from_seq > ask.to_seq {
        return Err(bad("from_seq is after to_seq"));
    }
    let key: ConversationKey = ask.conv.parse()?;
    let mut request = messages::HistoryRequest {
        app: ctx.app(),
        viewer: ctx.user(),
        from_seq: ask.from_seq,
        to_seq: ask.to_seq,
        ascending: ask.ascending,
        limit: if ask.limit == 0 { USUAL_PAGE } else { ask.limit },
        ..messages::HistoryRequest::default()
    };
    let pair = matches!(key, ConversationKey::C2c(_));
    let mut log = match &key {
        ConversationKey::C2c(peer) => {
            request.peer_a = ctx.user();
            request.peer_b = peer.as_str().to_owned();
            ctx.hub.calls.pair(ctx.session.app, &ctx.session.user, peer)?
        }
        ConversationKey::Group(group) => {
            let grant = authorize(ctx, group).await?;
            if GroupType::parse(&grant.r#type).is_some_and(GroupType::is_live) {
                return Err(Refusal::new(code::GROUP_NO_ROAMING, "live rooms have no history"));
            }
            request.conv = grant.conv;
            request.retention_days = grant.retention_days;
            request.grant = Some(messages::ReadGrant { floor_seq: grant.floor_seq, until_ms: grant.until_ms });
            ctx.hub.calls.log(ConvId(grant.conv))?
        }
    };
    let reply = answer(log.history(ctx.hub.calls.ask(request)).await, code::OPENIM_INTERNAL)?;
    Ok(client::Page {
        conv: ask.conv,
        messages: reply.messages.iter().map(|message| view::message(message, pair)).collect(),
        nothing: reply
            .placeholders
            .into_iter()
            .map(|gap| client::Nothing { from: gap.from_seq, to: gap.to_seq, why: gap.why })
            .collect(),
        covered_from: reply.covered_from,
        covered_to: reply.covered_to,
        first_seq: reply.first_seq,
        head: reply.head,
        complete: reply.complete,
        generation: reply.generation,
    })
}

async fn authorize(ctx: &Ctx, group: &GroupId) -> Result<group::AuthorizeReply, Refusal> {
    let ask =
        group::AuthorizeRequest { app: ctx.app(), group_id: group.as_str().to_owned(), user: ctx.user(), admin: false };
    let mut owner = ctx.hub.calls.group(ctx.session.app, group)?;
    let grant = answer(owner.authorize(ctx.hub.calls.ask(ask)).await, code::GROUP_INTERNAL)?;
    // The owner's epoch is the upper part of the version (`AuthorizeReply`).
    let seen = ctx.hub.receiver.get().map_or(0, |receiver| receiver.epoch(ctx.session.app, ConvId(grant.conv)));
    if grant.membership_version > 0 && grant.membership_version >> 24 < seen {
        return Err(Refusal::retry(code::BUSY, "the group has a newer owner", 200));
    }
    Ok(grant)
}

pub(super) async fn read(ctx: &Ctx, ask: client::Read) -> Result<client::ReadDone, Refusal> {
    let origin = ctx.session.origin(ctx.hub.request_id());
    let (app, user) = (ctx.session.app, &ctx.session.user);
    let read_seq = match ask.conv.parse()? {
        ConversationKey::C2c(peer) => {
            let request = messages::ReadC2cRequest {
                app: app.0,
                reader: ctx.user(),
                peer: peer.as_str().to_owned(),
                seq: ask.seq,
                time_s: 0,
                origin: Some(origin),
            };
            let mut owner = ctx.hub.calls.pair(app, user, &peer)?;
            answer(owner.read_c2c(ctx.hub.calls.ask(request)).await, code::C2C_INTERNAL)?.read_seq
        }
        ConversationKey::Group(group) => {
            let due = ctx.hub.clock.mono() + ctx.hub.config.read_delay.get();
            if ask.seq > 0 && ctx.hub.reads.note(app, user, &group, ask.seq, due, origin.clone()) {
                ask.seq
            } else {
                reads::store(&ctx.hub, app, user, &group, ask.seq, origin).await?
            }
        }
    };
    Ok(client::ReadDone { conv: ask.conv, read_seq })
}

pub(super) async fn pin(ctx: &Ctx, ask: client::Pin) -> Result<messages::PinReply, Refusal> {
    ask.conv.parse::<ConversationKey>()?;
    let request = messages::PinRequest {
        app: ctx.app(),
        user: ctx.user(),
        key: ask.conv,
        pinned: ask.pinned,
        origin: ctx.origin(),
    };
    let mut lists = ctx.hub.calls.lists(ctx.session.app, &ctx.session.user)?;
    answer(lists.pin(ctx.hub.calls.ask(request)).await, code::CONTACT_INTERNAL)
}

pub(super) async fn delete(
    ctx: &Ctx,
    ask: client::DeleteConversation,
) -> Result<messages::DeleteConversationReply, Refusal> {
    ask.conv.parse::<ConversationKey>()?;
    let request = messages::DeleteConversationRequest {
        app: ctx.app(),
        user: ctx.user(),
        key: ask.conv,
        clear_history: ask.clear_history,
        origin: ctx.origin(),
    };
    let mut lists = ctx.hub.calls.lists(ctx.session.app, &ctx.session.user)?;
    answer(lists.delete_conversation(ctx.hub.calls.ask(request)).await, code::CONTACT_INTERNAL)
}

pub(super) async fn revoke(ctx: &Ctx, ask: client::Revoke) -> Result<client::Revoked, Refusal> {
    let seq = match ask.conv.parse()? {
        ConversationKey::C2c(peer) => revoke_c2c(ctx, &ask, &peer).await?,
        ConversationKey::Group(group) => revoke_group(ctx, &ask, &group).await?,
    };
    Ok(client::Revoked { conv: ask.conv, seq })
}

/// A user may take back his own messages of the last minutes.
async fn revoke_c2c(ctx: &Ctx, ask: &client::Revoke, peer: &UserId) -> Result<u64, Refusal> {
    if ask.seq == 0 && ask.msg_key.is_empty() {
        return Err(bad("seq or msg_key is needed"));
    }
    let app = ctx.hub.app(ctx.session.app).await?;
    let request = messages::RevokeRequest {
        app: ctx.app(),
        peer_a: ctx.user(),
        peer_b: peer.as_str().to_owned(),
        seqs: if ask.seq > 0 { vec![ask.seq] } else { Vec::new() },
        msg_key: if ask.seq > 0 { String::new() } else { ask.msg_key.clone() },
        origin: ctx.origin(),
        reason: ask.reason.clone(),
        max_age_s: app.settings.recall_s,
        sender: ctx.user(),
        retention_days: app.settings.retention_days,
        ..messages::RevokeRequest::default()
    };
    let mut owner = ctx.hub.calls.pair(ctx.session.app, &ctx.session.user, peer)?;
    let reply = answer(owner.revoke(ctx.hub.calls.ask(request)).await, code::C2C_INTERNAL)?;
    match reply.results.first() {
        Some(result) if result.code == code::OK => Ok(result.seq),
        Some(result) => Err(Refusal::new(result.code, "the message was not revoked")),
        None => Err(Refusal::new(code::C2C_NO_MSG, "no such message")),
    }
}

async fn revoke_group(ctx: &Ctx, ask: &client::Revoke, group: &GroupId) -> Result<u64, Refusal> {
    if ask.seq == 0 {
        return Err(Refusal::new(code::GROUP_BAD_PARAM, "seq is needed"));
    }
    let request = group::RecallRequest {
        app: ctx.app(),
        group_id: group.as_str().to_owned(),
        seqs: vec![ask.seq],
        reason: ask.reason.clone(),
        origin: ctx.origin(),
    };
    let mut owner = ctx.hub.calls.group(ctx.session.app, group)?;
    let reply = answer(owner.recall(ctx.hub.calls.ask(request)).await, code::GROUP_INTERNAL)?;
    match reply.codes.first() {
        None | Some(&code::OK) => Ok(ask.seq),
        Some(&refused) => Err(Refusal::new(refused, "the message was not revoked")),
    }
}

pub(super) async fn delete_messages(
    ctx: &Ctx,
    ask: client::DeleteMessages,
) -> Result<messages::DeleteForUserReply, Refusal> {
    let ConversationKey::C2c(peer) = ask.conv.parse()? else {
        return Err(bad("messages are deleted for one side in pairs only"));
    };
    if ask.seqs.is_empty() || ask.seqs.len() > SEQS {
        return Err(bad("1 to 100 seqs"));
    }
    let request = messages::DeleteForUserRequest {
        app: ctx.app(),
        user: ctx.user(),
        peer: peer.as_str().to_owned(),
        seqs: ask.seqs,
        msg_keys: Vec::new(),
        clear: false,
        origin: Some(ctx.session.origin(ctx.hub.request_id())),
    };
    let mut owner = ctx.hub.calls.pair(ctx.session.app, &ctx.session.user, &peer)?;
    answer(owner.delete_for_user(ctx.hub.calls.ask(request)).await, code::C2C_INTERNAL)
}
