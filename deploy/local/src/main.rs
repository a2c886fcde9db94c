//! `deploy/local/cluster`: a Linnet cluster on one machine.
#![allow(clippy::disallowed_methods, reason = "a tool beside the product, outside its runtime")]

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use linnet_local::servers::{Cql, Nats, Redis};

/// A Linnet cluster on one machine: real servers, relays between processes, faults.
#[derive(Parser)]
#[command(name = "cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one server alone until Ctrl-C; prints its addresses, for LINNET_TEST_NATS, LINNET_TEST_REDIS, LINNET_TEST_CQL.
    Server {
        /// Which.
        kind: Kind,
        /// How many nodes of it.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Nats,
    Redis,
    Cql,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Server { kind, nodes } => {
            let server = match kind {
                Kind::Nats => Nats { nodes: nodes.into(), ..Nats::default() }.start().await?,
                Kind::Redis => Redis { nodes: nodes.into(), ..Redis::default() }.start().await?,
                Kind::Cql => Cql { nodes, ..Cql::default() }.start().await?,
            };
            println!("{}", server.addresses().join(","));
            tokio::signal::ctrl_c().await?;
        }
    }
    Ok(())
}
