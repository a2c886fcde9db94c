//! What waits for one connection, and what becomes of it when the connection cannot keep up.
//!
//! A queue exists only after a blocked write. It is bounded in frames and bytes. When it is full, live messages go first,
//! the least important before others; then stored conversations collapse into "advanced to N". Control frames (replies,
//! notices, recalls, room states) are never dropped; the connection is closed instead when they alone pass the bound of
//! [`Limits::hard_bytes`], or when the queue stays full past a deadline (the shard watches that).

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::{Fate, Ledger};

/// How a frame may be treated when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Live and online-only messages; 3 is dropped first.
    Droppable(u8),
    /// Messages of a log: may collapse.
    Stored,
    /// Never dropped.
    Control,
}

/// Where a stored conversation stands after a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// As the receiver names it.
    pub(crate) name: Arc<str>,
    pub(crate) seq: u64,
}

/// A frame on its way to one connection; the bytes are shared by all its receivers.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Bytes,
    /// Deliveries the accounting law counts in it.
    pub(crate) items: u32,
    pub(crate) class: Class,
    /// With [`Class::Stored`].
    pub(crate) head: Option<Head>,
}

impl Outgoing {
    pub(crate) fn control(bytes: Bytes) -> Self {
        Self { bytes, items: 0, class: Class::Control, head: None }
    }
}

/// Bounds of one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) hard_bytes: usize,
}

/// What adding a frame did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Fits,
    /// Something was left out to make room.
    Squeezed,
    /// Control frames alone are too many: close the connection.
    Overflow,
}

/// Frames waiting for one connection.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// Bytes of the first frame already written.
    offset: usize,
    /// Conversations whose frames were left out, with the position to tell.
    collapsed: BTreeMap<Arc<str>, u64>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.collapsed.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries still waiting.
    pub(crate) fn items(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.items)).sum()
    }

    /// Adds a frame, making room by the rules above.
    pub(crate) fn push(&mut self, frame: Outgoing, limits: Limits, ledger: &Ledger) -> Added {
        if let Some(head) = &frame.head
            && let Some(told) = self.collapsed.get_mut(&head.name)
            && frame.class == Class::Stored
        {
            *told = (*told).max(head.seq);
            ledger.fate(Fate::Collapsed, frame.items.into());
            return Added::Squeezed;
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        if self.fits(limits) {
            return Added::Fits;
        }
        for rank in (0..=3).rev() {
            self.drop_class(Class::Droppable(rank), ledger);
            if self.fits(limits) {
                return Added::Squeezed;
            }
        }
        self.drop_class(Class::Stored, ledger);
        if self.bytes > limits.hard_bytes { Added::Overflow } else { Added::Squeezed }
    }

    fn fits(&self, limits: Limits) -> bool {
        self.frames.len() <= limits.frames && self.bytes <= limits.bytes
    }

    /// Removes the frames of one class, except one that is partly written.
    fn drop_class(&mut self, class: Class, ledger: &Ledger) {
        let started = self.offset > 0;
        let (mut index, mut freed) = (0, 0);
        let collapsed = &mut self.collapsed;
        self.frames.retain(|frame| {
            index += 1;
            if frame.class != class || (index == 1 && started) {
                return true;
            }
            freed += frame.bytes.len();
            match (&frame.head, class) {
                (Some(head), Class::Stored) => {
                    let told = collapsed.entry(Arc::clone(&head.name)).or_default();
                    *told = (*told).max(head.seq);
                    ledger.fate(Fate::Collapsed, frame.items.into());
                }
                _ => ledger.dropped(class, frame.items.into()),
            }
            false
        });
        self.bytes -= freed;
    }

    /// The next buffers to write, at most `slices.len()`; the number filled in.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            let skip = if filled == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(&frame.bytes[skip..]);
            filled += 1;
        }
        filled
    }

    /// Takes `written` bytes off the front.
    pub(crate) fn advance(&mut self, mut written: usize, ledger: &Ledger) {
        while let Some(frame) = self.frames.front() {
            let left = frame.bytes.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.bytes -= frame.bytes.len();
            ledger.written(frame.bytes.len(), frame.items);
            self.frames.pop_front();
        }
        debug_assert_eq!(written, 0, "more was written than there was");
    }

    /// A first frame of which `written` bytes are out already.
    pub(crate) fn begin(frame: Outgoing, written: usize) -> Self {
        debug_assert!(written < frame.bytes.len());
        Self { bytes: frame.bytes.len(), frames: VecDeque::from([frame]), offset: written, collapsed: BTreeMap::new() }
    }

    /// Once every frame is out: the conversations that must be told how far they went.
    pub(crate) fn take_collapsed(&mut self) -> Option<BTreeMap<Arc<str>, u64>> {
        (self.frames.is_empty() && !self.collapsed.is_empty()).then(|| std::mem::take(&mut self.collapsed))
    }

    /// Counts what can no longer be written.
    pub(crate) fn abandon(&mut self, ledger: &Ledger) {
        ledger.fate(Fate::Closed, self.items());
        self.frames.clear();
        self.collapsed.clear();
        (self.bytes, self.offset) = (0, 0);
    }

    #[cfg(test)]
    fn drain_all(&mut self, ledger: &Ledger) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(frame) = self.frames.front() {
            let bytes = frame.bytes.slice(self.offset..);
            out.extend_from_slice(&bytes);
            self.advance(bytes.len(), ledger);
        }
        out
    }
}

#[cfg(test)]
mod tests;
