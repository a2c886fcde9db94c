//! Three CQL servers, copies on each: one is paused, one is killed, under an owner who appends and another who takes over.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_local::servers::{Cql as Servers, Server};
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::{Config, Cql, migrate};
use linnet_store::logs::{Class, Entry, Error, Log, LogId, Logs, Opening, Settled};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UserId};
use relay::Relay;

/// Conversations with traffic.
const LOGS: u64 = 3;
/// Between two appends of one conversation: with all of them far below what cold servers on two cores can do.
const PAUSE: Duration = Duration::from_millis(300);
const PAUSED: Duration = Duration::from_secs(20);
/// The longest a sender may wait while a server is paused.
const STALL: Duration = Duration::from_secs(10);

/// One conversation's sender: what was acknowledged, and the longest wait for it.
struct Sender {
    id: LogId,
    store: Arc<Cql>,
    clock: Clock,
    acknowledged: BTreeMap<u64, Bytes>,
    longest: Duration,
    unknown: u32,
    sent: u64,
    claims: u64,
}

impl Sender {
    fn new(conv: u64, store: Arc<Cql>, clock: Clock) -> Self {
        let id = LogId { app: SdkAppId(1), conv: ConvId(conv) };
        let (acknowledged, longest) = (BTreeMap::new(), Duration::ZERO);
        Self { id, store, clock, acknowledged, longest, unknown: 0, sent: 0, claims: 0 }
    }

    async fn open(&mut self) -> Log {
        self.claims += 1;
        let rng = Rng::seeded(self.id.conv.0 << 32 | self.claims);
        let logs = Logs::new(self.store.clone(), self.clock.clone(), rng, "group");
        loop {
            let opening = Opening { id: self.id, class: Class::Week, route: String::new() };
            match logs.open(opening).await {
                Ok(log) => return log,
                Err(error) => println!("conversation {} is not open yet: {error}", self.id.conv),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends for as long as `span`; a new owner takes over from time to time.
    async fn run(&mut self, span: Duration) {
        let since = self.clock.mono();
        let mut log = self.open().await;
        while self.clock.mono() - since < span {
            self.send(&mut log).await;
            if self.sent.is_multiple_of(25) {
                log = self.open().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&mut self, log: &mut Log) {
        self.sent += 1;
        let body = Bytes::from(format!("{} {}", self.id.conv, self.sent));
        let since = self.clock.mono();
        let seq = loop {
            match log.append(vec![entry(body.clone())], Epoch(0)).await {
                Ok(appended) => break appended[0].seq,
                Err(Error::Unsettled) => {
                    self.unknown += 1;
                    if let Some(Settled::Stored(appended)) = settle(log).await {
                        break appended[0].seq;
                    }
                }
                Err(Error::StaleOwner { .. }) => *log = self.open().await,
                Err(Error::Store(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(other) => panic!("{other}"),
            }
        };
        self.longest = self.longest.max(self.clock.mono() - since);
        assert_eq!(self.acknowledged.insert(seq.0, body), None, "seq {seq} was given twice");
    }

    /// Every acknowledged message is there, once, in its place, and nothing is skipped.
    async fn judge(&mut self) {
        let log = self.open().await;
        let page = log.reader().history(Seq(1), Seq(u64::MAX), 100_000).await.unwrap();
        assert!(page.missing.is_empty(), "skipped {:?}", page.missing);
        let stored: BTreeMap<u64, Bytes> = page.messages.into_iter().map(|m| (m.seq.0, m.body)).collect();
        assert_eq!(stored.keys().copied().collect::<Vec<_>>(), (1..=log.last_seq().0).collect::<Vec<_>>());
        for (seq, body) in &self.acknowledged {
            assert_eq!(stored.get(seq), Some(body), "acknowledged seq {seq}");
        }
        assert_eq!(stored.len(), self.acknowledged.len(), "what nobody was told of was settled as not stored");
    }
}

async fn settle(log: &mut Log) -> Option<Settled> {
    loop {
        match log.settle().await {
            Ok(settled) => return Some(settled),
            Err(Error::StaleOwner { .. }) => return None,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn entry(body: Bytes) -> Entry {
    Entry::message(UserId::trusted("ann"), 1, body)
}

async fn all(senders: &mut [Sender], span: Duration) {
    futures::future::join_all(senders.iter_mut().map(|sender| sender.run(span))).await;
}

/// What happens to the servers, and how long the senders felt it.
async fn during(name: &str, senders: &mut [Sender], fault: impl Future<Output = ()>, span: Duration) -> Duration {
    senders.iter_mut().for_each(|sender| (sender.longest, sender.unknown) = (Duration::ZERO, 0));
    futures::join!(fault, all(senders, span));
    let longest = senders.iter().map(|sender| sender.longest).max().unwrap();
    let unknown: u32 = senders.iter().map(|sender| sender.unknown).sum();
    println!("{name} (Cassandra 5, 3 nodes, RF 3): longest wait {longest:?}, {unknown} unknown outcomes");
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_of_three_may_be_paused_or_killed() {
    let servers: Arc<Server> =
        Arc::new(Servers { nodes: 3, durable: true, ..Servers::default() }.start().await.unwrap());
    let config = Config { nodes: servers.addresses().to_vec(), keyspace: "three".to_owned(), ..Config::default() };
    migrate::run(&config, |_| ()).await.unwrap();
    // By way of somewhere else, as where servers are reached through forwarded ports.
    let mut relays = Vec::new();
    for server in servers.addresses() {
        relays.push((server, Relay::to(server).await));
    }
    let via = relays.iter().map(|(server, relay)| format!("{server}={}", relay.address)).collect();
    let config = Config { via, ..config };
    let (metrics, clock) = (Metrics::new(), Clock::system());
    let store = Cql::connect(config.clone(), clock.clone(), &Tasks::new(&metrics), &metrics).await.unwrap();
    let mut senders: Vec<Sender> = (1..=LOGS).map(|conv| Sender::new(conv, store.clone(), clock.clone())).collect();
    // Cold servers are slow ones.
    all(&mut senders, Duration::from_secs(10)).await;

    let pause = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        servers.pause(1).unwrap();
        tokio::time::sleep(PAUSED).await;
        servers.resume(1).unwrap();
    };
    let paused = during("a server paused for 20 s", &mut senders, pause, PAUSED + Duration::from_secs(10)).await;
    let kill = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let killed = servers.clone();
        tokio::task::spawn_blocking(move || killed.kill(2)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        servers.start_node(2).await.unwrap();
    };
    let killed = during("a server killed and started again", &mut senders, kill, Duration::from_secs(20)).await;
    // Whoever comes with one server away finds its way, too.
    let again = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        servers.pause(0).unwrap();
        let metrics = Metrics::new();
        let store = Cql::connect(config, clock.clone(), &Tasks::new(&metrics), &metrics).await.unwrap();
        store.ready().await.unwrap();
        servers.resume(0).unwrap();
    };
    during("a node started while a server is paused", &mut senders, again, Duration::from_secs(10)).await;
    for sender in &mut senders {
        sender.judge().await;
    }
    println!(
        "{}",
        metrics.encode().lines().filter(|line| line.contains("cql_errors_total{")).collect::<Vec<_>>().join("\n")
    );
    assert!(paused < STALL, "paused: {paused:?}");
    assert!(killed < STALL, "killed: {killed:?}");
}
