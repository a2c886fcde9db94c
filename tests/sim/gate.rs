//! What a node reaches besides other nodes, with a gate that closes while the node is paused.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_bus::{Bus, Limits, Port, Subject, Subscription};
use linnet_store::rows::{Applied, Guard, GuardedBatch, PlainBatch, Range, Result, Row, Rows, Store, Table};
use linnet_types::Epoch;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Open, or closed until opened.
#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { open: Arc::new(watch::channel(true).0) }
    }

    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }

    async fn pass(&self) {
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Table and partition key.
type Place = (&'static str, Bytes);

/// Highest epoch seen in the guard of each partition that was written.
#[derive(Clone, Default)]
pub(crate) struct Guards {
    seen: Arc<Mutex<BTreeMap<Place, (Table, u64)>>>,
}

impl Guards {
    fn written(&self, table: Table, partition: &Bytes) {
        self.seen.lock().entry((table.name, partition.clone())).or_insert((table, 0));
    }

    /// Reads every guard; none may have gone down. Gives how many partitions there are.
    pub(crate) async fn rise(&self, store: &Store, seed: u64) -> usize {
        let known: Vec<_> = self.seen.lock().iter().map(|(key, (table, _))| (key.clone(), *table)).collect();
        for ((name, partition), table) in &known {
            let Ok(Some(guard)) = store.guard(*table, partition).await else { continue };
            let Epoch(now) = guard.epoch;
            let mut seen = self.seen.lock();
            let (_, before) = seen.get_mut(&(*name, partition.clone())).expect("never removed");
            assert!(now >= *before, "seed {seed}: the epoch of {name} {partition:?} went from {before} to {now}");
            *before = now;
        }
        known.len()
    }
}

/// The store as one node reaches it.
pub(crate) struct GatedRows {
    pub(crate) store: Store,
    pub(crate) gate: Gate,
    pub(crate) guards: Guards,
}

impl GatedRows {
    /// Neither the way there nor the way back is open to a paused node.
    async fn through<T>(&self, work: impl Future<Output = T>) -> T {
        self.gate.pass().await;
        let done = work.await;
        self.gate.pass().await;
        done
    }
}

#[async_trait]
impl Rows for GatedRows {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.through(self.store.guard(table, partition)).await
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        self.through(self.store.get(table, partition, clustering)).await
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.through(self.store.scan(table, partition, range)).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        self.guards.written(batch.table, &batch.partition);
        self.through(self.store.write(batch)).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        self.through(self.store.put(batch)).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.through(self.store.partitions(table, after, limit)).await
    }
}

/// The bus as one node reaches it.
pub(crate) struct GatedBus {
    pub(crate) bus: Bus,
    pub(crate) gate: Gate,
}

#[async_trait]
impl Port for GatedBus {
    async fn publish(&self, subject: Subject, payload: Bytes) -> linnet_bus::Result<()> {
        self.gate.pass().await;
        self.bus.publish(subject, payload).await
    }

    async fn subscribe(&self, subject: Subject, limits: Limits) -> linnet_bus::Result<Subscription> {
        self.gate.pass().await;
        self.bus.subscribe_with(subject, limits).await
    }

    async fn flush(&self) -> linnet_bus::Result<()> {
        self.gate.pass().await;
        self.bus.flush().await
    }
}
