//! The apps this node serves: keys, administrators and settings, cached and refreshed when they change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_bus::{Bus, Event, subject};
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_runtime::{Tasks, status};
use linnet_types::{AppSettings, Refusal, SdkAppId, UnixMillis, code};
use moka::future::Cache;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Unchanged apps are read again after this long, should a change notice have been lost.
const REFRESH: Duration = Duration::from_secs(30);
/// Apps kept at once.
const CAPACITY: u64 = 100_000;
const CALL: Duration = Duration::from_secs(2);

/// What an edge or owner needs to know of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its id.
    pub id: SdkAppId,
    /// The present key, empty if there is none.
    pub key: String,
    /// The key before, accepted until the time beside it.
    pub previous: Option<(String, UnixMillis)>,
    /// Administrators.
    pub admins: Vec<String>,
    /// Settings.
    pub settings: AppSettings,
    /// Off: every call is refused with [`code::APP_DISABLED`].
    pub enabled: bool,
}

impl App {
    /// Keys that a UserSig may be signed with now, the present one first.
    #[must_use]
    pub fn keys(&self, now: UnixMillis) -> Vec<&str> {
        let mut keys = Vec::with_capacity(2);
        if !self.key.is_empty() {
            keys.push(self.key.as_str());
        }
        if let Some((key, until)) = &self.previous
            && now < *until
            && !key.is_empty()
        {
            keys.push(key);
        }
        keys
    }

    /// Whether `user` is an administrator.
    #[must_use]
    pub fn is_admin(&self, user: &str) -> bool {
        self.admins.iter().any(|admin| admin == user)
    }
}

impl From<account::App> for App {
    fn from(app: account::App) -> Self {
        let previous = (!app.previous_key.is_empty()).then_some((app.previous_key, UnixMillis(app.previous_until_ms)));
        let settings = serde_json::from_str(&app.settings_json).unwrap_or_else(|error| {
            tracing::error!(app = app.sdkappid, %error, "settings of an app cannot be read; defaults are in force");
            AppSettings::default()
        });
        Self { id: SdkAppId(app.sdkappid), key: app.key, previous, admins: app.admins, settings, enabled: app.enabled }
    }
}

/// The cache; cheap to clone.
#[derive(Clone)]
pub struct Apps {
    inner: Arc<Inner>,
}

enum Inner {
    Cached { cluster: Cluster, cache: Cache<SdkAppId, Arc<App>> },
    Fixed(Mutex<HashMap<SdkAppId, Arc<App>>>),
}

impl Apps {
    /// Asks the account service, and listens for changes.
    #[must_use]
    pub fn new(cluster: Cluster, bus: Bus, tasks: &Tasks) -> Self {
        let cache = Cache::builder().max_capacity(CAPACITY).time_to_live(REFRESH).build();
        tasks.spawn("apps.watch", watch(bus, cache.clone(), tasks.draining()));
        Self { inner: Arc::new(Inner::Cached { cluster, cache }) }
    }

    /// A fixed set, for tests of one service.
    #[must_use]
    pub fn fixed(apps: impl IntoIterator<Item = App>) -> Self {
        let apps = apps.into_iter().map(|app| (app.id, Arc::new(app))).collect();
        Self { inner: Arc::new(Inner::Fixed(Mutex::new(apps))) }
    }

    /// Replaces an app of a fixed set; does nothing on a cache.
    pub fn put(&self, app: App) {
        if let Inner::Fixed(apps) = &*self.inner {
            apps.lock().insert(app.id, Arc::new(app));
        }
    }

    /// The app as it is now, or at most 30 s ago if a change notice was lost. Equal concurrent reads are joined.
    ///
    /// # Errors
    /// [`code::APP_UNKNOWN`], [`code::APP_DISABLED`]; [`code::BUSY`] when its owner cannot be asked.
    pub async fn get(&self, id: SdkAppId) -> Result<Arc<App>, Refusal> {
        let app = match &*self.inner {
            Inner::Fixed(apps) => apps.lock().get(&id).cloned().ok_or_else(unknown)?,
            Inner::Cached { cluster, cache } => {
                let load = async { load(cluster, id).await.map(Arc::new) };
                cache.try_get_with(id, load).await.map_err(|refusal| (*refusal).clone())?
            }
        };
        if !app.enabled {
            return Err(Refusal::new(code::APP_DISABLED, "the app is switched off"));
        }
        Ok(app)
    }
}

/// Forgets apps as they change; all of them where a notice may be missing.
async fn watch(bus: Bus, cache: Cache<SdkAppId, Arc<App>>, ending: CancellationToken) {
    let Ok(mut changes) = bus.subscribe(subject::apps_changed()).await else { return };
    // What was cached before the subscription may have changed unseen.
    cache.invalidate_all();
    loop {
        let event = tokio::select! {
            event = changes.recv() => event,
            () = ending.cancelled() => None,
        };
        match event {
            Some(Event::Message { payload, .. }) => match payload.as_ref().try_into().map(u32::from_be_bytes) {
                Ok(id) => cache.invalidate(&SdkAppId(id)).await,
                Err(_) => cache.invalidate_all(),
            },
            Some(Event::Lagged { .. }) => cache.invalidate_all(),
            None => return,
        }
    }
}

/// What to publish to [`subject::apps_changed`] when `id` changed.
#[must_use]
pub fn changed(id: SdkAppId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

fn unknown() -> Refusal {
    Refusal::new(code::APP_UNKNOWN, "no such SDKAppID")
}

async fn load(cluster: &Cluster, id: SdkAppId) -> Result<App, Refusal> {
    let rpc = cluster.for_owner(Service::Account, RouteKey::app(id))?;
    let request = status::with_deadline(account::GetAppRequest { sdkappid: id.0 }, CALL);
    let reply = AccountsClient::new(rpc).get_app(request).await;
    reply.map(|app| app.into_inner().into()).map_err(|why| status::refusal_or(&why, code::BUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_key_ends() {
        let app = App {
            id: SdkAppId(1),
            key: "new".into(),
            previous: Some(("old".into(), UnixMillis(10))),
            admins: vec!["administrator".into()],
            settings: AppSettings::default(),
            enabled: true,
        };
        assert_eq!(app.keys(UnixMillis(9)), ["new", "old"]);
        assert_eq!(app.keys(UnixMillis(10)), ["new"]);
        assert!(app.is_admin("administrator") && !app.is_admin("alice"));
    }
}
