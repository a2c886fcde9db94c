//! What must follow a change whoever owns the group by then: its tip in the log, a recall it has begun.
//!
//! An intent is an outbox row in the change's own write. The owner that made the change carries it out at once; one that
//! took over looks in the log for what is there and does the rest, tips before anything else is stored. Both know an intent
//! by its token, so it is carried out once.

use std::collections::HashSet;

use linnet_proto::delivery::{Record, Revoked, record};
use linnet_proto::messages::RevokeRequest;
use linnet_proto::msg::{Message, MessageKind, Origin};
use linnet_store::groups::{Change, OutboxEvent};
use linnet_types::{GroupType, UserId, code};
use prost::Message as _;

use super::{Group, message_record};
use crate::error::{Result, busy};
use crate::rules::{self, TipFate};
use crate::tips::{self, Person, Place, Tip};

/// Name of the outbox row of a tip.
pub(super) const TIP: &str = "!tip";
/// Name of the outbox row of a recall.
pub(super) const RECALL: &str = "!recall";

/// Whether an outbox row is an intent and no event for the app.
pub(crate) fn is_intent(event: &str) -> bool {
    event.starts_with('!')
}

/// A tip as it will go out.
pub(crate) struct Drafted {
    /// Of a tip that is stored, `seq` is the last position before it.
    message: Message,
    stored: bool,
}

/// A recall under way; what it may is decided.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Recall {
    /// Names it.
    #[prost(fixed64, tag = "1")]
    pub(super) token: u64,
    /// Time it was asked for: the time of the marks it leaves.
    #[prost(uint64, tag = "2")]
    pub(super) mark_ms: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) seqs: Vec<u64>,
    #[prost(string, tag = "4")]
    pub(super) reason: String,
    /// Only messages of this sender; empty = anybody's.
    #[prost(string, tag = "5")]
    pub(super) sender: String,
    #[prost(uint32, tag = "6")]
    pub(super) max_age_s: u32,
    #[prost(message, optional, tag = "7")]
    pub(super) origin: Option<Origin>,
}

impl Drafted {
    /// The change with this tip to follow it; `about` where the change is that of one account.
    pub(super) fn with(&self, change: Change, about: Option<&UserId>) -> Change {
        if !self.stored {
            return change;
        }
        change.event(about.cloned(), TIP, self.message.encode_to_vec())
    }
}

/// Names a tip: its sender's random and the hash of its content.
fn token(message: &Message) -> u64 {
    u64::from(message.random) << 32 | u64::from(message.content_hash)
}

impl Group {
    /// A tip by the operator, of the group as it will be; `None` when it is switched off.
    pub(super) fn draft(&self, tip: &Tip, origin: &Origin, operator: &Person, place: Place<'_>) -> Option<Drafted> {
        let fate = rules::tip_fate(self.kind(), tip.family());
        let hidden = self.kind() == GroupType::Work && !self.record().activated && self.app.settings.work_activation;
        if fate == TipFate::Off || hidden {
            return None;
        }
        let mut message = tips::message(tip, place, origin, operator);
        message.random = self.shared.rng.u32();
        message.content_hash = linnet_admission::content_hash(&message.body, "");
        message.origin_platform.clone_from(&origin.platform);
        message.time_ms = self.now().0.max(self.last_ms);
        let stored = fate != TipFate::Sent;
        message.seq = if stored { self.head.0 } else { 0 };
        Some(Drafted { message, stored })
    }

    /// The tip as it goes out, stored if its kind says so; `None` when it could not be stored yet.
    pub(super) async fn store_tip(&mut self, tip: Drafted) -> Option<Message> {
        let Drafted { message, stored } = tip;
        if !stored {
            return Some(message);
        }
        match self.append_tip(message).await {
            Ok(message) => message,
            Err(refusal) => {
                tracing::debug!(%refusal, "a tip of a group is stored later");
                None
            }
        }
    }

    /// Appends a tip; `None` when the log will never take it.
    async fn append_tip(&mut self, mut message: Message) -> Result<Option<Message>> {
        let token = token(&message);
        message.seq = 0;
        match self.append(vec![message]).await.pop() {
            Some(Ok(stored)) => {
                self.outbox.done.insert(token, Vec::new());
                Ok(Some(stored))
            }
            Some(Err((refusal, _))) if refusal.retry_after_ms.is_none() => {
                tracing::error!(%refusal, "a tip of a group is refused and given up");
                self.outbox.done.insert(token, Vec::new());
                Ok(None)
            }
            Some(Err((refusal, _))) => Err(refusal),
            None => Err(busy("nothing was stored")),
        }
    }

    /// At activation: tips of changes whose owner came no further.
    pub(super) async fn finish_tips(&mut self) -> Result<()> {
        if self.kind().is_live() {
            return Ok(());
        }
        let tips = self.tips_to_come().await?;
        let Some(from) = tips.iter().map(|tip| tip.seq).min() else { return Ok(()) };
        // The log is fenced: what is not there by now will not come.
        let there = self.tips_after(from).await?;
        for tip in tips {
            let token = token(&tip);
            if there.contains(&token) {
                self.outbox.done.insert(token, Vec::new());
                continue;
            }
            self.shared.law.tips_finished.inc();
            if let Some(message) = self.append_tip(tip).await? {
                self.publish(vec![message_record(message, String::new())], &[]);
            }
        }
        Ok(())
    }

    async fn tips_to_come(&mut self) -> Result<Vec<Message>> {
        let (mut tips, mut after) = (Vec::new(), 0);
        loop {
            let groups = self.shared.groups.clone();
            let rows = groups.outbox(&self.held, after, super::outbox::PAGE).await;
            let rows = self.store(rows)?;
            let Some(last) = rows.last() else { return Ok(tips) };
            after = last.no;
            tips.extend(rows.iter().filter_map(tip_of));
        }
    }

    /// Tokens of the tips stored after `seq`.
    async fn tips_after(&self, mut seq: u64) -> Result<HashSet<u64>> {
        let mut there = HashSet::new();
        while seq < self.head.0 {
            let page = self.read(seq + 1).await?;
            let Some(last) = page.last() else { break };
            seq = last.seq;
            there.extend(page.iter().filter(|message| message.kind() == MessageKind::Tip).map(token));
        }
        Ok(there)
    }

    /// Carries out the intent of an outbox row unless that is done; answers its token, and for a recall the positions
    /// recalled.
    pub(super) async fn carry_out(&mut self, row: &OutboxEvent) -> Result<Option<(u64, Option<Recalled>)>> {
        if let Some(tip) = tip_of(row) {
            let token = token(&tip);
            if !self.outbox.done.contains_key(&token)
                && let Some(message) = self.append_tip(tip).await?
            {
                self.publish(vec![message_record(message, String::new())], &[]);
            }
            return Ok(Some((token, None)));
        }
        if row.event != RECALL {
            return Ok(None);
        }
        let Ok(recall) = Recall::decode(&row.body[..]) else {
            tracing::error!(no = row.no, "a recall under way cannot be read");
            return Ok(None);
        };
        if !self.outbox.done.contains_key(&recall.token) {
            match self.recall_now(&recall).await {
                Ok(_) => {}
                Err(refusal) if refusal.retry_after_ms.is_some() => return Err(refusal),
                Err(refusal) => {
                    tracing::error!(%refusal, "a recall under way is refused and given up");
                    self.outbox.done.insert(recall.token, Vec::new());
                }
            }
        }
        let seqs = self.outbox.done.get(&recall.token).cloned().unwrap_or_default();
        let origin = recall.origin.unwrap_or_default();
        Ok(Some((recall.token, Some(Recalled { seqs, origin }))))
    }

    /// Recalls messages and shows that they are; a code for each. Done twice, it is done once.
    pub(super) async fn recall_now(&mut self, recall: &Recall) -> Result<Vec<u32>> {
        let origin = recall.origin.clone().unwrap_or_default();
        let request = RevokeRequest {
            app: self.held.app().0,
            conv: self.held.conv().0,
            seqs: recall.seqs.clone(),
            origin: Some(origin.clone()),
            reason: recall.reason.clone(),
            max_age_s: recall.max_age_s,
            sender: recall.sender.clone(),
            group_epoch: self.held.epoch().0,
            group_id: self.id(),
            retention_days: self.app.settings.retention_days,
            group_type: self.kind().wire().to_owned(),
            mark_ms: recall.mark_ms,
            ..RevokeRequest::default()
        };
        let reply = self.shared.revoke(request).await?;
        let code_of = |seq: &u64| {
            reply.results.iter().find(|result| result.seq == *seq).map_or(code::GROUP_NO_MSG, |result| result.code)
        };
        let codes: Vec<u32> = recall.seqs.iter().map(code_of).collect();
        let done = recall.seqs.iter().zip(&codes).filter(|(_, code)| **code == code::OK);
        let seqs: Vec<u64> = done.map(|(seq, _)| *seq).collect();
        self.outbox.done.insert(recall.token, seqs.clone());
        if !seqs.is_empty() {
            let revoked =
                Revoked { seqs, operator: origin.operator, reason: recall.reason.clone(), ..Revoked::default() };
            self.publish(vec![Record { kind: Some(record::Kind::Revoked(revoked)), ..Record::default() }], &[]);
        }
        Ok(codes)
    }
}

/// What a recall came to.
pub(super) struct Recalled {
    pub(super) seqs: Vec<u64>,
    pub(super) origin: Origin,
}

fn tip_of(row: &OutboxEvent) -> Option<Message> {
    if row.event != TIP {
        return None;
    }
    let tip = Message::decode(&row.body[..]);
    if let Err(error) = &tip {
        tracing::error!(no = row.no, %error, "a tip to come cannot be read");
    }
    tip.ok()
}
