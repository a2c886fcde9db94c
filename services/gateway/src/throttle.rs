//! Limits on signing in: guesses at one user's UserSig, and storms of everybody at once.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

/// Failures of one (app, user, address) in [`SPAN`] after which it is blocked for [`SPAN`]
/// (`spec/rest-accounts.md` §1.6.6).
const FAILURES: u32 = 20;
const SPAN: Duration = Duration::from_secs(60);
/// Entries kept; beyond it the oldest are swept.
const CAPACITY: usize = 100_000;

type Key = (u32, String, String);

/// Counts failed sign-ins.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    failures: Mutex<HashMap<Key, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// Start of the count, or of the block.
    since: Duration,
}

impl Throttle {
    /// Whether this caller has failed too often lately.
    pub(crate) fn is_blocked(&self, app: u32, user: &str, ip: &str, now: Duration) -> bool {
        let failures = self.failures.lock();
        let found = failures.get(&(app, user.to_owned(), ip.to_owned()));
        found.is_some_and(|f| f.count >= FAILURES && now < f.since + SPAN)
    }

    pub(crate) fn failed(&self, app: u32, user: &str, ip: &str, now: Duration) {
        let mut failures = self.failures.lock();
        if failures.len() >= CAPACITY {
            failures.retain(|_, f| now < f.since + SPAN);
            if failures.len() >= CAPACITY {
                failures.clear();
            }
        }
        let entry = failures.entry((app, user.to_owned(), ip.to_owned())).or_insert(Failures { count: 0, since: now });
        if now >= entry.since + SPAN {
            *entry = Failures { count: 0, since: now };
        }
        entry.count += 1;
        if entry.count == FAILURES {
            entry.since = now;
        }
    }
}

/// A token bucket over all sign-ins of the gateway.
#[derive(Debug)]
pub(crate) struct Pace {
    per_s: f64,
    state: Mutex<(f64, Duration)>,
}

impl Pace {
    /// Allows `per_s` a second, and as many at once.
    pub(crate) fn new(per_s: u32, now: Duration) -> Self {
        Self { per_s: per_s.into(), state: Mutex::new((per_s.into(), now)) }
    }

    /// Takes one token; when there is none, how long until the queue of those refused so far would be through.
    pub(crate) fn take(&self, now: Duration) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let (tokens, filled) = *state;
        let tokens = (tokens + now.saturating_sub(filled).as_secs_f64() * self.per_s).min(self.per_s);
        // Refused callers go on the tab, down to half a minute's worth, so that each wave is told a later time.
        let left = (tokens - 1.0).max(-30.0 * self.per_s);
        *state = (left, now);
        if tokens >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64(-left / self.per_s)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn twenty_failures_in_a_minute_block_for_a_minute() {
        let throttle = Throttle::default();
        for n in 0..20 {
            assert!(!throttle.is_blocked(1, "a", "ip", at(n)));
            throttle.failed(1, "a", "ip", at(n));
        }
        assert!(throttle.is_blocked(1, "a", "ip", at(20)) && throttle.is_blocked(1, "a", "ip", at(78)));
        assert!(!throttle.is_blocked(1, "b", "ip", at(20)) && !throttle.is_blocked(1, "a", "other", at(20)));
        assert!(!throttle.is_blocked(1, "a", "ip", at(79)), "the block began with the 20th failure");
        for n in 0..40 {
            throttle.failed(2, "slow", "ip", at(100 + n * 4));
            assert!(!throttle.is_blocked(2, "slow", "ip", at(100 + n * 4)), "15 a minute is not a guess");
        }
    }

    #[test]
    fn a_storm_is_told_to_come_back_later_and_later() {
        let pace = Pace::new(10, at(0));
        assert!((0..10).all(|_| pace.take(at(0)).is_ok()));
        let waits: Vec<_> = (0..20).map(|_| pace.take(at(0)).expect_err("empty").as_millis()).collect();
        assert!(waits.is_sorted() && waits[0] == 100 && waits[19] == 2000, "{waits:?}");
        assert!(pace.take(at(4)).is_ok());
    }
}
