//! HTTP to servers that apps name: webhooks and push providers.
//!
//! Hides how a target on a private address is kept out, how a request is signed, and how a failure gets its name.
//!
//! - An address is checked where it is connected to: written out in the URL, or as the resolver answers it, so a name
//!   cannot smuggle a private one in between the check and the connection. Redirects are not followed, proxies not used.
//! - A signature is made for each attempt; a request's id is the same on all of them.
#![warn(missing_docs)]

mod address;
mod sign;

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use url::Url;

pub use address::is_public;
pub use sign::{body_signature, name_of, sign};

use crate::address::{Guarded, NotPublic};

/// Idle connections kept to one app's server.
const IDLE: usize = 64;

/// Why a request failed: the labels an operator sees (`spec/webhooks.md` §1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The name has no address.
    Dns,
    /// The address cannot be reached, or may not be.
    Unroutable,
    /// No answer in time.
    Timeout,
    /// Nobody listens, or the connection broke.
    Refused,
    /// No secure connection.
    Tls,
    /// An answer, but not 200.
    HttpStatus,
    /// An answer that makes no sense or is too long.
    BadBody,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Dns, Self::Unroutable, Self::Timeout, Self::Refused, Self::Tls, Self::HttpStatus, Self::BadBody];

    /// Its label in metrics and lists.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Unroutable => "unroutable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::HttpStatus => "http_status",
            Self::BadBody => "bad_body",
        }
    }

    /// The server was not reached: whatever else there is for it would fare alike.
    #[must_use]
    pub const fn is_unreached(self) -> bool {
        matches!(self, Self::Dns | Self::Unroutable | Self::Timeout | Self::Refused | Self::Tls)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where to.
    pub url: Url,
    /// JSON.
    pub body: String,
    /// Value of `X-Linnet-Signature`; `None` = unsigned.
    pub signature: Option<String>,
    /// Private addresses may be reached.
    pub private: bool,
    /// Time for all of it.
    pub timeout: Duration,
    /// Longest answer; more is [`Reason::BadBody`].
    pub answer_bytes: usize,
}

/// How a request went.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// HTTP status; 0 = none came.
    pub status: u16,
    /// What was read of the answer.
    pub body: Vec<u8>,
    /// Seconds after which the server wants to be asked again (`Retry-After`).
    pub retry_after_s: Option<u64>,
}

/// Posts to servers that apps name. Two clients: one resolves to public addresses only.
pub struct Outbound {
    public: reqwest::Client,
    any: reqwest::Client,
}

impl Outbound {
    /// Clients with their own connections.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new() -> Result<Self, reqwest::Error> {
        let build = |public| {
            reqwest::Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .pool_max_idle_per_host(IDLE)
                .tcp_nodelay(true)
                .user_agent(concat!("linnet/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(Guarded { public }))
                .build()
        };
        Ok(Self { public: build(true)?, any: build(false)? })
    }

    /// Posts once. What was learnt before a failure is in `answered`.
    ///
    /// # Errors
    /// Why there is no answer with status 200.
    pub async fn post(&self, post: Post, answered: &mut Answered) -> Result<(), Reason> {
        let timeout = post.timeout;
        tokio::time::timeout(timeout, self.exchange(post, answered)).await.unwrap_or(Err(Reason::Timeout))
    }

    async fn exchange(&self, post: Post, answered: &mut Answered) -> Result<(), Reason> {
        // A resolver is not asked about an address written out.
        if !post.private && address::literal(&post.url).is_some_and(|ip| !is_public(ip)) {
            return Err(Reason::Unroutable);
        }
        let client = if post.private { &self.any } else { &self.public };
        let mut request = client.post(post.url).header("content-type", "application/json; charset=utf-8");
        if let Some(signature) = post.signature {
            request = request.header("x-linnet-signature", signature);
        }
        let mut answer = request.body(post.body).send().await.map_err(|error| classify(&error))?;
        answered.status = answer.status().as_u16();
        let retry = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        answered.retry_after_s = retry.and_then(|text| text.parse().ok());
        while let Some(part) = answer.chunk().await.map_err(|error| classify(&error))? {
            if answered.body.len() + part.len() > post.answer_bytes {
                return Err(Reason::BadBody);
            }
            answered.body.extend_from_slice(&part);
        }
        if answered.status == 200 { Ok(()) } else { Err(Reason::HttpStatus) }
    }
}

fn classify(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        return Reason::Timeout;
    }
    let mut cause = error.source();
    while let Some(now) = cause {
        if now.is::<NotPublic>() {
            return Reason::Unroutable;
        }
        if now.is::<rustls::Error>() {
            return Reason::Tls;
        }
        if let Some(io) = now.downcast_ref::<io::Error>() {
            if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Reason::Tls;
            }
            if io.get_ref().is_some_and(|inner| inner.is::<NotPublic>()) {
                return Reason::Unroutable;
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return Reason::Refused;
                }
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => return Reason::Unroutable,
                _ => {}
            }
        }
        if now.to_string().contains("dns error") {
            let inner = now.source().is_some_and(|inner| inner.is::<NotPublic>());
            return if inner { Reason::Unroutable } else { Reason::Dns };
        }
        cause = now.source();
    }
    if error.is_body() || error.is_decode() { Reason::BadBody } else { Reason::Refused }
}
