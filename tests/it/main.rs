//! One binary, a module per feature; every test starts a server of its own on a free port.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod attack;
mod docs;
mod first_message;
mod groups;
mod kill;
mod live_room;
mod playground;
mod protocol;
mod stop;
mod third_party;
mod usersig_libraries;
mod webhooks;
