//! The backend for one machine: `fjall` below one committer.
//!
//! Hides the engine, its files and its habits. What it promises beyond the port:
//!
//! - A write is answered after its fsync; everything that waited with it shared that fsync.
//! - Opening repairs a write the power cut off, and refuses, naming the file, when something before valid data is damaged.
//! - One process per folder; expired rows are hidden at once; a full disk refuses writes and breaks nothing.
//!
//! ```text
//! write, put --Request--> committer thread: conditions, merge --one batch, one fsync--> fjall journal      full -> the caller waits
//!                                  |  durable here: every waiting caller is answered                   disk full -> Unavailable
//! get, scan, guard ----------------+--> fjall (memtable, block cache, table files), concurrent with the committer
//! ```

mod committer;
mod envelope;
mod journal;
mod metrics;
mod space;
mod start;
mod sweep;
mod verify;

use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use linnet_runtime::Clock;
use linnet_runtime::metrics::Metrics;
use tokio::sync::{mpsc, oneshot};

use crate::keys::after_prefix;
use crate::rows::{Applied, Error, Guard, GuardedBatch, PlainBatch, Range, Result, Row, Rows, Store, Table};
use committer::{Committer, QUEUE, Request, read_error, read_guard};
use metrics::StoreMetrics;
pub use space::DISK_FULL;

/// A scan of more rows than this leaves the runtime's threads alone.
const INLINE_ROWS: usize = 256;

/// How the embedded backend is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder; made if absent. One process at a time.
    pub dir: PathBuf,
    /// Memory for blocks read from table files.
    pub cache_bytes: u64,
    /// Recent writes held in memory until they become a table file; a start replays up to about this much.
    pub memtable_bytes: u64,
    /// Free space below which writes are refused; the engine needs some to tidy up.
    pub reserve_bytes: u64,
    /// Table files up to this many bytes are checked before opening, the rest in the background; about 1 s a GiB.
    pub verify_bytes: u64,
    /// Pause between two steps (2,000 rows) of the sweep for expired rows.
    pub sweep_pause: Duration,
}

impl Config {
    /// The defaults for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            reserve_bytes: 128 << 20,
            verify_bytes: 1 << 30,
            sweep_pause: Duration::from_secs(1),
        }
    }
}

/// The embedded store.
pub struct Embedded {
    rows: Option<Keyspace>,
    clock: Clock,
    requests: Option<mpsc::Sender<Request>>,
    stop_sweep: Option<std::sync::mpsc::SyncSender<()>>,
    threads: Vec<JoinHandle<()>>,
    // Released last: fields drop in order.
    _lock: File,
}

impl Embedded {
    /// Opens or makes the store in `config.dir`. Blocks (files are checked); call it before serving.
    ///
    /// # Errors
    /// [`Error::Open`]: another process has the folder, a file is damaged (it is named), or the disk does not answer.
    pub fn open(config: Config, clock: Clock, metrics: &Metrics) -> Result<Store> {
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(|e| open_error(dir, e))?;
        let lock = lock(dir)?;
        let found = start::prepare(dir, config.verify_bytes)?;
        let db = Database::builder(dir).cache_size(config.cache_bytes).open().map_err(|e| open_error(dir, e))?;
        if found.has_data && !db.keyspace_exists("rows") {
            return Err(open_error(
                &dir.join("keyspaces"),
                "the rows are missing, and the journal says there were some",
            ));
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(config.memtable_bytes);
        let rows = db.keyspace("rows", options).map_err(|e| open_error(dir, e))?;
        sync_folders(dir)?;
        let metrics = StoreMetrics::new(metrics);
        let (requests, queue) = mpsc::channel(QUEUE);
        let (stop_sweep, stopped) = std::sync::mpsc::sync_channel(1);
        let space = space::Space::new(dir, config.reserve_bytes);
        let committer = Committer { db, rows: rows.clone(), clock: clock.clone(), metrics: metrics.clone(), space };
        let sweeper = sweep::Sweeper {
            rows: rows.clone(),
            clock: clock.clone(),
            metrics,
            unchecked: found.unchecked,
            pause: config.sweep_pause,
        };
        let sweep_requests = requests.clone();
        let threads = vec![
            thread(dir, "store-sweep", move || sweeper.run(&sweep_requests, &stopped))?,
            thread(dir, "store-commit", move || committer.run(queue))?,
        ];
        let (requests, stop_sweep) = (Some(requests), Some(stop_sweep));
        Ok(Arc::new(Self { rows: Some(rows), clock, requests, stop_sweep, threads, _lock: lock }))
    }

    fn rows(&self) -> &Keyspace {
        self.rows.as_ref().expect("only drop takes it")
    }

    async fn ask<T>(&self, table: Table, request: Request, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let requests = self.requests.as_ref().expect("only drop takes it");
        let ended = |why: &str| Error::Unavailable { table: table.name, why: why.to_owned() };
        requests.send(request).await.map_err(|_| ended("the committer has ended"))?;
        // It took the request and died: nobody can say how far it came.
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Unknown { table: table.name, why: "the committer ended".to_owned() }))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop_sweep = None;
        self.requests = None;
        self.rows = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Rows for Embedded {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        read_guard(self.rows(), table, &envelope::guard_key(table, partition), self.clock.now())
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        let key = envelope::row_key(table, partition, clustering);
        let Some(sealed) = self.rows().get(&key).map_err(|e| read_error(table, &e))? else { return Ok(None) };
        envelope::unseal(table.name, &key, &sealed.into(), self.clock.now())
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        let (rows, clock) = (self.rows().clone(), self.clock.clone());
        if (1..=INLINE_ROWS).contains(&range.limit) {
            return scan(&rows, &clock, table, partition, &range);
        }
        let partition = partition.to_vec();
        blocking(table, move || scan(&rows, &clock, table, &partition, &range)).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        let (reply, answer) = oneshot::channel();
        self.ask(batch.table, Request::Guarded(batch, reply), answer).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(batch.table, Request::Plain(batch, reply), answer).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let (rows, clock) = (self.rows().clone(), self.clock.clone());
        let after = after.map(<[u8]>::to_vec);
        blocking(table, move || partitions(&rows, &clock, table, after.as_deref(), limit)).await
    }
}

async fn blocking<T: Send + 'static>(table: Table, read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = |e: tokio::task::JoinError| Error::Unavailable { table: table.name, why: e.to_string() };
    tokio::task::spawn_blocking(read).await.map_err(ended)?
}

fn scan(rows: &Keyspace, clock: &Clock, table: Table, partition: &[u8], range: &Range) -> Result<Vec<Row>> {
    let (from, to) = envelope::bounds(table, partition, range);
    if from >= to {
        return Ok(Vec::new());
    }
    let now = clock.now();
    let clustering_at = envelope::clustering_at(table, partition);
    let limit = if range.limit == 0 { usize::MAX } else { range.limit };
    let mut items = rows.range(from..to);
    let mut found = Vec::new();
    while found.len() < limit {
        let next = if range.descending { items.next_back() } else { items.next() };
        let Some(item) = next else { break };
        let (key, sealed) = item.into_inner().map_err(|e| read_error(table, &e))?;
        let key = Bytes::from(key);
        if let Some(value) = envelope::unseal(table.name, &key, &sealed.into(), now)? {
            found.push(Row { clustering: key.slice(clustering_at..), value });
        }
    }
    Ok(found)
}

/// Leaps from partition to partition; one of which every row has expired is passed over.
fn partitions(rows: &Keyspace, clock: &Clock, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
    let end = after_prefix(&envelope::table_prefix(table)).expect("the prefix ends in a byte below ff");
    let beyond = |partition: &[u8]| {
        after_prefix(&envelope::partition_prefix(table, partition)).expect("the prefix ends in a byte below ff")
    };
    let mut from = after.map_or_else(|| envelope::table_prefix(table), beyond);
    let mut found = Vec::new();
    let now = clock.now();
    while found.len() < limit {
        let Some(item) = rows.range(from.clone()..end.clone()).next() else { break };
        let partition = envelope::partition_of(table, &item.key().map_err(|e| read_error(table, &e))?)?;
        let next = beyond(&partition);
        for item in rows.range(from..next.clone()) {
            let (_, sealed) = item.into_inner().map_err(|e| read_error(table, &e))?;
            if !envelope::may_drop(&sealed, now) {
                found.push(partition);
                break;
            }
        }
        from = next;
    }
    Ok(found)
}

/// Makes the folders themselves durable. The engine (3.1) syncs what is in its trees and never the entries of the trees:
/// after a power cut the journal was there and all it belonged to was not.
fn sync_folders(dir: &Path) -> Result<()> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    for folder in [Some(dir.join("keyspaces").as_path()), Some(dir), above].into_iter().flatten() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| open_error(folder, e))?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("linnet.lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| open_error(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(open_error(dir, "another process has it open")),
        Err(TryLockError::Error(e)) => Err(open_error(&path, e)),
    }
}

fn thread(dir: &Path, name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| open_error(dir, e))
}

fn open_error(path: &Path, why: impl Display) -> Error {
    Error::Open { path: path.display().to_string(), why: why.to_string() }
}
