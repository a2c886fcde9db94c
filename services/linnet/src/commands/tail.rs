//! `linnet tail`: live events, a line each.

use anyhow::Result;
use clap::Args;
use linnet_runtime::{Clock, drain};
use serde_json::Value;

use super::admin::Admin;
use super::call::webhook_line;
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// Live events, a line each, until Ctrl-C. No message text is in them.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet tail --conv C2C:alice:bob")]
pub(crate) struct TailArgs {
    /// One conversation: C2C:alice:bob or GROUP:id.
    #[arg(long, value_name = "CONV")]
    conv: Option<String>,
    /// What one user does and gets.
    #[arg(long, value_name = "USER", conflicts_with = "conv")]
    user: Option<String>,
    /// Webhooks and how they were answered.
    #[arg(long)]
    webhooks: bool,
    /// Messages that shaping dropped.
    #[arg(long)]
    drops: bool,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// # Errors
/// [`Failure`] when the server cannot be reached, refuses or goes away.
pub(crate) async fn run(args: TailArgs, common: &Common, out: Output) -> Result<Exit> {
    if let Some(conv) = args.conv.as_deref().filter(|conv| !possible(conv)) {
        let todo = "write C2C:alice:bob or GROUP:id";
        return Err(Failure::usage(format!("{conv:?} is no conversation"), "tail is nobody's view", todo).into());
    }
    let target = common.target()?;
    let stop = drain::signalled();
    tokio::pin!(stop);
    let query = [
        ("app", target.app().unwrap_or(0).to_string()),
        ("conv", args.conv.clone().unwrap_or_default()),
        ("user", args.user.clone().unwrap_or_default()),
        ("kinds", kinds(&args)),
    ];
    let mut lines = Admin::new(&target)?.events(&query).await?;
    out.note("watching; Ctrl-C ends");
    let mut seen = 0;
    loop {
        let event = tokio::select! {
            _ = &mut stop => return Ok(Exit::Done),
            event = lines.next() => event?,
        };
        let Some(event) = event else {
            let why = "the server ended the stream";
            return Err(Failure::unreachable(&target.rest, why).into());
        };
        let written = out.line(&event, line(&event));
        seen += 1;
        if written.is_err() || args.count.is_some_and(|count| seen >= count) {
            return Ok(Exit::Done);
        }
    }
}

fn possible(conv: &str) -> bool {
    match conv.split_once(':') {
        Some(("C2C", pair)) => pair.split_once(':').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        Some(("GROUP", group)) => !group.is_empty(),
        _ => false,
    }
}

/// What to ask for; empty is everything.
fn kinds(args: &TailArgs) -> String {
    let mut kinds = Vec::new();
    if args.conv.is_some() || args.user.is_some() {
        kinds.extend(["message", "drop", "session"]);
    }
    if args.webhooks {
        kinds.push("webhook");
    }
    if args.drops && !kinds.contains(&"drop") {
        kinds.push("drop");
    }
    kinds.join(",")
}

fn line(event: &Value) -> String {
    let now = Clock::system().now().0;
    let what = match event["kind"].as_str() {
        Some("webhook") => webhook_line(event),
        _ => event["line"].as_str().map_or_else(|| event.to_string(), str::to_owned),
    };
    format!("{} {what}", text::clock(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_names_both_of_a_pair_or_a_group() {
        assert!(possible("C2C:alice:bob") && possible("GROUP:@TGS#_x"));
        for wrong in ["C2C:bob", "C2C::bob", "GROUP:", "alice", ""] {
            assert!(!possible(wrong), "{wrong}");
        }
    }
}
