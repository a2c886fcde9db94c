//! Relays between the processes of a cluster: every link from one process to an address of another is a listener of its
//! own, so that one link can be cut or slowed while all others work.
//!
//! Loopback loses nothing and every process shares one address, so faults of a network are made here. A link is *open*;
//! *cut*: what comes in is read and thrown away, new connections are accepted and never answered, an end that closes is
//! not told to the other, and when the link is mended connections that lost something are closed; or *held*: as cut, but
//! nothing is thrown away, so what was sent meanwhile arrives late, as a network that retransmits would have it.

mod control;
mod link;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use control::{Control, LinkState};
use link::Link;

/// One direction of a pair: connections of `from` to `target`, an address of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// The process that connects.
    pub from: String,
    /// The process that is connected to.
    pub to: String,
    /// Where the relay listens for it.
    pub listen: SocketAddr,
    /// Where the relay connects.
    pub target: SocketAddr,
}

/// What a link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Carries.
    #[default]
    Open,
    /// Swallows.
    Cut,
    /// Keeps for later.
    Held,
}

/// What a link does, and how late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What it does.
    pub mode: Mode,
    /// How late each piece arrives, per direction.
    pub delay_ms: u64,
}

/// Runs the links that `file` lists (JSON), told what to do over the socket `socket`; returns only on failure.
///
/// # Errors
/// When an address or the socket cannot be bound.
pub async fn serve(file: &Path, socket: &Path) -> Result<()> {
    more_files();
    // As root, ahead of what it connects: a network does not wait for a processor.
    let _ = rustix::process::nice(-10);
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let specs: Vec<LinkSpec> = serde_json::from_slice(&text).context("the list of links")?;
    let mut links: BTreeMap<(String, String), Vec<Arc<Link>>> = BTreeMap::new();
    for spec in specs {
        let link = Arc::new(Link::bind(spec).await?);
        tokio::spawn(Arc::clone(&link).run());
        links.entry((link.spec.from.clone(), link.spec.to.clone())).or_default().push(link);
    }
    // Its being there says that every link listens.
    control::serve(socket, Arc::new(links)).await
}

/// A relay holds every connection twice; the usual limit of a shell is below that.
fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
