//! The public REST surface: `/v4/SERVICE/COMMAND` as backends written for Tencent IM call it.
//!
//! Hides the envelope, the order of checks, the spellings and number forms of the documents, and which code a bad field
//! has. Keeps nothing: every command is inner calls through [`linnet_cluster::Cluster`].
//!
//! ```text
//! HTTP --> URL --> method, command --> app --> identifier, UserSig --> administrator --> rates --> body --> handler
//!          60002    60009             60012    60004, 70xxx           60010            60007    60003     family codes
//!                                     60006                                            60011    60008
//!                                     70020, 60016
//! handler --Ask--> service(owner)      refused: passed on; BUSY: again until the deadline, then the family's internal code
//! ```
//!
//! Invariants: HTTP 200 and a `RequestId` for every answer; nothing is called before every check has passed; a caller
//! who goes away ends nothing that began; message elements leave as the bytes they came as.
#![warn(missing_docs)]

mod admin;
mod body;
mod call;
mod catalogue;
mod commands;
mod config;
mod edge;
mod json;
mod limits;
mod reply;
mod services;
mod target;
mod throttle;

pub use catalogue::{Entry, Status, catalogue, markdown};
pub use config::Config;
pub use edge::{Deps, Running, start};
