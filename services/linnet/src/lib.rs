//! The composition root: every service in one process or some of them, and the commands that speak to them.
//!
//! Its binaries are `linnet`, which does everything, and one for each service (`linnet-gateway`, …), which only serves.
#![warn(missing_docs)]

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

use std::future::Future;
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _, Parser, Subcommand};
use linnet_cluster::Service;

use crate::output::{Exit, report};
use crate::roles::Roles;
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

/// The binary `linnet`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    finish(async {
        match cli.command {
            Top::Dev(args) => dev::run(args, &cli.common).await,
            Top::Serve(args) => serve::run(args.role, args.options).await,
            Top::Other(command) => commands::run(command, &cli.common).await,
        }
    })
}

/// The binary of one service: `linnet serve --role SERVICE` and nothing else.
#[must_use]
pub fn service_main(service: Service) -> ExitCode {
    let command = clap::Command::new("linnet").bin_name(format!("linnet-{service}")).version(env!("CARGO_PKG_VERSION"));
    let command = serve::ServeOptions::augment_args(command)
        .about(format!("The {service} service, as `linnet serve --role {service}` runs it"))
        .after_help(format!("Example:\n  linnet-{service} --print-config"));
    let options = serve::ServeOptions::from_arg_matches(&command.get_matches()).unwrap_or_else(|wrong| wrong.exit());
    finish(serve::run(Roles::one(service), options))
}

fn finish(run: impl Future<Output = anyhow::Result<Exit>>) -> ExitCode {
    // The one TLS provider of the process; nothing else installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(run).unwrap_or_else(|error| report(&error)).into()
}
