//! `linnet call`: any REST command, signed, with the curl that does the same and the webhooks it caused.

mod caused;

use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use linnet_api::Status;
use serde_json::{Value, json};

use self::caused::Caused;
pub(super) use self::caused::line as webhook_line;
use super::rest::Rest;
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// What can be shown beside the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    /// The curl line, also with --json and --quiet.
    Curl,
}

/// Call any REST command, signed.
///
/// The reply goes to stdout; the equal curl line and the webhooks the call caused go to stderr.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:
  linnet call openim/sendmsg '{\"From_Account\":\"alice\",\"To_Account\":\"bob\",\"MsgRandom\":1,
    \"MsgBody\":[{\"MsgType\":\"TIMTextElem\",\"MsgContent\":{\"Text\":\"hello\"}}]}'

Example:
  linnet call --list sendmsg")]
pub(crate) struct CallArgs {
    /// SERVICE/COMMAND; with --list, a word to look for.
    #[arg(required_unless_present = "list", value_name = "SERVICE/COMMAND")]
    command: Option<String>,
    /// The request: JSON, @FILE, or @- for stdin.
    #[arg(value_name = "JSON|@FILE", default_value = "{}")]
    body: String,
    /// Administrator to call as.
    #[arg(long = "as", value_name = "ADMIN")]
    admin: Option<String>,
    /// Show it even where notes are silent.
    #[arg(long, value_enum)]
    show: Option<Show>,
    /// List the commands with their limits.
    #[arg(long)]
    list: bool,
}

/// # Errors
/// [`Failure`] when the server cannot be reached or refuses.
pub(crate) async fn run(args: CallArgs, common: &Common, out: Output) -> Result<Exit> {
    let command = args.command.as_deref().unwrap_or_default().trim_matches('/');
    if args.list {
        return list(command, out);
    }
    let command = command.strip_prefix("v4/").unwrap_or(command);
    if command.split('/').filter(|part| !part.is_empty()).count() != 2 {
        let todo = "`linnet call --list` has the commands";
        return Err(Failure::usage(format!("{command:?} is no command"), "it takes SERVICE/COMMAND", todo).into());
    }
    let target = common.target()?;
    let rest = Rest::new(&target, args.admin)?;
    let call = rest.prepare(command, read(&args.body)?)?;
    if args.show.is_some() {
        eprintln!("{}", rest.curl(&call));
    } else {
        out.note(rest.curl(&call));
    }
    let watching = !out.json && !out.quiet;
    let caused = if watching { Caused::watch(&target).await } else { None };
    let reply = rest.send(&call).await?;
    // One line for a script, whatever line breaks it came with.
    if out.json {
        out.text(reply.text.replace(['\n', '\r'], ""));
    } else {
        out.text(text::pretty(&reply.text));
    }
    if let Some(caused) = caused {
        caused.print(out).await;
    }
    match reply.failure(command) {
        Some(failure) => Err(failure.into()),
        None => Ok(Exit::Done),
    }
}

/// The request as given; whether it is JSON is the server's to say.
fn read(body: &str) -> Result<String> {
    match body.strip_prefix('@') {
        None => Ok(body.to_owned()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            Ok(text)
        }
        Some(file) => std::fs::read_to_string(file).map_err(|why| {
            Failure::usage(format!("cannot read {file}"), why.to_string(), "name a file with the JSON of the request")
                .into()
        }),
    }
}

fn list(word: &str, out: Output) -> Result<Exit> {
    let word = word.to_lowercase();
    let matching = |entry: &&linnet_api::Entry| {
        entry.name.to_lowercase().contains(&word) || entry.doc.to_lowercase().contains(&word)
    };
    let found: Vec<_> = linnet_api::catalogue().iter().filter(matching).collect();
    if found.is_empty() {
        let why = format!("none of {} has it in name or description", linnet_api::catalogue().len());
        return Err(
            Failure::refused(format!("no command matches {word:?}"), why, "`linnet call --list` has all").into()
        );
    }
    if out.json {
        found.iter().for_each(|entry| out.text(object(entry)));
        return Ok(Exit::Done);
    }
    let row = |entry: &&linnet_api::Entry| {
        let rate = entry.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s"));
        let limits = if entry.limits.is_empty() { "-" } else { entry.limits };
        [entry.name.to_owned(), rate, limits.to_owned(), status(entry.status), entry.doc.to_owned()]
    };
    let head = ["command", "rate", "limits", "status", "does"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
    out.text(text::table(&rows));
    Ok(Exit::Done)
}

fn status(status: Status) -> String {
    match status {
        Status::Full => "full".to_owned(),
        Status::Without(what) => format!("without {what}"),
        Status::AliasOf(name) => format!("is {}", name.rsplit('/').next().unwrap_or(name)),
    }
}

fn object(entry: &linnet_api::Entry) -> Value {
    json!({
        "command": entry.name, "rate_per_s": entry.rate, "limits": entry.limits, "status": status(entry.status),
        "doc": entry.doc,
    })
}
