//! Owners that each believe the log is theirs, over replicas that lose, delay and half-apply writes: a thousand seeds.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use linnet_proto::store::ClassSpan;
use linnet_runtime::{Clock, Rng};
use linnet_store::keys::Key;
use linnet_store::logs::{
    Appended, Class, Entry, Error, LOG_HEAD, Log, LogHead, LogId, Logs, MessageKind, Opening, Settled, fit,
};
use linnet_store::sim::{Counts, Faults, SimRows};
use linnet_store::{Life, PlainBatch, Write};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UnixMillis, UserId};
use prost::Message;

const SEEDS: u64 = 1000;
const OWNERS: u64 = 3;
const BATCHES: u32 = 10;
const ID: LogId = LogId { app: SdkAppId(1), conv: ConvId(1) };

/// What the outside world was told or has read.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<u64, Bytes>,
    read: HashMap<u64, Bytes>,
    epochs: HashSet<u64>,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acknowledged: u64,
    deposed: u64,
    settled_stored: u64,
    settled_not_stored: u64,
    claims: u64,
    crossed_a_bucket: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.deposed += other.deposed;
        self.settled_stored += other.settled_stored;
        self.settled_not_stored += other.settled_not_stored;
        self.claims += other.claims;
        self.crossed_a_bucket += other.crossed_a_bucket;
    }
}

impl Seen {
    fn acknowledge(&mut self, seed: u64, appended: &[Appended], entries: &[Entry]) {
        assert_eq!(appended.len(), entries.len(), "seed {seed}");
        for (given, entry) in appended.iter().zip(entries) {
            let other = self.acknowledged.insert(given.seq.0, entry.body.clone());
            assert_eq!(other, None, "seed {seed}: seq {} was acknowledged twice", given.seq);
            self.tally.acknowledged += 1;
        }
    }
}

struct Owner {
    seed: u64,
    name: u64,
    logs: Logs,
    rng: Rng,
    seen: Arc<Mutex<Seen>>,
    sent: u64,
}

impl Owner {
    async fn run(mut self) {
        let mut log = self.claim().await;
        for _ in 0..BATCHES {
            let count = 1 + self.rng.below(3);
            let mut entries: Vec<Entry> = (0..count).map(|_| self.entry()).collect();
            entries.truncate(fit(&entries, log.last_seq()));
            if !self.send(&mut log, entries).await {
                self.seen.lock().unwrap().tally.deposed += 1;
                self.pause(20).await;
                log = self.claim().await;
            }
            // Long enough, at times, for others to claim the log twice over.
            let most = if self.rng.chance(20) { 150 } else { 3 };
            self.pause(most).await;
            self.look(&log).await;
        }
    }

    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.below(most_ms))).await;
    }

    async fn claim(&self) -> Log {
        loop {
            let opening = Opening { id: ID, class: Class::Week, route: String::new() };
            if let Ok(log) = self.logs.open(opening).await {
                let mut seen = self.seen.lock().unwrap();
                seen.tally.claims += 1;
                assert!(seen.epochs.insert(log.epoch().0), "seed {}: epoch {} claimed twice", self.seed, log.epoch());
                return log;
            }
            self.pause(10).await;
        }
    }

    /// Appends until it is acknowledged; false when the log is lost, and with it what was not acknowledged.
    async fn send(&self, log: &mut Log, entries: Vec<Entry>) -> bool {
        loop {
            let result = log.append(entries.clone(), Epoch(0)).await;
            match result {
                Ok(appended) => {
                    self.seen.lock().unwrap().acknowledge(self.seed, &appended, &entries);
                    return true;
                }
                Err(Error::Unsettled) => match self.settle(log).await {
                    Some(Settled::Stored(appended)) => {
                        let mut seen = self.seen.lock().unwrap();
                        seen.tally.settled_stored += 1;
                        seen.acknowledge(self.seed, &appended, &entries);
                        return true;
                    }
                    Some(Settled::NotStored) => self.seen.lock().unwrap().tally.settled_not_stored += 1,
                    None => return false,
                },
                Err(Error::StaleOwner { .. }) => return false,
                Err(Error::Store(_)) => self.pause(5).await,
                Err(other) => panic!("seed {}: {other}", self.seed),
            }
        }
    }

    async fn settle(&self, log: &mut Log) -> Option<Settled> {
        loop {
            match log.settle().await {
                Ok(settled) => return Some(settled),
                Err(Error::StaleOwner { .. }) => return None,
                Err(_) => self.pause(5).await,
            }
        }
    }

    /// Whatever anybody has read stays so.
    async fn look(&self, log: &Log) {
        let Ok(page) = log.reader().history(Seq(1), Seq(u64::MAX), 10).await else { return };
        let mut seen = self.seen.lock().unwrap();
        for message in page.messages {
            let before = seen.read.insert(message.seq.0, message.body.clone());
            let same = before.is_none_or(|before| before == message.body);
            assert!(same, "seed {}: seq {} changed", self.seed, message.seq);
        }
    }

    fn entry(&mut self) -> Entry {
        self.sent += 1;
        Entry {
            sender: UserId::trusted(format!("owner{}", self.name)),
            random: u32::try_from(self.sent).unwrap(),
            msg_seq: None,
            msg_seq_filled: false,
            content_hash: 0,
            flags: 0,
            visibility: None,
            kind: MessageKind::Message,
            priority: 0,
            countable: true,
            body: Bytes::from(format!("{} {}", self.name, self.sent)),
        }
    }
}

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
        Owner { seed, name, logs, rng, seen: seen.clone(), sent: 0 }.run()
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

async fn judge(seed: u64, start: u64, logs: &Logs, seen: &Mutex<Seen>) {
    let log = logs.open(Opening { id: ID, class: Class::Week, route: String::new() }).await.unwrap();
    let page = log.reader().history(Seq(start + 1), Seq(u64::MAX), 10_000).await.unwrap();
    assert!(page.missing.is_empty(), "seed {seed}: skipped {:?}", page.missing);
    let mut stored = BTreeMap::new();
    for message in &page.messages {
        stored.insert(message.seq.0, message);
    }
    let seqs: Vec<u64> = stored.keys().copied().collect();
    assert_eq!(seqs, (start + 1..=log.last_seq().0).collect::<Vec<_>>(), "seed {seed}: gap-free");
    let seen = seen.lock().unwrap();
    for (seq, body) in &seen.acknowledged {
        let found = stored.get(seq).map(|message| &message.body);
        assert_eq!(found, Some(body), "seed {seed}: acknowledged seq {seq}");
    }
    for (seq, body) in &seen.read {
        assert_eq!(&stored[seq].body, body, "seed {seed}: read seq {seq}");
    }
    let mut last_random: HashMap<&str, u32> = HashMap::new();
    let (mut time, mut ord) = (0, start);
    for message in stored.values() {
        let before = last_random.insert(&message.head.sender, message.head.random);
        assert!(before < Some(message.head.random), "seed {seed}: order of {} at {}", message.head.sender, message.seq);
        assert!(message.head.time_ms >= time, "seed {seed}: time went back at {}", message.seq);
        ord += 1;
        assert_eq!(message.head.ord, ord, "seed {seed}: ord at {}", message.seq);
        time = message.head.time_ms;
    }
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
