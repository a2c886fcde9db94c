//! `linnet play`: the playground beside a server that has none, such as a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use linnet_runtime::{Clock, Metrics, Tasks, drain};
use linnet_types::SdkAppId;
use serde_json::json;

use super::admin::Admin;
use super::rest::Rest;
use crate::dev::PEOPLE;
use crate::output::{Exit, Failure, Output};
use crate::play::{self, Play, Webhooks};
use crate::target::Common;

/// The playground beside a running server: two people side by side, each through a gateway of its own where there are two.
///
/// Registers the sample people with the app and serves the page on loopback until Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet play")]
pub(crate) struct PlayArgs {
    /// Address to serve the page on, loopback only; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// # Errors
/// [`Failure`] when the server refuses or the port is taken.
pub(crate) async fn run(args: PlayArgs, common: &Common, out: Output) -> Result<Exit> {
    if !args.listen.ip().is_loopback() {
        let why = "the page signs in as the sample people";
        return Err(Failure::usage(format!("{} is not loopback", args.listen), why, "listen on 127.0.0.1").into());
    }
    let target = common.target()?;
    let rest = Rest::new(&target, None)?;
    rest.call("im_open_login_svc/multiaccount_import", json!({ "Accounts": PEOPLE }).to_string()).await?;
    let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|why| {
        let todo = "leave --listen out to take a free port";
        Failure::refused(format!("cannot listen on {}", args.listen), why.to_string(), todo)
    })?;
    let url = format!("http://{}/play", listener.local_addr()?);
    let router = play::router(Play {
        webhooks: Webhooks::There(Admin::new(&target)?),
        clock: Clock::system(),
        ws: [0, 1].map(|which| target.gateways[which % target.gateways.len()].clone()),
        app: SdkAppId(target.app()?),
        key: target.key()?.to_owned(),
        people: PEOPLE,
        link_token: None,
        hosts: Vec::new(),
    });
    let tasks = Tasks::new(&Metrics::new());
    let draining = tasks.draining();
    tasks.spawn("play.http", async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(draining.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the playground ended");
        }
    });
    out.result(&json!({ "event": "ready", "url": url }), format!("playground {url}        Ctrl-C ends"));
    drain::signalled().await?;
    // The page's event streams never end by themselves.
    tasks.shutdown(Duration::ZERO).await;
    Ok(Exit::Done)
}
