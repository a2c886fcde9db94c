//! The queue between the bus and one subscriber: bounded, and honest about what it lost.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use linnet_runtime::metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::subject::Subject;

/// What a subscriber receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message {
        /// Where it was published.
        subject: Subject,
        /// Its bytes, shared with other receivers.
        payload: Bytes,
    },
    /// At this place messages are missing: this subscriber was too slow, or the connection broke.
    Lagged {
        /// How many, as far as known; at least 1.
        dropped: u64,
    },
}

/// Bounds of a subscription's queue; whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages waiting.
    pub messages: usize,
    /// Payload bytes waiting.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 8192, bytes: 32 << 20 }
    }
}

/// A live subscription; dropping it unsubscribes.
pub struct Subscription {
    queue: Arc<Queue>,
    /// Takes the subscription off the implementation's books.
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt(f)
    }
}

/// What became of a message put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    Dropped,
    Ended,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    arrived: Notify,
    closed: CancellationToken,
    /// Counts what the queue dropped.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    ended: bool,
}

impl Subscription {
    pub(crate) fn new(queue: Arc<Queue>, leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { queue, leave: Some(Box::new(leave)) }
    }

    /// The next event in order; `None` once the bus is closed and everything was taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            {
                let mut state = self.queue.state.lock();
                if let Some(event) = state.pop() {
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next event if one is waiting.
    #[must_use]
    pub fn try_recv(&mut self) -> Option<Event> {
        self.queue.state.lock().pop()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.end();
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Message { payload, .. } = &event {
            self.bytes -= payload.len();
        }
        Some(event)
    }

    fn lose(&mut self, lost: u64) {
        if let Some(Event::Lagged { dropped }) = self.events.back_mut() {
            *dropped += lost;
        } else {
            self.events.push_back(Event::Lagged { dropped: lost });
        }
    }
}

impl Queue {
    pub(crate) fn new(limits: Limits, dropped: Counter) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            arrived: Notify::new(),
            closed: CancellationToken::new(),
            dropped,
        })
    }

    /// Adds a message, or marks its place as lost. A single message larger than the byte limit passes when it is alone,
    /// else it could never be received.
    pub(crate) fn push(&self, subject: Subject, payload: Bytes) -> Pushed {
        let mut state = self.state.lock();
        if state.ended {
            return Pushed::Ended;
        }
        let full = state.events.len() >= self.limits.messages.max(1)
            || (!state.events.is_empty() && state.bytes.saturating_add(payload.len()) > self.limits.bytes);
        if full {
            self.dropped.inc();
            state.lose(1);
        } else {
            state.bytes += payload.len();
            state.events.push_back(Event::Message { subject, payload });
        }
        drop(state);
        self.arrived.notify_one();
        if full { Pushed::Dropped } else { Pushed::Queued }
    }

    /// Marks a hole of `dropped` messages that this queue had no part in.
    pub(crate) fn lagged(&self, dropped: u64) {
        let mut state = self.state.lock();
        if !state.ended {
            state.lose(dropped);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// No more events; what waits can still be taken.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.closed.cancel();
        self.arrived.notify_one();
    }

    /// Waits until the subscription has ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
