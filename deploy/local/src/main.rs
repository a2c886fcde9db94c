//! `deploy/local/cluster`: a Linnet cluster on one machine.
#![allow(clippy::disallowed_methods, reason = "a tool beside the product, outside its runtime")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use linnet_local::servers::{Cql, Nats, Redis};
use linnet_local::{Cluster, Options, relay};

/// A Linnet cluster on one machine: real servers, relays between processes, faults.
///
/// NAME is a process of `status`, such as gateway-1 or nats-1. A and B are processes, a role for all of its processes
/// (nats, cql, group), or * for everything.
#[derive(Parser)]
#[command(name = "cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Folder of the cluster.
    #[arg(long, global = true, value_name = "DIR", default_value = "./linnet-cluster")]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a cluster up; prints one JSON line when a message passes.
    Up(Up),
    /// Print the JSON line again, with how each process is.
    Status,
    /// SIGKILL; not started again.
    Kill { name: String },
    /// SIGTERM: leaves in order, and ends.
    Stop { name: String },
    /// Start a process that ended: same name, data and addresses. Waits until it is ready.
    Start {
        name: String,
        /// From now on with this binary of Linnet.
        #[arg(long, value_name = "PATH")]
        bin_of: Option<PathBuf>,
    },
    /// SIGSTOP.
    Pause { name: String },
    /// SIGCONT.
    Resume { name: String },
    /// Swallow everything between two, both ways.
    Cut {
        a: String,
        b: String,
        /// Keep it and deliver it when the link is healed.
        #[arg(long)]
        hold: bool,
    },
    /// Mend the links between two.
    Heal { a: String, b: String },
    /// Make the links between two slow; 0 is prompt again.
    Delay { a: String, b: String, ms: u64 },
    /// What each link does, those that are not as they should be first.
    Links,
    /// Make a service lose this share of its bus messages, such as 10%; 0 ends it.
    Loss { name: String, percent: String },
    /// Make a service hand over what it owns and take no more.
    Drain { name: String },
    /// End every process and remove the folder.
    Down,
    /// Run one server alone until Ctrl-C; prints its addresses, for LINNET_TEST_NATS, LINNET_TEST_REDIS, LINNET_TEST_CQL.
    Server {
        /// Which.
        kind: Kind,
        /// How many nodes of it.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
    /// The process that carries the links.
    #[command(hide = true)]
    Relay { links: PathBuf, socket: PathBuf },
}

#[derive(Args)]
struct Up {
    /// CQL nodes, 1 or 3.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cql: u8,
    /// NATS nodes, 1 or 3.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nats: u8,
    /// Gateways.
    #[arg(long, value_name = "N", default_value_t = 2)]
    gateways: u8,
    /// Group nodes, and as many message-store nodes.
    #[arg(long, value_name = "N", default_value_t = 2)]
    owners: u8,
    /// Nodes of each other service.
    #[arg(long, value_name = "N", default_value_t = 2)]
    replicas: u8,
    /// The binary of Linnet, or the folder it is in; built when absent.
    #[arg(long, value_name = "PATH")]
    bin_of: Option<PathBuf>,
    /// One value over the configuration of every service. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Nats,
    Redis,
    Cql,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Without the backtrace that the debug form would print.
            eprintln!("cluster: {why:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let open = || Cluster::open(&cli.dir);
    match cli.command {
        Command::Up(up) => return bring_up(up, cli.dir).await,
        Command::Status => println!("{}", open()?.status()?),
        Command::Kill { name } => open()?.kill(&name).await?,
        Command::Stop { name } => open()?.stop(&name).await?,
        Command::Start { name, bin_of } => open()?.start_of(&name, bin_of.as_deref()).await?,
        Command::Pause { name } => open()?.pause(&name).await?,
        Command::Resume { name } => open()?.resume(&name).await?,
        Command::Cut { a, b, hold } => {
            let cluster = open()?;
            let count = if hold { cluster.hold(&a, &b).await? } else { cluster.cut(&a, &b).await? };
            eprintln!("{count} links");
        }
        Command::Heal { a, b } => eprintln!("{} links", open()?.heal(&a, &b).await?),
        Command::Delay { a, b, ms } => eprintln!("{} links", open()?.delay(&a, &b, ms).await?),
        Command::Links => {
            let mut links = open()?.links().await?;
            links.sort_by_key(|link| link.shape == relay::Shape::default());
            let mut out = std::io::stdout().lock();
            for link in links {
                // A reader that has seen enough is no failure.
                if writeln!(out, "{}", serde_json::to_string(&link)?).is_err() {
                    break;
                }
            }
        }
        Command::Loss { name, percent } => {
            let share = percent.trim_end_matches('%').parse().ok().filter(|share| *share <= 100);
            open()?.loss(&name, share.with_context(|| format!("{percent:?} is no share, such as 10%"))?).await?;
        }
        Command::Drain { name } => open()?.drain(&name).await?,
        Command::Down => open()?.down().await?,
        Command::Server { kind, nodes } => alone(kind, nodes).await?,
        Command::Relay { links, socket } => relay::serve(&links, &socket).await?,
    }
    Ok(())
}

async fn bring_up(up: Up, dir: PathBuf) -> Result<()> {
    let options = Options {
        cql: up.cql,
        nats: up.nats,
        gateways: up.gateways,
        owners: up.owners,
        replicas: up.replicas,
        dir,
        binary: up.bin_of,
        set: up.set,
        keep: true,
    };
    let begun = Instant::now();
    let say = move |step: &str| eprintln!("{:6.1} s  {step}", begun.elapsed().as_secs_f32());
    let work = tokio::task::spawn_blocking(move || Cluster::up_blocking(&options, &say));
    tokio::select! {
        cluster = work => println!("{}", cluster??.status()?),
        // What was started is guarded until the end of `up`, and ends when we do.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            eprintln!("cluster: interrupted");
            std::process::exit(130);
        }
    }
    eprintln!("{:6.1} s  up", begun.elapsed().as_secs_f32());
    Ok(())
}

async fn alone(kind: Kind, nodes: u8) -> Result<()> {
    let server = match kind {
        Kind::Nats => Nats { nodes: nodes.into(), ..Nats::default() }.start().await?,
        Kind::Redis => Redis { nodes: nodes.into(), ..Redis::default() }.start().await?,
        Kind::Cql => Cql { nodes, ..Cql::default() }.start().await?,
    };
    println!("{}", server.addresses().join(","));
    Ok(tokio::signal::ctrl_c().await?)
}
