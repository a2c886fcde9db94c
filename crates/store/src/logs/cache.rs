//! The newest messages of an active log, in memory: what nearly every history read asks for.

use std::collections::VecDeque;
use std::time::Duration;

use linnet_proto::store::Revision;
use linnet_types::Seq;

use super::Result;
use super::log::Log;
use super::read::{Page, Stored, lay_over};
use super::tables::{bucket_of, class_of};
use crate::rows::Life;

/// Messages kept: a page or two.
const MESSAGES: usize = 64;
/// Bytes kept.
const BYTES: usize = 256 * 1024;
/// How long an owner answers from memory without a sign that it still is the owner.
const UNCONFIRMED: Duration = Duration::from_secs(8);

/// The newest messages without a hole, up to the last one of the log. Empty until somebody has read the tail, so a log
/// that is only written to holds nothing.
#[derive(Debug, Default)]
pub(super) struct TailCache {
    /// Oldest first.
    messages: VecDeque<Stored>,
    bytes: usize,
}

impl TailCache {
    pub(super) fn is_filled(&self) -> bool {
        !self.messages.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    fn fill(&mut self, page: &Page) {
        self.clear();
        for stored in page.messages.iter().take(MESSAGES) {
            self.bytes += cost(stored);
            self.messages.push_front(stored.clone());
        }
        self.shrink();
    }

    pub(super) fn push(&mut self, stored: Stored) {
        if self.messages.back().is_some_and(|last| last.seq.next() == stored.seq) {
            self.bytes += cost(&stored);
            self.messages.push_back(stored);
            self.shrink();
        } else {
            self.clear();
        }
    }

    fn shrink(&mut self) {
        while self.messages.len() > MESSAGES || self.bytes > BYTES {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= cost(&oldest);
        }
    }

    pub(super) fn revise(&mut self, seq: Seq, revision: &Revision) {
        let Some(stored) = self.messages.iter_mut().find(|stored| stored.seq == seq) else { return };
        let before = cost(stored);
        *stored = lay_over(seq, stored.head.clone(), std::mem::take(&mut stored.body), Some(revision.clone()));
        self.bytes = self.bytes + cost(stored) - before;
    }

    /// Messages of `low..=high`, newest first, if all of them are here.
    fn between(&self, low: u64, high: u64) -> Option<Vec<Stored>> {
        let (oldest, newest) = (self.messages.front()?.seq.0, self.messages.back()?.seq.0);
        if low < oldest || high > newest || low > high {
            return None;
        }
        let at = |seq: u64| usize::try_from(seq - oldest).ok();
        Some(self.messages.range(at(low)?..=at(high)?).rev().cloned().collect())
    }
}

fn cost(stored: &Stored) -> usize {
    stored.body.len() + 200
}

impl Log {
    /// Reads history as [`super::Reader::history`] does, the newest messages from memory. An owner that has not heard from
    /// the store for 8 s asks first whether it still is the owner.
    ///
    /// # Errors
    /// [`super::Error::StaleOwner`], [`super::Error::Store`].
    pub async fn history(&mut self, from: Seq, to: Seq, limit: usize) -> Result<Page> {
        self.usable()?;
        if self.cache.is_filled() && self.unconfirmed_for() > UNCONFIRMED {
            self.confirm().await?;
        }
        if let Some(page) = self.cached(from, to, limit) {
            return Ok(page);
        }
        let page = self.reader().history(from, to, limit).await?;
        let whole = page
            .messages
            .last()
            .is_some_and(|oldest| page.messages.len() as u64 == self.tail.last_seq + 1 - oldest.seq.0);
        if page.to == self.last_seq() && whole && self.pending.is_none() {
            self.cache.fill(&page);
        }
        Ok(page)
    }

    /// The part of [`history`](Self::history) that needs no store; `None` when memory does not hold the answer, or the
    /// log was not [confirmed](Self::confirm) for 8 s.
    #[must_use]
    pub fn cached(&self, from: Seq, to: Seq, limit: usize) -> Option<Page> {
        if self.stale || self.unconfirmed_for() > UNCONFIRMED {
            return None;
        }
        let high = to.0.min(self.tail.last_seq);
        let readable = self.first_seq.max(self.floor + 1);
        let low = from.0.max(readable);
        let lowest = low.max((high + 1).saturating_sub(limit as u64));
        let messages = self.cache.between(lowest, high)?;
        let oldest = messages.last()?;
        if self.is_expired(oldest) || from.0 < low && lowest == low {
            return None;
        }
        Some(Page {
            messages,
            missing: Vec::new(),
            from: Seq(lowest),
            to: Seq(high),
            first_seq: Seq(readable),
            last_seq: self.last_seq(),
        })
    }

    fn is_expired(&self, stored: &Stored) -> bool {
        match class_of(&self.classes, bucket_of(stored.seq.0)).life() {
            Life::Forever => false,
            Life::For(life) => {
                let age = self.inner.clock.now().0.saturating_sub(stored.head.time_ms);
                Duration::from_millis(age) >= life
            }
        }
    }

    /// Looks up what has expired by now, so that heads and pages say so. For an actor with nothing better to do: some
    /// point reads, none in a log that keeps everything.
    ///
    /// # Errors
    /// [`super::Error::StaleOwner`], [`super::Error::Store`].
    pub async fn refresh_first_seq(&mut self) -> Result<Seq> {
        self.usable()?;
        let first = self.reader().first_seq().await?;
        if first.0 > self.first_seq {
            self.first_seq = first.0;
            self.touch(0);
        }
        Ok(first)
    }
}
