//! What follows from a stored message: own messages counted in their senders' positions, after-webhooks, bot events.
//!
//! Derived from the log behind a cursor that `log_head` keeps, so a new owner goes on where the last one stopped. At least
//! once: counting is idempotent by position, events by their ids.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::App;
use linnet_cluster::{RouteKey, Service};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{EnqueueRequest, Event};
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::messages::{TouchRequest, UnreadC2cRequest};
use linnet_runtime::status;
use linnet_store::logs::LogHead;
use linnet_types::{GroupType, Seq, UserId, code};

use crate::error::Result;
use crate::state::{Ctx, Shared, Shown, Subject};
use crate::stored::Row;
use crate::webhook::{self, BOT_C2C, BOT_GROUP, C2C_AFTER, GROUP_AFTER};

/// Rows of one round.
const ROUND: u64 = 200;
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
pub(crate) const CALL: Duration = Duration::from_secs(2);

/// Follows one log until its actor ends.
pub(crate) async fn run(ctx: Arc<Ctx>, shared: Arc<Shared>) {
    let mut shown = shared.watch();
    let mut wait = RETRY;
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
        match round(&ctx, &shared, &head).await {
            Ok(done) => {
                shared.set_cursor(done);
                wait = RETRY;
            }
            Err(error) => {
                ctx.meters.effects_retried();
                tracing::debug!(conv = shared.id.conv.0, %error, "side effects are repeated");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

/// The effects of the next rows; answers how far they are taken.
async fn round(ctx: &Ctx, shared: &Shared, head: &LogHead) -> Result<u64> {
    let from = shared.cursor() + 1;
    let to = head.last_seq.min(from + ROUND - 1);
    let rows = load(ctx, shared, head, from, to).await?;
    let app = match ctx.apps.get(shared.id.app).await {
        Ok(app) => app,
        // A deleted or disabled app wants to hear of nothing.
        Err(refusal) if refusal.retry_after_ms.is_none() => return Ok(to),
        Err(refusal) => return Err(refusal.into()),
    };
    count_own(ctx, shared, &rows).await?;
    let events = events(ctx, shared, &app, &rows).await?;
    if !events.is_empty() {
        let count = events.len();
        enqueue(ctx, events).await?;
        ctx.meters.events(count);
    }
    Ok(to)
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
    for row in rows.iter().filter(|row| row.countable && counts_unread(row)) {
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
pub(crate) async fn touch(ctx: &Ctx, user: UserId, request: TouchRequest) -> Result<bool> {
    let key = RouteKey::user(linnet_types::SdkAppId(request.app), &user);
    let rpc = ctx.cluster.for_owner(Service::MessageStore, key)?;
    let reply = MessagesClient::new(rpc).touch(status::with_deadline(request, CALL)).await;
    let reply = reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
    Ok(reply.into_inner().moved)
}

/// All unread one-to-one messages of a user.
pub(crate) async fn total_unread(ctx: &Ctx, app: u32, user: &UserId) -> Result<u64> {
    let key = RouteKey::user(linnet_types::SdkAppId(app), user);
    let rpc = ctx.cluster.for_owner(Service::MessageStore, key)?;
    let request = UnreadC2cRequest { app, user: user.as_str().to_owned(), peers: Vec::new() };
    let reply = MessagesClient::new(rpc).unread_c2c(status::with_deadline(request, CALL)).await;
    Ok(reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?.into_inner().total)
}

/// Stores events for delivery, in order.
pub(crate) async fn enqueue(ctx: &Ctx, events: Vec<Event>) -> Result<()> {
    let rpc = ctx.cluster.any(Service::Callback)?;
    let request = status::with_deadline(EnqueueRequest { events }, CALL);
    CallbacksClient::new(rpc).enqueue(request).await.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
    Ok(())
}

async fn events(ctx: &Ctx, shared: &Shared, app: &App, rows: &[Arc<Row>]) -> Result<Vec<Event>> {
    let told = rows.iter().filter(|row| !row.message.forbid_after);
    match &shared.subject {
        Subject::Group(group) => Ok(told.flat_map(|row| group_events(shared, app, group.as_str(), row)).collect()),
        Subject::Pair(..) => {
            let wanted = |row: &Row| {
                let to = UserId::trusted(to_of(shared, row));
                let bot = to.is_robot() && row.failed == 0 && app.settings.webhook_on(BOT_C2C);
                (to, app.settings.webhook_on(C2C_AFTER), bot)
            };
            let mut unread: BTreeMap<UserId, u64> = BTreeMap::new();
            let mut events = Vec::new();
            for row in told {
                let (to, after, bot) = wanted(row);
                if !after && !bot {
                    continue;
                }
                if row.failed == 0 && !unread.contains_key(&to) {
                    unread.insert(to.clone(), total_unread(ctx, shared.id.app.0, &to).await?);
                }
                let count = unread.get(&to).copied();
                if after {
                    events.push(c2c_event(shared, C2C_AFTER, row, &to, count));
                }
                if bot {
                    events.push(c2c_event(shared, BOT_C2C, row, &to, count));
                }
            }
            Ok(events)
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
