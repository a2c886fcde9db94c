//! Live rooms: their members are known to their gateways only.
//!
//! The first join of a room on this gateway asks the owner and registers; later ones are decided here, by the bans, mutes
//! and settings that come as control records. Joins and leaves go to the owner as one delta a tick.

pub(crate) mod room;
mod shaping;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use linnet_delivery::Local;
use linnet_proto::client::{self, frame, item};
use linnet_proto::delivery::{self, control, record};
use linnet_proto::{gateway, group, msg, session as wire_session};
use linnet_types::{ConvId, GroupId, NodeId, Platform, Refusal, SdkAppId, code};
use parking_lot::Mutex;

use crate::calls::answer;
use crate::hub::{Hub, Seat};
use crate::rooms::room::Room;
use crate::session::{ConnRef, Session};
use crate::shard::Command;
use crate::wire::Wire;

type Shared = Arc<Mutex<Room>>;

/// What the gateway's share of a room's rate says of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes, for so many of its class that this gateway had.
    Forward {
        stands_for: u32,
    },
    Shed,
}

const ALONE: Verdict = Verdict::Forward { stands_for: 1 };

#[derive(Debug, Default)]
struct State {
    by_group: HashMap<(SdkAppId, GroupId), Shared>,
    by_conv: HashMap<u64, Shared>,
    /// Rooms of a connection by its number, in the order they were entered.
    by_connection: HashMap<u64, Vec<GroupId>>,
}

#[derive(Debug, Default)]
pub(crate) struct Rooms {
    state: Mutex<State>,
}

impl Rooms {
    fn find(&self, app: SdkAppId, group: &GroupId) -> Option<Shared> {
        self.state.lock().by_group.get(&(app, group.clone())).cloned()
    }

    fn by_conv(&self, conv: u64) -> Option<Shared> {
        self.state.lock().by_conv.get(&conv).cloned()
    }

    /// Enters a group. Groups that are no live rooms are their owner's business alone.
    pub(crate) async fn join(
        &self,
        hub: &Arc<Hub>,
        at: ConnRef,
        session: &Arc<Session>,
        group: &GroupId,
        wording: &str,
    ) -> Result<client::GroupJoined, Refusal> {
        let seat = Seat { at, session: Arc::clone(session) };
        let user = session.user.as_str();
        let mut ban = None;
        if let Some(room) = self.find(session.app, group) {
            let open = {
                let room = room.lock();
                ban = room.ban_of(user, hub.clock.now());
                room.open
            };
            // A ban may have been lifted a moment ago: whoever is banned here is asked about at the owner.
            if open && ban.is_none() {
                return self.enter(hub, &seat, &room).await;
            }
        }
        let ask = group::JoinRequest {
            app: session.app.0,
            group_id: group.as_str().to_owned(),
            user: user.to_owned(),
            wording: wording.to_owned(),
            origin: Some(session.origin(hub.request_id())),
        };
        let mut owner = hub.calls.group(session.app, group)?;
        let reply = answer(owner.join(hub.calls.ask(ask)).await, code::GROUP_INTERNAL)?;
        let shown = reply.group.map(|found| crate::requests::groups::group(found, None));
        if reply.status != "live" {
            let group_id = group.as_str().to_owned();
            return Ok(client::GroupJoined { group_id, status: reply.status, group: shown, online: 0 });
        }
        let room = self.room(session.app, group, reply.conv, shown);
        if let Some(ban) = ban {
            room.lock().lift(user, ban);
        }
        self.enter(hub, &seat, &room).await
    }

    fn room(&self, app: SdkAppId, group: &GroupId, conv: u64, shown: Option<client::Group>) -> Shared {
        let mut state = self.state.lock();
        if let Some(room) = state.by_conv.get(&conv) {
            return Arc::clone(room);
        }
        let room = Arc::new(Mutex::new(Room::new(app, group.clone(), conv, shown)));
        // A room of the same name that was dismissed is another conversation.
        if let Some(old) = state.by_group.insert((app, group.clone()), Arc::clone(&room)) {
            let old = old.lock().conv;
            state.by_conv.remove(&old);
        }
        state.by_conv.insert(conv, Arc::clone(&room));
        room
    }

    async fn enter(&self, hub: &Arc<Hub>, seat: &Seat, room: &Shared) -> Result<client::GroupJoined, Refusal> {
        let session = &seat.session;
        let (entered, interest) = {
            let mut room = room.lock();
            let entered = room.enter(seat, hub.clock.now())?;
            let interest =
                linnet_delivery::Interest { app: room.app, conv: ConvId(room.conv), group_id: room.group.clone() };
            (entered, interest)
        };
        let (group, conv) = (interest.group_id.clone(), interest.conv.0);
        if entered.first
            && let Some(receiver) = hub.receiver.get()
        {
            match receiver.register(interest).await {
                Ok(reply) => room.lock().registered(&reply),
                Err(why) => {
                    room.lock().leave(session.user.as_str(), session.number);
                    return Err(why.into());
                }
            }
        }
        if entered.already {
            return Ok(room.lock().joined("already"));
        }
        let (joined, replay) = {
            let mut room = room.lock();
            (room.joined("joined"), room.replay(session.wire))
        };
        self.state.lock().by_connection.entry(session.number).or_default().push(group.clone());
        hub.tell(seat.at.shard, Command::Enter { at: seat.at, conv, first: replay }).await;
        self.leave_others(hub, seat, &group).await;
        if !hub.is_seated(seat) {
            // The connection ended meanwhile: nobody would take it out again.
            self.leave_all(hub, session).await;
        }
        Ok(joined)
    }

    /// A web user is in one room across his devices; others in as many as the app says.
    async fn leave_others(&self, hub: &Arc<Hub>, seat: &Seat, entered: &GroupId) {
        let session = &seat.session;
        let web = session.platform == Platform::Web;
        let most = match hub.app(session.app).await {
            Ok(app) if !web => app.settings.live_rooms_per_user as usize,
            _ => 1,
        };
        let rooms = self.state.lock().by_connection.get(&session.number).cloned().unwrap_or_default();
        for other in &rooms[..rooms.len().saturating_sub(most)] {
            if other != entered {
                self.leave(hub, seat.at, session, other, Some("other_room")).await;
            }
        }
        if web {
            let (hub, session, group) = (Arc::clone(hub), Arc::clone(session), entered.clone());
            let tasks = hub.tasks.clone();
            tasks.spawn("gateway.enter_room", async move { current_room(&hub, &session, group.as_str()).await });
        }
    }

    /// Leaves one room; false when the connection was not in it. `why` is told to the client.
    pub(crate) async fn leave(
        &self,
        hub: &Hub,
        at: ConnRef,
        session: &Session,
        group: &GroupId,
        why: Option<&str>,
    ) -> bool {
        let Some(room) = self.find(session.app, group) else { return false };
        let (was_in, conv, empty) = {
            let mut room = room.lock();
            (room.leave(session.user.as_str(), session.number), room.conv, room.is_empty())
        };
        if !was_in {
            return false;
        }
        if let Some(rooms) = self.state.lock().by_connection.get_mut(&session.number) {
            rooms.retain(|known| known != group);
        }
        hub.tell(at.shard, Command::Leave { at, conv }).await;
        if let Some(why) = why {
            hub.push(at, left_frame(session.wire, group, why)).await;
        }
        if empty && let Some(receiver) = hub.receiver.get() {
            receiver.release(session.app, ConvId(conv));
        }
        true
    }

    /// A user leaves a room on all his connections here; false when he is in no such room.
    ///
    /// # Errors
    /// `GROUP_OWNER_QUIT`: the owner of a room does not leave it (`spec/rest-groups.md` §1.2); he may sign out.
    pub(crate) async fn quit(&self, hub: &Arc<Hub>, session: &Arc<Session>, group: &GroupId) -> Result<bool, Refusal> {
        let Some(room) = self.find(session.app, group) else { return Ok(false) };
        let (seats, open) = {
            let room = room.lock();
            if room.open && room.is_owner(session.user.as_str()) {
                return Err(Refusal::new(code::GROUP_OWNER_QUIT, "the owner may not leave the room"));
            }
            (room.seats_of(session.user.as_str()), room.open)
        };
        for seat in &seats {
            let why = (seat.at.number != session.number).then_some("left");
            self.leave(hub, seat.at, &seat.session, group, why).await;
        }
        if !seats.is_empty() && session.platform == Platform::Web {
            current_room(hub, session, "").await;
        }
        Ok(open && !seats.is_empty())
    }

    /// A connection ended; the rooms it was in.
    pub(crate) async fn leave_all(&self, hub: &Arc<Hub>, session: &Arc<Session>) -> Vec<GroupId> {
        let rooms = self.state.lock().by_connection.remove(&session.number).unwrap_or_default();
        for group in &rooms {
            let Some(room) = self.find(session.app, group) else { continue };
            let (conv, empty) = {
                let mut room = room.lock();
                room.leave(session.user.as_str(), session.number);
                (room.conv, room.is_empty())
            };
            if empty && let Some(receiver) = hub.receiver.get() {
                receiver.release(session.app, ConvId(conv));
            }
        }
        if !rooms.is_empty() && session.platform == Platform::Web {
            current_room(hub, session, "").await;
        }
        rooms
    }

    /// The user entered another room elsewhere.
    pub(crate) async fn leave_elsewhere(&self, hub: &Hub, ask: &gateway::LeaveRoomRequest) {
        let group = GroupId::trusted(ask.group_id.as_str());
        for seat in hub.seats_of(ask.app, &ask.user) {
            if ask.connection.is_empty() || ask.connection == seat.session.connection {
                self.leave(hub, seat.at, &seat.session, &group, Some("other_room")).await;
            }
        }
    }

    /// Acts on what a batch of a live room says, before its shards see it.
    pub(crate) async fn apply(&self, hub: &Hub, batch: &delivery::Batch) {
        let Some(room) = self.by_conv(batch.conv) else { return };
        let replay = match hub.app(SdkAppId(batch.app)).await {
            Ok(app) => app.settings.live_replay as usize,
            Err(_) => 0,
        };
        let mut gone: Vec<(Seat, &'static str)> = Vec::new();
        {
            let mut room = room.lock();
            for record in &batch.records {
                match &record.kind {
                    Some(record::Kind::Message(message)) => room.remember(message, replay),
                    Some(record::Kind::Control(control)) => apply_control(&mut room, control, &mut gone),
                    _ => {}
                }
            }
        }
        let group = room.lock().group.clone();
        for (seat, why) in gone {
            self.leave(hub, seat.at, &seat.session, &group, Some(why)).await;
        }
    }

    /// What the owner said when the room was registered (again).
    pub(crate) fn registered(&self, conv: u64, reply: &delivery::RegisterReply) {
        if let Some(room) = self.by_conv(conv) {
            room.lock().registered(reply);
        }
    }

    /// The room is gone.
    pub(crate) async fn closed(&self, hub: &Hub, conv: u64) {
        let Some(room) = self.by_conv(conv) else { return };
        let (app, group, seats) = {
            let mut room = room.lock();
            room.open = false;
            (room.app, room.group.clone(), room.seats())
        };
        for seat in seats {
            self.leave(hub, seat.at, &seat.session, &group, Some("dismissed")).await;
        }
        let mut state = self.state.lock();
        state.by_conv.remove(&conv);
        state.by_group.remove(&(app, group));
    }

    /// Whether the room has viewers here; [`Rooms::gate`] has then checked that the sender is one of them.
    pub(crate) fn knows(&self, app: SdkAppId, group: &GroupId) -> bool {
        self.find(app, group).is_some()
    }

    /// Whether the connection may say this in the room, and whether this gateway's share of the rate has place for it.
    /// Groups with no room here are their owner's business.
    pub(crate) async fn gate(
        &self,
        hub: &Hub,
        session: &Session,
        group: &GroupId,
        message: &msg::Message,
    ) -> Result<Verdict, Refusal> {
        let Some(room) = self.find(session.app, group) else { return Ok(ALONE) };
        let rank = crate::view::rank(message.priority());
        let waiting = {
            let mut room = room.lock();
            if !room.open {
                return Ok(ALONE);
            }
            room.may_speak(session.user.as_str(), hub.clock.now())?;
            match room.pace.offer(rank, hub.clock.mono()) {
                shaping::Offer::Forward => return Ok(Verdict::Forward { stands_for: room.stands_for(rank) }),
                shaping::Offer::Shed => {
                    room.shed(message);
                    return Ok(Verdict::Shed);
                }
                shaping::Offer::Wait(waiting) => waiting,
            }
        };
        // An ended sender means the room is gone.
        let goes = waiting.await.unwrap_or(false);
        let mut room = room.lock();
        if goes {
            return Ok(Verdict::Forward { stands_for: room.stands_for(rank) });
        }
        room.shed(message);
        Ok(Verdict::Shed)
    }

    /// Lets the most important of the waiting messages go; called ten times a second.
    pub(crate) fn release_waiting(&self, hub: &Hub) {
        let rooms: Vec<Shared> = self.state.lock().by_conv.values().cloned().collect();
        let now = hub.clock.mono();
        for room in rooms {
            room.lock().pace.release(now);
        }
    }

    /// Tells owners who came and went; called every tick.
    pub(crate) async fn report(&self, hub: &Arc<Hub>) {
        let rooms: Vec<Shared> = self.state.lock().by_conv.values().cloned().collect();
        for room in rooms {
            let Some((delta, app, group)) = room.lock().take_delta(&hub.me, hub.incarnation) else { continue };
            for (class, count) in crate::view::CLASSES.iter().zip(&delta.shed) {
                hub.meters.shaped.get_or_create(&[("priority", class)]).inc_by((*count).into());
            }
            let hub = Arc::clone(hub);
            let tasks = hub.tasks.clone();
            tasks.spawn("gateway.live_delta", async move { report(&hub, &room, delta, app, &group).await });
        }
        self.sweep(hub);
    }

    /// Forgets rooms that nobody here is in and that are registered no more.
    fn sweep(&self, hub: &Hub) {
        let Some(receiver) = hub.receiver.get() else { return };
        let mut state = self.state.lock();
        let State { by_group, by_conv, .. } = &mut *state;
        by_group.retain(|(app, _), room| {
            let room = room.lock();
            let keep = !room.is_empty() || !room.open || receiver.has(*app, ConvId(room.conv));
            if !keep {
                by_conv.remove(&room.conv);
            }
            keep
        });
    }

    /// Local members, for registration and the owner's lists.
    pub(crate) fn local(&self, conv: u64, most: usize) -> Option<Local> {
        let room = self.by_conv(conv)?;
        let room = room.lock();
        Some(Local {
            members: Vec::new(),
            live_members: room.newest(most),
            live_count: u32::try_from(room.count()).unwrap_or(u32::MAX),
        })
    }
}

fn apply_control(room: &mut Room, control: &delivery::Control, gone: &mut Vec<(Seat, &'static str)>) {
    match &control.kind {
        Some(control::Kind::Kicked(kicked)) => {
            for user in &kicked.users {
                gone.extend(room.seats_of(user).into_iter().map(|seat| (seat, "kicked")));
            }
        }
        Some(control::Kind::Banned(banned)) => {
            room.ban(&banned.user, banned.until_ms);
            if banned.until_ms > 0 {
                gone.extend(room.seats_of(&banned.user).into_iter().map(|seat| (seat, "banned")));
            }
        }
        Some(control::Kind::Dismissed(_)) => {
            room.open = false;
            gone.extend(room.seats().into_iter().map(|seat| (seat, "dismissed")));
        }
        Some(other) => room.control(other),
        None => {}
    }
}

async fn report(hub: &Hub, room: &Shared, delta: group::LiveDeltaRequest, app: SdkAppId, group: &GroupId) {
    let conv = delta.conv;
    let reply = async {
        let mut owner = hub.calls.group(app, group)?;
        answer(owner.live_delta(hub.calls.ask(delta)).await, code::GROUP_INTERNAL)
    };
    match reply.await {
        Ok(reply) if !reply.unknown => room.lock().told(&reply),
        // A new owner, or one out of reach: the receiver sees it by the numbers and registers again, which tells
        // everything this delta did.
        Ok(_) => tracing::debug!(conv, "the owner of a live room does not know this gateway yet"),
        Err(why) => {
            tracing::debug!(conv, code = why.code, "joins and leaves of a live room were not taken");
            // Perhaps they were: the next delta says who is here.
            room.lock().name_all();
        }
    }
}

/// Records the user's current room across devices and leaves the one before.
async fn current_room(hub: &Arc<Hub>, session: &Session, group: &str) {
    let ask = wire_session::EnterRoomRequest {
        app: session.app.0,
        user: session.user.as_str().to_owned(),
        platform: session.platform.wire().to_owned(),
        group_id: group.to_owned(),
        connection: session.connection.clone(),
    };
    let reply = async {
        let mut sessions = hub.calls.session(session.app, &session.user)?;
        answer(sessions.enter_room(hub.calls.ask(ask)).await, code::ACCOUNT_INTERNAL)
    };
    let left = match reply.await {
        Ok(reply) => reply.left,
        Err(why) => return tracing::debug!(code = why.code, "the current room of a user was not recorded"),
    };
    for place in left {
        let ask = gateway::LeaveRoomRequest {
            app: session.app.0,
            user: session.user.as_str().to_owned(),
            group_id: place.group_id,
            connection: place.connection,
        };
        if place.gateway == hub.me {
            hub.rooms.leave_elsewhere(hub, &ask).await;
        } else if let Ok(mut other) = hub.calls.gateway(&NodeId::trusted(place.gateway)) {
            let _ = other.leave_room(hub.calls.ask(ask)).await;
        }
    }
}

/// What a client is told when it is taken out of a room.
fn left_frame(wire: Wire, group: &GroupId, why: &str) -> Bytes {
    let state = client::RoomState { left: true, why: why.to_owned(), ..client::RoomState::default() };
    let item = client::Item { conv: format!("GROUP:{group}"), what: Some(item::What::Room(state)) };
    wire.encode(&client::Frame { id: 0, body: Some(frame::Body::Push(client::Push { items: vec![item] })) })
}
