//! Events of the group's state on their way to the callback queue, and intents to be carried out: in order, acknowledged,
//! surviving a kill.

use std::collections::HashMap;

use linnet_proto::callback;
use linnet_proto::msg::Origin;
use linnet_store::groups::OutboxEvent;
use linnet_types::{ConvId, SdkAppId, UnixMillis};
use serde_json::json;
use tokio::sync::oneshot;

use super::Group;
use super::intents::{Recalled, is_intent};
use crate::error::Result;
use crate::hooks::{self, Stored, command};
use crate::remote::wants;

/// Events handed over at once.
pub(super) const PAGE: usize = 100;
/// Pause after the callback service did not take them.
const PAUSE_MS: u64 = 500;
/// Rows of intents that are carried out are removed after this, many with one write.
const LATER_MS: u64 = 1_000;

/// Where the outbox stands.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// There may be rows to see to.
    dirty: bool,
    /// Not before; `later`: because nothing is urgent, not because something failed.
    due: UnixMillis,
    later: bool,
    flying: Option<Flying>,
    /// Intents of this tenure that are carried out, by token, and what a recall recalled.
    pub(super) done: HashMap<u64, Vec<u64>>,
}

/// Events under way.
#[derive(Debug)]
struct Flying {
    page: Page,
    landed: oneshot::Receiver<bool>,
}

/// Rows that are seen to together.
#[derive(Debug, Default)]
struct Page {
    /// Number of the last of them.
    up_to: u64,
    /// Tokens of the intents among them.
    intents: Vec<u64>,
}

impl Outbox {
    /// Rows were added with a change.
    pub(super) fn added(&mut self, only_intents: bool, now: UnixMillis) {
        if !only_intents && self.later {
            (self.due, self.later) = (now, false);
        } else if !self.dirty && only_intents {
            (self.due, self.later) = (now.plus_ms(LATER_MS), true);
        }
        self.dirty = true;
    }

    /// Rows of an owner before may be there.
    pub(super) fn look(&mut self) {
        self.dirty = true;
    }

    /// When it must be looked at again.
    pub(super) fn next_tick(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.flying.is_some() {
            // The answer comes with the next command or within this time.
            return Some(now.plus_ms(20));
        }
        self.dirty.then(|| self.due.max(now))
    }

    /// Whether nothing is left to do.
    pub(super) fn is_quiet(&self) -> bool {
        !self.dirty && self.flying.is_none()
    }

    fn pause(&mut self, now: UnixMillis) {
        (self.dirty, self.due, self.later) = (true, now.plus_ms(PAUSE_MS), false);
    }
}

impl Group {
    /// Hands over what is due and acknowledges what arrived; never waits for the callback service.
    pub(super) async fn tick_outbox(&mut self) {
        let landed = match &mut self.outbox.flying {
            None => None,
            Some(flying) => match flying.landed.try_recv() {
                Ok(landed) => Some(landed),
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => Some(false),
            },
        };
        let now = self.now();
        if let (Some(landed), Some(flying)) = (landed, self.outbox.flying.take())
            // What is not acknowledged is handed over once more; the queue knows what it has.
            && (!landed || self.ack(flying.page).await.is_err())
        {
            self.outbox.pause(now);
        }
        if self.outbox.dirty && self.outbox.due <= now && !self.lost {
            self.send_off().await;
        }
    }

    async fn ack(&mut self, page: Page) -> Result<()> {
        let groups = self.shared.groups.clone();
        let acked = groups.ack_outbox(&mut self.held, page.up_to).await;
        self.store(acked)?;
        for token in page.intents {
            self.outbox.done.remove(&token);
        }
        Ok(())
    }

    async fn send_off(&mut self) {
        let now = self.now();
        let groups = self.shared.groups.clone();
        let read = groups.outbox(&self.held, 0, PAGE).await;
        let Ok(rows) = self.store(read) else { return self.outbox.pause(now) };
        self.outbox.later = false;
        self.outbox.dirty = rows.len() == PAGE;
        if rows.is_empty() {
            return;
        }
        let Ok((page, events)) = self.see_to(rows).await else { return self.outbox.pause(now) };
        if events.is_empty() {
            if self.ack(page).await.is_err() {
                self.outbox.pause(now);
            }
            return;
        }
        let (tell, landed) = oneshot::channel();
        let shared = std::sync::Arc::clone(&self.shared);
        self.outbox.flying = Some(Flying { page, landed });
        self.shared.tasks.spawn("group.outbox", async move {
            let _ = tell.send(shared.enqueue(events).await.is_ok());
        });
    }

    /// Carries out the intents among `rows`; answers what the app is told. Rows after an intent that cannot be carried out
    /// now wait with it.
    async fn see_to(&mut self, rows: Vec<OutboxEvent>) -> Result<(Page, Vec<callback::Event>)> {
        let (mut page, mut told) = (Page::default(), Vec::with_capacity(rows.len()));
        for row in rows {
            match self.carry_out(&row).await {
                Ok(Some((token, recalled))) => {
                    page.intents.push(token);
                    told.extend(recalled.and_then(|recalled| self.recalled_event(&row, &recalled)));
                }
                Ok(None) => told.extend(event(self.held.app(), self.held.conv(), &row)),
                Err(refusal) if page.up_to == 0 => return Err(refusal),
                Err(_) => {
                    self.outbox.pause(self.now());
                    break;
                }
            }
            page.up_to = row.no;
        }
        Ok((page, told))
    }

    fn recalled_event(&self, row: &OutboxEvent, recalled: &Recalled) -> Option<callback::Event> {
        if recalled.seqs.is_empty() || !wants(&self.app.settings, command::AFTER_RECALL) {
            return None;
        }
        let list: Vec<_> = recalled.seqs.iter().map(|seq| json!({"MsgSeq": seq})).collect();
        let body = hooks::Body::of(self.record().group.as_str(), self.kind(), row.at);
        let body = body.operator(&recalled.origin).with("MsgSeqList", &list).json();
        let conv = self.held.conv();
        let id = format!("g{conv}-{}-{}", row.no, command::AFTER_RECALL);
        Some(hooks::event(self.held.app(), command::AFTER_RECALL, conv.0, id, body, &recalled.origin, row.at))
    }

    /// Sees to everything before the actor ends; what cannot be done stays for the next owner.
    pub(super) async fn flush_outbox(&mut self) {
        while !self.lost {
            let groups = self.shared.groups.clone();
            let read = groups.outbox(&self.held, 0, PAGE).await;
            let Ok(rows) = self.store(read) else { return };
            if rows.is_empty() {
                return;
            }
            let Ok((page, events)) = self.see_to(rows).await else { return };
            if !events.is_empty() && self.shared.enqueue(events).await.is_err() {
                return;
            }
            if self.ack(page).await.is_err() {
                return;
            }
        }
    }
}

/// Rows as the callback service takes them; one that cannot be read is dropped, or it would stop all after it.
pub(crate) fn events(app: SdkAppId, conv: ConvId, rows: &[OutboxEvent]) -> Vec<callback::Event> {
    rows.iter().filter_map(|row| event(app, conv, row)).collect()
}

fn event(app: SdkAppId, conv: ConvId, row: &OutboxEvent) -> Option<callback::Event> {
    if is_intent(&row.event) {
        return None;
    }
    let Ok(stored) = serde_json::from_slice::<Stored>(&row.body) else {
        tracing::error!(no = row.no, "an outbox row cannot be read");
        return None;
    };
    let origin = Origin { client_ip: stored.client_ip, platform: stored.platform, ..Origin::default() };
    let id = format!("g{conv}-{}-{}", row.no, row.event);
    let body = stored.body.get().as_bytes().to_vec().into();
    Some(hooks::event(app, &row.event, conv.0, id, body, &origin, row.at))
}
