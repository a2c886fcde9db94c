//! Delivery to users by name: their gateways are found and each gateway gets numbered frames.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use linnet_bus::{Bus, Event, subject};
use linnet_cluster::Cluster;
use linnet_proto::delivery::{Frame, MissingFramesReply};
use linnet_proto::session::PlacesChanged;
use linnet_runtime::{Rng, Tasks};
use linnet_types::{NodeId, SdkAppId, UserId};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;

use super::Inner;
use super::repeat::Which;
use crate::keep::{Keep, Total};
use crate::places::{self, Freed, Key, Places};
use crate::quiet::Quiet;
use crate::receiver::LinkCount;
use crate::{remote, wire};

/// A question for places is repeated this often before every gateway is tried: 3 x 800 ms and the pauses between stay
/// under the 5 s in which everybody must have everything.
const ATTEMPTS: u32 = 3;
/// First pause between attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Questions on their way at once.
const ASKING: usize = 8;
/// A lost subscription is tried again after this.
const RESUBSCRIBE: Duration = Duration::from_secs(1);

pub(super) struct Direct {
    /// One lock: numbering a frame and finding its gateway must not be parted, or sends to a user could overtake.
    state: Mutex<State>,
    wanted: Notify,
    kept: Total,
}

#[derive(Default)]
struct State {
    places: Places,
    links: HashMap<NodeId, Link>,
}

/// The numbered frames to one gateway.
struct Link {
    no: u64,
    keep: Keep,
    quiet: Quiet,
    count: LinkCount,
}

impl Direct {
    pub(super) fn new(kept: Total) -> Self {
        Self { state: Mutex::default(), wanted: Notify::new(), kept }
    }

    pub(super) fn on_quiet<T>(&self, gateway: &NodeId, act: impl FnOnce(&mut Quiet) -> T) -> Option<T> {
        self.state.lock().links.get_mut(gateway).map(|link| act(&mut link.quiet))
    }

    /// Every gateway frames were sent to.
    pub(super) fn gateways(&self) -> Vec<NodeId> {
        self.state.lock().links.keys().cloned().collect()
    }

    pub(super) fn last_no(&self, gateway: &NodeId) -> u64 {
        self.state.lock().links.get(gateway).map_or(0, |link| link.no)
    }

    pub(super) fn sweep(&self, now: Duration) {
        let mut state = self.state.lock();
        state.places.sweep(now);
        for link in state.links.values_mut() {
            link.keep.trim(now);
        }
    }

    pub(super) fn add_counts(&self, counts: &mut HashMap<NodeId, LinkCount>) {
        for (gateway, link) in &self.state.lock().links {
            counts.entry(gateway.clone()).or_insert_with(|| LinkCount::new(gateway.clone())).add(&link.count);
        }
    }

    pub(super) fn missing(&self, gateway: &NodeId, from: u64, to: u64, cap: usize) -> MissingFramesReply {
        let state = self.state.lock();
        let Some(link) = state.links.get(gateway) else { return MissingFramesReply::default() };
        let (found, gone) = link.keep.range(from, to, cap);
        let frames = found.into_iter().filter_map(|bytes| Frame::decode(bytes).ok()).collect();
        MissingFramesReply { no: link.no, frames, incomplete: gone && from <= link.no, ..MissingFramesReply::default() }
    }
}

impl Inner {
    /// Sends an encoded batch to users by name.
    pub(super) fn send_direct(&self, app: SdkAppId, users: &[UserId], direct: places::Direct) {
        let direct = Arc::new(direct);
        let now = self.clock.mono();
        let mut state = self.direct.state.lock();
        let groups = state.places.route(now, app, users, &direct);
        let mut names = Vec::new();
        for (gateway, members) in groups {
            names.clear();
            names.extend(members.iter().map(|index| users[*index].as_str()));
            self.send_frame(&mut state, now, &gateway, &direct.batch, &names);
        }
        drop(state);
        self.direct.wanted.notify_one();
    }

    /// Numbers and sends one frame. A gateway that is not live gets its frame kept all the same: it may only be unheard.
    fn send_frame(&self, state: &mut State, now: Duration, gateway: &NodeId, batch: &Bytes, users: &[&str]) {
        let link = state.links.entry(gateway.clone()).or_insert_with(|| Link {
            no: 0,
            keep: Keep::new(Arc::clone(&self.direct.kept)),
            quiet: Quiet::default(),
            count: LinkCount::new(gateway.clone()),
        });
        link.no += 1;
        link.count.frames += 1;
        self.metrics.sent.inc();
        let service = self.service.name();
        let sender = wire::Sender { owner: self.node.as_str(), incarnation: self.incarnation };
        let frame = wire::frame(sender, link.no, batch, users);
        self.send(subject::gw(gateway), wire::frame_envelope(&frame, service));
        link.keep.push(link.no, now, frame);
        let due = link.quiet.touched(now);
        self.repeats.add(due, || Which::Link(gateway.clone()));
    }

    fn send_freed(&self, state: &mut State, now: Duration, key: &Key, freed: Vec<Freed>) {
        for Freed { gateway, batch } in freed {
            self.send_frame(state, now, &gateway, &batch, &[key.1.as_str()]);
        }
    }

    fn hint(&self, hint: PlacesChanged) {
        let now = self.clock.mono();
        let mut state = self.direct.state.lock();
        for user in hint.users {
            let key = remote::key(user.app, &user.user);
            let places = user.places.unwrap_or_default();
            let gateways = places.gateways.into_iter().map(NodeId::trusted).collect();
            let freed = state.places.hint(now, &key, gateways, places.rev);
            self.send_freed(&mut state, now, &key, freed);
        }
    }

    /// A gateway got frames for users it does not have.
    pub(super) fn moved(&self, gateway: &NodeId, users: impl IntoIterator<Item = Key>) {
        let mut state = self.direct.state.lock();
        users.into_iter().for_each(|key| state.places.moved(&key, gateway));
        drop(state);
        self.direct.wanted.notify_one();
    }

    fn answered(&self, key: &Key, places: linnet_proto::session::Places) {
        let now = self.clock.mono();
        let mut state = self.direct.state.lock();
        let gateways = places.gateways.into_iter().map(NodeId::trusted).collect();
        let freed = state.places.answer(now, key, gateways, places.rev);
        self.send_freed(&mut state, now, key, freed);
    }

    /// The session service is away: connected users are still served, through every gateway of the site.
    fn guess(&self, keys: &[Key]) {
        let now = self.clock.mono();
        let everywhere = self.live.all();
        self.metrics.lookups_failed.inc_by(keys.len() as u64);
        let mut state = self.direct.state.lock();
        for key in keys {
            let freed = state.places.guess(now, key, &everywhere);
            self.send_freed(&mut state, now, key, freed);
        }
    }
}

/// Listens for presence hints.
pub(super) async fn hints(inner: Arc<Inner>, bus: Bus, tasks: Tasks) {
    let draining = tasks.draining();
    loop {
        if let Ok(mut hints) = bus.subscribe(subject::places()).await {
            loop {
                let event = tokio::select! {
                    () = draining.cancelled() => return,
                    event = hints.recv() => event,
                };
                match event {
                    Some(Event::Message { payload, .. }) => match PlacesChanged::decode(payload) {
                        Ok(hint) => inner.hint(hint),
                        Err(error) => tracing::warn!(%error, "a presence hint cannot be read"),
                    },
                    Some(Event::Lagged { .. }) => {
                        inner.direct.state.lock().places.distrust();
                        inner.direct.wanted.notify_one();
                    }
                    None => break,
                }
            }
        }
        tokio::select! {
            () = draining.cancelled() => return,
            () = tokio::time::sleep(RESUBSCRIBE) => {}
        }
    }
}

/// Asks the session service for the places of users somebody sends to.
pub(super) async fn lookups(inner: Arc<Inner>, cluster: Cluster, rng: Rng, tasks: Tasks) {
    let draining = tasks.draining();
    let mut asking = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = draining.cancelled(), if asking.is_empty() => return,
            () = inner.direct.wanted.notified(), if asking.len() < ASKING => {
                let wanted = inner.direct.state.lock().places.take_wanted();
                if !wanted.is_empty() {
                    inner.metrics.lookups.inc_by(wanted.len() as u64);
                    asking.push(look_up(Arc::clone(&inner), cluster.clone(), rng.clone(), wanted));
                }
            }
            Some(()) = asking.next() => inner.direct.wanted.notify_one(),
        }
    }
}

async fn look_up(inner: Arc<Inner>, cluster: Cluster, rng: Rng, mut wanted: Vec<Key>) {
    for attempt in 0..ATTEMPTS {
        let mut failed = Vec::new();
        for (users, found) in remote::places(&cluster, wanted).await {
            match found {
                Ok(places) => users.iter().zip(places).for_each(|(key, places)| inner.answered(key, places)),
                Err(refusal) => {
                    tracing::debug!(code = refusal.code, users = users.len(), "places not learned");
                    failed.extend(users);
                }
            }
        }
        if failed.is_empty() {
            return;
        }
        wanted = failed;
        let pause = PAUSE * 2u32.pow(attempt);
        tokio::time::sleep(pause + pause.mul_f64(rng.below(100) as f64 / 100.0)).await;
    }
    inner.guess(&wanted);
}
