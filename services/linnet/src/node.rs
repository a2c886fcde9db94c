//! Every service in one process: the composition root. Services find each other through [`Cluster`] only, so the same
//! wiring with other adapters makes a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use linnet_admission::apps::Apps;
use linnet_bus::Local;
use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_gateway::Gateway;
use linnet_runtime::config::{Problem, Secret};
use linnet_runtime::telemetry::{LogConfig, Telemetry};
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks, drain, health};
use linnet_store::groups::{self, Groups};
use linnet_store::logs::{self, Logs};
use linnet_store::{Embedded, Store};
use linnet_types::NodeId;
use serde::Serialize;
use tonic::service::Routes;

use crate::admin::{self, Admin};
use crate::http::Site;
use crate::output::Failure;

/// Accepted work may take this long when the node stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Name of this node; one process is the whole site.
const NODE: &str = "linnet-1";

linnet_runtime::config! {
    /// The process: where it listens and what it keeps.
    pub struct Server {
        /// Address of REST, WebSocket and the operators' surface.
        pub listen: String = "127.0.0.1:8080".to_owned(), "", restart;
        /// Folder of everything that is kept. One process at a time.
        pub data: PathBuf = PathBuf::from("./linnet-data"), "", restart;
        /// Name of this site; part of bus subjects.
        pub site: String = "home".to_owned(), "", restart;
        /// Token of `/admin/v1` and of the operator commands, at least 32 characters; empty = the surface is off.
        pub operator_token: Secret = Secret::default(), "", restart;
        /// Operators may come from other machines. Otherwise `/admin/v1`, `/metrics` and the probes answer loopback only.
        pub operators_anywhere: bool = false, "", restart;
        /// PEM file of the certificate chain; with `tls_key` the listener speaks TLS only.
        pub tls_cert: PathBuf = PathBuf::new(), "", restart;
        /// PEM file of the private key.
        pub tls_key: PathBuf = PathBuf::new(), "", restart;
    }
    check server_problems;
}

fn server_problems(server: &Server) -> Vec<Problem> {
    let mut problems = Vec::new();
    if server.listen.parse::<std::net::SocketAddr>().is_err() {
        problems.push(Problem::new("listen", "must be an address and a port, such as 0.0.0.0:8080"));
    }
    let token = server.operator_token.expose();
    if !token.is_empty() && token.len() < 32 {
        problems.push(Problem::new(
            "operator_token",
            "must be at least 32 characters, for example of `openssl rand -hex 32`",
        ));
    }
    if server.tls_cert.as_os_str().is_empty() != server.tls_key.as_os_str().is_empty() {
        problems.push(Problem::new("tls_key", "tls_cert and tls_key go together"));
    }
    if server.site.is_empty() || !server.site.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        problems.push(Problem::new("site", "must be letters, digits and hyphens"));
    }
    problems
}

linnet_runtime::config! {
    /// The embedded store.
    pub struct Storage {
        /// Memory for blocks read from table files. Higher makes cold history faster.
        pub cache: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(64), "", restart;
        /// Recent writes held in memory until they become a table file; a start replays up to about this much.
        pub memtable: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(32), "", restart;
        /// Free disk space below which writes are refused with a clear error.
        pub reserve: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(128), "", restart;
    }
}

linnet_runtime::sections! {
    /// Everything `linnet serve` reads.
    pub struct Config {
        /// The process.
        pub server: Server,
        /// Logs and traces.
        pub log: LogConfig,
        /// The embedded store.
        pub store: Storage,
        /// Calls between services.
        pub rpc: RpcConfig,
        /// Client sockets.
        pub gateway: linnet_gateway::Config,
        /// The public REST surface.
        pub api: linnet_api::Config,
        /// Groups.
        pub group: linnet_group::Config,
        /// Conversation logs.
        pub message_store: linnet_message_store::Config,
        /// Webhooks.
        pub callback: linnet_callback::Config,
    }
}

/// What the last process left open: a clean stop leaves nothing, a kill whatever was active. Its owners claim it, look
/// at the end of each log, and go on with its webhooks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Recovered {
    conversations: usize,
    groups: usize,
}

impl Recovered {
    async fn read(store: &Store, clock: &Clock, rng: &Rng) -> Result<Self> {
        let logs = Logs::new(store.clone(), clock.clone(), rng.fork("recovered"), linnet_message_store::NAME);
        let groups = Groups::new(store.clone());
        let mut found = Self::default();
        for slot in 0..logs::SLOTS {
            found.conversations += logs.open_logs(slot).await?.len();
        }
        for slot in 0..groups::OPEN_SLOTS {
            found.groups += groups.open(slot).await?.len();
        }
        Ok(found)
    }
}

/// A running node.
pub(crate) struct Node {
    recovered: Recovered,
    pub(crate) cluster: Cluster,
    store: Store,
    pub(crate) gateway: Gateway,
    api: Router,
    metrics: Metrics,
    health: Health,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    running_gateway: linnet_gateway::Running,
    running_group: linnet_group::Running,
    running_messages: linnet_message_store::Running,
}

impl Node {
    /// Opens the store and starts every service.
    ///
    /// # Errors
    /// When the data folder is damaged or in use, or a service does not start.
    pub(crate) async fn start(config: &Config, data: &Path, clock: Clock) -> Result<Self> {
        let (rng, metrics, health) = (Rng::system(), Metrics::new(), Health::new());
        let ready = health.check("services");
        let tasks = Tasks::new(&metrics);
        let store = open(config, data, &clock, &metrics, &tasks).await?;
        let recovered = Recovered::read(&store, &clock, &rng).await?;
        let bus = Local::new(&metrics).bus();
        let node = NodeId::trusted(NODE);
        // Higher with every start, also after a clock that was set back a little: the store's epochs are what safety rests on.
        let incarnation = clock.now().0;
        let cluster = Cluster::alone(node.clone(), config.rpc.clone(), &metrics);
        let apps = Apps::new(cluster.clone(), bus.clone(), &tasks);
        let register = |service, routes: Routes| cluster.register_local(&node, service, routes);
        let site = config.server.site.clone();

        let account = linnet_account::start(linnet_account::Deps {
            cluster: cluster.clone(),
            bus: bus.clone(),
            store: store.clone(),
            clock: clock.clone(),
            rng: rng.fork("account"),
        });
        register(Service::Account, account.routes);
        let callback = linnet_callback::start(
            &config.callback,
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
        )?;
        register(Service::Callback, callback.routes);
        let session = linnet_session::start(linnet_session::Deps {
            cluster: cluster.clone(),
            bus: bus.clone(),
            apps: apps.clone(),
            directory: Arc::new(linnet_session::directory::Memory::default()),
            clock: clock.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
        });
        register(Service::Session, session.routes);
        let group = linnet_group::start(
            config.group.clone(),
            linnet_group::Deps {
                node: node.clone(),
                site: site.clone(),
                incarnation,
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
        register(Service::Group, group.routes.clone());
        let messages = linnet_message_store::start(
            config.message_store.clone(),
            linnet_message_store::Deps {
                node: node.clone(),
                incarnation,
                site: site.clone(),
                cluster: cluster.clone(),
                bus: bus.clone(),
                store: store.clone(),
                clock: clock.clone(),
                rng: rng.fork("messages"),
                tasks: tasks.clone(),
                metrics: metrics.clone(),
                apps: apps.clone(),
            },
        )
        .await?;
        register(Service::MessageStore, messages.routes.clone());
        let gateway = linnet_gateway::start(
            config.gateway.clone(),
            linnet_gateway::Deps {
                node: node.clone(),
                incarnation,
                site,
                cluster: cluster.clone(),
                bus,
                clock: clock.clone(),
                rng: rng.fork("gateway"),
                tasks: tasks.clone(),
                metrics: metrics.clone(),
                apps: apps.clone(),
            },
        )
        .await?;
        register(Service::Gateway, gateway.routes.clone());
        let api = linnet_api::start(
            config.api.clone(),
            linnet_api::Deps {
                cluster: cluster.clone(),
                apps,
                clock: clock.clone(),
                rng: rng.fork("api"),
                tasks: tasks.clone(),
                metrics: metrics.clone(),
            },
        );
        ready.ready();
        Ok(Self {
            recovered,
            cluster,
            store,
            gateway: gateway.gateway.clone(),
            api: api.router,
            metrics,
            health,
            clock,
            tasks,
            running_gateway: gateway,
            running_group: group,
            running_messages: messages,
        })
    }

    /// What the port serves; `begun` is when the process began, by the monotonic clock.
    pub(crate) fn site(&self, token: Secret, begun: Duration, play: Option<Router>, operators_anywhere: bool) -> Site {
        let ready_ms = u64::try_from(self.clock.mono().saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
        let admin = Admin {
            cluster: self.cluster.clone(),
            store: self.store.clone(),
            gateway: self.gateway.clone(),
            clock: self.clock.clone(),
            token,
            started: self.clock.now(),
            ready_ms,
            recovered: self.recovered,
        };
        Site {
            api: self.api.clone(),
            gateway: self.gateway.clone(),
            admin: admin::router(admin),
            ops: health::ops_router(self.metrics.clone(), self.health.clone()),
            play,
            operators_anywhere,
            ready_ms,
        }
    }

    /// Serves until the process is told to stop, then stops; `http` owns the port.
    pub(crate) async fn run(self, http: Tasks, telemetry: Telemetry) -> Result<()> {
        drain::signalled().await?;
        tracing::info!("stopping: finishing what was accepted");
        http.drain();
        self.stop().await;
        http.shutdown(Duration::ZERO).await;
        telemetry.shutdown();
        Ok(())
    }

    /// Not ready, clients told to come back, accepted work finished, heads written, the store closed.
    async fn stop(self) {
        self.health.drain();
        self.running_gateway.stop(DRAIN).await;
        self.running_group.stop(DRAIN).await;
        self.running_messages.stop(DRAIN).await;
        self.tasks.shutdown(DRAIN).await;
    }
}

async fn open(config: &Config, data: &Path, clock: &Clock, metrics: &Metrics, tasks: &Tasks) -> Result<Store> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let mut options = linnet_store::embedded::Config::new(data.join("store"));
    options.cache_bytes = config.store.cache.0;
    options.memtable_bytes = config.store.memtable.0;
    options.reserve_bytes = config.store.reserve.0;
    let (clock, metrics) = (clock.clone(), metrics.clone());
    let opened = tasks.blocking("store.open", move || Embedded::open(options, clock, &metrics)).await?;
    let todo = "end the other process, use another folder, or restore the file that is named from a backup";
    opened.map_err(|why| Failure::refused("the data folder cannot be opened", why.to_string(), todo).into())
}
