//! The public answer to something that was not done.

use std::fmt;

use crate::code;

/// A public error code with the text for a developer, as the REST envelope and the client protocol carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`crate::code`], or an app-defined code passed through from a webhook.
    pub code: u32,
    /// For developers; never message text, keys or sigs.
    pub info: String,
    /// The same request may succeed later (overload, a take-over in progress); the caller backs off at least this long.
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// A refusal that will not change by retrying.
    #[must_use]
    pub fn new(code: u32, info: impl Into<String>) -> Self {
        Self { code, info: info.into(), retry_after_ms: None }
    }

    /// A refusal worth retrying after `retry_after_ms` milliseconds.
    #[must_use]
    pub fn retry(code: u32, info: impl Into<String>, retry_after_ms: u32) -> Self {
        Self { code, info: info.into(), retry_after_ms: Some(retry_after_ms) }
    }

    /// Whether it only says that nobody took the request: another try, with the same token, may be carried out.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        self.code == code::BUSY && self.retry_after_ms.is_some()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.info)
    }
}

impl std::error::Error for Refusal {}
