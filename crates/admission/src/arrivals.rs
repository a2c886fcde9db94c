//! The order in which one sender's messages came, kept while each of them is looked at by a task of its own.

use std::collections::HashMap;
use std::sync::Arc;

use linnet_types::SdkAppId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// App, conversation as the caller names it, sender.
type Key = (SdkAppId, String, String);
/// Ends when the message before is admitted; one that was refused hands on whom it waited for itself.
type Before = oneshot::Receiver<Handed>;

/// What a message that goes leaves to the next.
struct Handed(Option<Before>);

/// Lines of senders; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    lines: Arc<Mutex<HashMap<Key, Line>>>,
}

#[derive(Default)]
struct Line {
    /// Places not given up yet.
    taken: usize,
    last: Option<Before>,
}

/// A message's place among those its sender sent to one conversation, given up when dropped.
///
/// Take it before the first `await`, in the order in which the messages came; [`crate::Admission::admit_at`] then admits in
/// that order, however long looking at each of them takes.
#[must_use = "a place that is dropped is given up"]
pub struct Place {
    arrivals: Arrivals,
    key: Key,
    before: Option<Before>,
    next: Option<oneshot::Sender<Handed>>,
}

impl Arrivals {
    pub(crate) fn take(&self, app: SdkAppId, conv: &str, from: &str) -> Place {
        let key = (app, conv.to_owned(), from.to_owned());
        let (next, after) = oneshot::channel();
        let mut lines = self.lines.lock();
        let line = lines.entry(key.clone()).or_default();
        line.taken += 1;
        let before = line.last.replace(after);
        drop(lines);
        Place { arrivals: self.clone(), key, before, next: Some(next) }
    }

    #[cfg(test)]
    pub(crate) fn lines(&self) -> usize {
        self.lines.lock().len()
    }
}

impl Place {
    /// Waits until every message before is admitted or refused.
    pub(crate) async fn reached(&mut self) {
        while let Some(before) = &mut self.before {
            // Awaited in place: dropped half-way, the next message still waits for it. An error: it is gone.
            let handed = before.await;
            self.before = handed.ok().and_then(|handed| handed.0);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            // The receiver is gone when nothing came after.
            let _ = next.send(Handed(self.before.take()));
        }
        let mut lines = self.arrivals.lines.lock();
        if let Some(line) = lines.get_mut(&self.key) {
            line.taken -= 1;
            if line.taken == 0 {
                lines.remove(&self.key);
            }
        }
    }
}
