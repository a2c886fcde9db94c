//! The backend for a cluster: ScyllaDB over CQL, or any server that speaks it.
//!
//! Hides the driver, the tables, and what servers' errors mean. What it promises beyond the port:
//!
//! - A guarded write is one conditional batch in one partition, decided by the data centre's replicas (`LOCAL_SERIAL`, then
//!   `LOCAL_QUORUM`), never sent twice, never cut in two, with no timestamp of ours. Guarded tables are written in no other way.
//! - A write that may have been done is [`Error::Unknown`]; one that certainly was not is [`Error::Unavailable`].
//! - Reads, and plain writes under the timestamp they had, are asked of a second server when the first is slow or fails.
//! - Each class of work has its own bound; above it the answer is "busy", before anything is sent.
//!
//! Plain writes take the timestamp of this process: rising here, by the wall clock between processes. Of a put and a
//! delete of one row by two processes within their clocks' difference, either may be the last.
//!
//! ```text
//! write --lane: place?--> UPDATE guard IF epoch, rev + INSERT/DELETE ...    no place -> Unavailable "busy", nothing sent
//!                            |  one vote of the partition's replicas        refused -> No(guard)
//!                            v                                              no answer, or one in doubt -> Unknown
//!                         Yes: on a majority
//! guard --serial read--> what was decided, finishing what was half done
//! get, scan --quorum read--> rows                                           slow -> a second server as well
//! ```

mod config;
mod errors;
mod lanes;
mod metrics;
pub mod migrate;
mod nearest;
mod read;
mod session;
mod stamps;
mod statements;
mod tls;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Tasks};
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;

use crate::rows::{Applied, Error, Guard, GuardedBatch, Kind, PlainBatch, Range, Result, Row, Rows, Table};
pub use config::Config;
use lanes::Lanes;
use metrics::CqlMetrics;
use stamps::Stamps;
use statements::{Form, Statements};

/// Statements prepared at a time when connecting.
const PREPARES: usize = 16;

/// The CQL store.
pub struct Cql {
    session: Session,
    config: Config,
    batch_limit: usize,
    lanes: Lanes,
    statements: Statements,
    stamps: Stamps,
    metrics: CqlMetrics,
}

impl Cql {
    /// Connects, checks that this build may read the schema, and prepares its statements.
    ///
    /// # Errors
    /// [`Error::Open`]: no server answers, credentials or certificates are refused, the schema is older than this build
    /// needs or newer than it may read. The text says what to do.
    pub async fn connect(config: Config, clock: Clock, tasks: &Tasks, metrics: &Metrics) -> Result<Arc<Self>> {
        let session = session::connect(&config).await?;
        let datacenter = session::datacenter(&session, &config)?;
        let metrics = CqlMetrics::new(metrics);
        let lanes = Lanes::new(&config, &datacenter, &clock, &metrics);
        migrate::may_run(&session, &config, &lanes.page.profile).await?;
        let cql = Arc::new(Self {
            lanes,
            statements: Statements::new(&config.keyspace, config.read_timeout.get() * 2),
            stamps: Stamps::new(clock, metrics.clock_off.clone()),
            batch_limit: config.batch_limit.bytes(),
            session,
            config,
            metrics,
        });
        cql.stamps.look(&cql.session, &cql.lanes.page.profile).await;
        cql.prepare().await?;
        let (watched, draining) = (Arc::downgrade(&cql), tasks.draining());
        tasks.spawn("store-clock", async move {
            while draining.run_until_cancelled(tokio::time::sleep(stamps::LOOK_EVERY)).await.is_some() {
                let Some(cql) = watched.upgrade() else { return };
                cql.stamps.look(&cql.session, &cql.lanes.page.profile).await;
            }
        });
        Ok(cql)
    }

    /// Whether requests are answered, and the schema is still one that this build may read.
    ///
    /// # Errors
    /// [`Error::Open`] with what is wrong.
    pub async fn ready(&self) -> Result<()> {
        migrate::may_run(&self.session, &self.config, &self.lanes.page.profile).await
    }

    /// Prepares what this build sends now rather than when it is needed: the driver prepares on every server, and one
    /// that is paused then holds up a first request.
    async fn prepare(&self) -> Result<()> {
        let mut forms: Vec<Result<(Table, Form)>> = Vec::new();
        for table in crate::inspect::registry_tables() {
            let guarded: &[Form] = if table.kind == Kind::Guarded { &Form::GUARDED } else { &[] };
            for form in Form::ALL.iter().chain(guarded) {
                forms.push(Ok((table, *form)));
            }
        }
        stream::iter(forms)
            .try_for_each_concurrent(
                PREPARES,
                |(table, form)| async move { self.statement(table, form).await.map(drop) },
            )
            .await
            .map_err(|error| Error::Open { path: self.config.place(), why: error.to_string() })
    }

    async fn statement(&self, table: Table, form: Form) -> Result<PreparedStatement> {
        self.statements.get(&self.session, &self.lanes, table, form).await
    }
}

#[async_trait]
impl Rows for Cql {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.lanes.serial.run(table, self.read_guard(table, partition)).await
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        self.lanes.page.run(table, self.read_value(table, partition, clustering)).await
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.lanes.page.run(table, self.read_range(table, partition, range)).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        assert_eq!(batch.table.kind, Kind::Guarded, "a guarded batch on {}", batch.table.name);
        self.lanes.guarded.run(batch.table, self.write_guarded(&batch)).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        assert_eq!(batch.table.kind, Kind::Plain, "a plain batch on {}", batch.table.name);
        self.write_plain(batch).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.lanes.scan.run(table, self.read_partitions(table, after, limit)).await
    }

    fn in_key_order(&self) -> bool {
        false
    }
}
