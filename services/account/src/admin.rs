//! Apps: creating, changing, keys.

use linnet_bus::subject;
use linnet_proto::account::{
    App as WireApp, CreateAppRequest, GetAppRequest, ListAppsReply, ListAppsRequest, UpdateAppRequest,
};
use linnet_store::apps::{App, AppKey};
use linnet_types::{AppSettings, Refusal, SdkAppId, UserId, code};

use crate::fault;
use crate::grpc::Service;

/// Administrator that every app has from the start (`spec/rest-accounts.md` §1.8).
const FIRST_ADMIN: &str = "administrator";
/// First id given when the operator chooses none; the vendor's ids begin at 1400000000.
const FIRST_APP: u32 = 1_600_000_001;
const APPS_PAGE: u32 = 100;
/// Free ids tried when the operator chooses none.
const FREE_IDS: u32 = 10;
/// Tellings of a change: at 10 % loss, one cache in 1,000 hears none and reads again within its 30 s.
const TELLINGS: usize = 3;

fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code::ACCOUNT_BAD_PARAM, why))
}

impl Service {
    pub(crate) async fn app(&self, request: GetAppRequest) -> Result<WireApp, Refusal> {
        let id = SdkAppId(request.sdkappid);
        let app = self.apps.get(id).await.map_err(|error| fault(&error))?;
        app.map(wire).ok_or_else(|| Refusal::new(code::APP_UNKNOWN, "no such SDKAppID"))
    }

    pub(crate) async fn list(&self, request: ListAppsRequest) -> Result<ListAppsReply, Refusal> {
        let limit = if request.limit == 0 { APPS_PAGE } else { request.limit.min(1000) };
        let apps = self.apps.list().await.map_err(|error| fault(&error))?;
        let mut rest = apps.into_iter().filter(|app| app.app.0 > request.after);
        let page = rest.by_ref().take(limit as usize).map(wire).collect();
        Ok(ListAppsReply { apps: page, more: rest.next().is_some() })
    }

    pub(crate) async fn create(&self, request: CreateAppRequest) -> Result<WireApp, Refusal> {
        if request.name.len() > 100 {
            return refuse("the name is longer than 100 bytes");
        }
        let key = if request.key.is_empty() { self.deps.rng.token(32) } else { request.key };
        if !(16..=128).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("a key is 16 to 128 printable ASCII characters");
        }
        let mut app = App {
            app: SdkAppId(request.sdkappid),
            name: request.name,
            key: AppKey::new(key),
            previous: None,
            admins: vec![UserId::trusted(FIRST_ADMIN)],
            settings: AppSettings::default(),
            created: self.deps.clock.now(),
            enabled: true,
        };
        let chosen = request.sdkappid != 0;
        let mut created = false;
        // Another node may take the same free id at the same moment.
        for _ in 0..if chosen { 1 } else { FREE_IDS } {
            if !chosen {
                let given = self.apps.ids().await.map_err(|error| fault(&error))?;
                app.app.0 = given.iter().map(|id| id.0.saturating_add(1)).max().unwrap_or(FIRST_APP).max(FIRST_APP);
            }
            created = self.apps.create(&app).await.map_err(|error| fault(&error))?;
            if created {
                break;
            }
        }
        if !created {
            let id = app.app;
            let deleted = self.apps.get(id).await.map_err(|error| fault(&error))?.is_none();
            let why = if deleted { "was deleted; its id is not given out again" } else { "exists already" };
            return refuse(format!("SDKAppID {id} {why}"));
        }
        let now = self.deps.clock.now();
        let admin = UserId::trusted(FIRST_ADMIN);
        self.accounts.import(app.app, &admin, &[], now).await.map_err(|error| fault(&error))?;
        self.tell(app.app).await;
        Ok(wire(app))
    }

    pub(crate) async fn update(&self, request: UpdateAppRequest) -> Result<WireApp, Refusal> {
        let id = SdkAppId(request.sdkappid);
        let current = self.apps.get(id).await.map_err(|error| fault(&error))?;
        let Some(current) = current else { return Err(Refusal::new(code::APP_UNKNOWN, "no such SDKAppID")) };
        // Everything is checked before anything is written; all problems are told at once.
        apply_settings(&mut current.settings.clone(), &request)?;
        let mut new_admins = Vec::new();
        for user in &request.add_admins {
            new_admins.push(UserId::parse(user)?);
        }
        let mut trial = current.clone();
        apply_admins(&mut trial, &new_admins, &request.remove_admins);
        let most = current.settings.admins as usize;
        if trial.admins.is_empty() || trial.admins.len() > most {
            return refuse(format!("an app has 1 to {most} administrators"));
        }
        let now = self.deps.clock.now();
        for admin in &new_admins {
            self.accounts.import(id, admin, &[], now).await.map_err(|error| fault(&error))?;
        }
        let new_key = self.deps.rng.token(32);
        let changed = self.apps.update(id, |app| {
            // Checked above; a concurrent change cannot make a value invalid.
            let _ = apply_settings(&mut app.settings, &request);
            apply_admins(app, &new_admins, &request.remove_admins);
            if request.rotate_key {
                let old = std::mem::replace(&mut app.key, AppKey::new(new_key.clone()));
                app.previous = Some((old, now.plus_ms(request.keep_previous_s.saturating_mul(1000))));
            }
            if let Some(enabled) = request.enabled {
                app.enabled = enabled;
            }
        });
        let changed = changed.await.map_err(|error| fault(&error))?;
        self.tell(id).await;
        changed.map(wire).ok_or_else(|| Refusal::new(code::APP_UNKNOWN, "no such SDKAppID"))
    }

    pub(crate) async fn remove(&self, request: GetAppRequest) -> Result<(), Refusal> {
        let id = SdkAppId(request.sdkappid);
        if !self.apps.delete(id, self.deps.clock.now()).await.map_err(|error| fault(&error))? {
            return Err(Refusal::new(code::APP_UNKNOWN, "no such SDKAppID"));
        }
        self.tell(id).await;
        Ok(())
    }

    /// Caches drop what they hold; one that misses this reads again within 30 s.
    async fn tell(&self, id: SdkAppId) {
        for _ in 0..TELLINGS {
            let notice = linnet_admission::apps::changed(id);
            if let Err(error) = self.deps.bus.publish(subject::apps_changed(), notice).await {
                tracing::warn!(app = id.0, %error, "a change of an app could not be told");
            }
        }
    }
}

fn apply_settings(settings: &mut AppSettings, request: &UpdateAppRequest) -> Result<(), Refusal> {
    let mut wrong = Vec::new();
    for (name, text) in &request.settings {
        if let Err(why) = settings.set(name, text) {
            wrong.push(why);
        }
    }
    if !matches!(settings.webhook_before_failure.as_str(), "pass" | "block") {
        wrong.push("webhook.before_failure: pass or block".to_owned());
    }
    let url = &settings.webhook_url;
    if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
        wrong.push("webhook.url: begins with http:// or https://".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { refuse(wrong.join("; ")) }
}

fn apply_admins(app: &mut App, add: &[UserId], remove: &[String]) {
    app.admins.retain(|admin| !remove.iter().any(|gone| gone == admin.as_str()));
    for admin in add {
        if !app.admins.contains(admin) {
            app.admins.push(admin.clone());
        }
    }
}

fn wire(app: App) -> WireApp {
    let (previous_key, until) =
        app.previous.map_or_else(Default::default, |(key, until)| (key.reveal().to_owned(), until));
    WireApp {
        sdkappid: app.app.0,
        key: app.key.reveal().to_owned(),
        previous_key,
        previous_until_ms: until.0,
        admins: app.admins.into_iter().map(String::from).collect(),
        settings_json: serde_json::to_string(&app.settings).expect("settings are plain data"),
        enabled: app.enabled,
        created_ms: app.created.0,
        rev: 0,
        name: app.name,
    }
}
