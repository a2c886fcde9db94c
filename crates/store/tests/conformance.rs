//! What every backend of the store must do: one suite, run on each.
//!
//! A backend is added by a function that makes an empty store, and one `backend!` line. The CQL backend runs on a real
//! server: one of its own, or the one at `LINNET_TEST_CQL` (`host:port`).
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/cql.rs"]
mod cql_store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng};
use linnet_store::embedded::Config;
use linnet_store::sim::{Faults, SimRows};
use linnet_store::{Applied, Embedded, Guard, GuardedBatch, Kind, Life, PlainBatch, Range, Row, Store, Table, Write};
use linnet_types::Epoch;

const G: Table = Table { name: "suite_guarded", kind: Kind::Guarded };
const P: Table = Table { name: "suite_plain", kind: Kind::Plain };

/// An empty store and the time its rows expire by.
struct Fixture {
    store: Store,
    time: Time,
    /// Dropped last.
    _keep: Option<tempfile::TempDir>,
}

/// How time passes in a suite that counts in seconds of its own.
enum Time {
    /// The store's clock is set forward.
    Jumps(Clock),
    /// The server's clock is its own: seconds are short, and waited for.
    Waits,
}

impl Fixture {
    fn life(&self, seconds: u32) -> Life {
        Life::For(self.span(seconds))
    }

    fn span(&self, seconds: u32) -> Duration {
        let second = match self.time {
            Time::Jumps(_) => Duration::from_secs(1),
            Time::Waits => Duration::from_millis(100),
        };
        second * seconds
    }

    async fn pass(&self, seconds: u32) {
        match &self.time {
            Time::Jumps(clock) => clock.jump(self.span(seconds)),
            Time::Waits => tokio::time::sleep(self.span(seconds)).await,
        }
    }
}

async fn embedded() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system().skewed(0);
    let store = Embedded::open(Config::new(dir.path()), clock.clone(), &Metrics::new()).unwrap();
    Fixture { store, time: Time::Jumps(clock), _keep: Some(dir) }
}

async fn sim() -> Fixture {
    let clock = Clock::system().skewed(0);
    let faults = Faults { lag_per_mille: 500, ..Faults::none() };
    let sim = SimRows::new(Rng::seeded(7), clock.clone(), faults);
    Fixture { store: sim.store(), time: Time::Jumps(clock), _keep: None }
}

async fn cql() -> Fixture {
    Fixture { store: cql_store::store().await, time: Time::Waits, _keep: None }
}

macro_rules! fact {
    ($backend:ident, $fact:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $fact() {
            crate::$fact(std::sync::Arc::new(crate::$backend().await)).await;
        }
    };
}

/// The whole suite, as tests of one backend.
macro_rules! backend {
    ($backend:ident) => {
        mod $backend {
            fact!($backend, a_partition_is_created_once);
            fact!($backend, a_batch_applies_only_on_the_expected_guard);
            fact!($backend, a_refused_batch_leaves_nothing);
            fact!($backend, deletes_and_puts_of_a_batch_apply_together);
            fact!($backend, scans_honour_bounds_direction_and_limit);
            fact!($backend, rows_and_guards_end_with_their_life);
            fact!($backend, a_batch_gives_the_guard_a_new_life);
            fact!($backend, plain_rows_take_the_last_write);
            fact!($backend, partitions_do_not_see_each_other);
            fact!($backend, partitions_are_listed_once_each_after_a_key);
            fact!($backend, of_writers_on_one_rev_exactly_one_wins);
            fact!($backend, keys_and_values_are_any_bytes);
        }
    };
}

backend!(embedded);
backend!(sim);
backend!(cql);

fn guard(epoch: u64, rev: u64) -> Guard {
    Guard { epoch: Epoch(epoch), rev, data: Bytes::from(format!("{epoch}/{rev}")) }
}

fn put(clustering: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Write {
    Write::Put {
        clustering: Bytes::copy_from_slice(clustering.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

fn delete(clustering: &str) -> Write {
    Write::Delete { clustering: Bytes::copy_from_slice(clustering.as_bytes()) }
}

fn batch(partition: &str, expect: Option<(u64, u64)>, guard: Guard, writes: Vec<Write>) -> GuardedBatch {
    GuardedBatch {
        table: G,
        partition: Bytes::copy_from_slice(partition.as_bytes()),
        expect: expect.map(|(epoch, rev)| (Epoch(epoch), rev)),
        guard,
        writes,
        life: Life::Forever,
        guard_life: Life::Forever,
    }
}

fn plain(writes: Vec<(&str, Write)>, life: Life) -> PlainBatch {
    let writes = writes.into_iter().map(|(p, w)| (Bytes::copy_from_slice(p.as_bytes()), w)).collect();
    PlainBatch { table: P, writes, life }
}

async fn rows(store: &Store, table: Table, partition: &str) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let rows = store.scan(table, partition.as_bytes(), Range::default()).await.unwrap();
    rows.iter().map(|Row { clustering, value }| (text(clustering), text(value))).collect()
}

async fn a_partition_is_created_once(f: Arc<Fixture>) {
    assert_eq!(f.store.guard(G, b"p").await.unwrap(), None);
    assert_eq!(f.store.write(batch("p", None, guard(1, 1), vec![put("a", "1")])).await.unwrap(), Applied::Yes);
    let again = f.store.write(batch("p", None, guard(2, 2), vec![put("a", "2")])).await.unwrap();
    assert_eq!(again, Applied::No(Some(guard(1, 1))));
    assert_eq!(f.store.guard(G, b"p").await.unwrap(), Some(guard(1, 1)));
    assert_eq!(f.store.get(G, b"p", b"a").await.unwrap().unwrap(), "1");
}

async fn a_batch_applies_only_on_the_expected_guard(f: Arc<Fixture>) {
    assert_eq!(f.store.write(batch("p", Some((1, 1)), guard(1, 2), vec![])).await.unwrap(), Applied::No(None));
    f.store.write(batch("p", None, guard(1, 5), vec![])).await.unwrap();
    for wrong in [None, Some((1, 4)), Some((1, 6)), Some((2, 5)), Some((0, 5))] {
        let refused = f.store.write(batch("p", wrong, guard(9, 9), vec![])).await.unwrap();
        assert_eq!(refused, Applied::No(Some(guard(1, 5))), "{wrong:?}");
    }
    assert!(f.store.write(batch("p", Some((1, 5)), guard(2, 5), vec![])).await.unwrap().is_yes());
    assert_eq!(f.store.guard(G, b"p").await.unwrap(), Some(guard(2, 5)));
}

async fn a_refused_batch_leaves_nothing(f: Arc<Fixture>) {
    f.store.write(batch("p", None, guard(1, 1), vec![put("a", "1")])).await.unwrap();
    f.store.write(batch("p", Some((7, 7)), guard(8, 8), vec![put("b", "2"), delete("a")])).await.unwrap();
    assert_eq!(rows(&f.store, G, "p").await, [("a".into(), "1".into())]);
}

async fn deletes_and_puts_of_a_batch_apply_together(f: Arc<Fixture>) {
    f.store.write(batch("p", None, guard(1, 1), vec![put("a", "1"), put("b", "1")])).await.unwrap();
    let writes = vec![put("b", "2"), delete("a"), put("c", "2"), delete("never there")];
    f.store.write(batch("p", Some((1, 1)), guard(1, 2), writes)).await.unwrap();
    assert_eq!(rows(&f.store, G, "p").await, [("b".into(), "2".into()), ("c".into(), "2".into())]);
    assert_eq!(f.store.get(G, b"p", b"a").await.unwrap(), None);
}

async fn scans_honour_bounds_direction_and_limit(f: Arc<Fixture>) {
    let writes = ["a", "b", "c", "d", "e"].map(|key| put(key, key)).to_vec();
    f.store.write(batch("p", None, guard(1, 1), writes)).await.unwrap();
    let cases = [
        (None, None, false, 0, "abcde"),
        (None, None, true, 0, "edcba"),
        (Some("b"), None, false, 2, "bc"),
        (Some("b"), Some("d"), false, 0, "bc"),
        (Some("b"), Some("d"), true, 1, "c"),
        (None, Some("c"), true, 0, "ba"),
        (Some("bb"), Some("dd"), false, 0, "cd"),
        (Some("d"), Some("b"), false, 0, ""),
        (Some("x"), None, false, 0, ""),
    ];
    for (from, to, descending, limit, expected) in cases {
        let bound = |key: Option<&str>| key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let range = Range { from: bound(from), to: bound(to), descending, limit };
        let found = f.store.scan(G, b"p", range).await.unwrap();
        let keys: String = found.iter().map(|row| String::from_utf8_lossy(&row.clustering).into_owned()).collect();
        assert_eq!(keys, expected, "{from:?}..{to:?} descending {descending} limit {limit}");
    }
}

async fn rows_and_guards_end_with_their_life(f: Arc<Fixture>) {
    let (short, long) = (f.life(60), f.life(150));
    let writes = vec![put("a", "1")];
    let first = GuardedBatch { life: short, guard_life: long, ..batch("p", None, guard(1, 1), writes) };
    f.store.write(first).await.unwrap();
    f.store.put(plain(vec![("q", put("a", "1"))], short)).await.unwrap();
    f.store.put(plain(vec![("q", put("b", "1"))], Life::Forever)).await.unwrap();
    f.pass(75).await;
    assert_eq!(f.store.get(G, b"p", b"a").await.unwrap(), None);
    assert!(rows(&f.store, G, "p").await.is_empty());
    assert_eq!(rows(&f.store, P, "q").await, [("b".into(), "1".into())]);
    assert_eq!(f.store.guard(G, b"p").await.unwrap(), Some(guard(1, 1)));
    f.pass(90).await;
    assert_eq!(f.store.guard(G, b"p").await.unwrap(), None);
    assert!(f.store.partitions(G, None, 10).await.unwrap().is_empty());
    assert_eq!(f.store.write(batch("p", Some((1, 1)), guard(1, 2), vec![])).await.unwrap(), Applied::No(None));
    assert!(f.store.write(batch("p", None, guard(9, 9), vec![])).await.unwrap().is_yes());
}

async fn a_batch_gives_the_guard_a_new_life(f: Arc<Fixture>) {
    let minute = f.life(60);
    let brief = |expect, guard| GuardedBatch { guard_life: minute, ..batch("p", expect, guard, vec![]) };
    f.store.write(brief(None, guard(1, 1))).await.unwrap();
    for rev in 1..5 {
        f.pass(40).await;
        let applied = f.store.write(brief(Some((1, rev)), guard(1, rev + 1))).await.unwrap();
        assert!(applied.is_yes(), "rev {rev}");
    }
}

async fn plain_rows_take_the_last_write(f: Arc<Fixture>) {
    f.store.put(plain(vec![("p", put("a", "1")), ("q", put("a", "1"))], Life::Forever)).await.unwrap();
    f.store.put(plain(vec![("p", put("a", "2")), ("q", delete("a"))], Life::Forever)).await.unwrap();
    f.store.put(plain(vec![("q", delete("a"))], Life::Forever)).await.unwrap();
    assert_eq!(f.store.get(P, b"p", b"a").await.unwrap().unwrap(), "2");
    assert_eq!(f.store.get(P, b"q", b"a").await.unwrap(), None);
    f.store.put(plain(vec![("q", put("a", "3"))], Life::Forever)).await.unwrap();
    assert_eq!(f.store.get(P, b"q", b"a").await.unwrap().unwrap(), "3");
}

async fn partitions_do_not_see_each_other(f: Arc<Fixture>) {
    for partition in ["p", "pp", "p\0", "p\0\u{1}", ""] {
        f.store.put(plain(vec![(partition, put("k", partition))], Life::Forever)).await.unwrap();
        f.store.write(batch(partition, None, guard(1, 1), vec![put("k", partition)])).await.unwrap();
    }
    for partition in ["p", "pp", "p\0", "p\0\u{1}", ""] {
        assert_eq!(rows(&f.store, P, partition).await, [("k".into(), partition.into())], "{partition:?}");
        assert_eq!(rows(&f.store, G, partition).await, [("k".into(), partition.into())], "{partition:?}");
    }
}

async fn partitions_are_listed_once_each_after_a_key(f: Arc<Fixture>) {
    for partition in ["c", "a", "b"] {
        f.store.write(batch(partition, None, guard(1, 1), vec![put("x", "1"), put("y", "1")])).await.unwrap();
    }
    f.store.put(plain(vec![("other table", put("k", "v"))], Life::Forever)).await.unwrap();
    let listed = f.store.partitions(G, None, 10).await.unwrap();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c"]);
    assert!(!f.store.in_key_order() || listed == sorted);
    assert_eq!(f.store.partitions(G, Some(&listed[0]), 1).await.unwrap(), [listed[1].clone()]);
    assert_eq!(f.store.partitions(G, Some(&listed[0]), 10).await.unwrap(), listed[1..]);
    assert!(f.store.partitions(G, Some(&listed[2]), 10).await.unwrap().is_empty());
}

async fn of_writers_on_one_rev_exactly_one_wins(f: Arc<Fixture>) {
    f.store.write(batch("p", None, guard(1, 0), vec![])).await.unwrap();
    for rev in 0..20 {
        let attempts = (0..8).map(|writer| {
            let value = format!("{rev} by {writer}");
            f.store.write(batch("p", Some((1, rev)), guard(1, rev + 1), vec![put("k", &value), put(&value, &value)]))
        });
        let results = futures::future::join_all(attempts).await;
        let winners = results.into_iter().filter(|result| result.as_ref().unwrap().is_yes()).count();
        assert_eq!(winners, 1, "rev {rev}");
    }
    assert_eq!(rows(&f.store, G, "p").await.len(), 21);
}

async fn keys_and_values_are_any_bytes(f: Arc<Fixture>) {
    let keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 1], vec![0, 255], vec![255], vec![255, 255], vec![1; 300]];
    let writes = keys.iter().map(|key| put(key, key)).collect();
    f.store.write(batch("p", None, guard(1, 1), writes)).await.unwrap();
    for key in &keys {
        assert_eq!(f.store.get(G, b"p", key).await.unwrap().unwrap(), key[..], "{key:?}");
    }
    let found = f.store.scan(G, b"p", Range::default()).await.unwrap();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(found.iter().map(|row| row.clustering.to_vec()).collect::<Vec<_>>(), sorted);
}
