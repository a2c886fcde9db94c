//! Sending: admission around the loop, and the last checks, shaping and storing inside it.

use std::time::Duration;

use linnet_admission::{Admit, Family, Flight, Place, Token, content_hash};
use linnet_proto::delivery::Record;
use linnet_proto::group::SendRequest;
use linnet_proto::msg::{Message, MessageKind, Outcome, SendReply, Visibility};
use linnet_types::{AppSettings, GroupId, GroupType, MsgBody, Refusal, SdkAppId, UnixMillis, UserId, code};
use tokio::sync::{mpsc, oneshot};

use super::{Group, message_record};
use crate::error::{Result, bad, busy, no_right, unknown};
use crate::hooks::{self, command};
use crate::hub::{Command, Handle, Sending, Sent};
use crate::limits;
use crate::remote::wants;
use crate::rules::{self, Act, Rank};
use crate::shared::Shared;

/// How long an outcome is remembered for retries.
pub(crate) const WINDOW: Duration = Duration::from_secs(300);
/// Drop reason of a shaped message.
pub(crate) const SHAPED: &str = "MsgFreqCtrl";
const OVER: &str = "over the message rate of the group";
/// Mentions everybody.
const ALL: &str = "__kImSDK_MesssageAtALL__";

impl Shared {
    /// Sends one message and waits for its outcome. Counted whatever becomes of the caller.
    pub(crate) async fn send(&self, request: SendRequest) -> Result<SendReply> {
        let shared = self.me();
        self.law.begin();
        let from = request.message.as_ref().map_or("", |message| message.from.as_str());
        // Before anything is awaited: tasks run in any order.
        let place = self.admission.arrive(SdkAppId(request.app), &request.group_id, from);
        let connection = request.origin.as_ref().map_or("", |origin| origin.connection.as_str());
        let flight = self.admission.in_line(connection, &request.group_id, request.in_line);
        let task = self.tasks.spawn("group.send", async move {
            let (outcome, unknown) = Box::pin(shared.send_counted(request, place, flight)).await;
            shared.law.end(&outcome, unknown);
            outcome
        });
        match task.await {
            Ok(Some(outcome)) => outcome,
            _ => Err(busy("the node is stopping")),
        }
    }

    async fn send_counted(&self, request: SendRequest, place: Place, flight: Flight) -> Sent {
        let app = SdkAppId(request.app);
        let group = request.group_id.clone();
        let origin = request.origin.clone().unwrap_or_default();
        let sent = request.message.clone().unwrap_or_default();
        let mut place = Some(place);
        let (outcome, may_be_stored, kind) = match self.send_admitted(request, &mut place, flight.clone()).await {
            Ok((outcome, may_be_stored, kind)) => (outcome, may_be_stored, Some(kind)),
            Err(refusal) => (Err(refusal), false, None),
        };
        flight.settled(outcome.as_ref().err());
        // Of one refused early: given up only now that those behind it can see why.
        drop(place);
        if let Err(refusal) = &outcome
            && refusal.retry_after_ms.is_none()
            && refusal.code != code::GROUP_VETO
            && !code::is_app_defined(refusal.code)
        {
            self.tell_exception(app, &group, kind, &sent, &origin, refusal).await;
        }
        (outcome, may_be_stored)
    }

    /// Refusals that come before the group is known are plain errors; later ones come with its kind.
    async fn send_admitted(
        &self,
        request: SendRequest,
        place: &mut Option<Place>,
        flight: Flight,
    ) -> Result<(Result<SendReply>, bool, GroupType)> {
        let app = self.app(SdkAppId(request.app)).await?;
        let id = GroupId::parse(&request.group_id)?;
        let origin = request.origin.unwrap_or_default();
        let mut message = request.message.ok_or_else(|| bad("a message is missing"))?;
        let handle = self.hub.get(self, app.id, &id).await?;
        let kind = handle.kind;
        if let Err(refusal) = prepare(&mut message, &origin, kind, &app.settings) {
            return Ok((Err(refusal), false, kind));
        }
        // Viewers are known to their gateways only.
        if kind.is_live() && !request.viewer && !origin.admin {
            return Ok((Err(no_right("the sender is not in the room")), false, kind));
        }
        let token = Token {
            conv: handle.conv,
            from: UserId::trusted(message.from.as_str()),
            msg_seq: None,
            random: message.random,
            hash: message.content_hash,
        };
        let before = !message.forbid_before && wants(&app.settings, command::BEFORE_SEND);
        let before = match before {
            true => match self.before(app.id, &handle, &id, &message, &origin).await {
                Ok(event) => Some(event),
                Err(refusal) => return Ok((Err(refusal), false, kind)),
            },
            false => None,
        };
        let admit = Admit {
            token,
            window: WINDOW,
            before,
            family: Family::Group,
            max_bytes: app.settings.message_bytes as usize,
            block_on_failure: app.settings.webhook_before_failure == "block",
            message,
            flight: flight.clone(),
        };
        let place = place.take().ok_or_else(|| busy("a message is admitted once"))?;
        let (tell_unknown, mut unknown) = oneshot::channel();
        let sent_hash = admit.token.hash;
        let stands_for = request.stands_for.max(1);
        let by = By { connection: origin.connection, admin: origin.admin, stands_for, flight };
        let outcome = self
            .admission
            .admit_at(place, admit, move |message| {
                let rewritten = content_hash(&message.body, &message.cloud_custom_data) != sent_hash;
                let body = rewritten.then(|| message.body.clone());
                let answer = hand_over(&handle, message, by);
                async move {
                    let (outcome, may_be_stored) = answer.await;
                    let _ = tell_unknown.send(may_be_stored);
                    outcome.map(|reply| SendReply { rewritten_body: body.unwrap_or_default(), ..reply })
                }
            })
            .await;
        Ok((outcome, unknown.try_recv().unwrap_or(false), kind))
    }

    /// Asks the actor whether the message would be taken, before the app's server is asked about it.
    async fn before(
        &self,
        app: SdkAppId,
        handle: &Handle,
        id: &GroupId,
        message: &Message,
        origin: &linnet_proto::msg::Origin,
    ) -> Result<linnet_proto::callback::Event> {
        let (from, admin, asked) = (message.from.clone(), origin.admin, message.clone());
        handle.call(move |group| Box::pin(async move { group.may_send(&asked, &from, admin).await })).await?;
        let now = self.clock.now();
        let body = hooks::message(id.as_str(), handle.kind, message, now, None).json();
        let hash = message.content_hash;
        let name = format!("g{}-before-{}-{}-{hash}", handle.conv.0, message.from, message.random);
        Ok(hooks::event(app, command::BEFORE_SEND, handle.conv.0, name, body, origin, now))
    }

    async fn tell_exception(
        &self,
        app: SdkAppId,
        group: &str,
        kind: Option<GroupType>,
        message: &Message,
        origin: &linnet_proto::msg::Origin,
        why: &Refusal,
    ) {
        let Ok(app) = self.app(app).await else { return };
        if !wants(&app.settings, command::SEND_EXCEPTION) {
            return;
        }
        let now = self.clock.now();
        let body = hooks::exception(group, kind.unwrap_or(GroupType::Public), message, now, why).json();
        let id = format!("x-{}-{}-{}", message.from, message.random, now.0);
        let mut event = hooks::event(app.id, command::SEND_EXCEPTION, 0, id, body, origin, now);
        event.key = format!("g{group}");
        self.post(vec![event]);
    }
}

/// Fills in what the owner decides about a message, and checks its shape.
fn prepare(
    message: &mut Message,
    origin: &linnet_proto::msg::Origin,
    kind: GroupType,
    settings: &AppSettings,
) -> Result<()> {
    message.kind = MessageKind::Chat.into();
    message.seq = 0;
    message.content_hash = content_hash(&message.body, &message.cloud_custom_data);
    message.origin_operator.clone_from(&origin.operator);
    message.origin_platform.clone_from(&origin.platform);
    message.origin_ip.clone_from(&origin.client_ip);
    if kind.is_live() {
        message.online_only = false;
    }
    if !message.visible_to.is_empty() {
        message.visibility = Visibility::Listed.into();
        message.no_unread = true;
    }
    if !kind.counts_unread() {
        message.no_unread = true;
    }
    check_shape(message, kind, settings)
}

/// Checks what does not depend on who is a member.
///
/// # Errors
/// The documented code.
pub(crate) fn check_shape(message: &Message, kind: GroupType, settings: &AppSettings) -> Result<()> {
    if message.body.len() > settings.message_bytes as usize {
        return Err(Refusal::new(code::MSG_TOO_LONG, "the message is longer than the app allows"));
    }
    if message.mentions.len() > limits::MENTIONS {
        return Err(Refusal::new(code::GROUP_MENTIONS, "more than 30 mentions"));
    }
    if message.visible_to.len() > limits::TARGETS {
        return Err(Refusal::new(code::GROUP_TOO_MANY, "more than 50 receivers"));
    }
    if message.online_only && message.need_receipt {
        return Err(Refusal::new(code::GROUP_ONLINE_RECEIPT, "an online-only message has no receipts"));
    }
    if !message.visible_to.is_empty() {
        rules::allow(kind, Rank::App, Act::Target)?;
    }
    let text = std::str::from_utf8(&message.body).map_err(|_| bad("MsgBody is not UTF-8"))?;
    // The edge has its own codes for shapes; what comes this far is a parameter like any other.
    MsgBody::parse(text).map(drop).map_err(|refusal| bad(&refusal.info))
}

/// On whose behalf a message comes.
struct By {
    connection: String,
    admin: bool,
    stands_for: u32,
    flight: Flight,
}

/// Puts a message into the actor's mailbox without waiting.
fn hand_over(handle: &Handle, message: Message, by: By) -> impl Future<Output = Sent> + Send + use<> {
    let (reply, answer) = oneshot::channel();
    let By { connection, admin, stands_for, flight } = by;
    let sending = Box::new(Sending { message, connection, admin, stands_for, flight, taken: None, reply });
    let put = handle.mailbox.try_send(Command::Send(sending));
    async move {
        match put {
            Ok(()) => answer.await.unwrap_or_else(|_| (Err(busy("the group is moving")), false)),
            Err(mpsc::error::TrySendError::Full(_)) => (Err(busy("the group is busy")), false),
            Err(mpsc::error::TrySendError::Closed(_)) => (Err(busy("the group is moving")), false),
        }
    }
}

impl Group {
    /// Whether `from` may send `message` now.
    pub(super) async fn may_send(&mut self, message: &Message, from: &str, admin: bool) -> Result<()> {
        if self.dismissed {
            return Err(unknown());
        }
        check_shape(message, self.kind(), &self.app.settings)?;
        if self.record().support_topic {
            return Err(no_right("messages of this community go to its topics"));
        }
        if admin {
            return Ok(());
        }
        let from = UserId::trusted(from);
        if self.index.standing(&from).is_none() {
            self.state(&from).await?;
        }
        let standing = self.index.standing(&from).ok_or_else(|| busy("the group is busy"))?;
        let live = self.kind().is_live();
        if !live && !standing.member {
            return Err(no_right("the sender is not a member of the group"));
        }
        let now = self.now();
        if live && standing.banned_until > now {
            return Err(no_right("the sender is banned from the room"));
        }
        let role = self.record().role(&from);
        if standing.muted_until > now || (self.record().mute_all && role == linnet_types::Role::Member) {
            return Err(Refusal::new(code::GROUP_MUTED, "the sender is muted"));
        }
        if message.mentions.iter().any(|mention| mention == ALL) {
            rules::allow(self.kind(), Rank::of(Some(role)), Act::MentionAll)?;
        }
        Ok(())
    }

    /// Everything that waits: checked once more, shaped, stored as one batch, acknowledged, published.
    pub(super) async fn flush(&mut self) {
        let waiting: Vec<_> = self.waiting.drain(..).collect();
        if waiting.is_empty() {
            return;
        }
        let mut stored: Vec<Box<Sending>> = Vec::with_capacity(waiting.len());
        let mut published: Vec<Record> = Vec::new();
        for mut sending in waiting {
            let from = sending.message.from.clone();
            sending.taken = sending.flight.take(self.taker);
            if sending.taken.is_none() {
                sending.answer((Err(busy("a message before this one was not taken")), false));
                continue;
            }
            if let Err(refusal) = self.may_send(&sending.message, &from, sending.admin).await {
                sending.answer((Err(refusal), false));
                continue;
            }
            self.wake_up(&from).await;
            let now = self.now();
            if self.kind().is_live() {
                self.offer(sending, now, &mut published).await;
                continue;
            }
            if !self.bucket.take(self.app.settings.group_rate, now) {
                self.shape_out(*sending, now);
                continue;
            }
            if !sending.message.online_only {
                stored.push(sending);
                continue;
            }
            // Keeps its place among the stored ones: what came before it goes out first.
            self.store_and_publish(std::mem::take(&mut stored), &mut published).await;
            sending.message.time_ms = now.0.max(self.last_ms);
            let reply = answer(&sending.message, Outcome::Published);
            published.push(message_record(sending.message.clone(), sending.connection.clone()));
            sending.answer((Ok(reply), false));
        }
        self.store_and_publish(stored, &mut published).await;
        self.publish(published, &[]);
    }

    #[expect(clippy::vec_box, reason = "handed on as they are; each is half a kilobyte")]
    async fn store_and_publish(&mut self, sendings: Vec<Box<Sending>>, records: &mut Vec<Record>) {
        if sendings.is_empty() {
            return;
        }
        let messages = sendings.iter().map(|sending| sending.message.clone()).collect();
        let outcomes = self.append(messages).await;
        for (sending, outcome) in sendings.into_iter().zip(outcomes) {
            match outcome {
                Ok(message) => {
                    if self.index.spoke(&message.from, UnixMillis(message.time_ms)) {
                        self.spoke.insert(UserId::trusted(message.from.as_str()));
                    }
                    let reply = answer(&message, Outcome::Stored);
                    records.push(message_record(message, sending.connection.clone()));
                    sending.answer((Ok(reply), false));
                }
                Err((refusal, may_be_stored)) => sending.answer((Err(refusal), may_be_stored)),
            }
        }
    }

    /// A Work group shows itself to its members with its owner's first message.
    async fn wake_up(&mut self, from: &str) {
        let owner = self.record().owner.as_ref().is_some_and(|owner| owner.as_str() == from);
        if self.record().activated || !owner {
            return;
        }
        let mut record = self.record().clone();
        record.activated = true;
        let change = linnet_store::groups::Change::at(self.now()).record(record);
        if let Err(refusal) = self.apply(change).await {
            tracing::warn!(%refusal, "a Work group could not be activated");
        }
    }

    /// Over the rate: the sender is told success with the reason, or 10023 where the app wants that.
    pub(super) fn shape_out(&mut self, sending: Sending, now: UnixMillis) {
        let why = Refusal::new(code::GROUP_TOO_FAST, OVER);
        let as_error = self.app.settings.group_rate_error && !self.kind().is_live();
        let outcome = if as_error {
            Err(why)
        } else {
            let told = answer(&sending.message, Outcome::Shaped);
            Ok(SendReply { drop_reason: SHAPED.to_owned(), time_ms: now.0, ..told })
        };
        // A refusal is told by the caller of the loop, as every refusal is.
        if !as_error {
            self.tell_shaped(&sending.message, now);
        }
        sending.answer((outcome, false));
    }

    /// The app hears of a message that was dropped by the rate.
    pub(super) fn tell_shaped(&self, message: &Message, now: UnixMillis) {
        if !wants(&self.app.settings, command::SEND_EXCEPTION) {
            return;
        }
        let why = Refusal::new(code::GROUP_TOO_FAST, OVER);
        let body = hooks::exception(self.record().group.as_str(), self.kind(), message, now, &why).json();
        let conv = self.held.conv().0;
        let id = format!("g{conv}-x-{}-{}", message.from, message.random);
        let origin = origin_of(message);
        self.shared.post(vec![hooks::event(self.held.app(), command::SEND_EXCEPTION, conv, id, body, &origin, now)]);
    }
}

/// Where a message came from, for webhooks about it.
pub(super) fn origin_of(message: &Message) -> linnet_proto::msg::Origin {
    linnet_proto::msg::Origin {
        operator: message.origin_operator.clone(),
        platform: message.origin_platform.clone(),
        client_ip: message.origin_ip.clone(),
        ..linnet_proto::msg::Origin::default()
    }
}

/// The answer to a message that was taken.
pub(super) fn answer(message: &Message, outcome: Outcome) -> SendReply {
    SendReply {
        outcome: outcome.into(),
        seq: message.seq,
        time_ms: message.time_ms,
        msg_seq: message.msg_seq,
        random: message.random,
        ..SendReply::default()
    }
}
