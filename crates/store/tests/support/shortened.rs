//! A store in which every life is shorter, so that a test sees its end.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_store::{Applied, Guard, GuardedBatch, Life, PlainBatch, Range, Result, Row, Rows, Store, Table};

/// Divides every life by `by`; to whole seconds, as the server counts.
pub(crate) struct Shortened {
    pub(crate) inner: Store,
    pub(crate) by: u32,
}

impl Shortened {
    fn life(&self, life: Life) -> Life {
        match life {
            Life::Forever => Life::Forever,
            Life::For(span) => Life::For(Duration::from_secs((span / self.by).as_secs().max(1))),
        }
    }
}

#[async_trait]
impl Rows for Shortened {
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
        let (life, guard_life) = (self.life(batch.life), self.life(batch.guard_life));
        self.inner.write(GuardedBatch { life, guard_life, ..batch }).await
    }

    async fn put(&self, batch: PlainBatch) -> Result<()> {
        self.inner.put(PlainBatch { life: self.life(batch.life), ..batch }).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }

    fn in_key_order(&self) -> bool {
        self.inner.in_key_order()
    }
}
