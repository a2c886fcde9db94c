//! The bus within one process.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use linnet_runtime::Metrics;
use linnet_runtime::metrics::Counter;
use parking_lot::RwLock;

use crate::queue::{Limits, Pushed, Queue, Subscription};
use crate::subject::Subject;
use crate::{Bus, Error, Port, Result};

/// Delivers within the process, in order and without loss unless a subscriber is too slow. Clones are the same bus, so
/// several nodes of one process can share it.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    subjects: RwLock<Subjects>,
    published: Counter,
    delivered: Counter,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Subjects {
    queues: HashMap<Subject, Vec<Arc<Queue>>>,
    closed: bool,
}

impl Local {
    /// An empty bus that counts in `metrics`.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let (published, delivered, dropped) = metrics.scope("bus", |scope| {
            (
                scope.counter("published", "Messages published"),
                scope.counter("delivered", "Messages put into a subscriber's queue"),
                scope.counter("slow_consumer_dropped", "Messages lost because a subscriber's queue was full"),
            )
        });
        Self { inner: Arc::new(Inner { subjects: RwLock::default(), published, delivered, dropped }) }
    }

    /// A handle to this bus.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(self.clone())
    }

    /// Ends every subscription and refuses further use.
    pub fn close(&self) {
        let mut subjects = self.inner.subjects.write();
        subjects.closed = true;
        subjects.queues.drain().flat_map(|(_, queues)| queues).for_each(|queue| queue.end());
    }

    /// Number of live subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.inner.subjects.read().queues.values().map(Vec::len).sum()
    }
}

impl Inner {
    fn leave(&self, subject: &Subject, ours: &Arc<Queue>) {
        let mut subjects = self.subjects.write();
        if let Some(queues) = subjects.queues.get_mut(subject) {
            queues.retain(|queue| !Arc::ptr_eq(queue, ours));
            if queues.is_empty() {
                subjects.queues.remove(subject);
            }
        }
    }
}

#[async_trait]
impl Port for Local {
    async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        let subjects = self.inner.subjects.read();
        if subjects.closed {
            return Err(Error::Closed);
        }
        self.inner.published.inc();
        for queue in subjects.queues.get(&subject).into_iter().flatten() {
            if queue.push(subject.clone(), payload.clone()) == Pushed::Queued {
                self.inner.delivered.inc();
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subject: Subject, limits: Limits) -> Result<Subscription> {
        let queue = Queue::new(limits, self.inner.dropped.clone());
        let mut subjects = self.inner.subjects.write();
        if subjects.closed {
            return Err(Error::Closed);
        }
        subjects.queues.entry(subject.clone()).or_default().push(Arc::clone(&queue));
        let (inner, ours) = (Arc::downgrade(&self.inner), Arc::clone(&queue));
        Ok(Subscription::new(queue, move || {
            if let Some(inner) = inner.upgrade() {
                inner.leave(&subject, &ours);
            }
        }))
    }

    async fn flush(&self) -> Result<()> {
        if self.inner.subjects.read().closed { Err(Error::Closed) } else { Ok(()) }
    }
}
