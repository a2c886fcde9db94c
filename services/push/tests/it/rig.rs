//! The service over a simulated store, with scripted neighbours and a provider that does as told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use linnet_admission::apps::{App, Apps};
use linnet_bus::Local;
use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_outbound::Reason;
use linnet_proto::msg::{Message, MessageKind};
use linnet_proto::push::pushes_client::PushesClient;
use linnet_proto::push::{AdvancedRequest, Batch, Device, SetDeviceRequest, Stored};
use linnet_proto::{account, group, session};
use linnet_push::{Deps, Fault, Provider, Running, Taken, start_with};
use linnet_runtime::status::to_status;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_store::Store;
use linnet_store::sim::{Faults, SimRows};
use linnet_types::{AppSettings, NodeId, Refusal, SdkAppId, UnixMillis, code};
use parking_lot::Mutex;
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic_prost::ProstCodec;

pub(crate) const APP: SdkAppId = SdkAppId(1_600_000_001);
pub(crate) const START: UnixMillis = UnixMillis(1_700_000_000_000);
pub(crate) const GROUP: &str = "g";
pub(crate) const PAIR_CONV: u64 = 7;
pub(crate) const GROUP_CONV: u64 = 9;

/// What the neighbours know.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) online: HashSet<String>,
    /// Members and their options.
    pub(crate) members: Vec<(String, &'static str)>,
    /// The session service does not answer.
    pub(crate) sessions_away: bool,
    /// Presence reads so far.
    pub(crate) reads: usize,
}

/// A provider that writes down what it is handed, and answers as told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) taken: Mutex<Vec<Batch>>,
    pub(crate) tries: Mutex<Vec<(String, UnixMillis)>>,
    pub(crate) fault: Mutex<Option<Reason>>,
    pub(crate) invalid: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Provider for Recorder {
    async fn send(&self, _: &App, batch: &Batch, now: UnixMillis) -> Result<Taken, Fault> {
        self.tries.lock().push((batch.request_id.clone(), now));
        if let Some(reason) = *self.fault.lock() {
            return Err(reason.into());
        }
        self.taken.lock().push(batch.clone());
        Ok(Taken { invalid_tokens: self.invalid.lock().clone() })
    }
}

pub(crate) struct Rig {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) provider: Arc<Recorder>,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    apps: Apps,
    cluster: Cluster,
    running: Option<Running>,
    tasks: Tasks,
}

#[derive(Clone)]
struct Script<F>(F);

impl<Q, R, F: Fn(Q) -> Result<R, Refusal>> UnaryService<Q> for Script<F> {
    type Response = R;
    type Future = std::future::Ready<Result<tonic::Response<R>, tonic::Status>>;
    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        std::future::ready(answer.map(tonic::Response::new).map_err(|why| to_status(&why)))
    }
}

async fn answer<Q, R>(
    request: Request,
    script: impl Fn(Q) -> Result<R, Refusal> + Clone,
) -> axum::http::Response<axum::body::Body>
where
    Q: prost::Message + Default + Send + 'static,
    R: prost::Message + Default + Send + 'static,
{
    let reply = Grpc::new(ProstCodec::<R, Q>::default()).unary(Script(script), request).await;
    reply.map(axum::body::Body::new)
}

fn neighbours(world: Arc<Mutex<World>>) -> Routes {
    let serve = move |request: Request| {
        let world = Arc::clone(&world);
        async move {
            let path = request.uri().path().to_owned();
            match path.rsplit_once('.').map(|(_, method)| method) {
                Some("Sessions/Status") => answer(request, |ask| status(&world, ask)).await,
                Some("Groups/Info") => answer(request, |ask| Ok(info(&world, &ask))).await,
                Some("Groups/Members") => answer(request, |ask| Ok(members(&world, &ask))).await,
                Some("Accounts/Lookup") => answer(request, |ask| Ok(lookup(ask))).await,
                _ => panic!("a test did not expect {path}"),
            }
        }
    };
    axum::Router::new().fallback(serve).into()
}

fn status(world: &Mutex<World>, ask: session::StatusRequest) -> Result<session::StatusReply, Refusal> {
    let mut world = world.lock();
    if world.sessions_away {
        return Err(Refusal::retry(code::BUSY, "away", 100));
    }
    world.reads += 1;
    assert!(ask.users.len() <= 500, "one page at most");
    let one = |user: String| {
        let online = world.online.contains(&user);
        let state = if online { "Online" } else { "Offline" }.to_owned();
        let platforms = vec![session::PlatformStatus { platform: "Web".into(), status: state.clone() }];
        session::UserStatus { user, status: state, platforms }
    };
    Ok(session::StatusReply { users: ask.users.into_iter().map(one).collect() })
}

fn info(world: &Mutex<World>, ask: &group::InfoRequest) -> group::InfoReply {
    let member_num = u32::try_from(world.lock().members.len()).unwrap_or(u32::MAX);
    let group =
        group::Group { name: "Hikers".into(), group_id: ask.group_id.clone(), member_num, ..Default::default() };
    group::InfoReply { group: Some(group), self_: None }
}

fn members(world: &Mutex<World>, ask: &group::MembersRequest) -> group::MembersReply {
    let world = world.lock();
    let shown = |(user, flag): &(String, &str)| group::Member {
        user: user.clone(),
        msg_flag: (*flag).to_owned(),
        ..group::Member::default()
    };
    if !ask.only.is_empty() {
        let named = world.members.iter().filter(|(user, _)| ask.only.contains(user));
        return group::MembersReply { members: named.map(shown).collect(), ..group::MembersReply::default() };
    }
    let from: usize = ask.cursor.parse().unwrap_or(0);
    let page: Vec<_> = world.members.iter().skip(from).take(ask.limit as usize).map(shown).collect();
    let next = from + page.len();
    let cursor = if next < world.members.len() { next.to_string() } else { String::new() };
    group::MembersReply { members: page, cursor, ..group::MembersReply::default() }
}

fn lookup(ask: account::LookupRequest) -> account::LookupReply {
    let nick = |user: &str| account::ProfileItem {
        tag: "Tag_Profile_IM_Nick".into(),
        value: Some(account::profile_item::Value::Text(format!("{user}'s nick"))),
    };
    let one = |user: String| account::Account { profile: vec![nick(&user)], user, exists: true, ..Default::default() };
    account::LookupReply { accounts: ask.users.into_iter().map(one).collect() }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(AppSettings::default())
    }

    pub(crate) fn with(settings: AppSettings) -> Self {
        let (metrics, clock) = (Metrics::new(), Clock::simulated(START));
        let settings = AppSettings { push_url: "http://provider.example/".into(), ..settings };
        let app = App { id: APP, key: String::new(), previous: None, admins: Vec::new(), settings, enabled: true };
        let node = NodeId::trusted("n1");
        let cluster = Cluster::alone(node.clone(), RpcConfig::default(), &metrics);
        let world = Arc::new(Mutex::new(World::default()));
        for service in [Service::Session, Service::Group, Service::Account] {
            cluster.register_local(&node, service, neighbours(Arc::clone(&world)));
        }
        let mut rig = Self {
            world,
            provider: Arc::new(Recorder::default()),
            store: SimRows::new(Rng::seeded(1), clock.clone(), Faults::none()).store(),
            tasks: Tasks::new(&metrics),
            apps: Apps::fixed([app]),
            clock,
            metrics,
            cluster,
            running: None,
        };
        rig.start();
        rig
    }

    /// Starts the service on what the store holds.
    pub(crate) fn start(&mut self) {
        let deps = Deps {
            cluster: self.cluster.clone(),
            bus: Local::new(&self.metrics).bus(),
            store: self.store.clone(),
            apps: self.apps.clone(),
            clock: self.clock.clone(),
            rng: Rng::seeded(3),
            tasks: self.tasks.clone(),
            metrics: self.metrics.clone(),
        };
        let running = start_with(Arc::clone(&self.provider) as Arc<dyn Provider>, deps);
        self.cluster.register_local(&NodeId::trusted("n1"), Service::Push, running.routes.clone());
        self.running = Some(running);
    }

    /// Ends every task where it stands.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::ZERO).await;
        }
    }

    pub(crate) fn client(&self) -> PushesClient<linnet_cluster::Rpc> {
        PushesClient::new(self.cluster.any(Service::Push).expect("it runs"))
    }

    /// Registers a phone for each user; its token is `t-<user>`.
    pub(crate) async fn devices(&self, users: &[&str]) {
        for user in users {
            let device = Device {
                instance: format!("phone-{user}"),
                platform: "Android".into(),
                vendor: "fcm".into(),
                token: format!("t-{user}"),
                ..Device::default()
            };
            let request =
                SetDeviceRequest { app: APP.0, user: (*user).to_owned(), device: Some(device), badge: Some(0) };
            self.client().set_device(request).await.expect("a device");
        }
    }

    pub(crate) async fn tell_pair(&self, from: &str, to: &str, seq: u64) -> u32 {
        self.tell_pair_as(from, to, seq, |_| ()).await
    }

    pub(crate) async fn tell_pair_as(&self, from: &str, to: &str, seq: u64, change: impl FnOnce(&mut Message)) -> u32 {
        let stored = Stored { message: Some(self.message(from, seq, change)), to: to.to_owned(), ..Stored::default() };
        let request = AdvancedRequest { app: APP.0, conv: PAIR_CONV, group_id: String::new(), messages: vec![stored] };
        self.client().advanced(request).await.expect("it is taken").into_inner().planned
    }

    pub(crate) async fn tell_group(&self, from: &str, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            self.tell_group_as(from, seq, |_| ()).await;
        }
    }

    pub(crate) async fn tell_group_as(&self, from: &str, seq: u64, change: impl FnOnce(&mut Message)) {
        let message = self.message(from, seq, change);
        let stored = Stored { message: Some(message), group_type: "Public".into(), ..Stored::default() };
        let request =
            AdvancedRequest { app: APP.0, conv: GROUP_CONV, group_id: GROUP.to_owned(), messages: vec![stored] };
        self.client().advanced(request).await.expect("it is taken");
    }

    fn message(&self, from: &str, seq: u64, change: impl FnOnce(&mut Message)) -> Message {
        let body = format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"m{seq}"}}}}]"#);
        let mut message = Message {
            seq,
            from: from.to_owned(),
            time_ms: self.clock.now().0,
            body: body.into(),
            origin_platform: "Web".into(),
            ..Message::default()
        };
        message.set_kind(MessageKind::Chat);
        change(&mut message);
        message
    }

    /// Waits until the provider took `count` batches.
    pub(crate) async fn taken(&self, count: usize) -> Vec<Batch> {
        for _ in 0..2_000 {
            let taken = self.provider.taken.lock().clone();
            if taken.len() >= count {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} of {count} batches: {:?}", self.provider.taken.lock().len(), self.metrics.encode());
    }

    /// Waits, then shows who was told how many messages with what text.
    pub(crate) async fn told_after(&self, wait: Duration) -> HashMap<String, Vec<(u32, String)>> {
        tokio::time::sleep(wait).await;
        let mut told: HashMap<String, Vec<(u32, String)>> = HashMap::new();
        for notification in self.provider.taken.lock().iter().flat_map(|batch| &batch.notifications) {
            for receiver in &notification.receivers {
                told.entry(receiver.user.clone()).or_default().push((notification.count, notification.text.clone()));
            }
        }
        told
    }
}
