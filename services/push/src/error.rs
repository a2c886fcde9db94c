//! What can go wrong while planning.

use linnet_types::Refusal;

/// Why a piece of work is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another service does not answer, or says no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The store does not answer.
    #[error("storage")]
    Store(#[from] linnet_store::Error),
    /// The stored work is not what this service writes.
    #[error("stored work cannot be read")]
    Unreadable(#[from] prost::DecodeError),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Trying again would not help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retry_after_ms.is_none(),
            Self::Store(error) => matches!(error, linnet_store::Error::Corrupt { .. }),
            Self::Unreadable(_) => true,
        }
    }
}
