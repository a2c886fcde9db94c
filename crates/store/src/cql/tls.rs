//! TLS towards the servers.
//!
//! The driver's own TLS brings a second provider of cryptography into the build. So it dials a listener of this process on
//! loopback, one for each server, and what it says there goes on to the server inside TLS. Nothing but this host sees it
//! outside TLS; servers should ask for a password beside our certificate, as anything on this host can dial the listener.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linnet_runtime::Tasks;
use linnet_runtime::metrics::Metrics;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Config;

/// Bytes taken at a time in each direction.
const CHUNK: usize = 32 << 10;

/// The listeners, by the server behind each. They end when this is dropped.
pub(super) struct Tunnels {
    dial: Arc<Dial>,
    open: Mutex<HashMap<String, SocketAddr>>,
    tasks: Tasks,
}

/// How servers are reached.
struct Dial {
    connector: TlsConnector,
    /// The name every server carries, where it is not its address.
    name: Option<ServerName<'static>>,
    timeout: Duration,
}

impl Tunnels {
    /// `None` when no TLS is asked for. The error names the file that is wrong.
    pub(super) fn new(config: &Config) -> Result<Option<Arc<Self>>, String> {
        if config.tls_ca.is_empty() {
            return Ok(None);
        }
        let name = match config.tls_name.as_str() {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|e| format!("tls_name {name}: {e}"))?),
        };
        let connector = TlsConnector::from(Arc::new(client(config)?));
        let dial = Arc::new(Dial { connector, name, timeout: config.connect_timeout.get() });
        Ok(Some(Arc::new(Self { dial, open: Mutex::default(), tasks: Tasks::new(&Metrics::new()) })))
    }

    /// Where to dial to speak to `server` (`host:port`) inside TLS.
    pub(super) async fn to(&self, server: &str) -> std::io::Result<SocketAddr> {
        if let Some(open) = self.open.lock().get(server) {
            return Ok(*open);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let here = listener.local_addr()?;
        let first = *self.open.lock().entry(server.to_owned()).or_insert(here);
        if first == here {
            let (dial, tasks, server) = (self.dial.clone(), self.tasks.clone(), server.to_owned());
            self.tasks.spawn("store-tls", async move { listen(listener, server, dial, tasks).await });
        }
        Ok(first)
    }

    /// Shakes hands with `server` once, for an error that says what is wrong.
    pub(super) async fn probe(&self, server: &str) -> Result<(), String> {
        self.dial.server(server).await.map(drop).map_err(|error| format!("{server}: {error}"))
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.tasks.drain();
    }
}

impl Dial {
    async fn server(&self, server: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let connect = async {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let name = match &self.name {
                Some(name) => name.clone(),
                None => {
                    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
                    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    ServerName::try_from(host).map_err(std::io::Error::other)?
                }
            };
            self.connector.connect(name, stream).await
        };
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(self.timeout, connect).await.map_err(late)?
    }
}

async fn listen(listener: TcpListener, server: String, dial: Arc<Dial>, tasks: Tasks) {
    let draining = tasks.draining();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let Ok((inside, _)) = accepted else { continue };
        let (dial, server, draining) = (dial.clone(), server.clone(), draining.clone());
        tasks.spawn("store-tls-connection", async move {
            // A server that cannot be reached shows as a connection that ends.
            let carried = async {
                match dial.server(&server).await {
                    Ok(outside) => carry(inside, outside).await,
                    Err(error) => tracing::debug!(server, %error, "no TLS connection to a CQL server"),
                }
            };
            draining.run_until_cancelled(carried).await;
        });
    }
}

/// Carries bytes both ways until either side ends: then both are closed, as a paused server would never close its own.
async fn carry(inside: TcpStream, outside: TlsStream<TcpStream>) {
    let _ = inside.set_nodelay(true);
    let (from_inside, to_inside) = inside.into_split();
    let (from_outside, to_outside) = tokio::io::split(outside);
    tokio::select! {
        () = copy(from_inside, to_outside) => {}
        () = copy(from_outside, to_inside) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

fn client(config: &Config) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.tls_ca)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", config.tls_ca))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?.with_root_certificates(roots);
    if config.tls_cert.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_file(&config.tls_key).map_err(|error| format!("{}: {error}", config.tls_key))?;
    let own = builder.with_client_auth_cert(certificates(&config.tls_cert)?, key);
    own.map_err(|error| format!("{}: {error}", config.tls_cert))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(Path::new(path)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{path}: no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
