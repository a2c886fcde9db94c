//! Guessing UserSigs is slowed down: too many failures of one caller within a minute shut him out for a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use linnet_runtime::Clock;
use linnet_types::SdkAppId;
use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
/// Callers remembered; over it the oldest windows are given up, so an attacker costs memory up to here only.
const CAPACITY: usize = 10_000;

/// Whose failures are counted together.
pub(crate) type Caller = (SdkAppId, String, Option<IpAddr>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Duration,
    count: u32,
}

/// Failed authentications by caller.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Clock,
    most: u32,
    failures: Mutex<HashMap<Caller, Failures>>,
}

impl Throttle {
    /// Shuts out after `most` failures in a minute; 0 never does.
    pub(crate) fn new(clock: Clock, most: u32) -> Self {
        Self { clock, most, failures: Mutex::default() }
    }

    /// Whether `caller` must wait.
    pub(crate) fn is_shut_out(&self, caller: &Caller) -> bool {
        let now = self.clock.mono();
        let live = |failures: &&Failures| now.saturating_sub(failures.since) < WINDOW;
        self.most > 0 && self.failures.lock().get(caller).filter(live).is_some_and(|f| f.count >= self.most)
    }

    /// Counts a failure. The one that fills the window starts the minute of waiting.
    pub(crate) fn failed(&self, caller: Caller) {
        if self.most == 0 {
            return;
        }
        let now = self.clock.mono();
        let mut failures = self.failures.lock();
        if failures.len() >= CAPACITY && !failures.contains_key(&caller) {
            failures.retain(|_, f| now.saturating_sub(f.since) < WINDOW / 2);
            if failures.len() >= CAPACITY {
                failures.clear();
            }
        }
        let entry = failures.entry(caller).or_insert(Failures { since: now, count: 0 });
        if now.saturating_sub(entry.since) >= WINDOW {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count += 1;
        if entry.count == self.most {
            entry.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use linnet_types::UnixMillis;

    use super::*;

    fn caller(name: &str) -> Caller {
        (SdkAppId(1), name.to_owned(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_failures_in_a_minute_shut_out_for_a_minute() {
        let throttle = Throttle::new(Clock::simulated(UnixMillis(0)), 20);
        for _ in 0..19 {
            throttle.failed(caller("a"));
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        assert!(!throttle.is_shut_out(&caller("a")));
        throttle.failed(caller("a"));
        assert!(throttle.is_shut_out(&caller("a")) && !throttle.is_shut_out(&caller("b")));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(throttle.is_shut_out(&caller("a")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!throttle.is_shut_out(&caller("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_never_shut_out() {
        let throttle = Throttle::new(Clock::simulated(UnixMillis(0)), 2);
        for _ in 0..10 {
            throttle.failed(caller("a"));
            assert!(!throttle.is_shut_out(&caller("a")));
            tokio::time::advance(WINDOW).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let throttle = Throttle::new(Clock::simulated(UnixMillis(0)), 20);
        for n in 0..3 * CAPACITY {
            throttle.failed(caller(&n.to_string()));
        }
        assert!(throttle.failures.lock().len() <= CAPACITY);
    }
}
