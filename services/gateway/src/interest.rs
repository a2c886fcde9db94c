//! Large groups with local members: which connections, and the registration with their owner.
//!
//! Pairs and small groups need nothing here: their batches name users. A connection begins as *new*: somebody outside the
//! numbered stream says its user is a member. It receives once the owner has confirmed that in its place in the stream,
//! so no late word about a join can undo a kick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use linnet_proto::group;
use linnet_types::{ConvId, GroupId, GroupType, Refusal, SdkAppId, code};
use parking_lot::Mutex;

use crate::calls::answer;
use crate::hub::{Hub, Seat};
use crate::session::{ConnRef, Session};
use crate::shard::Command;

/// Pauses between questions that were not answered.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Listed {
    app: SdkAppId,
    group: GroupId,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    seat: Seat,
    /// Confirmed: receives.
    member: bool,
}

#[derive(Debug, Default)]
struct State {
    convs: HashMap<u64, Listed>,
    /// By connection number.
    by_connection: HashMap<u64, Vec<u64>>,
}

#[derive(Debug, Default)]
pub(crate) struct Interest {
    state: Mutex<State>,
}

impl Interest {
    /// Lists a new connection under its user's large groups. Asks until it is answered or the connection has ended:
    /// without the list it would be told nothing of these groups, not even that they went on.
    pub(crate) async fn signed_in(&self, hub: &Arc<Hub>, at: ConnRef, session: &Arc<Session>) {
        let seat = Seat { at, session: Arc::clone(session) };
        let listed = insist(hub, || hub.is_seated(&seat), || self.list(hub, &seat));
        if listed.await.is_none() {
            tracing::debug!(connection = %session.connection, "a connection ended before its groups were listed");
        }
    }

    async fn list(&self, hub: &Arc<Hub>, seat: &Seat) -> Result<(), Refusal> {
        let session = &seat.session;
        let ask = group::JoinedRequest {
            app: session.app.0,
            user: session.user.as_str().to_owned(),
            with_info: true,
            ..group::JoinedRequest::default()
        };
        let mut groups = hub.calls.any_group()?;
        let joined = answer(groups.joined(hub.calls.ask(ask)).await, code::GROUP_INTERNAL)?;
        let app = hub.app(session.app).await?;
        for found in joined.groups {
            let members = found.group.as_ref().map_or(0, |group| group.member_num);
            if is_large(&found.r#type, members, app.settings.small_group) {
                self.enter(hub, seat, found.conv, &GroupId::trusted(found.group_id)).await;
            }
        }
        Ok(())
    }

    /// A user joined a group while connected.
    pub(crate) async fn joined(&self, hub: &Arc<Hub>, app: u32, user: &str, group: &GroupId) {
        let here = || hub.is_here(app, user);
        insist(hub, here, || self.try_joined(hub, SdkAppId(app), user, group)).await;
    }

    async fn try_joined(&self, hub: &Arc<Hub>, app: SdkAppId, user: &str, group: &GroupId) -> Result<(), Refusal> {
        let settings = hub.app(app).await?;
        let ask = group::InfoRequest { app: app.0, group_id: group.as_str().to_owned(), self_: user.to_owned() };
        let info = answer(hub.calls.group(app, group)?.info(hub.calls.ask(ask)).await, code::GROUP_INTERNAL)?;
        let Some(found) = info.group else { return Ok(()) };
        if info.self_.is_some() && is_large(&found.r#type, found.member_num, settings.settings.small_group) {
            self.enter_user(hub, app.0, user, found.conv, group).await;
        }
        Ok(())
    }

    /// Lists every connection of a user here.
    pub(crate) async fn enter_user(&self, hub: &Arc<Hub>, app: u32, user: &str, conv: u64, group: &GroupId) {
        for seat in hub.seats_of(app, user) {
            self.enter(hub, &seat, conv, group).await;
        }
    }

    async fn enter(&self, hub: &Arc<Hub>, seat: &Seat, conv: u64, group: &GroupId) {
        {
            let mut state = self.state.lock();
            let fresh = || Listed { app: seat.session.app, group: group.clone(), places: Vec::new() };
            let listed = state.convs.entry(conv).or_insert_with(fresh);
            if listed.places.iter().any(|place| place.seat.at == seat.at) {
                return;
            }
            listed.places.push(Place { seat: seat.clone(), member: false });
            state.by_connection.entry(seat.at.number).or_default().push(conv);
        }
        self.register(hub, seat.session.app, conv, group.clone());
        // The connection may have ended since it was listed: nobody would take it off again.
        if !hub.is_seated(seat) {
            self.leave_all(hub, &seat.session).await;
        }
    }

    /// The owner confirmed members, at this place of the stream: from here on they receive.
    pub(crate) async fn confirmed(&self, hub: &Hub, conv: u64, users: &[String], name: &str, head: u64) {
        let confirmed: Vec<Seat> = {
            let mut state = self.state.lock();
            let Some(listed) = state.convs.get_mut(&conv) else { return };
            let named =
                |place: &&mut Place| !place.member && users.iter().any(|user| place.seat.session.user == **user);
            let new = listed.places.iter_mut().filter(named);
            new.map(|place| {
                place.member = true;
                place.seat.clone()
            })
            .collect()
        };
        for seat in confirmed {
            // What was sent since the client's own sync is in the log: it is told how far that goes.
            let first = (head > 0).then(|| crate::deliver::advanced(seat.session.wire, name, head));
            hub.tell(seat.at.shard, Command::Enter { at: seat.at, conv, first }).await;
        }
    }

    fn register(&self, hub: &Arc<Hub>, app: SdkAppId, conv: u64, group: GroupId) {
        let hub_here = Arc::clone(hub);
        hub.tasks.spawn("gateway.register", async move {
            let Some(receiver) = hub_here.receiver.get() else { return };
            let interest = linnet_delivery::Interest { app, conv: ConvId(conv), group_id: group };
            if let Err(why) = receiver.register(interest).await {
                tracing::warn!(conv, error = %why, "a group could not be registered");
            }
        });
    }

    /// Takes connections of `users` off a conversation; the shards do it in the batch's order by themselves.
    pub(crate) fn forget(&self, hub: &Hub, conv: u64, gone: impl Fn(&Session) -> bool) -> Vec<ConnRef> {
        let mut state = self.state.lock();
        let Some(listed) = state.convs.get_mut(&conv) else { return Vec::new() };
        let mut refs: Vec<ConnRef> = Vec::new();
        listed.places.retain(|place| {
            let out = gone(&place.seat.session);
            if out {
                refs.push(place.seat.at);
            }
            !out
        });
        let (app, empty) = (listed.app, listed.places.is_empty());
        if empty {
            state.convs.remove(&conv);
        }
        for at in &refs {
            if let Some(convs) = state.by_connection.get_mut(&at.number) {
                convs.retain(|known| *known != conv);
            }
        }
        drop(state);
        if empty && let Some(receiver) = hub.receiver.get() {
            receiver.release(app, ConvId(conv));
        }
        refs
    }

    /// As [`Interest::forget`], and the shards are told.
    pub(crate) async fn leave(&self, hub: &Hub, conv: u64, gone: impl Fn(&Session) -> bool) {
        for at in self.forget(hub, conv, gone) {
            hub.tell(at.shard, Command::Leave { at, conv }).await;
        }
    }

    /// A user left a group.
    pub(crate) async fn left(&self, hub: &Hub, app: u32, user: &str, group: &GroupId) {
        let conv = {
            let state = self.state.lock();
            state.convs.iter().find(|(_, l)| l.app.0 == app && l.group == *group).map(|(conv, _)| *conv)
        };
        if let Some(conv) = conv {
            self.leave(hub, conv, |session| session.user == *user).await;
        }
    }

    /// A connection ended.
    pub(crate) async fn leave_all(&self, hub: &Hub, session: &Session) {
        let convs = self.state.lock().by_connection.remove(&session.number).unwrap_or_default();
        for conv in convs {
            self.forget(hub, conv, |known| known.number == session.number);
        }
    }

    /// Local members of a conversation, each once: all, or those the owner has not confirmed.
    pub(crate) fn members(&self, conv: u64, only_new: bool) -> Vec<String> {
        let state = self.state.lock();
        let places = state.convs.get(&conv).map(|listed| &listed.places[..]).unwrap_or_default();
        let asked = places.iter().filter(|place| !(only_new && place.member));
        let mut users: Vec<String> = asked.map(|place| place.seat.session.user.as_str().to_owned()).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Connections that receive a conversation.
    pub(crate) fn seats(&self, conv: u64) -> Vec<Seat> {
        let state = self.state.lock();
        let places = state.convs.get(&conv).map(|listed| &listed.places[..]).unwrap_or_default();
        places.iter().filter(|place| place.member).map(|place| place.seat.clone()).collect()
    }

    /// Adds the connections of users who joined a registered conversation, at this place of its stream.
    pub(crate) fn add_users(&self, hub: &Hub, app: u32, conv: u64, users: &[String]) -> Vec<ConnRef> {
        let seats: Vec<Seat> = users.iter().flat_map(|user| hub.seats_of(app, user)).collect();
        let mut state = self.state.lock();
        let mut added = Vec::new();
        for seat in seats {
            let Some(listed) = state.convs.get_mut(&conv) else { return added };
            added.push(seat.at);
            match listed.places.iter_mut().find(|place| place.seat.at == seat.at) {
                Some(place) => place.member = true,
                None => {
                    let number = seat.at.number;
                    listed.places.push(Place { seat, member: true });
                    state.by_connection.entry(number).or_default().push(conv);
                }
            }
        }
        added
    }
}

/// Asks again, at growing distances, until there is an answer or nobody is `there` any more. A refusal for good is one.
async fn insist<T, F>(hub: &Hub, there: impl Fn() -> bool, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let refusal = match ask().await {
            Ok(answer) => return Some(answer),
            Err(refusal) => refusal,
        };
        let retry = refusal.retry_after_ms.is_some() || refusal.code == code::GROUP_INTERNAL;
        tracing::debug!(code = refusal.code, retry, "the groups of a user could not be looked at");
        if !retry || !there() {
            return None;
        }
        tokio::time::sleep(hub.rng.jitter(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a group's batches come by registration.
fn is_large(kind: &str, members: u32, small: u32) -> bool {
    match GroupType::parse(kind) {
        Some(GroupType::AVChatRoom) => false,
        Some(GroupType::Community) => true,
        _ => members > small,
    }
}
