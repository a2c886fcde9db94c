//! What is refused before anything is sent.

use bytes::Bytes;
use linnet_runtime::config::{ByteSize, Period};
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::{Config, Cql};
use linnet_store::rows::MAX_BATCH_BYTES;
use linnet_store::{Error, Guard, GuardedBatch, Kind, Life, Table, Write};
use linnet_types::Epoch;

use crate::cql_store;
use crate::relay::Relay;

const G: Table = Table { name: "suite_guarded", kind: Kind::Guarded };

fn batch(partition: &'static str, bytes: usize) -> GuardedBatch {
    GuardedBatch {
        table: G,
        partition: Bytes::from_static(partition.as_bytes()),
        expect: None,
        guard: Guard { epoch: Epoch(1), rev: 1, data: Bytes::new() },
        writes: vec![Write::Put { clustering: Bytes::from_static(b"k"), value: vec![7; bytes].into() }],
        life: Life::Forever,
        guard_life: Life::Forever,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_answers_busy_above_its_bound_and_nothing_of_it_is_sent() {
    let config = cql_store::config().await;
    let relay = Relay::to(&config.nodes[0]).await;
    let narrow = Config {
        via: vec![format!("{}={}", config.nodes[0], relay.address)],
        guarded_writes: 2,
        busy_after: Period::ms(50),
        write_timeout: Period::secs(3),
        keepalive: Period::secs(120),
        ..config.clone()
    };
    let metrics = Metrics::new();
    let store = Cql::connect(narrow, Clock::system(), &Tasks::new(&metrics), &metrics).await.unwrap();
    let store = cql_store::prefixed(store, Rng::system().u64());
    assert!(store.write(batch("busy-0", 1)).await.unwrap().is_yes());
    relay.hold();
    let clock = Clock::system();
    let since = clock.mono();
    let (first, second, third) =
        futures::join!(store.write(batch("busy-1", 1)), store.write(batch("busy-2", 1)), async {
            let third = store.write(batch("busy-3", 1)).await;
            (third, clock.mono() - since)
        });
    let (third, waited) = third;
    assert!(matches!(&third, Err(Error::Unavailable { why, .. }) if why == "busy"), "{third:?}");
    assert!(waited < std::time::Duration::from_secs(1), "busy is told at once: {waited:?}");
    assert!(matches!(first, Err(Error::Unknown { .. })) && matches!(second, Err(Error::Unknown { .. })));
    assert_eq!(metrics.value("linnet_store_cql_errors_total{work=\"guarded\",kind=\"busy\"}"), Some(1.0));
    assert_eq!(metrics.value("linnet_store_cql_errors_total{work=\"guarded\",kind=\"unknown\"}"), Some(2.0));
    assert_eq!(metrics.value("linnet_store_cql_under_way{work=\"guarded\"}"), Some(0.0));
    relay.release();
    assert_eq!(store.guard(G, b"busy-3").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_the_limit_is_refused_whole() {
    let config = Config { batch_limit: ByteSize::kib(8), ..cql_store::config().await };
    let store = cql_store::prefixed(cql_store::connect(config).await, Rng::system().u64());
    assert!(store.write(batch("fits", 7 << 10)).await.unwrap().is_yes());
    let large = store.write(batch("large", 9 << 10)).await;
    assert!(matches!(&large, Err(Error::Unavailable { why, .. }) if why.contains("over the limit")), "{large:?}");
    assert_eq!(store.guard(G, b"large").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_the_largest_batch_there_is() {
    let store = cql_store::prefixed(cql_store::connect(cql_store::config().await).await, Rng::system().u64());
    let row = |n: u8| Write::Put { clustering: vec![n].into(), value: vec![n; MAX_BATCH_BYTES / 20 - 100].into() };
    let largest = GuardedBatch { writes: (0..20).map(row).collect(), ..batch("largest", 1) };
    assert!(largest.bytes() > MAX_BATCH_BYTES - 2048);
    assert!(store.write(largest).await.unwrap().is_yes());
    assert_eq!(store.scan(G, b"largest", linnet_store::Range::default()).await.unwrap().len(), 20);
}
