//! `linnet webhooks`: receive them, see what failed, send again, try one.

mod listen;

use anyhow::Result;
use clap::{Args, Subcommand};
use linnet_runtime::Clock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::Admin;
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// Receive webhooks, list and replay those that failed, send a sample.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet webhooks listen\n  linnet webhooks failed")]
pub(crate) struct WebhooksArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Receive the app's webhooks here: prints each one and answers it.
    Listen(listen::ListenArgs),
    /// Webhooks that were given up: how many, why, since when.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet webhooks failed --limit 20")]
    Failed {
        /// Begin after this id.
        #[arg(long, value_name = "ID", default_value = "")]
        after: String,
        /// Most of them.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Send failed webhooks again, in their order.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet webhooks replay --all")]
    Replay {
        /// Ids of `linnet webhooks failed`.
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
        ids: Vec<String>,
        /// All of the app.
        #[arg(long)]
        all: bool,
    },
    /// Send a sample to the app's URL and show how it was answered.
    #[command(
        after_help = "Example, with `linnet dev` running:\n  linnet webhooks test C2C.CallbackAfterSendMsg || echo \"no receiver yet\""
    )]
    Test {
        /// For example Group.CallbackBeforeSendMsg.
        command: String,
    },
}

#[derive(Deserialize)]
struct Letters {
    letters: Vec<Letter>,
    more: bool,
    total: u64,
}

#[derive(Deserialize)]
struct Letter {
    id: String,
    event: Value,
    reason: String,
    attempts: u32,
    failed_ms: u64,
}

/// # Errors
/// [`Failure`] when the server cannot be reached or refuses.
pub(crate) async fn run(args: WebhooksArgs, common: &Common, out: Output) -> Result<Exit> {
    let target = common.target()?;
    let (admin, app) = (Admin::new(&target)?, target.app()?);
    match args.action {
        Action::Listen(args) => listen::run(args, &admin, app, out).await,
        Action::Failed { after, limit } => failed(&admin, app, after, limit, out).await,
        Action::Replay { ids, all } => replay(&admin, app, &ids, all, out).await,
        Action::Test { command } => test(&admin, app, &command, out).await,
    }
}

async fn failed(admin: &Admin, app: u32, after: String, limit: u32, out: Output) -> Result<Exit> {
    let query = [("after", after), ("limit", limit.to_string())];
    let page: Letters = admin.get(&["webhooks", &app.to_string(), "failed"], &query).await?;
    if out.json {
        for letter in &page.letters {
            let object = json!({
                "id": letter.id, "command": letter.event["command"], "key": letter.event["key"], "reason": letter.reason,
                "attempts": letter.attempts, "failed_ms": letter.failed_ms, "body": letter.event["body"],
            });
            out.result(&object, "");
        }
        return Ok(Exit::Done);
    }
    out.text(summary(&page, Clock::system().now().0));
    if page.letters.is_empty() {
        return Ok(Exit::Done);
    }
    let head = ["failed", "command", "reason", "attempts", "id"].map(str::to_owned);
    let row = |letter: &Letter| {
        let command = letter.event["command"].as_str().unwrap_or_default().to_owned();
        [text::clock(letter.failed_ms), command, letter.reason.clone(), letter.attempts.to_string(), letter.id.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(page.letters.iter().map(row)).collect();
    out.text(format!("\n{}", text::table(&rows)));
    if let (true, Some(last)) = (page.more, page.letters.last()) {
        out.note(format!("there are more: linnet webhooks failed --after {}", text::shell(&last.id)));
    }
    Ok(Exit::Done)
}

/// `17 in 2 conversations, oldest 14 min, reason timeout 15, http_status 2.   linnet webhooks replay --all`. What is said
/// beside the total is of the page.
fn summary(page: &Letters, now_ms: u64) -> String {
    if page.letters.is_empty() {
        return if page.total == 0 { "none failed".to_owned() } else { format!("{} failed, none here", page.total) };
    }
    let mut keys: Vec<_> = page.letters.iter().filter_map(|letter| letter.event["key"].as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut reasons: Vec<(&str, u64)> = Vec::new();
    for letter in &page.letters {
        match reasons.iter_mut().find(|(reason, _)| *reason == letter.reason) {
            Some((_, n)) => *n += 1,
            None => reasons.push((&letter.reason, 1)),
        }
    }
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let oldest = page.letters.iter().map(|letter| letter.failed_ms).min().unwrap_or(now_ms);
    let places = text::count(keys.len() as u64, "conversation");
    let (total, age) =
        (text::number(page.total.max(page.letters.len() as u64)), text::span(now_ms.saturating_sub(oldest)));
    format!("{total} in {places}, oldest {age}, reason {}.   linnet webhooks replay --all", reasons.join(", "))
}

async fn replay(admin: &Admin, app: u32, ids: &[String], all: bool, out: Output) -> Result<Exit> {
    #[derive(Deserialize)]
    struct Replayed {
        replayed: u64,
    }
    let path = ["webhooks", &app.to_string(), "replay"];
    let done: Replayed = admin.post(&path, &json!({ "ids": ids, "all": all })).await?;
    let line = format!("{} sent again", text::count(done.replayed, "webhook"));
    out.result(&json!({ "replayed": done.replayed }), line);
    if all || done.replayed >= ids.len() as u64 {
        return Ok(Exit::Done);
    }
    let todo = "`linnet webhooks failed` has the ids that are left";
    let why = format!("{} of {} are not in the list of failed webhooks", ids.len() as u64 - done.replayed, ids.len());
    Err(Failure::new(Exit::Partial, "not all were sent again", why, todo).into())
}

async fn test(admin: &Admin, app: u32, command: &str, out: Output) -> Result<Exit> {
    #[derive(Deserialize)]
    struct Tested {
        ok: bool,
        http_status: u32,
        reason: String,
        body: String,
        took_ms: u64,
        url: String,
    }
    let path = ["webhooks", &app.to_string(), "test"];
    let done: Tested = admin.post(&path, &json!({ "command": command })).await?;
    let object = json!({
        "ok": done.ok, "http_status": done.http_status, "reason": done.reason, "body": done.body, "took_ms": done.took_ms,
        "url": done.url,
    });
    let (took, body) = (text::span(done.took_ms), text::pretty(&done.body));
    out.result(&object, format!("{command} -> {}\nHTTP {} in {took}\n{body}", done.url, done.http_status));
    if done.ok {
        return Ok(Exit::Done);
    }
    let todo = "the app's server answers HTTP 200 with {\"ActionStatus\":\"OK\",\"ErrorCode\":0,\"ErrorInfo\":\"\"}";
    Err(Failure::refused(format!("{command} was not accepted"), done.reason, todo).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_conversations_and_reasons() {
        let letter = |key: &str, reason: &str, failed_ms| Letter {
            id: String::new(),
            event: json!({ "key": key }),
            reason: reason.to_owned(),
            attempts: 3,
            failed_ms,
        };
        let letters = vec![
            letter("c1", "http_status", 900_000),
            letter("c2", "timeout", 60_000),
            letter("c1", "timeout", 70_000),
        ];
        let page = Letters { letters, more: false, total: 17 };
        assert_eq!(
            summary(&page, 900_000),
            "17 in 2 conversations, oldest 14 min, reason timeout 2, http_status 1.   linnet webhooks replay --all"
        );
        assert_eq!(summary(&Letters { letters: vec![], more: false, total: 0 }, 0), "none failed");
    }
}
