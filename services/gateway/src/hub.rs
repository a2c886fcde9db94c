//! What the shards share: who is connected, the paths to other services, and what happens outside the shards' loops.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use linnet_admission::apps::Apps;
use linnet_proto::client::frame;
use linnet_proto::delivery;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_types::{Refusal, SdkAppId, UserId, code};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::calls::Calls;
use crate::config::Config;
use crate::events::Events;
use crate::interest::Interest;
use crate::metrics::{Ledger, Meters};
use crate::reads::Reads;
use crate::resume::Resume;
use crate::rooms::Rooms;
use crate::session::{ConnRef, Ended, Session};
use crate::shard::{Command, End};
use crate::throttle::{Pace, Throttle};
use crate::view::Prepared;
use crate::wire::{self, Wire};

/// A connection of a user.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) at: ConnRef,
    pub(crate) session: Arc<Session>,
}

type Seats = HashMap<u32, HashMap<UserId, Vec<Seat>>>;

pub(crate) struct Hub {
    pub(crate) config: Config,
    /// This gateway's name.
    pub(crate) me: String,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) tasks: Tasks,
    pub(crate) apps: Apps,
    pub(crate) calls: Calls,
    pub(crate) ledger: Ledger,
    pub(crate) meters: Meters,
    pub(crate) shards: Vec<mpsc::Sender<Command>>,
    pub(crate) resume: Resume,
    pub(crate) throttle: Throttle,
    pub(crate) pace: Pace,
    pub(crate) rooms: Rooms,
    pub(crate) interest: Interest,
    pub(crate) reads: Reads,
    pub(crate) events: Events,
    pub(crate) receiver: OnceLock<linnet_delivery::Receiver>,
    /// Messages of clients that wait to be sent to their owners again.
    pub(crate) waiting_sends: Arc<AtomicU64>,
    seats: RwLock<Seats>,
    next_number: AtomicU64,
    open: AtomicU64,
    draining: AtomicBool,
}

/// What a hub is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) me: String,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) tasks: Tasks,
    pub(crate) apps: Apps,
    pub(crate) calls: Calls,
    pub(crate) ledger: Ledger,
    pub(crate) meters: Meters,
    pub(crate) shards: Vec<mpsc::Sender<Command>>,
}

impl Hub {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, me, incarnation, clock, rng, tasks, apps, calls, ledger, meters, shards } = parts;
        Self {
            pace: Pace::new(config.sign_ins_per_s, clock.mono()),
            me,
            incarnation,
            clock,
            rng,
            tasks,
            apps,
            calls,
            ledger,
            meters,
            shards,
            config,
            resume: Resume::default(),
            throttle: Throttle::default(),
            rooms: Rooms::default(),
            interest: Interest::default(),
            reads: Reads::default(),
            events: Events::default(),
            receiver: OnceLock::new(),
            waiting_sends: Arc::default(),
            seats: RwLock::default(),
            next_number: AtomicU64::new(1),
            open: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// Counts a new socket; refused when there are too many or the node is leaving.
    pub(crate) fn admit(&self) -> Result<u64, Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::retry(code::GOING_AWAY, "the node is leaving", 1000));
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= u64::from(self.config.max_connections) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::retry(code::OVERLOADED, "too many connections", 5000));
        }
        Ok(self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// An upgrade that was admitted never became a connection.
    pub(crate) fn abandoned(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection is gone.
    pub(crate) fn gone(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.meters.connections.dec();
    }

    pub(crate) fn count_closed(&self, cause: &'static str) {
        let cause = if cause.is_empty() { "closed by the client" } else { cause };
        self.meters.closed.get_or_create(&[("cause", cause)]).inc();
    }

    pub(crate) fn count_refused(&self, refused: u32) {
        let cause = match refused {
            code::FRAME_BAD => "bad",
            code::FRAME_TOO_LARGE => "too_large",
            code::NOT_SIGNED_IN => "not_signed_in",
            code::CONN_RATE => "rate",
            _ => "other",
        };
        self.meters.refused_frames.get_or_create(&[("cause", cause)]).inc();
    }

    /// From now on upgrades are refused.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    // ---- who is connected ----

    pub(crate) fn seat(&self, at: ConnRef, session: &Arc<Session>) {
        let mut seats = self.seats.write();
        let users = seats.entry(session.app.0).or_default();
        users.entry(session.user.clone()).or_default().push(Seat { at, session: Arc::clone(session) });
        self.meters.signed_in.inc();
    }

    pub(crate) fn unseat(&self, at: ConnRef, session: &Session) {
        let mut seats = self.seats.write();
        let Some(users) = seats.get_mut(&session.app.0) else { return };
        let Some(seated) = users.get_mut(&session.user) else { return };
        let before = seated.len();
        seated.retain(|seat| seat.at != at);
        if seated.len() < before {
            self.meters.signed_in.dec();
        }
        if seated.is_empty() {
            users.remove(&session.user);
        }
    }

    /// The connections of a user on this gateway.
    pub(crate) fn seats_of(&self, app: u32, user: &str) -> Vec<Seat> {
        self.seats.read().get(&app).and_then(|users| users.get(user)).cloned().unwrap_or_default()
    }

    /// Whether the user has a connection here.
    pub(crate) fn is_here(&self, app: u32, user: &str) -> bool {
        self.seats.read().get(&app).is_some_and(|users| users.contains_key(user))
    }

    /// Whether the connection is still there.
    pub(crate) fn is_seated(&self, seat: &Seat) -> bool {
        let seats = self.seats.read();
        let user = seats.get(&seat.session.app.0).and_then(|users| users.get(&seat.session.user));
        user.is_some_and(|seated| seated.iter().any(|known| known.at == seat.at))
    }

    pub(crate) fn all_seats(&self) -> Vec<Seat> {
        self.seats.read().values().flat_map(HashMap::values).flatten().cloned().collect()
    }

    /// Connections of `users`, in a list for each shard.
    pub(crate) fn refs_by_shard(&self, app: u32, users: &[String]) -> Vec<Vec<ConnRef>> {
        let mut found = vec![Vec::new(); self.shards.len()];
        let seats = self.seats.read();
        let Some(here) = seats.get(&app) else { return found };
        for user in users {
            for seat in here.get(user.as_str()).into_iter().flatten() {
                found[usize::from(seat.at.shard)].push(seat.at);
            }
        }
        found
    }

    // ---- shards ----

    pub(crate) async fn tell(&self, shard: u16, command: Command) {
        // Fails only when the shard has stopped: the process is ending.
        let _ = self.shards[usize::from(shard)].send(command).await;
    }

    pub(crate) async fn end(&self, at: ConnRef, end: End) {
        self.tell(at.shard, Command::End { at, end: Box::new(end) }).await;
    }

    pub(crate) async fn reply(
        &self,
        at: ConnRef,
        wire: Wire,
        id: u64,
        outcome: Result<frame::Body, Refusal>,
        send: bool,
    ) {
        let reply = wire.encode(&wire::reply(id, outcome));
        self.tell(at.shard, Command::Reply { at, reply, send }).await;
    }

    /// A frame of the server's own for one connection.
    pub(crate) async fn push(&self, at: ConnRef, frame: Bytes) {
        self.tell(at.shard, Command::Tell { at, frame }).await;
    }

    /// A new request id: 16 hex digits.
    pub(crate) fn request_id(&self) -> String {
        format!("{:016x}", self.rng.u64())
    }

    // ---- the life of a connection ----

    /// A session ended: everything that remembers it is told.
    pub(crate) fn closed(self: &Arc<Self>, session: Arc<Session>, ended: Ended) {
        let hub = Arc::clone(self);
        self.events.session(&session, Some(ended));
        self.tasks.spawn("gateway.closed", async move {
            let rooms = hub.rooms.leave_all(&hub, &session).await;
            match ended {
                Ended::Unregister => hub.resume.forget(&session.resume),
                Ended::LinkClose | Ended::TimeOut => {
                    let until = hub.clock.mono() + hub.config.resume.get();
                    hub.resume.lost(&session.resume, rooms, until);
                }
            }
            hub.interest.leave_all(&hub, &session).await;
            if !hub.is_here(session.app.0, session.user.as_str()) {
                hub.reads.flush_user(&hub, session.app, &session.user).await;
            }
            hub.sign_out(&session, ended).await;
        });
    }

    /// Closes connections as the session service asks.
    pub(crate) async fn kick(&self, kick: delivery::Kick) {
        for seat in self.seats_of(kick.app, &kick.user) {
            if kick.connections.is_empty() || kick.connections.contains(&seat.session.connection) {
                let end = match kick.reason.as_str() {
                    // By a newer connection of the same instance: the user is not told of himself.
                    "replaced" => End::new(Ended::LinkClose, 4002, "replaced by a newer connection"),
                    reason => End::kicked(reason, &kick.by_platform),
                };
                self.end(seat.at, end).await;
            }
        }
    }

    /// Says when messages reached connections, if somebody listens.
    pub(crate) fn trace_delivered<'a>(&self, batches: impl Iterator<Item = &'a Arc<Prepared>>, devices: usize) {
        if devices > 0 && self.events.watched() {
            for batch in batches {
                self.events.delivered(batch, devices, self.clock.mono());
            }
        }
    }

    /// The settings of an app.
    pub(crate) async fn app(&self, id: SdkAppId) -> Result<Arc<linnet_admission::apps::App>, Refusal> {
        self.apps.get(id).await
    }
}
