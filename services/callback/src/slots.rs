//! How many after-webhooks of one app are in flight at once.

use std::collections::HashMap;
use std::sync::Arc;

use linnet_types::SdkAppId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Slots of every app that was ever told something.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    used: Mutex<HashMap<SdkAppId, Used>>,
}

#[derive(Debug, Default)]
struct Used {
    count: u32,
    freed: Arc<Notify>,
}

/// One in use, until dropped.
#[derive(Debug)]
#[must_use = "a slot is free again when dropped"]
pub(crate) struct Slot<'a> {
    slots: &'a Slots,
    app: SdkAppId,
}

impl Slots {
    /// Waits until fewer than `most` are in use.
    pub(crate) async fn take(&self, app: SdkAppId, most: u32) -> Slot<'_> {
        loop {
            let freed = {
                let mut used = self.used.lock();
                let used = used.entry(app).or_default();
                if used.count < most.max(1) {
                    used.count += 1;
                    return Slot { slots: self, app };
                }
                Arc::clone(&used.freed)
            };
            // A slot that was freed meanwhile has left word.
            freed.notified().await;
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut all = self.slots.used.lock();
        let Some(used) = all.get_mut(&self.app) else { return };
        used.count -= 1;
        used.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const APP: SdkAppId = SdkAppId(1);

    async fn at_once(slots: &Slots, most: u32) -> bool {
        tokio::time::timeout(Duration::from_millis(1), slots.take(APP, most)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_has_so_many_in_flight_and_no_more() {
        let slots = Slots::default();
        let held = [slots.take(APP, 2).await, slots.take(APP, 2).await];
        assert!(!at_once(&slots, 2).await);
        assert!(at_once(&slots, 3).await, "the setting was raised");
        let _other = slots.take(SdkAppId(2), 1).await;
        let waits = async {
            let _slot = slots.take(APP, 2).await;
        };
        tokio::join!(waits, async { drop(held) });
        assert_eq!(slots.used.lock()[&APP].count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_gets_one() {
        let slots = Slots::default();
        let each = (0..50).map(async |_| {
            let _slot = slots.take(APP, 3).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        let all = futures::future::join_all(each);
        tokio::time::timeout(Duration::from_secs(1), all).await.expect("nobody is forgotten");
    }
}
