//! Rounds: messages of a group that are told together, and what each member's share of them is.

use std::time::Duration;

use linnet_proto::push::{Note, Round};

/// Newest messages a round keeps; what it says when there is only one of them for a member.
const NOTES: usize = 8;

/// Members up to which a round is short, and from which on it is long.
const SMALL: u32 = 200;
const LARGE: u32 = 1_000;
const SHORT_MS: u64 = 2_000;
const LONG_MS: u64 = 30_000;

/// How long messages of a group of `members` are gathered (`docs/architecture.md`, Side effects).
pub(crate) fn window(members: u32) -> Duration {
    let over = u64::from(members.clamp(SMALL, LARGE) - SMALL);
    Duration::from_millis(SHORT_MS + (LONG_MS - SHORT_MS) * over / u64::from(LARGE - SMALL))
}

/// The shortest of all windows.
pub(crate) const SHORTEST_MS: u64 = SHORT_MS;

/// Adds a message that `told` hear of in another way.
pub(crate) fn add(round: &mut Round, note: Note, told: &[String]) {
    if round.total == 0 {
        (round.from_seq, round.first_ms) = (note.seq, note.time_ms);
    }
    (round.to_seq, round.last_ms) = (note.seq, note.time_ms);
    round.total += 1;
    round.uncounted += u32::from(note.no_unread);
    for user in std::iter::once(&note.from).chain(told) {
        *round.less.entry(user.clone()).or_default() += 1;
    }
    round.notes.push(note);
    keep_newest(round);
}

/// Joins rounds of one group, oldest first, without what is planned up to `planned` already. `None`: nothing is left.
pub(crate) fn merge(rounds: impl IntoIterator<Item = Round>, planned: u64) -> Option<Round> {
    let mut all: Option<Round> = None;
    for mut round in rounds {
        let done = all.as_ref().map_or(planned, |all| all.to_seq.max(planned));
        if round.to_seq <= done {
            continue;
        }
        if round.from_seq <= done {
            cut(&mut round, done);
        }
        let Some(all) = &mut all else {
            all = Some(round);
            continue;
        };
        (all.to_seq, all.last_ms) = (round.to_seq, round.last_ms);
        all.total += round.total;
        all.uncounted += round.uncounted;
        for (user, less) in round.less {
            *all.less.entry(user).or_default() += less;
        }
        all.notes.extend(round.notes);
        keep_newest(all);
    }
    all
}

/// Leaves out what is done of a round that is told again with other bounds. How many of the rest are news for whom is
/// known from its notes only: rather too many than too few.
fn cut(round: &mut Round, done: u64) {
    round.total = round.total.min(u32::try_from(round.to_seq - done).unwrap_or(u32::MAX));
    round.uncounted = round.uncounted.min(round.total);
    round.from_seq = done + 1;
    round.notes.retain(|note| note.seq > done);
    round.less.clear();
    for note in &round.notes {
        for user in std::iter::once(&note.from).chain(&note.mentions) {
            *round.less.entry(user.clone()).or_default() += 1;
        }
    }
}

fn keep_newest(round: &mut Round) {
    let over = round.notes.len().saturating_sub(NOTES);
    round.notes.drain(..over);
}

/// What one member is told of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share<'a> {
    /// Messages that are news for him.
    pub(crate) count: u32,
    /// The newest of them that is known.
    pub(crate) note: &'a Note,
}

/// The share of `user`; `None` when nothing of it is news for him.
pub(crate) fn share<'a>(round: &'a Round, user: &str) -> Option<Share<'a>> {
    let count = round.total.saturating_sub(round.less.get(user).copied().unwrap_or(0));
    if count == 0 {
        return None;
    }
    let news = |note: &&Note| note.from != user && !note.mentions.iter().any(|mentioned| mentioned == user);
    let note = round.notes.iter().rev().find(news).or_else(|| round.notes.last())?;
    Some(Share { count, note })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(seq: u64, from: &str) -> Note {
        Note { seq, from: from.into(), time_ms: seq * 10, ..Note::default() }
    }

    fn round(from: &str, seqs: std::ops::RangeInclusive<u64>) -> Round {
        let mut round = Round::default();
        seqs.for_each(|seq| add(&mut round, note(seq, from), &[]));
        round
    }

    #[test]
    fn windows_grow_from_two_seconds_to_thirty() {
        let ms = |members| window(members).as_millis();
        assert_eq!((ms(2), ms(200), ms(600), ms(1_000), ms(100_000)), (2_000, 2_000, 16_000, 30_000, 30_000));
    }

    #[test]
    fn a_member_is_not_told_of_his_own_messages() {
        let all = merge([round("a", 1..=3), round("b", 4..=4)], 0).expect("a round");
        assert_eq!((all.total, all.from_seq, all.to_seq, all.first_ms, all.last_ms), (4, 1, 4, 10, 40));
        let told = |user| share(&all, user).map(|share| (share.count, share.note.seq));
        assert_eq!((told("a"), told("b"), told("c")), (Some((1, 4)), Some((3, 3)), Some((4, 4))));
        assert!(share(&round("a", 1..=3), "a").is_none());
    }

    #[test]
    fn who_was_told_at_once_is_told_of_the_rest_only() {
        let mut mentioning = note(2, "a");
        mentioning.mentions = vec!["c".into()];
        let mut all = round("a", 1..=1);
        add(&mut all, mentioning, &["c".into()]);
        let told = |user| share(&all, user).map(|share| (share.count, share.note.seq));
        assert_eq!((told("c"), told("d")), (Some((1, 1)), Some((2, 2))));
    }

    #[test]
    fn what_is_planned_is_not_planned_again() {
        assert_eq!(merge([round("a", 1..=3)], 3), None);
        let rest = merge([round("a", 1..=3), round("a", 2..=6)], 2).expect("a round");
        assert_eq!((rest.total, rest.from_seq, rest.to_seq), (4, 3, 6));
        assert!(rest.notes.iter().all(|note| note.seq > 2));
    }

    proptest! {
        #[test]
        fn however_a_log_is_cut_every_message_counts_once(cuts in proptest::collection::vec(1u64..20, 1..12), again in 0usize..12) {
            let mut rounds = Vec::new();
            let mut next = 1;
            for len in &cuts {
                rounds.push(round("a", next..=next + len - 1));
                next += len;
            }
            let repeated = rounds[again % rounds.len()].clone();
            let upto = rounds.iter().position(|round| *round == repeated).expect("it is one of them");
            rounds.insert(upto + 1, repeated);
            let all = merge(rounds, 0).expect("a round");
            prop_assert_eq!(u64::from(all.total), next - 1);
            prop_assert_eq!(share(&all, "b").map(|share| u64::from(share.count)), Some(next - 1));
            prop_assert!(all.notes.len() <= NOTES);
        }
    }
}
