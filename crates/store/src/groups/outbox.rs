//! Events of a group on their way to the queue.

use linnet_proto::store::GroupOutboxRow;
use linnet_types::UnixMillis;

use super::layout::{self, GROUP, tag};
use super::model::{Event, OutboxEvent};
use super::{GroupGuard, Groups};
use crate::keys;
use crate::record;
use crate::rows::{Range, Result, Write};

/// Rows removed by one batch.
const ROWS: usize = 256;

impl Groups {
    /// The oldest events after `after` (0 = from the start), at most `limit`, by number.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn outbox(&self, held: &GroupGuard, after: u64, limit: usize) -> Result<Vec<OutboxEvent>> {
        let mut events = Vec::new();
        for slot in &held.outbox {
            let from = layout::numbered_key(tag::OUTBOX, after.saturating_add(1));
            let range = Range { from: Some(from), limit, ..keys::prefix(layout::tag_key(tag::OUTBOX)) };
            for row in self.store.scan(GROUP, &held.partition(*slot), range).await? {
                events.push(layout::outbox_from_row(layout::key_number(&row.clustering)?, &row.value)?);
            }
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
        for slot in held.outbox.clone() {
            loop {
                let range = Range { limit: ROWS, ..keys::prefix(layout::tag_key(tag::OUTBOX)) };
                let rows = self.store.scan(GROUP, &held.partition(slot), range).await?;
                let mut writes = Vec::new();
                for row in &rows {
                    if layout::key_number(&row.clustering)? <= up_to {
                        writes.push(Write::Delete { clustering: row.clustering.clone() });
                    }
                }
                let acked = writes.len();
                if acked > 0 {
                    self.own(held, slot).await?;
                    let data = held.slots[usize::from(slot)].data;
                    self.write(held, slot, writes, data).await?;
                }
                if acked < rows.len() {
                    break;
                }
                if rows.len() < ROWS {
                    held.outbox.remove(&slot);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Rows of events that go into partition 0.
    pub(super) fn event_rows(&self, held: &mut GroupGuard, at: UnixMillis, events: Vec<Event>) -> Result<Vec<Write>> {
        let mut writes = Vec::with_capacity(events.len());
        for event in events {
            let row = GroupOutboxRow { at_ms: at.0, event: event.event, body: event.body };
            writes.push(record::row(layout::numbered_key(tag::OUTBOX, held.number()?), &row));
            held.outbox.insert(0);
        }
        Ok(writes)
    }
}
