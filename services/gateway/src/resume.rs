//! Connections that were lost and may be taken up again within two minutes.

use std::collections::HashMap;
use std::time::Duration;

use linnet_types::{GroupId, SdkAppId, UserId};
use parking_lot::Mutex;

/// Lost connections remembered; beyond it the expired are swept, and new ones are not remembered.
const CAPACITY: usize = 1_000_000;

/// What is known of a connection by its token. The token is random and lives in memory only: another gateway does not
/// know it, and the client then simply signs in anew.
#[derive(Debug)]
struct Known {
    app: SdkAppId,
    user: UserId,
    instance: String,
    rooms: Vec<GroupId>,
    /// Set once the connection is lost.
    until: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Resume {
    known: Mutex<HashMap<String, Known>>,
}

impl Resume {
    /// Remembers a live connection.
    pub(crate) fn signed_in(&self, token: &str, app: SdkAppId, user: &UserId, instance: &str) {
        let known = Known { app, user: user.clone(), instance: instance.to_owned(), rooms: Vec::new(), until: None };
        let mut all = self.known.lock();
        if all.len() < CAPACITY {
            all.insert(token.to_owned(), known);
        }
    }

    /// The connection was lost while in `rooms`.
    pub(crate) fn lost(&self, token: &str, rooms: Vec<GroupId>, until: Duration) {
        if let Some(known) = self.known.lock().get_mut(token) {
            known.rooms = rooms;
            known.until = Some(until);
        }
    }

    pub(crate) fn forget(&self, token: &str) {
        self.known.lock().remove(token);
    }

    /// Takes up a lost connection: the live rooms it was in. A token is good once, for its own user and instance. One
    /// whose connection still looks alive (the client noticed first) is good too.
    pub(crate) fn take(
        &self,
        token: &str,
        app: SdkAppId,
        user: &UserId,
        instance: &str,
        now: Duration,
    ) -> Option<Vec<GroupId>> {
        let mut all = self.known.lock();
        let known = all.get(token)?;
        let same = known.app == app && known.user == *user && known.instance == instance;
        if !same || known.until.is_some_and(|until| until < now) {
            return None;
        }
        all.remove(token).map(|known| known.rooms)
    }

    /// Forgets what has expired; called every 30 s.
    pub(crate) fn sweep(&self, now: Duration) {
        self.known.lock().retain(|_, known| known.until.is_none_or(|until| until >= now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_for_its_own_user_and_for_its_time() {
        let (resume, app, alice) = (Resume::default(), SdkAppId(1), UserId::trusted("alice"));
        let take = |token: &str, instance: &str, s| resume.take(token, app, &alice, instance, Duration::from_secs(s));
        resume.signed_in("t", app, &alice, "page");
        resume.lost("t", vec![GroupId::trusted("room")], Duration::from_secs(120));
        assert_eq!(take("t", "other", 10), None);
        assert_eq!(resume.take("t", app, &UserId::trusted("eve"), "page", Duration::ZERO), None);
        assert_eq!(take("t", "page", 121), None);
        assert_eq!(take("t", "page", 120), Some(vec![GroupId::trusted("room")]));
        assert_eq!(take("t", "page", 120), None);
    }
}
