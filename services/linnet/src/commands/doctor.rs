//! `linnet doctor`: what could stand in the way here, and what to do about it.

mod checks;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use self::checks::Checks;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// What could stand in the way here, and what to do about it.
///
/// Looks at ports, the limit of open files, the clock, the data folder, fsync, the TLS CA, the configuration and, if one
/// runs, the server. Ends with 1 when a check fails.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet doctor")]
pub(crate) struct DoctorArgs {
    /// Configuration file of `linnet serve` to check too.
    #[arg(long, value_name = "F")]
    config: Option<PathBuf>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Works, but not as well as it could.
    Warn,
    Fail,
}

/// One thing looked at.
#[derive(Debug)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    /// What was seen.
    seen: String,
    /// What to do; empty when all is well.
    fix: String,
}

impl Finding {
    fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, seen: seen.into(), fix: String::new() }
    }

    fn warn(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, seen: seen.into(), fix: fix.into() }
    }

    fn fail(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, seen: seen.into(), fix: fix.into() }
    }
}

/// # Errors
/// [`Failure`] when a check failed.
pub(crate) async fn run(args: DoctorArgs, common: &Common, out: Output) -> Result<Exit> {
    let findings = Checks::new(common, args.config).all().await;
    for finding in &findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let object = json!({
            "check": finding.name, "verdict": verdict.to_lowercase(), "seen": finding.seen, "fix": finding.fix,
        });
        let fix = if finding.fix.is_empty() { String::new() } else { format!("\n{:20}do: {}", "", finding.fix) };
        out.result(&object, format!("{verdict:<5} {:<12}  {}{fix}", finding.name, finding.seen));
    }
    let failed: Vec<_> = findings.iter().filter(|f| f.verdict == Verdict::Fail).map(|f| f.name).collect();
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    let todo = "do what stands below each FAIL, then run `linnet doctor` again";
    Err(Failure::refused(format!("{} of {} checks failed", failed.len(), findings.len()), failed.join(", "), todo)
        .into())
}
