//! What a sender keeps for those who missed it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

/// Kept this long: the repeat after 4 s must still find what it announces, and a retried question its answer.
pub(crate) const KEEP_FOR: Duration = Duration::from_secs(6);
/// Most bytes one stream keeps.
pub(crate) const KEEP_BYTES: usize = 8 << 20;
/// Above this many bytes in all streams of a node, a stream keeps [`CROWDED_BYTES`].
const NODE_BYTES: usize = 64 << 20;
const CROWDED_BYTES: usize = 64 << 10;

/// Bytes kept by all streams of a publisher.
pub(crate) type Total = Arc<AtomicUsize>;

/// The newest items of one numbered stream. Numbers rise by one.
#[derive(Debug)]
pub(crate) struct Keep {
    items: VecDeque<Item>,
    bytes: usize,
    total: Total,
}

#[derive(Debug)]
struct Item {
    no: u64,
    at: Duration,
    bytes: Bytes,
}

impl Keep {
    pub(crate) fn new(total: Total) -> Self {
        Self { items: VecDeque::new(), bytes: 0, total }
    }

    pub(crate) fn push(&mut self, no: u64, at: Duration, bytes: Bytes) {
        self.bytes += bytes.len();
        let total = self.total.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        self.items.push_back(Item { no, at, bytes });
        let cap = if total > NODE_BYTES { CROWDED_BYTES } else { KEEP_BYTES };
        while self.bytes > cap && self.items.len() > 1 {
            self.pop();
        }
        self.trim(at);
    }

    /// Forgets what is too old. True when nothing is left.
    pub(crate) fn trim(&mut self, now: Duration) -> bool {
        while self.items.front().is_some_and(|item| item.at + KEEP_FOR < now) {
            self.pop();
        }
        self.items.is_empty()
    }

    /// Items `from..=to` in order, about `cap` bytes of them, and whether `from` itself is no longer kept.
    pub(crate) fn range(&self, from: u64, to: u64, cap: usize) -> (Vec<Bytes>, bool) {
        let mut found = Vec::new();
        let mut size = 0;
        let Some(first) = self.items.front().map(|item| item.no) else { return (found, true) };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        for item in self.items.iter().skip(skip).take_while(|item| item.no <= to) {
            size += item.bytes.len();
            if size > cap && !found.is_empty() {
                break;
            }
            found.push(item.bytes.clone());
        }
        (found, from < first)
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= item.bytes.len();
            self.total.fetch_sub(item.bytes.len(), Ordering::Relaxed);
        }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(count: u64, size: usize) -> Keep {
        let mut keep = Keep::new(Total::default());
        for no in 1..=count {
            keep.push(no, Duration::from_millis(no), Bytes::from(vec![0; size]));
        }
        keep
    }

    #[test]
    fn answers_ranges_and_says_what_is_gone() {
        let mut keep = keep(10, 8);
        assert_eq!(keep.range(3, 5, 1000).0.len(), 3);
        assert_eq!(keep.range(9, u64::MAX, 1000), (vec![Bytes::from(vec![0; 8]); 2], false));
        assert_eq!(keep.range(1, 10, 20).0.len(), 2, "cut by size, first ones first");
        assert!(!keep.trim(KEEP_FOR + Duration::from_millis(5)));
        let (found, gone) = keep.range(3, 6, 1000);
        assert_eq!((found.len(), gone), (2, true));
        assert!(keep.trim(KEEP_FOR * 2));
        assert_eq!(keep.range(3, 6, 1000), (Vec::new(), true));
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let keep = keep(20, 1 << 20);
        assert!(keep.bytes <= KEEP_BYTES);
        let total = Arc::clone(&keep.total);
        assert_eq!(total.load(Ordering::Relaxed), keep.bytes);
        drop(keep);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
