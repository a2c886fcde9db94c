//! `linnet app`: tenants, their keys, administrators and settings.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use anyhow::Result;
use clap::{Args, Subcommand};
use linnet_runtime::Clock;
use linnet_runtime::config::Period;
use serde_json::{Value, json};

use super::admin::{Admin, App};
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::{Common, DevFile};

/// Tenants: keys, administrators, settings. Changes are in force at once.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet app set webhook.timeout_ms=1500 history.days=30")]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// The apps of this server.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet app list --limit 10")]
    List {
        /// Begin after this SDKAppID.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: u32,
        /// Most apps.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// A new app; its key is printed.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet app create --name \"my shop\"")]
    Create {
        /// Keep this SDKAppID, of an app that moves here.
        #[arg(long, value_name = "N")]
        sdkappid: Option<u32>,
        /// Keep this key.
        #[arg(long, value_name = "K")]
        new_key: Option<String>,
        /// For people.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// One app: keys, administrators, and each setting with its default and meaning.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet app show")]
    Show {
        /// SDKAppID.
        id: Option<u32>,
        /// Print keys in full.
        #[arg(long)]
        reveal: bool,
        /// Only settings that differ from their default.
        #[arg(long)]
        changed: bool,
    },
    /// Change settings.
    #[command(
        after_help = "Example, with `linnet dev` running:\n  linnet app set webhook.events=all webhook.after_retry=true"
    )]
    Set {
        /// `name=value`; `linnet app show` lists the names.
        #[arg(required = true, value_name = "K=V")]
        settings: Vec<String>,
    },
    /// A new key; the old one is accepted for a while.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet app rotate-key --keep 1h")]
    RotateKey {
        /// How long UserSigs of the old key stay good.
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        keep: Period,
    },
    /// Who may call the REST surface: list, add, remove.
    #[command(
        after_help = "Example, with `linnet dev` running:\n  linnet app admins add alice\n  linnet app admins remove alice"
    )]
    Admins {
        #[command(subcommand)]
        change: Option<Admins>,
    },
    /// Delete an app. Its users and messages are out of reach at once.
    #[command(
        after_help = "Example, with `linnet dev` running:\n  linnet app create --sdkappid 1600009999 && linnet app delete 1600009999 --yes"
    )]
    Delete {
        /// SDKAppID; or --app.
        id: Option<u32>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand, Debug)]
enum Admins {
    /// Let these users call.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet app admins add bob")]
    Add {
        /// UserIDs.
        #[arg(required = true, value_name = "USER")]
        users: Vec<String>,
    },
    /// Let them no longer call.
    #[command(
        after_help = "Example, with `linnet dev` running:\n  linnet app admins add bob && linnet app admins remove bob"
    )]
    Remove {
        /// UserIDs.
        #[arg(required = true, value_name = "USER")]
        users: Vec<String>,
    },
}

/// # Errors
/// [`Failure`] when the server cannot be reached or refuses.
pub(crate) async fn run(args: AppArgs, common: &Common, out: Output) -> Result<Exit> {
    let target = common.target()?;
    let admin = Admin::new(&target)?;
    match args.action {
        Action::List { after, limit } => list(&admin, after, limit, out).await?,
        Action::Create { sdkappid, new_key, name } => {
            let body = json!({ "sdkappid": sdkappid.unwrap_or(0), "key": new_key.unwrap_or_default(), "name": name });
            let app: App = admin.post(&["apps"], &body).await?;
            let line = format!("app {}  key {}", app.sdkappid, app.key);
            out.result(
                &json!({ "sdkappid": app.sdkappid, "key": app.key, "name": app.name, "admins": app.admins }),
                line,
            );
        }
        Action::Show { id, reveal, changed } => {
            let app = id.map_or_else(|| target.app(), Ok)?;
            show(&admin.app(app).await?, reveal, changed, out);
        }
        Action::Set { settings } => set(&admin, target.app()?, &settings, out).await?,
        Action::RotateKey { keep } => {
            let keep_s = keep.get().as_secs();
            let app: App =
                change(&admin, target.app()?, &json!({ "rotate_key": true, "keep_previous_s": keep_s })).await?;
            remember(common, &app)?;
            let line = format!("app {}  key {}  the old one is accepted for {keep}", app.sdkappid, app.key);
            out.result(
                &json!({ "sdkappid": app.sdkappid, "key": app.key, "previous_until_ms": app.previous_until_ms }),
                line,
            );
        }
        Action::Admins { change: None } => admins(&admin.app(target.app()?).await?, out),
        Action::Admins { change: Some(Admins::Add { users }) } => {
            admins(&change(&admin, target.app()?, &json!({ "add_admins": users })).await?, out);
        }
        Action::Admins { change: Some(Admins::Remove { users }) } => {
            admins(&change(&admin, target.app()?, &json!({ "remove_admins": users })).await?, out);
        }
        Action::Delete { id, yes } => delete(&admin, id.or(common.app), yes, out).await?,
    }
    Ok(Exit::Done)
}

/// Changes an app and returns it as it is now.
pub(super) async fn change(admin: &Admin, app: u32, body: &Value) -> Result<App> {
    admin.patch(&["apps", &app.to_string()], body).await
}

/// `settings` of a change.
pub(super) fn settings<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    json!({ "settings": pairs.into_iter().collect::<BTreeMap<_, _>>() })
}

async fn list(admin: &Admin, after: u32, limit: u32, out: Output) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Page {
        apps: Vec<App>,
        more: bool,
    }
    let query = [("after", after.to_string()), ("limit", limit.to_string())];
    let page: Page = admin.get(&["apps"], &query).await?;
    if out.json {
        for app in &page.apps {
            let object =
                json!({ "sdkappid": app.sdkappid, "name": app.name, "admins": app.admins, "enabled": app.enabled });
            out.result(&object, "");
        }
        return Ok(());
    }
    let head = ["app", "name", "key", "admins", "state"].map(str::to_owned);
    let row = |app: &App| {
        let state = if app.enabled { "on" } else { "off" };
        let admins = app.admins.join(", ");
        [app.sdkappid.to_string(), app.name.clone(), text::masked(&app.key), admins, state.to_owned()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(page.apps.iter().map(row)).collect();
    out.text(text::table(&rows));
    if let (true, Some(last)) = (page.more, page.apps.last()) {
        out.note(format!("there are more: linnet app list --after {}", last.sdkappid));
    }
    Ok(())
}

fn show(app: &App, reveal: bool, changed: bool, out: Output) {
    let settings = app.settings.iter().filter(|setting| !changed || setting.value != setting.default);
    if out.json {
        let settings: BTreeMap<_, _> = settings.map(|setting| (&setting.name, &setting.value)).collect();
        let object = json!({
            "sdkappid": app.sdkappid, "name": app.name, "key": app.key, "previous_key": app.previous_key,
            "previous_until_ms": app.previous_until_ms, "admins": app.admins, "enabled": app.enabled,
            "created_ms": app.created_ms, "settings": settings,
        });
        return out.result(&object, "");
    }
    let key = |key: &str| if reveal { key.to_owned() } else { text::masked(key) };
    out.text(format!("app      {}  {}{}", app.sdkappid, app.name, if app.enabled { "" } else { "  switched off" }));
    let left = app.previous_until_ms.saturating_sub(Clock::system().now().0);
    let previous = if left == 0 || app.previous_key.is_empty() {
        "none".to_owned()
    } else {
        format!("{} for {} more", key(&app.previous_key), text::span(left))
    };
    out.text(format!("key      {}  previous {previous}", key(&app.key)));
    out.text(format!("admins   {}\n", app.admins.join(", ")));
    let secret = |name: &str| name == "webhook.token" && !reveal;
    let head = ["setting", "value", "default", "meaning"].map(str::to_owned);
    let rows = settings.map(|setting| {
        let value = if secret(&setting.name) { text::masked(&setting.value) } else { quiet(&setting.value) };
        [setting.name.clone(), value, quiet(&setting.default), setting.doc.clone()]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    out.text(text::table(&rows));
}

fn quiet(value: &str) -> String {
    if value.is_empty() { "-".to_owned() } else { value.to_owned() }
}

async fn set(admin: &Admin, app: u32, pairs: &[String], out: Output) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            let todo = "write name=value; `linnet app show` lists the names";
            return Err(Failure::usage(format!("{pair:?} is no setting"), "it has no `=`", todo).into());
        };
        wanted.insert(name.trim(), value);
    }
    let app = change(admin, app, &settings(wanted.iter().map(|(name, value)| (*name, *value)))).await?;
    for name in wanted.keys() {
        let value = app.setting(name);
        out.result(&json!({ "setting": name, "value": value }), format!("{name} = {value}"));
    }
    Ok(())
}

fn admins(app: &App, out: Output) {
    out.result(&json!({ "sdkappid": app.sdkappid, "admins": app.admins }), app.admins.join("\n"));
}

async fn delete(admin: &Admin, id: Option<u32>, yes: bool, out: Output) -> Result<()> {
    let Some(id) = id else {
        let why = "an app is not deleted because a folder mentions it";
        return Err(Failure::usage("which app?", why, "name it: linnet app delete ID").into());
    };
    if !yes && !out.json && std::io::stdin().is_terminal() {
        eprint!("app {id} and everything in it goes; type its number to go on: ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != id.to_string() {
            return Err(Failure::refused(
                "nothing was deleted",
                "the number was not typed",
                "add --yes to not be asked",
            )
            .into());
        }
    }
    admin.delete(&["apps", &id.to_string()]).await?;
    out.result(&json!({ "deleted": id }), format!("deleted {id}"));
    Ok(())
}

/// Puts a rotated key into the data folder that the other commands read.
fn remember(common: &Common, app: &App) -> Result<()> {
    if let Some(mut file) = DevFile::load(&common.data)?
        && file.sdkappid == app.sdkappid
        && common.server.as_deref().is_none_or(|server| server.trim_end_matches('/') == file.rest)
    {
        file.key.clone_from(&app.key);
        file.save(&common.data)?;
    }
    Ok(())
}
