//! Events of the group's state on their way to the callback queue: in order, acknowledged, surviving a kill.

use linnet_proto::callback;
use linnet_proto::msg::Origin;
use linnet_store::groups::OutboxEvent;
use linnet_types::{ConvId, SdkAppId, UnixMillis};
use tokio::sync::oneshot;

use super::Group;
use crate::hooks::{self, Stored};

/// Events handed over at once.
const PAGE: usize = 100;
/// Pause after the callback service did not take them.
const PAUSE_MS: u64 = 500;

/// Where the outbox stands.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// There may be events to hand over.
    pub(super) dirty: bool,
    /// Events under way, and the number of the last of them.
    flying: Option<(u64, oneshot::Receiver<bool>)>,
    /// After a failure: not before.
    not_before: UnixMillis,
}

impl Outbox {
    /// When it must be looked at again.
    pub(super) fn next_tick(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.flying.is_some() {
            // The answer comes with the next command or within this time.
            return Some(now.plus_ms(20));
        }
        self.dirty.then(|| self.not_before.max(now))
    }

    /// Whether nothing is left to do.
    pub(super) fn is_quiet(&self) -> bool {
        !self.dirty && self.flying.is_none()
    }
}

impl Group {
    /// Hands over what is due and acknowledges what arrived; never waits for the callback service.
    pub(super) async fn tick_outbox(&mut self) {
        let landed = match &mut self.outbox.flying {
            None => None,
            Some((_, done)) => match done.try_recv() {
                Ok(landed) => Some(landed),
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => Some(false),
            },
        };
        let now = self.now();
        if let (Some(landed), Some((up_to, _))) = (landed, self.outbox.flying.take()) {
            let groups = self.shared.groups.clone();
            if !landed {
                self.outbox.dirty = true;
                self.outbox.not_before = now.plus_ms(PAUSE_MS);
            } else {
                let acked = groups.ack_outbox(&mut self.held, up_to).await;
                if self.store(acked).is_err() {
                    // The queue knows what it has; they are handed over once more.
                    self.outbox.dirty = true;
                    self.outbox.not_before = now.plus_ms(PAUSE_MS);
                }
            }
        }
        if self.outbox.dirty && self.outbox.not_before <= now && !self.lost {
            self.send_off().await;
        }
    }

    async fn send_off(&mut self) {
        let groups = self.shared.groups.clone();
        let read = groups.outbox(&self.held, 0, PAGE).await;
        let Ok(rows) = self.store(read) else {
            self.outbox.not_before = self.now().plus_ms(PAUSE_MS);
            return;
        };
        let Some(last) = rows.last().map(|row| row.no) else {
            self.outbox.dirty = false;
            return;
        };
        self.outbox.dirty = rows.len() == PAGE;
        let events = events(self.held.app(), self.held.conv(), rows);
        let (tell, done) = oneshot::channel();
        let shared = std::sync::Arc::clone(&self.shared);
        self.outbox.flying = Some((last, done));
        self.shared.tasks.spawn("group.outbox", async move {
            let _ = tell.send(shared.enqueue(events).await.is_ok());
        });
    }

    /// Hands over everything before the actor ends; what does not go stays for the next owner.
    pub(super) async fn flush_outbox(&mut self) {
        while !self.lost {
            let groups = self.shared.groups.clone();
            let read = groups.outbox(&self.held, 0, PAGE).await;
            let Ok(rows) = self.store(read) else { return };
            let Some(last) = rows.last().map(|row| row.no) else { return };
            let events = events(self.held.app(), self.held.conv(), rows);
            if self.shared.enqueue(events).await.is_err() {
                return;
            }
            let acked = groups.ack_outbox(&mut self.held, last).await;
            if self.store(acked).is_err() {
                return;
            }
        }
    }
}

/// Rows as the callback service takes them; one that cannot be read is dropped, or it would stop all after it.
pub(crate) fn events(app: SdkAppId, conv: ConvId, rows: Vec<OutboxEvent>) -> Vec<callback::Event> {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let Ok(stored) = serde_json::from_slice::<Stored>(&row.body) else {
            tracing::error!(no = row.no, "an outbox row cannot be read");
            continue;
        };
        let origin = Origin { client_ip: stored.client_ip, platform: stored.platform, ..Origin::default() };
        let id = format!("g{conv}-{}-{}", row.no, row.event);
        let body = stored.body.get().as_bytes().to_vec().into();
        events.push(hooks::event(app, &row.event, conv.0, id, body, &origin, row.at));
    }
    events
}
