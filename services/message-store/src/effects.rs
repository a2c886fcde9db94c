//! What follows from a stored message: own messages counted in their senders' positions, after-webhooks, bot events.
//!
//! Derived from the log behind a cursor that `log_head` keeps, so a new owner goes on where the last one stopped. At least
//! once: counting is idempotent by position, events by their ids.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::App;
use linnet_cluster::{RouteKey, Service as Target};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{EnqueueRequest, Event};
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::messages::{TouchReply, TouchRequest, UnreadC2cRequest};
use linnet_proto::push::pushes_client::PushesClient;
use linnet_proto::push::{AdvancedRequest, Stored};
use linnet_runtime::status;
use linnet_store::logs::{LogHead, LogId};
use linnet_types::{AppSettings, GroupType, Seq, UserId, code};

use crate::error::{Error, Result};
use crate::service::Service;
use crate::state::{Ctx, Shared, Shown, Subject};
use crate::stored::Row;
use crate::webhook::{self, BOT_C2C, BOT_GROUP, C2C_AFTER, C2C_READ, C2C_RECALLED, GROUP_AFTER};

/// Rows of one round.
const ROUND: u64 = 200;
/// Rounds refused for good before what was refused is left out: about a minute.
const FAULTS: u32 = 20;
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
pub(crate) const CALL: Duration = Duration::from_secs(2);

/// Follows one log until its actor ends.
pub(crate) async fn run(ctx: Arc<Ctx>, shared: Arc<Shared>) {
    let mut shown = shared.watch();
    let (mut wait, mut faults) = (RETRY, 0);
    let mut done = Done::default();
    loop {
        let now = shown.borrow_and_update().clone();
        let head = match now {
            Shown::Closed => return,
            Shown::Opening => None,
            Shown::Open(head) => Some(head),
        };
        let behind = head.filter(|head| shared.cursor() < head.last_seq);
        let Some(head) = behind else {
            if shown.changed().await.is_err() {
                return;
            }
            continue;
        };
        match round(&ctx, &shared, &head, &mut done, faults >= FAULTS).await {
            Ok(()) => (wait, faults) = (RETRY, 0),
            Err(error) => {
                faults += u32::from(error.refusal().retry_after_ms.is_none());
                ctx.meters.effects_retried();
                tracing::debug!(conv = shared.id.conv.0, %error, "side effects are repeated");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

/// How far each kind of effect is taken. The cursor is where all of them are, so a service that is away holds up its own
/// kind only.
#[derive(Default)]
struct Done {
    told: u64,
    pushed: u64,
}

/// The effects of the next rows. With `skip`, what is refused for good is left out: one row that nobody can take must not
/// hold up all that follow.
async fn round(ctx: &Ctx, shared: &Shared, head: &LogHead, done: &mut Done, skip: bool) -> Result<()> {
    let cursor = shared.cursor();
    (done.told, done.pushed) = (done.told.max(cursor), done.pushed.max(cursor));
    let told = tell(ctx, shared, head, done.told, skip).await.map(|to| done.told = to);
    let pushed = push(ctx, shared, head, done.pushed, skip).await.map(|to| done.pushed = to);
    shared.set_cursor(done.told.min(done.pushed));
    told.and(pushed)
}

/// Counts and tells what follows `done`; answers how far.
async fn tell(ctx: &Ctx, shared: &Shared, head: &LogHead, done: u64, skip: bool) -> Result<u64> {
    if done >= head.last_seq {
        return Ok(done);
    }
    let (from, to) = (done + 1, head.last_seq.min(done + ROUND));
    let rows = load(ctx, shared, head, from, to).await?;
    unless_refused(skip, count_own(ctx, shared, &rows).await)?;
    let app = match ctx.apps.get(shared.id.app).await {
        Ok(app) => app,
        // A deleted or disabled app wants to hear of nothing.
        Err(refusal) if refusal.retry_after_ms.is_none() => return Ok(to),
        Err(refusal) => return Err(refusal.into()),
    };
    let events = events(ctx, shared, &app, &rows).await?;
    if !events.is_empty() {
        let count = events.len();
        unless_refused(skip, enqueue(ctx, events).await)?;
        ctx.meters.events(count);
    }
    Ok(to)
}

/// Tells the push service what follows `done`, where the app has a provider; answers how far.
async fn push(ctx: &Ctx, shared: &Shared, head: &LogHead, done: u64, skip: bool) -> Result<u64> {
    if done >= head.last_seq {
        return Ok(done);
    }
    let wanted = match ctx.apps.get(shared.id.app).await {
        Ok(app) => !app.settings.push_url.is_empty(),
        Err(refusal) if refusal.retry_after_ms.is_none() => false,
        Err(refusal) => return Err(refusal.into()),
    };
    if !wanted {
        return Ok(head.last_seq);
    }
    let to = head.last_seq.min(done + ROUND);
    let rows = load(ctx, shared, head, done + 1, to).await?;
    unless_refused(skip, advanced(ctx, shared, &rows).await)?;
    Ok(to)
}

/// Any of the push service's nodes takes it, so that one that is away is gone around.
async fn advanced(ctx: &Ctx, shared: &Shared, rows: &[Arc<Row>]) -> Result<()> {
    let group_id = match &shared.subject {
        Subject::Group(group) => group.as_str().to_owned(),
        Subject::Pair(..) => String::new(),
    };
    let stored = |row: &Arc<Row>| Stored {
        message: Some(row.message.clone()),
        to: if group_id.is_empty() { to_of(shared, row) } else { String::new() },
        group_type: row.group_type.clone(),
        failed: row.failed != 0,
    };
    let messages = rows.iter().map(stored).collect();
    let request = AdvancedRequest { app: shared.id.app.0, conv: shared.id.conv.0, group_id, messages };
    let pushes = PushesClient::new(ctx.cluster.any(Target::Push)?).advanced(status::with_deadline(request, CALL)).await;
    pushes.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
    Ok(())
}

fn unless_refused(skip: bool, outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if skip && error.refusal().retry_after_ms.is_none() => {
            tracing::error!(%error, "side effects were refused for good and are left out");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn load(ctx: &Ctx, shared: &Shared, head: &LogHead, from: u64, to: u64) -> Result<Vec<Arc<Row>>> {
    if let Some(rows) = shared.rows(from, to) {
        return Ok(rows);
    }
    let reader = ctx.logs.reader_of(shared.id, head);
    let (mut rows, mut next) = (Vec::new(), to);
    while next >= from {
        let page = reader.history(Seq(from), Seq(next), usize::try_from(ROUND).unwrap_or(usize::MAX)).await?;
        rows.extend(page.messages.into_iter().map(|stored| Arc::new(Row::read(stored))));
        next = page.from.0.saturating_sub(1);
        if page.from > page.to {
            break;
        }
    }
    rows.reverse();
    Ok(rows)
}

/// Tells each sender's owner which countable messages were his own.
async fn count_own(ctx: &Ctx, shared: &Shared, rows: &[Arc<Row>]) -> Result<()> {
    let mut own: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    // What the app itself said, under a name that is no account's, is nobody's own.
    let by_user = |row: &&Arc<Row>| UserId::parse(&row.message.from).is_ok();
    for row in rows.iter().filter(|row| row.countable && counts_unread(row)).filter(by_user) {
        own.entry(&row.message.from).or_default().push(row);
    }
    let calls = own.into_iter().map(|(from, rows)| {
        let user = UserId::trusted(from);
        let request = TouchRequest {
            app: shared.id.app.0,
            users: vec![from.to_owned()],
            key: shared.subject.key_for(from).to_string(),
            conv: shared.id.conv.0,
            time_ms: rows.last().map_or(0, |row| row.message.time_ms),
            own_seqs: rows.iter().map(|row| row.message.seq).collect(),
            read: None,
        };
        touch(ctx, user, request)
    });
    futures::future::try_join_all(calls).await.map(drop)
}

/// Meetings have no unread counts.
fn counts_unread(row: &Row) -> bool {
    row.group_type.is_empty() || GroupType::parse(&row.group_type).is_none_or(GroupType::counts_unread)
}

/// Asks the owner of `user` to change what the user keeps of a conversation. Answers whether a position moved.
pub(crate) async fn touch(ctx: &Ctx, user: UserId, request: TouchRequest) -> Result<TouchReply> {
    let key = RouteKey::user(linnet_types::SdkAppId(request.app), &user);
    let rpc = ctx.cluster.for_owner(Target::MessageStore, key)?;
    let reply = MessagesClient::new(rpc).touch(status::with_deadline(request, CALL)).await;
    let reply = reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
    Ok(reply.into_inner())
}

/// Whether any webhook that is on carries a total of unread messages.
pub(crate) fn totals_wanted(settings: &AppSettings) -> bool {
    [C2C_AFTER, C2C_READ, C2C_RECALLED, BOT_C2C].into_iter().any(|command| settings.webhook_on(command))
}

/// All unread one-to-one messages of a user, who has something new with `peer`.
pub(crate) async fn total_unread(ctx: &Ctx, app: u32, user: &UserId, peer: &str) -> Result<u64> {
    let key = RouteKey::user(linnet_types::SdkAppId(app), user);
    let rpc = ctx.cluster.for_owner(Target::MessageStore, key)?;
    let request =
        UnreadC2cRequest { app, user: user.as_str().to_owned(), peers: Vec::new(), changed: vec![peer.to_owned()] };
    let reply = MessagesClient::new(rpc).unread_c2c(status::with_deadline(request, CALL)).await;
    Ok(reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?.into_inner().total)
}

/// Stores events for delivery, in order.
pub(crate) async fn enqueue(ctx: &Ctx, events: Vec<Event>) -> Result<()> {
    let rpc = ctx.cluster.any(Target::Callback)?;
    let request = status::with_deadline(EnqueueRequest { events }, CALL);
    CallbacksClient::new(rpc).enqueue(request).await.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
    Ok(())
}

/// Time given to an event about a call; its caller waits for it.
const TELL: Duration = Duration::from_secs(3);
/// Of that, what is given to the events of the messages before it.
const TELL_AFTER: Duration = Duration::from_secs(1);

impl Service {
    /// Stores the event of a call that stored nothing of its own, named `what` in its conversation, with all unread messages of `user`, who has something new
    /// with `peer`. Durable when this returns, so the caller is answered afterwards; comes after the events of the messages
    /// up to `seq`, unless those are held up.
    ///
    /// # Errors
    /// Retryable: the caller repeats the call, which tells the same event again.
    pub(crate) async fn tell(
        &self,
        id: LogId,
        what: &str,
        seq: u64,
        user: &UserId,
        peer: &UserId,
        event: impl FnOnce(u64) -> Event,
    ) -> Result<()> {
        let ctx = &self.ctx;
        let name = format!("{}-{}-{what}", id.app, id.conv);
        if self.told().contains_key(&name) {
            return Ok(());
        }
        let began = ctx.clock.mono();
        let mut wait = RETRY;
        let mut event = Some(event);
        let mut ready = None;
        loop {
            let waited = ctx.clock.mono().saturating_sub(began);
            let behind = self.owners.active(id).is_some_and(|handle| handle.shared.cursor() < seq);
            if !behind || waited >= TELL_AFTER {
                if ready.is_none()
                    && let Ok(unread) = total_unread(ctx, id.app.0, user, peer.as_str()).await
                {
                    ready = event.take().map(|event| event(unread));
                }
                if let Some(event) = &ready
                    && enqueue(ctx, vec![event.clone()]).await.is_ok()
                {
                    ctx.meters.events(1);
                    self.told().insert(name, ());
                    return Ok(());
                }
            }
            if waited >= TELL {
                tracing::warn!(conv = id.conv.0, "an event about a call is not stored; the call is refused");
                return Err(Error::Busy("the app could not be told of it; repeat the call".to_owned()));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(TELL_AFTER / 4);
        }
    }
}

async fn events(ctx: &Ctx, shared: &Shared, app: &App, rows: &[Arc<Row>]) -> Result<Vec<Event>> {
    match &shared.subject {
        Subject::Group(group) => {
            let told = rows.iter().filter(|row| !row.message.forbid_after);
            Ok(told.flat_map(|row| group_events(shared, app, group.as_str(), row)).collect())
        }
        Subject::Pair(..) if totals_wanted(&app.settings) => c2c_events(ctx, shared, app, rows).await,
        Subject::Pair(..) => Ok(Vec::new()),
    }
}

async fn c2c_events(ctx: &Ctx, shared: &Shared, app: &App, rows: &[Arc<Row>]) -> Result<Vec<Event>> {
    let mut totals: BTreeMap<UserId, Option<u64>> = BTreeMap::new();
    let mut events = Vec::new();
    for row in rows {
        let to = UserId::trusted(to_of(shared, row));
        // Also of messages nobody is told about: the totals that are kept must hear of them.
        if row.failed == 0 && !totals.contains_key(&to) {
            totals.insert(to.clone(), total(ctx, shared, &to, &row.message.from).await?);
        }
        if row.message.forbid_after {
            continue;
        }
        let count = totals.get(&to).copied().flatten();
        if app.settings.webhook_on(C2C_AFTER) {
            events.push(c2c_event(shared, C2C_AFTER, row, &to, count));
        }
        if to.is_robot() && row.failed == 0 && app.settings.webhook_on(BOT_C2C) {
            events.push(c2c_event(shared, BOT_C2C, row, &to, count));
        }
    }
    Ok(events)
}

/// The total, or `None` when it cannot be told: the events must not wait for ever.
async fn total(ctx: &Ctx, shared: &Shared, to: &UserId, from: &str) -> Result<Option<u64>> {
    match total_unread(ctx, shared.id.app.0, to, from).await {
        Ok(total) => Ok(Some(total)),
        Err(error) if error.refusal().retry_after_ms.is_some() => Err(error),
        Err(error) => {
            tracing::error!(%error, "unread messages of a user cannot be counted");
            Ok(None)
        }
    }
}

fn to_of(shared: &Shared, row: &Row) -> String {
    if !row.to.is_empty() {
        return row.to.clone();
    }
    shared.subject.peer(&row.message.from).map(|to| to.as_str().to_owned()).unwrap_or_default()
}

fn c2c_event(shared: &Shared, command: &'static str, row: &Row, to: &UserId, unread: Option<u64>) -> Event {
    let (result, info, unread) = match row.failed {
        0 => (0, "send msg succeed", unread),
        failed => (failed, "the receiver blocks the sender", None),
    };
    let body = webhook::c2c_after(&row.message, to.as_str(), result, info, unread);
    webhook::stored(shared.id.app.0, shared.id.conv.0, command, &row.message).event(body)
}

fn group_events(shared: &Shared, app: &App, group: &str, row: &Row) -> Vec<Event> {
    let message = &row.message;
    let chat = message.kind() != linnet_proto::msg::MessageKind::Tip;
    let (id, conv) = (shared.id.app.0, shared.id.conv.0);
    let mut events = Vec::new();
    if chat && app.settings.webhook_on(GROUP_AFTER) {
        let body = webhook::group_after(message, group, &row.group_type);
        events.push(webhook::stored(id, conv, GROUP_AFTER, message).event(body));
    }
    let robots: Vec<&str> = message
        .mentions
        .iter()
        .map(String::as_str)
        .filter(|user| user.starts_with(linnet_types::id::ROBOT_PREFIX))
        .collect();
    if chat && !robots.is_empty() && app.settings.webhook_on(BOT_GROUP) {
        let body = webhook::bot_group(message, group, &row.group_type, &robots);
        events.push(webhook::stored(id, conv, BOT_GROUP, message).event(body));
    }
    events
}
