//! People of a scene: registered, and signed in over a socket of their own.

use std::time::Duration;

use anyhow::Result;
use linnet_client::{Client, Events, Options};
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_types::SdkAppId;
use linnet_usersig::{Claims, sign};
use serde_json::json;

use crate::commands::chat::failed;
use crate::commands::rest::Rest;
use crate::target::Target;

const SIG_S: u64 = 86_400;
/// Accounts of one import, the command's cap.
const BATCH: usize = 100;
/// Tries of one person: a server that is busy says so and may be asked again.
const TRIES: u32 = 5;
/// Events one person may lag behind before its socket is not read, as a slow device's.
const BACKLOG: usize = 256;

/// Registers `count` accounts, `name-1` and so on, and returns their ids.
///
/// # Errors
/// [`crate::output::Failure`] when the server refuses.
pub(super) async fn register(rest: &Rest, name: &str, count: usize) -> Result<Vec<String>> {
    let users: Vec<String> = (1..=count).map(|n| format!("{name}-{n}")).collect();
    for batch in users.chunks(BATCH) {
        rest.call("im_open_login_svc/multiaccount_import", json!({ "Accounts": batch }).to_string()).await?;
    }
    Ok(users)
}

/// Everything a person needs to sign in.
pub(super) struct Way<'a> {
    pub(super) target: &'a Target,
    /// The gateway.
    pub(super) ws: &'a str,
    pub(super) tasks: &'a Tasks,
    pub(super) rng: &'a Rng,
    /// Comes back after a lost connection and closes gaps. One that does not has missed something, and is counted as lost.
    pub(super) lasting: bool,
}

/// Signs `user` in, patiently.
///
/// # Errors
/// [`crate::output::Failure`] when the server refuses.
pub(super) async fn connect(way: &Way<'_>, user: &str) -> Result<(Client, Events)> {
    patiently(way, user, "sign-in", async || sign_in(way, user).await).await
}

/// Tries again what a busy server put off.
///
/// # Errors
/// [`crate::output::Failure`] when it refuses, or is busy for too long.
pub(super) async fn patiently<T>(
    way: &Way<'_>,
    user: &str,
    what: &str,
    attempt: impl AsyncFn() -> linnet_client::Result<T>,
) -> Result<T> {
    let mut last = linnet_client::Error::TimedOut;
    for tries in 0..TRIES {
        last = match attempt().await {
            Ok(done) => return Ok(done),
            Err(why) => why,
        };
        let wait = match &last {
            linnet_client::Error::Refused(error) if error.retry_after_ms == 0 => break,
            linnet_client::Error::Refused(error) => u64::from(error.retry_after_ms),
            _ => 200 << tries,
        };
        tokio::time::sleep(Duration::from_millis(wait + way.rng.below(200))).await;
    }
    Err(failed(way.ws, &format!("{user}'s {what}"), &last))
}

/// One try to sign in.
pub(super) async fn sign_in(way: &Way<'_>, user: &str) -> linnet_client::Result<(Client, Events)> {
    let (app, key) = (way.target.app().unwrap_or(0), way.target.key().unwrap_or_default());
    let claims = Claims {
        app: SdkAppId(app),
        identifier: user.to_owned(),
        time_s: Clock::system().now().secs(),
        expire_s: SIG_S,
        userbuf: None,
    };
    let mut options = Options::new(way.ws, app, user, sign(&claims, key));
    options.ca_pem = way.target.ca.as_ref().and_then(|file| std::fs::read(file).ok());
    options.reconnect = way.lasting;
    options.follow = way.lasting;
    options.backlog = BACKLOG;
    Client::connect(options, way.tasks, way.rng.clone()).await
}
