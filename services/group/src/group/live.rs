//! Live rooms: who watches is known to gateways only, messages are shaped and numbered but not stored.

use std::collections::VecDeque;
use std::sync::Arc;

use linnet_delivery::Stream;
use linnet_proto::delivery::{LiveMember, LiveState, Record, RegisterReply, RegisterRequest};
use linnet_proto::group::{LiveDeltaReply, LiveDeltaRequest};
use linnet_proto::msg::{Message, Origin, Outcome};
use linnet_store::groups::GroupGuard;
use linnet_types::{NodeId, UnixMillis, UserId};

use super::send::{answer, origin_of};
use super::viewers::{Told, Viewers};
use super::{Group, control, message_record};
use crate::error::{Result, from_store};
use crate::hooks::{self, Body, command};
use crate::hub::Sending;
use crate::remote::wants;
use crate::shaping::{LiveShaper, Offer, Slice};
use crate::shared::Shared;
use crate::tips::{Person, Tip};

/// Sequences reserved at once: a kill skips at most so many.
const BLOCK: u64 = 10_000;
/// Messages kept for newcomers, and for how long.
const RING: usize = 50;
const RING_MS: u64 = 24 * 3_600_000;
/// Newest viewers remembered by name.
const RECENT: usize = 1_000;
/// Joins and leaves are looked at this often while there are any.
const TICK_MS: u64 = 250;
/// Above the tip limit: at most one tip of each kind in this time, naming so many.
const TIP_MS: u64 = 1_000;
const TIP_PEOPLE: usize = 10;
/// Tips of joins, and of leaves, that one delta of a gateway makes below the tip limit.
const EACH_TIP: usize = 20;
/// Names waiting for webhooks or tips; more are counted, not named.
const NAMES: usize = 10_000;
/// Accounts in one webhook.
const HOOK_PEOPLE: usize = 100;
/// The count is told at most this often.
const ONLINE_MS: u64 = 10_000;

/// What the owner of a live room keeps.
#[derive(Debug, Default)]
pub(crate) struct Live {
    viewers: Viewers,
    /// Messages dropped since the last batch, by priority.
    pub(super) shaped: [u32; 4],
    shaper: LiveShaper<Box<Sending>>,
    /// Next sequence, and the end of the reserved block.
    next_seq: u64,
    end_seq: u64,
    ring: VecDeque<Arc<Message>>,
    recent: VecDeque<LiveMember>,
    came: Moves,
    went: Moves,
    tick: Option<UnixMillis>,
    tips_at: UnixMillis,
    told_online: u32,
    told_at: UnixMillis,
}

/// Joins or leaves not told yet.
#[derive(Debug, Default)]
struct Moves {
    /// For tips above the limit: the newest names.
    tips: Vec<UserId>,
    hooks: Vec<UserId>,
}

impl Moves {
    fn add(&mut self, users: &[UserId], tips: bool) {
        self.hooks.extend(users.iter().take(NAMES.saturating_sub(self.hooks.len())).cloned());
        if tips {
            self.tips.extend(users.iter().take(TIP_PEOPLE.saturating_sub(self.tips.len())).cloned());
        }
    }
}

impl Live {
    /// A room nobody is known to watch; gateways register again within a tick.
    pub(super) async fn open(shared: &Shared, held: &mut GroupGuard) -> Result<Self> {
        let mut live = Self { next_seq: held.record().live_seq.max(1), ..Self::default() };
        live.reserve(shared, held).await?;
        Ok(live)
    }

    async fn reserve(&mut self, shared: &Shared, held: &mut GroupGuard) -> Result<()> {
        let block = shared.groups.reserve_live_seqs(held, BLOCK).await.map_err(|error| from_store(&error).0)?;
        (self.next_seq, self.end_seq) = (block.start, block.end);
        Ok(())
    }

    /// Viewers, as their gateways say.
    pub(crate) fn online(&self) -> u32 {
        self.viewers.online()
    }

    /// 1 + the last sequence.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether anybody watches or waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.viewers.is_empty() || self.shaper.waiting() > 0 || self.tick.is_some()
    }

    /// When the room must be looked at.
    pub(super) fn next_tick(&self) -> Option<UnixMillis> {
        [self.tick, self.shaper.next_tick()].into_iter().flatten().min()
    }

    /// Everything that waits for its turn.
    #[expect(clippy::vec_box, reason = "handed on as they are; each is half a kilobyte")]
    pub(super) fn drain(&mut self) -> Vec<Box<Sending>> {
        self.shaper.drain()
    }

    fn remember(&mut self, members: impl IntoIterator<Item = LiveMember>) {
        for member in members {
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(member);
        }
    }

    fn keep(&mut self, message: &Message, now: UnixMillis) {
        if self.ring.len() >= RING {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::new(message.clone()));
        while self.ring.front().is_some_and(|oldest| now.0.saturating_sub(oldest.time_ms) > RING_MS) {
            self.ring.pop_front();
        }
    }

    fn wake(&mut self, at: UnixMillis) {
        self.tick = Some(self.tick.map_or(at, |tick| tick.min(at)));
    }
}

impl Group {
    /// Offers a message to the room's shaper and lets pass what may.
    pub(super) async fn offer(&mut self, sending: Box<Sending>, now: UnixMillis, records: &mut Vec<Record>) {
        let rate = self.app.settings.live_rate;
        let rng = self.shared.rng.clone();
        let priority = hooks::priority(&sending.message);
        let Some(live) = &mut self.live else { return };
        let weight = sending.stands_for;
        let slice = live.shaper.offer(rate, Offer { priority, weight, item: sending }, now, &rng);
        self.pass(slice, now, records).await;
    }

    /// Numbers what passes, for the next batch, and answers everything.
    async fn pass(&mut self, slice: Slice<Box<Sending>>, now: UnixMillis, records: &mut Vec<Record>) {
        for (priority, sending) in slice.dropped {
            if let Some(live) = &mut self.live {
                live.shaped[priority as usize] += 1;
            }
            self.shape_out(*sending, now);
        }
        for sending in slice.admitted {
            match self.live_seq().await {
                Ok(seq) => records.push(self.accept(*sending, seq, now)),
                Err(refusal) => sending.answer((Err(refusal), false)),
            }
        }
    }

    async fn live_seq(&mut self) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        let Some(mut live) = self.live.take() else { return Err(self.give_up()) };
        let reserved = if live.next_seq < live.end_seq { Ok(()) } else { live.reserve(&shared, &mut self.held).await };
        let seq = live.next_seq;
        if reserved.is_ok() {
            live.next_seq += 1;
        }
        self.live = Some(live);
        match reserved {
            Ok(()) => Ok(seq),
            // What the store says about our claim is found out by ending it.
            Err(_) => Err(self.give_up()),
        }
    }

    fn accept(&mut self, sending: Sending, seq: u64, now: UnixMillis) -> Record {
        let Sending { mut message, connection, reply, .. } = sending;
        self.last_ms = self.last_ms.max(now.0);
        (message.seq, message.time_ms) = (seq, self.last_ms);
        let _ = reply.send((Ok(answer(&message, Outcome::Published)), false));
        if !message.forbid_after && wants(&self.app.settings, command::AFTER_SEND) {
            let group = self.record().group.as_str();
            let body = hooks::message(group, self.kind(), &message, now, Some((seq, message.time_ms))).json();
            let conv = self.held.conv().0;
            let id = format!("g{conv}-{seq}-after");
            let origin = origin_of(&message);
            let event = hooks::event(self.held.app(), command::AFTER_SEND, conv, id, body, &origin, now);
            self.shared.post(vec![event]);
        }
        if self.app.settings.live_replay > 0
            && let Some(live) = &mut self.live
        {
            live.keep(&message, now);
        }
        message_record(message, connection)
    }

    /// A gateway has viewers (again).
    pub(super) fn register_live(&mut self, request: &RegisterRequest, stream: &RegisterReply) -> RegisterReply {
        let now = self.now();
        let record = self.record();
        let until = |restrictions: &std::collections::BTreeMap<UserId, linnet_store::groups::Restriction>| {
            let ahead = restrictions.iter().filter(|(_, restriction)| restriction.until > now);
            ahead.map(|(user, restriction)| (user.to_string(), restriction.until.0)).collect()
        };
        let mut state = LiveState {
            group_id: self.id(),
            rate_per_s: self.app.settings.live_rate,
            mute_all: record.mute_all,
            muted: until(self.index.mutes()),
            banned: until(self.index.bans()),
            owner: record.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
            admins: record.admins.iter().map(ToString::to_string).collect(),
            ..LiveState::default()
        };
        let replay = self.app.settings.live_replay as usize;
        if let Some(live) = &mut self.live {
            let names = request.live_members.iter().map(|member| member.user.clone()).collect();
            live.viewers.register(&request.gateway, request.incarnation, request.live_count, names);
            // The newest come first.
            live.remember(request.live_members.iter().take(RECENT).rev().cloned());
            state.online = live.online();
            let fresh = live.ring.iter().filter(|message| now.0.saturating_sub(message.time_ms) <= RING_MS);
            let fresh: Vec<_> = fresh.collect();
            state.replay = fresh[fresh.len().saturating_sub(replay)..]
                .iter()
                .map(|message| Message { replayed: true, ..Message::clone(message) })
                .collect();
            live.wake(now.plus_ms(TICK_MS));
        }
        RegisterReply { live: Some(state), ..stream.clone() }
    }

    /// A gateway has no viewers any more.
    pub(super) fn deregister_live(&mut self, gateway: &str, incarnation: u64) {
        let now = self.now();
        if let Some(live) = &mut self.live {
            live.viewers.deregister(gateway, incarnation);
            live.wake(now.plus_ms(TICK_MS));
        }
    }

    /// Joins and leaves of one gateway since its last tick.
    pub(crate) fn live_delta(&mut self, request: &LiveDeltaRequest) -> LiveDeltaReply {
        let now = self.now();
        let full = self.app.settings.live_tip_full;
        let Some(live) = &mut self.live else { return LiveDeltaReply { unknown: true, ..LiveDeltaReply::default() } };
        let told = Told {
            joined: &request.joined,
            left: &request.left,
            whole: request.joined.len() == request.joined_count as usize
                && request.left.len() == request.left_count as usize,
            present: request.present_whole.then_some(&request.present[..]),
            local: request.local,
        };
        let Some(moved) = live.viewers.tell(&request.gateway, request.incarnation, &told) else {
            return LiveDeltaReply { unknown: true, online: live.online(), name_all: false };
        };
        for (count, shed) in live.shaped.iter_mut().zip(&request.shed) {
            *count += shed;
        }
        let online = live.online();
        let users = |names: Vec<String>| names.into_iter().map(UserId::trusted).collect::<Vec<_>>();
        let (joined, left) = (users(moved.came), users(moved.went));
        live.remember(joined.iter().map(|user| LiveMember {
            user: user.to_string(),
            joined_ms: now.0,
            platform: String::new(),
        }));
        let merged = online >= full;
        live.came.add(&joined, merged);
        live.went.add(&left, merged);
        live.wake(now.plus_ms(TICK_MS));
        if !merged {
            let each = |users: Vec<UserId>, tip: fn(Vec<Person>) -> Tip| {
                let told = users.into_iter().take(EACH_TIP);
                told.map(|user| (tip(vec![Person::id(&user)]), user)).collect::<Vec<_>>()
            };
            let mut tips = each(joined, Tip::Joined);
            tips.extend(each(left, Tip::Left));
            self.live_tips(tips);
        }
        for shed in &request.shed_messages {
            self.tell_shaped(shed, now);
        }
        LiveDeltaReply { unknown: false, online, name_all: moved.name_all }
    }

    /// Tips of joins and leaves, each by the user it is about. Never stored, never shaped.
    fn live_tips(&mut self, tips: Vec<(Tip, UserId)>) {
        let mut records = Vec::with_capacity(tips.len());
        let time_ms = self.now().0.max(self.last_ms);
        for (tip, by) in tips {
            let mut message = crate::tips::message(&tip, self.place(), &Origin::default(), &Person::id(&by));
            message.time_ms = time_ms;
            records.push(message_record(message, String::new()));
        }
        self.publish(records, &[]);
    }

    /// What is due in a live room.
    pub(super) async fn tick_live(&mut self) {
        let now = self.now();
        let Some(live) = &mut self.live else { return };
        let slice = live.shaper.tick(now);
        let due = live.tick.is_some_and(|tick| tick <= now);
        let mut records = Vec::with_capacity(slice.admitted.len());
        self.pass(slice, now, &mut records).await;
        self.publish(records, &[]);
        if due {
            self.tell_moves(now);
            self.tell_online(now);
        } else if let Some(live) = &self.live
            && live.shaped != [0; 4]
            && live.shaper.waiting() == 0
        {
            // Nothing follows that would carry the counts.
            self.publish_shaped();
        }
    }

    /// Counts of shaped messages that no batch carried yet.
    fn publish_shaped(&mut self) {
        let online = self.count();
        self.publish(vec![super::control_record(control(control::Kind::Online(online)))], &[]);
    }

    fn tell_moves(&mut self, now: UnixMillis) {
        let Some(live) = &mut self.live else { return };
        live.tick = None;
        let (came, went) = (std::mem::take(&mut live.came.hooks), std::mem::take(&mut live.went.hooks));
        let mut tips = Vec::new();
        if now.since(live.tips_at) >= TIP_MS {
            for (users, tip) in [
                (std::mem::take(&mut live.came.tips), Tip::Joined as fn(Vec<Person>) -> Tip),
                (std::mem::take(&mut live.went.tips), Tip::Left),
            ] {
                let Some(by) = users.first().cloned() else { continue };
                tips.push((tip(users.iter().map(Person::id).collect()), by));
            }
            live.tips_at = now;
        } else if !live.came.tips.is_empty() || !live.went.tips.is_empty() {
            let at = live.tips_at.plus_ms(TIP_MS);
            live.wake(at);
        }
        self.live_tips(tips);
        self.post_moves(&came, true, now);
        self.post_moves(&went, false, now);
    }

    /// Webhooks of joins or leaves, at most 100 accounts a call; best effort.
    fn post_moves(&mut self, users: &[UserId], joined: bool, now: UnixMillis) {
        let mut events = Vec::new();
        let (app, conv, group) = (self.held.app(), self.held.conv().0, self.id());
        let origin = Origin::default();
        for chunk in users.chunks(HOOK_PEOPLE) {
            let what = if joined { command::AFTER_JOIN } else { command::AFTER_EXIT };
            let id = format!("g{conv}-{}", self.shared.rng.token(8));
            if wants(&self.app.settings, what) {
                let body = Body::of(&group, self.kind(), now).with("Operator_Account", chunk[0].as_str());
                let body = if joined {
                    body.with("JoinType", "Apply").accounts("NewMemberList", chunk)
                } else {
                    body.with("ExitType", "Quit").accounts("ExitMemberList", chunk)
                };
                events.push(hooks::event(app, what, conv, format!("{id}-m"), body.json(), &origin, now));
            }
            if wants(&self.app.settings, command::STATE) {
                let body = hooks::state(&group, joined, chunk, now).json();
                events.push(hooks::event(app, command::STATE, conv, format!("{id}-s"), body, &origin, now));
            }
        }
        self.shared.post(events);
    }

    fn tell_online(&mut self, now: UnixMillis) {
        let snapshot = self.shared.cluster.snapshot();
        let known = snapshot.nodes().any(|node| node.services.contains(&linnet_cluster::Service::Gateway));
        let Some(live) = &mut self.live else { return };
        if known {
            // A dead gateway's viewers are nobody's.
            live.viewers.retain(|gateway, incarnation| {
                let node = snapshot.node(&NodeId::trusted(gateway));
                node.is_some_and(|node| node.incarnation <= incarnation)
            });
        }
        let online = live.online();
        if online == live.told_online {
            return;
        }
        if now.since(live.told_at) < ONLINE_MS {
            let at = live.told_at.plus_ms(ONLINE_MS);
            live.wake(at);
            return;
        }
        (live.told_online, live.told_at) = (online, now);
        self.publish(vec![super::control_record(control(control::Kind::Online(online)))], &[]);
    }

    /// Newest viewers by name, newest first.
    pub(crate) fn recent(&self, limit: usize) -> Vec<LiveMember> {
        let recent = self.live.iter().flat_map(|live| live.recent.iter().rev());
        recent.take(limit).cloned().collect()
    }

    /// For [`linnet_delivery::Registrar`]: registers in the actor, so number and membership are of one moment.
    pub(crate) async fn register(&mut self, request: &RegisterRequest) -> Result<RegisterReply> {
        let reply = Stream::register(&self.stream, request);
        if self.kind().is_live() {
            return Ok(self.register_live(request, &reply));
        }
        let members: Vec<UserId> = request.members.iter().map(|user| UserId::trusted(user.as_str())).collect();
        let states = self.states(&members).await?;
        let gone = states.into_iter().filter(|state| state.member.is_none());
        Ok(RegisterReply { not_members: gone.map(|state| state.user.to_string()).collect(), ..reply })
    }

    /// For [`linnet_delivery::Registrar`].
    pub(crate) fn deregister(&mut self, gateway: &str, incarnation: u64) {
        self.deregister_live(gateway, incarnation);
    }
}
