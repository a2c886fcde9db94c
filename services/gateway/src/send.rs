//! A message of a client: checked as far as the edge can, handed to its owner, answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_admission::content_hash;
use linnet_proto::client::{self, frame};
use linnet_proto::{group, messages, msg};
use linnet_types::{ConversationKey, MsgBody, Priority, Refusal, code};

use crate::calls::answer;
use crate::events::Told;
use crate::hub::Hub;
use crate::lane::Job;
use crate::rooms::Verdict;
use crate::session::Session;
use crate::view;

/// Receivers of a targeted message, and mentions (`spec/rest-messages.md` §1).
const TARGETS: usize = 50;
const MENTIONS: usize = 30;
/// Largest `cloud_custom_data` and push settings in bytes.
const EXTRA_BYTES: usize = 8 << 10;
/// Time deliveries have to be counted before a watcher is told of a message.
const TRACE_AFTER: Duration = Duration::from_millis(250);
/// What a shed message is told (`spec/rest-groups.md` §4.2).
const DROP_REASON: &str = "MsgFreqCtrl";

/// Carries one message to its owner and the answer back.
pub(crate) async fn carry(hub: &Arc<Hub>, session: &Arc<Session>, job: Job) {
    let began = hub.clock.mono();
    let Job { at, wire, id, mut send } = job;
    if send.random == 0 {
        send.random = hub.rng.u32().max(1);
    }
    let (conv, random) = (send.conv.clone(), send.random);
    hub.events.begin(session.app.0, session.user.as_str(), random, began);
    let outcome = deliver(hub, session, send).await;
    let answered = hub.clock.mono();
    hub.meters.send_seconds.observe((answered - began).as_secs_f64());
    let told = match &outcome {
        Ok(sent) => outcome_label(&sent.outcome),
        Err(_) => "refused",
    };
    hub.meters.sends.get_or_create(&[("outcome", told)]).inc();
    if hub.events.watched() {
        let to = conv.split_once(':').map_or(conv.as_str(), |(_, name)| name).to_owned();
        let (seq, outcome) = match &outcome {
            Ok(sent) => (sent.seq, sent.outcome.clone()),
            Err(why) => (0, format!("refused {}", why.code)),
        };
        let told =
            Told { app: session.app.0, from: session.user.as_str().to_owned(), random, to, seq, outcome, answered };
        let watched = Arc::clone(hub);
        hub.tasks.spawn("gateway.trace", async move {
            tokio::time::sleep(TRACE_AFTER).await;
            watched.events.finish(told);
        });
    }
    hub.reply(at, wire, id, outcome.map(frame::Body::Sent), true).await;
}

fn outcome_label(outcome: &str) -> &'static str {
    match outcome {
        "published" => "published",
        "shaped" => "shaped",
        _ => "stored",
    }
}

async fn deliver(hub: &Arc<Hub>, session: &Session, send: client::Send) -> Result<client::Sent, Refusal> {
    let app = hub.app(session.app).await?;
    let key: ConversationKey = send.conv.parse()?;
    let conv = send.conv.clone();
    let pair = matches!(key, ConversationKey::C2c(_));
    let message = message(hub, session, send, pair, app.settings.message_bytes)?;
    let origin = Some(session.origin(hub.request_id()));
    let (random, app) = (message.random, session.app);
    let reply = match key {
        ConversationKey::C2c(peer) => {
            let ask = messages::SendC2cRequest {
                app: app.0,
                to: peer.as_str().to_owned(),
                message: Some(message),
                origin,
                sync_other_machine: 1,
                trusted: false,
                no_webhooks: false,
            };
            let mut owner = hub.calls.pair(app, &session.user, &peer)?;
            answer(owner.send_c2c(hub.calls.ask(ask)).await, code::C2C_INTERNAL)?
        }
        ConversationKey::Group(group) => {
            let Verdict::Forward { stands_for } = hub.rooms.gate(hub, session, &group, &message).await? else {
                return Ok(shaped(hub, conv, random));
            };
            let viewer = hub.rooms.knows(session.app, &group);
            let group_id = group.as_str().to_owned();
            let ask = group::SendRequest { app: app.0, group_id, message: Some(message), origin, viewer, stands_for };
            let mut owner = hub.calls.group(app, &group)?;
            answer(owner.send(hub.calls.ask(ask)).await, code::GROUP_INTERNAL)?
        }
    };
    Ok(sent(conv, reply, pair))
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
