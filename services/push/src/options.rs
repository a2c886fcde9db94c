//! What a receiver wants to hear of (`spec/rest-groups.md` §1.4, `spec/client-api.md` §12).

use linnet_store::push::Quiet;
use linnet_types::UnixMillis;

/// Seconds of a day.
pub(crate) const DAY_S: i64 = 86_400;

/// How messages of a conversation reach a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Delivered and pushed.
    #[default]
    Notify,
    /// Delivered, not pushed.
    NotNotify,
    /// Not delivered.
    Discard,
    /// Delivered, and pushed only when he is mentioned.
    NotNotifyExceptAt,
    /// Not delivered unless he is mentioned.
    DiscardExceptAt,
}

impl Receive {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "AcceptAndNotify" => Self::Notify,
            "AcceptNotNotify" => Self::NotNotify,
            "Discard" => Self::Discard,
            "AcceptNotNotifyExceptAt" => Self::NotNotifyExceptAt,
            "NotReceiveMsgExceptAt" => Self::DiscardExceptAt,
            _ => return None,
        })
    }

    /// A stored option; one that a newer build wrote is not taken for a wish to be left alone.
    pub(crate) fn stored(text: Option<&str>) -> Self {
        text.and_then(Self::parse).unwrap_or_default()
    }

    /// Whether a message is pushed to who has this option.
    pub(crate) fn pushes(self, mentioned: bool) -> bool {
        match self {
            Self::Notify => true,
            Self::NotNotify | Self::Discard => false,
            Self::NotNotifyExceptAt | Self::DiscardExceptAt => mentioned,
        }
    }
}

/// What quiet time asks for at `now`; the default outside of it.
pub(crate) fn in_force(quiet: Option<&Quiet>, now: UnixMillis) -> Receive {
    match quiet {
        Some(quiet) if is_quiet(quiet, now) => Receive::stored(Some(&quiet.option)),
        _ => Receive::Notify,
    }
}

fn is_quiet(quiet: &Quiet, now: UnixMillis) -> bool {
    if quiet.duration_s == 0 {
        return true;
    }
    let local = |at: UnixMillis| i64::try_from(at.secs()).unwrap_or(i64::MAX / 2) + i64::from(quiet.utc_offset_s);
    let (now, start, span) = (local(now), i64::from(quiet.start_s), i64::from(quiet.duration_s));
    if quiet.repeated {
        return (now - start).rem_euclid(DAY_S) < span;
    }
    let set = local(quiet.set);
    let mut first = set - set.rem_euclid(DAY_S) + start;
    if first + span <= set {
        first += DAY_S;
    }
    (first..first + span).contains(&now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14 22:13:20 UTC.
    const NOW_S: u64 = 1_700_000_000;

    fn quiet(start_s: u32, duration_s: u32, repeated: bool, utc_offset_s: i32) -> Quiet {
        let set = UnixMillis(NOW_S * 1000);
        Quiet { option: "AcceptNotNotify".into(), start_s, duration_s, repeated, utc_offset_s, set }
    }

    fn at(quiet: &Quiet, after_s: u64) -> bool {
        !in_force(Some(quiet), UnixMillis((NOW_S + after_s) * 1000)).pushes(false)
    }

    #[test]
    fn only_an_exception_for_mentions_lets_a_mention_through() {
        let all = [
            ("AcceptAndNotify", true, true),
            ("AcceptNotNotify", false, false),
            ("Discard", false, false),
            ("AcceptNotNotifyExceptAt", false, true),
            ("NotReceiveMsgExceptAt", false, true),
        ];
        for (text, plain, mentioned) in all {
            let option = Receive::parse(text).expect(text);
            assert_eq!((option.pushes(false), option.pushes(true)), (plain, mentioned), "{text}");
        }
        assert_eq!(Receive::parse("accept"), None);
    }

    #[test]
    fn a_night_goes_past_midnight_every_day() {
        // 23:00 to 07:00 by the user's clock, which is UTC + 1: it is 23:13 there.
        let night = quiet(23 * 3600, 8 * 3600, true, 3600);
        assert!(at(&night, 0) && at(&night, 7 * 3600));
        assert!(!at(&night, 8 * 3600) && at(&night, 24 * 3600) && at(&night, 10 * 24 * 3600));
    }

    #[test]
    fn one_that_is_not_repeated_ends_for_good() {
        let later = quiet(23 * 3600, 3600, false, 0);
        assert!(!at(&later, 0) && at(&later, 3600) && !at(&later, 2 * 3600) && !at(&later, 25 * 3600));
        // Its time of today is over: tomorrow's.
        let tomorrow = quiet(3600, 3600, false, 0);
        assert!(!at(&tomorrow, 0) && at(&tomorrow, 3 * 3600) && !at(&tomorrow, 27 * 3600));
    }

    #[test]
    fn without_a_span_it_holds_until_it_is_taken_back() {
        assert!(at(&quiet(0, 0, false, 0), 10_000_000));
        assert!(in_force(None, UnixMillis(0)).pushes(false));
    }
}
