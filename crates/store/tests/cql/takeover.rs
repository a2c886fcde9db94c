//! Owners that each believe a log is theirs, on a real server, also when what they say arrives late or is never answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use linnet_runtime::config::Period;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::{Config, Cql};
use linnet_store::logs::Logs;

use crate::cql_store;
use crate::owners::{BATCHES, Owner, Seen, judge};
use crate::relay::Relay;

const OWNERS: u64 = 3;
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_who_depose_each_other_lose_repeat_and_skip_nothing() {
    let store = cql_store::store().await;
    let (clock, rng) = (Clock::system(), Rng::seeded(5));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let owners = (0..OWNERS).map(|name| {
        let rng = rng.fork(&format!("owner {name}"));
        let logs = Logs::new(store.clone(), clock.clone(), rng.fork("logs"), "group");
        Owner { seed: 5, name, logs, rng, seen: seen.clone(), sent: 0, batches: BATCHES }.run()
    });
    futures::future::join_all(owners).await;
    let logs = Logs::new(store, clock, rng.fork("judge"), "group");
    judge(5, 0, &logs, &seen).await;
    let tally = seen.lock().unwrap().tally;
    assert!(tally.deposed > 0 && tally.acknowledged > 0, "{tally:?}");
}

/// Breaks the connections of a relay, or lets them wait for longer than a write does, until told to stop.
async fn rough(relay: &Relay, rng: &Rng, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50 + rng.below(300))).await;
        if rng.chance(40) {
            relay.cut();
            continue;
        }
        relay.hold();
        tokio::time::sleep(WRITE_TIMEOUT + Duration::from_millis(rng.below(600))).await;
        relay.release();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_whose_words_arrive_late_or_not_at_all_lose_repeat_and_skip_nothing() {
    let seed = std::env::var("LINNET_SEED").map_or_else(|_| Rng::system().u64() >> 40, |seed| seed.parse().unwrap());
    println!("LINNET_SEED={seed}");
    let (config, rng, test) = (cql_store::config().await, Rng::seeded(seed), Rng::system().u64());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let metrics = Metrics::new();
    let owner = async |name: u64| {
        let rng = rng.fork(&format!("owner {name}"));
        let relay = Relay::to(&config.nodes[0]).await;
        let own = Config {
            via: vec![format!("{}={}", config.nodes[0], relay.address)],
            write_timeout: Period(WRITE_TIMEOUT),
            ..config.clone()
        };
        let store = Cql::connect(own, Clock::system(), &Tasks::new(&metrics), &metrics).await.unwrap();
        let logs = Logs::new(cql_store::prefixed(store, test), Clock::system(), rng.fork("logs"), "group");
        let dice = rng.fork("faults");
        let owner = Owner { seed, name, logs, rng, seen: seen.clone(), sent: 0, batches: 80 };
        let stop = AtomicBool::new(false);
        futures::join!(rough(&relay, &dice, &stop), async {
            owner.run().await;
            stop.store(true, Ordering::Relaxed);
        });
    };
    futures::future::join_all((0..2).map(owner)).await;
    let logs = Logs::new(
        cql_store::prefixed(cql_store::connect(config).await, test),
        Clock::system(),
        rng.fork("judge"),
        "group",
    );
    judge(seed, 0, &logs, &seen).await;
    let tally = seen.lock().unwrap().tally;
    let unknown = metrics.value("linnet_store_cql_errors_total{work=\"guarded\",kind=\"unknown\"}");
    println!("{tally:?}, unknown {unknown:?}");
    assert!(unknown > Some(0.0), "seed {seed}: {tally:?}");
}
