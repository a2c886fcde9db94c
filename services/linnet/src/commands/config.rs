//! `linnet config`: what `linnet serve` would read.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use linnet_runtime::config::{Change, Documented, KeyDoc, Layers, Loaded, Problems, markdown};
use serde_json::{Value, json};

use crate::config::Config;
use crate::output::{Exit, Failure, Output};

/// Show, check, document and compare configurations of `linnet serve`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  linnet config show")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Every value in force, with the layer it comes from.
    #[command(after_help = "Example:\n  linnet config show --set server.site=east")]
    Show {
        /// Configuration file (TOML).
        #[arg(long, value_name = "F")]
        config: Option<PathBuf>,
        /// One value over file and environment. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Say everything that is wrong with a file, at once.
    #[command(
        after_help = "Example:\n  printf '[server]\\nsite = \"east\"\\n' > linnet.toml && linnet config check linnet.toml"
    )]
    Check {
        /// Configuration file (TOML).
        file: PathBuf,
    },
    /// The reference of all keys, as Markdown (`docs/config.md`).
    #[command(after_help = "Example:\n  linnet config docs")]
    Docs,
    /// What changes between two files, and what of it takes a restart.
    #[command(
        after_help = "Example:\n  touch a.toml && printf '[log]\\nfilter = \"debug\"\\n' > b.toml && linnet config diff a.toml b.toml"
    )]
    Diff {
        /// Before.
        a: PathBuf,
        /// After.
        b: PathBuf,
    },
}

/// # Errors
/// [`Failure`] with every problem when a configuration is not valid.
pub(crate) fn run(args: ConfigArgs, out: Output) -> Result<Exit> {
    match args.action {
        Action::Show { config, overrides } => {
            let layers = config.iter().fold(Layers::new(), |layers, file| layers.file(file));
            let loaded = layers.env(std::env::vars()).overrides(&overrides).load::<Config>();
            show(&loaded.map_err(|problems| invalid(&problems, out))?, out);
        }
        Action::Check { file } => {
            load(&file, out)?;
            out.result(&json!({ "valid": true, "file": file }), format!("{} is valid", file.display()));
        }
        Action::Docs => {
            let docs = Config::docs();
            if out.json {
                docs.iter().for_each(|doc| out.result(&described(doc), ""));
            } else {
                out.text(markdown(&docs).trim_end());
            }
        }
        Action::Diff { a, b } => diff(&load(&a, out)?, &load(&b, out)?, out),
    }
    Ok(Exit::Done)
}

/// One file over the defaults; this machine's environment is not the other machine's.
fn load(file: &Path, out: Output) -> Result<Loaded<Config>> {
    Ok(Layers::new().file(file).load().map_err(|problems| invalid(&problems, out))?)
}

fn invalid(problems: &Problems, out: Output) -> Failure {
    if out.json {
        for problem in &problems.0 {
            out.result(&json!({ "key": problem.key, "from": problem.from, "problem": problem.what }), "");
        }
    }
    let todo = "correct every line above; `linnet config docs` is the reference";
    Failure::refused("the configuration is not valid", problems.to_string(), todo)
}

fn show(loaded: &Loaded<Config>, out: Output) {
    if !out.json {
        return out.text(loaded.print().trim_end());
    }
    // Secrets serialise as a placeholder.
    let values = serde_json::to_value(&loaded.config).unwrap_or_default();
    for doc in Config::docs() {
        let value = doc.key.split('.').try_fold(&values, |value, part| value.get(part)).unwrap_or(&Value::Null);
        out.result(&json!({ "key": doc.key, "value": value, "from": loaded.source(&doc.key) }), "");
    }
}

fn described(doc: &KeyDoc) -> Value {
    let default: Value = serde_json::from_str(&doc.default).unwrap_or_default();
    json!({ "key": doc.key, "default": default, "unit": doc.unit, "change": change(doc.change), "doc": doc.doc })
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Live => "live",
        Change::Restart => "restart",
    }
}

fn diff(a: &Loaded<Config>, b: &Loaded<Config>, out: Output) {
    let changed = a.diff(b);
    for one in &changed {
        let object = json!({ "key": one.key, "old": one.old, "new": one.new, "change": change(one.change) });
        out.result(&object, format!("{:<8} {} = {} -> {}", change(one.change), one.key, one.old, one.new));
    }
    let restart = changed.iter().any(|one| one.change == Change::Restart);
    out.note(match (changed.is_empty(), restart) {
        (true, _) => "no difference",
        (false, true) => "takes a restart",
        (false, false) => "in force without a restart",
    });
}
