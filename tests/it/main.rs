//! One binary, a module per feature; every test starts a server of its own on a free port.
//!
//! With `LINNET_CLUSTER=DIR`, the folder of a cluster that `deploy/local/cluster up` made, a test gets a tenant of its own
//! there instead, its clients at the gateways in turn. What is about one process of its own starts one even then:
//! `kill`, `stop` and the restart in `groups` (the binary is killed and started again on its data folder), TLS and its
//! names in `docs` and `third_party`, and the log in `docs` (a level set for it).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod attack;
mod docs;
mod first_message;
mod groups;
mod kill;
mod live_room;
mod playground;
mod protocol;
mod push;
mod stop;
mod third_party;
mod usersig_libraries;
mod webhooks;
