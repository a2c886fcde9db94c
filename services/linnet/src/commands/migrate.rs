//! `linnet migrate`: the schema of the CQL store.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use linnet_runtime::config::Layers;
use linnet_store::cql::migrate::{self, Progress, Report, Verdict};
use serde_json::json;

use crate::config::Config;
use crate::output::{Exit, Failure, Output};

/// The schema of the CQL store: what is there, what is missing, and making it.
///
/// `run` only enlarges: nodes of the previous build go on working and may restart meanwhile, so upgrade by `migrate run`,
/// then node by node. `contract` takes away what only older builds use: run it when no older node is left.
#[derive(Args, Debug)]
#[command(after_help = "Example, with the embedded store, which makes its tables by itself:\n  linnet migrate check")]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    action: Action,
    /// Configuration file of `linnet serve`.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// One value over file and environment. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    overrides: Vec<String>,
}

#[derive(Subcommand, Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Say what is there and what `run` would do. Ends with 1 when this build could not serve.
    #[command(after_help = "Example, with the embedded store:\n  linnet migrate check")]
    Check,
    /// Make the keyspace and every table this build needs; cut off, it goes on where it was.
    #[command(after_help = "Example, with the embedded store:\n  linnet migrate run")]
    Run,
    /// Take away what only older builds use, and lock those out.
    #[command(after_help = "Example, with the embedded store:\n  linnet migrate contract")]
    Contract,
}

/// # Errors
/// [`Failure`] when the servers cannot be reached, another run holds the lock, or the schema does not fit this build.
pub(crate) async fn run(args: MigrateArgs, out: Output) -> Result<Exit> {
    let layers = args.config.iter().fold(Layers::new(), |layers, file| layers.file(file));
    let loaded = layers.env(std::env::vars()).overrides(&args.overrides).load::<Config>().map_err(|problems| {
        let todo = "correct every line above; `linnet config docs` is the reference";
        Failure::usage("the configuration is not valid", problems.to_string(), todo)
    })?;
    let config = loaded.config;
    if config.store.backend != "cql" {
        out.result(&json!({ "backend": config.store.backend }), "the embedded store makes its tables by itself");
        return Ok(Exit::Done);
    }
    let progress = |step: Progress| match step {
        Progress::Step { number, title } => out.note(format!("step {number}: {title}")),
        Progress::Part { done, of } => out.note(format!("  {done} of {of}")),
    };
    let report = match args.action {
        Action::Check => migrate::check(&config.cql).await,
        Action::Run => migrate::run(&config.cql, progress).await,
        Action::Contract => migrate::contract(&config.cql, progress).await,
    };
    let report = report.map_err(|why| {
        let todo = "check [cql] in the configuration and that the servers answer; then run it again";
        Failure::refused("the schema could not be looked after", why.to_string(), todo)
    })?;
    told(&report, out);
    match (args.action, report.verdict) {
        (_, Verdict::Current | Verdict::Newer) => Ok(Exit::Done),
        (Action::Check, Verdict::Absent | Verdict::Older) => {
            let why = format!("{} step(s) are missing", report.pending.len());
            Err(Failure::refused("this build cannot serve yet", why, "run `linnet migrate run`").into())
        }
        (_, Verdict::TooNew) => {
            let why = "a newer build has contracted it";
            Err(Failure::refused("this build may not read the schema", why, "use the newer build").into())
        }
        (_, verdict) => {
            let why = format!("the schema is {verdict:?} afterwards");
            Err(Failure::refused("the schema is not as this build needs it", why, "run it again").into())
        }
    }
}

fn told(report: &Report, out: Output) {
    let found = report.found.map(|found| {
        json!({ "version": found.version, "contracted": found.contracted, "oldest_reader": found.oldest_reader })
    });
    let object = json!({
        "found": found, "build": report.build, "verdict": format!("{:?}", report.verdict).to_lowercase(),
        "pending": report.pending, "contractions": report.contractions, "locked_by": report.locked_by,
    });
    let at = report.found.map_or_else(|| "absent".to_owned(), |found| format!("version {}", found.version));
    let mut lines = vec![format!("schema {at}; this build makes version {}", report.build)];
    lines.extend(report.pending.iter().map(|step| format!("  to do       {step}")));
    lines.extend(report.contractions.iter().map(|step| format!("  to contract {step}")));
    lines.extend(report.locked_by.iter().map(|who| format!("  being changed by {who}")));
    out.result(&object, lines.join("\n"));
}
