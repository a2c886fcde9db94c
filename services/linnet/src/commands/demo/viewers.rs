//! The viewers of a scene: registered, signed in and in the room, each over a socket of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use linnet_client::{Client, Event, Events, Options};
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_types::SdkAppId;
use linnet_usersig::{Claims, sign};
use serde_json::json;
use tokio::sync::Semaphore;

use super::account::Account;
use crate::commands::chat::failed;
use crate::commands::rest::Rest;
use crate::target::Target;

const SIG_S: u64 = 86_400;
/// Accounts of one import, the command's cap.
const BATCH: usize = 100;
/// Viewers joining at once: a sign-in is a few round trips, and a server has a rate for them.
const JOINING: usize = 64;
/// Tries of one viewer: a server that is busy says so and may be asked again.
const TRIES: u32 = 5;
/// Events one viewer may lag behind before its socket is not read, as a slow device's.
const BACKLOG: usize = 256;

/// Registers `count` accounts and returns their ids.
///
/// # Errors
/// [`crate::output::Failure`] when the server refuses.
pub(super) async fn register(rest: &Rest, count: usize) -> Result<Vec<String>> {
    let users: Vec<String> = (1..=count).map(|n| format!("viewer-{n}")).collect();
    for batch in users.chunks(BATCH) {
        rest.call("im_open_login_svc/multiaccount_import", json!({ "Accounts": batch }).to_string()).await?;
    }
    Ok(users)
}

/// Everything a viewer needs to join.
pub(super) struct Door<'a> {
    pub(super) target: &'a Target,
    pub(super) room: &'a str,
    pub(super) tasks: &'a Tasks,
    pub(super) rng: &'a Rng,
}

/// Lets everybody in. Each viewer counts what it gets into `account` until its client is gone.
///
/// # Errors
/// [`crate::output::Failure`] when one cannot join.
pub(super) async fn enter(
    door: &Door<'_>,
    users: &[String],
    account: &Arc<Account>,
    bar: &ProgressBar,
) -> Result<Vec<Client>> {
    let joined = futures::stream::iter(users).map(|user| async move {
        let (client, events) = join(door, user).await?;
        let name = format!("GROUP:{}", door.room);
        door.tasks.spawn("demo.viewer", watch(events, name, Arc::clone(account)));
        bar.inc(1);
        anyhow::Ok(client)
    });
    let mut clients = Vec::with_capacity(users.len());
    let mut joined = std::pin::pin!(joined.buffer_unordered(JOINING));
    while let Some(client) = joined.next().await {
        clients.push(client?);
    }
    Ok(clients)
}

async fn join(door: &Door<'_>, user: &str) -> Result<(Client, Events)> {
    let mut last = None;
    for attempt in 0..TRIES {
        match attempt_join(door, user).await {
            Ok(joined) => return Ok(joined),
            Err(why) => {
                let wait = match &why {
                    linnet_client::Error::Refused(error) if error.retry_after_ms == 0 => {
                        return Err(failed(&door.target.ws, &format!("{user}'s way into the room"), &why));
                    }
                    linnet_client::Error::Refused(error) => u64::from(error.retry_after_ms),
                    _ => 200 << attempt,
                };
                last = Some(why);
                tokio::time::sleep(Duration::from_millis(wait + door.rng.below(200))).await;
            }
        }
    }
    let why = last.unwrap_or(linnet_client::Error::TimedOut);
    Err(failed(&door.target.ws, &format!("{user}'s way into the room"), &why))
}

async fn attempt_join(door: &Door<'_>, user: &str) -> linnet_client::Result<(Client, Events)> {
    let (app, key) = (door.target.app().unwrap_or(0), door.target.key().unwrap_or_default());
    let claims = Claims {
        app: SdkAppId(app),
        identifier: user.to_owned(),
        time_s: Clock::system().now().secs(),
        expire_s: SIG_S,
        userbuf: None,
    };
    let mut options = Options::new(&door.target.ws, app, user, sign(&claims, key));
    options.ca_pem = door.target.ca.as_ref().and_then(|file| std::fs::read(file).ok());
    // A viewer that comes back has missed something: it would spoil the account, so it is counted as lost.
    options.reconnect = false;
    options.follow = false;
    options.backlog = BACKLOG;
    let (client, events) = Client::connect(options, door.tasks, door.rng.clone()).await?;
    client.join(door.room).await?;
    Ok((client, events))
}

/// Counts the messages of the room.
async fn watch(mut events: Events, room: String, account: Arc<Account>) {
    let clock = Clock::system();
    while let Some(event) = events.next().await {
        match event {
            Event::Message { conv, message } if conv == room && message.kind.is_empty() && !message.replayed => {
                account.received(clock.now().0.saturating_sub(message.time_ms));
            }
            Event::Disconnected | Event::Kicked(_) | Event::Refused(_) => account.lost(),
            Event::Message { .. } | Event::Item(_) | Event::SignedIn(_) => {}
        }
    }
}

/// Signs everybody out, many at once.
pub(super) async fn leave(clients: Vec<Client>) {
    let permits = Semaphore::new(JOINING);
    let leaving = clients.iter().map(|client| async {
        let _permit = permits.acquire().await;
        let _ = tokio::time::timeout(Duration::from_secs(1), client.close()).await;
    });
    futures::future::join_all(leaving).await;
}
