//! A CQL store for tests: one keyspace on a server, a prefix of keys for each test.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use linnet_runtime::config::Period;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::migrate::{Migration, Plan, TableLife, Work};
use linnet_store::cql::{Config, Cql};
use linnet_store::{Applied, Guard, GuardedBatch, Kind, PlainBatch, Range, Result, Row, Rows, Store, Table};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Connections live on a runtime of their own: every test has another.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// The settings of the keyspace, which is made now if it is not there.
pub(crate) async fn config() -> Config {
    static CONFIG: OnceCell<Config> = OnceCell::const_new();
    CONFIG.get_or_init(|| async { RUNTIME.spawn(prepare()).await.unwrap() }).await.clone()
}

/// An empty store of one test.
pub(crate) async fn store() -> Store {
    static CQL: OnceCell<Arc<Cql>> = OnceCell::const_new();
    let config = config().await;
    let cql = CQL.get_or_init(|| async { RUNTIME.spawn(connect(config)).await.unwrap() }).await;
    prefixed(cql.clone(), Rng::system().u64())
}

/// The rows of `test` only.
pub(crate) fn prefixed(inner: Arc<Cql>, test: u64) -> Store {
    Arc::new(Prefixed { inner, prefix: Bytes::copy_from_slice(&test.to_be_bytes()) })
}

/// A connection of its own.
pub(crate) async fn connect(config: Config) -> Arc<Cql> {
    let metrics = Metrics::new();
    Cql::connect(config, Clock::system(), &Tasks::new(&metrics), &metrics).await.unwrap()
}

/// Settings for `keyspace` on the server of this process.
pub(crate) async fn on(keyspace: String) -> Config {
    let server = linnet_local::servers::cql().await.unwrap();
    Config {
        nodes: vec![server.address().to_owned()],
        keyspace,
        replication: 1,
        // One slow disk serves every test of the machine.
        write_timeout: Period::secs(10),
        read_timeout: Period::secs(10),
        scan_timeout: Period::secs(20),
        busy_after: Period::secs(5),
        ..Config::default()
    }
}

/// Makes the keyspace, or finds that an earlier test process did: forty tables are dear on a small server.
async fn prepare() -> Config {
    let mut plan = Plan::current();
    let suite = |name, kind| Work::Table { name, kind, life: TableLife::Kept };
    let last = plan.steps.last_mut().unwrap();
    let suite = [suite("suite_guarded", Kind::Guarded), suite("suite_plain", Kind::Plain)];
    last.work = Box::leak([last.work, &suite].concat().into_boxed_slice());
    let tables = format!("{:?}", plan.steps).bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
    let config = on(format!("t_suite_{tables:08x}")).await;
    loop {
        match Migration::connect(&config, plan.clone()).await.unwrap().run(|_| ()).await {
            Ok(_) => return config,
            Err(error) if error.to_string().contains("another run") => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
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
            let page = self.inner.partitions(table, after.as_deref(), 500).await?;
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
