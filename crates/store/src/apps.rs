//! Tenants: keys, administrators, settings.
//!
//! One guarded record an app, so concurrent changes never lose each other, and a plain index of all apps, written before
//! the record; a listed app without a record does not exist.

use std::fmt;

use bytes::Bytes;
use linnet_proto::store::{AppRow, RowVersion};
use linnet_types::{AppSettings, SdkAppId, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{Key, Parts};
use crate::record::{self, Decision};
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const APP: Table = Table { name: "app", kind: Kind::Guarded };
const APP_INDEX: Table = Table { name: "app_index", kind: Kind::Plain };

/// A signing key; hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AppKey(String);

impl AppKey {
    /// Wraps a key.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }
    /// The key itself, for signing and checking only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(…)")
    }
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its id.
    pub app: SdkAppId,
    /// For people.
    pub name: String,
    /// Signs and checks UserSigs.
    pub key: AppKey,
    /// The key before the last rotation and when it stops being accepted.
    pub previous: Option<(AppKey, UnixMillis)>,
    /// Accounts that may call REST.
    pub admins: Vec<UserId>,
    /// Switches and limits.
    pub settings: AppSettings,
    /// When it was created.
    pub created: UnixMillis,
    /// Whether it is served.
    pub enabled: bool,
}

/// Every app of the platform.
#[derive(Clone)]
pub struct Apps {
    store: Store,
}

impl Apps {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Creates `app`; `false` when its id is taken, also by an app that was deleted: what that one owned must not be seen.
    ///
    /// # Errors
    /// [`crate::Error`]: not created, or unknown after several attempts to settle it.
    pub async fn create(&self, app: &App) -> Result<bool> {
        let index = Write::Put { clustering: Key::new().u32(app.app.0).done(), value: Bytes::new() };
        record::put(&self.store, APP_INDEX, vec![(index_partition(), index)], Life::Forever).await?;
        let value = record::encode(&to_row(app));
        record::change(&self.store, APP, partition(app.app), |old| {
            Ok(match old {
                Some(_) => Decision::Keep(false),
                None => Decision::Write(value.clone(), true),
            })
        })
        .await
    }

    /// Reads one app.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get(&self, app: SdkAppId) -> Result<Option<App>> {
        let value = record::load(&self.store, APP, &partition(app)).await?;
        value.map_or(Ok(None), |value| from_row(app, &value))
    }

    /// Changes one app and returns it as it is now; `None` when there is none. `edit` runs again for every lost race.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn update(&self, app: SdkAppId, mut edit: impl FnMut(&mut App) + Send) -> Result<Option<App>> {
        record::change(&self.store, APP, partition(app), |old| {
            let Some(mut now) = old.map_or(Ok(None), |old| from_row(app, old))? else {
                return Ok(Decision::Keep(None));
            };
            edit(&mut now);
            now.app = app;
            Ok(Decision::Write(record::encode(&to_row(&now)), Some(now)))
        })
        .await
    }

    /// Deletes one app; `false` when there is none. Its keys and settings are gone, its id is never given out again; what
    /// the app owned stays in the store, out of reach.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn delete(&self, app: SdkAppId, now: UnixMillis) -> Result<bool> {
        record::change(&self.store, APP, partition(app), |old| {
            Ok(match old.map_or(Ok(None), |old| from_row(app, old))? {
                Some(_) => Decision::Write(record::encode(&gone(now)), true),
                None => Decision::Keep(false),
            })
        })
        .await
    }

    /// Every app, by id.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn list(&self) -> Result<Vec<App>> {
        let mut apps = Vec::new();
        for app in self.ids().await? {
            apps.extend(self.get(app).await?);
        }
        Ok(apps)
    }

    /// Every id that was given out, also those of deleted apps.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn ids(&self) -> Result<Vec<SdkAppId>> {
        let rows = self.store.scan(APP_INDEX, &index_partition(), Range::default()).await?;
        rows.iter().map(|row| Parts::new(APP_INDEX.name, &row.clustering).u32().map(SdkAppId)).collect()
    }
}

fn partition(app: SdkAppId) -> Bytes {
    Key::new().u32(app.0).done()
}

fn index_partition() -> Bytes {
    Key::new().u8(0).done()
}

fn to_row(app: &App) -> AppRow {
    let (previous_key, previous_until_ms) =
        app.previous.as_ref().map_or((String::new(), 0), |(key, until)| (key.0.clone(), until.0));
    AppRow {
        version: RowVersion::RowVersion1.into(),
        key: app.key.0.clone(),
        previous_key,
        previous_until_ms,
        admins: app.admins.iter().map(ToString::to_string).collect(),
        settings: differing(&app.settings),
        created_ms: app.created.0,
        enabled: app.enabled,
        name: app.name.clone(),
        deleted_ms: 0,
    }
}

/// What stays of an app that was deleted.
fn gone(now: UnixMillis) -> AppRow {
    AppRow { version: RowVersion::RowVersion1.into(), deleted_ms: now.0.max(1), ..AppRow::default() }
}

/// The settings that are not the default, so that a better default reaches the apps that never chose.
fn differing(settings: &AppSettings) -> String {
    let plain = |settings: &AppSettings| serde_json::to_value(settings).expect("settings are plain data");
    let default = plain(&AppSettings::default());
    let mut mine = plain(settings);
    if let Some(fields) = mine.as_object_mut() {
        fields.retain(|name, value| default.get(name) != Some(value));
    }
    mine.to_string()
}

/// `None`: it was deleted.
fn from_row(app: SdkAppId, value: &[u8]) -> Result<Option<App>> {
    let row: AppRow = record::decode(APP, value)?;
    if row.deleted_ms > 0 {
        return Ok(None);
    }
    let settings = serde_json::from_str(&row.settings).map_err(|error| record::corrupt(APP, error))?;
    Ok(Some(App {
        app,
        name: row.name,
        key: AppKey(row.key),
        previous: (!row.previous_key.is_empty())
            .then_some((AppKey(row.previous_key), UnixMillis(row.previous_until_ms))),
        admins: row.admins.into_iter().map(UserId::trusted).collect(),
        settings,
        created: UnixMillis(row.created_ms),
        enabled: row.enabled,
    }))
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![APP, APP_INDEX]
}

/// One row for people; keys and the webhook token are left out.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    if table == APP_INDEX {
        return Ok(json!({ "app": Parts::new(table.name, clustering).u32()? }));
    }
    let id = SdkAppId(Parts::new(table.name, partition).u32()?);
    let Some(app) = from_row(id, value)? else {
        let row: AppRow = record::decode(APP, value)?;
        return Ok(json!({ "app": id, "deleted_ms": row.deleted_ms }));
    };
    let mut settings: Value = serde_json::from_str(&differing(&app.settings)).unwrap_or_default();
    if let Some(token) = settings.get_mut("webhook.token") {
        *token = json!("…");
    }
    Ok(json!({
        "app": app.app, "name": app.name, "enabled": app.enabled, "admins": app.admins, "settings": settings,
        "created_ms": app.created, "previous_key_until_ms": app.previous.map(|(_, until)| until),
    }))
}

#[cfg(test)]
mod tests;
