//! The site: nodes that start, stop and see each other as their own scripts say.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use linnet_admission::apps::Apps;
use linnet_bus::{Bus, FaultPlan, Faulty, Local};
use linnet_client::Stream;
use linnet_cluster::{Cluster, LocalNet, Members, NetFaults, Node, RouteKey, RpcConfig, Script, Service, Sim};
use linnet_gateway::Gateway;
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_runtime::config::Period;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_session::directory;
use linnet_store::sim::{Faults, SimRows};
use linnet_types::{NodeId, SdkAppId, UnixMillis};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::gate::{Gate, GatedBus, GatedRows, Guards};
use crate::struck::Struck;

pub(crate) const APP: u32 = 1_600_000_001;
pub(crate) const KEY: &str = "5e3a1c7b9d2f4068aac1d3e5f7091b2d5e3a1c7b9d2f4068aac1d3e5f7091b2d";
const SITE: &str = "here";
/// Members up to which a group is delivered by name: small, so that both ways are taken.
pub(crate) const SMALL: u32 = 5;
/// Loss on the bus, always.
pub(crate) const LOSS: u32 = 10;

const OWNER: [Service; 5] =
    [Service::Session, Service::Account, Service::Callback, Service::Group, Service::MessageStore];

/// What a node counts, kept after its death.
pub(crate) struct Books {
    pub(crate) name: String,
    pub(crate) metrics: Metrics,
    pub(crate) killed: bool,
}

/// A node that runs.
pub(crate) struct Living {
    pub(crate) id: NodeId,
    pub(crate) gate: Gate,
    pub(crate) faulty: Faulty,
    script: Script,
    tasks: Tasks,
    pub(crate) gateway: Option<Gateway>,
    /// Cuts the sockets of its clients.
    sockets: CancellationToken,
}

/// Gateways that accept connections now.
pub(crate) type Doors = Arc<Mutex<BTreeMap<String, (Gateway, CancellationToken, Tasks)>>>;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    pub(crate) rows: SimRows,
    pub(crate) guards: Guards,
    pub(crate) sim: Sim,
    pub(crate) owners: Vec<Living>,
    pub(crate) gateways: Vec<Living>,
    pub(crate) doors: Doors,
    pub(crate) books: Vec<Books>,
    pub(crate) struck: Struck,
    /// Owner of clients and other bystanders.
    pub(crate) tasks: Tasks,
    /// Looks on without faults of its own, and is in no ring.
    pub(crate) probe: Cluster,
    probe_script: Script,
    net: LocalNet,
    metrics: Metrics,
    bus: Bus,
    directory: Arc<directory::Memory>,
    truth: Vec<Node>,
    started: u64,
    faulty_counts: Vec<Faulty>,
}

impl World {
    pub(crate) async fn start(seed: u64) -> Self {
        let rng = Rng::seeded(seed);
        let clock = Clock::simulated(UnixMillis(1_760_000_000_000));
        let metrics = Metrics::new();
        let (net, sim) = LocalNet::simulated(RpcConfig::default(), &metrics, rng.fork("net"));
        let rows = SimRows::new(rng.fork("rows"), clock.clone(), Faults::none());
        let (members, probe_script) = Members::scripted([]);
        let probe = Cluster::new(NodeId::trusted("probe"), members, net.clone(), &metrics);
        let mut world = Self {
            seed,
            clock,
            rows,
            guards: Guards::default(),
            sim,
            owners: Vec::new(),
            gateways: Vec::new(),
            doors: Doors::default(),
            books: Vec::new(),
            struck: Struck::default(),
            tasks: Tasks::new(&metrics),
            probe,
            probe_script,
            net,
            bus: Local::new(&metrics).bus(),
            metrics,
            directory: Arc::default(),
            truth: Vec::new(),
            started: 0,
            faulty_counts: Vec::new(),
            rng,
        };
        for _ in 0..2 {
            world.start_owner().await;
            world.start_gateway().await;
        }
        world.agree();
        world.make_app().await;
        world
    }

    async fn make_app(&self) {
        let rpc = self.probe.for_owner(Service::Account, RouteKey::app(SdkAppId(APP))).expect("an owner");
        let mut accounts = AccountsClient::new(rpc);
        let app = account::CreateAppRequest { sdkappid: APP, key: KEY.into(), ..account::CreateAppRequest::default() };
        accounts.create_app(app).await.expect("the app is made");
        let settings = [("group.small", SMALL.to_string()), ("group.msg_rate", "0".to_owned())];
        let settings = settings.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        let change = account::UpdateAppRequest { sdkappid: APP, settings, ..account::UpdateAppRequest::default() };
        accounts.update_app(change).await.expect("the app is set");
    }

    /// Every node sees what is.
    pub(crate) fn agree(&self) {
        self.owners.iter().chain(&self.gateways).for_each(|node| node.script.set(self.truth.clone()));
        self.probe_script.set(self.truth.clone());
    }

    /// Every node sees what is, each after a while of its own.
    pub(crate) fn gossip(&self, within: Duration) {
        self.probe_script.set(self.truth.clone());
        for node in self.owners.iter().chain(&self.gateways) {
            let delay = Duration::from_millis(self.rng.below(within.as_millis() as u64));
            let (script, truth) = (node.script.clone(), self.truth.clone());
            self.tasks.spawn("sim.gossip", async move {
                tokio::time::sleep(delay).await;
                script.set(truth);
            });
        }
    }

    /// Each node learns after a while of its own that an owner is not heard of any more.
    pub(crate) fn leave(&self, owner: usize, within: Duration) {
        let gone = self.owners[owner].id.clone();
        for node in self.owners.iter().chain(&self.gateways).filter(|node| node.id != gone) {
            let delay = Duration::from_millis(self.rng.below(within.as_millis() as u64));
            let (script, gone) = (node.script.clone(), gone.clone());
            self.tasks.spawn("sim.gossip", async move {
                tokio::time::sleep(delay).await;
                script.leave(&gone);
            });
        }
    }

    /// Some nodes believe that one of the owners is gone.
    pub(crate) fn doubt(&mut self) {
        let gone = self.owners[self.rng.below(self.owners.len() as u64) as usize].id.clone();
        let mut doubting = 0;
        for node in self.owners.iter().chain(&self.gateways) {
            if self.rng.chance(50) {
                node.script.leave(&gone);
                doubting += 1;
            }
        }
        self.struck.count("rings that disagreed", doubting);
    }

    fn id(&mut self, kind: &str) -> NodeId {
        self.started += 1;
        NodeId::trusted(format!("{kind}{}", self.started))
    }

    /// A new node with a view, a bus and a store of its own; not in any ring yet.
    fn node(&mut self, id: &NodeId, services: &[Service]) -> (Living, Cluster, Metrics, Bus) {
        let metrics = Metrics::new();
        let tasks = Tasks::new(&metrics);
        self.truth.push(Node::new(id.clone(), services.iter().copied()));
        let (members, script) = Members::scripted(self.truth.clone());
        let cluster = Cluster::new(id.clone(), members, self.net.clone(), &metrics);
        let gate = Gate::new();
        let faulty = Faulty::new(self.bus.clone(), self.rng.fork(id.as_str()), self.tasks.clone());
        faulty.set(usual());
        self.faulty_counts.push(faulty.clone());
        let bus = Bus::new(GatedBus { bus: faulty.bus(), gate: gate.clone() });
        self.books.push(Books { name: id.to_string(), metrics: metrics.clone(), killed: false });
        let sockets = CancellationToken::new();
        (Living { id: id.clone(), gate, faulty, script, tasks, gateway: None, sockets }, cluster, metrics, bus)
    }

    pub(crate) async fn start_owner(&mut self) {
        let id = self.id("o");
        let (living, cluster, metrics, bus) = self.node(&id, &OWNER);
        let rows = GatedRows { store: self.rows.store(), gate: living.gate.clone(), guards: self.guards.clone() };
        let store: linnet_store::Store = Arc::new(rows);
        let (tasks, clock) = (living.tasks.clone(), self.clock.clone());
        let apps = Apps::new(cluster.clone(), bus.clone(), &tasks);
        let rng = self.rng.fork(&format!("services of {id}"));
        let account = linnet_account::start(linnet_account::Deps {
            cluster: cluster.clone(),
            bus: bus.clone(),
            store: store.clone(),
            clock: clock.clone(),
            rng: rng.fork("account"),
        });
        cluster.register_local(&id, Service::Account, account.routes);
        let callback = linnet_callback::start(
            &linnet_callback::Config::default(),
            linnet_callback::Deps {
                cluster: cluster.clone(),
                bus: bus.clone(),
                store: store.clone(),
                apps: apps.clone(),
                clock: clock.clone(),
                rng: rng.fork("callback"),
                tasks: tasks.clone(),
                metrics: metrics.clone(),
            },
        );
        cluster.register_local(&id, Service::Callback, callback.expect("starts").routes);
        let session = linnet_session::start(linnet_session::Deps {
            cluster: cluster.clone(),
            bus: bus.clone(),
            apps: apps.clone(),
            directory: self.directory.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
        });
        cluster.register_local(&id, Service::Session, session.routes);
        let group = linnet_group::start(
            linnet_group::Config { idle: Period::secs(4), ..linnet_group::Config::default() },
            linnet_group::Deps {
                node: id.clone(),
                site: SITE.into(),
                incarnation: self.started,
                cluster: cluster.clone(),
                bus: bus.clone(),
                store: store.clone(),
                apps: apps.clone(),
                clock: clock.clone(),
                rng: rng.fork("group"),
                tasks: tasks.clone(),
                metrics: metrics.clone(),
            },
        );
        cluster.register_local(&id, Service::Group, group.routes);
        let messages = linnet_message_store::start(
            linnet_message_store::Config { idle: Period::secs(3), ..linnet_message_store::Config::default() },
            linnet_message_store::Deps {
                node: id.clone(),
                incarnation: self.started,
                site: SITE.into(),
                cluster: cluster.clone(),
                bus,
                store,
                clock,
                rng: rng.fork("messages"),
                tasks,
                metrics,
                apps,
            },
        );
        cluster.register_local(&id, Service::MessageStore, messages.await.expect("starts").routes);
        self.owners.push(living);
    }

    pub(crate) async fn start_gateway(&mut self) {
        let id = self.id("g");
        let (mut living, cluster, metrics, bus) = self.node(&id, &[Service::Gateway]);
        let apps = Apps::new(cluster.clone(), bus.clone(), &living.tasks);
        let config = linnet_gateway::Config { shards: 2, ..linnet_gateway::Config::default() };
        let deps = linnet_gateway::Deps {
            node: id.clone(),
            incarnation: self.started,
            site: SITE.into(),
            cluster: cluster.clone(),
            bus,
            clock: self.clock.clone(),
            rng: self.rng.fork(&format!("services of {id}")),
            tasks: living.tasks.clone(),
            metrics,
            apps,
        };
        let running = linnet_gateway::start(config, deps).await.expect("starts");
        cluster.register_local(&id, Service::Gateway, running.routes.clone());
        living.gateway = Some(running.gateway.clone());
        let door = (running.gateway, living.sockets.clone(), living.tasks.clone());
        self.doors.lock().insert(id.to_string(), door);
        self.gateways.push(living);
    }

    /// As SIGKILL of an owner; another takes its place.
    pub(crate) async fn replace_owner(&mut self) {
        let dead = self.owners.remove(self.rng.below(self.owners.len() as u64) as usize);
        self.bury(dead).await;
        self.start_owner().await;
        self.gossip(Duration::from_secs(2));
    }

    /// As SIGKILL of a gateway; another takes its place.
    pub(crate) async fn replace_gateway(&mut self) {
        let dead = self.gateways.remove(self.rng.below(self.gateways.len() as u64) as usize);
        self.bury(dead).await;
        self.struck.count("gateways killed", 1);
        self.start_gateway().await;
        self.gossip(Duration::from_secs(2));
    }

    /// Nothing is finished; the others learn it a moment later.
    async fn bury(&mut self, dead: Living) {
        self.sim.kill(&dead.id);
        self.doors.lock().remove(dead.id.as_str());
        dead.sockets.cancel();
        dead.tasks.shutdown(Duration::ZERO).await;
        self.books.iter_mut().filter(|books| books.name == dead.id.as_str()).for_each(|books| books.killed = true);
        let moment = Duration::from_millis(300 + self.rng.below(2_500));
        tokio::time::sleep(moment).await;
        self.truth.retain(|node| node.id != dead.id);
        self.net.remove(&dead.id);
    }

    /// Cuts every socket of one gateway, which lives on.
    pub(crate) fn cut_sockets(&mut self) {
        let at = self.rng.below(self.gateways.len() as u64) as usize;
        let node = &mut self.gateways[at];
        node.sockets.cancel();
        node.sockets = CancellationToken::new();
        if let Some(door) = self.doors.lock().get_mut(node.id.as_str()) {
            door.1 = node.sockets.clone();
        }
        self.struck.count("sockets cut", 1);
    }

    /// Only the bus goes on losing; all nodes agree again.
    pub(crate) fn heal(&mut self) {
        self.sim.heal();
        self.rows.set_faults(Faults { latency: Duration::from_millis(2), ..Faults::none() });
        self.rows.set_down(false);
        for node in self.owners.iter().chain(&self.gateways) {
            node.gate.set(true);
            node.faulty.set(usual());
        }
        self.agree();
    }

    pub(crate) fn rough(&mut self) {
        let latency = Duration::from_millis(3);
        let faults = Faults { unavailable_per_mille: 10, unknown_per_mille: 20, lag_per_mille: 300, latency };
        self.rows.set_faults(faults);
        self.sim.set(NetFaults {
            lose_request_percent: 1,
            lose_reply_percent: 1,
            delay_percent: 10,
            max_delay: Duration::from_millis(150),
        });
    }

    /// Everything that struck.
    pub(crate) fn tally(&self) -> Struck {
        let mut struck = self.struck.clone();
        let net = self.sim.counts();
        struck.count("owners or gateways killed", net.kills);
        struck.count("owners paused", net.pauses);
        struck.count("requests lost", net.requests_lost);
        struck.count("replies lost", net.replies_lost);
        struck.count("calls delayed", net.delayed);
        struck.count("calls broken by a death", net.broken);
        struck.count("calls held by a pause", net.blocked);
        for bus in &self.faulty_counts {
            let counts = bus.counts();
            struck.count("bus messages dropped", counts.dropped);
            struck.count("bus messages delayed", counts.delayed);
            struck.count("bus messages reordered", counts.reordered);
            struck.count("nodes cut from the bus", counts.outages);
        }
        let finished: f64 = self.books.iter().map(|books| books.metrics.sum("linnet_group_tips_finished_total")).sum();
        struck.count("tips stored for a dead owner", finished as u64);
        let rows = self.rows.counts();
        struck.count("store: not done", rows.unavailable);
        struck.count("store: unknown, applied", rows.unknown_applied);
        struck.count("store: unknown, lost", rows.unknown_lost);
        struck.count("store: landed late", rows.late_landed + rows.late_landed_after_read);
        struck.count("store: late and refused", rows.late_refused);
        struck.count("store: finished by another", rows.minority_finished);
        struck.count("store: partial writes", rows.partial_write);
        struck.count("store: stale replica read", rows.stale_replica_read);
        struck
    }

    pub(crate) async fn end(self) {
        self.tasks.shutdown(Duration::ZERO).await;
        for node in self.owners.into_iter().chain(self.gateways) {
            node.tasks.shutdown(Duration::ZERO).await;
        }
        drop(self.metrics);
    }
}

/// The bus on any day of these.
fn usual() -> FaultPlan {
    FaultPlan { drop_percent: LOSS, delay_percent: 5, reorder_percent: 5, max_delay: Duration::from_millis(120) }
}

/// A connection that can be cut: the socket of a client.
struct Line {
    io: DuplexStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Line {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A socket to one of the gateways, served as an HTTP server would.
pub(crate) fn dial(doors: &Doors, choice: u64) -> io::Result<Box<dyn Stream>> {
    let doors = doors.lock();
    let Some((gateway, cut, tasks)) = doors.values().nth((choice % doors.len().max(1) as u64) as usize) else {
        return Err(io::ErrorKind::ConnectionRefused.into());
    };
    let (near, far) = tokio::io::duplex(64 << 10);
    let gateway = gateway.clone();
    tasks.spawn("sim.http", async move {
        let answer = service_fn(move |request: hyper::Request<Incoming>| {
            let answer = gateway.upgrade(request, "10.0.0.1");
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(far), answer).with_upgrades().await;
    });
    let cut = Box::pin(cut.clone().cancelled_owned());
    Ok(Box::new(Line { io: near, cut }))
}
