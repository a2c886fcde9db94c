//! Classes of work: each with its consistency, time, retries, and a bound on what is under way.

use std::sync::Arc;
use std::time::Duration;

use linnet_runtime::Clock;
use linnet_runtime::metrics::Gauge;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::errors::{DbError, RequestAttemptError};
use scylla::policies::load_balancing::LoadBalancingPolicy;
use scylla::policies::retry::{RequestInfo, RetryDecision, RetryPolicy, RetrySession};
use scylla::policies::speculative_execution::{SimpleSpeculativeExecutionPolicy, SpeculativeExecutionPolicy};
use scylla::statement::{Consistency, SerialConsistency};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Config;
use super::metrics::CqlMetrics;
use super::nearest::{Answering, Answers, nearest};
use crate::rows::{Error, Result, Table};

/// Requests that may wait for a place, for each that is under way.
const WAITING: usize = 4;
/// Attempts of one read or plain write beside the first.
const RETRIES: u32 = 2;

/// A class of work.
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) profile: ExecutionProfileHandle,
    under_way: Semaphore,
    waiting: Semaphore,
    busy_after: Duration,
    clock: Clock,
    metrics: CqlMetrics,
}

/// All of them.
pub(super) struct Lanes {
    pub(super) guarded: Lane,
    pub(super) serial: Lane,
    pub(super) plain: Lane,
    pub(super) page: Lane,
    pub(super) scan: Lane,
}

impl Lanes {
    pub(super) fn new(config: &Config, datacenter: &str, clock: &Clock, metrics: &CqlMetrics) -> Self {
        let (inner, answers) = (nearest(datacenter), Answers::new(clock.clone()));
        let answering = |probes| {
            let policy = Answering { inner: inner.clone(), answers: answers.clone(), probes };
            Arc::new(policy) as Arc<dyn LoadBalancingPolicy>
        };
        let (writes, reads) = (answering(false), answering(true));
        let profile = |consistency: Consistency,
                       timeout: Duration,
                       retries: Arc<dyn RetryPolicy>,
                       to: &Arc<dyn LoadBalancingPolicy>| {
            ExecutionProfile::builder()
                .consistency(consistency)
                .serial_consistency(Some(SerialConsistency::LocalSerial))
                .request_timeout(Some(timeout))
                .load_balancing_policy(to.clone())
                .retry_policy(retries)
        };
        let twice = |retries, after| {
            let second = SimpleSpeculativeExecutionPolicy { max_retry_count: retries, retry_interval: after };
            Some(Arc::new(second) as Arc<dyn SpeculativeExecutionPolicy>)
        };
        let second = config.second_read_after.get();
        let (write, read, scan) = (config.write_timeout.get(), config.read_timeout.get(), config.scan_timeout.get());
        let lane = |name, bound: usize, profile: ExecutionProfile| Lane {
            name,
            profile: profile.into_handle_with_label(name.to_owned()),
            under_way: Semaphore::new(bound),
            waiting: Semaphore::new(bound * WAITING),
            busy_after: config.busy_after.get(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let (once, again): (Arc<dyn RetryPolicy>, Arc<dyn RetryPolicy>) = (Arc::new(Unsent), Arc::new(Elsewhere));
        let guarded = profile(Consistency::LocalQuorum, write, once, &writes).build();
        let serial = profile(Consistency::LocalSerial, read, again.clone(), &reads)
            .speculative_execution_policy(twice(1, second))
            .build();
        // A repeat carries the timestamp of the first attempt, so it changes nothing.
        let plain = profile(Consistency::LocalQuorum, write, again.clone(), &reads)
            .speculative_execution_policy(twice(1, second * 2))
            .build();
        let page = profile(Consistency::LocalQuorum, read, again.clone(), &reads)
            .speculative_execution_policy(twice(2, second))
            .build();
        let whole = profile(Consistency::LocalQuorum, scan, again, &writes).build();
        Self {
            guarded: lane("guarded", config.guarded_writes, guarded),
            serial: lane("serial", config.serial_reads, serial),
            plain: lane("plain", config.plain_writes, plain),
            page: lane("page", config.page_reads, page),
            scan: lane("scan", config.scans, whole),
        }
    }
}

impl Lane {
    /// Does `work` when there is a place for it; waits a little for one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none: nothing was sent. Else what `work` answers.
    pub(super) async fn run<T>(&self, table: Table, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(_place) = self.place().await else {
            self.count("busy");
            return Err(Error::Unavailable { table: table.name, why: "busy".to_owned() });
        };
        let label = [("work", self.name)];
        let since = self.clock.mono();
        let result = {
            let _counted = Counted::new(self.metrics.under_way.get_or_create_owned(&label));
            work.await
        };
        self.metrics.seconds.get_or_create(&label).observe((self.clock.mono() - since).as_secs_f64());
        match &result {
            Ok(_) => {}
            Err(Error::Unknown { .. }) => self.count("unknown"),
            Err(Error::Corrupt { .. }) => self.count("corrupt"),
            Err(Error::Unavailable { .. } | Error::Stale { .. } | Error::Open { .. }) => self.count("unavailable"),
        }
        result
    }

    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.under_way.try_acquire() {
            return Some(place);
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        tokio::time::timeout(self.busy_after, self.under_way.acquire()).await.ok()?.ok()
    }

    fn count(&self, kind: &'static str) {
        self.metrics.errors.get_or_create(&[("work", self.name), ("kind", kind)]).inc();
    }
}

/// One request under way, also when its caller gives up.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Tries again only what was certainly not begun: a conditional batch sent twice could meet itself.
#[derive(Debug)]
pub(super) struct Unsent;

/// Tries again on another server, whatever went wrong there.
#[derive(Debug)]
pub(super) struct Elsewhere;

struct UnsentSession;
struct ElsewhereSession(u32);

impl RetryPolicy for Unsent {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(UnsentSession)
    }
}

impl RetrySession for UnsentSession {
    fn decide_should_retry(&mut self, request: RequestInfo) -> RetryDecision {
        match request.error {
            RequestAttemptError::UnableToAllocStreamId | RequestAttemptError::DbError(DbError::IsBootstrapping, _) => {
                RetryDecision::RetryNextTarget(None)
            }
            _ => RetryDecision::DontRetry,
        }
    }

    fn reset(&mut self) {}
}

impl RetryPolicy for Elsewhere {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(ElsewhereSession(0))
    }
}

impl RetrySession for ElsewhereSession {
    fn decide_should_retry(&mut self, request: RequestInfo) -> RetryDecision {
        let passing = match request.error {
            RequestAttemptError::BrokenConnectionError(_) | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(error, _) => matches!(
                error,
                DbError::Unavailable { .. }
                    | DbError::Overloaded
                    | DbError::IsBootstrapping
                    | DbError::TruncateError
                    | DbError::ServerError
                    | DbError::ReadTimeout { .. }
                    | DbError::WriteTimeout { .. }
                    | DbError::ReadFailure { .. }
                    | DbError::WriteFailure { .. }
            ),
            _ => false,
        };
        self.0 += 1;
        if passing && self.0 <= RETRIES { RetryDecision::RetryNextTarget(None) } else { RetryDecision::DontRetry }
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}
