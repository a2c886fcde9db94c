//! The directory of one machine. A restart loses it; gateways bring their sessions back with the next refresh.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use async_trait::async_trait;
use linnet_types::{GroupId, Platform, SdkAppId, UnixMillis, UserId};
use parking_lot::Mutex;

use super::record::Record;
use super::{
    Change, Directory, End, Ended, Expired, Placed, Policy, Refreshed, Result, RoomAt, Session, SignedIn, State, View,
};

const SHARDS: usize = 32;
/// A record is looked at for dead sessions this often.
const LOOK_EVERY_MS: u64 = 15_000;
/// Records looked at in one shard before its lock is given up.
const SLICE: usize = 2_000;

type Key = (SdkAppId, UserId);

/// Records in memory, sharded by user.
#[derive(Debug)]
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    records: HashMap<Key, Record>,
    /// When to look at each record; one entry per record.
    looks: VecDeque<(UnixMillis, Key)>,
    sessions: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Memory {
    fn shard(&self, app: SdkAppId, user: &UserId) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one((app, user));
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }

    /// Changes a record, made if need be, and answers with the change of places it caused.
    fn change<T>(
        &self,
        app: SdkAppId,
        user: &UserId,
        view: &View,
        act: impl FnOnce(&mut Record) -> T,
    ) -> (T, Option<Change>) {
        let mut shard = self.shard(app, user).lock();
        let shard = &mut *shard;
        let key = (app, user.clone());
        let record = shard.records.entry(key).or_insert_with_key(|key| {
            shard.looks.push_back((view.now.plus_ms(LOOK_EVERY_MS), key.clone()));
            Record::default()
        });
        let before = record.sessions();
        let done = act(record);
        shard.sessions = shard.sessions + record.sessions() - before;
        (done, record.change(view).map(|placed| Change::of(app, user, placed)))
    }

    fn read<T>(&self, app: SdkAppId, user: &UserId, act: impl FnOnce(&Record) -> T) -> Option<T> {
        self.shard(app, user).lock().records.get(&(app, user.clone())).map(act)
    }
}

#[async_trait]
impl Directory for Memory {
    async fn sign_in(&self, session: Session, policy: Policy, view: &View) -> Result<SignedIn> {
        let (app, user) = (session.app, session.user.clone());
        let (outcome, change) = self.change(app, &user, view, |record| record.sign_in(session, policy, view));
        Ok(SignedIn { change, ..outcome })
    }

    async fn refresh(&self, sessions: Vec<(Session, Policy)>, view: &View) -> Result<Refreshed> {
        let mut refreshed = Refreshed::default();
        for (session, policy) in sessions {
            let refresh = |record: &mut Record| record.refresh(&session, policy, view);
            let (verdict, change) = self.change(session.app, &session.user, view, refresh);
            refreshed.note(session.connection, verdict);
            refreshed.changes.extend(change);
        }
        Ok(refreshed)
    }

    async fn end(
        &self,
        app: SdkAppId,
        user: &UserId,
        connection: &str,
        how: End,
        view: &View,
    ) -> Result<Option<Ended>> {
        if self.read(app, user, |_| ()).is_none() {
            return Ok(None);
        }
        let (session, change) = self.change(app, user, view, |record| record.end(connection, how, view));
        Ok(session.map(|session| Ended { session, change }))
    }

    async fn kick(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<(Vec<Session>, Option<Change>)> {
        Ok(self.change(app, user, view, |record| record.kick(view)))
    }

    async fn places(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Placed>> {
        let placed = |user| self.read(app, user, |record| record.placed(view)).unwrap_or_default();
        Ok(users.iter().map(placed).collect())
    }

    async fn states(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Vec<(Platform, State)>>> {
        let states = |user| self.read(app, user, |record| record.states(view)).unwrap_or_default();
        Ok(users.iter().map(states).collect())
    }

    async fn enter_room(
        &self,
        app: SdkAppId,
        user: &UserId,
        connection: &str,
        group: Option<GroupId>,
        view: &View,
    ) -> Result<Vec<RoomAt>> {
        if self.read(app, user, |_| ()).is_none() {
            return Ok(Vec::new());
        }
        Ok(self.change(app, user, view, |record| record.enter_room(connection, group)).0)
    }

    async fn list(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<Vec<Session>> {
        Ok(self.read(app, user, |record| record.list(view)).unwrap_or_default())
    }

    async fn total(&self) -> Result<u64> {
        Ok(self.shards.iter().map(|shard| shard.lock().sessions as u64).sum())
    }

    async fn expire(&self, view: &View) -> Result<Expired> {
        let mut expired = Expired::default();
        for shard in &self.shards {
            expire(&mut shard.lock(), view, &mut expired);
            tokio::task::yield_now().await;
        }
        Ok(expired)
    }
}

fn expire(shard: &mut Shard, view: &View, expired: &mut Expired) {
    for _ in 0..SLICE {
        match shard.looks.front() {
            Some((at, _)) if *at <= view.now => {}
            _ => return,
        }
        let Some((_, key)) = shard.looks.pop_front() else { return };
        let Some(record) = shard.records.get_mut(&key) else { continue };
        let dead = record.expire(view);
        shard.sessions -= dead.len();
        expired.sessions.extend(dead);
        expired.changes.extend(record.change(view).map(|placed| Change::of(key.0, &key.1, placed)));
        if record.is_empty(view.now) {
            shard.records.remove(&key);
        } else {
            shard.looks.push_back((view.now.plus_ms(LOOK_EVERY_MS), key));
        }
    }
}
