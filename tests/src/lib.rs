//! Tests of the whole product: the real binary, started as a newcomer starts it, spoken to as clients and backends do.

pub mod faults;
