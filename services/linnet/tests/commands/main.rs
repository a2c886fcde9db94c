//! The commands as a person or a script meets them: the real binary against a real `linnet dev`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod help;
mod live;
mod offline;
mod online;
mod sandbox;
