//! What a change of the ring moves: a node lets go of the groups that are others' now, and takes over those that an
//! earlier owner left open: their derived rows are finished, their tips stored and their events told.

use std::time::Duration;

use linnet_cluster::{RouteKey, Service};
use linnet_store::groups::{OPEN_SLOTS, OpenGroup};
use linnet_types::GroupId;

use crate::error::{Result, from_store};
use crate::group::outbox_events;
use crate::shared::Shared;

const PAGE: usize = 100;
const RETRY: Duration = Duration::from_millis(500);
/// After a change of the ring: owners that are only slow are given this long.
const SETTLED: Duration = Duration::from_secs(2);
/// Groups that could not be taken over are tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

impl Shared {
    /// Takes over at the start, and after every change of the ring, until the node drains.
    pub(crate) async fn follow_ring(&self) {
        let draining = self.tasks.draining();
        let mut changes = self.cluster.changes();
        loop {
            changes.mark_unchanged();
            while !self.take_over().await {
                tokio::select! {
                    () = draining.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            tokio::select! {
                () = draining.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            let lost = self.hub.yield_lost(self).await;
            if lost > 0 {
                tracing::info!(groups = lost, "let go of what belongs to other nodes");
            }
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(SETTLED) => {}
            }
        }
    }

    /// Looks through every slot once, the groups opened last first; after a crash it finds what was under way. True when
    /// nothing is left for later.
    async fn take_over(&self) -> bool {
        let mut all = Vec::new();
        let pause = Duration::from_secs(1) / self.config.takeover_per_s.max(1);
        let draining = self.tasks.draining();
        for slot in 0..OPEN_SLOTS {
            let open = loop {
                match self.groups.open(slot).await {
                    Ok(open) => break open,
                    Err(error) => {
                        tracing::warn!(%error, "open groups cannot be read");
                        tokio::select! {
                            () = draining.cancelled() => return true,
                            () = tokio::time::sleep(RETRY) => {}
                        }
                    }
                }
            };
            all.extend(open);
        }
        // Conversations are numbered as they come.
        all.sort_by_key(|group| std::cmp::Reverse(group.conv));
        let mut whole = true;
        for group in all {
            if draining.is_cancelled() {
                return true;
            }
            if let Err(refusal) = self.finish(&group).await {
                tracing::debug!(%refusal, "an open group is left for later");
                // What is refused for good is not there to be taken.
                whole &= refusal.retry_after_ms.is_none();
            }
            tokio::time::sleep(pause).await;
        }
        whole
    }

    async fn finish(&self, open: &OpenGroup) -> Result<()> {
        let store = |error| from_store(&error).0;
        let Some(record) = self.groups.read(open.app, open.conv).await.map_err(store)? else { return Ok(()) };
        if !self.cluster.owns(Service::Group, RouteKey::group(open.app, &record.group)) {
            return Ok(());
        }
        if record.destroyed.is_none() {
            return self.activate_if_current(open, &record.group).await;
        }
        let Some(mut held) = self.groups.claim(open.app, open.conv).await.map_err(store)? else { return Ok(()) };
        loop {
            let rows = self.groups.outbox(&held, 0, PAGE).await.map_err(store)?;
            let Some(last) = rows.last().map(|row| row.no) else { break };
            let events = outbox_events(open.app, open.conv, &rows);
            if !events.is_empty() {
                self.enqueue(events).await?;
            }
            self.groups.ack_outbox(&mut held, last).await.map_err(store)?;
        }
        self.groups.resume(&mut held).await.map_err(store)?;
        self.groups.close(held).await.map_err(store)
    }

    async fn activate_if_current(&self, open: &OpenGroup, group: &GroupId) -> Result<()> {
        let name = self.groups.find(open.app, group).await.map_err(|error| from_store(&error).0)?;
        if name.is_some_and(|name| name.conv == open.conv) {
            // Its actor resumes, tells its events and closes when idle.
            self.hub.get(self, open.app, group).await?;
        }
        Ok(())
    }
}
