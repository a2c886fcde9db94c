//! The directory of a cluster: Redis servers, sharded by user.
//!
//! ```text
//! call --> link of the user's server --MGET--> record --decide (record.rs)--> script: "if it is still what was read"
//!            |  away: refused at once                                            |  lost the race: decided anew, bounded
//!            +--looks every second: its time, its contents' name, its run id     +--sorted set of deadlines kept in step
//! ```
//!
//! - The rules are [`Record`]'s, as in memory; the server only compares and swaps. A record and its deadlines change together.
//! - Stamps are the server's time, so a node whose clock is wrong ends nobody's session.
//! - Dead sessions are taken from the sorted set in batches; a batch taken is out of the other nodes' reach for a while.
//! - Contents have a name. When it is gone or another, records may be lost: [`Redis`] says so, and until gateways have
//!   said again whom they have, a user without a record is "unknown", not "nowhere".

mod link;
mod script;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linnet_cluster::{Ring, RouteKey};
use linnet_runtime::health::Check;
use linnet_runtime::metrics::{Counter, Gauge};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{GroupId, NodeId, Platform, SdkAppId, UnixMillis, UserId};
use redis::{Client, ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use tokio::sync::{Mutex, watch};

use super::record::Record;
use super::{
    Change, Config, Directory, End, Ended, Error, Expired, OpenError, Placed, Policy, Refreshed, Result, RoomAt,
    Session, SignedIn, State, View,
};
use link::{Link, Parts, Patience};
use script::VERSION;

/// Records read, or changed, in one round trip.
const TOGETHER: usize = 250;
/// A change that lost this many races gives up.
const ROUNDS: u32 = 24;
/// Changes of one user wait for each other here, so that they race with other nodes only.
const LOCKS: usize = 256;
/// Sessions taken at once when looking for dead ones, and how often in one call.
const TAKE: usize = 200;
const TAKES: usize = 5;
/// A batch taken by a node that died is looked at again after this long.
const LEASE_MS: u64 = 10_000;

/// What the directory is made with.
#[derive(Clone)]
pub struct Kit {
    /// Time.
    pub clock: Clock,
    /// Names of versions, pauses.
    pub rng: Rng,
    /// Owner of the tasks that look after connections.
    pub tasks: Tasks,
    /// Counters.
    pub metrics: Metrics,
    /// Not ready until every server was reached once; servers that are away later cost sign-ins only, so the node stays ready.
    pub check: Check,
}

#[derive(Clone, Debug)]
struct Meters {
    away: Gauge,
    losses: Counter,
    races: Counter,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        metrics.scope("directory", |scope| Self {
            away: scope.gauge("away", "Directory servers that cannot be reached now"),
            losses: scope.counter("losses", "Times the records of a server were, or may have been, lost"),
            races: scope.counter("races", "Changes that another node got in front of"),
        })
    }
}

/// Records on Redis servers.
pub struct Redis {
    links: Vec<Arc<Link>>,
    /// Of the places in `links`.
    ring: Ring,
    locks: Vec<Mutex<()>>,
    rng: Rng,
    races: Counter,
    losses: watch::Receiver<String>,
    /// Time is the caller's: for tests that live through days.
    callers_time: bool,
}

/// A record as it was read.
#[derive(Clone, Debug, Default)]
struct Stored {
    version: Vec<u8>,
    record: Record,
}

/// One user to change.
struct Job<J> {
    app: SdkAppId,
    user: UserId,
    what: J,
}

/// What changes did, in the order asked. What failed has no answer; an error only if nothing was done.
type Edited<T> = Vec<Option<(T, Option<Change>)>>;

impl Redis {
    /// Connects to the servers in the background, for good; waits a moment for the first connection.
    ///
    /// # Errors
    /// When the configuration names files that cannot be read, or servers that cannot be addressed.
    pub async fn open(config: &Config, cluster: &str, kit: Kit) -> Result<Self, OpenError> {
        Self::with_patience(config, cluster, kit, Patience::default()).await
    }

    async fn with_patience(config: &Config, cluster: &str, kit: Kit, patience: Patience) -> Result<Self, OpenError> {
        let meters = Meters::new(&kit.metrics);
        let (told, losses) = watch::channel(String::new());
        let prefix = if config.prefix.is_empty() { cluster } else { &config.prefix };
        let mut links = Vec::with_capacity(config.urls.len());
        for url in &config.urls {
            let client = client(config, url)?;
            meters.away.inc();
            links.push(Link::new(Parts {
                name: client.get_connection_info().addr().to_string(),
                client,
                keys: script::Keys::new(prefix),
                timeout: config.timeout.get(),
                in_flight: config.in_flight as usize,
                clock: kit.clock.clone(),
                rng: kit.rng.clone(),
                meters: meters.clone(),
                patience,
                losses: told.clone(),
            }));
        }
        let mut reached = 0;
        for link in &links {
            match link.look().await {
                Ok(()) => reached += 1,
                Err(why) => tracing::warn!(why, "a directory server is not there yet"),
            }
            kit.tasks.spawn("directory.link", Arc::clone(link).tend(kit.tasks.clone()));
        }
        if reached == links.len() {
            kit.check.ready();
        } else {
            kit.tasks.spawn("directory.ready", ready(links.clone(), kit.check));
        }
        let ring = Ring::new((0..links.len()).map(place));
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        Ok(Self { links, ring, locks, rng: kit.rng, races: meters.races, losses, callers_time: false })
    }

    /// Goes by the time in each [`View`] instead of the servers', and waits for nobody: for tests that live through days.
    #[must_use]
    pub fn with_callers_time(mut self) -> Self {
        self.callers_time = true;
        self
    }

    /// The server of a user: by his place on a ring of the servers' positions in the configuration.
    fn server(&self, app: SdkAppId, user: &UserId) -> usize {
        let owner = self.ring.owner(&RouteKey::user(app, user));
        owner.and_then(|owner| owner.as_str().parse().ok()).unwrap_or(0)
    }

    fn view(&self, link: &Link, view: &View) -> View {
        if self.callers_time { view.clone() } else { View { now: link.now(), gateways: view.gateways.clone() } }
    }

    /// Positions in `users` by server.
    fn by_server<'a>(&self, users: impl Iterator<Item = (SdkAppId, &'a UserId)>) -> HashMap<usize, Vec<usize>> {
        let mut by_server: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, (app, user)) in users.enumerate() {
            by_server.entry(self.server(app, user)).or_default().push(index);
        }
        by_server
    }

    /// Reads records of one server.
    async fn read(&self, link: &Link, users: &[(SdkAppId, &UserId)]) -> Result<Vec<Stored>> {
        let pipeline = script::read(link.keys(), users.iter().copied());
        let replies = link.run(&pipeline, 1).await?;
        let mut values = script::list(replies.into_iter().next()).unwrap_or_default();
        if values.len() != users.len() + 1 {
            return Err(Error::Away("an answer of another shape".to_owned()));
        }
        link.check_life(values.pop().flatten().as_deref())?;
        let stored = |((app, user), value): (&(SdkAppId, &UserId), Option<Vec<u8>>)| {
            decode(*app, user, value.unwrap_or_default())
        };
        Ok(users.iter().zip(values).map(stored).collect())
    }

    /// Looks at records of any servers, in the order asked.
    async fn look<T: Clone + Send>(
        &self,
        app: SdkAppId,
        users: &[UserId],
        view: &View,
        show: impl Fn(&Record, &View) -> T + Send + Sync,
    ) -> Result<Vec<T>> {
        let mut shown = vec![None; users.len()];
        for (server, indexes) in self.by_server(users.iter().map(|user| (app, user))) {
            let link = &self.links[server];
            let view = self.view(link, view);
            for indexes in indexes.chunks(TOGETHER) {
                let wanted: Vec<_> = indexes.iter().map(|index| (app, &users[*index])).collect();
                for (index, stored) in indexes.iter().zip(self.read(link, &wanted).await?) {
                    if link.is_unsettled() && stored.record.placed(&view).gateways.is_empty() {
                        return Err(Error::Away("records are being rebuilt".to_owned()));
                    }
                    shown[*index] = Some(show(&stored.record, &view));
                }
            }
        }
        Ok(shown.into_iter().flatten().collect())
    }

    /// Changes one record.
    async fn edit<T: Send>(
        &self,
        app: SdkAppId,
        user: &UserId,
        view: &View,
        act: impl Fn(&mut Record, &View) -> T + Send + Sync,
    ) -> Result<(T, Option<Change>)> {
        let server = self.server(app, user);
        let _turn = self.lock(app, user).lock().await;
        let jobs = [Job { app, user: user.clone(), what: () }];
        let act = |(): &(), record: &mut Record, view: &View| act(record, view);
        let done = self.edit_all(&self.links[server], &jobs, view, false, &act).await?.pop().flatten();
        done.ok_or_else(|| Error::Away("too many change one user at once".to_owned()))
    }

    fn lock(&self, app: SdkAppId, user: &UserId) -> &Mutex<()> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (app, user).hash(&mut hasher);
        &self.locks[usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default()]
    }

    /// Changes records of one server. `act` runs again on what is there now, for every race lost. With `always`, deadlines
    /// are written even if nothing changed.
    async fn edit_all<J: Sync, T: Send>(
        &self,
        link: &Link,
        jobs: &[Job<J>],
        view: &View,
        always: bool,
        act: &(impl Fn(&J, &mut Record, &View) -> T + Send + Sync),
    ) -> Result<Edited<T>> {
        let mut edited: Edited<T> = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(TOGETHER) {
            match self.edit_some(link, jobs, view, always, act).await {
                Ok(some) => edited.extend(some),
                Err(error) if edited.iter().all(Option::is_none) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "some records were not changed");
                    break;
                }
            }
        }
        edited.resize_with(jobs.len(), || None);
        Ok(edited)
    }

    async fn edit_some<J: Sync, T: Send>(
        &self,
        link: &Link,
        jobs: &[Job<J>],
        view: &View,
        always: bool,
        act: &(impl Fn(&J, &mut Record, &View) -> T + Send + Sync),
    ) -> Result<Edited<T>> {
        let users: Vec<_> = jobs.iter().map(|job| (job.app, &job.user)).collect();
        let mut found = self.read(link, &users).await?;
        let mut edited: Edited<T> = jobs.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..jobs.len()).collect();
        for round in 0..ROUNDS {
            let view = self.view(link, view);
            let (mut changes, mut answers) = (Vec::new(), Vec::new());
            for index in open.drain(..) {
                let (job, stored) = (&jobs[index], &found[index]);
                let mut record = stored.record.clone();
                let outcome = act(&job.what, &mut record, &view);
                let moved = record.change(&view).map(|placed| Change::of(job.app, &job.user, placed));
                if record == stored.record && !always {
                    edited[index] = Some((outcome, moved));
                    continue;
                }
                changes.push(self.swap(job.app, &job.user, stored, &record, view.now));
                answers.push((index, (outcome, moved)));
            }
            if changes.is_empty() {
                break;
            }
            let replies = link.run(&script::change(link.keys(), &changes), changes.len()).await?;
            drop(changes);
            for ((index, answer), reply) in answers.into_iter().zip(replies) {
                match script::bytes(Some(reply)) {
                    None => edited[index] = Some(answer),
                    Some(instead) => {
                        found[index] = decode(jobs[index].app, &jobs[index].user, instead);
                        open.push(index);
                    }
                }
            }
            if open.is_empty() {
                break;
            }
            self.races.inc_by(open.len() as u64);
            if round > 0 {
                tokio::time::sleep(self.rng.jitter(Duration::from_millis(u64::from(round.min(10)) * 2))).await;
            }
        }
        Ok(edited)
    }

    /// The command that puts `record` in the place of what was read.
    fn swap<'a>(
        &self,
        app: SdkAppId,
        user: &'a UserId,
        stored: &'a Stored,
        record: &Record,
        now: UnixMillis,
    ) -> script::Change<'a> {
        let member = |connection: &str| script::member(app, user, connection);
        let live: Vec<_> = record.deadlines().map(|(connection, dead)| (member(connection), dead)).collect();
        let before = stored.record.deadlines().map(|(connection, _)| member(connection));
        let gone = before.filter(|before| live.iter().all(|(member, _)| member != before)).collect();
        let mut value = Vec::new();
        if !record.is_empty(now) {
            value.extend_from_slice(&self.rng.u64().to_be_bytes());
            debug_assert_eq!(value.len(), VERSION);
            record.encode(&mut value);
        }
        let life_ms = record.kept_until().since(now).max(1);
        script::Change { app, user, version: &stored.version, value, life_ms, live, gone }
    }

    /// Ends what is dead on one server.
    async fn expire_on(&self, server: usize, view: &View, expired: &mut Expired) -> Result<()> {
        let link = &self.links[server];
        if !self.callers_time && !link.may_expire() {
            return Ok(());
        }
        for _ in 0..TAKES {
            let now = self.view(link, view).now;
            let taken = link.run(&script::take(link.keys(), now, TAKE, now.plus_ms(LEASE_MS)), 1).await?;
            let taken = script::list(taken.into_iter().next()).unwrap_or_default();
            let members: Vec<String> =
                taken.into_iter().flatten().map(|member| String::from_utf8_lossy(&member).into_owned()).collect();
            self.end_taken(server, &members, view, expired).await?;
            if members.len() < TAKE {
                break;
            }
        }
        Ok(())
    }

    async fn end_taken(&self, server: usize, members: &[String], view: &View, expired: &mut Expired) -> Result<()> {
        let link = &self.links[server];
        let mut users: HashMap<(SdkAppId, UserId), Vec<&str>> = HashMap::new();
        let mut orphans = Vec::new();
        for member in members {
            match script::parse_member(member) {
                // Users who moved to another server with a change of the configuration live on there.
                Some((app, user, connection)) if self.server(app, &user) == server => {
                    users.entry((app, user)).or_default().push(connection);
                }
                _ => orphans.push(member.as_str()),
            }
        }
        let jobs: Vec<_> = users.into_iter().map(|((app, user), what)| Job { app, user, what }).collect();
        let act = |_: &Vec<&str>, record: &mut Record, view: &View| {
            let ended = record.expire(view);
            let left: Vec<String> = record.deadlines().map(|(connection, _)| connection.to_owned()).collect();
            (ended, left)
        };
        let edited = self.edit_all(link, &jobs, view, true, &act).await?;
        let mut lost = Vec::new();
        for (job, done) in jobs.iter().zip(edited) {
            let Some(((ended, left), change)) = done else { continue };
            let unknown = job.what.iter().filter(|connection| !left.iter().any(|known| known == *connection));
            lost.extend(unknown.map(|connection| script::member(job.app, &job.user, connection)));
            expired.sessions.extend(ended);
            expired.changes.extend(change);
        }
        orphans.extend(lost.iter().map(String::as_str));
        if !orphans.is_empty() {
            link.run(&script::forget(link.keys(), &orphans), 1).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Directory for Redis {
    async fn sign_in(&self, session: Session, policy: Policy, view: &View) -> Result<SignedIn> {
        let (app, user) = (session.app, session.user.clone());
        let act = |record: &mut Record, view: &View| record.sign_in(session.clone(), policy, view);
        let (outcome, change) = self.edit(app, &user, view, act).await?;
        Ok(SignedIn { change, ..outcome })
    }

    async fn refresh(&self, sessions: Vec<(Session, Policy)>, view: &View) -> Result<Refreshed> {
        let mut users: HashMap<(SdkAppId, UserId), Vec<(Session, Policy)>> = HashMap::new();
        for (session, policy) in sessions {
            users.entry((session.app, session.user.clone())).or_default().push((session, policy));
        }
        let mut by_server: HashMap<usize, Vec<Job<Vec<(Session, Policy)>>>> = HashMap::new();
        for ((app, user), what) in users {
            by_server.entry(self.server(app, &user)).or_default().push(Job { app, user, what });
        }
        let act = |sessions: &Vec<(Session, Policy)>, record: &mut Record, view: &View| {
            let verdict = |(session, policy): &(Session, Policy)| {
                (session.connection.clone(), record.refresh(session, *policy, view))
            };
            sessions.iter().map(verdict).collect::<Vec<_>>()
        };
        let (mut refreshed, mut failed) = (Refreshed::default(), None);
        for (server, jobs) in by_server {
            let edited = match self.edit_all(&self.links[server], &jobs, view, false, &act).await {
                Ok(edited) => edited,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            for (verdicts, change) in edited.into_iter().flatten() {
                verdicts.into_iter().for_each(|(connection, verdict)| refreshed.note(connection, verdict));
                refreshed.changes.extend(change);
            }
        }
        match failed {
            // What was done must be told; the rest is refreshed the next time.
            Some(error) if refreshed == Refreshed::default() => Err(error),
            _ => Ok(refreshed),
        }
    }

    async fn end(
        &self,
        app: SdkAppId,
        user: &UserId,
        connection: &str,
        how: End,
        view: &View,
    ) -> Result<Option<Ended>> {
        let act = |record: &mut Record, view: &View| record.end(connection, how, view);
        let (session, change) = self.edit(app, user, view, act).await?;
        Ok(session.map(|session| Ended { session, change }))
    }

    async fn kick(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<(Vec<Session>, Option<Change>)> {
        self.edit(app, user, view, Record::kick).await
    }

    async fn places(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Placed>> {
        self.look(app, users, view, Record::placed).await
    }

    async fn states(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Vec<(Platform, State)>>> {
        self.look(app, users, view, Record::states).await
    }

    async fn enter_room(
        &self,
        app: SdkAppId,
        user: &UserId,
        connection: &str,
        group: Option<GroupId>,
        view: &View,
    ) -> Result<Vec<RoomAt>> {
        let act = |record: &mut Record, _: &View| record.enter_room(connection, group.clone());
        Ok(self.edit(app, user, view, act).await?.0)
    }

    async fn list(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<Vec<Session>> {
        let listed = self.look(app, std::slice::from_ref(user), view, Record::list).await?;
        Ok(listed.into_iter().next().unwrap_or_default())
    }

    async fn total(&self) -> Result<u64> {
        let mut total = 0;
        for link in &self.links {
            let replies = link.run(&script::count(link.keys()), 1).await?;
            total += replies.first().and_then(script::number).unwrap_or(0);
        }
        Ok(total)
    }

    async fn expire(&self, view: &View) -> Result<Expired> {
        let mut expired = Expired::default();
        for server in 0..self.links.len() {
            // A server that is away holds up nobody's; what was ended must be told.
            if let Err(error) = self.expire_on(server, view, &mut expired).await {
                tracing::debug!(%error, "dead sessions of a server were not looked for");
            }
        }
        Ok(expired)
    }

    fn now(&self, view: &View) -> UnixMillis {
        match self.links.first() {
            Some(link) if link.was_reached() => self.view(link, view).now,
            _ => view.now,
        }
    }

    fn losses(&self) -> Option<watch::Receiver<String>> {
        Some(self.losses.clone())
    }
}

fn decode(app: SdkAppId, user: &UserId, value: Vec<u8>) -> Stored {
    if value.is_empty() {
        return Stored::default();
    }
    let (version, bytes) = value.split_at(VERSION.min(value.len()));
    let record = Record::decode(app, user, bytes).unwrap_or_else(|| {
        tracing::error!(app = app.0, "a directory record cannot be read; gateways bring its sessions back");
        Record::default()
    });
    Stored { version: version.to_vec(), record }
}

fn place(index: usize) -> NodeId {
    NodeId::trusted(index.to_string())
}

/// Ready once every server was reached.
async fn ready(links: Vec<Arc<Link>>, check: Check) {
    check.failing("waits for a directory server");
    for link in links {
        while !link.was_reached() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    check.ready();
}

fn client(config: &Config, url: &str) -> Result<Client, OpenError> {
    let wrong = |why: String| OpenError::Address { url: url.to_owned(), why };
    let info = url.into_connection_info().map_err(|error| wrong(error.to_string()))?;
    let mut settings = info.redis_settings().clone();
    if !config.user.is_empty() {
        settings = settings.set_username(&config.user);
    }
    if !config.password.is_empty() {
        settings = settings.set_password(config.password.expose());
    }
    let info: ConnectionInfo = info.set_redis_settings(settings);
    if !url.starts_with("rediss://") {
        return Client::open(info).map_err(|error| wrong(error.to_string()));
    }
    let root_cert = read(&config.tls_ca)?;
    let client_tls = match (read(&config.tls_cert)?, read(&config.tls_key)?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => None,
    };
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(|error| wrong(error.to_string()))
}

fn read(path: &str) -> Result<Option<Vec<u8>>, OpenError> {
    if path.is_empty() {
        return Ok(None);
    }
    let read = std::fs::read(Path::new(path));
    read.map(Some).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
