//! The simulated cluster and the truth it is held against.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linnet_bus::{Bus, FaultCounts, FaultPlan, Faulty, Local, subject};
use linnet_cluster::{Cluster, LocalNet, Members, NetFaults, Node, RouteKey, RpcConfig, Script, Service, Sim};
use linnet_delivery::{Audience, Stream};
use linnet_proto::session::sessions_server::{Sessions, SessionsServer};
use linnet_proto::session::{self, Places, PlacesChanged, UserPlaces, WhereReply, WhereRequest};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{GroupId, NodeId, SdkAppId, UnixMillis, UserId};
use parking_lot::Mutex;
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::gateway::Gateway;
use crate::owner::Owner;

pub(crate) const APP: SdkAppId = SdkAppId(1);
pub(crate) const OWNERS: usize = 2;
pub(crate) const GATEWAYS: usize = 2;

/// What happens to conversation `TRACE`, on the way to finding out why a seed fails.
pub(crate) fn note(conv: u64, what: impl FnOnce() -> String) {
    if std::env::var("TRACE").is_ok_and(|wanted| wanted == conv.to_string()) {
        eprintln!("{}", what());
    }
}

pub(crate) struct Sizes {
    pub(crate) small: u64,
    pub(crate) large: u64,
    pub(crate) users: u64,
}

/// What is true: the logs, who was a member when, where users are.
pub(crate) struct Truth {
    pub(crate) convs: BTreeMap<u64, Conv>,
    pub(crate) places: BTreeMap<String, (NodeId, u64)>,
    pub(crate) clients: BTreeMap<String, Client>,
    pub(crate) violations: Vec<String>,
    pub(crate) kicks: u64,
    pub(crate) moves: u64,
    pub(crate) late: u64,
}

pub(crate) struct Conv {
    pub(crate) large: bool,
    /// Outgrew delivery by name a moment ago: batches go both ways.
    pub(crate) crossing: bool,
    pub(crate) epoch: u64,
    /// Last stored position.
    pub(crate) head: u64,
    /// A user sees positions in `(from, to]`.
    pub(crate) spans: BTreeMap<String, Vec<(u64, Option<u64>)>>,
    /// Stored by an owner that was deposed before it published.
    pub(crate) unpublished: Option<(Arc<Stream>, u64, Vec<UserId>)>,
}

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) got: HashMap<u64, BTreeSet<u64>>,
    /// Position of the newest kick it was told of.
    pub(crate) kicked_at: HashMap<u64, u64>,
    pub(crate) live: u64,
    pub(crate) fetched: u64,
    live_seqs: HashSet<(u64, u64)>,
    /// Messages that came live more than once.
    doubles: u64,
}

impl Conv {
    pub(crate) fn group(id: u64) -> GroupId {
        GroupId::trusted(format!("g{id}"))
    }

    pub(crate) fn sees(&self, user: &str, seq: u64) -> bool {
        let spans = self.spans.get(user).into_iter().flatten();
        spans.into_iter().any(|(from, to)| *from < seq && to.is_none_or(|to| seq <= to))
    }

    pub(crate) fn is_member(&self, user: &str) -> bool {
        self.spans.get(user).and_then(|spans| spans.last()).is_some_and(|span| span.1.is_none())
    }

    pub(crate) fn audience(&self, users: Vec<UserId>) -> Audience {
        match (self.crossing, self.large) {
            (true, _) => Audience::Both(users.into()),
            (false, true) => Audience::Registered,
            (false, false) => Audience::users(users),
        }
    }

    pub(crate) fn members(&self) -> Vec<UserId> {
        self.spans.keys().filter(|user| self.is_member(user)).map(|user| UserId::trusted(user.as_str())).collect()
    }
}

impl Truth {
    /// A message reached a user's device.
    pub(crate) fn live(&mut self, user: &str, conv: u64, seq: u64) {
        note(conv, || format!("{user} receives {seq}"));
        let sees = self.convs[&conv].sees(user, seq);
        let client = self.clients.entry(user.to_owned()).or_default();
        if !sees {
            self.violations.push(format!("{user} received {seq} of {conv}, which is not for him"));
        }
        if client.kicked_at.get(&conv).is_some_and(|kick| seq <= *kick) {
            self.violations.push(format!("{user} received {seq} of {conv} after he was told of his kick"));
        }
        let first = client.live_seqs.insert((conv, seq));
        client.doubles += u64::from(!first);
        client.live += u64::from(client.got.entry(conv).or_default().insert(seq));
    }

    /// A device reads the log up to `head`.
    pub(crate) fn fetch(&mut self, user: &str, conv: u64, head: u64) {
        let truth = &self.convs[&conv];
        let client = self.clients.entry(user.to_owned()).or_default();
        note(conv, || format!("{user} reads up to {head}"));
        let got = client.got.entry(conv).or_default();
        for seq in (1..=head.min(truth.head)).filter(|seq| truth.sees(user, *seq)) {
            client.fetched += u64::from(got.insert(seq));
        }
    }

    /// A device hears how far a conversation is, and closes its gaps.
    pub(crate) fn heard(&mut self, user: &str, conv: u64, head: u64) {
        self.fetch(user, conv, head);
    }

    pub(crate) fn is_at(&self, user: &str, gateway: &NodeId) -> bool {
        self.places.get(user).is_some_and(|(place, _)| place == gateway)
    }
}

pub(crate) struct World {
    pub(crate) truth: Arc<Mutex<Truth>>,
    rng: Rng,
    bus: Bus,
    faulty: Faulty,
    sim: Sim,
    script: Script,
    tasks: Tasks,
    cluster: Cluster,
    owners: Vec<Arc<Owner>>,
    gateways: Vec<Arc<Gateway>>,
    take_overs: AtomicU64,
}

fn name(kind: &str, n: usize) -> NodeId {
    NodeId::trusted(format!("{kind}-{n}"))
}

fn nodes(owners: &[usize]) -> Vec<Node> {
    let mut nodes = vec![Node::new(NodeId::trusted("session-0"), [Service::Session])];
    nodes.extend((0..GATEWAYS).map(|n| Node::new(name("gateway", n), [Service::Gateway])));
    nodes.extend(owners.iter().map(|n| Node::new(name("group", *n), [Service::Group])));
    // Deposed, not dead: it lives and can be asked, and owns nothing.
    let deposed = (0..OWNERS).filter(|n| !owners.contains(n));
    nodes.extend(deposed.map(|n| Node::new(name("group", n), [Service::Push])));
    nodes
}

impl World {
    pub(crate) async fn start(rng: &Rng, sizes: Sizes) -> Self {
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        let local = Local::new(&metrics);
        let faulty = Faulty::new(local.bus(), rng.fork("bus"), tasks.clone());
        let (net, sim) = LocalNet::simulated(RpcConfig::default(), &metrics, rng.fork("net"));
        let (members, script) = Members::scripted(nodes(&[0, 1]));
        let clock = Clock::simulated(UnixMillis(1_700_000_000_000));
        let cluster = |node: NodeId| Cluster::new(node, members.clone(), net.clone(), &Metrics::new());
        let truth = Arc::new(Mutex::new(truth(rng, &sizes)));
        let sessions = SessionsServer::new(FakeSessions { truth: Arc::clone(&truth) });
        net.register(NodeId::trusted("session-0"), Service::Session, tonic::service::Routes::new(sessions));
        let mut owners = Vec::new();
        for n in 0..OWNERS {
            let node = name("group", n);
            let owner = Owner::start(
                node.clone(),
                cluster(node.clone()),
                faulty.bus(),
                (clock.clone(), rng.fork(node.as_str()), tasks.clone()),
                Arc::clone(&truth),
            );
            net.register(node, Service::Group, owner.routes());
            owners.push(owner);
        }
        let mut gateways = Vec::new();
        for n in 0..GATEWAYS {
            let node = name("gateway", n);
            let parts = (clock.clone(), rng.fork(node.as_str()), tasks.clone());
            gateways.push(Gateway::start(node.clone(), cluster(node), faulty.bus(), parts, Arc::clone(&truth)).await);
        }
        let world = Self {
            truth,
            rng: rng.fork("world"),
            bus: faulty.bus(),
            faulty,
            sim,
            script,
            tasks,
            cluster: cluster(NodeId::trusted("session-0")),
            owners,
            gateways,
            take_overs: AtomicU64::new(0),
        };
        let users: Vec<_> = world.truth.lock().places.keys().cloned().collect();
        for user in users {
            world.sign_in(&user);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        world
    }

    pub(crate) fn convs(&self) -> impl Iterator<Item = u64> + use<> {
        self.truth.lock().convs.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn faults(&self, bus: FaultPlan, net: NetFaults) {
        self.faulty.set(bus);
        self.sim.set(net);
    }

    pub(crate) fn heal(&self) {
        self.faulty.heal();
        self.sim.heal();
    }

    fn owner(&self, conv: u64) -> &Arc<Owner> {
        let key = RouteKey::group(APP, &Conv::group(conv));
        let node = self.cluster.owner_node(Service::Group, key).unwrap();
        self.owners.iter().find(|owner| owner.node == node).unwrap()
    }

    pub(crate) fn send(&self, conv: u64) {
        self.owner(conv).send(conv);
    }

    /// Stores a message whose owner is deposed before it publishes.
    pub(crate) fn store_unpublished(&self, conv: u64) {
        self.owner(conv).store_unpublished(conv);
    }

    /// The new owner of what is stored and unpublished takes over.
    pub(crate) fn touch_unpublished(&self) {
        self.convs().for_each(|conv| self.owner(conv).activate(conv));
    }

    /// Deposed owners send what they had stored.
    pub(crate) fn publish_late(&self) {
        self.convs().for_each(|conv| self.owner(conv).publish_late(conv));
    }

    pub(crate) fn kick(&self, conv: u64) {
        let members = self.truth.lock().convs[&conv].members();
        if members.len() > 1 {
            self.owner(conv).kick(conv, &members[self.rng.below(members.len() as u64) as usize]);
        }
    }

    pub(crate) fn join(&self, conv: u64) {
        let outside = {
            let truth = self.truth.lock();
            let absent = truth.places.keys().filter(|user| !truth.convs[&conv].is_member(user));
            absent.cloned().collect::<Vec<_>>()
        };
        if !outside.is_empty() {
            self.owner(conv).join(conv, &outside[self.rng.below(outside.len() as u64) as usize]);
        }
    }

    /// One of the owners loses everything to the other, or they share again.
    pub(crate) fn change_owners(&self, rng: &Rng) {
        let live: &[usize] = match rng.below(3) {
            0 => &[0],
            1 => &[1],
            _ => &[0, 1],
        };
        self.script.set(nodes(live));
        self.take_overs.fetch_add(1, Ordering::Relaxed);
    }

    /// A user signs in on another gateway; the hint goes over the lossy bus, and is repeated.
    pub(crate) fn move_user(&self, rng: &Rng) {
        let user = {
            let mut truth = self.truth.lock();
            truth.moves += 1;
            let users: Vec<_> = truth.places.keys().cloned().collect();
            let user = users[rng.below(users.len() as u64) as usize].clone();
            let place = truth.places.get_mut(&user).unwrap();
            let other = self.gateways.iter().find(|gateway| gateway.node != place.0).unwrap();
            *place = (other.node.clone(), place.1 + 1);
            truth.convs.keys().for_each(|conv| note(*conv, || format!("{user} is at {}", other.node)));
            user
        };
        self.gateways.iter().for_each(|gateway| gateway.forget(&user));
        self.hint(&user);
        self.sign_in(&user);
    }

    fn sign_in(&self, user: &str) {
        let place = self.truth.lock().places[user].0.clone();
        self.gateways.iter().find(|gateway| gateway.node == place).unwrap().sign_in(user);
    }

    fn hint(&self, user: &str) {
        let (place, rev) = self.truth.lock().places[user].clone();
        let places = Some(Places { gateways: vec![place.as_str().to_owned()], rev });
        let hint = PlacesChanged { users: vec![UserPlaces { app: APP.0, user: user.to_owned(), places }] };
        let (bus, payload) = (self.bus.clone(), bytes::Bytes::from(hint.encode_to_vec()));
        self.tasks.spawn("hint", async move {
            for wait in [0, 250, 750] {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                let _ = bus.publish(subject::places(), payload.clone()).await;
            }
        });
    }

    /// A small conversation outgrows delivery by name.
    pub(crate) fn grow(&self, conv: u64) {
        let mut truth = self.truth.lock();
        let conv = truth.convs.get_mut(&conv).unwrap();
        if !conv.large {
            (conv.large, conv.crossing) = (true, true);
        }
    }

    /// Thirty seconds later: only gateways that registered are served.
    pub(crate) fn crossed(&self) {
        self.truth.lock().convs.values_mut().for_each(|conv| conv.crossing = false);
    }

    /// The whole bus goes away, and comes back.
    pub(crate) fn bus_down(&self) {
        self.faulty.down();
    }

    pub(crate) fn bus_up(&self) {
        self.faulty.up();
    }

    /// Messages that came live twice to one user.
    pub(crate) fn doubles(&self) -> u64 {
        self.truth.lock().clients.values().map(|client| client.doubles).sum()
    }

    /// Messages that came live, and that were read from the log.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let truth = self.truth.lock();
        truth.clients.values().fold((0, 0), |(live, fetched), one| (live + one.live, fetched + one.fetched))
    }

    /// Everybody has all that he may still read, and nothing that was never for him. What was on its way to a member when
    /// he was kicked may have been lost with the owner: he cannot read it any more.
    pub(crate) fn check(&self, seed: u64, what: &str) {
        let truth = self.truth.lock();
        assert!(truth.violations.is_empty(), "{what}, seed {seed}: {:#?}", truth.violations);
        for (id, conv) in &truth.convs {
            for user in truth.places.keys() {
                let joined = conv.spans.get(user).and_then(|spans| spans.last()).filter(|span| span.1.is_none());
                let wanted: BTreeSet<_> = joined.map_or(0..0, |span| span.0 + 1..conv.head + 1).collect();
                let got = truth.clients.get(user).and_then(|client| client.got.get(id)).cloned().unwrap_or_default();
                let kind = if conv.large { "large" } else { "small" };
                let lacks: Vec<_> = wanted.difference(&got).collect();
                assert!(lacks.is_empty(), "{what}, seed {seed}: {user} in {kind} conversation {id} lacks {lacks:?}");
            }
        }
    }

    /// sent = received + reported missing, for each gateway, once senders are quiet. Answers the batches no gateway can
    /// account for: sent to one whose registration arrived, and its answer did not before the owner changed.
    pub(crate) fn check_link_law(&self, seed: u64) -> u64 {
        let mut unheard = 0;
        for gateway in &self.gateways {
            let mut sent = (0, 0);
            for owner in &self.owners {
                for link in owner.publisher.links().iter().filter(|link| link.peer == gateway.node) {
                    sent = (sent.0 + link.batches, sent.1 + link.frames);
                }
            }
            let got = gateway.receiver.count();
            let taken = (got.batches + got.missing_batches, got.frames + got.missing_frames);
            assert_eq!(taken.1, sent.1, "seed {seed}: frames to {}: {got:?}", gateway.node);
            assert!(taken.0 <= sent.0, "seed {seed}: batches to {}: {got:?} of {}", gateway.node, sent.0);
            unheard += sent.0 - taken.0;
        }
        unheard
    }
}

fn truth(rng: &Rng, sizes: &Sizes) -> Truth {
    let users: Vec<String> = (0..sizes.users).map(|n| format!("u{n}")).collect();
    let conv = |large| {
        let members = users.iter().filter(|_| rng.chance(75)).map(|user| (user.clone(), vec![(0, None)]));
        Conv { large, crossing: false, epoch: 0, head: 0, spans: members.collect(), unpublished: None }
    };
    let convs = (0..sizes.small + sizes.large).map(|n| (n + 1, conv(n >= sizes.small))).collect();
    let place = |user: &String| (user.clone(), (name("gateway", rng.below(GATEWAYS as u64) as usize), 1));
    let places = users.iter().map(place).collect();
    let (clients, violations) = (BTreeMap::new(), Vec::new());
    Truth { convs, places, clients, violations, kicks: 0, moves: 0, late: 0 }
}

/// How often each fault struck.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    bus: FaultCounts,
    requests_lost: u64,
    replies_lost: u64,
    calls_delayed: u64,
    pub(crate) take_overs: u64,
    pub(crate) kicks: u64,
    pub(crate) moves: u64,
    pub(crate) late: u64,
}

impl Struck {
    pub(crate) fn add(&mut self, world: &World) {
        let bus = world.faulty.counts();
        self.bus.seen += bus.seen;
        self.bus.dropped += bus.dropped;
        self.bus.delayed += bus.delayed;
        self.bus.reordered += bus.reordered;
        let net = world.sim.counts();
        self.requests_lost += net.requests_lost;
        self.replies_lost += net.replies_lost;
        self.calls_delayed += net.delayed;
        self.take_overs += world.take_overs.load(Ordering::Relaxed);
        let truth = world.truth.lock();
        self.kicks += truth.kicks;
        self.moves += truth.moves;
        self.late += truth.late;
    }

    /// Each kind of fault struck.
    pub(crate) fn check(&self) {
        println!("{self:?}");
        let bus = self.bus;
        assert!(bus.dropped > 0 && bus.delayed > 0 && bus.reordered > 0, "{self:?}");
        assert!(self.requests_lost > 0 && self.replies_lost > 0 && self.calls_delayed > 0, "{self:?}");
    }
}

struct FakeSessions {
    truth: Arc<Mutex<Truth>>,
}

macro_rules! fake_sessions {
    ($($name:ident, $request:ident, $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Sessions for FakeSessions {
            async fn r#where(&self, request: Request<WhereRequest>) -> Result<Response<WhereReply>, Status> {
                let truth = self.truth.lock();
                let place = |user: &String| match truth.places.get(user) {
                    Some((gateway, rev)) => Places { gateways: vec![gateway.as_str().to_owned()], rev: *rev },
                    None => Places::default(),
                };
                Ok(Response::new(WhereReply { places: request.get_ref().users.iter().map(place).collect() }))
            }

            $(async fn $name(&self, _: Request<session::$request>) -> Result<Response<session::$reply>, Status> {
                Err(Status::unimplemented("not simulated"))
            })*
        }
    };
}

fake_sessions! {
    sign_in, SignInRequest, SignInReply;
    sign_out, SignOutRequest, SignOutReply;
    refresh, RefreshRequest, RefreshReply;
    kick, KickRequest, KickReply;
    status, StatusRequest, StatusReply;
    enter_room, EnterRoomRequest, EnterRoomReply;
    list, ListRequest, ListReply;
}
