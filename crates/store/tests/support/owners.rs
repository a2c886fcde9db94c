//! Owners that each believe a log is theirs, and a judge of what the outside world was told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::Rng;
use linnet_store::logs::{Appended, Class, Entry, Error, Log, LogId, Logs, Opening, Settled, fit};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UserId};

/// Batches an owner sends in most tests.
pub(crate) const BATCHES: u32 = 10;
/// The log they fight over.
pub(crate) const ID: LogId = LogId { app: SdkAppId(1), conv: ConvId(1) };

/// What the outside world was told or has read.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) acknowledged: BTreeMap<u64, Bytes>,
    pub(crate) read: HashMap<u64, Bytes>,
    pub(crate) epochs: HashSet<u64>,
    pub(crate) tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    pub(crate) deposed: u64,
    pub(crate) settled_stored: u64,
    pub(crate) settled_not_stored: u64,
    pub(crate) claims: u64,
    #[allow(dead_code, reason = "only the simulation counts it")]
    pub(crate) crossed_a_bucket: u64,
}

impl Tally {
    #[allow(dead_code, reason = "only the simulation adds up")]
    pub(crate) fn add(&mut self, other: &Self) {
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

pub(crate) struct Owner {
    pub(crate) seed: u64,
    pub(crate) name: u64,
    pub(crate) logs: Logs,
    pub(crate) rng: Rng,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) sent: u64,
    /// To send.
    pub(crate) batches: u32,
}

impl Owner {
    pub(crate) async fn run(mut self) {
        let mut log = self.claim().await;
        for _ in 0..self.batches {
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
        Entry::message(
            UserId::trusted(format!("owner{}", self.name)),
            u32::try_from(self.sent).unwrap(),
            Bytes::from(format!("{} {}", self.name, self.sent)),
        )
    }
}

/// Everything acknowledged or read is there, in order, with nothing skipped.
pub(crate) async fn judge(seed: u64, start: u64, logs: &Logs, seen: &Mutex<Seen>) {
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
