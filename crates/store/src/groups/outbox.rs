//! Events of a group on their way to the queue.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::GroupOutboxRow;
use linnet_types::UnixMillis;

use super::guard::gravest;
use super::layout::{self, GROUP, tag};
use super::model::{Event, OutboxEvent};
use super::{GroupGuard, Groups};
use crate::keys;
use crate::record;
use crate::rows::{Range, Result, Row, Write};

/// Rows removed by one batch.
const ROWS: usize = 256;
/// Partitions read at once.
const READS: usize = 16;

impl Groups {
    /// The oldest events after `after` (0 = from the start), at most `limit`, by number.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn outbox(&self, held: &GroupGuard, after: u64, limit: usize) -> Result<Vec<OutboxEvent>> {
        let from = layout::numbered_key(tag::OUTBOX, after.saturating_add(1));
        let range = Range { from: Some(from), limit, ..keys::prefix(layout::tag_key(tag::OUTBOX)) };
        let mut events = Vec::new();
        for row in self.outbox_rows(held, range).await?.into_iter().flat_map(|(_, rows)| rows) {
            events.push(layout::outbox_from_row(layout::key_number(&row.clustering)?, &row.value)?);
        }
        events.sort_unstable_by_key(|event: &OutboxEvent| event.no);
        events.truncate(limit);
        Ok(events)
    }

    /// Removes the events up to `up_to`: they are safe in the queue.
    ///
    /// # Errors
    /// As [`Groups::apply`]: repeat; the queue knows what it has.
    pub async fn ack_outbox(&self, held: &mut GroupGuard, up_to: u64) -> Result<()> {
        loop {
            let range = Range { limit: ROWS, ..keys::prefix(layout::tag_key(tag::OUTBOX)) };
            let mut pending = Vec::new();
            let mut emptied = Vec::new();
            for (slot, rows) in self.outbox_rows(held, range).await? {
                let mut writes = Vec::new();
                for row in &rows {
                    if layout::key_number(&row.clustering)? <= up_to {
                        writes.push(Write::Delete { clustering: row.clustering.clone() });
                    }
                }
                if rows.is_empty() {
                    emptied.push(slot);
                }
                if !writes.is_empty() {
                    self.own(held, slot).await?;
                    let data = held.slots[usize::from(slot)].data;
                    pending.push(held.prepare(slot, writes, data));
                }
            }
            held.outbox.retain(|slot| !emptied.contains(slot));
            if pending.is_empty() {
                return Ok(());
            }
            gravest(self.write_many(held, pending).await)?;
        }
    }

    /// The outbox rows in `range` of every partition that may have some, by partition.
    async fn outbox_rows(&self, held: &GroupGuard, range: Range) -> Result<Vec<(u16, Vec<Row>)>> {
        stream::iter(held.outbox.iter().copied())
            .map(|slot| {
                let (partition, range) = (held.partition(slot), range.clone());
                async move { Ok((slot, self.store.scan(GROUP, &partition, range).await?)) }
            })
            .buffered(READS)
            .try_collect()
            .await
    }
}

impl GroupGuard {
    /// Numbered rows of events that go into partition `slot`.
    pub(super) fn event_rows(&mut self, slot: u16, at: UnixMillis, events: Vec<Event>) -> Result<Vec<Write>> {
        let mut writes = Vec::with_capacity(events.len());
        for event in events {
            let row = GroupOutboxRow { at_ms: at.0, event: event.event, body: event.body };
            writes.push(record::row(layout::numbered_key(tag::OUTBOX, self.number()?), &row));
            self.outbox.insert(slot);
        }
        Ok(writes)
    }
}
