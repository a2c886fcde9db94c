//! Who is pushed to, when, and what becomes of it when things fail.
#![allow(clippy::unwrap_used, reason = "tests")]

mod delivery;
mod rig;
mod who;
