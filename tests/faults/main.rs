//! Faults, with real processes, under load: every row of the table in `docs/operations.md` is a test, and the log is
//! checked afterwards against what was acknowledged, delivered and refused.
//!
//! `cargo test -p linnet-tests --test faults -- owner_killed` runs one. `LINNET_SEED` replays a seed.

use std::process::ExitCode;

fn main() -> ExitCode {
    linnet_tests::faults::rows::main(std::env::args().skip(1))
}
