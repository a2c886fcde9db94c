//! The CQL backend on a real server: late writes, expiring guards, bounds, and the schema. A server of its own, or the one
//! at `LINNET_TEST_CQL` (`host:port`).
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/cql.rs"]
mod cql_store;
#[path = "support/held.rs"]
mod held;
#[path = "support/owners.rs"]
mod owners;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/shortened.rs"]
mod shortened;

#[path = "cql/bounds.rs"]
mod bounds;
#[path = "cql/late.rs"]
mod late;
#[path = "cql/life.rs"]
mod life;
#[path = "cql/schema.rs"]
mod schema;
#[path = "cql/takeover.rs"]
mod takeover;
