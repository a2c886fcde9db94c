//! The count by ordinals against a model that walks every message.

use std::collections::BTreeMap;

use linnet_proto::msg::{Message, MessageKind, Visibility};
use proptest::prelude::*;

use super::*;

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// One conversation: a log with ordinals, the places of its users, and beside it the truth by walking.
#[derive(Default)]
struct World {
    log: Vec<(Message, bool)>,
    ord: u64,
    places: BTreeMap<&'static str, Place>,
    /// Own messages the sender's place does not know yet.
    untold: Vec<(&'static str, u64)>,
    walked: BTreeMap<&'static str, Walked>,
}

#[derive(Clone, Copy, Default)]
struct Walked {
    read_seq: u64,
    /// What was added by hand at the time.
    adjust: i64,
}

impl World {
    fn send(&mut self, from: &'static str, change: impl FnOnce(&mut Message)) -> u64 {
        let seq = self.log.len() as u64 + 1;
        let mut message = Message { seq, from: from.into(), kind: MessageKind::Chat.into(), ..Message::default() };
        change(&mut message);
        self.ord += u64::from(countable(&message));
        message.ord = self.ord;
        if countable(&message) {
            self.untold.push((from, seq));
        }
        self.log.push((message, false));
        seq
    }

    fn say(&mut self, from: &'static str) -> u64 {
        self.send(from, |_| {})
    }

    fn revoke(&mut self, seq: u64) {
        self.log[seq as usize - 1].1 = true;
    }

    /// The side-effect task catches up.
    fn tell(&mut self) {
        for (user, seq) in std::mem::take(&mut self.untold) {
            let place = self.places.entry(user).or_default();
            *place = sent(place, &[seq]);
        }
    }

    fn tail(&self, user: &str) -> Tail {
        let revoked = self.log.iter().filter(|(m, gone)| *gone && countable(m) && m.from != user).map(|(m, _)| m.seq);
        let own = self.untold.iter().filter(|(from, _)| *from == user).map(|(_, seq)| *seq);
        Tail {
            seq: self.log.len() as u64,
            ord: self.ord,
            generation: 0,
            revoked: revoked.collect(),
            own: own.collect(),
        }
    }

    fn read(&mut self, user: &'static str, seq: u64) {
        let place = self.places.get(user).copied().unwrap_or_default();
        let ord = seq.checked_sub(1).map_or(0, |at| self.log[at as usize].0.ord);
        let own = self.log.iter().filter(|(m, _)| m.from == user && countable(m) && m.seq > seq);
        let own: Vec<u64> = own.map(|(m, _)| m.seq).collect();
        let moved = read(&place, seq, ord, 0);
        self.places.insert(user, if moved == place { place } else { sent(&moved, &own) });
        let walked = self.walked.entry(user).or_default();
        if seq >= walked.read_seq {
            *walked = Walked { read_seq: seq, adjust: 0 };
        }
    }

    fn set(&mut self, user: &'static str, count: u64) {
        let place = self.places.get(user).copied().unwrap_or_default();
        self.places.insert(user, set(&place, &self.tail(user), count));
        let base = self.walk_plain(user);
        self.walked.entry(user).or_default().adjust = count as i64 - base as i64;
    }

    fn counted(&self, user: &'static str) -> u64 {
        unread(&self.places.get(user).copied().unwrap_or_default(), &self.tail(user))
    }

    fn walk_plain(&self, user: &'static str) -> u64 {
        let read = self.walked.get(user).copied().unwrap_or_default().read_seq;
        let waits = |(m, gone): &&(Message, bool)| m.seq > read && !gone && m.from != user && countable(m);
        self.log.iter().filter(waits).count() as u64
    }

    /// The truth: every message looked at, one by one.
    fn walk(&self, user: &'static str) -> u64 {
        let adjust = self.walked.get(user).copied().unwrap_or_default().adjust;
        (self.walk_plain(user) as i64 + adjust).max(0) as u64
    }

    fn agree(&self) {
        for user in USERS {
            assert_eq!(self.counted(user), self.walk(user), "{user}");
        }
    }
}

#[test]
fn case_01_a_message_waits_for_the_peer() {
    let mut world = World::default();
    world.say("alice");
    assert_eq!((world.counted("bob"), world.counted("alice")), (1, 0));
}

#[test]
fn case_02_own_messages_do_not_wait_before_and_after_they_are_told() {
    let mut world = World::default();
    world.say("alice");
    world.say("bob");
    world.say("bob");
    assert_eq!(world.counted("bob"), 1);
    world.tell();
    assert_eq!(world.counted("bob"), 1);
}

#[test]
fn case_03_no_unread_does_not_count() {
    let mut world = World::default();
    world.send("alice", |m| m.no_unread = true);
    assert_eq!(world.counted("bob"), 0);
}

#[test]
fn case_04_tips_do_not_count() {
    let mut world = World::default();
    world.send("alice", |m| m.set_kind(MessageKind::Tip));
    assert_eq!(world.counted("bob"), 0);
}

#[test]
fn case_05_targeted_messages_do_not_count() {
    let mut world = World::default();
    world.send("alice", |m| {
        m.set_visibility(Visibility::Listed);
        m.visible_to = vec!["bob".into()];
    });
    assert_eq!((world.counted("bob"), world.counted("carol")), (0, 0));
}

#[test]
fn case_06_what_a_blocked_sender_keeps_does_not_count() {
    let mut world = World::default();
    world.send("alice", |m| m.set_visibility(Visibility::Sender));
    assert_eq!(world.counted("bob"), 0);
}

#[test]
fn case_07_what_only_the_receiver_sees_counts_for_him() {
    let mut world = World::default();
    world.send("alice", |m| m.set_visibility(Visibility::Receiver));
    world.tell();
    assert_eq!((world.counted("bob"), world.counted("alice")), (1, 0));
}

#[test]
fn case_08_revoked_before_reading_no_longer_waits() {
    let mut world = World::default();
    let seq = world.say("alice");
    world.say("alice");
    world.revoke(seq);
    assert_eq!(world.counted("bob"), 1);
    world.read("bob", 2);
    assert_eq!(world.counted("bob"), 0);
}

#[test]
fn case_09_revoking_what_was_read_changes_nothing() {
    let mut world = World::default();
    let seq = world.say("alice");
    world.read("bob", seq);
    world.say("alice");
    world.revoke(seq);
    assert_eq!(world.counted("bob"), 1);
}

#[test]
fn case_10_revoking_an_own_message_is_not_subtracted_twice() {
    let mut world = World::default();
    world.say("alice");
    let own = world.say("bob");
    world.tell();
    world.revoke(own);
    assert_eq!(world.counted("bob"), 1);
}

#[test]
fn case_11_a_count_set_from_outside_grows_and_is_cleared_by_reading() {
    let mut world = World::default();
    world.say("alice");
    world.set("bob", 7);
    assert_eq!(world.counted("bob"), 7);
    world.say("alice");
    assert_eq!(world.counted("bob"), 8);
    world.read("bob", 2);
    assert_eq!(world.counted("bob"), 0);
    world.set("bob", 0);
    world.say("carol");
    assert_eq!(world.counted("bob"), 1);
}

#[test]
fn case_12_reading_part_leaves_the_rest_without_own() {
    let mut world = World::default();
    world.say("alice");
    world.say("bob");
    world.say("alice");
    world.say("bob");
    world.tell();
    world.read("bob", 1);
    assert_eq!(world.counted("bob"), 1);
    world.agree();
}

#[test]
fn case_13_a_position_never_moves_back() {
    let mut world = World::default();
    world.say("alice");
    world.say("alice");
    world.read("bob", 2);
    world.read("bob", 1);
    assert_eq!(world.counted("bob"), 0);
}

#[test]
fn case_14_who_joins_at_the_head_has_nothing_waiting_and_a_new_generation_starts_at_zero() {
    let mut world = World::default();
    world.say("alice");
    world.say("alice");
    let joined = read(&Place::default(), 2, world.ord, 0);
    world.places.insert("carol", joined);
    assert_eq!(world.counted("carol"), 0);
    let restored = Tail { seq: 1_000_002, ord: 5, generation: 1, ..Tail::default() };
    assert_eq!(unread(&joined, &restored), 0);
    let again = read(&joined, restored.seq, restored.ord, 1);
    assert_eq!(unread(&again, &Tail { seq: 1_000_003, ord: 6, ..restored }), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, kind: u8 },
    Revoke(u64),
    Read { user: usize, at: u64 },
    Set { user: usize, count: u64 },
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..8_u8).prop_map(|(from, kind)| Step::Send { from, kind }),
        2 => any::<u64>().prop_map(Step::Revoke),
        3 => (0..3_usize, any::<u64>()).prop_map(|(user, at)| Step::Read { user, at }),
        1 => (0..3_usize, 0..9_u64).prop_map(|(user, count)| Step::Set { user, count }),
        2 => Just(Step::Tell),
    ]
}

fn run(world: &mut World, step: &Step) {
    let len = world.log.len() as u64;
    match *step {
        Step::Send { from, kind } => {
            world.send(USERS[from], |m| match kind {
                0 => m.no_unread = true,
                1 => m.set_kind(MessageKind::Tip),
                2 => m.set_visibility(Visibility::Listed),
                3 => m.set_visibility(Visibility::Sender),
                4 => m.set_visibility(Visibility::Receiver),
                _ => {}
            });
        }
        Step::Revoke(n) if len > 0 => world.revoke(n % len + 1),
        Step::Read { user, at } => world.read(USERS[user], at % (len + 1)),
        Step::Set { user, count } => world.set(USERS[user], count),
        Step::Tell => world.tell(),
        Step::Revoke(_) => {}
    }
}

proptest! {
    #[test]
    fn any_history_agrees_with_walking_it(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::default();
        for step in &steps {
            run(&mut world, step);
            world.agree();
        }
    }

    #[test]
    fn telling_twice_counts_once(seqs in proptest::collection::btree_set(1..50_u64, 0..20), again in 0..20_usize) {
        let seqs: Vec<u64> = seqs.into_iter().collect();
        let once = sent(&Place::default(), &seqs);
        prop_assert_eq!(sent(&once, &seqs[..again.min(seqs.len())]), once);
    }
}
