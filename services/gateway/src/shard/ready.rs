//! Which sockets of a shard are worth looking at.
//!
//! Each connection has a waker of its own that puts its slot on a list and wakes the shard's one task, so a shard of
//! 50,000 sockets looks only at those with news.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// Slots with news, and the task to wake.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    slots: Mutex<Vec<u32>>,
    pub(crate) task: AtomicWaker,
}

impl Ready {
    /// Moves the slots with news into `into`, which is empty.
    pub(crate) fn take(&self, into: &mut Vec<u32>) {
        std::mem::swap(&mut *self.slots.lock(), into);
    }
}

/// The waker of one connection.
#[derive(Debug)]
pub(crate) struct ConnWaker {
    slot: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl ConnWaker {
    pub(crate) fn new(slot: u32, ready: Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { slot, queued: AtomicBool::new(false), ready })
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// To be called before the socket is looked at, so that news from then on queue it again.
    pub(crate) fn seen(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Puts the slot on the list without waking anybody: the shard is awake.
    pub(crate) fn again(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.slots.lock().push(self.slot);
        }
    }
}

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.slots.lock().push(self.slot);
            self.ready.task.wake();
        }
    }
}
