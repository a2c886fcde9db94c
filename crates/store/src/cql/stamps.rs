//! Timestamps of plain writes, which decide the last of several.
//!
//! They rise with every write of this process. Between processes the wall clocks decide; a clock that is evidently wrong
//! is corrected by the servers', or what its node writes would hide what all others write after it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use linnet_runtime::Clock;
use linnet_runtime::metrics::Gauge;
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::statement::unprepared::Statement;
use scylla::value::CqlTimestamp;

/// A smaller difference is the way to the server and back.
const WRONG_MS: i64 = 500;
/// Between two looks at the servers' clock.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Stamps {
    clock: Clock,
    correction_ms: AtomicI64,
    last_us: AtomicI64,
    off: Gauge,
}

impl Stamps {
    pub(super) fn new(clock: Clock, off: Gauge) -> Self {
        Self { clock, correction_ms: AtomicI64::new(0), last_us: AtomicI64::new(0), off }
    }

    /// Microseconds, above every one given before.
    pub(super) fn next(&self) -> i64 {
        let now_ms = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX / 2000);
        let now_us = now_ms.saturating_add(self.correction_ms.load(Ordering::Relaxed)).saturating_mul(1000);
        let above = |last: i64| Some(now_us.max(last + 1));
        let last = self.last_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, above);
        now_us.max(last.unwrap_or_default() + 1)
    }

    /// Compares our clock with a server's. A server that does not answer changes nothing.
    pub(super) async fn look(&self, session: &Session, profile: &ExecutionProfileHandle) {
        let (sent, wall) = (self.clock.mono(), self.clock.now());
        let mut statement = Statement::new("SELECT toTimestamp(now()) FROM system.local");
        statement.set_execution_profile_handle(Some(profile.clone()));
        let Ok(answer) = session.query_unpaged(statement, ()).await else { return };
        let Some(rows) = answer.into_rows_result().ok() else { return };
        let Ok((CqlTimestamp(theirs),)) = rows.first_row::<(CqlTimestamp,)>() else { return };
        let way = self.clock.mono() - sent;
        if way > Duration::from_millis(WRONG_MS.unsigned_abs() / 2) {
            return;
        }
        // Theirs was read half-way.
        let wall = wall.plus_ms(u64::try_from(way.as_millis() / 2).unwrap_or_default());
        self.correct(theirs - i64::try_from(wall.0).unwrap_or_default());
    }

    fn correct(&self, off_ms: i64) {
        self.off.set(off_ms);
        let correction = if off_ms.abs() < WRONG_MS { 0 } else { off_ms };
        if self.correction_ms.swap(correction, Ordering::Relaxed) == 0 && correction != 0 {
            tracing::warn!(off_ms, "this node's clock differs from the store's; writes follow the store's");
        }
    }
}

#[cfg(test)]
mod tests {
    use linnet_types::UnixMillis;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stamps_rise_also_when_the_clock_is_set_back() {
        let clock = Clock::simulated(UnixMillis(1_700_000_000_000));
        let stamps = Stamps::new(clock, Gauge::default());
        let first = stamps.next();
        assert_eq!(stamps.next(), first + 1);
        stamps.correct(-300_000);
        assert_eq!(stamps.next(), first + 2);
        stamps.correct(400);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(stamps.next(), first + 5_000, "a small difference is not corrected");
        stamps.correct(300_000);
        assert_eq!(stamps.next(), first + 300_005_000);
    }
}
