//! The viewers of a scene: signed in and in the room, each over a socket of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use linnet_client::{Client, Event, Events};
use linnet_runtime::{Clock, Rng, Tasks};
use tokio::sync::Semaphore;

use super::account::Account;
use super::person::{self, Way};
use crate::target::Target;

/// Viewers joining at once: a sign-in is a few round trips, and a server has a rate for them.
const JOINING: usize = 64;

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
    let way = Way { target: door.target, ws: &door.target.ws, tasks: door.tasks, rng: door.rng, lasting: false };
    person::patiently(&way, user, "way into the room", async || {
        let (client, events) = person::sign_in(&way, user).await?;
        client.join(door.room).await?;
        Ok((client, events))
    })
    .await
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
