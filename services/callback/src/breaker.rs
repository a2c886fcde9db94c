//! One circuit breaker per app: a server that is down is probed, not hammered, and costs its own app only.

use std::collections::HashMap;
use std::time::Duration;

use linnet_types::SdkAppId;
use parking_lot::Mutex;

/// Failures in a row that open a breaker (`spec/webhooks.md` §1.12).
const OPENS_AFTER: u32 = 20;
/// One probe in this time while open.
pub(crate) const PROBE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Breakers {
    apps: Mutex<HashMap<SdkAppId, State>>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// While open: when the last probe was let through.
    probed: Duration,
}

/// Whether a call may go out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Closed,
    /// Open, and this call is the probe.
    Probe,
    /// Open: fail at once.
    Open,
}

impl Breakers {
    pub(crate) fn gate(&self, app: SdkAppId, now: Duration) -> Gate {
        let mut apps = self.apps.lock();
        let Some(state) = apps.get_mut(&app) else { return Gate::Closed };
        if state.failures < OPENS_AFTER {
            return Gate::Closed;
        }
        if now.saturating_sub(state.probed) >= PROBE {
            state.probed = now;
            return Gate::Probe;
        }
        Gate::Open
    }

    pub(crate) fn succeeded(&self, app: SdkAppId) {
        self.apps.lock().remove(&app);
    }

    /// Counts a failure; true when this one opened the breaker.
    pub(crate) fn failed(&self, app: SdkAppId, now: Duration) -> bool {
        let mut apps = self.apps.lock();
        let state = apps.entry(app).or_default();
        state.failures = state.failures.saturating_add(1);
        if state.failures == OPENS_AFTER {
            state.probed = now;
            return true;
        }
        false
    }

    /// A new URL or token deserves a fresh start.
    pub(crate) fn reset(&self, app: SdkAppId) {
        self.apps.lock().remove(&app);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_and_closes() {
        let (breakers, app) = (Breakers::default(), SdkAppId(1));
        let at = Duration::from_secs;
        for n in 1..=OPENS_AFTER {
            assert_eq!(breakers.gate(app, at(0)), Gate::Closed);
            assert_eq!(breakers.failed(app, at(0)), n == OPENS_AFTER);
        }
        assert_eq!(breakers.gate(app, at(4)), Gate::Open);
        assert_eq!(breakers.gate(app, at(5)), Gate::Probe);
        assert_eq!(breakers.gate(app, at(6)), Gate::Open, "one probe at a time");
        assert_eq!(breakers.gate(SdkAppId(2), at(6)), Gate::Closed, "others are not touched");
        breakers.succeeded(app);
        assert_eq!(breakers.gate(app, at(6)), Gate::Closed);
    }
}
