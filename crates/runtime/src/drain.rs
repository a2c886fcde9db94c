//! The request to stop, as the operating system brings it.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

/// Waits for SIGTERM or SIGINT and says which. Handlers are in place once this is first polled; call it early in `main`.
///
/// # Errors
/// [`Error::Signal`] when the handler cannot be installed.
pub async fn signalled() -> Result<&'static str> {
    let mut term = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut int = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}
