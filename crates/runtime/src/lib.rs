//! What every Linnet process needs and none should write twice: time, randomness, supervised tasks, metrics, health,
//! logs and traces, configuration, shutdown, and the form in which refusals cross gRPC.
//!
//! Hides tokio's spawning, the metrics and tracing libraries and the configuration layers. Depends on no domain crate but
//! `linnet-types`. Invariants:
//!
//! - Time and randomness come from [`Clock`] and [`Rng`], so a simulation replays from its seed.
//! - Every task has a name and an owner ([`Tasks`]) that ends it; a panic is logged and counted, never lost.
//! - Nothing here is global except the log subscriber a binary installs: several nodes fit in one process.
#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod drain;
mod error;
pub mod health;
pub mod metrics;
pub mod rng;
pub mod status;
pub mod tasks;
pub mod telemetry;

pub use clock::Clock;
pub use error::{Error, Result};
pub use health::{Health, ops_router};
pub use metrics::Metrics;
pub use rng::Rng;
pub use tasks::Tasks;
pub use telemetry::{RequestId, TraceContext};
