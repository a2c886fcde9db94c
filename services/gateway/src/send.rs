//! A message of a client: checked as far as the edge can, handed to its owner, answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_admission::content_hash;
use linnet_cluster::{RouteKey, Service};
use linnet_proto::client::{self, frame};
use linnet_proto::{group, messages, msg};
use linnet_types::{ConversationKey, GroupId, MsgBody, NodeId, Priority, Refusal, code};

use crate::calls::answer;
use crate::events::Told;
use crate::hub::Hub;
use crate::lane::Job;
use crate::rooms::Verdict;
use crate::session::{ConnRef, Session};
use crate::view;
use crate::wire::Wire;

/// Receivers of a targeted message, and mentions (`spec/rest-messages.md` §1).
const TARGETS: usize = 50;
const MENTIONS: usize = 30;
/// Largest `cloud_custom_data` and push settings in bytes.
const EXTRA_BYTES: usize = 8 << 10;
/// Time deliveries have to be counted before a watcher is told of a message.
const TRACE_AFTER: Duration = Duration::from_millis(250);
/// Time of one try in a live room, and the pauses between tries.
const LIVE_TRY: Duration = Duration::from_secs(3);
const LIVE_PAUSE: Duration = Duration::from_millis(50);
const LIVE_PAUSE_MAX: Duration = Duration::from_millis(500);
/// What a shed message is told (`spec/rest-groups.md` §4.2).
const DROP_REASON: &str = "MsgFreqCtrl";

/// Where the answer to a message goes, and what is told of it.
#[derive(Debug)]
pub(crate) struct Reply {
    at: ConnRef,
    wire: Wire,
    id: u64,
    /// The conversation as the client names it.
    pub(crate) conv: String,
    random: u32,
    began: Duration,
}

/// A message on its way, the same at every try.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) reply: Reply,
    key: RouteKey,
    ask: Ask,
}

#[derive(Clone, Debug)]
enum Ask {
    Pair(messages::SendC2cRequest),
    Group(group::SendRequest),
}

/// What becomes of a message at the edge.
pub(crate) enum Prepared {
    Refused(Reply, Refusal),
    /// In the order of its line.
    InLine(Held),
    /// In a live room, whose shaping decides.
    Live(Held),
}

/// Checks a message as far as the edge can.
pub(crate) async fn prepare(hub: &Arc<Hub>, session: &Session, job: Job) -> Prepared {
    let began = hub.clock.mono();
    let Job { at, wire, id, mut send } = job;
    if send.random == 0 {
        send.random = hub.rng.u32().max(1);
    }
    hub.events.begin(session.app.0, session.user.as_str(), send.random, began);
    let reply = Reply { at, wire, id, conv: send.conv.clone(), random: send.random, began };
    match asked(hub, session, send).await {
        Err(refusal) => Prepared::Refused(reply, refusal),
        Ok((key, ask)) => {
            let live = matches!(&ask, Ask::Group(ask) if ask.viewer);
            let held = Held { reply, key, ask };
            if live { Prepared::Live(held) } else { Prepared::InLine(held) }
        }
    }
}

async fn asked(hub: &Arc<Hub>, session: &Session, send: client::Send) -> Result<(RouteKey, Ask), Refusal> {
    let settings = hub.app(session.app).await?;
    let key: ConversationKey = send.conv.parse()?;
    let pair = matches!(key, ConversationKey::C2c(_));
    let message = message(hub, session, send, pair, settings.settings.message_bytes)?;
    let origin = Some(session.origin(hub.request_id()));
    let app = session.app;
    Ok(match key {
        ConversationKey::C2c(peer) => {
            let ask = messages::SendC2cRequest {
                app: app.0,
                to: peer.as_str().to_owned(),
                message: Some(message),
                origin,
                sync_other_machine: 1,
                trusted: false,
                no_webhooks: false,
                in_line: None,
            };
            (RouteKey::pair(app, &session.user, &peer), Ask::Pair(ask))
        }
        ConversationKey::Group(group) => {
            let viewer = hub.rooms.knows(app, &group);
            let group_id = group.as_str().to_owned();
            let ask = group::SendRequest {
                app: app.0,
                group_id,
                message: Some(message),
                origin,
                viewer,
                stands_for: 1,
                in_line: None,
            };
            (RouteKey::group(app, &group), Ask::Group(ask))
        }
    })
}

impl Held {
    /// The node that owns its conversation now.
    pub(crate) fn owner(&self, hub: &Hub) -> Result<NodeId, Refusal> {
        let service = match &self.ask {
            Ask::Pair(_) => Service::MessageStore,
            Ask::Group(_) => Service::Group,
        };
        hub.calls.owner(service, &self.key)
    }

    /// One try, in its place among those of its line.
    pub(crate) async fn call(
        &self,
        hub: &Hub,
        owner: &NodeId,
        place: msg::InLine,
        left: Duration,
    ) -> Result<client::Sent, Refusal> {
        let mut ask = self.ask.clone();
        match &mut ask {
            Ask::Pair(ask) => ask.in_line = Some(place),
            Ask::Group(ask) => ask.in_line = Some(place),
        }
        self.call_with(ask, hub, owner, left).await
    }

    async fn call_with(&self, ask: Ask, hub: &Hub, owner: &NodeId, left: Duration) -> Result<client::Sent, Refusal> {
        let conv = self.reply.conv.clone();
        match ask {
            Ask::Pair(ask) => {
                let mut owner = hub.calls.messages_at(owner)?;
                let reply = owner.send_c2c(hub.calls.ask_within(ask, left)).await;
                Ok(sent(conv, answer(reply, code::C2C_INTERNAL)?, true))
            }
            Ask::Group(ask) => {
                let mut owner = hub.calls.group_at(owner)?;
                let reply = owner.send(hub.calls.ask_within(ask, left)).await;
                Ok(sent(conv, answer(reply, code::GROUP_INTERNAL)?, false))
            }
        }
    }
}

/// Sends a message of a live room as its rate allows, again while the room moves.
pub(crate) async fn live(hub: &Arc<Hub>, session: &Session, held: &Held) -> Result<client::Sent, Refusal> {
    let Ask::Group(ask) = &held.ask else { return Err(Refusal::new(code::FRAME_BAD, "a live room is a group")) };
    let group = GroupId::trusted(ask.group_id.as_str());
    let message = ask.message.clone().unwrap_or_default();
    let Verdict::Forward { stands_for } = hub.rooms.gate(hub, session, &group, &message).await? else {
        return Ok(shaped(hub, held.reply.conv.clone(), held.reply.random));
    };
    let ask = Ask::Group(group::SendRequest { stands_for, ..ask.clone() });
    let deadline = hub.clock.mono() + hub.config.send_patience.get();
    let mut pause = LIVE_PAUSE;
    loop {
        let left = deadline.saturating_sub(hub.clock.mono());
        let tried = match held.owner(hub) {
            Ok(owner) => held.call_with(ask.clone(), hub, &owner, left.min(LIVE_TRY)).await,
            Err(refusal) => Err(refusal),
        };
        match tried {
            Err(refusal) if refusal.is_worth_a_retry() && hub.clock.mono() + pause < deadline => {
                hub.meters.sends_again.inc();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LIVE_PAUSE_MAX);
            }
            tried => return tried,
        }
    }
}

/// Gives the answer to the client and tells those who watch.
pub(crate) async fn finish(hub: &Arc<Hub>, session: &Session, to: &Reply, outcome: Result<client::Sent, Refusal>) {
    let answered = hub.clock.mono();
    hub.meters.send_seconds.observe((answered - to.began).as_secs_f64());
    let told = match &outcome {
        Ok(sent) => outcome_label(&sent.outcome),
        Err(_) => "refused",
    };
    hub.meters.sends.get_or_create(&[("outcome", told)]).inc();
    if hub.events.watched() {
        let name = to.conv.split_once(':').map_or(to.conv.as_str(), |(_, name)| name).to_owned();
        let (seq, outcome) = match &outcome {
            Ok(sent) => (sent.seq, sent.outcome.clone()),
            Err(why) => (0, format!("refused {}", why.code)),
        };
        let (app, from) = (session.app.0, session.user.as_str().to_owned());
        let told = Told { app, from, random: to.random, to: name, seq, outcome, answered };
        let watched = Arc::clone(hub);
        hub.tasks.spawn("gateway.trace", async move {
            tokio::time::sleep(TRACE_AFTER).await;
            watched.events.finish(told);
        });
    }
    hub.reply(to.at, to.wire, to.id, outcome.map(frame::Body::Sent), true).await;
}

fn outcome_label(outcome: &str) -> &'static str {
    match outcome {
        "published" => "published",
        "shaped" => "shaped",
        _ => "stored",
    }
}

fn message(hub: &Hub, session: &Session, send: client::Send, pair: bool, limit: u32) -> Result<msg::Message, Refusal> {
    let bad = |why: &str| Refusal::new(if pair { code::MSG_BAD_PARAM } else { code::GROUP_BAD_PARAM }, why);
    if send.body.len() > limit as usize {
        return Err(Refusal::new(code::MSG_TOO_LONG, format!("the body is over {limit} bytes")));
    }
    let body = std::str::from_utf8(&send.body).map_err(|_| bad("the body is not UTF-8"))?;
    MsgBody::parse(body)?;
    if send.cloud_custom_data.len() > EXTRA_BYTES || send.offline_push.len() > EXTRA_BYTES {
        return Err(bad("cloud_custom_data and offline_push may have 8 KB each"));
    }
    if send.to.len() > TARGETS {
        return Err(bad("at most 50 users in to"));
    }
    if pair && !(send.to.is_empty() && send.mentions.is_empty()) {
        return Err(bad("to and mentions are for groups"));
    }
    if send.mentions.len() > MENTIONS {
        return Err(Refusal::new(code::GROUP_MENTIONS, "at most 30 mentions"));
    }
    let priority = if send.priority.is_empty() { Some(Priority::Normal) } else { Priority::parse(&send.priority) };
    let priority = match priority.ok_or_else(|| bad("priority is High, Normal, Low or Lowest"))? {
        Priority::High => msg::Priority::High,
        Priority::Normal => msg::Priority::Normal,
        Priority::Low => msg::Priority::Low,
        Priority::Lowest => msg::Priority::Lowest,
    };
    let filled = pair && send.msg_seq == 0;
    let visibility = if send.to.is_empty() { msg::Visibility::All } else { msg::Visibility::Listed };
    Ok(msg::Message {
        from: session.user.as_str().to_owned(),
        random: send.random,
        msg_seq: if filled { (hub.rng.u32() >> 1).max(1) } else { send.msg_seq },
        msg_seq_filled: filled,
        content_hash: content_hash(&send.body, &send.cloud_custom_data),
        body: send.body,
        cloud_custom_data: send.cloud_custom_data,
        priority: priority.into(),
        kind: msg::MessageKind::Chat.into(),
        visibility: visibility.into(),
        visible_to: send.to,
        no_unread: send.no_unread,
        no_last_msg: send.no_last_msg,
        online_only: send.online_only,
        need_receipt: send.need_receipt,
        mentions: send.mentions,
        offline_push: send.offline_push,
        ..msg::Message::default()
    })
}

fn sent(conv: String, reply: msg::SendReply, pair: bool) -> client::Sent {
    let outcome = match reply.outcome() {
        msg::Outcome::Published => "published",
        msg::Outcome::Shaped => "shaped",
        // Dropped by the app's server or blocked by the receiver: the sender is told OK.
        msg::Outcome::Stored | msg::Outcome::Dropped | msg::Outcome::Blocked | msg::Outcome::Unspecified => "stored",
    };
    let msg_key = if pair { view::msg_key(reply.msg_seq, reply.random, reply.time_ms) } else { String::new() };
    client::Sent {
        conv,
        seq: reply.seq,
        time_ms: reply.time_ms,
        random: reply.random,
        msg_seq: reply.msg_seq,
        msg_key,
        outcome: outcome.to_owned(),
        drop_reason: reply.drop_reason,
        body: reply.rewritten_body,
        duplicate: reply.duplicate,
    }
}

fn shaped(hub: &Hub, conv: String, random: u32) -> client::Sent {
    client::Sent {
        conv,
        time_ms: hub.clock.now().0,
        random,
        outcome: "shaped".to_owned(),
        drop_reason: DROP_REASON.to_owned(),
        body: Bytes::new(),
        ..client::Sent::default()
    }
}
