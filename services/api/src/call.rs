//! One admitted call: who asks, what he sent, and the way to the services.

use std::time::Duration;

use linnet_admission::apps::App;
use linnet_cluster::{Cluster, RouteKey, Rpc, Service};
use linnet_proto::msg::Origin;
use linnet_runtime::{Clock, Rng, status};
use linnet_types::{Refusal, SdkAppId, UserId, code};
use tonic::{Request, Response, Status};

use crate::admin::Admins;
use crate::catalogue::Family;
use crate::json::Object;
use crate::limits::Limits;

/// Longest wait between two attempts, whatever the refusal says.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Below this a further attempt cannot be answered any more.
const LEAST_TIME: Duration = Duration::from_millis(20);

/// What handlers reach the world through; one per node.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) admins: Admins,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) limits: Limits,
}

/// A call whose caller is an administrator of `app`.
pub(crate) struct Call<'a> {
    pub(crate) app: &'a App,
    /// The administrator.
    pub(crate) admin: &'a UserId,
    pub(crate) origin: &'a Origin,
    pub(crate) body: Object<'a>,
    pub(crate) world: &'a World,
    pub(crate) family: Family,
    /// On the clock's monotonic reading.
    pub(crate) deadline: Duration,
}

/// Which node answers an inner call.
pub(crate) enum Route {
    Owner(RouteKey),
    Any,
}

/// An inner call, by the type of its request: `call.ask(InfoRequest { … })`.
pub(crate) trait Ask: Clone + Send + Sync + 'static {
    type Reply: Send;
    const SERVICE: Service;
    /// It may be sent again when its outcome is unknown.
    const IDEMPOTENT: bool;

    fn route(&self) -> Route;
    fn send(rpc: Rpc, request: Request<Self>) -> impl Future<Output = Result<Response<Self::Reply>, Status>> + Send;
}

impl Call<'_> {
    /// The app's id as messages carry it.
    pub(crate) fn app_id(&self) -> u32 {
        self.app.id.0
    }

    /// The app.
    pub(crate) fn tenant(&self) -> SdkAppId {
        self.app.id
    }

    /// Where the call came from, done in the name of `operator` if one was given.
    pub(crate) fn origin_as(&self, operator: Option<String>) -> Option<Origin> {
        let operator = operator.unwrap_or_else(|| self.origin.operator.clone());
        Some(Origin { operator, ..self.origin.clone() })
    }

    /// Where the call came from.
    pub(crate) fn origin(&self) -> Option<Origin> {
        Some(self.origin.clone())
    }

    /// Asks a service until it answers or the time is over. What was surely not done is tried again, and so is what may
    /// have been done if doing it twice is the same.
    ///
    /// # Errors
    /// The service's refusal; faults and silence become the family's internal code.
    pub(crate) async fn ask<A: Ask>(&self, message: A) -> Result<A::Reply, Refusal> {
        loop {
            let left = self.deadline.saturating_sub(self.world.clock.mono());
            let refusal = match self.attempt(message.clone(), left).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(refusal)) => return Err(self.family.own(refusal)),
                Err(Failure::Again(refusal)) => refusal,
            };
            let pause = Duration::from_millis(refusal.retry_after_ms.unwrap_or_default().into()).min(LONGEST_PAUSE);
            let jitter = self.world.rng.below(u64::try_from(pause.as_millis()).unwrap_or(0) / 2 + 1);
            let pause = pause / 2 + Duration::from_millis(jitter);
            if pause + LEAST_TIME >= self.deadline.saturating_sub(self.world.clock.mono()) {
                return Err(self.family.own(refusal));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<A: Ask>(&self, message: A, left: Duration) -> Result<A::Reply, Failure> {
        let rpc = match message.route() {
            Route::Owner(key) => self.world.cluster.for_owner(A::SERVICE, key),
            Route::Any => self.world.cluster.any(A::SERVICE),
        };
        let rpc = rpc.map_err(Failure::Again)?;
        let request = status::with_deadline(message, left);
        let why = match A::send(rpc, request).await {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(why) => why,
        };
        let refusal = status::refusal_or(&why, self.family.internal());
        let surely_not_done = refusal.code == code::BUSY && !status::outcome_unknown(&why);
        let again = refusal.retry_after_ms.is_some() && (surely_not_done || A::IDEMPOTENT);
        Err(if again { Failure::Again(refusal) } else { Failure::Final(refusal) })
    }
}

enum Failure {
    /// Not done, or harmless to do twice.
    Again(Refusal),
    Final(Refusal),
}
