//! A store that falls silent at a chosen moment.

use async_trait::async_trait;
use bytes::Bytes;
use linnet_store::{Applied, Guard, GuardedBatch, PlainBatch, Range, Result, Row, Rows, Store, Table};

use crate::relay::Relay;

/// A store that is cut off at the moment of its next conditional write: what it read before, it was told.
pub(crate) struct HeldAtWrite {
    pub(crate) inner: Store,
    pub(crate) relay: Relay,
}

#[async_trait]
impl Rows for HeldAtWrite {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.inner.guard(table, partition).await
    }

    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(table, partition, clustering).await
    }

    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.inner.scan(table, partition, range).await
    }

    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        self.relay.hold();
        self.inner.write(batch).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        self.inner.put(batch).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}
