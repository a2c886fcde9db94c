//! The one binary: every service in one process, and the commands that speak to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    linnet::main()
}
