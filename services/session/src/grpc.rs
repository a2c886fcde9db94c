//! The service's calls: what they ask of the directory, and whom they tell.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::{App, Apps};
use linnet_cluster::{Cluster, Service as Target};
use linnet_proto::delivery;
use linnet_proto::session::{self as pb, sessions_server::Sessions};
use linnet_runtime::status::to_status;
use linnet_runtime::{Clock, Tasks};
use linnet_types::{GroupId, NodeId, Platform, Refusal, SdkAppId, UnixMillis, UserId, code};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::Meters;
use crate::devices;
use crate::directory::{self, Directory, End, Policy, Session, State, View};
use crate::events::{Action, Events, STATE_CHANGE};
use crate::tell::Teller;

/// Users in one `Where` or `Status`.
const USERS_MAX: usize = 500;
/// Who cannot sign in because the directory is away comes back after this long, or up to twice as long.
const AWAY_MS: u64 = 1_500;
/// Reason of a kick by a newcomer, of one that makes room for the same instance, and of none given.
const MULTIPLE_DEVICE: &str = "multipleDevice";
const REPLACED: &str = "replaced";
const REST_KICK: &str = "REST_API_Kick";

/// Which gateways live, and in which life.
#[derive(Clone)]
pub(crate) struct Lives {
    cluster: Cluster,
    clock: Clock,
    heard: Arc<Mutex<HashMap<NodeId, Heard>>>,
}

/// A gateway's life by its own calls.
#[derive(Clone, Copy, Default)]
struct Heard {
    incarnation: u64,
    /// What its heartbeats said then. When they say something else they are right, also if that is lower: its clock may
    /// have been set back between two lives.
    told: u64,
    /// When it called last, and whether its heartbeats were heard in this life: one that only calls is new.
    at: Duration,
    seen: bool,
}

/// A gateway whose heartbeats were not heard yet lives this long after its last call.
const NEW_FOR: Duration = Duration::from_secs(15);

impl Lives {
    pub(crate) fn new(cluster: Cluster, clock: Clock) -> Self {
        Self { cluster, clock, heard: Arc::default() }
    }

    /// A gateway called: the life it names is the present one, or one before.
    fn heard(&self, gateway: &NodeId, incarnation: u64) {
        let told = self.cluster.snapshot().node(gateway).map_or(0, |node| node.incarnation);
        let mut heard = self.heard.lock();
        let known = heard.entry(gateway.clone()).or_default();
        let newest = if known.told == told { known.incarnation.max(incarnation) } else { incarnation };
        let seen = known.seen && known.incarnation == newest;
        *known = Heard { incarnation: newest, told, at: self.clock.mono(), seen };
    }

    /// A gateway's life is told by its heartbeats, and by its own calls when they come first. One that is young or about to
    /// stop is on no ring and has users all the same.
    fn view(&self) -> View {
        let (snapshot, now) = (self.cluster.snapshot(), self.clock.mono());
        let gateways = snapshot.nodes().filter(|node| node.services.contains(&Target::Gateway));
        let mut living: Vec<NodeId> = gateways.map(|node| node.id.clone()).collect();
        let mut heard = self.heard.lock();
        for (gateway, known) in heard.iter_mut() {
            known.seen |= living.contains(gateway);
        }
        let new = |known: &Heard| !known.seen && now.saturating_sub(known.at) < NEW_FOR;
        living.extend(heard.iter().filter(|(_, known)| new(known)).map(|(gateway, _)| gateway.clone()));
        if heard.len() > living.len() * 2 + 64 {
            heard.retain(|gateway, _| living.contains(gateway));
        }
        let life = |gateway: &NodeId| {
            let told = snapshot.node(gateway).map_or(0, |node| node.incarnation);
            let called = heard.get(gateway).filter(|heard| heard.told == told).map_or(0, |heard| heard.incarnation);
            (gateway.clone(), told.max(called))
        };
        let gateways = living.iter().map(life).collect::<BTreeMap<_, _>>();
        View { now: self.clock.now(), gateways }
    }
}

/// The service behind the generated trait.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) apps: Apps,
    pub(crate) lives: Lives,
    pub(crate) teller: Teller,
    pub(crate) events: Events,
    pub(crate) meters: Meters,
    pub(crate) tasks: Tasks,
}

impl Service {
    async fn do_sign_in(&self, request: pb::SignInRequest) -> Result<pb::SignInReply, Refusal> {
        let session = parse(request.session.ok_or_else(|| bad("a session is needed"))?)?;
        let app = self.apps.get(session.app).await?;
        self.lives.heard(&session.gateway, session.incarnation);
        let outcome = self
            .directory
            .sign_in(session.clone(), Policy::from(&app.settings), &self.lives.view())
            .await
            .map_err(|error| come_back(error, &session))?;
        if outcome.repeated {
            return Ok(pb::SignInReply::default());
        }
        self.meters.sign_ins.inc();
        self.meters.kicked.inc_by(outcome.kicked.len() as u64);
        self.teller.places(outcome.change).await;
        self.close(&outcome.replaced, REPLACED, "").await;
        self.close(&outcome.kicked, MULTIPLE_DEVICE, session.platform.wire()).await;
        self.devices_gone(&outcome.kicked);
        // Resumed before its loss was seen, or before it was told.
        let silent = request.resumed && (self.events.taken_up(&session) || !outcome.replaced.is_empty());
        if !silent && app.settings.webhook_on(STATE_CHANGE) {
            self.events.tell(&session, Action::Login, &outcome.kicked);
        }
        Ok(pb::SignInReply { kicked: outcome.kicked.into_iter().chain(outcome.replaced).map(wire).collect() })
    }

    async fn do_sign_out(&self, request: pb::SignOutRequest) -> Result<(), Refusal> {
        let (app, user) = who(request.app, &request.user)?;
        let action = match request.reason.as_str() {
            "Unregister" => Action::Logout,
            "TimeOut" => Action::TimeOut,
            _ => Action::LinkClose,
        };
        let how = if action == Action::Logout { End::Out } else { End::Lost };
        let ended = self.directory.end(app, &user, &request.connection, how, &self.lives.view()).await.map_err(away)?;
        // One that was pushed out is not recorded any more, and has been told.
        let Some(ended) = ended else { return Ok(()) };
        self.teller.places(ended.change).await;
        if action == Action::Logout {
            self.devices_gone(std::slice::from_ref(&ended.session));
        }
        self.ended(ended.session, action).await;
        Ok(())
    }

    async fn ended(&self, session: Session, action: Action) {
        if !self.wants_events(session.app).await {
            return;
        }
        match action {
            Action::Login | Action::Logout => self.events.tell(&session, action, &[]),
            Action::LinkClose | Action::TimeOut => self.events.tell_later(session, action),
        }
    }

    /// Beside the call: a sign-in does not wait for the push service.
    fn devices_gone(&self, sessions: &[Session]) {
        if sessions.iter().all(|session| session.platform == Platform::Web) {
            return;
        }
        let (cluster, sessions) = (self.lives.cluster.clone(), sessions.to_vec());
        self.tasks.spawn("session.devices", async move { devices::gone(&cluster, &sessions).await });
    }

    async fn wants_events(&self, app: SdkAppId) -> bool {
        self.apps.get(app).await.is_ok_and(|app| app.settings.webhook_on(STATE_CHANGE))
    }

    async fn do_refresh(&self, request: pb::RefreshRequest) -> Result<pb::RefreshReply, Refusal> {
        self.lives.heard(&NodeId::trusted(request.gateway.as_str()), request.incarnation);
        let mut apps: HashMap<u32, Option<Arc<App>>> = HashMap::new();
        let mut sessions = Vec::with_capacity(request.sessions.len());
        for session in request.sessions {
            let app = match apps.get(&session.app) {
                Some(app) => app.clone(),
                None => {
                    let app = self.apps.get(SdkAppId(session.app)).await.ok();
                    apps.insert(session.app, app.clone());
                    app
                }
            };
            // An app that cannot be read now says nothing about its sessions; the next refresh does.
            let Some(app) = app else { continue };
            sessions.push((parse(session)?, Policy::from(&app.settings)));
        }
        let refreshed = self.directory.refresh(sessions, &self.lives.view()).await.map_err(away)?;
        for change in refreshed.changes {
            self.teller.places(Some(change)).await;
        }
        self.close(&refreshed.kicked, MULTIPLE_DEVICE, "").await;
        self.meters.stale.inc_by(refreshed.stale.len() as u64);
        Ok(pb::RefreshReply { stale: refreshed.stale })
    }

    async fn do_where(&self, request: pb::WhereRequest) -> Result<pb::WhereReply, Refusal> {
        let users = users(request.users)?;
        let placed = self.directory.places(SdkAppId(request.app), &users, &self.lives.view()).await.map_err(away)?;
        let places = placed.into_iter().map(|placed| pb::Places {
            gateways: placed.gateways.into_iter().map(String::from).collect(),
            rev: placed.rev,
        });
        Ok(pb::WhereReply { places: places.collect() })
    }

    async fn do_kick(&self, request: pb::KickRequest) -> Result<pb::KickReply, Refusal> {
        let (app, user) = who(request.app, &request.user)?;
        let view = self.lives.view();
        let (closed, change) = self.directory.kick(app, &user, &view).await.map_err(away)?;
        self.teller.places(change).await;
        let reason = if request.reason.is_empty() { REST_KICK } else { &request.reason };
        self.close(&closed, reason, "").await;
        self.meters.kicked.inc_by(closed.len() as u64);
        let count = closed.len() as u32;
        for session in closed {
            self.ended(session, Action::Logout).await;
        }
        Ok(pb::KickReply { closed: count, at_ms: self.directory.now(&view).0 })
    }

    async fn do_status(&self, request: pb::StatusRequest) -> Result<pb::StatusReply, Refusal> {
        let names = request.users.clone();
        let users = users(request.users)?;
        let states = self.directory.states(SdkAppId(request.app), &users, &self.lives.view()).await.map_err(away)?;
        let users = names.into_iter().zip(states).map(|(user, states)| {
            let best = states.iter().map(|(_, state)| *state).max();
            let platform = |(platform, state): &(Platform, State)| pb::PlatformStatus {
                platform: platform.wire().to_owned(),
                status: state.wire().to_owned(),
            };
            pb::UserStatus {
                user,
                status: best.map_or("Offline", State::wire).to_owned(),
                platforms: states.iter().map(platform).collect(),
            }
        });
        Ok(pb::StatusReply { users: users.collect() })
    }

    async fn do_enter_room(&self, request: pb::EnterRoomRequest) -> Result<pb::EnterRoomReply, Refusal> {
        let (app, user) = who(request.app, &request.user)?;
        let group = (!request.group_id.is_empty()).then(|| GroupId::trusted(request.group_id.as_str()));
        let view = self.lives.view();
        let left = self.directory.enter_room(app, &user, &request.connection, group, &view).await.map_err(away)?;
        let left = left.into_iter().map(|place| pb::RoomAt {
            group_id: place.group.into(),
            gateway: place.gateway.into(),
            connection: place.connection,
        });
        Ok(pb::EnterRoomReply { left: left.collect() })
    }

    async fn do_list(&self, request: pb::ListRequest) -> Result<pb::ListReply, Refusal> {
        let total = self.directory.total().await.map_err(away)?;
        if request.user.is_empty() {
            return Ok(pb::ListReply { sessions: Vec::new(), total });
        }
        let (app, user) = who(request.app, &request.user)?;
        let sessions = self.directory.list(app, &user, &self.lives.view()).await.map_err(away)?;
        Ok(pb::ListReply { sessions: sessions.into_iter().map(wire).collect(), total })
    }

    /// Ends what died without a word.
    pub(crate) async fn expire(&self) {
        match self.directory.expire(&self.lives.view()).await {
            Ok(expired) => {
                self.meters.expired.inc_by(expired.sessions.len() as u64);
                for change in expired.changes {
                    self.teller.places(Some(change)).await;
                }
                for session in expired.sessions {
                    self.ended(session, Action::TimeOut).await;
                }
            }
            Err(error) => tracing::warn!(%error, "dead sessions were not looked for"),
        }
        if let Ok(total) = self.directory.total().await {
            self.meters.sessions.set(i64::try_from(total).unwrap_or(i64::MAX));
        }
    }

    /// Tells gateways to close sessions.
    async fn close(&self, sessions: &[Session], reason: &str, by_platform: &str) {
        for session in sessions {
            let kick = delivery::Kick {
                app: session.app.0,
                user: session.user.as_str().to_owned(),
                connections: vec![session.connection.clone()],
                reason: reason.to_owned(),
                by_platform: by_platform.to_owned(),
            };
            self.teller.kick(session.gateway.clone(), kick).await;
        }
    }
}

fn bad(why: &str) -> Refusal {
    Refusal::new(code::ACCOUNT_BAD_PARAM, why)
}

/// The directory itself logs that it is away, once; this is each call that feels it.
fn away(error: directory::Error) -> Refusal {
    tracing::debug!(%error, "directory");
    Refusal::retry(code::BUSY, "sign-in records cannot be reached now", 500)
}

/// For clients: they come back spread over seconds, not as one wave.
fn come_back(error: directory::Error, session: &Session) -> Refusal {
    let mut hasher = DefaultHasher::new();
    session.connection.hash(&mut hasher);
    let wait_ms = AWAY_MS + hasher.finish() % AWAY_MS;
    Refusal { retry_after_ms: Some(u32::try_from(wait_ms).unwrap_or(u32::MAX)), ..away(error) }
}

fn who(app: u32, user: &str) -> Result<(SdkAppId, UserId), Refusal> {
    Ok((SdkAppId(app), UserId::parse(user)?))
}

/// Users that somebody asks about; one that cannot exist is nowhere.
fn users(names: Vec<String>) -> Result<Vec<UserId>, Refusal> {
    if names.len() > USERS_MAX {
        return Err(Refusal::new(code::TOO_MANY_RECEIVERS, "at most 500 users"));
    }
    Ok(names.into_iter().map(UserId::trusted).collect())
}

fn parse(session: pb::Session) -> Result<Session, Refusal> {
    let (app, user) = who(session.app, &session.user)?;
    let platform = Platform::parse(&session.platform).ok_or_else(|| bad("unknown platform"))?;
    if session.gateway.is_empty() || session.connection.is_empty() || session.instance.is_empty() {
        return Err(bad("a session has a gateway, a connection and an instance"));
    }
    Ok(Session {
        app,
        user,
        platform,
        instance: session.instance,
        gateway: NodeId::trusted(session.gateway),
        incarnation: session.gateway_incarnation,
        connection: session.connection,
        signed_in: UnixMillis(session.signed_in_ms),
        ip: session.client_ip,
    })
}

fn wire(session: Session) -> pb::Session {
    pb::Session {
        app: session.app.0,
        user: session.user.into(),
        platform: session.platform.wire().to_owned(),
        instance: session.instance,
        gateway: session.gateway.into(),
        gateway_incarnation: session.incarnation,
        connection: session.connection,
        signed_in_ms: session.signed_in.0,
        client_ip: session.ip,
    }
}

macro_rules! calls {
    ($($name:ident, $inner:ident, $request:ident, $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Sessions for Service {
            $(async fn $name(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                self.$inner(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
            })*

            async fn sign_out(&self, request: Request<pb::SignOutRequest>) -> Result<Response<pb::SignOutReply>, Status> {
                let done = self.do_sign_out(request.into_inner()).await;
                done.map(|()| Response::new(pb::SignOutReply {})).map_err(|refusal| to_status(&refusal))
            }
        }
    };
}

calls! {
    sign_in, do_sign_in, SignInRequest, SignInReply;
    refresh, do_refresh, RefreshRequest, RefreshReply;
    r#where, do_where, WhereRequest, WhereReply;
    kick, do_kick, KickRequest, KickReply;
    status, do_status, StatusRequest, StatusReply;
    enter_room, do_enter_room, EnterRoomRequest, EnterRoomReply;
    list, do_list, ListRequest, ListReply;
}
