//! Why delivery could not be set up. Losses on the way are no errors: they are delivered as such.

use linnet_types::Refusal;

/// Why an operation of this crate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus took no subscription.
    #[error("subscribe")]
    Bus(#[from] linnet_bus::Error),
    /// The owner refused the registration, or the receiver is stopping.
    #[error("register: {0}")]
    Refused(Refusal),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal,
            Error::Bus(_) => Refusal::retry(linnet_types::code::BUSY, "the bus is not connected", 500),
        }
    }
}
