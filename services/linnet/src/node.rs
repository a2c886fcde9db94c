//! A process of the site: the services of its roles over the ports its configuration names. Services find each other
//! through [`Cluster`] only, so one process and many run the same wiring.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use linnet_admission::apps::Apps;
use linnet_bus::Bus;
use linnet_cluster::{Cluster, Service};
use linnet_gateway::Gateway;
use linnet_runtime::config::Secret;
use linnet_runtime::telemetry::Telemetry;
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks, drain, health};
use linnet_session::directory::Directory;
use linnet_store::Store;
use linnet_store::groups::{self, Groups};
use linnet_store::logs::{self, Logs};
use linnet_types::NodeId;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::http::Site;
use crate::ports::{self, Mesh, Ports};
use crate::roles::Roles;

/// Accepted work may take this long when the node stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Requests under way are answered within it: REST answers within 3 s.
const ANSWERED: Duration = Duration::from_secs(4);

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
    store: Option<Store>,
    pub(crate) gateway: Option<Gateway>,
    api: Option<Router>,
    metrics: Metrics,
    health: Health,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    services: Services,
    mesh: Mesh,
    /// Cancelled by an operator who wants the process to leave.
    stop: CancellationToken,
}

/// What has to be stopped in its turn; the others hold nothing that a stop could lose.
#[derive(Default)]
struct Services {
    gateway: Option<linnet_gateway::Running>,
    group: Option<linnet_group::Running>,
    messages: Option<linnet_message_store::Running>,
    push: Option<linnet_push::Running>,
}

/// What every service is given.
struct Kit {
    node: NodeId,
    site: String,
    /// Higher with every start, also after a clock that was set back a little: the store's epochs are what safety rests on.
    incarnation: u64,
    cluster: Cluster,
    bus: Bus,
    apps: Apps,
    clock: Clock,
    rng: Rng,
    tasks: Tasks,
    metrics: Metrics,
}

impl Node {
    /// Opens the ports and starts the services of `roles`.
    ///
    /// # Errors
    /// When a port cannot be opened (the data folder is damaged or in use, a server cannot be reached), or a service does
    /// not start.
    pub(crate) async fn start(config: &Config, roles: &Roles, data: &Path, clock: Clock) -> Result<Self> {
        let (rng, metrics, health) = (Rng::system(), Metrics::new(), Health::new());
        let ready = health.check("services");
        let tasks = Tasks::new(&metrics);
        let kit = ports::Kit { clock: &clock, rng: &rng, metrics: &metrics, health: &health, tasks: &tasks };
        let Ports { node, incarnation, store, bus, directory, cluster, mesh } =
            Ports::open(config, roles, data, &kit).await?;
        let recovered = match &store {
            Some(store) if roles.is_all() => Recovered::read(store, &clock, &rng).await?,
            _ => Recovered::default(),
        };
        let apps = Apps::new(cluster.clone(), bus.clone(), &tasks);
        let site = config.server.site.clone();
        let kit = Kit { node, site, incarnation, cluster, bus, apps, clock, rng, tasks, metrics };
        let (services, api) = kit.start(config, roles, store.as_ref(), directory).await?;
        mesh.join(&kit.tasks);
        ready.ready();
        let Kit { cluster, clock, tasks, metrics, .. } = kit;
        let gateway = services.gateway.as_ref().map(|running| running.gateway.clone());
        Ok(Self {
            recovered,
            cluster,
            store,
            gateway,
            api,
            metrics,
            health,
            clock,
            tasks,
            services,
            mesh,
            stop: CancellationToken::new(),
        })
    }

    /// What the port serves; `begun` is when the process began, by the monotonic clock.
    pub(crate) fn site(&self, token: Secret, begun: Duration, play: Option<Router>, operators_anywhere: bool) -> Site {
        let ready_ms = u64::try_from(self.clock.mono().saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
        let admin = Admin {
            cluster: self.cluster.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            token,
            started: self.clock.now(),
            ready_ms,
            recovered: self.recovered,
            nats: self.mesh.nats().cloned(),
            stop: self.stop.clone(),
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
        tokio::select! {
            signal = drain::signalled() => drop(signal?),
            () = self.stop.cancelled() => {}
            () = self.mesh.superseded() => tracing::error!("a newer process has this node's name; this one goes"),
        }
        tracing::info!("stopping: finishing what was accepted");
        http.drain();
        self.stop(&http).await;
        telemetry.shutdown();
        Ok(())
    }

    /// Not ready and off the rings, requests answered, clients told to come back, accepted work finished, heads written, the
    /// store closed.
    async fn stop(self, http: &Tasks) {
        self.health.drain();
        self.mesh.leave().await;
        if self.mesh.is_joined() {
            // Others own what this node owned: they are given it in order.
            if let Some(group) = &self.services.group {
                group.drain(DRAIN).await;
            }
            if let Some(messages) = &self.services.messages {
                messages.drain(DRAIN).await;
            }
        }
        // While the other nodes can still be asked.
        http.shutdown(ANSWERED).await;
        if let Some(gateway) = &self.services.gateway {
            gateway.stop(DRAIN).await;
        }
        if let Some(group) = &self.services.group {
            group.stop(DRAIN).await;
        }
        if let Some(messages) = self.services.messages {
            messages.stop(DRAIN).await;
        }
        if let Some(push) = &self.services.push {
            push.stop(DRAIN).await;
        }
        self.mesh.close(DRAIN).await;
        self.tasks.shutdown(DRAIN).await;
    }
}

impl Kit {
    /// Starts the services of `roles`, those that others lean on first.
    async fn start(
        &self,
        config: &Config,
        roles: &Roles,
        store: Option<&Store>,
        directory: Option<Arc<dyn Directory>>,
    ) -> Result<(Services, Option<Router>)> {
        let mut services = Services::default();
        if let Some(store) = store {
            if roles.has(Service::Account) {
                self.accounts(store);
            }
            if roles.has(Service::Callback) {
                self.callbacks(config, store)?;
            }
            if roles.has(Service::Push) {
                services.push = Some(self.pushes(config, store)?);
            }
        }
        if let Some(directory) = directory {
            self.sessions(directory);
        }
        if let Some(store) = store {
            if roles.has(Service::Group) {
                services.group = Some(self.groups(config, store));
            }
            if roles.has(Service::MessageStore) {
                services.messages = Some(self.messages(config, store).await?);
            }
        }
        if roles.has(Service::Gateway) {
            services.gateway = Some(self.gateway(config).await?);
        }
        let api = roles.has(Service::Api).then(|| self.api(config));
        Ok((services, api))
    }

    fn register(&self, service: Service, routes: Routes) {
        self.cluster.register_local(&self.node, service, routes);
    }

    fn accounts(&self, store: &Store) {
        let account = linnet_account::start(linnet_account::Deps {
            cluster: self.cluster.clone(),
            bus: self.bus.clone(),
            store: store.clone(),
            clock: self.clock.clone(),
            rng: self.rng.fork("account"),
        });
        self.register(Service::Account, account.routes);
    }

    fn callbacks(&self, config: &Config, store: &Store) -> Result<()> {
        let callback = linnet_callback::start(
            &config.callback,
            linnet_callback::Deps {
                cluster: self.cluster.clone(),
                bus: self.bus.clone(),
                store: store.clone(),
                apps: self.apps.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("callback"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
            },
        )?;
        self.register(Service::Callback, callback.routes);
        Ok(())
    }

    fn pushes(&self, config: &Config, store: &Store) -> Result<linnet_push::Running> {
        let push = linnet_push::start(
            &config.push,
            linnet_push::Deps {
                cluster: self.cluster.clone(),
                bus: self.bus.clone(),
                store: store.clone(),
                apps: self.apps.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("push"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
            },
        )?;
        self.register(Service::Push, push.routes.clone());
        Ok(push)
    }

    fn sessions(&self, directory: Arc<dyn Directory>) {
        let session = linnet_session::start(linnet_session::Deps {
            cluster: self.cluster.clone(),
            bus: self.bus.clone(),
            apps: self.apps.clone(),
            directory,
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            metrics: self.metrics.clone(),
        });
        self.register(Service::Session, session.routes);
    }

    fn groups(&self, config: &Config, store: &Store) -> linnet_group::Running {
        let group = linnet_group::start(
            config.group.clone(),
            linnet_group::Deps {
                node: self.node.clone(),
                site: self.site.clone(),
                incarnation: self.incarnation,
                cluster: self.cluster.clone(),
                bus: self.bus.clone(),
                store: store.clone(),
                apps: self.apps.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("group"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
            },
        );
        self.register(Service::Group, group.routes.clone());
        group
    }

    async fn messages(&self, config: &Config, store: &Store) -> Result<linnet_message_store::Running> {
        let messages = linnet_message_store::start(
            config.message_store.clone(),
            linnet_message_store::Deps {
                node: self.node.clone(),
                incarnation: self.incarnation,
                site: self.site.clone(),
                cluster: self.cluster.clone(),
                bus: self.bus.clone(),
                store: store.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("messages"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
                apps: self.apps.clone(),
            },
        )
        .await?;
        self.register(Service::MessageStore, messages.routes.clone());
        Ok(messages)
    }

    async fn gateway(&self, config: &Config) -> Result<linnet_gateway::Running> {
        let gateway = linnet_gateway::start(
            config.gateway.clone(),
            linnet_gateway::Deps {
                node: self.node.clone(),
                incarnation: self.incarnation,
                site: self.site.clone(),
                cluster: self.cluster.clone(),
                bus: self.bus.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("gateway"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
                apps: self.apps.clone(),
            },
        )
        .await?;
        self.register(Service::Gateway, gateway.routes.clone());
        Ok(gateway)
    }

    fn api(&self, config: &Config) -> Router {
        let api = linnet_api::start(
            config.api.clone(),
            linnet_api::Deps {
                cluster: self.cluster.clone(),
                apps: self.apps.clone(),
                clock: self.clock.clone(),
                rng: self.rng.fork("api"),
                tasks: self.tasks.clone(),
                metrics: self.metrics.clone(),
            },
        );
        api.router
    }
}
