//! Read positions of groups: a reader who scrolls tells many; only the last of a few seconds is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use linnet_proto::messages;
use linnet_proto::msg::Origin;
use linnet_types::{GroupId, Refusal, SdkAppId, UserId, code};
use parking_lot::Mutex;

use crate::calls::answer;
use crate::hub::Hub;

/// Positions waiting; beyond it they are stored at once.
const CAPACITY: usize = 200_000;
/// Stored at once from one sweep.
const PER_SWEEP: usize = 2_000;

type Key = (u32, UserId, GroupId);

#[derive(Clone, Debug)]
struct Waiting {
    seq: u64,
    due: Duration,
    origin: Origin,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Mutex<HashMap<Key, Waiting>>,
}

impl Reads {
    /// Notes a position to be stored later; false when there is no room and the caller must store it himself.
    pub(crate) fn note(
        &self,
        app: SdkAppId,
        user: &UserId,
        group: &GroupId,
        seq: u64,
        due: Duration,
        origin: Origin,
    ) -> bool {
        let mut waiting = self.waiting.lock();
        let key = (app.0, user.clone(), group.clone());
        if let Some(before) = waiting.get_mut(&key) {
            before.seq = before.seq.max(seq);
            return true;
        }
        if waiting.len() >= CAPACITY {
            return false;
        }
        waiting.insert(key, Waiting { seq, due, origin });
        true
    }

    fn take(&self, wanted: impl Fn(&Key, &Waiting) -> bool, most: usize) -> Vec<(Key, Waiting)> {
        let mut waiting = self.waiting.lock();
        let keys: Vec<Key> =
            waiting.iter().filter(|(key, entry)| wanted(key, entry)).map(|(key, _)| key.clone()).take(most).collect();
        keys.into_iter().filter_map(|key| waiting.remove_entry(&key)).collect()
    }

    /// Stores what is due; called twice a second.
    pub(crate) async fn sweep(&self, hub: &Arc<Hub>) {
        let now = hub.clock.mono();
        self.store(hub, self.take(|_, entry| entry.due <= now, PER_SWEEP)).await;
    }

    /// Stores everything of a user who has left this gateway.
    pub(crate) async fn flush_user(&self, hub: &Arc<Hub>, app: SdkAppId, user: &UserId) {
        self.store(hub, self.take(|(at, name, _), _| *at == app.0 && name == user, usize::MAX)).await;
    }

    /// Stores everything: the gateway is stopping.
    pub(crate) async fn flush_all(&self, hub: &Arc<Hub>) {
        self.store(hub, self.take(|_, _| true, usize::MAX)).await;
    }

    async fn store(&self, hub: &Arc<Hub>, due: Vec<(Key, Waiting)>) {
        let calls = due.into_iter().map(|((app, user, group), entry)| async move {
            let stored = store(hub, SdkAppId(app), &user, &group, entry.seq, entry.origin.clone()).await;
            if stored.is_err_and(|why| why.retry_after_ms.is_some()) {
                let due = hub.clock.mono() + hub.config.read_delay.get();
                self.note(SdkAppId(app), &user, &group, entry.seq, due, entry.origin);
            }
        });
        futures::stream::StreamExt::collect::<Vec<()>>(futures::stream::StreamExt::buffer_unordered(
            futures::stream::iter(calls),
            32,
        ))
        .await;
    }
}

/// Stores a position now; the position in force.
pub(crate) async fn store(
    hub: &Hub,
    app: SdkAppId,
    user: &UserId,
    group: &GroupId,
    seq: u64,
    origin: Origin,
) -> Result<u64, Refusal> {
    let ask = messages::ReadGroupRequest {
        app: app.0,
        user: user.as_str().to_owned(),
        group_id: group.as_str().to_owned(),
        seq,
        origin: Some(origin),
    };
    let reply = hub.calls.lists(app, user)?.read_group(hub.calls.ask(ask)).await;
    Ok(answer(reply, code::CONTACT_INTERNAL)?.read_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_position_waits_and_it_is_due_with_the_first() {
        let reads = Reads::default();
        let (app, user, group) = (SdkAppId(1), UserId::trusted("a"), GroupId::trusted("g"));
        for (seq, due) in [(5, 3), (9, 4), (7, 5)] {
            assert!(reads.note(app, &user, &group, seq, Duration::from_secs(due), Origin::default()));
        }
        assert!(reads.take(|_, entry| entry.due <= Duration::from_secs(2), 10).is_empty());
        let due = reads.take(|_, entry| entry.due <= Duration::from_secs(3), 10);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].1.seq, 9);
    }
}
