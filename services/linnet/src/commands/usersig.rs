//! `linnet usersig`: make one, explain one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use linnet_runtime::Clock;
use linnet_runtime::config::Period;
use linnet_types::{SdkAppId, UserId};
use linnet_usersig::{Claims, Explanation, Keys, WhichKey, explain, sign};
use serde_json::{Value, json};

use super::admin::{Admin, App};
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// Longest wait for the server's word about an app's keys; the key at hand is enough to go on.
const KEYS: Duration = Duration::from_secs(2);

/// Make a UserSig (it alone on stdout), or explain one.
///
/// In production your own server signs; this is for trying out and for scripts.
#[derive(Args, Debug)]
#[command(
    subcommand_negates_reqs = true,
    after_help = "Example, with `linnet dev` running:\n  linnet usersig alice\n  linnet usersig check \"$(linnet usersig alice --expire 1h)\""
)]
pub(crate) struct UsersigArgs {
    /// User to sign for.
    #[arg(required = true)]
    user: Option<String>,
    /// How long it is accepted.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    expire: Period,
    /// File whose bytes are attached (`TLS.userbuf`).
    #[arg(long, value_name = "F")]
    userbuf: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Explain a UserSig: fields, age, and the verdict with its code.
    #[command(after_help = "Example, with `linnet dev` running:\n  linnet usersig check \"$(linnet usersig bob)\"")]
    Check {
        /// The UserSig.
        sig: String,
    },
}

/// # Errors
/// [`Failure`] when the key is unknown or the id is not possible.
pub(crate) async fn run(args: UsersigArgs, common: &Common, out: Output) -> Result<Exit> {
    if let Some(Action::Check { sig }) = &args.action {
        return check(sig, common, out).await;
    }
    let user = args.user.as_deref().unwrap_or_default();
    let user = UserId::parse(user).map_err(|refusal| {
        Failure::usage(format!("{user:?} is not a possible UserID"), refusal.to_string(), "choose another id")
    })?;
    let (app, key) = common.app_key()?;
    let userbuf = match &args.userbuf {
        Some(file) => Some(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?),
        None => None,
    };
    let claims = Claims {
        app: SdkAppId(app),
        identifier: user.to_string(),
        time_s: Clock::system().now().secs(),
        expire_s: args.expire.get().as_secs(),
        userbuf,
    };
    let sig = sign(&claims, &key);
    let object = json!({
        "sdkappid": app, "user": claims.identifier, "usersig": sig, "time_s": claims.time_s, "expire_s": claims.expire_s,
    });
    out.result(&object, &sig);
    Ok(Exit::Done)
}

async fn check(sig: &str, common: &Common, out: Output) -> Result<Exit> {
    let (app, key) = common.app_key()?;
    let known = if common.key.is_none() { keys(app, common).await } else { None };
    if known.is_none() && common.key.is_none() {
        out.note("the server cannot be asked; only the key of the data folder is known");
    }
    let keys = match &known {
        Some(app) => Keys { current: Some(&app.key), previous: Some(&app.previous_key) },
        None => Keys { current: Some(&key), previous: None },
    };
    let explained = explain(sig, SdkAppId(app), None, keys, Clock::system().now());
    out.result(&object(&explained), &explained);
    Ok(if explained.verdict.is_ok() { Exit::Done } else { Exit::Refused })
}

/// The app's keys as the server has them, when it can be asked.
async fn keys(app: u32, common: &Common) -> Option<App> {
    let admin = Admin::new(&common.target().ok()?).ok()?;
    let found = tokio::time::timeout(KEYS, admin.app(app)).await.ok()?.ok()?;
    let now = Clock::system().now().0;
    let previous_key = if found.previous_until_ms > now { found.previous_key } else { String::new() };
    Some(App { previous_key, ..found })
}

fn object(explained: &Explanation) -> Value {
    let mut object = match &explained.verdict {
        Ok(which) => {
            let key = if *which == WhichKey::Current { "current" } else { "previous" };
            json!({ "accepted": true, "code": 0, "key": key })
        }
        Err(refusal) => json!({ "accepted": false, "code": refusal.code, "info": refusal.info }),
    };
    if let (Some(claims), Some(fields)) = (&explained.claims, object.as_object_mut()) {
        let userbuf = claims.userbuf.as_ref().map(Vec::len);
        fields.extend([
            ("sdkappid".to_owned(), json!(claims.app.0)),
            ("user".to_owned(), json!(claims.identifier)),
            ("time_s".to_owned(), json!(claims.time_s)),
            ("expire_s".to_owned(), json!(claims.expire_s)),
            ("userbuf_bytes".to_owned(), json!(userbuf)),
            ("age_s".to_owned(), json!(explained.age_s)),
            ("left_s".to_owned(), json!(explained.left_s)),
        ]);
    }
    object
}
