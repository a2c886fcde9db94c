//! How often an app may call: a token bucket per command and one per app, each refilled at its rate and holding twice
//! that (`spec/rest-accounts.md` §1.7), and a per-minute bucket for the receivers of batch sends.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use linnet_types::{Refusal, SdkAppId, code};
use parking_lot::Mutex;

/// Time as governor wants it: what has passed since the node's clock was made.
#[derive(Clone, Debug)]
struct Mono(linnet_runtime::Clock);

impl GovernorClock for Mono {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.mono()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Mono, NoOpMiddleware<Duration>>;

/// What a bucket counts. Commands are the catalogue's, apps those whose administrator signed: the table stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counts {
    App,
    Command(&'static str),
    Receivers,
}

/// The buckets of every app.
#[derive(Debug)]
pub(crate) struct Limits {
    clock: Mono,
    buckets: Mutex<HashMap<(SdkAppId, Counts), (Quota, Bucket)>>,
}

impl Limits {
    pub(crate) fn new(clock: linnet_runtime::Clock) -> Self {
        Self { clock: Mono(clock), buckets: Mutex::default() }
    }

    /// Takes one call of `command` at `per_s` calls a second.
    ///
    /// # Errors
    /// [`code::COMMAND_RATE`].
    pub(crate) fn command(&self, app: SdkAppId, command: &'static str, per_s: u32) -> Result<(), Refusal> {
        let quota = per_second(per_s)?;
        self.take(app, Counts::Command(command), quota, NonZeroU32::MIN, code::COMMAND_RATE)
    }

    /// Takes one call of the app, at `per_s` a second; 0 is no limit.
    ///
    /// # Errors
    /// [`code::APP_RATE`].
    pub(crate) fn app(&self, app: SdkAppId, per_s: u32) -> Result<(), Refusal> {
        match per_s {
            0 => Ok(()),
            _ => self.take(app, Counts::App, per_second(per_s)?, NonZeroU32::MIN, code::APP_RATE),
        }
    }

    /// Takes the receivers of one batch send: 12,000 a minute (`spec/rest-messages.md` §3.2).
    ///
    /// # Errors
    /// [`code::BATCH_RATE`].
    pub(crate) fn receivers(&self, app: SdkAppId, count: usize) -> Result<(), Refusal> {
        const PER_MINUTE: NonZeroU32 = NonZeroU32::new(12_000).expect("not zero");
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        self.take(app, Counts::Receivers, Quota::per_minute(PER_MINUTE), count, code::BATCH_RATE)
    }

    fn take(&self, app: SdkAppId, counts: Counts, quota: Quota, n: NonZeroU32, over: u32) -> Result<(), Refusal> {
        let mut buckets = self.buckets.lock();
        let fresh = || (quota, Bucket::direct_with_clock(quota, self.clock.clone()));
        let slot = buckets.entry((app, counts)).or_insert_with(fresh);
        if slot.0 != quota {
            *slot = fresh();
        }
        match slot.1.check_n(n) {
            Ok(Ok(())) => Ok(()),
            _ => Err(Refusal::retry(over, "too many requests", 1_000)),
        }
    }
}

fn per_second(per_s: u32) -> Result<Quota, Refusal> {
    let off = || Refusal::new(code::COMMAND_DISABLED, "the command is switched off for this app");
    let rate = NonZeroU32::new(per_s).ok_or_else(off)?;
    Ok(Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::new(2).expect("not zero"))))
}

#[cfg(test)]
mod tests {
    use linnet_runtime::Clock;
    use linnet_types::UnixMillis;

    use super::*;

    const APP: SdkAppId = SdkAppId(1);

    fn taken(limits: &Limits, app: SdkAppId, command: &'static str, per_s: u32) -> usize {
        (0..1000).take_while(|_| limits.command(app, command, per_s).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_holds_two_seconds_and_refills_at_its_rate() {
        let limits = Limits::new(Clock::simulated(UnixMillis(0)));
        assert_eq!(taken(&limits, APP, "a", 5), 10);
        assert_eq!(limits.command(APP, "a", 5).expect_err("empty").code, code::COMMAND_RATE);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&limits, APP, "a", 5), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn commands_and_apps_have_buckets_of_their_own() {
        let limits = Limits::new(Clock::simulated(UnixMillis(0)));
        assert_eq!(taken(&limits, APP, "a", 1), 2);
        assert_eq!(taken(&limits, APP, "b", 1), 2);
        assert_eq!(taken(&limits, SdkAppId(2), "a", 1), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_is_in_force_at_once_and_zero_is_off() {
        let limits = Limits::new(Clock::simulated(UnixMillis(0)));
        assert_eq!(taken(&limits, APP, "a", 1), 2);
        assert_eq!(taken(&limits, APP, "a", 10), 20);
        assert_eq!(limits.command(APP, "a", 0).expect_err("off").code, code::COMMAND_DISABLED);
        assert!(limits.app(APP, 0).is_ok(), "no limit");
        let most = (0..10).take_while(|_| limits.app(APP, 2).is_ok()).count();
        assert_eq!(most, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_are_counted_by_the_minute() {
        let limits = Limits::new(Clock::simulated(UnixMillis(0)));
        let batches = (0..100).take_while(|_| limits.receivers(APP, 500).is_ok()).count();
        assert_eq!(batches, 24);
        assert_eq!(limits.receivers(APP, 500).expect_err("empty").code, code::BATCH_RATE);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(limits.receivers(APP, 500).is_ok());
    }
}
