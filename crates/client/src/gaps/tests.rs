use std::collections::BTreeSet;

use linnet_proto::client::Nothing;
use proptest::prelude::*;

use super::*;

fn message(seq: u64) -> Message {
    Message { seq, ..Message::default() }
}

fn shown(todo: &Todo) -> Vec<u64> {
    todo.show.iter().map(|message| message.seq).collect()
}

fn range(todo: &Todo) -> Option<(u64, u64)> {
    todo.ask.as_ref().map(|ask| (ask.from_seq, ask.to_seq))
}

#[test]
fn a_hole_is_closed_before_what_follows_is_shown() {
    let mut gaps = Gaps::default();
    assert_eq!(shown(&gaps.message("g", message(5))), [5], "the first message says where the client stands");
    let todo = gaps.message("g", message(8));
    assert_eq!((shown(&todo), range(&todo)), (vec![], Some((6, 7))));
    let todo = gaps.message("g", message(9));
    assert_eq!((shown(&todo), range(&todo)), (vec![], None), "one question at a time");
    let page = Page { messages: vec![message(6)], covered_from: 6, covered_to: 7, ..Page::default() };
    assert_eq!(shown(&gaps.page("g", page)), [6, 8, 9]);
    assert!(gaps.message("g", message(8)).show.is_empty(), "a double");
}

#[test]
fn what_is_told_while_a_question_is_out_is_not_taken_as_answered() {
    let mut gaps = Gaps::default();
    gaps.head("g", 3);
    assert_eq!(range(&gaps.head("g", 4)), Some((4, 4)));
    gaps.head("g", 6);
    let page =
        Page { messages: vec![message(4)], covered_from: 4, covered_to: 4, head: 6, complete: true, ..Page::default() };
    let todo = gaps.page("g", page);
    assert_eq!((shown(&todo), range(&todo)), (vec![4], Some((5, 6))));
}

#[test]
fn ones_own_messages_are_no_holes() {
    let mut gaps = Gaps::default();
    gaps.head("g", 3);
    assert_eq!(gaps.sent("g", 4), Todo::default());
    assert_eq!(shown(&gaps.message("g", message(5))), [5]);
    let todo = gaps.sent("g", 7);
    assert_eq!(range(&todo), Some((6, 6)));
}

#[test]
fn live_rooms_have_holes() {
    let mut gaps = Gaps::default();
    gaps.live("room");
    assert_eq!(shown(&gaps.message("room", message(5))), [5]);
    assert_eq!(shown(&gaps.message("room", message(9))), [9]);
}

#[test]
fn what_was_refused_history_is_shown_once_and_later_holes_are_asked_for() {
    let mut gaps = Gaps::default();
    gaps.message("g", message(1));
    gaps.message("g", message(4));
    assert_eq!(shown(&gaps.refused("g")), [4]);
    assert_eq!(gaps.message("g", message(4)), Todo::default(), "a double");
    assert_eq!(range(&gaps.message("g", message(9))), Some((5, 8)));
    let page = Page { messages: vec![message(8)], covered_from: 5, covered_to: 8, ..Page::default() };
    assert_eq!(shown(&gaps.page("g", page)), [8, 9]);
}

#[test]
fn a_conversation_that_is_new_after_the_first_sync_is_read_from_its_beginning() {
    let mut gaps = Gaps::default();
    gaps.head("old", 7);
    assert_eq!(gaps.head("old", 7), Todo::default(), "before the sync it is the past");
    gaps.synced_all();
    assert_eq!(range(&gaps.head("new", 3)), Some((1, 3)));
}

#[test]
fn an_answer_that_knows_less_than_was_told_is_asked_for_again_and_that_ends() {
    let mut gaps = Gaps::default();
    gaps.head("g", 3);
    assert_eq!(range(&gaps.head("g", 5)), Some((4, 5)));
    let stale = Page { covered_from: 4, covered_to: 4, head: 4, complete: true, ..Page::default() };
    assert!(gaps.is_behind("g", &stale));
    assert_eq!(range(&gaps.again("g")), Some((4, 5)));
    let fresh = Page { head: 5, ..stale.clone() };
    assert!(!gaps.is_behind("g", &fresh));
    let tries = (0..1_000).take_while(|_| gaps.is_behind("g", &stale)).count();
    assert_eq!(tries, BEHIND as usize);
}

#[test]
fn another_generation_begins_anew() {
    let mut gaps = Gaps::default();
    let at = |head, generation| Conversation { conv: "g".into(), head, generation, ..Conversation::default() };
    gaps.synced(&at(100, 1));
    assert_eq!(range(&gaps.synced(&at(103, 1))), Some((101, 103)));
    assert_eq!(gaps.synced(&at(2, 2)), Todo::default());
    assert_eq!(shown(&gaps.message("g", message(3))), [3]);
}

/// A log of which some positions hold nothing for this user, and a server that answers pages of any size.
struct Log {
    messages: BTreeSet<u64>,
    first: u64,
    head: u64,
}

impl Log {
    fn page(&self, ask: &History, size: u64) -> Page {
        let from = ask.from_seq.max(self.first);
        let to = ask.to_seq.min(self.head).min(from + size);
        let messages =
            if from <= to { self.messages.range(from..=to).map(|seq| message(*seq)).collect() } else { vec![] };
        Page {
            messages,
            nothing: vec![Nothing::default()],
            covered_from: from,
            covered_to: to,
            first_seq: self.first,
            head: self.head,
            complete: to >= ask.to_seq.min(self.head),
            ..Page::default()
        }
    }
}

proptest! {
    #[test]
    fn closing_gaps_always_ends_and_shows_each_message_once_in_order(
        present in proptest::collection::vec(any::<bool>(), 1..200),
        pushed in proptest::collection::vec(1_u64..200, 0..60),
        first in 1_u64..100,
        size in 0_u64..30,
    ) {
        let head = present.len() as u64;
        let first = first.min(head + 1);
        let messages: BTreeSet<u64> =
            present.iter().zip(1..).filter(|(present, seq)| **present && *seq >= first).map(|(_, seq)| seq).collect();
        let log = Log { messages: messages.clone(), first, head };
        let mut gaps = Gaps::default();
        gaps.head("g", 0);
        let mut seen = Vec::new();
        let mut asked = 0;
        let mut work = |todo: Todo, gaps: &mut Gaps| {
            let mut next = Some(todo);
            while let Some(todo) = next.take() {
                seen.extend(shown(&todo));
                if let Some(ask) = todo.ask {
                    asked += 1;
                    assert!(asked < 1000, "does not end");
                    next = Some(gaps.page("g", log.page(&ask, size)));
                }
            }
        };
        for seq in pushed {
            if messages.contains(&seq) {
                let todo = gaps.message("g", message(seq));
                work(todo, &mut gaps);
            }
        }
        let todo = gaps.head("g", head);
        work(todo, &mut gaps);
        prop_assert_eq!(seen, messages.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(gaps.seq("g"), head);
    }
}

#[test]
fn a_conversation_that_began_while_away_is_read_from_its_beginning() {
    let mut gaps = Gaps::default();
    gaps.synced_all();
    assert_eq!(range(&gaps.message("C2C:new", message(3))), Some((1, 2)));
    let found = Conversation { conv: "GROUP:g".into(), head: 9, read_seq: 4, ..Conversation::default() };
    assert_eq!(range(&gaps.synced(&found)), Some((5, 9)));
}
