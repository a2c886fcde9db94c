//! The commands that speak to a running server, and the few that need none. Each `--help` ends with an example that
//! `tests/help.rs` runs.

pub(crate) mod admin;
mod app;
mod call;
mod certs;
mod chat;
mod config;
mod demo;
mod doctor;
mod drain;
mod http;
mod inspect;
mod migrate;
mod play;
mod rest;
mod shell;
mod status;
mod tail;
mod text;
mod usersig;
mod webhooks;

use anyhow::Result;
use clap::Subcommand;

use crate::output::{Exit, Output};
use crate::target::Common;

/// Everything but the two that start a server.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a UserSig (it alone on stdout), or explain one.
    Usersig(usersig::UsersigArgs),
    /// Call any REST command, signed.
    Call(call::CallArgs),
    /// A terminal client, for people and scripts.
    Chat(chat::ChatArgs),
    /// Live events, a line each.
    Tail(tail::TailArgs),
    /// Receive webhooks, list and replay those that failed, send a sample.
    Webhooks(webhooks::WebhooksArgs),
    /// Tenants: keys, administrators, settings.
    App(app::AppArgs),
    /// Stored rows, readable.
    Inspect(inspect::InspectArgs),
    /// Health at one glance; the accounting laws term by term.
    Status(status::StatusArgs),
    /// The product's scenes, with running totals.
    Demo(demo::DemoArgs),
    /// The playground beside a running server, such as a cluster.
    Play(play::PlayArgs),
    /// Make one process leave as planned.
    Drain(drain::DrainArgs),
    /// What could stand in the way here, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Show, check, document and compare configurations of `linnet serve`.
    Config(config::ConfigArgs),
    /// Certificates of the nodes of a cluster, from a private authority.
    Certs(certs::CertsArgs),
    /// The schema of the CQL store.
    Migrate(migrate::MigrateArgs),
    /// Completions for a shell, on stdout.
    Completions(shell::CompletionsArgs),
    /// The manual page, on stdout.
    Man(shell::ManArgs),
}

/// Runs one command.
///
/// # Errors
/// What went wrong, mostly a [`crate::output::Failure`].
pub(crate) async fn run(command: Command, common: &Common) -> Result<Exit> {
    let out = Output { json: common.json, quiet: common.quiet };
    match command {
        Command::Usersig(args) => usersig::run(args, common, out).await,
        Command::Call(args) => call::run(args, common, out).await,
        Command::Chat(args) => chat::run(args, common, out).await,
        Command::Tail(args) => tail::run(args, common, out).await,
        Command::Webhooks(args) => webhooks::run(args, common, out).await,
        Command::App(args) => app::run(args, common, out).await,
        Command::Inspect(args) => inspect::run(args, common, out).await,
        Command::Status(args) => status::run(args, common, out).await,
        Command::Demo(args) => demo::run(args, common, out).await,
        Command::Play(args) => play::run(args, common, out).await,
        Command::Drain(args) => drain::run(args, common, out).await,
        Command::Doctor(args) => doctor::run(args, common, out).await,
        Command::Certs(args) => certs::run(args, out),
        Command::Config(args) => config::run(args, out),
        Command::Migrate(args) => migrate::run(args, out).await,
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}
