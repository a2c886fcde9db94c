//! Owners that each believe the log is theirs, over replicas that lose, delay and half-apply writes: a thousand seeds.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/owners.rs"]
mod owners;

use std::sync::{Arc, Mutex};

use linnet_proto::store::ClassSpan;
use linnet_runtime::{Clock, Rng};
use linnet_store::keys::Key;
use linnet_store::logs::{LOG_HEAD, LogHead, Logs};
use linnet_store::sim::{Counts, Faults, SimRows};
use linnet_store::{Life, PlainBatch, Write};
use linnet_types::UnixMillis;
use owners::{BATCHES, ID, Owner, Seen, Tally, judge};
use prost::Message;

const SEEDS: u64 = 1000;
const OWNERS: u64 = 3;

/// Runs one seed; every other one begins shortly before the end of a bucket.
async fn run(seed: u64) -> (Tally, Counts) {
    let clock = Clock::simulated(UnixMillis(1_700_000_000_000));
    let rng = Rng::seeded(seed);
    let sim = SimRows::new(rng.fork("store"), clock.clone(), Faults::none());
    let start = if seed.is_multiple_of(2) { 0 } else { 4096 - 10 - seed % 30 };
    if start > 0 {
        begin_at(&sim, start).await;
    }
    sim.set_faults(Faults::rough());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let owners = (0..OWNERS).map(|name| {
        let rng = rng.fork(&format!("owner {name}"));
        let logs = Logs::new(sim.store(), clock.skewed(i64::try_from(name).unwrap() * 700), rng.fork("logs"), "group");
        Owner { seed, name, logs, rng, seen: seen.clone(), sent: 0, batches: BATCHES }.run()
    });
    futures::future::join_all(owners).await;
    sim.set_faults(Faults::none());
    let logs = Logs::new(sim.store(), clock, rng.fork("judge"), "group");
    judge(seed, start, &logs, &seen).await;
    let mut tally = seen.lock().unwrap().tally;
    tally.crossed_a_bucket = u64::from(start > 0);
    (tally, sim.counts())
}

/// A log whose older messages have expired: all that is left is its head.
async fn begin_at(sim: &SimRows, last: u64) {
    let head = LogHead {
        epoch: 3,
        last_seq: last,
        ord: last,
        classes: vec![ClassSpan { from_bucket: 0, days: 7 }],
        ..LogHead::default()
    };
    let write = Write::Put { clustering: Key::new().u64_desc(3).done(), value: head.encode_to_vec().into() };
    let partition = Key::new().u32(ID.app.0).u64(ID.conv.0).done();
    let batch = PlainBatch { table: LOG_HEAD, writes: vec![(partition, write)], life: Life::Forever };
    sim.store().put(batch).await.unwrap();
}

/// The seeds of `share` in `shares`, on this thread.
fn run_share(seeds: std::ops::Range<u64>, share: u64, shares: usize) -> (Tally, Counts) {
    let mut total = (Tally::default(), Counts::default());
    for seed in seeds.skip(usize::try_from(share).unwrap()).step_by(shares) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (tally, struck) = runtime.block_on(run(seed));
        total.0.add(&tally);
        total.1.add(&struck);
    }
    total
}

#[test]
fn owners_over_a_rough_store_lose_repeat_and_skip_nothing() {
    let only = std::env::var("LINNET_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let shares = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let mut total = Tally::default();
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shares as u64)
            .map(|share| {
                let seeds = seeds.clone();
                scope.spawn(move || run_share(seeds, share, shares))
            })
            .collect();
        for thread in threads {
            let (tally, struck) = thread.join().unwrap();
            total.add(&tally);
            counts.add(&struck);
        }
    });
    println!("{total:?}\n{counts:?}");
    if only.is_none() {
        assert_eq!(counts.never_struck(), Vec::<&str>::new(), "a simulation without these faults shows nothing");
        let events = [total.deposed, total.settled_stored, total.settled_not_stored, total.crossed_a_bucket];
        assert!(events.iter().all(|events| *events > 100), "{total:?}");
    }
}
