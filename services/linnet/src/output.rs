//! How commands speak: results on stdout, everything else on stderr, failures in three lines.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

/// Exit codes (`--help` lists them): done, refused or a check failed, usage, unreachable, partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
    Partial = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure a person can act on: what, why (with the public code), what to do.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) todo: String,
    pub(crate) exit: Exit,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), todo: todo.into(), exit }
    }

    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, why, todo)
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what, why, todo)
    }

    pub(crate) fn unreachable(server: &str, why: impl fmt::Display) -> Self {
        let todo = "is it running? start it with `linnet dev`, or check --server and the CA file";
        Self::new(Exit::Unreachable, format!("cannot reach {server}"), why.to_string(), todo)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  why   {}\n  do    {}", self.what, self.why, self.todo)
    }
}

impl std::error::Error for Failure {}

/// Prints what went wrong and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        eprintln!("linnet: {failure}");
        return failure.exit;
    }
    let failure = Failure::refused(
        error.to_string(),
        error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>().join(": "),
        "run again with LINNET_LOG__FILTER=debug for more",
    );
    eprintln!("linnet: {failure}");
    failure.exit
}

/// Where a command's results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Output {
    /// One result: an object for scripts, a line for people. A reader who has gone is no failure.
    pub(crate) fn result(self, object: &impl Serialize, line: impl fmt::Display) {
        let _ = self.line(object, line);
    }

    /// The same for streams, which end when their reader has gone.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn line(self, object: &impl Serialize, line: impl fmt::Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(object).expect("results are plain data"))?;
        } else {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    /// Text for people and for files, whatever the form of results.
    pub(crate) fn text(self, text: impl fmt::Display) {
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    /// Something on the side, for people.
    pub(crate) fn note(self, line: impl fmt::Display) {
        if !self.json && !self.quiet {
            eprintln!("{line}");
        }
    }
}
