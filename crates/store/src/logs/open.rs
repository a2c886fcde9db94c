//! `open_logs`: which logs are open, so that a node that takes over activates them.

use linnet_proto::store::OpenLog;
use prost::Message;

use super::head::put;
use super::log::Log;
use super::tables::{LogId, OPEN_LOGS, open_key, open_partition};
use super::{Inner, Logs, Result};
use crate::keys::{Key, prefix};
use crate::rows::{self, Life, PlainBatch, Range, Write};

impl Logs {
    /// The logs of a slot that are open or were when their owner died, newest first. A log may be listed more than once.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn open_logs(&self, slot: u32) -> Result<Vec<OpenLog>> {
        let partition = open_partition(&self.inner.service, slot);
        let rows = self.inner.store.scan(OPEN_LOGS, &partition, Range::default()).await?;
        let mut open: Vec<OpenLog> = rows.iter().map(|row| decode(&row.value)).collect::<rows::Result<_>>()?;
        open.sort_by_key(|log| std::cmp::Reverse(log.opened_ms));
        Ok(open)
    }
}

pub(super) fn decode(value: &[u8]) -> rows::Result<OpenLog> {
    OpenLog::decode(value).map_err(|e| rows::Error::Corrupt { table: OPEN_LOGS.name, why: e.to_string() })
}

/// Lists the log as open under its epoch, and takes rows of lower epochs away: their owners are deposed.
pub(super) async fn note(inner: &Inner, id: LogId, row: OpenLog) -> Result<()> {
    let partition = open_partition(&inner.service, id.slot());
    let own = prefix(Key::new().u32(id.app.0).u64(id.conv.0).done());
    let older = inner.store.scan(OPEN_LOGS, &partition, own).await?;
    let key = open_key(id, row.epoch);
    let value = row.encode_to_vec().into();
    let mut writes = vec![(partition.clone(), Write::Put { clustering: key.clone(), value })];
    for old in older.into_iter().filter(|old| old.clustering < key) {
        writes.push((partition.clone(), Write::Delete { clustering: old.clustering }));
    }
    put(&inner.store, PlainBatch { table: OPEN_LOGS, writes, life: Life::Forever }).await?;
    Ok(())
}

impl Log {
    pub(super) fn open_row(&self) -> OpenLog {
        OpenLog {
            app: self.id.app.0,
            conv: self.id.conv.0,
            epoch: self.open_epoch,
            route: self.route.clone(),
            opened_ms: self.inner.clock.now().0,
            days: self.class.days(),
        }
    }

    pub(super) async fn remove_open_row(&self) -> Result<()> {
        let partition = open_partition(&self.inner.service, self.id.slot());
        let clustering = open_key(self.id, self.open_epoch);
        let writes = vec![(partition, Write::Delete { clustering })];
        put(&self.inner.store, PlainBatch { table: OPEN_LOGS, writes, life: Life::Forever }).await?;
        Ok(())
    }
}
