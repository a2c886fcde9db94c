//! What tests of the whole product stand on: the real binary in a folder of its own, its REST surface, a fake app server
//! that records webhooks, and waiting for conditions.
//!
//! Nothing here sleeps to synchronise: [`eventually`] polls a condition up to a deadline and says what it waited for.
#![allow(clippy::disallowed_methods, reason = "test support runs outside the product's runtime")]

mod hooks;
mod rest;
mod server;
mod socket;

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

pub use hooks::{Hook, Hooks, Reply};
pub use rest::Rest;
pub use server::{Options, Server};
pub use socket::{Socket, text_body};

/// Waits until `probe` gives a value, at most `deadline`.
///
/// # Panics
/// With `what` and the last failure when the deadline passes.
pub async fn eventually<T, E, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(why) if Instant::now() >= end => panic!("{what}: not within {deadline:?}: {why:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
