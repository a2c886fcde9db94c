//! Numbered items put in order.

use std::collections::BTreeMap;

/// Items held while an earlier one is missing; what comes above is asked for again.
const HELD_MAX: usize = 4096;

/// The receiving end of a numbered stream.
#[derive(Debug)]
pub(super) struct Line<T> {
    next: u64,
    /// Highest number heard of.
    known: u64,
    held: BTreeMap<u64, T>,
    /// Something may have been lost at the end.
    suspect: bool,
}

impl<T> Line<T> {
    /// Begins with number `next`.
    pub(super) fn new(next: u64) -> Self {
        Self { next, known: next - 1, held: BTreeMap::new(), suspect: false }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes an item in; false when it was here before.
    pub(super) fn take(&mut self, no: u64, item: T) -> bool {
        if no < self.next || self.held.contains_key(&no) {
            return false;
        }
        self.known = self.known.max(no);
        if self.held.len() < HELD_MAX || no == self.next {
            self.held.insert(no, item);
        }
        true
    }

    /// The next item, if it is here.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.held.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }

    /// `no` is the sender's last number.
    pub(super) fn heard(&mut self, no: u64) {
        self.known = self.known.max(no);
    }

    /// The sender's answer to a question: `no` is its last number now.
    pub(super) fn answered(&mut self, no: u64) {
        let held = self.held.keys().next_back().copied().unwrap_or(0);
        self.known = no.max(held).max(self.next - 1);
        self.suspect = false;
    }

    /// Anything may be missing.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// The first run of missing numbers; its end is open when only the sender knows.
    pub(super) fn hole(&self) -> Option<(u64, u64)> {
        if self.suspect {
            return Some((self.next, u64::MAX));
        }
        match self.held.keys().next() {
            Some(first) if *first == self.next => None,
            Some(first) => Some((self.next, first - 1)),
            None if self.known >= self.next => Some((self.next, self.known)),
            None => None,
        }
    }

    /// Gives up what is missing before `no`, and what is held before it. Answers how many numbers were given up.
    pub(super) fn skip_to(&mut self, no: u64) -> u64 {
        let lost = no.saturating_sub(self.next);
        self.next = self.next.max(no);
        self.known = self.known.max(self.next - 1);
        self.held = self.held.split_off(&self.next);
        lost
    }

    /// Gives up the first hole.
    pub(super) fn skip_hole(&mut self) -> u64 {
        self.suspect = false;
        let to = self.held.keys().next().copied().unwrap_or(self.known + 1);
        self.skip_to(to)
    }

    /// Numbers heard of and never received.
    pub(super) fn outstanding(&self) -> u64 {
        (self.known + 1).saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(line: &mut Line<u64>) -> Vec<u64> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn holes_are_seen_from_both_sides() {
        let mut line = Line::new(1);
        assert!(line.take(1, 1) && line.take(3, 3) && !line.take(3, 3));
        assert_eq!(drain(&mut line), [1]);
        assert!(!line.take(1, 1), "a double");
        assert_eq!(line.hole(), Some((2, 2)));
        line.take(2, 2);
        assert_eq!((drain(&mut line), line.hole()), (vec![2, 3], None));
        line.heard(5);
        assert_eq!(line.hole(), Some((4, 5)));
        line.answered(3);
        assert_eq!(line.hole(), None, "the sender knows better");
        line.suspect();
        assert_eq!(line.hole(), Some((4, u64::MAX)));
        line.answered(4);
        assert_eq!(line.hole(), Some((4, 4)));
        assert_eq!(line.skip_hole(), 1);
        assert_eq!((line.next(), line.hole()), (5, None));
    }

    #[test]
    fn skipping_counts_what_is_given_up() {
        let mut line = Line::new(1);
        line.take(4, 4);
        line.take(7, 7);
        assert_eq!(line.skip_to(6), 5);
        assert_eq!(line.hole(), Some((6, 6)));
        assert_eq!(line.outstanding(), 2);
    }

    proptest! {
        #[test]
        fn any_order_comes_out_in_order(mut order in Just((1..=40u64).collect::<Vec<_>>()).prop_shuffle(), again in 0..40usize) {
            order.push(order[again]);
            let mut line = Line::new(1);
            let mut out = Vec::new();
            for no in order {
                line.take(no, no);
                out.extend(drain(&mut line));
            }
            prop_assert_eq!(out, (1..=40).collect::<Vec<_>>());
            prop_assert_eq!(line.hole(), None);
        }
    }
}
