//! Best-effort events: in memory, in order per key, bounded; what a kill loses was promised to nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use linnet_proto::callback::Event;
use linnet_runtime::Tasks;
use linnet_types::SdkAppId;
use parking_lot::Mutex;

use crate::breaker::Gate;
use crate::worker::Courier;

/// Events waiting on this node.
const WAITING: usize = 100_000;
/// Events waiting of one key.
const WAITING_PER_KEY: usize = 10_000;

#[derive(Clone)]
pub(crate) struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    courier: Arc<Courier>,
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: HashMap<(u32, String), VecDeque<Event>>,
    waiting: usize,
}

impl Live {
    pub(crate) fn new(courier: Arc<Courier>, tasks: &Tasks) -> Self {
        let tasks = tasks.child("webhooks.live");
        Self { inner: Arc::new(Inner { courier, tasks, state: Mutex::default() }) }
    }

    /// Takes events; those over the bound are dropped and counted.
    pub(crate) fn post(&self, events: Vec<Event>) {
        for event in events {
            let name = (event.app, event.key.clone());
            let mut state = self.inner.state.lock();
            if state.waiting >= WAITING || state.keys.get(&name).is_some_and(|queue| queue.len() >= WAITING_PER_KEY) {
                self.inner.courier.lost.inc();
                continue;
            }
            state.waiting += 1;
            if let Some(queue) = state.keys.get_mut(&name) {
                queue.push_back(event);
                continue;
            }
            state.keys.insert(name.clone(), VecDeque::from([event]));
            drop(state);
            self.inner.tasks.spawn("webhooks.live.key", self.clone().work(name));
        }
    }

    async fn work(self, name: (u32, String)) {
        loop {
            let event = {
                let mut state = self.inner.state.lock();
                let Some(event) = state.keys.get_mut(&name).and_then(VecDeque::pop_front) else {
                    state.keys.remove(&name);
                    return;
                };
                state.waiting -= 1;
                event
            };
            self.deliver(&event).await;
        }
    }

    async fn deliver(&self, event: &Event) {
        let courier = &self.inner.courier;
        let Ok(app) = courier.apps.get(SdkAppId(event.app)).await else { return };
        if !app.settings.webhook_on(&event.command) {
            return;
        }
        if courier.breakers.gate(app.id, courier.clock.mono()) == Gate::Open {
            courier.lost.inc();
            return;
        }
        courier.post_in_turn(&app, event, 1).await;
    }
}
