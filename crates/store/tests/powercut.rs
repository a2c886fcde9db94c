//! The power goes: the store starts from what was synced, and everything acknowledged is there.
//!
//! SIGKILL proves nothing here, since the page cache survives it. A child writes with `powercut/shim.c` preloaded, which
//! keeps what a disk would hold: the content of each file at its last sync, the entries of each directory at its last.
#![expect(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng};
use linnet_store::embedded::Config;
use linnet_store::{Applied, Embedded, Guard, GuardedBatch, Kind, Life, Range, Store, Table, Write};
use linnet_types::Epoch;

const G: Table = Table { name: "test_guarded", kind: Kind::Guarded };
const SECTOR: usize = 512;

fn open(dir: &Path) -> Result<Store, linnet_store::Error> {
    let config = Config { reserve_bytes: 0, memtable_bytes: 256 << 10, ..Config::new(dir) };
    Embedded::open(config, Clock::system(), &Metrics::new())
}

/// Kills a child that starts a new store after `delay`; whatever it had come to, a start must succeed afterwards.
async fn cut_a_start_short(test: &str, base: &Path, shim: &Path, delay: Duration) -> u64 {
    let (dir, shadow) = (base.join("store"), base.join("shadow"));
    for sub in [dir.clone(), shadow.join("i"), shadow.join("d")] {
        fs::create_dir_all(sub).unwrap();
    }
    let mut child = child(test, &dir, &shadow, shim).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while lines.next().unwrap().unwrap() != "starting" {}
    // The moment of death is the fault injected here; nothing is waited for.
    tokio::time::sleep(delay).await;
    child.kill().unwrap();
    let acknowledged = lines.filter(|line| line.as_ref().is_ok_and(|line| line.starts_with("ack "))).count() as u64;
    child.wait().unwrap();
    let image = base.join("disk");
    disk(&dir, &shadow, &image, &mut |_, synced| synced);
    for dir in [dir, image] {
        let found = revs(&dir).await;
        assert!(found.len() as u64 >= acknowledged, "{delay:?}: {acknowledged} acknowledged, {} found", found.len());
    }
    acknowledged
}

#[tokio::test]
async fn a_first_start_cut_short_at_any_moment_can_be_started_again() {
    if let Some(dir) = std::env::var_os("LINNET_POWERCUT_WRITER") {
        return write_until_killed(Path::new(&dir)).await;
    }
    let base = tempfile::tempdir().unwrap();
    let shim = build_shim(base.path());
    let test = "a_first_start_cut_short_at_any_moment_can_be_started_again";
    let mut before_the_first_write = 0;
    for turn in 0..24 {
        let round = base.path().join(format!("round{turn}"));
        let acknowledged = cut_a_start_short(test, &round, &shim, Duration::from_micros(turn * 700)).await;
        before_the_first_write += u64::from(acknowledged == 0);
        fs::remove_dir_all(round).unwrap();
    }
    assert!(before_the_first_write > 3, "only {before_the_first_write} starts were cut short");
}

/// Writes rev after rev, with enough bytes for table files and compactions; says each one that was acknowledged.
async fn write_until_killed(dir: &Path) {
    println!("starting");
    let store = open(dir).unwrap();
    let mut expect = None;
    for rev in 1u64.. {
        let clustering = Bytes::copy_from_slice(&rev.to_be_bytes());
        let guard = Guard { epoch: Epoch(1), rev, data: Bytes::new() };
        let batch = GuardedBatch {
            table: G,
            partition: Bytes::from_static(b"p"),
            expect,
            guard,
            writes: vec![Write::Put { clustering, value: value(rev) }],
            life: Life::Forever,
            guard_life: Life::Forever,
        };
        assert_eq!(store.write(batch).await.unwrap(), Applied::Yes);
        expect = Some((Epoch(1), rev));
        println!("ack {rev}");
    }
}

fn value(rev: u64) -> Bytes {
    let mut bytes = vec![0; 9_000];
    Rng::seeded(rev).fill(&mut bytes);
    bytes.into()
}

fn child(test: &str, dir: &Path, shadow: &Path, shim: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env("LINNET_POWERCUT_WRITER", dir)
        .env("LD_PRELOAD", shim)
        .env("LINNET_SHADOW", shadow)
        .env("LINNET_SHADOW_ROOT", dir)
        .stdout(Stdio::piped());
    command
}

/// Runs the child until it has acknowledged `enough`; returns the last rev it acknowledged.
fn run_child(test: &str, dir: &Path, shadow: &Path, shim: &Path, enough: u64, blind: Option<&str>) -> u64 {
    for sub in ["i", "d"] {
        fs::create_dir_all(shadow.join(sub)).unwrap();
    }
    let mut command = child(test, dir, shadow, shim);
    if let Some(blind) = blind {
        command.env("LINNET_SHADOW_BLIND", blind);
    }
    let mut child = command.spawn().unwrap();
    let mut last = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(rev) = line.unwrap().strip_prefix("ack ") {
            last = rev.parse().unwrap();
            if last == enough {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(last >= enough, "the child died at {last}");
    last
}

/// The disk after the power cut, rebuilt in `to` from what was synced. `mix` is given the path of each file with what was
/// synced and says what is there.
fn disk(dir: &Path, shadow: &Path, to: &Path, mix: &mut dyn FnMut(&Path, Vec<u8>) -> Vec<u8>) {
    let mut listings: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut files: Vec<PathBuf> = fs::read_dir(shadow.join("d")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut lines = text.lines().map(str::to_owned);
        listings.insert(PathBuf::from(lines.next().unwrap()), lines.collect());
    }
    rebuild(dir, shadow, to, &listings, mix);
}

fn rebuild(
    dir: &Path,
    shadow: &Path,
    to: &Path,
    listings: &BTreeMap<PathBuf, Vec<String>>,
    mix: &mut dyn FnMut(&Path, Vec<u8>) -> Vec<u8>,
) {
    fs::create_dir_all(to).unwrap();
    for line in listings.get(dir).into_iter().flatten() {
        let mut words = line.splitn(3, ' ');
        let (kind, key, name) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        if kind == "d" {
            rebuild(&dir.join(name), shadow, &to.join(name), listings, mix);
        } else {
            let synced = fs::read(shadow.join("i").join(key)).unwrap_or_default();
            let bytes = mix(&dir.join(name), synced);
            let file = fs::File::create(to.join(name)).unwrap();
            (&file).write_all(without_zeros(&bytes)).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
    }
}

/// Without the blocks of zeros at the end: journals are allocated in full.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    let empty: usize =
        bytes.rchunks(4096).take_while(|block| **block == [0; 4096][..block.len()]).map(<[u8]>::len).sum();
    &bytes[..bytes.len() - empty]
}

/// The revs a store opened from `dir` has, with the guard's; the values are checked.
async fn revs(dir: &Path) -> BTreeSet<u64> {
    let store = open(dir).unwrap();
    let rows = store.scan(G, b"p", Range::default()).await.unwrap();
    let mut found = BTreeSet::new();
    for row in rows {
        let rev = u64::from_be_bytes(*row.clustering.first_chunk().unwrap());
        assert_eq!(row.value, value(rev), "rev {rev}");
        found.insert(rev);
    }
    let guard = store.guard(G, b"p").await.unwrap().map_or(0, |guard| guard.rev);
    assert_eq!((found.len() as u64, found.last().copied().unwrap_or(0)), (guard, guard), "gap-free up to the guard");
    found
}

fn build_shim(dir: &Path) -> PathBuf {
    let shim = dir.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powercut/shim.c");
    // The compiler Rust links with.
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success());
    shim
}

#[tokio::test]
async fn power_cut_keeps_everything_acknowledged() {
    if let Some(dir) = std::env::var_os("LINNET_POWERCUT_WRITER") {
        return write_until_killed(Path::new(&dir)).await;
    }
    let base = tempfile::tempdir().unwrap();
    let shim = build_shim(base.path());
    for (round, enough) in [3, 60, 170].into_iter().enumerate() {
        let at = |name: &str| base.path().join(format!("{name}{round}"));
        fs::create_dir_all(at("store")).unwrap();
        let test = "power_cut_keeps_everything_acknowledged";
        let last = run_child(test, &at("store"), &at("shadow"), &shim, enough, None);
        disk(&at("store"), &at("shadow"), &at("disk"), &mut |_, synced| synced);
        let found = revs(&at("disk")).await;
        assert!(found.len() as u64 >= last, "round {round}: {last} acknowledged, {} found", found.len());
        // What no sync covered may be there all the same, in part: sector by sector.
        for seed in 0..4 {
            let rng = Rng::seeded(seed);
            let mixed = base.path().join(format!("mixed{round}-{seed}"));
            disk(&at("store"), &at("shadow"), &mixed, &mut |path, synced| tear(&rng, path, synced));
            let found = revs(&mixed).await;
            assert!(found.len() as u64 >= last, "round {round}, seed {seed}: {last} acknowledged, {}", found.len());
        }
    }
}

/// A journal with some of the sectors that were written and not synced.
fn tear(rng: &Rng, path: &Path, synced: Vec<u8>) -> Vec<u8> {
    if path.extension().is_none_or(|ext| ext != "jnl") {
        return synced;
    }
    let Ok(written) = fs::read(path) else { return synced };
    let mut torn = synced;
    torn.resize(written.len().max(torn.len()), 0);
    for (old, new) in torn.chunks_mut(SECTOR).zip(without_zeros(&written).chunks(SECTOR)) {
        if old[..new.len()] != *new && rng.chance(50) {
            old[..new.len()].copy_from_slice(new);
        }
    }
    torn
}

#[tokio::test]
async fn a_missing_sync_would_be_noticed() {
    if let Some(dir) = std::env::var_os("LINNET_POWERCUT_WRITER") {
        return write_until_killed(Path::new(&dir)).await;
    }
    let base = tempfile::tempdir().unwrap();
    let shim = build_shim(base.path());
    let (store, shadow, image) = (base.path().join("store"), base.path().join("shadow"), base.path().join("disk"));
    fs::create_dir_all(&store).unwrap();
    let last = run_child("a_missing_sync_would_be_noticed", &store, &shadow, &shim, 10, Some(".jnl"));
    disk(&store, &shadow, &image, &mut |_, synced| synced);
    assert!((revs(&image).await.len() as u64) < last, "without the journal's syncs, acknowledged writes must be gone");
}
