//! `pairs`: N pairs, one message in flight each, for a while.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use linnet_client::{Client, Events, Options as ClientOptions};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use serde::Serialize;

use crate::server::Server;

/// Options of the scenario.
#[derive(Args)]
pub(crate) struct Options {
    /// Pairs of users; each has one message in flight.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pairs: u32,
    /// Seconds of load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    duration: u64,
    /// Bytes of text in a message.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=8000))]
    bytes: u32,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// What one run found; times in microseconds.
#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    pairs: u32,
    seconds: f64,
    text_bytes: u32,
    acknowledged: u64,
    delivered: u64,
    refused: u64,
    sends_per_s: f64,
    server_cpu_s: f64,
    server_cpu_us_per_send: f64,
    server_memory_bytes: u64,
    ack_us: Quantiles,
    delivery_us: Quantiles,
}

#[derive(Serialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() }
    }
}

struct Counted {
    ack: Histogram<u64>,
    delivery: Histogram<u64>,
    refused: u64,
}

/// Runs the scenario and prints the report.
pub(crate) async fn run(options: Options) -> Result<()> {
    let server = Server::start().await?;
    let clock = Clock::system();
    let (rng, tasks) = (Rng::system(), Tasks::new(&Metrics::new()));
    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {pos}/{len}")?;
    let bar = ProgressBar::new(u64::from(options.pairs)).with_style(style.clone()).with_message("signing in");
    let mut pairs = Vec::new();
    for n in 0..options.pairs {
        let (from, _) = connect(&server, &format!("from{n}"), &tasks, &rng).await?;
        let (to, events) = connect(&server, &format!("to{n}"), &tasks, &rng).await?;
        pairs.push((from, to, events, n));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bar = ProgressBar::new(options.duration).with_style(style).with_message("sending");
    let (cpu, begun) = (server.cpu()?, clock.mono());
    let end = begun + Duration::from_secs(options.duration);
    let text: String = "x".repeat(options.bytes as usize);
    let workers: Vec<_> = pairs
        .into_iter()
        .map(|(from, to, events, n)| {
            tasks.spawn("pair", one_pair(from, to, events, n, text.clone(), clock.clone(), end))
        })
        .collect();
    while clock.mono() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut all = Counted { ack: Histogram::new(3)?, delivery: Histogram::new(3)?, refused: 0 };
    for worker in workers {
        let counted = worker.await?.context("a pair ended early")??;
        all.ack.add(&counted.ack)?;
        all.delivery.add(&counted.delivery)?;
        all.refused += counted.refused;
    }
    let seconds = (clock.mono() - begun).as_secs_f64();
    let cpu_s = (server.cpu()? - cpu).as_secs_f64();
    let report = Report {
        scenario: "pairs",
        pairs: options.pairs,
        seconds,
        text_bytes: options.bytes,
        acknowledged: all.ack.len(),
        delivered: all.delivery.len(),
        refused: all.refused,
        sends_per_s: all.ack.len() as f64 / seconds,
        server_cpu_s: cpu_s,
        server_cpu_us_per_send: cpu_s * 1e6 / all.ack.len().max(1) as f64,
        server_memory_bytes: server.memory()?,
        ack_us: (&all.ack).into(),
        delivery_us: (&all.delivery).into(),
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(file) = options.json {
        std::fs::write(&file, serde_json::to_vec_pretty(&report)?).with_context(|| file.display().to_string())?;
    }
    anyhow::ensure!(report.acknowledged == report.delivered, "acknowledged and delivered differ");
    Ok(())
}

async fn connect(server: &Server, user: &str, tasks: &Tasks, rng: &Rng) -> Result<(Client, Events)> {
    let mut options = ClientOptions::new(server.ws(), server.app(), user, server.sig(user));
    options.follow = false;
    Client::connect(options, tasks, rng.fork(user)).await.with_context(|| format!("{user} cannot sign in"))
}

/// Sends, waits for the acknowledgement and for the peer, and again.
async fn one_pair(
    from: Client,
    to: Client,
    mut events: Events,
    n: u32,
    text: String,
    clock: Clock,
    end: Duration,
) -> Result<Counted> {
    let conv = format!("C2C:to{n}");
    let mut counted = Counted { ack: Histogram::new(3)?, delivery: Histogram::new(3)?, refused: 0 };
    while clock.mono() < end {
        let begun = clock.mono();
        if from.text(&conv, &text).await.is_err() {
            counted.refused += 1;
            continue;
        }
        counted.ack.record(micros(clock.mono() - begun))?;
        events.message().await.context("the receiver lost its connection")?;
        counted.delivery.record(micros(clock.mono() - begun))?;
    }
    from.close().await;
    to.close().await;
    Ok(counted)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
