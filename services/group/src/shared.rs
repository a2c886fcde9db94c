//! What every group of this node uses.

use std::sync::{Arc, Weak};

use linnet_admission::Admission;
use linnet_admission::apps::{App, Apps};
use linnet_cluster::Cluster;
use linnet_delivery::Publisher;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::groups::Groups;
use linnet_store::ids::ConvIds;
use linnet_store::positions::Positions;
use linnet_types::{GroupId, SdkAppId};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::error::Result;
use crate::group::Group;
use crate::hub::{Call, Hub};
use crate::law::Law;

/// Best-effort webhook calls in flight.
const POSTS: usize = 256;

/// The service's parts.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) groups: Groups,
    pub(crate) ids: ConvIds,
    pub(crate) positions: Positions,
    pub(crate) publisher: Publisher,
    pub(crate) admission: Admission,
    pub(crate) apps: Apps,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) tasks: Tasks,
    pub(crate) law: Law,
    pub(crate) hub: Hub,
    pub(crate) posts: Arc<Semaphore>,
    me: Weak<Self>,
}

/// Builds [`Shared`]; everything but what it makes itself.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) groups: Groups,
    pub(crate) ids: ConvIds,
    pub(crate) positions: Positions,
    pub(crate) publisher: Publisher,
    pub(crate) admission: Admission,
    pub(crate) apps: Apps,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) tasks: Tasks,
    pub(crate) law: Law,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            config: parts.config,
            cluster: parts.cluster,
            groups: parts.groups,
            ids: parts.ids,
            positions: parts.positions,
            publisher: parts.publisher,
            admission: parts.admission,
            apps: parts.apps,
            clock: parts.clock,
            rng: parts.rng,
            tasks: parts.tasks,
            law: parts.law,
            hub: Hub::default(),
            posts: Arc::new(Semaphore::new(POSTS)),
            me: me.clone(),
        })
    }

    /// Another handle to itself.
    pub(crate) fn me(&self) -> Arc<Self> {
        self.me.upgrade().expect("used through an Arc")
    }

    /// Version of the ring as this node sees it.
    pub(crate) fn ring(&self) -> u64 {
        *self.cluster.changes().borrow()
    }

    /// The app's settings.
    pub(crate) async fn app(&self, app: SdkAppId) -> Result<Arc<App>> {
        self.apps.get(app).await
    }

    /// Runs `work` in the actor of a group, activating it, in its turn.
    ///
    /// # Errors
    /// [`linnet_types::code::GROUP_UNKNOWN`], what `work` answers, or a retryable refusal while the group moves.
    pub(crate) async fn call<T, F>(&self, app: SdkAppId, group: &GroupId, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Group) -> Call<'a, T> + Send + 'static,
    {
        let handle = self.hub.get(self, app, group).await?;
        handle.call(work).await
    }
}
