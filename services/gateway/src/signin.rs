//! Signing in and out.
//!
//! Order of checks: `spec/rest-accounts.md` §1.6.5. A forged UserSig learns no more than a genuine one: its signature is
//! looked at before its dates.

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::App;
use linnet_proto::client::{self, frame};
use linnet_proto::{account, session as wire_session};
use linnet_types::{GroupId, NodeId, Platform, Refusal, SdkAppId, UnixMillis, UserId, code};

use crate::calls::answer;
use crate::hub::Hub;
use crate::lane::Lane;
use crate::session::{ConnRef, Ended, Session};
use crate::shard::{Command, End};
use crate::wire::{self, Wire};

/// Longest name of a device instance.
const INSTANCE_BYTES: usize = 64;
/// Sessions asked about in one refresh.
const REFRESH: usize = 2_000;

impl Hub {
    /// Checks a sign-in and tells the shard what came of it.
    pub(crate) fn sign_in(self: &Arc<Self>, at: ConnRef, wire: Wire, ip: String, id: u64, ask: client::SignIn) {
        let hub = Arc::clone(self);
        self.tasks.spawn("gateway.sign_in", async move {
            let began = hub.clock.mono();
            let outcome = hub.try_sign_in(at, wire, ip, ask).await;
            let result = if outcome.is_ok() { "ok" } else { "refused" };
            hub.meters.sign_ins.get_or_create(&[("outcome", result)]).inc();
            hub.meters.request_seconds.observe((hub.clock.mono() - began).as_secs_f64());
            let (session, reply) = match outcome {
                Ok((session, reply, rooms)) => (Some((session, rooms)), Ok(frame::Body::SignedIn(reply))),
                Err(refusal) => (None, Err(refusal)),
            };
            let reply = wire.encode(&wire::reply(id, reply));
            hub.tell(at.shard, Command::SignedIn { at, session, reply }).await;
        });
    }

    /// What follows once the connection is seated.
    pub(crate) fn seated(self: &Arc<Self>, at: ConnRef, session: Arc<Session>, rooms: Vec<GroupId>) {
        let hub = Arc::clone(self);
        self.events.session(&session, None);
        self.tasks.spawn("gateway.settle", async move { hub.settle(at, session, rooms).await });
    }

    async fn try_sign_in(
        &self,
        at: ConnRef,
        wire: Wire,
        ip: String,
        ask: client::SignIn,
    ) -> Result<(Arc<Session>, client::SignedIn, Vec<GroupId>), Refusal> {
        let now = self.clock.mono();
        if let Err(wait) = self.pace.take(now) {
            let ms = (wait + jitter(self, wait)).as_millis().min(60_000) as u32;
            return Err(Refusal::retry(code::OVERLOADED, "too many are signing in", ms.max(50)));
        }
        if self.throttle.is_blocked(ask.sdkappid, &ask.user, &ip, now) {
            return Err(Refusal::retry(code::SIG_RETRY, "too many failed attempts; wait a minute", 60_000));
        }
        let checked = self.check(&ask).await;
        if let Err(refusal) = &checked
            && (70_001..70_100).contains(&refusal.code)
            && refusal.code != code::APP_UNKNOWN
        {
            self.throttle.failed(ask.sdkappid, &ask.user, &ip, now);
        }
        let (app, user, platform, until) = checked?;
        let instance = if ask.instance.is_empty() { self.rng.token(8) } else { ask.instance };
        let rooms =
            if ask.resume.is_empty() { None } else { self.resume.take(&ask.resume, app.id, &user, &instance, now) };
        let session = Arc::new(Session {
            app: app.id,
            user,
            platform,
            instance,
            gateway: self.me.clone(),
            incarnation: self.incarnation,
            connection: format!("{}/{}", self.me, at.number),
            number: at.number,
            wire,
            ip,
            signed_in: self.clock.now(),
            until,
            resume: self.rng.token(16),
            lane: Lane::default(),
        });
        self.record(&session, rooms.is_some()).await?;
        self.resume.signed_in(&session.resume, session.app, &session.user, &session.instance);
        let reply = client::SignedIn {
            user: session.user.as_str().to_owned(),
            time_ms: session.signed_in.0,
            instance: session.instance.clone(),
            resume: session.resume.clone(),
            resumed: rooms.is_some(),
            ping_ms: self.config.ping.get().as_millis() as u32,
            message_bytes: app.settings.message_bytes,
            frame_bytes: self.config.frame_bytes.bytes() as u32,
            connection: session.connection.clone(),
        };
        Ok((session, reply, rooms.unwrap_or_default()))
    }

    /// Who this is: the app, the user, and that he may be on this platform.
    async fn check(&self, ask: &client::SignIn) -> Result<(Arc<App>, UserId, Platform, UnixMillis), Refusal> {
        if ask.sdkappid == 0 {
            return Err(Refusal::new(code::BAD_SDKAPPID, "sdkappid must be a positive integer"));
        }
        let app = self.app(SdkAppId(ask.sdkappid)).await?;
        if ask.user.is_empty() {
            return Err(Refusal::new(code::NO_IDENTIFIER, "user is empty"));
        }
        let user = UserId::parse(&ask.user)?;
        let platform = if ask.platform.is_empty() { Some(Platform::Web) } else { Platform::parse(&ask.platform) };
        let platform = platform.ok_or_else(|| Refusal::new(code::ACCOUNT_BAD_PARAM, "unknown platform"))?;
        let printable = ask.instance.bytes().all(|byte| byte.is_ascii_graphic());
        if ask.instance.len() > INSTANCE_BYTES || !printable {
            return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "instance must be at most 64 printable ASCII bytes"));
        }
        let now = self.clock.now();
        let (issued_s, until) = crate::sig::verify(&app, &user, &ask.usersig, now)?;
        let account = self.account(&app, &user).await?;
        if issued_s <= account.kick_time_s && account.kick_time_s > 0 {
            return Err(Refusal::new(code::SIG_REVOKED, "the UserSig was issued before the last kick"));
        }
        if account.blocked {
            return Err(Refusal::new(code::ACCOUNT_BLOCKED, "the account is blocked"));
        }
        Ok((app, user, platform, until))
    }

    /// The account, made now if the app lets a first sign-in do that.
    async fn account(&self, app: &App, user: &UserId) -> Result<account::Account, Refusal> {
        let name = user.as_str().to_owned();
        let mut accounts = self.calls.account(app.id, user)?;
        let ask = account::LookupRequest { app: app.id.0, users: vec![name.clone()], ..Default::default() };
        let found = answer(accounts.lookup(self.calls.ask(ask)).await, code::ACCOUNT_INTERNAL)?;
        let found = found.accounts.into_iter().next().unwrap_or_default();
        if found.exists {
            return Ok(found);
        }
        if !app.settings.auto_account {
            return Err(Refusal::new(code::ACCOUNT_UNKNOWN, "no such account"));
        }
        let new = account::ImportAccount { user: name, nick: None, face_url: None };
        let ask = account::ImportRequest { app: app.id.0, accounts: vec![new] };
        let made = answer(accounts.import(self.calls.ask(ask)).await, code::ACCOUNT_INTERNAL)?;
        match made.codes.first() {
            Some(failed) => Err(Refusal::new(*failed, "the account could not be made")),
            None => Ok(found),
        }
    }

    /// Records the session; older ones the app no longer allows are told.
    async fn record(&self, session: &Session, resumed: bool) -> Result<(), Refusal> {
        let ask = wire_session::SignInRequest { session: Some(session.record()), resumed };
        let owner = self.calls.session_node(session.app, &session.user)?;
        let mut reply = match self.calls.session_of(&owner) {
            Ok(mut sessions) => answer(sessions.sign_in(self.calls.ask(ask.clone())).await, code::ACCOUNT_INTERNAL),
            Err(refusal) => Err(refusal),
        };
        // An owner that is not there (yet) need not be waited for; recording twice is recording once.
        if reply.as_ref().is_err_and(|refusal| refusal.retry_after_ms.is_some())
            && let Some(mut other) = self.calls.other_session(&owner)
        {
            reply = answer(other.sign_in(self.calls.ask(ask)).await, code::ACCOUNT_INTERNAL);
        }
        for old in reply?.kicked.iter().filter(|old| old.gateway == self.me) {
            self.replace(session, old).await;
        }
        Ok(())
    }

    /// Ends an older session of this gateway; those of others learn it over the bus.
    async fn replace(&self, newcomer: &Session, old: &wire_session::Session) {
        for seat in self.seats_of(newcomer.app.0, newcomer.user.as_str()) {
            if seat.session.connection != old.connection {
                continue;
            }
            let end = if old.instance == newcomer.instance {
                End::new(Ended::LinkClose, 4002, "replaced by a newer connection")
            } else {
                End::kicked("multipleDevice", newcomer.platform.wire())
            };
            self.end(seat.at, end).await;
        }
    }

    /// What follows a sign-in: interest in large groups, and the live rooms of the connection before.
    async fn settle(self: &Arc<Self>, at: ConnRef, session: Arc<Session>, rooms: Vec<GroupId>) {
        let enter = async {
            for room in rooms {
                if let Err(why) = self.rooms.join(self, at, &session, &room, "").await {
                    tracing::debug!(connection = %session.connection, code = why.code, "a live room was not taken up again");
                }
            }
        };
        futures::join!(self.interest.signed_in(self, at, &session), enter);
    }

    /// Tells the session service that a session ended.
    pub(crate) async fn sign_out(&self, session: &Session, ended: Ended) {
        self.tell_sign_out(session.app, signed_out(session, ended)).await;
    }

    /// Repeats itself for a while: a user who signed out wants no push, also if the directory was away just then. After
    /// that the entry ends by itself, because it is not refreshed.
    async fn tell_sign_out(&self, app: SdkAppId, ask: wire_session::SignOutRequest) {
        let user = UserId::trusted(ask.user.as_str());
        let draining = self.tasks.draining();
        for pause in [0, 1, 4, 15, 30, 40].map(Duration::from_secs) {
            tokio::select! {
                () = draining.cancelled(), if !pause.is_zero() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Ok(mut sessions) = self.calls.session(app, &user) else { continue };
            match sessions.sign_out(self.calls.ask(ask.clone())).await {
                Ok(_) => return,
                Err(why) => {
                    tracing::debug!(connection = ask.connection, code = ?why.code(), "sign-out was not recorded")
                }
            }
        }
    }

    /// Says again which connections there are; those that are no longer current, or whose UserSig ended, are closed.
    pub(crate) async fn refresh(&self) {
        let now = self.clock.now();
        let mut by_node = std::collections::BTreeMap::<_, Vec<wire_session::Session>>::new();
        for seat in self.all_seats() {
            if seat.session.until <= now {
                self.end(seat.at, End::kicked("userSigExpired", "")).await;
                continue;
            }
            if let Ok(node) = self.calls.session_node(seat.session.app, &seat.session.user) {
                by_node.entry(node).or_default().push(seat.session.record());
            }
        }
        for (node, sessions) in by_node {
            for sessions in sessions.chunks(REFRESH) {
                let ask = wire_session::RefreshRequest {
                    gateway: self.me.clone(),
                    incarnation: self.incarnation,
                    sessions: sessions.to_vec(),
                };
                if let Some(reply) = self.refresh_by(&node, ask).await {
                    self.close_stale(&reply.stale).await;
                }
            }
        }
        self.resume.sweep(self.clock.mono());
    }

    /// By the owner, or by another node when it does not answer: what is not refreshed for long is taken for dead.
    async fn refresh_by(
        &self,
        owner: &NodeId,
        ask: wire_session::RefreshRequest,
    ) -> Option<wire_session::RefreshReply> {
        if let Ok(mut client) = self.calls.session_of(owner)
            && let Ok(reply) = client.refresh(self.calls.ask(ask.clone())).await
        {
            return Some(reply.into_inner());
        }
        let reply = self.calls.other_session(owner)?.refresh(self.calls.ask(ask)).await;
        reply.ok().map(tonic::Response::into_inner)
    }

    async fn close_stale(&self, stale: &[String]) {
        if stale.is_empty() {
            return;
        }
        for seat in self.all_seats() {
            if stale.contains(&seat.session.connection) {
                self.end(seat.at, End::kicked("multipleDevice", "")).await;
            }
        }
    }
}

fn signed_out(session: &Session, ended: Ended) -> wire_session::SignOutRequest {
    wire_session::SignOutRequest {
        app: session.app.0,
        user: session.user.as_str().to_owned(),
        connection: session.connection.clone(),
        reason: ended.wire().to_owned(),
    }
}

/// Up to as long again, so that a wave that was turned away does not come back as one.
fn jitter(hub: &Hub, wait: Duration) -> Duration {
    Duration::from_millis(hub.rng.below(wait.as_millis() as u64 + 200))
}
