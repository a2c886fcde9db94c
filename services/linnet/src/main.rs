//! The one binary: every service in one process, and the commands that speak to it.

mod admin;
mod commands;
mod config;
mod dev;
mod http;
mod node;
mod output;
mod play;
mod ports;
mod roles;
mod serve;
mod target;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::report;
use crate::target::Common;

/// A self-hosted chat cloud.
#[derive(Parser, Debug)]
#[command(
    name = "linnet",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Begin with:\n  linnet dev\n\nExit codes: 0 done, 1 refused or a check failed, 2 usage, 3 unreachable, 4 partial."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Top,
}

#[derive(Subcommand, Debug)]
enum Top {
    /// Everything in one process on this machine, for trying out.
    Dev(dev::DevArgs),
    /// Production: one configuration file, no samples.
    Serve(serve::ServeArgs),
    #[command(flatten)]
    Other(commands::Command),
}

fn main() -> ExitCode {
    // The one TLS provider of the process; nothing else installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    let done = runtime.block_on(async {
        match cli.command {
            Top::Dev(args) => dev::run(args, &cli.common).await,
            Top::Serve(args) => serve::run(args).await,
            Top::Other(command) => commands::run(command, &cli.common).await,
        }
    });
    done.unwrap_or_else(|error| report(&error)).into()
}
