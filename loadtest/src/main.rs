//! Load on a real server in a process of its own, bounded in time.
//!
//! One scenario so far: `pairs`, one-to-one messages with one in flight per pair. Floors to compare with, and the other
//! scenarios, are not here yet; until then a figure of this tool is of one machine and one run, and says so.

mod pairs;
mod server;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Load scenarios for Linnet.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  cargo run --release -p linnet-loadtest -- pairs --pairs 50 --duration 10")]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// One-to-one messages: each pair has one message in flight, stored with fsync, delivered to the peer.
    Pairs(pairs::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    // The one TLS provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().scenario {
        Scenario::Pairs(options) => pairs::run(options).await,
    }
}
