//! Why the runtime could not do its part.

/// A failure of the process's own machinery, not of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blocking call panicked; the panic is already logged and counted.
    #[error("task {name} panicked")]
    Panicked {
        /// Name the task was started under.
        name: &'static str,
    },
    /// The blocking call was dropped because the process is shutting down.
    #[error("task {name} was ended by shutdown")]
    Ended {
        /// Name the task was started under.
        name: &'static str,
    },
    /// The log filter, the subscriber or the trace exporter could not be set up.
    #[error("telemetry: {0}")]
    Telemetry(String),
    /// The signal handler could not be installed.
    #[error("signal handler")]
    Signal(#[source] std::io::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
