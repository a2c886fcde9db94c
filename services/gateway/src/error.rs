//! Why the gateway could not start.

/// A failure of the gateway itself; what clients are refused travels as `linnet_types::Refusal`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus would not take the subscription that batches arrive on.
    #[error("subscribe for batches")]
    Subscribe(#[from] linnet_delivery::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
