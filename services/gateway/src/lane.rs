//! Messages of one connection on their way to their owners.
//!
//! They are handed over in the order the client sent them and answered as they come back: the call of an earlier message
//! has begun before that of a later one, and the owner keeps one sender's messages in the order they arrived. So a slow
//! webhook of the app delays a sender's answers, not his pace.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use linnet_proto::client;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hub::Hub;
use crate::session::{ConnRef, Session};
use crate::wire::Wire;

/// One message and where its reply goes.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) at: ConnRef,
    pub(crate) wire: Wire,
    pub(crate) id: u64,
    pub(crate) send: client::Send,
}

/// The queue of one connection; its length is bounded by the shard, which stops reading.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    running: bool,
}

impl Lane {
    /// Adds a message; true when the caller must start [`run`].
    fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(job);
        self.news.notify_one();
        !std::mem::replace(&mut state.running, true)
    }

    fn pop(&self) -> Option<Job> {
        self.state.lock().waiting.pop_front()
    }

    /// Ends the lane's task if nothing came meanwhile.
    fn rest(&self) -> bool {
        let mut state = self.state.lock();
        state.running = !state.waiting.is_empty();
        !state.running
    }
}

impl Hub {
    /// Hands a message to its owner, after those the connection sent before.
    pub(crate) fn send(self: &Arc<Self>, at: ConnRef, wire: Wire, session: Arc<Session>, id: u64, send: client::Send) {
        if session.lane.push(Job { at, wire, id, send }) {
            self.tasks.spawn("gateway.lane", run(Arc::clone(self), session));
        }
    }
}

async fn run(hub: Arc<Hub>, session: Arc<Session>) {
    let mut flying = FuturesUnordered::new();
    loop {
        while let Some(job) = session.lane.pop() {
            flying.push(crate::send::carry(&hub, &session, job));
        }
        if flying.is_empty() {
            if session.lane.rest() {
                return;
            }
            continue;
        }
        // New calls are polled first in the order they were pushed.
        tokio::select! {
            _ = flying.next() => {}
            () = session.lane.news.notified() => {}
        }
    }
}
