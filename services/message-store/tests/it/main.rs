//! The service over its gRPC surface, with a simulated store and faked neighbours.
#![allow(clippy::unwrap_used, reason = "tests")]

mod c2c;
mod embedded;
mod fake;
mod groups;
mod owners;
mod told;
mod views;
mod world;
