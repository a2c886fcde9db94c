//! Which server a command speaks to, and as whom.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::output::Failure;

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Server, for example https://localhost:8080, or one gateway, ws://localhost:8081/ws. Default: from the data folder.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// SDKAppID. Default: from the data folder.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) app: Option<u32>,
    /// The app's key. Default: LINNET_KEY, or from the data folder.
    #[arg(long, global = true, value_name = "KEY", env = "LINNET_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Operator token. Default: LINNET_TOKEN, or from the data folder.
    #[arg(long, global = true, value_name = "T", env = "LINNET_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Data folder of `linnet dev`.
    #[arg(long, global = true, value_name = "DIR", default_value = "./linnet-data")]
    pub(crate) data: PathBuf,
    /// One JSON object a line on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Nothing but results.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// What `linnet dev` leaves for the other commands in `dev.toml` (mode 0600).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevFile {
    pub(crate) sdkappid: u32,
    pub(crate) key: String,
    pub(crate) admin: String,
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) rest: String,
    #[serde(default)]
    pub(crate) ws: String,
    /// Every gateway, where there are several; `ws` is one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gateways: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

impl DevFile {
    /// Where it is in a data folder.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("dev.toml")
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>> {
        let path = Self::path(data);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes it so that only its owner can read it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, data: &Path) -> Result<()> {
        let text = toml::to_string(self).context("dev.toml is plain data")?;
        crate::tls::secret_file(&Self::path(data), text.as_bytes())
    }
}

/// A server to call, with what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) rest: String,
    pub(crate) ws: String,
    /// Every gateway; at least `ws`.
    pub(crate) gateways: Vec<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) admin: String,
    app: Option<u32>,
    key: Option<String>,
    token: Option<String>,
}

impl Common {
    /// Puts flags, environment and the data folder together.
    ///
    /// # Errors
    /// [`Failure`] when no server is known.
    pub(crate) fn target(&self) -> Result<Target> {
        let file = DevFile::load(&self.data)?;
        let known = file.clone().unwrap_or_default();
        let rest = self.server.clone().unwrap_or_else(|| known.rest.clone()).trim_end_matches('/').to_owned();
        if rest.is_empty() {
            return Err(Failure::usage(
                "no server is known",
                format!("there is no {} and no --server", DevFile::path(&self.data).display()),
                "start one with `linnet dev`, or name one: --server URL --app ID --key KEY",
            )
            .into());
        }
        let (rest, ws, gateways) = match &self.server {
            // A gateway by its socket's address; REST is asked where it was, or at the same place.
            Some(server) if server.starts_with("ws") => {
                let root = rest.strip_suffix("/ws").unwrap_or(&rest).to_owned();
                let own = root.replacen("ws", "http", 1);
                (if known.rest.is_empty() { own } else { known.rest }, format!("{root}/ws"), Vec::new())
            }
            Some(_) => (rest.clone(), format!("{}/ws", rest.replacen("http", "ws", 1)), Vec::new()),
            None => (rest, known.ws, known.gateways),
        };
        let gateways = if gateways.is_empty() { vec![ws.clone()] } else { gateways };
        let file = file.is_some();
        Ok(Target {
            rest,
            ws,
            gateways,
            ca: known.ca,
            admin: if known.admin.is_empty() { "administrator".to_owned() } else { known.admin },
            app: self.app.or_else(|| file.then_some(known.sdkappid)),
            key: self.key.clone().or_else(|| file.then_some(known.key)),
            token: self.token.clone().or_else(|| file.then_some(known.token)),
        })
    }

    /// SDKAppID and key alone, for commands that need no server.
    ///
    /// # Errors
    /// [`Failure`] when one is unknown.
    pub(crate) fn app_key(&self) -> Result<(u32, String)> {
        let known = DevFile::load(&self.data)?;
        let app = self.app.or_else(|| known.as_ref().map(|file| file.sdkappid)).ok_or_else(|| missing("--app ID"))?;
        let key = self.key.clone().or_else(|| known.map(|file| file.key)).ok_or_else(|| missing("--key KEY"))?;
        Ok((app, key))
    }
}

impl Target {
    /// The tenant.
    ///
    /// # Errors
    /// [`Failure`] when it is unknown.
    pub(crate) fn app(&self) -> Result<u32> {
        self.app.ok_or_else(|| missing("--app ID"))
    }

    /// Its key.
    ///
    /// # Errors
    /// [`Failure`] when it is unknown.
    pub(crate) fn key(&self) -> Result<&str> {
        self.key.as_deref().ok_or_else(|| missing("--key KEY"))
    }

    /// The operator token.
    ///
    /// # Errors
    /// [`Failure`] when it is unknown.
    pub(crate) fn token(&self) -> Result<&str> {
        self.token.as_deref().ok_or_else(|| missing("--token T"))
    }
}

fn missing(option: &str) -> anyhow::Error {
    Failure::usage(
        format!("{option} is needed"),
        "there is no data folder that knows it".to_owned(),
        "run this where `linnet dev` was started, pass --data DIR, or give the option",
    )
    .into()
}
