//! Everything that is kept: every table, key layout and row format of Linnet.
//!
//! Hides which database there is. Aggregates ([`logs`], [`groups`], [`accounts`], …) are written once over the narrow port
//! [`Rows`]; a backend ([`Embedded`] on one machine, [`sim`] in tests) only stores rows. Invariants:
//!
//! - Tables are of two kinds, never mixed: *guarded* partitions, whose every write is one conditional batch on (epoch, rev),
//!   and *plain* rows, where the last writer wins and every write may be repeated.
//! - A write that was answered is durable. One whose outcome is unknown is settled by a claim, never by a read.
//! - Every key begins with the app (or with a service's or a node's own name), and no part of a key runs into the next
//!   ([`keys`]).
//!
//! ```text
//! service --> aggregate: keys, protobuf, claims --Rows--> backend            refused -> the guard that stood in the way
//!                                                  |  durable here           unknown -> claim, then look
//! ```
//!
//! To add a table: a constant in the aggregate that owns it, its row in `linnet/store/v1/*.proto`, its lines in that
//! aggregate's `tables()` and `describe()` (which `linnet inspect` prints).
#![warn(missing_docs)]

pub mod accounts;
pub mod apps;
pub mod conversations;
pub mod cql;
pub mod embedded;
pub mod groups;
pub mod ids;
pub mod inspect;
pub mod keys;
pub mod logs;
pub mod positions;
pub mod push;
pub mod queues;
mod record;
pub mod relations;
pub mod rows;
pub mod sim;

pub use cql::Cql;
pub use embedded::Embedded;
pub use rows::{
    Applied, Error, Guard, GuardedBatch, Kind, Life, PlainBatch, Range, Result, Row, Rows, Store, Table, Write,
};
