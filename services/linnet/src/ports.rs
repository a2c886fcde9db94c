//! The adapters a configuration names, opened: store, bus, directory, and the way to other nodes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use linnet_bus::{Bus, Local, Nats};
use linnet_cluster::{Cluster, HeartbeatDeps, Heartbeats, LocalNet, Node, RemoteDeps, RemoteNet, Service};
use linnet_runtime::health::Check;
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks};
use linnet_session::directory::{self, Directory};
use linnet_store::{Cql, Embedded, Store};
use linnet_types::NodeId;

use crate::config::Config;
use crate::output::Failure;
use crate::roles::Roles;

/// Name of the node of a site that is one process.
const ALONE: &str = "linnet-1";
/// The store is asked this often whether it works.
const LOOK: Duration = Duration::from_secs(5);
/// The runtime is asked for a sign of progress this often, and is stuck after this long without one.
const TURN: Duration = Duration::from_millis(250);
const STUCK: Duration = Duration::from_secs(3);

/// What adapters are made with.
pub(crate) struct Kit<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) rng: &'a Rng,
    pub(crate) metrics: &'a Metrics,
    pub(crate) health: &'a Health,
    pub(crate) tasks: &'a Tasks,
}

/// The ports of one node.
pub(crate) struct Ports {
    pub(crate) node: NodeId,
    /// Which life of that node this is.
    pub(crate) incarnation: u64,
    /// `None` when no role of this process keeps anything.
    pub(crate) store: Option<Store>,
    pub(crate) bus: Bus,
    /// `None` without the role `session`.
    pub(crate) directory: Option<Arc<dyn Directory>>,
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
}

impl Ports {
    /// Opens what `roles` need.
    ///
    /// # Errors
    /// When one cannot be opened; the message says what to do.
    pub(crate) async fn open(config: &Config, roles: &Roles, data: &Path, kit: &Kit<'_>) -> Result<Self> {
        apart(config, roles)?;
        let joined = config.cluster.is_joined();
        let node = NodeId::trusted(if joined { config.cluster.node.as_str() } else { ALONE });
        let store = if roles.store() { Some(store(config, data, kit).await?) } else { None };
        let (bus, nats) = bus(config, &node, kit).await?;
        let now = kit.clock.now();
        let incarnation =
            if joined { linnet_cluster::next_life(&bus, &config.cluster.name, &node, now).await } else { now.0 };
        let directory = if roles.has(Service::Session) { Some(directory(config, kit).await?) } else { None };
        let (cluster, mesh) = Mesh::open(config, roles, &node, incarnation, &bus, nats, kit).await?;
        Ok(Self { node, incarnation, store, bus, directory, cluster, mesh })
    }
}

/// A process that runs only some services needs ports that others reach too.
fn apart(config: &Config, roles: &Roles) -> Result<()> {
    if roles.is_all() {
        return Ok(());
    }
    let mut missing = Vec::new();
    if !config.cluster.is_joined() {
        missing.push("cluster.listen: where the other services call this one");
    }
    if config.bus.backend == "local" {
        missing.push("bus.backend = \"nats\": the others do not hear a bus within this process");
    }
    if roles.store() && config.store.backend == "embedded" {
        missing.push("store.backend = \"cql\": the embedded store belongs to one process");
    }
    if roles.has(Service::Session) && config.directory.backend == "memory" {
        missing.push("directory.backend = \"redis\": sign-ins are seen by every session process");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("role {roles} is not everything, and the configuration is for one process");
    Err(Failure::usage(what, missing.join("; "), "set these keys, or serve with --role all").into())
}

async fn store(config: &Config, data: &Path, kit: &Kit<'_>) -> Result<Store> {
    if config.store.backend != "cql" {
        return embedded(config, data, kit).await;
    }
    let connected = Cql::connect(config.cql.clone(), kit.clock.clone(), kit.tasks, kit.metrics).await;
    let cql = connected.map_err(|why| {
        let todo = "check [cql], start the servers, and run `linnet migrate run` once for each new version";
        Failure::refused("the CQL store cannot be used", why.to_string(), todo)
    })?;
    let (check, watched, draining) = (kit.health.check("store"), Arc::clone(&cql), kit.tasks.draining());
    check.ready();
    kit.tasks.spawn("store.ready", async move {
        while draining.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match watched.ready().await {
                Ok(()) => check.ready(),
                Err(why) => check.failing(why.to_string()),
            }
        }
    });
    Ok(cql)
}

async fn bus(config: &Config, node: &NodeId, kit: &Kit<'_>) -> Result<(Bus, Option<Nats>)> {
    if config.bus.backend == "local" {
        return Ok((Local::new(kit.metrics).bus(), None));
    }
    let name = &config.cluster.name;
    let connected = Nats::connect(config.bus.clone(), name, node.as_str(), kit.metrics, kit.rng, kit.tasks).await;
    let nats = connected.map_err(|why| Failure::usage("the bus cannot be used", why.to_string(), "check [bus]"))?;
    let (check, watched, mut changes) = (kit.health.check("bus"), nats.clone(), nats.connected());
    let draining = kit.tasks.draining();
    kit.tasks.spawn("bus.ready", async move {
        loop {
            match watched.trouble() {
                None => check.ready(),
                Some(why) => check.failing(why),
            }
            match draining.run_until_cancelled(changes.changed()).await {
                Some(Ok(())) => {}
                _ => return,
            }
        }
    });
    Ok((nats.bus(), Some(nats)))
}

async fn directory(config: &Config, kit: &Kit<'_>) -> Result<Arc<dyn Directory>> {
    if config.directory.backend == "memory" {
        return Ok(Arc::new(directory::Memory::default()));
    }
    let parts = directory::Kit {
        clock: kit.clock.clone(),
        rng: kit.rng.fork("directory"),
        tasks: kit.tasks.clone(),
        metrics: kit.metrics.clone(),
        check: kit.health.check("directory"),
    };
    let opened = directory::Redis::open(&config.directory, &config.cluster.name, parts).await;
    let redis =
        opened.map_err(|why| Failure::usage("the directory cannot be used", why.to_string(), "check [directory]"))?;
    Ok(Arc::new(redis))
}

async fn embedded(config: &Config, data: &Path, kit: &Kit<'_>) -> Result<Store> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let mut options = linnet_store::embedded::Config::new(data.join("store"));
    options.cache_bytes = config.store.cache.0;
    options.memtable_bytes = config.store.memtable.0;
    options.reserve_bytes = config.store.reserve.0;
    let (clock, metrics) = (kit.clock.clone(), kit.metrics.clone());
    let opened = kit.tasks.blocking("store.open", move || Embedded::open(options, clock, &metrics)).await?;
    let todo = "end the other process, use another folder, or restore the file that is named from a backup";
    opened.map_err(|why| Failure::refused("the data folder cannot be opened", why.to_string(), todo).into())
}

/// This node's place among the others: what it answers on, and that it lives. Empty in a site of one process.
pub(crate) struct Mesh {
    joined: Option<Joined>,
    nats: Option<Nats>,
}

struct Joined {
    remote: RemoteNet,
    heartbeats: Heartbeats,
    check: Check,
}

impl Mesh {
    async fn open(
        config: &Config,
        roles: &Roles,
        node: &NodeId,
        incarnation: u64,
        bus: &Bus,
        nats: Option<Nats>,
        kit: &Kit<'_>,
    ) -> Result<(Cluster, Self)> {
        if !config.cluster.is_joined() {
            let cluster = Cluster::alone(node.clone(), config.rpc.clone(), kit.metrics);
            return Ok((cluster, Self { joined: None, nats }));
        }
        let check = kit.health.check("members");
        let local = LocalNet::new(config.rpc.clone(), kit.metrics);
        let parts = RemoteDeps {
            me: node.clone(),
            local: local.clone(),
            tasks: kit.tasks.clone(),
            rng: kit.rng.fork("rpc"),
            metrics: kit.metrics.clone(),
        };
        let remote = RemoteNet::listen(&config.cluster, parts).await.map_err(|why| {
            Failure::usage("calls between nodes cannot be answered", why.to_string(), "check [cluster]")
        })?;
        let me = Node { incarnation, address: remote.advertised().to_owned(), ..Node::new(node.clone(), roles.iter()) };
        let parts = HeartbeatDeps {
            bus: bus.clone(),
            clock: kit.clock.clone(),
            rng: kit.rng.fork("members"),
            tasks: kit.tasks.clone(),
            metrics: kit.metrics.clone(),
        };
        let progress = progress(kit);
        let (members, heartbeats) =
            Heartbeats::start(config.members.clone(), &config.cluster.name, me, parts, progress);
        let cluster = Cluster::joined(node.clone(), members, local, remote.clone(), kit.metrics);
        Ok((cluster, Self { joined: Some(Joined { remote, heartbeats, check }), nats }))
    }

    /// Whether other processes share the site.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// The bus, where it is a server's.
    pub(crate) fn nats(&self) -> Option<&Nats> {
        self.nats.as_ref()
    }

    /// Tells the others that this node answers calls now; ready once it knows them too.
    pub(crate) fn join(&self, tasks: &Tasks) {
        let Some(Joined { heartbeats, check, .. }) = &self.joined else { return };
        heartbeats.serve();
        let (heartbeats, check) = (heartbeats.clone(), check.clone());
        check.failing("listening for the other nodes");
        tasks.spawn("members.ready", async move {
            heartbeats.ready().await;
            check.ready();
        });
    }

    /// Returns when a newer process uses this node's id: this one has to go.
    pub(crate) async fn superseded(&self) {
        match &self.joined {
            // The sender lives as long as we do.
            Some(joined) => drop(joined.heartbeats.superseded().wait_for(|superseded| *superseded).await),
            None => std::future::pending().await,
        }
    }

    /// Off the rings; calls are answered still.
    pub(crate) async fn leave(&self) {
        if let Some(joined) = &self.joined {
            joined.heartbeats.drain().await;
        }
    }

    /// Gone, and the end of calls and of the bus.
    pub(crate) async fn close(&self, deadline: Duration) {
        if let Some(joined) = &self.joined {
            joined.heartbeats.stop().await;
            joined.remote.stop(deadline).await;
        }
        if let Some(nats) = &self.nats {
            nats.close().await;
        }
    }
}

/// Whether the runtime still turns: a process whose tasks stand still must not say that it lives.
fn progress(kit: &Kit<'_>) -> impl Fn() -> bool + Send + Sync + 'static {
    let turned = Arc::new(AtomicU64::new(0));
    let (clock, turns, draining) = (kit.clock.clone(), Arc::clone(&turned), kit.tasks.draining());
    let millis = |clock: &Clock| u64::try_from(clock.mono().as_millis()).unwrap_or(u64::MAX);
    let now = clock.clone();
    kit.tasks.spawn("members.progress", async move {
        loop {
            turns.store(millis(&now), Ordering::Relaxed);
            if draining.run_until_cancelled(tokio::time::sleep(TURN)).await.is_none() {
                // While the node leaves it is looked after by its stop.
                turns.store(u64::MAX, Ordering::Relaxed);
                return;
            }
        }
    });
    move || millis(&clock).saturating_sub(turned.load(Ordering::Relaxed)) < STUCK.as_millis() as u64
}
