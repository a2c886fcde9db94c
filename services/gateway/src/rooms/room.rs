//! One live room as this gateway knows it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use linnet_proto::client::{self, item};
use linnet_proto::delivery::{self, LiveMember, control};
use linnet_proto::{group, msg};
use linnet_types::{GroupId, Refusal, SdkAppId, UnixMillis, code};

use crate::hub::Seat;
use crate::rooms::shaping::Pace;
use crate::view;
use crate::wire::Wire;

/// Names in one delta of a large room; the counts are exact.
const NAMES: usize = 20;
/// Viewers up to which all names are told, so that the owner counts a user on two gateways once.
const NAMED: usize = 10_000;
/// Shed messages told to the owner in one delta.
const SHED: usize = 20;
/// Age after which a message is not replayed.
const REPLAY_MS: u64 = 24 * 3600 * 1000;

#[derive(Debug)]
struct Viewer {
    joined: UnixMillis,
    seats: Vec<Seat>,
}

#[derive(Debug, Default)]
struct Delta {
    joined: Vec<String>,
    left: Vec<String>,
    joined_count: u32,
    left_count: u32,
    shed: [u32; 4],
    shed_messages: Vec<msg::Message>,
}

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) app: SdkAppId,
    pub(crate) group: GroupId,
    pub(crate) conv: u64,
    /// Registered, so that joins and rights can be decided here.
    pub(crate) open: bool,
    pub(crate) online: u32,
    pub(crate) pace: Pace,
    shown: Option<client::Group>,
    mute_all: bool,
    muted: HashMap<String, u64>,
    banned: HashMap<String, u64>,
    owner: String,
    admins: Vec<String>,
    viewers: HashMap<String, Viewer>,
    ring: VecDeque<msg::Message>,
    replays: [Option<Bytes>; 2],
    delta: Delta,
    /// Messages shed since the last of their class that was forwarded.
    since_forwarded: [u32; 4],
    /// The owner does not know who is here.
    name_all: bool,
}

/// How an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    /// Nobody was in before: the room must be registered.
    pub(crate) first: bool,
    /// This connection was in already.
    pub(crate) already: bool,
}

impl Room {
    pub(crate) fn new(app: SdkAppId, group: GroupId, conv: u64, shown: Option<client::Group>) -> Self {
        Self {
            app,
            group,
            conv,
            open: false,
            online: 0,
            pace: Pace::default(),
            shown,
            mute_all: false,
            muted: HashMap::new(),
            banned: HashMap::new(),
            owner: String::new(),
            admins: Vec::new(),
            viewers: HashMap::new(),
            ring: VecDeque::new(),
            replays: [None, None],
            delta: Delta::default(),
            since_forwarded: [0; 4],
            name_all: false,
        }
    }

    /// Takes the owner's word on everything; an answer from memory says nothing new.
    pub(crate) fn registered(&mut self, reply: &delivery::RegisterReply) {
        self.open = true;
        let Some(live) = &reply.live else { return };
        self.pace.set_rate(live.rate_per_s);
        self.mute_all = live.mute_all;
        self.muted = live.muted.clone().into_iter().collect();
        self.banned = live.banned.clone().into_iter().collect();
        self.owner.clone_from(&live.owner);
        self.admins.clone_from(&live.admins);
        self.online = live.online;
        self.ring = live.replay.iter().cloned().collect();
        self.replays = [None, None];
    }

    /// # Errors
    /// `GROUP_NO_RIGHT` for the banned.
    pub(crate) fn enter(&mut self, seat: &Seat, now: UnixMillis) -> Result<Entered, Refusal> {
        let user = seat.session.user.as_str();
        if self.ban_of(user, now).is_some() {
            return Err(Refusal::new(code::GROUP_NO_RIGHT, "banned from the room"));
        }
        let first = self.viewers.is_empty();
        if !self.viewers.contains_key(user) {
            self.delta.joined_count += 1;
            let most = self.names();
            note(&mut self.delta.joined, user, most);
        }
        let viewer = self.viewers.entry(user.to_owned()).or_insert(Viewer { joined: now, seats: Vec::new() });
        let already = viewer.seats.iter().any(|known| known.at == seat.at);
        if !already {
            viewer.seats.push(seat.clone());
        }
        Ok(Entered { first, already })
    }

    /// False when the connection was not in.
    pub(crate) fn leave(&mut self, user: &str, number: u64) -> bool {
        let Some(viewer) = self.viewers.get_mut(user) else { return false };
        let before = viewer.seats.len();
        viewer.seats.retain(|seat| seat.at.number != number);
        let was_in = viewer.seats.len() < before;
        if viewer.seats.is_empty() {
            self.viewers.remove(user);
            self.delta.left_count += 1;
            let most = self.names();
            note(&mut self.delta.left, user, most);
        }
        was_in
    }

    /// Names told in one delta.
    fn names(&self) -> usize {
        let online = self.viewers.len().max(self.online as usize);
        if online < NAMED { NAMED } else { NAMES }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.viewers.is_empty()
    }

    pub(crate) fn is_owner(&self, user: &str) -> bool {
        self.owner == user
    }

    /// The owner took a delta.
    pub(crate) fn told(&mut self, reply: &group::LiveDeltaReply) {
        self.online = reply.online;
        self.name_all |= reply.name_all;
    }

    /// The next delta says who is here.
    pub(crate) fn name_all(&mut self) {
        self.name_all = true;
    }

    /// What a forwarded message stands for: itself and those of its class shed since the one before.
    pub(crate) fn stands_for(&mut self, rank: u8) -> u32 {
        std::mem::take(&mut self.since_forwarded[usize::from(rank)]).saturating_add(1)
    }

    pub(crate) fn count(&self) -> usize {
        self.viewers.len()
    }

    pub(crate) fn seats(&self) -> Vec<Seat> {
        self.viewers.values().flat_map(|viewer| viewer.seats.iter().cloned()).collect()
    }

    pub(crate) fn seats_of(&self, user: &str) -> Vec<Seat> {
        self.viewers.get(user).map(|viewer| viewer.seats.clone()).unwrap_or_default()
    }

    /// Viewers, newest first.
    pub(crate) fn newest(&self, most: usize) -> Vec<LiveMember> {
        let mut viewers: Vec<_> = self.viewers.iter().collect();
        viewers.sort_unstable_by_key(|(_, viewer)| std::cmp::Reverse(viewer.joined));
        let member = |(user, viewer): (&String, &Viewer)| LiveMember {
            user: user.clone(),
            joined_ms: viewer.joined.0,
            platform: viewer.seats.first().map_or("", |seat| seat.session.platform.wire()).to_owned(),
        };
        viewers.into_iter().take(most).map(member).collect()
    }

    /// # Errors
    /// `GROUP_NO_RIGHT` for who is not in the room, `GROUP_MUTED`.
    pub(crate) fn may_speak(&self, user: &str, now: UnixMillis) -> Result<(), Refusal> {
        if !self.viewers.contains_key(user) {
            return Err(Refusal::new(code::GROUP_NO_RIGHT, "not in the room"));
        }
        let manager = self.owner == user || self.admins.iter().any(|admin| admin == user);
        if self.muted.get(user).is_some_and(|until| *until > now.0) || (self.mute_all && !manager) {
            return Err(Refusal::new(code::GROUP_MUTED, "muted in the room"));
        }
        Ok(())
    }

    pub(crate) fn ban(&mut self, user: &str, until_ms: u64) {
        set(&mut self.banned, user, until_ms);
    }

    /// Until when a user is banned, as far as is known here.
    pub(crate) fn ban_of(&self, user: &str, now: UnixMillis) -> Option<u64> {
        self.banned.get(user).copied().filter(|until| *until > now.0)
    }

    /// The owner knows nothing of this ban any more; one that came meanwhile stays.
    pub(crate) fn lift(&mut self, user: &str, until_ms: u64) {
        if self.banned.get(user) == Some(&until_ms) {
            self.banned.remove(user);
        }
    }

    /// Settings and mutes, as the stream brings them.
    pub(crate) fn control(&mut self, kind: &control::Kind) {
        match kind {
            control::Kind::Muted(mute) => set(&mut self.muted, &mute.user, mute.until_ms),
            control::Kind::MuteAll(on) => self.mute_all = *on,
            control::Kind::Online(online) => self.online = *online,
            control::Kind::RatePerS(rate) => self.pace.set_rate(*rate),
            control::Kind::Role(change) => {
                self.admins.retain(|admin| *admin != change.user);
                match change.role.as_str() {
                    "Owner" => self.owner.clone_from(&change.user),
                    "Admin" => self.admins.push(change.user.clone()),
                    _ => {}
                }
            }
            control::Kind::Joined(_)
            | control::Kind::Left(_)
            | control::Kind::Kicked(_)
            | control::Kind::Banned(_)
            | control::Kind::Dismissed(_) => {}
            #[cfg(feature = "next")]
            control::Kind::NextBuild(_) => {}
        }
    }

    /// Keeps a message for newcomers.
    pub(crate) fn remember(&mut self, message: &msg::Message, keep: usize) {
        let chat = message.kind() == msg::MessageKind::Chat;
        if keep == 0 || !chat || message.online_only || message.visibility() != msg::Visibility::All {
            return;
        }
        self.ring.push_back(message.clone());
        while self.ring.len() > keep {
            self.ring.pop_front();
        }
        self.replays = [None, None];
    }

    /// What a newcomer is shown first: one frame for all of them, until the next message.
    pub(crate) fn replay(&mut self, wire: Wire) -> Option<Bytes> {
        if self.ring.is_empty() {
            return None;
        }
        if let Some(frame) = &self.replays[wire as usize] {
            return Some(frame.clone());
        }
        let newest = self.ring.back().map_or(0, |message| message.time_ms);
        let recent = self.ring.iter().filter(|message| message.time_ms + REPLAY_MS > newest);
        let item = |message: &msg::Message| {
            let shown = client::Message { replayed: true, ..view::message(message, false) };
            let item = client::Item { conv: format!("GROUP:{}", self.group), what: Some(item::What::Message(shown)) };
            wire.item(&item)
        };
        let items: Vec<Bytes> = recent.map(item).collect();
        let frame = wire.push(items.iter());
        self.replays[wire as usize] = Some(frame.clone());
        Some(frame)
    }

    pub(crate) fn joined(&self, status: &str) -> client::GroupJoined {
        client::GroupJoined {
            group_id: self.group.as_str().to_owned(),
            status: status.to_owned(),
            group: self.shown.clone(),
            online: self.online.max(u32::try_from(self.count()).unwrap_or(u32::MAX)),
        }
    }

    /// Counts a message that this gateway did not forward.
    pub(crate) fn shed(&mut self, message: &msg::Message) {
        let rank = usize::from(view::rank(message.priority()));
        self.delta.shed[rank] += 1;
        self.since_forwarded[rank] = self.since_forwarded[rank].saturating_add(1);
        if self.delta.shed_messages.len() < SHED {
            self.delta.shed_messages.push(message.clone());
        }
    }

    /// What the owner has not been told yet.
    pub(crate) fn take_delta(
        &mut self,
        gateway: &str,
        incarnation: u64,
    ) -> Option<(group::LiveDeltaRequest, SdkAppId, GroupId)> {
        let shed = self.delta.shed.iter().sum::<u32>();
        let moved = self.delta.joined_count > 0 || self.delta.left_count > 0;
        if !self.open || !(moved || shed > 0 || self.name_all) {
            return None;
        }
        let delta = std::mem::take(&mut self.delta);
        let present_whole = std::mem::take(&mut self.name_all) && self.viewers.len() <= NAMED;
        let request = group::LiveDeltaRequest {
            app: self.app.0,
            conv: self.conv,
            group_id: self.group.as_str().to_owned(),
            gateway: gateway.to_owned(),
            incarnation,
            joined: delta.joined,
            left: delta.left,
            joined_count: delta.joined_count,
            left_count: delta.left_count,
            local: u32::try_from(self.count()).unwrap_or(u32::MAX),
            shed: if shed > 0 { delta.shed.to_vec() } else { Vec::new() },
            shed_messages: delta.shed_messages,
            present: if present_whole { self.viewers.keys().cloned().collect() } else { Vec::new() },
            present_whole,
        };
        Some((request, self.app, self.group.clone()))
    }
}

fn note(names: &mut Vec<String>, user: &str, most: usize) {
    if names.len() < most {
        names.push(user.to_owned());
    }
}

fn set(until: &mut HashMap<String, u64>, user: &str, until_ms: u64) {
    if until_ms == 0 {
        until.remove(user);
    } else {
        until.insert(user.to_owned(), until_ms);
    }
}
