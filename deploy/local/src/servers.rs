//! The servers a cluster leans on, installed when missing and started on loopback.
//!
//! A test asks for [`nats`], [`redis`] or [`cql`]: the address in `LINNET_TEST_NATS`, `LINNET_TEST_REDIS`,
//! `LINNET_TEST_CQL` (`host:port`, several with commas) when set, otherwise one server for the whole test process, which
//! ends with it in whatever way it ends. [`Nats::start`], [`Redis::start`] and [`Cql::start`] give a server of one's own,
//! with users, TLS or several nodes, to be killed, paused and started again at will.

mod cql;
mod install;
mod nats;
mod redis;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::http;
use crate::process::{self, Guard, Launch, Process};

pub use cql::Cql;
pub use install::cache;
pub use nats::{Nats, NatsUser};
pub use redis::Redis;

/// How to run one node of a server: everything needed to start it again as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// `nats-1`.
    pub name: String,
    /// Where its clients connect, `host:port`.
    pub address: String,
    /// How it is started.
    pub launch: Launch,
    /// How it is seen that it takes clients.
    pub ready: Ready,
    /// How long that may take.
    pub patience: Duration,
    /// How it is seen that it has found its peers.
    pub peers: Peers,
}

/// How it is seen that a node takes clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ready {
    /// Its log says this.
    Logged(String),
    /// This path at its address answers 200.
    Page(String),
    /// This file is there; it is removed before a start.
    File(PathBuf),
}

/// How it is seen that a node has found its peers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Peers {
    /// It has none.
    #[default]
    None,
    /// Its log says all of these.
    Logged(Vec<String>),
    /// This page of its monitor names all of these.
    Shown(String, String, Vec<String>),
}

impl Node {
    /// Whether it has found its peers.
    #[must_use]
    pub fn joined(&self) -> bool {
        match &self.peers {
            Peers::None => true,
            Peers::Logged(lines) => lines.iter().all(|line| self.said(0, line)),
            Peers::Shown(monitor, path, names) => {
                let page = http::get(monitor, path);
                page.is_ok_and(|page| page.status == 200 && names.iter().all(|name| page.body.contains(name)))
            }
        }
    }

    /// Starts it and waits until it takes clients.
    ///
    /// # Errors
    /// When it ends before that, or takes too long; says the end of its log.
    pub fn run(&self) -> Result<(Process, Guard)> {
        let from = fs::metadata(&self.launch.log).map_or(0, |meta| meta.len());
        if let Ready::File(file) = &self.ready {
            let _ = fs::remove_file(file);
        }
        let (process, guard) = self.launch.guarded()?;
        let end = Instant::now() + self.patience;
        loop {
            // Asked for before the rest: a page may be of another process that has our port.
            if !process.alive() || Instant::now() > end {
                bail!("{} did not start; the end of {}:\n{}", self.name, self.launch.log.display(), self.log_tail());
            }
            if self.is_ready(from) {
                return Ok((process, guard));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ready(&self, from: u64) -> bool {
        match &self.ready {
            // A server may say so a little before it does.
            Ready::Logged(line) => self.said(from, line) && TcpStream::connect(&self.address).is_ok(),
            Ready::Page(path) => http::get(&self.address, path).is_ok_and(|page| page.status == 200),
            Ready::File(file) => file.exists(),
        }
    }

    fn said(&self, from: u64, text: &str) -> bool {
        let read = || -> Result<String> {
            let mut file = fs::File::open(&self.launch.log)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().is_ok_and(|log| log.contains(text))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.launch.log)
    }
}

/// Starts nodes all at once and waits until they take clients and know each other.
pub(crate) fn run_all(nodes: &[&Node]) -> Result<Vec<(Process, Guard)>> {
    let started = std::thread::scope(|scope| {
        let starts: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.run())).collect();
        starts.into_iter().map(|start| start.join().expect("starting does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let end = Instant::now() + Duration::from_secs(60);
    while let Some(alone) = nodes.iter().find(|node| !node.joined()) {
        if Instant::now() > end {
            bail!("{} does not find its peers; the end of its log:\n{}", alone.name, alone.log_tail());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(started)
}

/// The last lines of a log file.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A server, of one or more nodes; ended when dropped.
#[derive(Debug)]
pub struct Server {
    nodes: Vec<Node>,
    addresses: Vec<String>,
    /// User and password of a client that may do everything, where the server asks for one.
    pub login: Option<(String, String)>,
    running: Vec<parking::Slot>,
    // Last, so that the processes are gone before their folder goes.
    folder: Option<(Guard, tempfile::TempDir)>,
}

mod parking {
    use std::sync::Mutex;

    use super::{Guard, Process};

    /// One node's process, if it runs.
    pub(super) type Slot = Mutex<Option<(Process, Guard)>>;
}

impl Server {
    fn elsewhere(addresses: &str) -> Self {
        let addresses = addresses.split(',').map(|address| address.trim().to_owned()).collect();
        Self { nodes: Vec::new(), addresses, login: None, running: Vec::new(), folder: None }
    }

    /// Makes a folder, lets `plan` say what runs in it, and starts that.
    fn start(login: Option<(String, String)>, plan: impl FnOnce(&Path) -> Result<Vec<Node>>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("linnet-").tempdir()?;
        let sweep = process::sweep(folder.path())?;
        let nodes = plan(folder.path())?;
        let addresses = nodes.iter().map(|node| node.address.clone()).collect();
        let running = nodes.iter().map(|_| parking::Slot::default()).collect();
        let server = Self { nodes, addresses, login, running, folder: Some((sweep, folder)) };
        for (slot, started) in server.running.iter().zip(run_all(&server.nodes.iter().collect::<Vec<_>>())?) {
            *slot.lock().expect("no panic while held") = Some(started);
        }
        Ok(server)
    }

    /// Where clients connect: the first node.
    ///
    /// # Panics
    /// Never: a server has a node.
    #[must_use]
    pub fn address(&self) -> &str {
        self.addresses.first().expect("a server has a node")
    }

    /// Where clients connect: every node, `host:port`.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The folder of a server of our own.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|(_, folder)| folder.path())
    }

    /// SIGKILL of a node, counted from 0.
    ///
    /// # Errors
    /// When it does not end, or the server is not ours.
    pub fn kill(&self, node: usize) -> Result<()> {
        let Some((process, guard)) = self.slot(node)?.lock().expect("no panic while held").take() else {
            return Ok(());
        };
        process.kill()?;
        drop(guard);
        Ok(())
    }

    /// Starts a node again, with its address and data, and waits until it takes clients.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_node(self: &Arc<Self>, node: usize) -> Result<()> {
        let server = Arc::clone(self);
        tokio::task::spawn_blocking(move || server.start_blocking(node)).await?
    }

    /// As [`Server::start_node`], for callers that may block.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_blocking(&self, node: usize) -> Result<()> {
        let mut slot = self.slot(node)?.lock().expect("no panic while held");
        if slot.as_ref().is_none_or(|(process, _)| !process.alive()) {
            *slot = None;
            *slot = Some(self.nodes[node].run()?);
        }
        Ok(())
    }

    /// SIGSTOP of a node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.process(node)?.pause()
    }

    /// SIGCONT of a node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.process(node)?.resume()
    }

    /// What a node logged last.
    #[must_use]
    pub fn log_tail(&self, node: usize) -> String {
        self.nodes.get(node).map(Node::log_tail).unwrap_or_default()
    }

    fn process(&self, node: usize) -> Result<Process> {
        let slot = self.slot(node)?.lock().expect("no panic while held");
        slot.as_ref().map(|(process, _)| *process).context("the node is not running")
    }

    fn slot(&self, node: usize) -> Result<&parking::Slot> {
        self.running.get(node).context("not a node of ours")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.clear();
    }
}

/// A NATS server for this test process.
///
/// # Errors
/// When it cannot be installed or started.
pub async fn nats() -> Result<&'static Server> {
    static CELL: OnceCell<Server> = OnceCell::const_new();
    shared(&CELL, "LINNET_TEST_NATS", || Nats::default().start_blocking()).await
}

/// A Redis server for this test process.
///
/// # Errors
/// When it cannot be installed or started.
pub async fn redis() -> Result<&'static Server> {
    static CELL: OnceCell<Server> = OnceCell::const_new();
    shared(&CELL, "LINNET_TEST_REDIS", || Redis::default().start_blocking()).await
}

/// A CQL server of one node for this test process; ready in about 8 s. Its users make a keyspace of their own each.
///
/// # Errors
/// When it cannot be installed or started.
pub async fn cql() -> Result<&'static Server> {
    static CELL: OnceCell<Server> = OnceCell::const_new();
    shared(&CELL, "LINNET_TEST_CQL", || Cql::default().start_blocking()).await
}

async fn shared(
    cell: &'static OnceCell<Server>,
    variable: &str,
    start: impl FnOnce() -> Result<Server> + Send + 'static,
) -> Result<&'static Server> {
    cell.get_or_try_init(|| async {
        match std::env::var(variable) {
            Ok(addresses) if !addresses.is_empty() => Ok(Server::elsewhere(&addresses)),
            _ => tokio::task::spawn_blocking(start).await?,
        }
    })
    .await
}
