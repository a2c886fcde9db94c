//! What one viewer sees of a run of positions: every one is a message or part of a placeholder, so closing gaps ends.

use std::collections::BTreeSet;

use bytes::Bytes;
use linnet_proto::msg::{Message, Placeholder, Visibility};

/// Who looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewer {
    /// `None` sees everything: an administrator.
    pub user: Option<String>,
    /// Nothing at or below is shown.
    pub floor: u64,
    /// Why the floor is there: the viewer cleared his history, or came later.
    pub cleared: bool,
    /// Deleted by the viewer for himself.
    pub deleted: BTreeSet<u64>,
}

/// Why a position shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its life ended.
    Expired,
    /// Not meant for this viewer.
    Hidden,
    /// The viewer removed it.
    Deleted,
}

impl Why {
    fn wire(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Hidden => "hidden",
            Self::Deleted => "deleted",
        }
    }
}

impl Viewer {
    /// Why `message` is not shown; `None` when it is.
    pub(crate) fn hidden(&self, message: &Message) -> Option<Why> {
        if message.seq <= self.floor {
            return Some(self.below_floor());
        }
        if self.deleted.contains(&message.seq) {
            return Some(Why::Deleted);
        }
        let user = self.user.as_ref()?;
        let own = *user == message.from;
        let shown = match message.visibility() {
            Visibility::All => true,
            Visibility::Listed => own || message.visible_to.contains(user),
            Visibility::Sender => own,
            Visibility::Receiver => !own,
        };
        (!shown).then_some(Why::Hidden)
    }

    pub(crate) fn below_floor(&self) -> Why {
        if self.cleared { Why::Deleted } else { Why::Hidden }
    }

    /// The message as viewers may see it: without the content of what was recalled.
    pub(crate) fn show(mut message: Message) -> Message {
        if message.revoked {
            message.body = Bytes::from_static(b"[]");
            message.cloud_custom_data.clear();
            message.offline_push.clear();
        }
        message
    }
}

/// A page being filled in the order of reading.
#[derive(Debug)]
pub(crate) struct Page {
    ascending: bool,
    /// Where reading began; `None` until the first position.
    start: u64,
    /// The position read next.
    next: u64,
    pub messages: Vec<Message>,
    pub placeholders: Vec<Placeholder>,
    bytes: usize,
    limit: usize,
    max_bytes: usize,
}

impl Page {
    /// An empty page that begins at `start`; it takes `limit` messages and about `max_bytes` of bodies, but at least one.
    pub(crate) fn new(start: u64, ascending: bool, limit: usize, max_bytes: usize) -> Self {
        Self {
            ascending,
            start,
            next: start,
            messages: Vec::new(),
            placeholders: Vec::new(),
            bytes: 0,
            limit,
            max_bytes,
        }
    }

    /// Takes the next row, which `hidden` keeps from the viewer or not; what was skipped since the row before is expired.
    /// False when the page is full: the row was not taken.
    pub(crate) fn take(&mut self, message: Message, hidden: Option<Why>) -> bool {
        let seq = message.seq;
        if hidden.is_none() {
            let size = message.body.len() + message.cloud_custom_data.len();
            let full = self.messages.len() >= self.limit || self.bytes + size > self.max_bytes;
            if full && !self.messages.is_empty() {
                return false;
            }
            self.bytes += size;
        }
        self.skip_to(seq, Why::Expired);
        match hidden {
            Some(why) => self.placeholder(seq, seq, why),
            None => self.messages.push(Viewer::show(message)),
        }
        self.step(seq);
        true
    }

    /// Covers everything before `seq` (in the order of reading) that is not covered yet with a placeholder.
    pub(crate) fn skip_to(&mut self, seq: u64, why: Why) {
        let (from, to) = if self.ascending { (self.next, seq) } else { (seq, self.next) };
        if from < to {
            let (from, to) = if self.ascending { (from, to - 1) } else { (from + 1, to) };
            self.placeholder(from, to, why);
            self.next = seq;
        }
    }

    /// Covers up to and with `last`.
    pub(crate) fn finish(&mut self, last: u64, why: Why) {
        if self.behind(last) {
            self.skip_to(last, why);
            self.placeholder(last, last, why);
            self.step(last);
        }
    }

    fn behind(&self, last: u64) -> bool {
        if self.ascending { self.next <= last } else { self.next >= last && self.next > 0 }
    }

    fn step(&mut self, seq: u64) {
        self.next = if self.ascending { seq + 1 } else { seq.saturating_sub(1) };
    }

    fn placeholder(&mut self, from_seq: u64, to_seq: u64, why: Why) {
        if let Some(last) = self.placeholders.last_mut()
            && last.why == why.wire()
        {
            let joins = if self.ascending { last.to_seq + 1 == from_seq } else { to_seq + 1 == last.from_seq };
            if joins {
                last.from_seq = last.from_seq.min(from_seq);
                last.to_seq = last.to_seq.max(to_seq);
                return;
            }
        }
        self.placeholders.push(Placeholder { from_seq, to_seq, why: why.wire().to_owned() });
    }

    /// The position read next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Inclusive range covered so far; empty as (1, 0).
    pub(crate) fn covered(&self) -> (u64, u64) {
        match (self.ascending, self.next == self.start) {
            (_, true) => (1, 0),
            (true, _) => (self.start, self.next - 1),
            (false, _) => (self.next + 1, self.start),
        }
    }
}

#[cfg(test)]
mod tests;
