//! Sending from one user to another.
//!
//! ```text
//! SendC2c -> size, accounts, blocks -> admission (retry? webhook) -> actor: stored -> answered -> both users' devices
//!    refused: 80002, 20003, 90012, 20007        duplicate: the first reply      busy: nothing assigned
//! ```

use std::sync::Arc;

use bytes::Bytes;
use linnet_admission::apps::App;
use linnet_admission::{Admit, Family, Flight, Place, Token, content_hash};
use linnet_cluster::{RouteKey, Service as Target};
use linnet_proto::account::accounts_client::AccountsClient;
use linnet_proto::account::{PairCheckReply, PairCheckRequest};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{Event, PostRequest};
use linnet_proto::delivery::{Record, record};
use linnet_proto::messages::{SendC2cRequest, TouchRequest};
use linnet_proto::msg::{Message, MessageKind, Origin, Outcome, SendReply, Visibility};
use linnet_runtime::status;
use linnet_types::{ConvId, Epoch, Refusal, SdkAppId, UserId, code};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::actor::{Append, Command, Deliver, WINDOW, only};
use crate::effects::{self, CALL};
use crate::error::{Error, Result};
use crate::metrics::{Account, Term};
use crate::owners::{Opening, Owners};
use crate::service::{Service, pair_opening, user};
use crate::stored::Draft;
use crate::webhook::{self, C2C_AFTER, C2C_BEFORE};

/// Everything about one send that does not change on its way.
struct Sending {
    app: Arc<App>,
    from: UserId,
    to: UserId,
    conv: ConvId,
    opening: Opening,
    origin: Origin,
    /// The sender's other devices get it too.
    sync: bool,
    /// The receiver blocks the sender, who is told OK.
    blocked: bool,
    /// Its place in the line of its connection.
    flight: Flight,
}

impl Service {
    /// Sends one message and waits for its outcome, at most the time a caller is given. A send that takes longer goes on; a
    /// retry with the same token joins it.
    pub(crate) async fn send_c2c(&self, request: SendC2cRequest) -> Result<SendReply> {
        let account = Account::arrive(&self.ctx.meters);
        let patience = self.ctx.config.send_timeout.0;
        let service = self.clone();
        let from = request.message.as_ref().map_or("", |message| message.from.as_str());
        // Before anything is awaited: tasks run in any order.
        let place = self.ctx.admission.arrive(SdkAppId(request.app), &request.to, from);
        let connection = request.origin.as_ref().map_or("", |origin| origin.connection.as_str());
        let flight = self.ctx.admission.in_line(connection, &request.to, request.in_line);
        let sending = self.ctx.tasks.spawn("c2c.send", async move {
            let mut place = Some(place);
            let outcome = service.send(request, &mut place, flight.clone()).await;
            flight.settled(outcome.as_ref().err().map(Error::refusal).as_ref());
            // Of one refused early: given up only now that those behind it can see why.
            drop(place);
            account.end(Term::of(&outcome));
            outcome
        });
        match tokio::time::timeout(patience, sending).await {
            Ok(Ok(Some(outcome))) => outcome,
            // The task was ended: the node stops.
            Ok(_) => Err(Error::Moved),
            Err(_) => Err(Error::Busy("the send goes on; retry with the same token".to_owned())),
        }
    }

    async fn send(&self, request: SendC2cRequest, place: &mut Option<Place>, flight: Flight) -> Result<SendReply> {
        let SendC2cRequest { app, to, message, origin, sync_other_machine, trusted, no_webhooks, .. } = request;
        let app = self.ctx.apps.get(SdkAppId(app)).await?;
        let origin = origin.unwrap_or_default();
        let mut message = message.ok_or_else(|| Error::refused(code::MSG_BAD_PARAM, "no message"))?;
        let from = user(&message.from)?;
        let receiver = if origin.admin { code::TO_ACCOUNT_UNKNOWN } else { code::C2C_NO_USER };
        let to = UserId::parse(&to).map_err(|_| Error::refused(receiver, "no such receiver"))?;
        if message.body.len() > app.settings.message_bytes as usize {
            return Err(Error::refused(code::MSG_TOO_LONG, "the message is too long"));
        }
        let check = self.check(app.id, &from, &to).await?;
        // An administrator of the app is somebody, whether or not he was imported.
        if !check.from_exists && !app.is_admin(from.as_str()) {
            return Err(Error::refused(code::C2C_NO_USER, "no such sender"));
        }
        if !check.to_exists && !app.is_admin(to.as_str()) {
            return Err(Error::refused(receiver, "no such receiver"));
        }
        self.prepare(&mut message, &origin, sync_other_machine, no_webhooks);
        let conv = self.open_pair(app.id, &from, &to).await?;
        let opening = pair_opening(app.id, conv, &from, &to, &app.settings);
        let blocked = check.blocked && !trusted && !origin.admin;
        // A client always sees on its other devices what it wrote; a backend says whether.
        let sync = sync_other_machine == 1 || !origin.admin;
        let sending = Sending { app, from, to, conv, opening, origin, sync, blocked, flight };
        if blocked {
            if !sending.app.settings.blocked_as_ok {
                self.tell_refused(&sending, &message);
                return Err(Error::refused(code::C2C_BLOCKED, "the receiver blocks the sender"));
            }
            message.set_visibility(Visibility::Sender);
        }
        self.admit(place, sending, message, no_webhooks).await
    }

    /// Fills in what the caller left open. The hash is of what the caller sent, before any webhook changes it.
    fn prepare(&self, message: &mut Message, origin: &Origin, sync_other_machine: u32, no_webhooks: bool) {
        (message.seq, message.ord, message.time_ms) = (0, 0, 0);
        message.content_hash = content_hash(&message.body, &message.cloud_custom_data);
        if message.msg_seq == 0 && !message.msg_seq_filled {
            // 31 bits: one published library reads it into a signed integer.
            message.msg_seq = self.ctx.rng.u32() >> 1;
            message.msg_seq_filled = true;
        }
        if message.kind() == MessageKind::Unspecified {
            message.set_kind(MessageKind::Chat);
        }
        let side = if sync_other_machine == 2 { Visibility::Receiver } else { Visibility::All };
        message.set_visibility(side);
        message.forbid_before |= no_webhooks;
        message.forbid_after |= no_webhooks;
        message.origin_operator.clone_from(&origin.operator);
        message.origin_platform.clone_from(&origin.platform);
        message.origin_ip.clone_from(&origin.client_ip);
    }

    async fn check(&self, app: SdkAppId, from: &UserId, to: &UserId) -> Result<PairCheckReply> {
        let rpc = self.ctx.cluster.for_owner(Target::Account, RouteKey::user(app, to))?;
        let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
        let request = status::with_deadline(PairCheckRequest { app: app.0, from, to }, CALL);
        let reply = AccountsClient::new(rpc).pair_check(request).await;
        Ok(reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?.into_inner())
    }

    async fn admit(
        &self,
        place: &mut Option<Place>,
        sending: Sending,
        message: Message,
        no_webhooks: bool,
    ) -> Result<SendReply> {
        if !message.online_only {
            let (_, head) = self.owners.ready(&sending.opening).await?;
            if head.last_seq == 0 {
                self.list_both(&sending).await?;
            }
        }
        let settings = &sending.app.settings;
        let ask = !no_webhooks && !message.forbid_before && settings.webhook_on(C2C_BEFORE);
        let admit = Admit {
            token: Token {
                conv: sending.conv,
                from: sending.from.clone(),
                msg_seq: (!message.msg_seq_filled).then_some(message.msg_seq),
                random: message.random,
                hash: message.content_hash,
            },
            window: WINDOW,
            before: ask.then(|| self.before(&sending, &message)),
            family: Family::C2c,
            max_bytes: settings.message_bytes as usize,
            block_on_failure: settings.webhook_before_failure == "block",
            message,
            flight: sending.flight.clone(),
        };
        let place = place.take().ok_or_else(|| Error::Fault("a message is admitted once".to_owned()))?;
        let unknown = Arc::new(Mutex::new(None));
        let (told, service) = (Arc::clone(&unknown), self.clone());
        let original = admit.message.body.clone();
        let reply = self.ctx.admission.admit_at(place, admit, move |message| {
            // The mailbox is entered here, in the sender's order; the outcome is waited for below.
            let waiting = service.hand_over(&sending, message, &original);
            async move {
                waiting.await.map_err(|error| {
                    let refusal = error.refusal();
                    *told.lock() = Some(error);
                    refusal
                })
            }
        });
        let reply = reply.await;
        reply.map_err(|refusal| unknown.lock().take().unwrap_or(Error::Refused(refusal)))
    }

    /// Puts the message into the actor's mailbox and answers what to wait for.
    fn hand_over(
        &self,
        sending: &Sending,
        message: Message,
        original: &Bytes,
    ) -> impl Future<Output = Result<SendReply>> + Send + use<> {
        let rewritten = if message.body == *original { Bytes::new() } else { message.body.clone() };
        let reply = SendReply {
            msg_seq: message.msg_seq,
            random: message.random,
            rewritten_body: rewritten,
            ..SendReply::default()
        };
        let posted = if message.online_only {
            self.publish_only(sending, message).map(|time_ms| Posted::Published { time_ms })
        } else {
            let outcome = if sending.blocked { Outcome::Blocked } else { Outcome::Stored };
            store(&self.owners, sending, message).map(|given| Posted::Storing { given, outcome })
        };
        async move {
            match posted? {
                Posted::Published { time_ms } => Ok(SendReply { outcome: Outcome::Published.into(), time_ms, ..reply }),
                Posted::Storing { given, outcome } => {
                    // A reply that never comes: the actor was ended between assigning and answering.
                    let given = given.await.map_err(|_| Error::Unknown)??;
                    let first = given.first().ok_or(Error::Unknown)?;
                    Ok(SendReply { outcome: outcome.into(), seq: first.seq, time_ms: first.time.0, ..reply })
                }
            }
        }
    }

    /// Delivers to who is online now; no position, no history.
    fn publish_only(&self, sending: &Sending, message: Message) -> Result<u64> {
        let now = self.ctx.clock.now();
        let message = Message { time_ms: now.0, ..message };
        if sending.app.settings.webhook_on(C2C_AFTER) && !message.forbid_after {
            let to = sending.to.as_str();
            let (result, info) = if sending.blocked { (code::C2C_BLOCKED, "blocked") } else { (0, "send msg succeed") };
            let body = webhook::c2c_after(&message, to, result, info, (!sending.blocked).then_some(0));
            let what = format!("o{}-{}-{}", message.msg_seq, message.random, now.0);
            let address = webhook::called(sending.app.id.0, sending.conv.0, C2C_AFTER, &what, &sending.origin, now);
            self.post(address.event(body));
        }
        if let Some(deliver) = deliver(sending, &message) {
            let record = Record {
                only: deliver.only,
                except_connection: deliver.except_connection,
                kind: Some(record::Kind::Message(message)),
            };
            self.owners.post(&sending.opening, Command::Publish(vec![record]))?;
        }
        Ok(now.0)
    }

    fn before(&self, sending: &Sending, message: &Message) -> Event {
        let now = self.ctx.clock.now();
        let what = format!("b{}-{}-{}", message.msg_seq, message.random, now.0);
        let address = webhook::called(sending.app.id.0, sending.conv.0, C2C_BEFORE, &what, &sending.origin, now);
        address.event(webhook::c2c_before(message, sending.to.as_str(), now))
    }

    /// A refusal the app hears of although nothing was stored.
    fn tell_refused(&self, sending: &Sending, message: &Message) {
        if message.forbid_after || !sending.app.settings.webhook_on(C2C_AFTER) {
            return;
        }
        let now = self.ctx.clock.now();
        let message = Message { time_ms: now.0, ..message.clone() };
        let why = "the receiver blocks the sender";
        let body = webhook::c2c_after(&message, sending.to.as_str(), code::C2C_BLOCKED, why, None);
        let what = format!("r{}-{}-{}", message.msg_seq, message.random, now.0);
        let address = webhook::called(sending.app.id.0, sending.conv.0, C2C_AFTER, &what, &sending.origin, now);
        self.post(address.event(body));
    }

    /// Tells the app, best effort, without making anybody wait.
    pub(crate) fn post(&self, event: Event) {
        let cluster = self.ctx.cluster.clone();
        self.ctx.tasks.spawn("webhook.post", async move {
            let Ok(rpc) = cluster.any(Target::Callback) else { return };
            let request = status::with_deadline(PostRequest { events: vec![event] }, CALL);
            if let Err(error) = CallbacksClient::new(rpc).post(request).await {
                tracing::debug!(code = ?error.code(), "a best-effort event was lost");
            }
        });
    }

    /// Before its first message: the conversation enters both users' lists. Repeated until the log has a message.
    async fn list_both(&self, sending: &Sending) -> Result<()> {
        let list = |user: &UserId, peer: &UserId| {
            let request = TouchRequest {
                app: sending.app.id.0,
                users: vec![user.as_str().to_owned()],
                key: format!("C2C:{peer}"),
                conv: sending.conv.0,
                time_ms: self.ctx.clock.now().0,
                ..TouchRequest::default()
            };
            effects::touch(&self.ctx, user.clone(), request)
        };
        let own = list(&sending.from, &sending.to);
        let other = list(&sending.to, &sending.from);
        futures::future::try_join(own, other).await.map(drop)
    }
}

enum Posted {
    Published { time_ms: u64 },
    Storing { given: oneshot::Receiver<Result<Vec<crate::actor::Given>>>, outcome: Outcome },
}

fn store(
    owners: &Owners,
    sending: &Sending,
    message: Message,
) -> Result<oneshot::Receiver<Result<Vec<crate::actor::Given>>>> {
    let (reply, given) = oneshot::channel();
    let deliver = deliver(sending, &message);
    let mut draft = Draft::c2c(message, &sending.to);
    if sending.blocked {
        draft.failed = code::C2C_BLOCKED;
    }
    let append = Append {
        drafts: vec![draft],
        group_epoch: Epoch(0),
        class: sending.opening.class,
        expires: None,
        deliver,
        flight: sending.flight.clone(),
        taken: None,
        reply,
    };
    owners.post(&sending.opening, Command::Append(append))?;
    Ok(given)
}

/// Who gets the message now; `None` = nobody.
fn deliver(sending: &Sending, message: &Message) -> Option<Deliver> {
    let sender_side = sending.sync && message.visibility() != Visibility::Receiver;
    let only = match (sending.blocked, sender_side) {
        (true, true) => only(&sending.from),
        (true, false) => return None,
        (false, true) => Vec::new(),
        (false, false) => only(&sending.to),
    };
    Some(Deliver { only, except_connection: sending.origin.connection.clone() })
}

/// A refusal with a code from elsewhere, as this service answers it.
impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let refusal: Refusal = status::refusal_or(&status, code::C2C_INTERNAL);
        Self::Refused(refusal)
    }
}
