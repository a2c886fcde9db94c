//! Frees the space of expired rows, and checks table files that were too many to check at start.
//!
//! Walks the whole store again and again at a bounded rate. Reads hide expired rows at once, so nothing hangs on its speed.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use fjall::Keyspace;
use linnet_runtime::Clock;
use tokio::sync::mpsc::Sender;

use super::committer::{Request, TICK};
use super::envelope;
use super::metrics::StoreMetrics;
use super::verify::{self, TableFile};
use crate::keys::after;

/// Rows looked at in one step.
const STEP: usize = 2_000;

pub(super) struct Sweeper {
    pub(super) rows: Keyspace,
    pub(super) clock: Clock,
    pub(super) metrics: StoreMetrics,
    pub(super) unchecked: Vec<TableFile>,
    /// Pause after each step.
    pub(super) pause: Duration,
}

impl Sweeper {
    /// Runs until `stop` is dropped. On its own thread: it blocks.
    pub(super) fn run(mut self, requests: &Sender<Request>, stop: &Receiver<()>) {
        let mut from = Bytes::new();
        let mut waited = Duration::ZERO;
        while stop.recv_timeout(TICK.min(self.pause)) == Err(RecvTimeoutError::Timeout) {
            waited += TICK.min(self.pause);
            if waited < self.pause {
                continue;
            }
            waited = Duration::ZERO;
            self.check_a_file();
            let (expired, next) = self.step(&from);
            from = next;
            // A full queue means the store is busy: these rows are found again on the next round.
            if !expired.is_empty() {
                let _ = requests.try_send(Request::Sweep(expired));
            }
        }
    }

    fn check_a_file(&mut self) {
        let Some(file) = self.unchecked.pop() else { return };
        if let Err(e) = verify::check_file(&file) {
            self.metrics.damaged.inc();
            tracing::error!(error = %e, "a table file is damaged; restore it from a backup");
        }
    }

    /// The expired keys among the next rows, and where to go on.
    fn step(&self, from: &Bytes) -> (Vec<Bytes>, Bytes) {
        let now = self.clock.now();
        let mut expired = Vec::new();
        let mut last = None;
        for (seen, item) in self.rows.range(from.clone()..).enumerate() {
            let Ok((key, value)) = item.into_inner() else { break };
            if envelope::may_drop(&value, now) {
                expired.push(key.clone().into());
            }
            if seen + 1 == STEP {
                last = Some(after(&key));
                break;
            }
        }
        (expired, last.unwrap_or_default())
    }
}
