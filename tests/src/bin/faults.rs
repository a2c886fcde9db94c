//! Random faults on a cluster of real processes, by seed, and a verdict.
//!
//! `cargo run -p linnet-tests --bin faults -- --minutes 10 --seed 7`; ends with 1 unless zeros are where zeros must be.
//! `rows [FILTER]…` runs the table of `tests/faults` instead.
#![allow(clippy::disallowed_methods, reason = "a test outside the product's runtime")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use linnet_local::{Cluster, Options};
use linnet_tests::faults::ground::Ground;
use linnet_tests::faults::random::{Ask, run};
use linnet_tests::faults::rows;
use linnet_tests::faults::run::Lane;

const USAGE: &str = "faults --minutes N [--seed S] [--cql 1|3] [--nats 1|3] [--rate R] [--community N] [--cluster DIR]
  --minutes N    how long faults strike
  --seed S       draws the same faults again; else one is drawn and printed
  --cql 1|3      CQL nodes (3): with one, none is killed or paused
  --nats 1|3     NATS servers (3)
  --rate R       appends a second (20)
  --community N  members of the community (10000)
  --cluster DIR  a cluster that is up already, instead of one of our own
faults rows [FILTER]...   the table, as `cargo test -p linnet-tests --test faults` does";

struct Args {
    minutes: f64,
    seed: u64,
    cql: u8,
    nats: u8,
    rate: f64,
    community: usize,
    cluster: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some_and(|first| first == "rows") {
        return rows::main(args.skip(1));
    }
    let args = match parse(args) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(faults(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("verdict: BAD; seed {}; {why:#}", args.seed);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args> {
    let seed = linnet_runtime::Rng::system().below(1_000_000);
    let mut parsed = Args { minutes: 0.0, seed, cql: 3, nats: 3, rate: 20.0, community: 10_000, cluster: None };
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--minutes" => parsed.minutes = value.parse().context("--minutes")?,
            "--seed" => parsed.seed = value.parse().context("--seed")?,
            "--cql" => parsed.cql = value.parse().context("--cql")?,
            "--nats" => parsed.nats = value.parse().context("--nats")?,
            "--rate" => parsed.rate = value.parse().context("--rate")?,
            "--community" => parsed.community = value.parse().context("--community")?,
            "--cluster" => parsed.cluster = Some(value.into()),
            _ => bail!("{name} is no option"),
        }
    }
    if parsed.minutes <= 0.0 {
        bail!("--minutes is needed");
    }
    Ok(parsed)
}

async fn faults(args: &Args) -> Result<bool> {
    println!("seed {}", args.seed);
    let ground = match &args.cluster {
        Some(dir) => Ground::of(Cluster::open(dir)?)?,
        None => {
            let dir = std::env::temp_dir().join(format!("linnet-random-{}", std::process::id()));
            Ground::up(Options { cql: args.cql, nats: args.nats, ..Options::new(dir) }).await?
        }
    };
    let replicas = ground.of_role("cql").len() > 1;
    let mut lane = Lane::open(ground.place.clone(), args.seed, args.community, args.rate).await?;
    let ask = Ask { minutes: args.minutes, seed: args.seed, replicas };
    let verdict = run(&ground, &mut lane, ask).await;
    if args.cluster.is_none() {
        ground.cluster.down().await?;
    }
    let verdict = verdict?;
    println!("{verdict}");
    Ok(verdict.is_good())
}
