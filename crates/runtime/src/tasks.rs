//! Supervised tasks: named, counted, ended.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::{Error, Result};
use crate::metrics::{Counter, Family, Gauge, Metrics};

type TaskName = [(&'static str, &'static str); 1];

/// Time between the end of the deadline and giving up on tasks that do not reach an await point.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// Starts tasks and ends them. Clones are the same owner; a child ends with its parent, or alone.
///
/// Two steps end a task: [`Tasks::draining`] asks it to finish accepted work; at the deadline it is dropped at its next
/// await point. A panic ends its own task only, is logged with the task's name and counted.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    owner: &'static str,
    /// Own tracker first, then those of the ancestors, who wait for our tasks too.
    trackers: Vec<TaskTracker>,
    draining: CancellationToken,
    killed: CancellationToken,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    running: Family<TaskName, Gauge>,
    panics: Family<TaskName, Counter>,
    live: Mutex<BTreeMap<&'static str, usize>>,
}

/// Counts a task as running for as long as it exists.
struct Running {
    name: &'static str,
    shared: Arc<Shared>,
    _trackers: Vec<TaskTrackerToken>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.get_or_create(&[("task", self.name)]).dec();
        let mut live = self.shared.live.lock();
        if let Some(count) = live.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                live.remove(self.name);
            }
        }
    }
}

impl Tasks {
    /// The root owner of a node.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let shared = metrics.scope("task", |scope| Shared {
            running: scope.gauges("running", "Tasks alive by name"),
            panics: scope.counters("panics", "Tasks ended by a panic, by name"),
            live: Mutex::default(),
        });
        Self {
            inner: Arc::new(Inner {
                owner: "root",
                trackers: vec![TaskTracker::new()],
                draining: CancellationToken::new(),
                killed: CancellationToken::new(),
                shared: Arc::new(shared),
            }),
        }
    }

    /// An owner whose tasks end with this one's, or earlier by its own [`Tasks::shutdown`].
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let mut trackers = vec![TaskTracker::new()];
        trackers.extend(self.inner.trackers.iter().cloned());
        Self {
            inner: Arc::new(Inner {
                owner: name,
                trackers,
                draining: self.inner.draining.child_token(),
                killed: self.inner.killed.child_token(),
                shared: Arc::clone(&self.inner.shared),
            }),
        }
    }

    /// Starts `future`. The handle yields `None` when the task panicked or was ended; it may be dropped.
    #[expect(clippy::disallowed_methods, reason = "the owner every other task goes through")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let running = self.running(name);
        let killed = self.inner.killed.clone();
        let task = async move {
            let running = running;
            let guarded = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                biased;
                () = killed.cancelled() => None,
                outcome = guarded => outcome.map_err(|panic| running.panicked(&*panic)).ok(),
            }
        };
        tokio::spawn(task)
    }

    /// Runs `work` where blocking is allowed and waits for it. It is not interrupted by a shutdown, which waits for it.
    ///
    /// # Errors
    /// [`Error::Panicked`], or [`Error::Ended`] when the runtime stopped before it began.
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let running = self.running(name);
        let guarded = move || {
            let running = running;
            std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| running.panicked(&*panic))
        };
        match tokio::task::spawn_blocking(guarded).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(())) => Err(Error::Panicked { name }),
            Err(_) => Err(Error::Ended { name }),
        }
    }

    /// Runs `work` on a thread of its own, for loops that block all their life. It must end when its input closes or
    /// [`Tasks::draining`] is cancelled; shutdown waits for it up to the deadline and cannot interrupt it.
    pub fn thread<F>(&self, name: &'static str, work: F) -> std::thread::JoinHandle<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let running = self.running(name);
        let guarded = move || {
            let running = running;
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
            outcome.unwrap_or_else(|panic| running.panicked(&*panic));
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(guarded).expect("the system can start a thread")
    }

    /// Cancelled once the owner is asked to stop: take no more work, finish what was accepted.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Asks tasks to finish without waiting; [`Tasks::shutdown`] waits.
    pub fn drain(&self) {
        self.inner.draining.cancel();
    }

    /// Ends every task of this owner and its children: drain, wait up to `deadline`, drop the rest. True when all had
    /// finished by themselves.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let tracker = self.tracker();
        self.drain();
        tracker.close();
        let clean = tokio::time::timeout(deadline, tracker.wait()).await.is_ok();
        self.inner.killed.cancel();
        if !clean {
            let names: Vec<_> = self.inner.shared.live.lock().keys().copied().collect();
            tracing::warn!(owner = self.inner.owner, tasks = ?names, "tasks did not finish in time and were ended");
            // A task busy outside an await point, or a thread, cannot be dropped; do not wait for it for ever.
            let _ = tokio::time::timeout(AFTER_KILL, tracker.wait()).await;
        }
        clean
    }

    /// Number of tasks of this owner and its children.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tracker().len()
    }

    fn tracker(&self) -> &TaskTracker {
        &self.inner.trackers[0]
    }

    fn running(&self, name: &'static str) -> Running {
        self.inner.shared.running.get_or_create(&[("task", name)]).inc();
        *self.inner.shared.live.lock().entry(name).or_default() += 1;
        let tokens = self.inner.trackers.iter().map(TaskTracker::token).collect();
        Running { name, shared: Arc::clone(&self.inner.shared), _trackers: tokens }
    }
}

impl Running {
    fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(task = self.name, panic = text.unwrap_or("(no text)"), "task panicked");
        self.shared.panics.get_or_create(&[("task", self.name)]).inc();
    }
}

#[cfg(test)]
mod tests;
