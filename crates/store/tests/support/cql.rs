//! A CQL store for tests: a keyspace for the test process, a prefix of keys for each test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::migrate::{Migration, Plan, TableLife, Work};
use linnet_store::cql::{Config, Cql};
use linnet_store::{Applied, Guard, GuardedBatch, Kind, PlainBatch, Range, Result, Row, Rows, Store, Table};
use scylla::client::session_builder::SessionBuilder;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Keyspaces of earlier runs on a server that stays are dropped at this age.
const OLD_S: u64 = 1800;

/// Connections live on a runtime of their own: every test has another.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// The settings of this process's keyspace, which is made now.
#[allow(dead_code, reason = "not every test binary asks")]
pub(crate) async fn config() -> Config {
    static CONFIG: OnceCell<Config> = OnceCell::const_new();
    CONFIG.get_or_init(|| async { RUNTIME.spawn(prepare()).await.unwrap() }).await.clone()
}

/// An empty store of one test.
pub(crate) async fn store() -> Store {
    static CQL: OnceCell<Arc<Cql>> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let config = config().await;
    let cql = CQL.get_or_init(|| async { RUNTIME.spawn(connect(config)).await.unwrap() }).await;
    let prefix = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Arc::new(Prefixed { inner: cql.clone(), prefix: Bytes::copy_from_slice(&prefix) })
}

/// A connection of its own.
pub(crate) async fn connect(config: Config) -> Arc<Cql> {
    let metrics = Metrics::new();
    Cql::connect(config, Clock::system(), &Tasks::new(&metrics), &metrics).await.unwrap()
}

/// A new keyspace's settings, on the server of this process.
pub(crate) async fn fresh() -> Config {
    let server = linnet_local::servers::cql().await.unwrap();
    let now = Clock::system().now().0 / 1000;
    Config {
        nodes: vec![server.address().to_owned()],
        keyspace: format!("t_{now}_{}", Rng::system().below(1 << 32)),
        replication: 1,
        // One slow disk serves every test of the machine.
        write_timeout: linnet_runtime::config::Period::secs(10),
        read_timeout: linnet_runtime::config::Period::secs(10),
        scan_timeout: linnet_runtime::config::Period::secs(20),
        busy_after: linnet_runtime::config::Period::secs(5),
        ..Config::default()
    }
}

async fn prepare() -> Config {
    let config = fresh().await;
    sweep(&config).await;
    let mut plan = Plan::current();
    let suite = |name, kind| Work::Table { name, kind, life: TableLife::Kept };
    let last = plan.steps.last_mut().unwrap();
    let suite = [suite("suite_guarded", Kind::Guarded), suite("suite_plain", Kind::Plain)];
    last.work = Box::leak([last.work, &suite].concat().into_boxed_slice());
    Migration::connect(&config, plan).await.unwrap().run(|_| ()).await.unwrap();
    config
}

async fn sweep(config: &Config) {
    let session = SessionBuilder::new()
        .known_node(&config.nodes[0])
        .connection_timeout(Duration::from_secs(10))
        .build()
        .await
        .unwrap();
    let now = Clock::system().now().0 / 1000;
    let answer = session.query_unpaged("SELECT keyspace_name FROM system_schema.keyspaces", ()).await.unwrap();
    for row in answer.into_rows_result().unwrap().rows::<(String,)>().unwrap() {
        let (name,) = row.unwrap();
        let made = name.strip_prefix("t_").and_then(|rest| rest.split_once('_')?.0.parse::<u64>().ok());
        if made.is_some_and(|made| made + OLD_S < now) {
            session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await.unwrap();
        }
    }
}

/// The rows of one test among those of others.
struct Prefixed {
    inner: Arc<Cql>,
    prefix: Bytes,
}

impl Prefixed {
    fn key(&self, partition: &[u8]) -> Bytes {
        let mut key = BytesMut::from(&self.prefix[..]);
        key.extend_from_slice(partition);
        key.freeze()
    }
}

#[async_trait]
impl Rows for Prefixed {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.inner.guard(table, &self.key(partition)).await
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(table, &self.key(partition), clustering).await
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.inner.scan(table, &self.key(partition), range).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        self.inner.write(GuardedBatch { partition: self.key(&batch.partition), ..batch }).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        let writes = batch.writes.into_iter().map(|(partition, write)| (self.key(&partition), write)).collect();
        self.inner.put(PlainBatch { writes, ..batch }).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let mut after = after.map(|after| self.key(after));
        let mut found = Vec::new();
        while found.len() < limit {
            let page = self.inner.partitions(table, after.as_deref(), 3).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let own = page.iter().filter_map(|key| key.strip_prefix(&self.prefix[..]));
            found.extend(own.map(Bytes::copy_from_slice));
        }
        found.truncate(limit);
        Ok(found)
    }

    fn in_key_order(&self) -> bool {
        self.inner.in_key_order()
    }
}
