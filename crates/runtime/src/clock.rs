//! The only source of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linnet_types::UnixMillis;

/// Tells the time: wall clock for what is stored and shown, a monotonic reading for spans.
///
/// Timers use `tokio::time` directly. With [`Clock::simulated`] both follow tokio's clock, so `tokio::time::pause` and
/// `advance` drive everything at once. Clones share skew and jumps.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Milliseconds added to the wall clock.
    shift_ms: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    System { origin: Instant },
    Simulated { start: UnixMillis, origin: tokio::time::Instant },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn system() -> Self {
        Self { source: Source::System { origin: Instant::now() }, shift_ms: Arc::default() }
    }

    /// A clock that shows `start` now and moves with tokio's (pausable) clock.
    #[must_use]
    pub fn simulated(start: UnixMillis) -> Self {
        Self { source: Source::Simulated { start, origin: tokio::time::Instant::now() }, shift_ms: Arc::default() }
    }

    /// Wall-clock time. May step back when the machine's clock is set; a log never follows it backwards.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn now(&self) -> UnixMillis {
        let unshifted = match self.source {
            Source::System { .. } => millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Source::Simulated { start, origin } => start.0.saturating_add(millis(origin.elapsed())),
        };
        UnixMillis(unshifted.saturating_add_signed(self.shift_ms.load(Ordering::Relaxed)))
    }

    /// Time since the clock was made; never steps back, not touched by skew or jumps.
    #[must_use]
    pub fn mono(&self) -> Duration {
        match self.source {
            Source::System { origin } => origin.elapsed(),
            Source::Simulated { origin, .. } => origin.elapsed(),
        }
    }

    /// The same source with a wall clock of its own that is off by `ms`: a node whose clock is wrong.
    #[must_use]
    pub fn skewed(&self, ms: i64) -> Self {
        let shift = self.shift_ms.load(Ordering::Relaxed).saturating_add(ms);
        Self { source: self.source, shift_ms: Arc::new(AtomicI64::new(shift)) }
    }

    /// Moves the wall clock of this clock and its clones without firing a timer: "eight days later" in a simulation.
    pub fn jump(&self, by: Duration) {
        self.shift_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_time_moves_only_with_tokio() {
        let clock = Clock::simulated(UnixMillis(1_700_000_000_000));
        assert_eq!(clock.now(), UnixMillis(1_700_000_000_000));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now(), UnixMillis(1_700_000_001_500));
        assert_eq!(clock.mono(), Duration::from_millis(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn jump_reaches_clones_and_skew_does_not() {
        let clock = Clock::simulated(UnixMillis(10_000));
        let (clone, behind) = (clock.clone(), clock.skewed(-2_000));
        clock.jump(Duration::from_secs(5));
        assert_eq!((clone.now(), behind.now()), (UnixMillis(15_000), UnixMillis(8_000)));
        assert_eq!(clock.mono(), Duration::ZERO);
    }

    #[test]
    fn system_clock_is_in_this_century() {
        assert!(Clock::system().now() > UnixMillis(1_600_000_000_000));
    }
}
