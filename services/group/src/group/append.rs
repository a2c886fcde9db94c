//! Storing messages: batches to the log, and what is done when an answer does not come.

use std::collections::HashMap;
use std::time::Duration;

use linnet_admission::Token;
use linnet_proto::messages::{AppendReply, AppendRequest, FenceRequest, HistoryRequest};
use linnet_proto::msg::{Message, MessageKind, Outcome, SendReply};
use linnet_runtime::status;
use linnet_types::{ConvId, Refusal, Seq, UserId, code};

use super::Group;
use super::send::WINDOW;
use crate::error::{Result, busy};

/// Messages of one batch.
const BATCH: usize = 20;
/// Bytes of one batch.
const BATCH_BYTES: usize = 48 << 10;
/// Pause between two attempts to settle.
const PAUSE: Duration = Duration::from_millis(100);
/// Messages read at once.
const PAGE: u32 = 100;
/// Messages looked at for de-duplication after a take-over.
const RECOVERED: usize = 12_000;

/// A message as stored, or why not and whether it may be stored all the same.
pub(crate) type Stored = Result<Message, (Refusal, bool)>;

/// How one attempt ended.
enum Attempt {
    Done(AppendReply),
    Refused(Refusal),
    Unknown,
}

impl Group {
    /// Stores messages in order; durable when this returns. The answers are in the order of the messages.
    pub(crate) async fn append(&mut self, messages: Vec<Message>) -> Vec<Stored> {
        let mut stored = Vec::with_capacity(messages.len());
        let mut chunk: Vec<Message> = Vec::new();
        let mut bytes = 0;
        for message in messages {
            let size = message.body.len() + message.cloud_custom_data.len();
            if !chunk.is_empty() && (chunk.len() >= BATCH || bytes + size > BATCH_BYTES) {
                stored.extend(self.append_chunk(std::mem::take(&mut chunk)).await);
                bytes = 0;
            }
            bytes += size;
            chunk.push(message);
        }
        if !chunk.is_empty() {
            stored.extend(self.append_chunk(chunk).await);
        }
        stored
    }

    async fn append_chunk(&mut self, messages: Vec<Message>) -> Vec<Stored> {
        if self.lost {
            return messages.iter().map(|_| Err((busy("the group is moving"), false))).collect();
        }
        let started = self.shared.clock.mono();
        let attempt = self.attempt(&messages).await;
        self.shared.law.append.observe((self.shared.clock.mono() - started).as_secs_f64());
        match attempt {
            Attempt::Done(reply) => self.take(messages, reply),
            Attempt::Refused(refusal) => messages.iter().map(|_| Err((refusal.clone(), false))).collect(),
            Attempt::Unknown => self.settle(messages).await,
        }
    }

    async fn attempt(&mut self, messages: &[Message]) -> Attempt {
        let request = AppendRequest {
            app: self.held.app().0,
            conv: self.held.conv().0,
            group_id: self.id(),
            group_epoch: self.held.epoch().0,
            retention_days: self.app.settings.retention_days,
            messages: messages.to_vec(),
            group_type: self.kind().wire().to_owned(),
            #[cfg(feature = "next")]
            next_build: "what this build adds".to_owned(),
        };
        match self.shared.append(request).await {
            Ok(reply) if reply.appended.len() == messages.len() => Attempt::Done(reply),
            Ok(_) => Attempt::Unknown,
            // A retryable refusal may mean "written, but I cannot tell": it is settled like silence.
            Err(status) => match status::from_status(&status) {
                Some(refusal) if refusal.retry_after_ms.is_none() => Attempt::Refused(refusal),
                _ => Attempt::Unknown,
            },
        }
    }

    fn take(&mut self, messages: Vec<Message>, reply: AppendReply) -> Vec<Stored> {
        self.confirmed = self.shared.clock.mono();
        let mut stored = Vec::with_capacity(messages.len());
        for (mut message, at) in messages.into_iter().zip(reply.appended) {
            (message.seq, message.ord, message.time_ms) = (at.seq, at.ord, at.time_ms);
            self.head = self.head.max(Seq(at.seq));
            self.head_ord = self.head_ord.max(at.ord);
            self.last_ms = self.last_ms.max(at.time_ms);
            stored.push(Ok(message));
        }
        stored
    }

    /// An append without an answer: fences the log, which lets nothing older of this batch land afterwards, and reads what is
    /// there. What is not there is appended again. Nothing else of the group is stored meanwhile.
    async fn settle(&mut self, messages: Vec<Message>) -> Vec<Stored> {
        let deadline = self.shared.clock.mono() + self.shared.config.settle.get();
        let mut last = busy("the outcome is not known yet; retry with the same token");
        while self.shared.clock.mono() < deadline {
            match self.look(&messages).await {
                Ok(true) => {}
                Ok(false) => match self.attempt(&messages).await {
                    Attempt::Done(reply) => return self.take(messages, reply),
                    Attempt::Refused(refusal) => {
                        return messages.iter().map(|_| Err((refusal.clone(), false))).collect();
                    }
                    Attempt::Unknown => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                Err(refusal) => {
                    last = refusal;
                    if self.is_deposed().await {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            match self.found(&messages).await {
                Ok(found) => return found,
                Err(refusal) => last = refusal,
            }
        }
        // The next activation finds out what is stored and answers retries from it.
        self.lost = true;
        messages.iter().map(|_| Err((last.clone(), true))).collect()
    }

    /// Whether another node surely owns the group by now.
    async fn is_deposed(&self) -> bool {
        let groups = self.shared.groups.clone();
        matches!(groups.still_holds(&self.held).await, Ok(false))
    }

    /// Whether the log grew: the batch is in, as a whole.
    async fn look(&mut self, messages: &[Message]) -> Result<bool> {
        let request = FenceRequest {
            app: self.held.app().0,
            conv: self.held.conv().0,
            group_id: self.id(),
            group_epoch: self.held.epoch().0,
            retention_days: self.app.settings.retention_days,
        };
        let reply = self.shared.fence(request).await.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?;
        debug_assert!(!messages.is_empty(), "a batch has messages");
        Ok(reply.head_seq > self.head.0)
    }

    /// Finds the messages of a batch that landed without an answer.
    async fn found(&mut self, messages: &[Message]) -> Result<Vec<Stored>> {
        let mut by_token: HashMap<(String, u32, u32), Vec<Message>> = HashMap::new();
        let mut head = self.head;
        loop {
            let page = self.read(head.0 + 1).await?;
            let Some(last) = page.last() else { break };
            head = Seq(last.seq);
            for message in page {
                let key = (message.from.clone(), message.random, message.content_hash);
                by_token.entry(key).or_default().push(message);
            }
        }
        let mut stored = Vec::with_capacity(messages.len());
        for message in messages {
            let key = (message.from.clone(), message.random, message.content_hash);
            let place = by_token.get_mut(&key).filter(|places| !places.is_empty()).map(|places| places.remove(0));
            stored.push(match place {
                Some(at) => {
                    self.head_ord = self.head_ord.max(at.ord);
                    self.last_ms = self.last_ms.max(at.time_ms);
                    Ok(Message { seq: at.seq, ord: at.ord, time_ms: at.time_ms, ..message.clone() })
                }
                None => Err((busy("not stored; retry with the same token"), false)),
            });
        }
        self.head = head;
        Ok(stored)
    }

    pub(super) async fn read(&self, from_seq: u64) -> Result<Vec<Message>> {
        let request = HistoryRequest {
            app: self.held.app().0,
            conv: self.held.conv().0,
            from_seq,
            ascending: true,
            limit: PAGE,
            retention_days: self.app.settings.retention_days,
            ..HistoryRequest::default()
        };
        let reply = self.shared.history(request).await.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?;
        Ok(reply.messages)
    }

    /// After a take-over: answers of the last minutes are found in the log, so that a retry is not sent twice.
    pub(super) async fn recover(&self, last_time_ms: u64) -> Result<()> {
        let now = self.now();
        let window_ms = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        if self.kind().is_live() || self.head.0 == 0 || now.0.saturating_sub(last_time_ms) > window_ms {
            return Ok(());
        }
        let mut to_seq = self.head.0;
        let mut looked = 0;
        while to_seq > 0 && looked < RECOVERED {
            let request = HistoryRequest {
                app: self.held.app().0,
                conv: self.held.conv().0,
                to_seq,
                limit: PAGE,
                retention_days: self.app.settings.retention_days,
                ..HistoryRequest::default()
            };
            let page = self.shared.history(request).await;
            let page = page.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?;
            looked += page.messages.len();
            for message in &page.messages {
                let age = now.0.saturating_sub(message.time_ms);
                if age > window_ms {
                    return Ok(());
                }
                if message.kind() != MessageKind::Tip {
                    let (token, reply) = remembered(self.held.conv(), message);
                    self.shared.admission.seed(token, reply, WINDOW - Duration::from_millis(age));
                }
            }
            if page.complete || page.covered_from <= 1 || page.covered_from > to_seq {
                break;
            }
            to_seq = page.covered_from - 1;
        }
        Ok(())
    }
}

/// The token and the answer of a stored message.
fn remembered(conv: ConvId, message: &Message) -> (Token, SendReply) {
    let token = Token {
        conv,
        from: UserId::trusted(message.from.as_str()),
        msg_seq: None,
        random: message.random,
        hash: message.content_hash,
    };
    let reply = SendReply {
        outcome: Outcome::Stored.into(),
        seq: message.seq,
        time_ms: message.time_ms,
        msg_seq: message.msg_seq,
        random: message.random,
        ..SendReply::default()
    };
    (token, reply)
}
