//! Public identity of one-to-one messages: `<MsgSeq>_<random>_<second>`, unique in one conversation.
//!
//! The caller chooses seq and random and may repeat them; a second message with both in the same second is given the
//! next one (`spec/rest-messages.md` §1, `docs/architecture.md`, MsgKey).

use std::collections::HashSet;

use linnet_proto::msg::Message;
use linnet_types::{MsgKey, UnixMillis};

/// The public key of a stored one-to-one message.
pub(crate) fn key_of(message: &Message) -> MsgKey {
    MsgKey { msg_seq: message.msg_seq, random: message.random, time_s: UnixMillis(message.time_ms).secs() }
}

/// Gives times to the messages of one log: never decreasing, and for pairs no key twice.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    last_ms: u64,
    /// Seq and random of the messages of the last second; `None` for groups, whose messages have no key.
    taken: Option<HashSet<(u32, u32)>>,
    /// The first second whose keys are all known: messages stored before this owner took over are not.
    known_from_s: u64,
}

impl Times {
    /// Goes on after `last_ms`, the time of the last stored message.
    pub(crate) fn after(last_ms: u64, keyed: bool) -> Self {
        let known_from_s = if last_ms == 0 { 0 } else { UnixMillis(last_ms).secs() + 1 };
        Self { last_ms, taken: keyed.then(HashSet::new), known_from_s }
    }

    /// The time of the next message.
    pub(crate) fn assign(&mut self, now_ms: u64, msg_seq: u32, random: u32) -> u64 {
        let mut time = now_ms.max(self.last_ms);
        if let Some(taken) = &mut self.taken {
            if UnixMillis(time).secs() < self.known_from_s {
                time = self.known_from_s * 1000;
            }
            if UnixMillis(time).secs() != UnixMillis(self.last_ms).secs() {
                taken.clear();
            }
            if !taken.insert((msg_seq, random)) {
                time = (UnixMillis(time).secs() + 1) * 1000;
                taken.clear();
                taken.insert((msg_seq, random));
            }
        }
        self.last_ms = time;
        time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seq_and_random_taken_in_this_second_get_the_next() {
        let mut times = Times::after(0, true);
        assert_eq!(times.assign(10_500, 1, 2), 10_500);
        assert_eq!(times.assign(10_600, 1, 3), 10_600);
        assert_eq!(times.assign(10_700, 1, 2), 11_000);
        assert_eq!(times.assign(10_800, 1, 2), 12_000);
        assert_eq!(times.assign(12_100, 1, 3), 12_100);
    }

    #[test]
    fn a_new_owner_leaves_the_second_it_does_not_know() {
        let mut times = Times::after(10_900, true);
        assert_eq!(times.assign(10_950, 1, 2), 11_000);
        assert_eq!(times.assign(11_050, 1, 3), 11_050);
    }

    #[test]
    fn groups_share_a_millisecond_and_time_never_steps_back() {
        let mut times = Times::after(10_900, false);
        assert_eq!(times.assign(10_000, 1, 2), 10_900);
        assert_eq!(times.assign(10_900, 1, 2), 10_900);
    }

    proptest! {
        #[test]
        fn keys_are_unique_and_times_do_not_decrease(
            sends in proptest::collection::vec((0..4_000_u64, 0..3_u32, 0..3_u32), 0..80),
        ) {
            let mut times = Times::after(0, true);
            let (mut keys, mut last, mut now) = (HashSet::new(), 0, 1_000_000);
            for (step, seq, random) in sends {
                now += step / 10;
                let time = times.assign(now, seq, random);
                prop_assert!(time >= last);
                prop_assert!(keys.insert((seq, random, time / 1000)));
                last = time;
            }
        }
    }
}
