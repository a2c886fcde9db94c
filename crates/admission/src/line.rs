//! What one connection has out in one conversation, so that nothing it sent overtakes what it sent before.
//!
//! A gateway hands messages over in order and without waiting for answers. When one of them is not taken (its owner moves,
//! its store does not answer), those behind it must not be stored before it comes again. Each message therefore names the
//! one before it that had no answer yet; the actor takes it only when that one is decided, or taken by the same actor.
//!
//! ```text
//! arrive -> Flight --take(actor)--> Taken --settled--> the one behind may go
//!                     |               '--- dropped: not stored, the one behind is refused ("busy") and comes again
//!                     '--- None: the one before is not here
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linnet_proto::msg::InLine;
use linnet_types::Refusal;
use parking_lot::Mutex;

/// How long a line of which nothing is out is remembered: longer than an answer takes to its gateway. Forgotten too early,
/// the next message is refused once and comes again.
const KEPT: Duration = Duration::from_secs(5);

/// Connection, and conversation as the caller names it.
type Key = (String, String);

/// One life of an actor: two of them never take messages of one line side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker(u64);

impl Taker {
    /// Another than all before.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "no two are equal")]
    pub fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Lines of connections; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    lines: HashMap<Key, Arc<Line>>,
    /// When each is looked at, whether it can be forgotten.
    old: VecDeque<(Duration, Key)>,
}

#[derive(Debug, Default)]
struct Line {
    stands: Mutex<Stands>,
}

#[derive(Debug, Default)]
struct Stands {
    by_no: BTreeMap<u64, Stand>,
    touched: Duration,
}

#[derive(Debug)]
struct Stand {
    after: u64,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Taken(Taker),
    Decided,
}

/// A message's place in its line; nothing at all for messages that are in none.
#[derive(Clone, Debug, Default)]
pub struct Flight(Option<Arc<Out>>);

#[derive(Debug)]
struct Out {
    line: Arc<Line>,
    place: InLine,
}

/// A message that an actor has taken. Dropped, it counts as not stored.
#[derive(Debug)]
pub struct Taken {
    flight: Flight,
    by: Taker,
}

impl Lines {
    pub(crate) fn take(&self, connection: &str, conv: &str, place: Option<InLine>, now: Duration) -> Flight {
        let Some(place) = place.filter(|place| place.no > 0 && !connection.is_empty()) else { return Flight(None) };
        let mut kept = self.kept.lock();
        kept.forget(now);
        let key = (connection.to_owned(), conv.to_owned());
        let line = if let Some(line) = kept.lines.get(&key) {
            Arc::clone(line)
        } else {
            let line = Arc::<Line>::default();
            kept.lines.insert(key.clone(), Arc::clone(&line));
            kept.old.push_back((now + KEPT, key));
            line
        };
        line.stands.lock().touched = now;
        Flight(Some(Arc::new(Out { line, place })))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.lock().lines.len()
    }
}

impl Kept {
    fn forget(&mut self, now: Duration) {
        while let Some((at, _)) = self.old.front()
            && *at <= now
        {
            let Some((_, key)) = self.old.pop_front() else { break };
            let Some(line) = self.lines.get(&key) else { continue };
            let last = line.stands.lock().touched + KEPT;
            if last <= now && Arc::strong_count(line) == 1 {
                self.lines.remove(&key);
            } else {
                self.old.push_back((last.max(now + KEPT / 2), key));
            }
        }
    }
}

impl Flight {
    /// Whether `actor` may store this message now; call it in the order of the mailbox. `None`: a message before it was not
    /// taken, and this one is refused so that both come again.
    #[must_use]
    pub fn take(&self, actor: Taker) -> Option<Taken> {
        if let Some(out) = &self.0 {
            let InLine { no, after, first } = out.place;
            let mut stands = out.line.stands.lock();
            if !stands.leads(after, first, actor) {
                return None;
            }
            stands.set(no, after, first, At::Taken(actor));
        }
        Some(Taken { flight: self.clone(), by: actor })
    }

    /// Notes what became of the message: stored, or refused for good, lets the next one go.
    pub fn settled(&self, refused: Option<&Refusal>) {
        if refused.is_some_and(Refusal::is_worth_a_retry) {
            return;
        }
        if let Some(out) = &self.0 {
            let InLine { no, after, first } = out.place;
            out.line.stands.lock().set(no, after, first, At::Decided);
        }
    }
}

impl Taken {
    /// As [`Flight::settled`]; refused for now, it is not taken any more.
    pub fn settled(self, refused: Option<&Refusal>) {
        self.flight.settled(refused);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(out) = &self.flight.0 {
            let mut stands = out.line.stands.lock();
            if stands.by_no.get(&out.place.no).is_some_and(|stand| stand.at == At::Taken(self.by)) {
                stands.by_no.remove(&out.place.no);
            }
        }
    }
}

impl Stands {
    /// Whether every message from `first` to `after` is decided or with `actor`.
    fn leads(&self, after: u64, first: u64, actor: Taker) -> bool {
        let mut no = after;
        while no != 0 && no >= first {
            match self.by_no.get(&no) {
                Some(stand) if stand.at == At::Decided || stand.at == At::Taken(actor) => no = stand.after.min(no - 1),
                _ => return false,
            }
        }
        true
    }

    fn set(&mut self, no: u64, after: u64, first: u64, at: At) {
        // What is before the first without an answer has one.
        if self.by_no.first_key_value().is_some_and(|(oldest, _)| *oldest < first) {
            self.by_no = self.by_no.split_off(&first);
        }
        self.by_no.insert(no, Stand { after, at });
    }
}

#[cfg(test)]
mod tests {
    use linnet_types::code;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn flight(lines: &Lines, no: u64, after: u64, first: u64) -> Flight {
        lines.take("g/1", "group:a", Some(InLine { no, after, first }), NOW)
    }
    fn busy() -> Refusal {
        Refusal::retry(code::BUSY, "busy", 50)
    }

    #[test]
    fn a_message_goes_behind_one_that_the_same_actor_took() {
        let (lines, actor) = (Lines::default(), Taker::new());
        let first = flight(&lines, 7, 0, 7).take(actor).unwrap();
        let second = flight(&lines, 9, 7, 7).take(actor).unwrap();
        assert!(flight(&lines, 12, 9, 7).take(Taker::new()).is_none(), "another actor knows nothing of the two");
        first.settled(None);
        second.settled(None);
        assert!(flight(&lines, 12, 9, 7).take(Taker::new()).is_some());
    }

    #[test]
    fn one_that_was_not_stored_holds_up_all_behind_it_until_it_comes_again() {
        let (lines, actor) = (Lines::default(), Taker::new());
        drop(flight(&lines, 1, 0, 1).take(actor));
        let second = flight(&lines, 2, 1, 1);
        assert!(second.take(actor).is_none());
        second.settled(Some(&busy()));
        // Refused for good, and still nothing behind it goes before the first.
        second.settled(Some(&Refusal::new(code::GROUP_VETO, "no")));
        assert!(flight(&lines, 3, 2, 1).take(actor).is_none());
        flight(&lines, 1, 0, 1).take(actor).unwrap().settled(None);
        assert!(flight(&lines, 3, 2, 1).take(actor).is_some());
    }

    #[test]
    fn what_the_gateway_has_answers_for_does_not_matter() {
        let (lines, actor) = (Lines::default(), Taker::new());
        // A new owner: it has never heard of 1 and 2.
        assert!(flight(&lines, 3, 2, 2).take(actor).is_none());
        flight(&lines, 2, 0, 2).settled(None);
        assert!(flight(&lines, 3, 2, 2).take(actor).is_some());
        assert!(flight(&lines, 4, 0, 4).take(actor).is_some());
    }

    #[test]
    fn a_copy_of_one_that_is_out_does_not_take_its_place_away() {
        let (lines, actor) = (Lines::default(), Taker::new());
        let taken = flight(&lines, 1, 0, 1).take(actor);
        let copy = flight(&lines, 1, 0, 1);
        copy.settled(Some(&busy()));
        drop(copy);
        assert!(flight(&lines, 2, 1, 1).take(actor).is_some());
        drop(taken);
    }

    #[test]
    fn other_lines_and_messages_without_one_are_free() {
        let (lines, actor) = (Lines::default(), Taker::new());
        drop(flight(&lines, 1, 0, 1).take(actor));
        assert!(lines.take("g/2", "group:a", Some(InLine { no: 1, after: 0, first: 1 }), NOW).take(actor).is_some());
        assert!(lines.take("", "group:a", Some(InLine { no: 5, after: 4, first: 4 }), NOW).take(actor).is_some());
        assert!(lines.take("g/1", "group:a", None, NOW).take(actor).is_some());
    }

    #[test]
    fn lines_of_which_nothing_is_out_are_forgotten() {
        let (lines, actor) = (Lines::default(), Taker::new());
        let held = lines.take("g/0", "group:a", Some(InLine { no: 1, after: 0, first: 1 }), NOW).take(actor);
        for n in 1..1000 {
            let one = lines.take(&format!("g/{n}"), "group:a", Some(InLine { no: 1, after: 0, first: 1 }), NOW);
            one.take(actor).unwrap().settled(None);
        }
        assert_eq!(lines.len(), 1000);
        flight(&lines, 1, 0, 1);
        let _ = lines.take("g/new", "group:a", Some(InLine { no: 1, after: 0, first: 1 }), NOW + KEPT + KEPT);
        assert_eq!(lines.len(), 2, "the one that is out, and the new one");
        drop(held);
    }
}
