//! Everything that is kept: every table, key layout and row format of Linnet.
//!
//! Aggregates ([`logs`], [`groups`], …) are written once over the narrow port [`Rows`]; a backend only stores rows. Tables are of two
//! kinds, never mixed: *guarded* partitions, whose every write is one conditional batch on (epoch, rev), and *plain*
//! rows, where the last writer wins and every write may be repeated.
#![warn(missing_docs)]

pub mod accounts;
pub mod apps;
pub mod conversations;
pub mod embedded;
pub mod groups;
pub mod ids;
pub mod inspect;
pub mod keys;
pub mod logs;
pub mod positions;
pub mod queues;
mod record;
pub mod relations;
pub mod rows;
pub mod sim;

pub use embedded::Embedded;
pub use rows::{Applied, Error, Guard, GuardedBatch, Kind, Life, PlainBatch, Range, Result, Row, Rows, Store, Table, Write};
