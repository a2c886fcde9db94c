//! What the embedded backend promises beyond the port: merging, damage, locks, a full disk, kill -9.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng};
use linnet_store::embedded::Config;
use linnet_store::logs::{Class, Entry, LogId, Logs, Opening};
use linnet_store::{Applied, Embedded, Error, Guard, GuardedBatch, Kind, Life, PlainBatch, Range, Store, Table, Write};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UserId};

const G: Table = Table { name: "test_guarded", kind: Kind::Guarded };
const P: Table = Table { name: "test_plain", kind: Kind::Plain };

fn config(dir: &Path) -> Config {
    Config { reserve_bytes: 0, ..Config::new(dir) }
}

fn open(dir: &Path) -> Result<Store, Error> {
    Embedded::open(config(dir), Clock::system(), &Metrics::new())
}

async fn put(store: &Store, key: &str, value: &[u8]) -> Result<(), Error> {
    let put = Write::Put { clustering: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value) };
    let batch = PlainBatch { table: P, writes: vec![(Bytes::from_static(b"p"), put)], life: Life::Forever };
    store.put(batch).await
}

async fn keys(store: &Store) -> Vec<String> {
    let rows = store.scan(P, b"p", Range::default()).await.unwrap();
    rows.into_iter().map(|row| String::from_utf8(row.clustering.to_vec()).unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().extension().is_some_and(|ext| ext == "jnl") {
            // 64 MiB, nearly all of it never written.
            let bytes = fs::read(entry.path()).unwrap();
            let file = fs::File::create(&target).unwrap();
            (&file).write_all(&bytes[..written(&bytes)]).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn written(bytes: &[u8]) -> usize {
    let empty: usize =
        bytes.rchunks(4096).take_while(|block| **block == [0; 4096][..block.len()]).map(<[u8]>::len).sum();
    let rest = &bytes[..bytes.len() - empty];
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn journal(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    journals.filter(|path| path.extension().is_some_and(|ext| ext == "jnl")).max().unwrap()
}

/// Three writes, each a batch of the journal, and where each ends.
async fn three_writes(dir: &Path) -> [usize; 3] {
    let mut ends = [0; 3];
    for (turn, key) in ["one", "two", "three"].into_iter().enumerate() {
        let store = open(dir).unwrap();
        put(&store, key, b"value").await.unwrap();
        drop(store);
        ends[turn] = written(&fs::read(journal(dir)).unwrap());
    }
    ends
}

#[tokio::test]
async fn a_write_torn_anywhere_is_repaired_and_all_before_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    let [_, two, three] = three_writes(&original).await;
    let whole = fs::read(journal(&original)).unwrap();
    let mut torn: Vec<Vec<u8>> = (two..three).step_by(5).map(|cut| whole[..cut].to_vec()).collect();
    // The end of a batch is on the disk, its middle is not.
    let mut holed = whole.clone();
    holed[two + 20..three - 14].fill(0);
    torn.push(holed);
    for (turn, bytes) in torn.into_iter().enumerate() {
        let copied = dir.path().join(format!("copy{turn}"));
        copy(&original, &copied);
        fs::write(journal(&copied), bytes).unwrap();
        let store = open(&copied).unwrap_or_else(|e| panic!("copy {turn}: {e}"));
        assert_eq!(keys(&store).await, ["one", "two"], "copy {turn}");
        put(&store, "four", b"value").await.unwrap();
        drop(store);
        assert_eq!(keys(&open(&copied).unwrap()).await, ["four", "one", "two"], "copy {turn}");
        fs::remove_dir_all(&copied).unwrap();
    }
}

#[tokio::test]
async fn damage_before_valid_data_refuses_to_start_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    let [_, two, _] = three_writes(&original).await;
    let copied = dir.path().join("copy");
    copy(&original, &copied);
    let path = journal(&copied);
    let whole = fs::read(&path).unwrap();
    for at in (0..two).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let refused = open(&copied).err().unwrap_or_else(|| panic!("a flipped byte at {at} went unnoticed"));
        assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        assert_eq!(fs::read(&path).unwrap().len(), damaged.len(), "nothing was cut off");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(keys(&open(&copied).unwrap()).await.len(), 3);
}

/// Writes enough for table files, and returns once there are some.
async fn with_table_files(dir: &Path) -> Vec<PathBuf> {
    let config = Config { memtable_bytes: 1 << 20, ..config(dir) };
    let store = Embedded::open(config, Clock::system(), &Metrics::new()).unwrap();
    for turn in 0..40 {
        put(&store, &format!("{turn:03}"), &vec![turn; 100_000]).await.unwrap();
    }
    eventually(|| !table_files(dir).is_empty()).await;
    drop(store);
    table_files(dir)
}

fn table_files(dir: &Path) -> Vec<PathBuf> {
    let trees = fs::read_dir(dir.join("keyspaces")).unwrap().map(|entry| entry.unwrap());
    let rows = trees.filter(|tree| tree.file_name() != "0");
    rows.filter_map(|tree| fs::read_dir(tree.path().join("tables")).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[tokio::test]
async fn a_damaged_or_missing_table_file_refuses_to_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tables = with_table_files(dir.path()).await;
    let tree = tables[0].parent().unwrap().parent().unwrap();
    let manifest = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifest.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('v')).max().unwrap();
    for path in [&tables[0], &manifest] {
        let whole = fs::read(path).unwrap();
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(path, &damaged).unwrap();
            let refused = open(dir.path()).err().unwrap_or_else(|| panic!("{} at {at} went unnoticed", path.display()));
            assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        }
        fs::remove_file(path).unwrap();
        let refused = open(dir.path()).err().expect("a missing file went unnoticed");
        assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        fs::write(path, &whole).unwrap();
    }
    assert_eq!(keys(&open(dir.path()).unwrap()).await.len(), 40);
}

#[tokio::test]
async fn a_folder_with_parts_missing_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    three_writes(&original).await;
    for (turn, part) in ["version", "0.jnl", "keyspaces"].into_iter().enumerate() {
        let copied = dir.path().join(format!("copy{turn}"));
        copy(&original, &copied);
        let part = copied.join(part);
        if part.is_dir() {
            fs::remove_dir_all(&part).unwrap()
        } else {
            fs::remove_file(&part).unwrap()
        }
        let refused = open(&copied).err().unwrap_or_else(|| panic!("{} is missing", part.display()));
        assert!(refused.to_string().contains("missing"), "{refused}");
    }
}

#[tokio::test]
async fn files_beyond_the_budget_are_checked_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let tables = with_table_files(dir.path()).await;
    let largest = tables.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut damaged = fs::read(largest).unwrap();
    damaged[1000] ^= 1;
    fs::write(largest, damaged).unwrap();
    let metrics = Metrics::new();
    let config = Config { verify_bytes: 0, sweep_pause: Duration::from_millis(5), ..config(dir.path()) };
    let _store = Embedded::open(config, Clock::system(), &metrics).unwrap();
    eventually(|| metrics.value("linnet_store_damaged_files_total") == Some(1.0)).await;
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let clock = Clock::system();
    while !condition() {
        assert!(clock.mono() < Duration::from_secs(30), "not within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_folder_is_open_in_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(refused.to_string().contains("another process has it open"), "{refused}");
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "before", b"value").await.unwrap();
    drop(store);
    let full = Config { reserve_bytes: u64::MAX, ..config(dir.path()) };
    let store = Embedded::open(full, Clock::system(), &Metrics::new()).unwrap();
    let refused = put(&store, "during", b"value").await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable { why, .. } if why.contains("the disk is full")), "{refused}");
    assert_eq!(keys(&store).await, ["before"]);
    drop(store);
    let store = open(dir.path()).unwrap();
    put(&store, "after", b"value").await.unwrap();
    assert_eq!(keys(&store).await, ["after", "before"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_together_is_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let store = Embedded::open(config(dir.path()), Clock::system(), &metrics).unwrap();
    let names: Vec<String> = (0..500).map(|n| format!("{n:03}")).collect();
    let writes = names.iter().map(|name| put(&store, name, b"value"));
    futures::future::join_all(writes).await.into_iter().for_each(|result| result.unwrap());
    let commits = metrics.value("linnet_store_commits_total").unwrap();
    assert!(commits < 100.0, "{commits} commits for 500 writes");
    assert_eq!(keys(&store).await, names);
}

#[tokio::test]
async fn expired_rows_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (metrics, clock) = (Metrics::new(), Clock::system().skewed(0));
    let config = Config { sweep_pause: Duration::from_millis(5), ..config(dir.path()) };
    let store = Embedded::open(config, clock.clone(), &metrics).unwrap();
    let write = |key: &'static str, life| {
        let put = Write::Put { clustering: Bytes::from_static(key.as_bytes()), value: Bytes::new() };
        PlainBatch { table: P, writes: vec![(Bytes::from_static(b"p"), put)], life }
    };
    for key in ["a", "b", "c"] {
        store.put(write(key, Life::For(Duration::from_secs(3600)))).await.unwrap();
    }
    store.put(write("stays", Life::Forever)).await.unwrap();
    clock.jump(Duration::from_secs(3601));
    eventually(|| metrics.value("linnet_store_swept_total") == Some(3.0)).await;
    assert_eq!(keys(&store).await, ["stays"]);
}

#[tokio::test]
async fn a_log_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let id = LogId { app: SdkAppId(1), conv: ConvId(1) };
    let mut epochs = Vec::new();
    for round in 0..4u64 {
        let store = open(dir.path()).unwrap();
        let logs = Logs::new(store, Clock::system(), Rng::system(), "group");
        assert_eq!(logs.open_logs(id.slot()).await.unwrap().len(), usize::from(round > 0), "round {round}");
        let mut log = logs.open(Opening { id, class: Class::Week, route: "g".to_owned() }).await.unwrap();
        epochs.push(log.epoch());
        assert_eq!(log.last_seq().0, round * 60, "round {round}");
        for _ in 0..3 {
            log.append((0..20).map(entry).collect(), Epoch(0)).await.unwrap();
        }
        let page = log.reader().history(Seq(1), Seq(u64::MAX), 1000).await.unwrap();
        assert_eq!((page.messages.len() as u64, page.missing.len()), ((round + 1) * 60, 0), "round {round}");
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

fn entry(n: u32) -> Entry {
    Entry { msg_seq: Some(n), ..Entry::message(UserId::trusted("alice"), n, Bytes::from(n.to_string())) }
}

/// Claims a partition and extends it until it is killed; says each acknowledged rev, after it was acknowledged.
async fn write_until_killed(dir: &Path) {
    let store = open(dir).unwrap();
    let found = store.guard(G, b"p").await.unwrap();
    let mut at = found.as_ref().map_or((0, 0), |guard| (guard.epoch.0, guard.rev));
    let guard = |epoch, rev| Guard { epoch: Epoch(epoch), rev, data: Bytes::new() };
    let mut expect = found.map(|guard| (guard.epoch, guard.rev));
    at.0 += 1;
    println!("epoch {}", at.0);
    loop {
        at.1 += 1;
        let clustering = Bytes::copy_from_slice(&at.1.to_be_bytes());
        let batch = GuardedBatch {
            table: G,
            partition: Bytes::from_static(b"p"),
            expect,
            guard: guard(at.0, at.1),
            writes: vec![Write::Put { clustering, value: Bytes::from(vec![7; 2_000]) }],
            life: Life::Forever,
            guard_life: Life::Forever,
        };
        assert_eq!(store.write(batch).await.unwrap(), Applied::Yes);
        expect = Some((Epoch(at.0), at.1));
        println!("ack {}", at.1);
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged_and_epochs_go_on_rising() {
    if let Some(dir) = std::env::var_os("LINNET_KILLED_WRITER") {
        return write_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut epochs) = (BTreeSet::new(), Vec::new());
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_9_loses_nothing_acknowledged_and_epochs_go_on_rising", "--nocapture"])
            .env("LINNET_KILLED_WRITER", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut enough = 20 + round * 13;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(epoch) = line.strip_prefix("epoch ") {
                epochs.push(epoch.parse::<u64>().unwrap());
            }
            if let Some(rev) = line.strip_prefix("ack ") {
                acknowledged.insert(rev.parse::<u64>().unwrap());
                enough -= 1;
                if enough == 0 {
                    // What it still says until it dies counts too.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let store = open(dir.path()).unwrap();
        let rows = store.scan(G, b"p", Range::default()).await.unwrap();
        let found: BTreeSet<u64> =
            rows.iter().map(|row| u64::from_be_bytes(*row.clustering.first_chunk().unwrap())).collect();
        assert!(found.is_superset(&acknowledged), "round {round}: lost {:?}", acknowledged.difference(&found));
        let guard = store.guard(G, b"p").await.unwrap().unwrap();
        assert_eq!(guard.rev, *found.last().unwrap(), "round {round}: guard and rows go together");
        assert_eq!(found.len() as u64, guard.rev, "round {round}: gap-free");
    }
    assert!(epochs.len() == 6 && epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}
