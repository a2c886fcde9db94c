//! How fast a log grows on a CQL server, and how long an append takes: `cargo run --release -p linnet-store --example
//! cql_appends`. A server of its own (Cassandra 5, one node), or the one at `LINNET_TEST_CQL` (`host:port`). About 30 s.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::{Config, Cql, migrate};
use linnet_store::logs::{Class, Entry, LogId, Logs, Opening, fit};
use linnet_types::{ConvId, Epoch, SdkAppId, UserId};

/// Of one measurement.
const SPAN: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 200;

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let server = linnet_local::servers::cql().await?;
    let config = Config {
        nodes: vec![server.address().to_owned()],
        keyspace: "t_bench".to_owned(),
        replication: 1,
        ..Config::default()
    };
    migrate::run(&config, |_| ()).await?;
    let metrics = Metrics::new();
    let (clock, tasks) = (Clock::system(), Tasks::new(&metrics));
    let since = clock.mono();
    let store = Cql::connect(config, clock.clone(), &tasks, &metrics).await?;
    println!("connected, every statement prepared: {:.0?}", clock.mono() - since);
    println!("conversations  messages/append  appends/s  messages/s      p50      p99      max");
    for (logs, batch) in [(1, 1), (1, 1), (1, 20), (8, 1), (32, 1), (32, 20)] {
        row(&store, logs, batch).await?;
    }
    Ok(())
}

async fn row(store: &Arc<Cql>, count: u64, batch: usize) -> Result<()> {
    let clock = Clock::system();
    let begin = clock.mono();
    let appending = (0..count).map(|conv| append(store.clone(), clock.clone(), conv, batch));
    let mut took: Vec<Duration> = futures::future::try_join_all(appending).await?.concat();
    let span = (clock.mono() - begin).as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let appends = took.len() as f64 / span;
    println!(
        "{count:13}  {batch:15}  {appends:9.0}  {:10.0}  {:7.1?}  {:7.1?}  {:7.1?}",
        appends * batch as f64,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// Appends to one log until the time is over; the time each append took.
async fn append(store: Arc<Cql>, clock: Clock, conv: u64, batch: usize) -> Result<Vec<Duration>> {
    let rng = Rng::system();
    let logs = Logs::new(store, clock.clone(), rng.fork("logs"), "bench");
    let id = LogId { app: SdkAppId(1), conv: ConvId(conv << 32 | u64::from(rng.u32())) };
    let mut log = logs.open(Opening { id, class: Class::Month, route: String::new() }).await?;
    let begin = clock.mono();
    let mut took = Vec::new();
    while clock.mono() - begin < SPAN {
        let since = clock.mono();
        let mut entries = vec![entry(); batch];
        entries.truncate(fit(&entries, log.last_seq()));
        if let Err(error) = log.append(entries, Epoch(0)).await {
            // A server that collects its garbage: what became of it is found out before the next.
            println!("conversation {conv}: {error}");
            log.settle().await?;
        }
        took.push(clock.mono() - since);
    }
    Ok(took)
}

fn entry() -> Entry {
    Entry::message(UserId::trusted("ann"), 1, Bytes::from_static(&[b'x'; BODY_BYTES]))
}
