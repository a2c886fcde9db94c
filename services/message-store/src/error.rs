//! What can go wrong, and what the caller is told.

use linnet_runtime::status;
use linnet_store::embedded::DISK_FULL;
use linnet_store::logs;
use linnet_types::{Epoch, Refusal, code};

/// Wait told to a caller while a conversation moves or its store settles.
pub(crate) const RETRY_MS: u32 = 200;

/// Why an operation on conversations was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A public answer.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Another node owns the conversation by now; its owner is looked up again.
    #[error("this node no longer owns the conversation")]
    Moved,
    /// A group owner that was replaced still sends.
    #[error("group epoch {theirs} is older than {ours}")]
    StaleGroup {
        /// Highest epoch seen.
        ours: Epoch,
        /// The caller's.
        theirs: Epoch,
    },
    /// Written or not; a retry with the same token finds out.
    #[error("the outcome of a write is unknown")]
    Unknown,
    /// Too much waits for this conversation, or its store does not answer; nothing was done.
    #[error("busy: {0}")]
    Busy(String),
    /// What is stored cannot be read, or another fault that retrying does not mend.
    #[error("fault: {0}")]
    Fault(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal that does not change by retrying.
    pub(crate) fn refused(code: u32, info: &str) -> Self {
        Self::Refused(Refusal::new(code, info))
    }

    /// The public answer.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let retry = |info: &str| Refusal::retry(code::BUSY, info, RETRY_MS);
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Moved => retry("the conversation is moving"),
            Self::StaleGroup { .. } => retry("the group has a newer owner"),
            Self::Unknown => retry("the outcome is not known yet; retry with the same token"),
            Self::Busy(why) if why.contains(DISK_FULL) => retry("the disk of the store is full"),
            Self::Busy(_) => retry("the conversation is busy"),
            Self::Fault(_) => Refusal::new(code::C2C_INTERNAL, "internal error"),
        }
    }
}

impl From<linnet_store::Error> for Error {
    fn from(error: linnet_store::Error) -> Self {
        match error {
            linnet_store::Error::Unknown { .. } => Self::Unknown,
            linnet_store::Error::Unavailable { table, why } => Self::Busy(format!("{table}: {why}")),
            linnet_store::Error::Stale { .. } => Self::Moved,
            linnet_store::Error::Corrupt { table, why } => Self::Fault(format!("{table}: {why}")),
            error @ linnet_store::Error::Open { .. } => Self::Fault(error.to_string()),
        }
    }
}

impl From<logs::Error> for Error {
    fn from(error: logs::Error) -> Self {
        match error {
            logs::Error::StaleOwner { .. } => Self::Moved,
            logs::Error::StaleGroup { theirs, seen } => Self::StaleGroup { ours: seen, theirs },
            logs::Error::Unsettled => Self::Unknown,
            logs::Error::Store(error) => error.into(),
            error @ (logs::Error::TooMany { .. } | logs::Error::NoSuchMessage(_) | logs::Error::Version(_)) => {
                Self::Fault(error.to_string())
            }
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        if let Error::Fault(why) = &error {
            tracing::error!(why, "message-store fault");
        }
        status::to_status(&error.refusal())
    }
}
