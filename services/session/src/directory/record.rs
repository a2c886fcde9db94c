//! What is known of one user, and the login policy. Pure: every implementation decides by this.

mod row;

use std::collections::{BTreeSet, VecDeque};

use linnet_types::{GroupId, NodeId, Platform, UnixMillis};

use super::{
    Change, DEAD_AFTER_MS, End, PUSH_ONLINE_MS, Placed, Policy, Refreshed, RoomAt, Session, SignedIn, State, View,
};

/// Ended connections are remembered this long: a gateway that missed the end refreshes within 30 s.
const REMEMBER_MS: u64 = 120_000;
const REMEMBER_MAX: usize = 32;
/// A dead session that nobody expired is kept this much longer: the whole cluster may have been away.
const UNSEEN_MS: u64 = 600_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    sessions: Vec<Held>,
    /// Phones reachable by push only, until when.
    push: Vec<(Platform, UnixMillis)>,
    ended: VecDeque<(String, UnixMillis)>,
    /// No session of before this moment is current.
    kicked_at: UnixMillis,
    told: Placed,
    room: Option<Room>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    session: Session,
    refreshed: UnixMillis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    group: GroupId,
    seats: Vec<(NodeId, String)>,
}

/// What a refresh says of one session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Current,
    Stale,
    /// Recorded again; these older ones are pushed out.
    Restored(Vec<Session>),
}

impl Refreshed {
    /// Adds what became of one connection.
    pub(super) fn note(&mut self, connection: String, verdict: Verdict) {
        match verdict {
            Verdict::Current => {}
            Verdict::Stale => self.stale.push(connection),
            Verdict::Restored(kicked) => self.kicked.extend(kicked),
        }
    }
}

impl Held {
    fn lives(&self, view: &View) -> bool {
        let incarnation = view.gateways.get(&self.session.gateway);
        view.now.since(self.refreshed) <= DEAD_AFTER_MS
            && incarnation.is_some_and(|now| self.session.incarnation >= *now)
    }

    /// Whether frames may reach it: also on a gateway that is not heard and may only be cut off. Frames for a life that is
    /// over would be kept for nobody.
    fn may_be_reached(&self, view: &View) -> bool {
        let incarnation = view.gateways.get(&self.session.gateway);
        view.now.since(self.refreshed) <= DEAD_AFTER_MS
            && incarnation.is_none_or(|now| self.session.incarnation >= *now)
    }
}

impl Record {
    pub(super) fn sign_in(&mut self, session: Session, policy: Policy, view: &View) -> SignedIn {
        let mut outcome = SignedIn::default();
        if let Some(held) = self.held(&session.connection) {
            held.refreshed = view.now;
            outcome.repeated = true;
            return outcome;
        }
        let same = |held: &Held| held.session.instance == session.instance;
        let (replaced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sessions).into_iter().partition(same);
        self.sessions = rest;
        outcome.replaced = self.drop_all(replaced, view);
        outcome.kicked = self.push_out(session.platform, policy, view);
        self.push.retain(|(platform, _)| *platform != session.platform);
        self.sessions.push(Held { session, refreshed: view.now });
        outcome
    }

    /// Makes room for one more session: the oldest of its class go. Answers those that were alive.
    fn push_out(&mut self, platform: Platform, policy: Policy, view: &View) -> Vec<Session> {
        let (class, cap) = policy.class(platform);
        let mut rivals = Vec::new();
        for held in std::mem::take(&mut self.sessions) {
            let rival = policy.class(held.session.platform).0 == class;
            if rival { rivals.push(held) } else { self.sessions.push(held) }
        }
        // Dead ones go first, then the oldest.
        rivals.sort_by_key(|held| (held.lives(view), held.session.signed_in));
        let keep = rivals.split_off((rivals.len() + 1).saturating_sub(cap).min(rivals.len()));
        self.sessions.extend(keep);
        self.drop_all(rivals, view)
    }

    /// Remembers ended sessions; answers those that were alive.
    fn drop_all(&mut self, gone: Vec<Held>, view: &View) -> Vec<Session> {
        let mut alive = Vec::new();
        for held in gone {
            self.note_end(&held.session, view.now);
            if held.lives(view) {
                alive.push(held.session);
            }
        }
        alive
    }

    pub(super) fn refresh(&mut self, session: &Session, policy: Policy, view: &View) -> Verdict {
        if let Some(held) = self.held(&session.connection) {
            held.refreshed = view.now;
            return Verdict::Current;
        }
        let ended = self.ended.iter().any(|(connection, _)| *connection == session.connection);
        let (class, cap) = policy.class(session.platform);
        let newer = |held: &&Held| held.session.signed_in >= session.signed_in && held.lives(view);
        let rivals = self.sessions.iter().filter(newer);
        let replaced = rivals.clone().any(|held| held.session.instance == session.instance);
        let full = rivals.filter(|held| policy.class(held.session.platform).0 == class).count() >= cap;
        if ended || replaced || full || session.signed_in <= self.kicked_at {
            return Verdict::Stale;
        }
        let restored = self.sign_in(session.clone(), policy, view);
        Verdict::Restored(restored.kicked.into_iter().chain(restored.replaced).collect())
    }

    pub(super) fn end(&mut self, connection: &str, how: End, view: &View) -> Option<Session> {
        let index = self.sessions.iter().position(|held| held.session.connection == connection)?;
        let session = self.sessions.remove(index).session;
        self.note_end(&session, view.now);
        self.push.retain(|(platform, _)| *platform != session.platform);
        if how == End::Lost && session.platform.is_mobile() {
            self.push.push((session.platform, view.now.plus_ms(PUSH_ONLINE_MS)));
        }
        Some(session)
    }

    pub(super) fn kick(&mut self, view: &View) -> Vec<Session> {
        self.kicked_at = view.now;
        self.push.clear();
        self.room = None;
        let gone = std::mem::take(&mut self.sessions);
        for held in &gone {
            self.note_end(&held.session, view.now);
        }
        gone.into_iter().map(|held| held.session).collect()
    }

    /// Ends what was not refreshed in time.
    pub(super) fn expire(&mut self, view: &View) -> Vec<Session> {
        let dead = |held: &&Held| view.now.since(held.refreshed) > DEAD_AFTER_MS;
        let connections: Vec<_> =
            self.sessions.iter().filter(dead).map(|held| held.session.connection.clone()).collect();
        connections.iter().filter_map(|connection| self.end(connection, End::Lost, view)).collect()
    }

    /// Where the user is, if that is not what was told last.
    pub(super) fn change(&mut self, view: &View) -> Option<Placed> {
        let gateways = self.gateways(view);
        if gateways == self.told.gateways {
            return None;
        }
        // The clock keeps it rising over a loss of the record.
        self.told = Placed { gateways, rev: (self.told.rev + 1).max(view.now.0) };
        Some(self.told.clone())
    }

    pub(super) fn placed(&self, view: &View) -> Placed {
        Placed { gateways: self.gateways(view), rev: self.told.rev }
    }

    fn gateways(&self, view: &View) -> Vec<NodeId> {
        let there = self.sessions.iter().filter(|held| held.may_be_reached(view));
        there.map(|held| held.session.gateway.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn states(&self, view: &View) -> Vec<(Platform, State)> {
        let mut states: Vec<(Platform, State)> = Vec::new();
        for platform in Platform::ALL {
            let mut of_platform = self.sessions.iter().filter(|held| held.session.platform == platform).peekable();
            // A phone on a gateway that died is a lost connection that was not expired yet.
            let lost = of_platform.peek().is_some() && platform.is_mobile();
            let push = self.push.iter().any(|(phone, until)| *phone == platform && view.now < *until);
            if of_platform.any(|held| held.lives(view)) {
                states.push((platform, State::Online));
            } else if push || lost {
                states.push((platform, State::PushOnline));
            }
        }
        states
    }

    pub(super) fn list(&self, view: &View) -> Vec<Session> {
        let live = self.sessions.iter().filter(|held| held.lives(view));
        let mut sessions: Vec<_> = live.map(|held| held.session.clone()).collect();
        sessions.sort_by_key(|session| session.signed_in);
        sessions
    }

    pub(super) fn enter_room(&mut self, connection: &str, group: Option<GroupId>) -> Vec<RoomAt> {
        let Some(session) = self.sessions.iter().map(|held| &held.session).find(|one| one.connection == connection)
        else {
            return Vec::new();
        };
        if session.platform != Platform::Web {
            return Vec::new();
        }
        let seat = (session.gateway.clone(), connection.to_owned());
        let Some(group) = group else {
            self.leave_room(connection);
            return Vec::new();
        };
        match &mut self.room {
            Some(room) if room.group == group => {
                if !room.seats.contains(&seat) {
                    room.seats.push(seat);
                }
                Vec::new()
            }
            room => {
                let left = room.replace(Room { group, seats: vec![seat] });
                let seats = left.into_iter().flat_map(|left| {
                    let at = move |(gateway, connection)| RoomAt { group: left.group.clone(), gateway, connection };
                    left.seats.into_iter().map(at)
                });
                seats.collect()
            }
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Nothing is known that anybody may still ask for.
    pub(super) fn is_empty(&self, now: UnixMillis) -> bool {
        let old = |at: UnixMillis| now.since(at) > REMEMBER_MS;
        self.sessions.is_empty()
            && self.push.iter().all(|(_, until)| *until <= now)
            && self.ended.iter().all(|(_, at)| old(*at))
            && old(self.kicked_at)
    }

    /// When each session is dead unless it is refreshed.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (&str, UnixMillis)> {
        self.sessions.iter().map(|held| (held.session.connection.as_str(), held.refreshed.plus_ms(DEAD_AFTER_MS + 1)))
    }

    /// Until when somebody may ask for something that is known here.
    pub(super) fn kept_until(&self) -> UnixMillis {
        let remembered = |at: UnixMillis| at.plus_ms(REMEMBER_MS + 1);
        let sessions = self.deadlines().map(|(_, dead)| dead.plus_ms(UNSEEN_MS));
        let push = self.push.iter().map(|(_, until)| *until);
        let ended = self.ended.iter().map(|(_, at)| remembered(*at));
        sessions.chain(push).chain(ended).chain([remembered(self.kicked_at)]).max().unwrap_or_default()
    }

    fn held(&mut self, connection: &str) -> Option<&mut Held> {
        self.sessions.iter_mut().find(|held| held.session.connection == connection)
    }

    fn note_end(&mut self, session: &Session, now: UnixMillis) {
        self.leave_room(&session.connection);
        self.ended.retain(|(_, at)| now.since(*at) <= REMEMBER_MS);
        if self.ended.len() >= REMEMBER_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((session.connection.clone(), now));
    }

    fn leave_room(&mut self, connection: &str) {
        if let Some(room) = &mut self.room {
            room.seats.retain(|(_, seat)| seat != connection);
            if room.seats.is_empty() {
                self.room = None;
            }
        }
    }
}

impl Change {
    pub(super) fn of(app: linnet_types::SdkAppId, user: &linnet_types::UserId, placed: Placed) -> Self {
        Self { app, user: user.clone(), placed }
    }
}
