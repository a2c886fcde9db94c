//! Who may call: a UserSig that holds, of an administrator who was not kicked since it was made.

use std::sync::Arc;
use std::time::Duration;

use linnet_admission::apps::App;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_runtime::{Clock, status};
use linnet_types::{Refusal, SdkAppId, UserId, code};
use linnet_usersig::{Expected, Keys};
use moka::future::Cache;

/// How long an administrator's last kick is believed; one through this node counts at once.
const BELIEVED: Duration = Duration::from_secs(2);
const CAPACITY: u64 = 10_000;
const CALL: Duration = Duration::from_secs(1);

/// Last kicks of administrators.
pub(crate) struct Admins {
    kicks: Cache<(SdkAppId, UserId), Standing>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    kick_time_s: u64,
    blocked: bool,
}

impl Admins {
    pub(crate) fn new() -> Self {
        Self { kicks: Cache::builder().max_capacity(CAPACITY).time_to_live(BELIEVED).build() }
    }

    /// Forgets what is believed of `user`.
    pub(crate) async fn forget(&self, app: SdkAppId, user: &UserId) {
        self.kicks.invalidate(&(app, user.clone())).await;
    }

    /// Checks `sig` as `identifier`'s, then that he is an administrator.
    ///
    /// # Errors
    /// The 70xxx code of `spec/rest-accounts.md` §1.6.5, or [`code::NOT_ADMIN`].
    pub(crate) async fn check(
        &self,
        cluster: &Cluster,
        clock: &Clock,
        app: &App,
        identifier: &str,
        sig: &str,
    ) -> Result<UserId, Refusal> {
        let issued_s = verify(clock, app, identifier, sig)?;
        if !app.is_admin(identifier) {
            return Err(Refusal::new(code::NOT_ADMIN, "identifier must be an administrator of the app"));
        }
        let admin = UserId::parse(identifier).map_err(|_| Refusal::new(code::NOT_ADMIN, "identifier is not an id"))?;
        let standing = self.standing(cluster, app.id, &admin).await;
        if standing.blocked {
            return Err(Refusal::new(code::ACCOUNT_BLOCKED, "the account is blocked"));
        }
        if standing.kick_time_s > 0 && issued_s <= standing.kick_time_s {
            return Err(Refusal::new(code::SIG_REVOKED, "the UserSig was made before the last kick"));
        }
        Ok(admin)
    }

    /// While his owner cannot be asked an administrator is taken as not kicked: the signature holds, and every command
    /// would otherwise fail with one node of one service.
    async fn standing(&self, cluster: &Cluster, app: SdkAppId, admin: &UserId) -> Standing {
        let load = load(cluster, app, admin);
        let known = self.kicks.try_get_with((app, admin.clone()), load).await;
        known.unwrap_or_else(|refusal: Arc<Refusal>| {
            tracing::warn!(code = refusal.code, "an administrator's last kick is not known");
            Standing::default()
        })
    }
}

async fn load(cluster: &Cluster, app: SdkAppId, admin: &UserId) -> Result<Standing, Refusal> {
    let rpc = cluster.for_owner(Service::Account, RouteKey::user(app, admin))?;
    let users = vec![admin.to_string()];
    let request = account::LookupRequest { app: app.0, users, ..account::LookupRequest::default() };
    let reply = AccountsClient::new(rpc).lookup(status::with_deadline(request, CALL)).await;
    let reply = reply.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?.into_inner();
    let account = reply.accounts.into_iter().next().unwrap_or_default();
    Ok(Standing { kick_time_s: account.kick_time_s, blocked: account.blocked })
}

/// When a UserSig that holds was made.
fn verify(clock: &Clock, app: &App, identifier: &str, sig: &str) -> Result<u64, Refusal> {
    let now = clock.now();
    let previous = app.previous.as_ref().filter(|(_, until)| now < *until);
    let keys = Keys { current: Some(app.key.as_str()), previous: previous.map(|(key, _)| key.as_str()) };
    let checked = linnet_usersig::check(sig, &Expected { app: app.id, identifier, keys, now })?;
    Ok(checked.claims.time_s)
}
