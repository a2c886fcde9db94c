//! The adapters a configuration names, opened: store, bus, directory, and the way to other nodes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use linnet_bus::{Bus, Local};
use linnet_cluster::{Cluster, Service};
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks};
use linnet_session::directory::{self, Directory};
use linnet_store::{Embedded, Store};
use linnet_types::NodeId;

use crate::config::Config;
use crate::output::Failure;
use crate::roles::Roles;

/// Name of the node of a site that is one process.
const ALONE: &str = "linnet-1";

/// What adapters are made with.
pub(crate) struct Kit<'a> {
    pub(crate) clock: &'a Clock,
    #[expect(dead_code, reason = "the next adapters draw from it")]
    pub(crate) rng: &'a Rng,
    pub(crate) metrics: &'a Metrics,
    pub(crate) health: &'a Health,
    pub(crate) tasks: &'a Tasks,
}

/// The ports of one node.
pub(crate) struct Ports {
    pub(crate) node: NodeId,
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
    pub(crate) async fn open(
        config: &Config,
        roles: &Roles,
        data: &Path,
        _incarnation: u64,
        kit: &Kit<'_>,
    ) -> Result<Self> {
        let store = if roles.store() { Some(embedded(config, data, kit).await?) } else { None };
        let bus = Local::new(kit.metrics).bus();
        let node = NodeId::trusted(ALONE);
        let directory =
            roles.has(Service::Session).then(|| Arc::new(directory::Memory::default()) as Arc<dyn Directory>);
        let cluster = Cluster::alone(node.clone(), config.rpc.clone(), kit.metrics);
        Ok(Self { node, store, bus, directory, cluster, mesh: Mesh {} })
    }
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

/// This node's place among the others: what it answers on, and that it lives.
pub(crate) struct Mesh {}

impl Mesh {
    /// Answers calls and tells the others that it lives.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) async fn join(self) -> Result<Self> {
        Ok(self)
    }

    /// Off the rings; calls are answered still.
    pub(crate) async fn leave(&self) {}

    /// The end of calls.
    pub(crate) async fn close(&self) {}
}
