//! One subscription over all connections: from each connection's stream into the subscriber's queue, holes in their place.

use std::sync::Arc;

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use tokio::sync::watch;

use super::Inner;
use super::link::Link;
use crate::queue::{Pushed, Queue};
use crate::subject::Subject;

/// Feeds one queue.
pub(crate) struct Forward {
    inner: Arc<Inner>,
    links: watch::Receiver<Option<Arc<Link>>>,
    subject: Subject,
    queue: Arc<Queue>,
}

/// Why a connection's stream is read no more.
enum Ended {
    /// The connection broke; the next may follow.
    Broken,
    /// Nobody reads the queue, or the bus is closed.
    Done,
}

/// Ends the queue also when the task is dropped, so that its reader does not wait for ever.
struct EndOnDrop(Arc<Queue>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Forward {
    pub(crate) fn new(inner: Arc<Inner>, subject: Subject, queue: Arc<Queue>) -> Self {
        let links = inner.link.subscribe();
        Self { inner, links, subject, queue }
    }

    /// Reads `first`, then what each new connection brings; messages that nobody could receive in between are a hole.
    pub(crate) async fn run(mut self, first: Option<(Arc<Link>, Subscriber)>) {
        let _end = EndOnDrop(Arc::clone(&self.queue));
        let mut hole = first.is_none();
        let mut next = first;
        loop {
            let attached = match next.take() {
                Some(attached) => Some(attached),
                None => self.attach().await,
            };
            let Some((link, source)) = attached else { return };
            if let Ended::Done = self.pass_on(&link, source, hole).await {
                return;
            }
            hole = true;
        }
    }

    /// Subscribes on the next connection that takes it; `None` when nobody needs it any more.
    async fn attach(&mut self) -> Option<(Arc<Link>, Subscriber)> {
        loop {
            let current = self.links.borrow_and_update().clone();
            if let Some(link) = current
                && let Ok(source) = link.subscribe(self.inner.spelled(&self.subject)).await
            {
                return Some((link, source));
            }
            tokio::select! {
                biased;
                () = self.queue.closed() => return None,
                () = self.inner.closed.cancelled() => return None,
                changed = self.links.changed() => changed.ok()?,
            }
        }
    }

    async fn pass_on(&self, link: &Link, mut source: Subscriber, mut hole: bool) -> Ended {
        let mut overruns = link.overruns();
        overruns.mark_unchanged();
        // Told only once the new subscription is in force: who asks for what he missed then misses nothing in between.
        let mut in_force = std::pin::pin!(link.flush());
        loop {
            tokio::select! {
                biased;
                () = self.queue.closed() => return Ended::Done,
                message = source.next() => {
                    let Some(message) = message else { return self.ended() };
                    if std::mem::take(&mut hole) {
                        self.hole();
                    }
                    self.pass(message);
                }
                _ = &mut in_force, if hole => {
                    if link.lost().is_cancelled() {
                        return self.ended();
                    }
                    hole = false;
                    self.hole();
                }
                // Which of them it was is not said, so all are told; it is at or before this place.
                Ok(()) = overruns.changed() => self.hole(),
                () = link.lost().cancelled() => return self.ended(),
                () = self.inner.closed.cancelled() => return Ended::Done,
            }
        }
    }

    fn ended(&self) -> Ended {
        if self.inner.closed.is_cancelled() { Ended::Done } else { Ended::Broken }
    }

    fn hole(&self) {
        self.inner.counts.holes.inc();
        self.queue.lagged(1);
    }

    fn pass(&self, message: Message) {
        if self.inner.loses("in") {
            return;
        }
        let bytes = message.payload.len() as u64;
        if self.queue.push(self.subject.clone(), message.payload) == Pushed::Queued {
            self.inner.counts.delivered.inc();
            self.inner.counts.delivered_bytes.inc_by(bytes);
        }
    }
}
