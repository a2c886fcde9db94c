//! Connecting: addresses, credentials, TLS.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DnsLookupError, TranslationError};
use scylla::policies::address_translator::{AddressTranslator, UntranslatedPeer};

use super::Config;
use super::tls::Tunnels;
use crate::rows::{Error, Result};

/// The port CQL servers listen on where none is configured.
const CQL_PORT: u16 = 9042;
/// Between two looks whether all servers have the same schema.
const AGREEMENT_EVERY: Duration = Duration::from_millis(30);

/// A session that knows the cluster; no keyspace is used by name of its own.
pub(super) async fn connect(config: &Config) -> Result<Session> {
    let fail = |why: String| Error::Open { path: config.place(), why };
    let tunnels = Tunnels::new(config).map_err(fail)?;
    let nodes = match &tunnels {
        Some(tunnels) => inside(tunnels, &config.contact_points()).await.map_err(fail)?,
        None => config.contact_points(),
    };
    let direct = tunnels.is_none() && config.via.is_empty();
    let mut builder = SessionBuilder::new()
        .known_nodes(nodes)
        .connection_timeout(config.connect_timeout.get())
        .keepalive_interval(config.keepalive.get())
        .keepalive_timeout(config.keepalive.get())
        .metadata_request_clientside_timeout(config.scan_timeout.get())
        .keyspaces_to_fetch([config.keyspace.as_str()])
        .fetch_full_schema_metadata(false)
        .schema_agreement_interval(AGREEMENT_EVERY)
        .refresh_metadata_on_auto_schema_agreement(false)
        .schema_agreement_timeout(config.scan_timeout.get() * 3)
        .tcp_nodelay(true)
        // The port for shards is another one, which nothing in between knows.
        .disallow_shard_aware_port(!direct);
    if !direct {
        let port = config.nodes.first().and_then(|node| node.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        let via = Via { to: config.hosts_via(), port: port.unwrap_or(CQL_PORT), tunnels };
        builder = builder.address_translator(Arc::new(via));
    }
    if !config.user.is_empty() {
        builder = builder.user(&config.user, config.password.expose());
    }
    if !config.datacenter.is_empty() {
        builder = builder.prefer_datacenter(config.datacenter.clone());
    }
    Box::pin(builder.build()).await.map_err(|error| fail(error.to_string()))
}

/// The contact points as they are dialled to speak TLS; those that answer, of which there must be one.
async fn inside(tunnels: &Tunnels, nodes: &[String]) -> std::result::Result<Vec<String>, String> {
    let mut here = Vec::new();
    let mut wrong = Vec::new();
    for node in nodes {
        match tunnels.probe(node).await {
            Ok(()) => here.push(tunnels.to(node).await.map_err(|error| error.to_string())?.to_string()),
            Err(why) => wrong.push(why),
        }
    }
    if here.is_empty() { Err(format!("no TLS connection: {}", wrong.join("; "))) } else { Ok(here) }
}

/// The data centre to stay in: as configured, else the only one there is.
pub(super) fn datacenter(session: &Session, config: &Config) -> Result<String> {
    let state = session.get_cluster_state();
    let found: BTreeSet<&str> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    let named = config.datacenter.as_str();
    let why = match found.first() {
        Some(only) if named.is_empty() && found.len() == 1 => return Ok((*only).to_owned()),
        Some(_) if found.contains(named) => return Ok(named.to_owned()),
        Some(_) if named.is_empty() => "there are several data centres: name one with cql.datacenter, of",
        Some(_) => "cql.datacenter names none of the data centres there are:",
        None => "no server says in which data centre it is",
    };
    let found = found.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::Open { path: config.place(), why: format!("{why} {found}").trim_end().to_owned() })
}

/// Dials servers where `via` says, and inside TLS.
///
/// Servers tell their host only; the driver adds the port it dialled first, which here is that of whatever stands between.
struct Via {
    to: HashMap<String, String>,
    port: u16,
    tunnels: Option<Arc<Tunnels>>,
}

#[async_trait]
impl AddressTranslator for Via {
    async fn translate_address(&self, peer: &UntranslatedPeer) -> std::result::Result<SocketAddr, TranslationError> {
        let host = peer.untranslated_address().ip();
        let own = SocketAddr::new(host, self.port);
        let to = self.to.get(&host.to_string());
        if let Some(tunnels) = &self.tunnels {
            let server = to.cloned().unwrap_or_else(|| own.to_string());
            return tunnels.to(&server).await.map_err(|error| TranslationError::IoError(Arc::new(error)));
        }
        let Some(to) = to else { return Ok(own) };
        let failed = |error| TranslationError::DnsLookupFailed(DnsLookupError::IoError(Arc::new(error)));
        let mut found = tokio::net::lookup_host(to).await.map_err(failed)?;
        let nowhere = || DnsLookupError::EmptyAddressListForHost(to.as_str().into());
        found.next().ok_or_else(|| TranslationError::DnsLookupFailed(nowhere()))
    }
}
