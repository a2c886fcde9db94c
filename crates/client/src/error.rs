//! Why a request did not succeed.

use linnet_proto::client;

/// A failure of a request or of connecting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The server refused.
    #[error("refused: {} {}", .0.code, .0.info)]
    Refused(client::Error),
    /// The connection was lost before the answer; whether the request was carried out is unknown. Sends are not ended by
    /// this: they are repeated.
    #[error("the connection was lost")]
    Disconnected,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The client has ended: closed, kicked or refused.
    #[error("the client has ended")]
    Ended,
    /// The server could not be reached.
    #[error("connect to {url}: {why}")]
    Connect {
        /// Where.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The server answered with another kind of reply than the request has.
    #[error("unexpected reply")]
    Unexpected,
}

impl Error {
    /// The public code, if the server refused.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
