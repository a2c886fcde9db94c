//! What a cluster is made of, as its folder remembers it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process::Process;
use crate::servers::Node;

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// `gateway`, …, `nats`, `redis`, `cql`, `relay`.
    pub(super) role: String,
    /// How it runs; its address is the public one.
    pub(super) node: Node,
    /// Where it is called by other services.
    pub(super) grpc: Option<String>,
    /// The process, when it was started and not killed by us.
    pub(super) process: Option<Process>,
}

impl Member {
    pub(super) fn is_service(&self) -> bool {
        self.grpc.is_some()
    }

    fn condition(&self) -> &'static str {
        match &self.process {
            Some(process) if process.paused() => "paused",
            Some(process) if process.alive() => "running",
            _ => "dead",
        }
    }

    fn shown(&self) -> Value {
        let mut shown = json!({
            "name": self.node.name, "role": self.role, "pid": self.process.map(|process| process.pid),
            "listen": self.node.address, "state": self.condition(), "log": self.node.launch.log,
        });
        if self.is_service() {
            shown["metrics"] = json!(format!("http://{}/metrics", self.node.address));
            shown["grpc"] = json!(self.grpc);
        }
        shown
    }
}

/// The whole cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Its name, unlike any other's: part of subjects and certificates.
    pub(super) name: String,
    pub(super) sdkappid: u32,
    pub(super) key: String,
    pub(super) token: String,
    pub(super) members: Vec<Member>,
}

pub(super) const ADMIN: &str = "administrator";

impl State {
    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    pub(super) fn load(dir: &Path) -> Result<Self> {
        let file = Self::file(dir);
        let text = fs::read(&file).with_context(|| format!("no cluster in {}: bring one up", dir.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    /// Replaces the file at once, so that a reader sees the old or the new.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let part = dir.join("cluster.json.part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(part, Self::file(dir))?)
    }

    pub(super) fn member(&mut self, name: &str) -> Result<&mut Member> {
        let names: Vec<_> = self.members.iter().map(|member| member.node.name.clone()).collect();
        let member = self.members.iter_mut().find(|member| member.node.name == name);
        member.with_context(|| format!("there is no {name}; there are {}", names.join(", ")))
    }

    pub(super) fn of_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_service())
    }

    /// The line that scripts read.
    pub(super) fn shown(&self, dir: &Path) -> Value {
        let urls = |role, scheme: &str, path: &str| -> Vec<String> {
            self.of_role(role).map(|member| format!("{scheme}://{}{path}", member.node.address)).collect()
        };
        json!({
            "rest": urls("api", "http", ""), "ws": urls("gateway", "ws", "/ws"), "sdkappid": self.sdkappid,
            "key": self.key, "admin": ADMIN, "dir": dir, "token": self.token, "cluster": self.name,
            "processes": self.members.iter().map(Member::shown).collect::<Vec<_>>(),
        })
    }
}

/// Held while something about a cluster changes.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock")).with_context(|| format!("no cluster in {}", dir.display()))?;
    file.lock()?;
    Ok(file)
}
