//! All unread one-to-one messages of a user, kept in memory for the webhooks that carry the number.
//!
//! Counted once in full, then only for the peers something changed with: a message in one of a thousand conversations
//! costs one head, not a thousand. Kept only where and as long as it is asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use linnet_types::{SdkAppId, UserId};
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::error::Result;

/// Users whose totals are kept.
const USERS: u64 = 20_000;
/// A total nobody asked for is forgotten, and one that lost a notice does not stay wrong for longer than this.
const KEPT: Duration = Duration::from_secs(300);

/// Totals of the users this node owns.
pub(crate) struct Totals {
    users: Cache<(SdkAppId, UserId), Arc<Total>>,
}

#[derive(Default)]
struct Total {
    state: Mutex<State>,
    /// One count at a time: the later one finds what the earlier one counted.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Version of the ring it was counted under: another node may have owned the user since.
    ring: Option<u64>,
    by_peer: HashMap<String, u64>,
    dirty: BTreeSet<String>,
}

impl Totals {
    pub(crate) fn new() -> Self {
        Self { users: Cache::builder().max_capacity(USERS).time_to_live(KEPT).build() }
    }

    /// Something changed between the user and `peer`.
    pub(crate) fn changed(&self, app: SdkAppId, user: &UserId, peer: &str) {
        if let Some(total) = self.users.get(&(app, user.clone())) {
            total.state.lock().dirty.insert(peer.to_owned());
        }
    }

    /// The total; `count` counts with the peers it is given, or with all.
    pub(crate) async fn get<F>(
        &self,
        app: SdkAppId,
        user: &UserId,
        ring: u64,
        changed: &[String],
        count: impl FnOnce(Option<Vec<String>>) -> F,
    ) -> Result<u64>
    where
        F: Future<Output = Result<HashMap<String, u64>>>,
    {
        let total = self.users.get_with((app, user.clone()), Arc::default);
        let _turn = total.turn.lock().await;
        let peers = {
            let mut state = total.state.lock();
            state.dirty.extend(changed.iter().cloned());
            // What changes from here on is counted by the next one.
            let dirty: Vec<String> = std::mem::take(&mut state.dirty).into_iter().collect();
            (state.ring == Some(ring)).then_some(dirty)
        };
        let asked = peers.clone();
        let counted = match count(peers).await {
            Ok(counted) => counted,
            Err(error) => {
                total.state.lock().dirty.extend(asked.into_iter().flatten());
                return Err(error);
            }
        };
        let mut state = total.state.lock();
        match asked {
            Some(peers) => {
                for peer in peers {
                    state.by_peer.remove(&peer);
                }
                state.by_peer.extend(counted);
            }
            None => (state.by_peer, state.ring) = (counted, Some(ring)),
        }
        Ok(state.by_peer.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> HashMap<String, u64> {
        pairs.iter().map(|(peer, count)| ((*peer).to_owned(), *count)).collect()
    }

    #[tokio::test]
    async fn only_what_changed_is_counted_again() {
        let totals = Totals::new();
        let (app, bob) = (SdkAppId(1), UserId::trusted("bob"));
        let a = ["a".to_owned()];
        let all = totals.get(app, &bob, 7, &a, async |peers| {
            assert_eq!(peers, None);
            Ok(counts(&[("a", 2), ("b", 3)]))
        });
        assert_eq!(all.await.unwrap(), 5);
        totals.changed(app, &bob, "b");
        let some = totals.get(app, &bob, 7, &a, async |peers| {
            assert_eq!(peers, Some(vec!["a".to_owned(), "b".to_owned()]));
            Ok(counts(&[("a", 4)]))
        });
        assert_eq!(some.await.unwrap(), 4);
        let moved = totals.get(app, &bob, 8, &[], async |peers| {
            assert_eq!(peers, None);
            Ok(counts(&[("a", 1)]))
        });
        assert_eq!(moved.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_count_that_fails_is_made_up_for() {
        let totals = Totals::new();
        let (app, bob) = (SdkAppId(1), UserId::trusted("bob"));
        let a = ["a".to_owned()];
        totals.get(app, &bob, 7, &[], async |_| Ok(counts(&[("a", 1)]))).await.unwrap();
        let fails = totals.get(app, &bob, 7, &a, async |_| Err(crate::error::Error::Moved));
        assert!(fails.await.is_err());
        let again = totals.get(app, &bob, 7, &[], async |peers| {
            assert_eq!(peers, Some(vec!["a".to_owned()]));
            Ok(counts(&[("a", 9)]))
        });
        assert_eq!(again.await.unwrap(), 9);
    }
}
