//! Telling a relay process what to do: a line of JSON each way over a Unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::link::Link;
use super::{Mode, Shape};

pub(super) type Links = BTreeMap<(String, String), Vec<Arc<Link>>>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// The links between two, both ways.
    Mode { a: String, b: String, mode: Mode },
    /// The links between two, both ways.
    Delay { a: String, b: String, ms: u64 },
    /// Everything open and prompt again.
    Mend,
    /// Every link.
    List,
}

/// One link as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkState {
    /// The process that connects.
    pub from: String,
    /// The process that is connected to.
    pub to: String,
    /// What the link does.
    pub shape: Shape,
    /// Connections through it.
    pub connections: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Changed(usize),
    Links(Vec<LinkState>),
    Wrong(String),
}

pub(super) async fn serve(socket: &Path, links: Arc<Links>) -> Result<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let links = Arc::clone(&links);
        tokio::spawn(async move { answer(stream, &links).await });
    }
}

async fn answer(stream: UnixStream, links: &Links) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str(&line) {
            Ok(request) => apply(links, request),
            Err(error) => Reply::Wrong(error.to_string()),
        };
        write.write_all(format!("{}\n", serde_json::to_string(&reply)?).as_bytes()).await?;
    }
    Ok(())
}

fn apply(links: &Links, request: Request) -> Reply {
    let change = |a: &str, b: &str, change: &dyn Fn(&mut Shape)| {
        let between =
            links.iter().filter(|((from, to), _)| (named(from, a) && named(to, b)) || (named(from, b) && named(to, a)));
        let mut changed = 0;
        for link in between.flat_map(|(_, links)| links) {
            link.shape.send_modify(change);
            changed += 1;
        }
        if changed == 0 {
            Reply::Wrong(format!("there is no link between {a} and {b}"))
        } else {
            Reply::Changed(changed)
        }
    };
    match request {
        Request::Mode { a, b, mode } => change(&a, &b, &|shape| shape.mode = mode),
        Request::Delay { a, b, ms } => change(&a, &b, &|shape| shape.delay_ms = ms),
        Request::Mend => change("*", "*", &|shape| *shape = Shape::default()),
        Request::List => Reply::Links(links.values().flatten().map(|link| state(link)).collect()),
    }
}

fn state(link: &Link) -> LinkState {
    LinkState {
        from: link.spec.from.clone(),
        to: link.spec.to.clone(),
        shape: *link.shape.borrow(),
        connections: link.connections.load(Ordering::Relaxed),
    }
}

/// Whether `pattern` means this process: its name, its role for all of that role, or `*`.
fn named(process: &str, pattern: &str) -> bool {
    pattern == "*" || process == pattern || process.rsplit_once('-').is_some_and(|(role, _)| role == pattern)
}

/// The way to a relay process.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// The relay whose socket this is.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Sets what the links between two do, both ways. A name is a process, a role for all of it, or `*`. Gives how many
    /// links there are.
    ///
    /// # Errors
    /// When there is no link between them, or no relay.
    pub async fn set(&self, a: &str, b: &str, mode: Mode) -> Result<usize> {
        self.change(&Request::Mode { a: a.to_owned(), b: b.to_owned(), mode }).await
    }

    /// Makes the links between two slow, both ways; 0 is prompt again.
    ///
    /// # Errors
    /// As [`Control::set`].
    pub async fn delay(&self, a: &str, b: &str, ms: u64) -> Result<usize> {
        self.change(&Request::Delay { a: a.to_owned(), b: b.to_owned(), ms }).await
    }

    /// Opens everything.
    ///
    /// # Errors
    /// When there is no relay.
    pub async fn mend(&self) -> Result<usize> {
        self.change(&Request::Mend).await
    }

    /// Every link.
    ///
    /// # Errors
    /// When there is no relay.
    pub async fn list(&self) -> Result<Vec<LinkState>> {
        match self.ask(&Request::List).await? {
            Reply::Links(links) => Ok(links),
            other => bail!("the relay answered {other:?}"),
        }
    }

    async fn change(&self, request: &Request) -> Result<usize> {
        match self.ask(request).await? {
            Reply::Changed(count) => Ok(count),
            Reply::Wrong(why) => bail!(why),
            Reply::Links(_) => bail!("the relay answered with links"),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply> {
        let stream = UnixStream::connect(&self.socket).await;
        let mut stream = stream.with_context(|| format!("no relay at {}", self.socket.display()))?;
        stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
        let line = BufReader::new(stream).lines().next_line().await?.context("the relay hung up")?;
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_process_a_role_or_all() {
        assert!(named("message-store-2", "message-store-2"));
        assert!(named("message-store-2", "message-store"));
        assert!(named("nats-1", "*"));
        assert!(!named("message-store-2", "message"));
        assert!(!named("nats-1", "nats-2"));
    }
}
