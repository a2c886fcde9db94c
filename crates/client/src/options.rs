//! Who connects where, and how.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes a client can speak over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Makes a connection other than by TCP.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> + Send + Sync>;

/// Which subprotocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `linnet.v1`.
    #[default]
    Protobuf,
    /// `linnet.v1+json`.
    Json,
}

/// Everything a client needs to sign in.
#[derive(Clone)]
pub struct Options {
    /// `ws://host:port/ws` or `wss://…`.
    pub url: String,
    /// SDKAppID.
    pub app: u32,
    /// User.
    pub user: String,
    /// UserSig.
    pub usersig: String,
    /// `Web`, `Android`, …; empty = Web.
    pub platform: String,
    /// Name of this device, kept over reconnects; empty = the server chooses.
    pub instance: String,
    /// Subprotocol.
    pub encoding: Encoding,
    /// Root certificates in PEM to trust instead of the public ones.
    pub ca_pem: Option<Vec<u8>>,
    /// Come back by itself when the connection is lost.
    pub reconnect: bool,
    /// First wait before coming back; it doubles up to [`Options::backoff_max`], with jitter.
    pub backoff: Duration,
    /// Longest wait before coming back.
    pub backoff_max: Duration,
    /// Time a request may take; sends are repeated within it.
    pub timeout: Duration,
    /// Close gaps from history and follow conversations by `sync`. Off for load runs, which count what is pushed.
    pub follow: bool,
    /// Events a slow reader may lag behind; then reading from the socket stops.
    pub backlog: usize,
    /// How to reach the server of `url` instead of over TCP: a tunnel, a simulation.
    pub dial: Option<Dial>,
}

impl Options {
    /// The defaults: protobuf, platform Web, reconnecting, following.
    #[must_use]
    pub fn new(url: impl Into<String>, app: u32, user: impl Into<String>, usersig: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            app,
            user: user.into(),
            usersig: usersig.into(),
            platform: String::new(),
            instance: String::new(),
            encoding: Encoding::Protobuf,
            ca_pem: None,
            reconnect: true,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
            timeout: Duration::from_secs(15),
            follow: true,
            backlog: 1024,
            dial: None,
        }
    }

    /// The same over JSON.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.encoding = Encoding::Json;
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the UserSig.
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("app", &self.app)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
