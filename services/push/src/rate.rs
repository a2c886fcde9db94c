//! How fast requests to an app's provider go out.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use linnet_runtime::Clock;
use linnet_types::SdkAppId;
use moka::sync::Cache;

/// Apps whose rate is remembered.
const APPS: u64 = 10_000;

/// Time as governor wants it: what has passed since the node's clock was made.
#[derive(Clone, Debug)]
struct Mono(Clock);

impl GovernorClock for Mono {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.mono()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Mono, NoOpMiddleware<Duration>>;

/// The rates of this node, by app and limit: a new limit begins anew.
pub(crate) struct Rates {
    clock: Mono,
    limiters: Cache<(SdkAppId, NonZeroU32), Arc<Limiter>>,
}

impl Rates {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock: Mono(clock), limiters: Cache::builder().max_capacity(APPS).build() }
    }

    /// How long to wait before the next of `per_s` requests a second, 1 at least; `None`: it may go, and is counted.
    pub(crate) fn until(&self, app: SdkAppId, per_s: u32) -> Option<Duration> {
        let per_s = NonZeroU32::new(per_s).unwrap_or(NonZeroU32::MIN);
        let make = || Arc::new(RateLimiter::direct_with_clock(Quota::per_second(per_s), self.clock.clone()));
        let limiter = self.limiters.get_with((app, per_s), make);
        limiter.check().err().map(|not_yet| not_yet.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use linnet_types::UnixMillis;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_app_waits_for_its_own_rate_only() {
        let rates = Rates::new(Clock::simulated(UnixMillis(0)));
        let (one, other) = (SdkAppId(1), SdkAppId(2));
        for _ in 0..5 {
            assert_eq!(rates.until(one, 5), None);
        }
        let wait = rates.until(one, 5).expect("the second is full");
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        assert_eq!(rates.until(other, 5), None);
        tokio::time::sleep(wait).await;
        assert_eq!(rates.until(one, 5), None);
    }
}
