//! Posting one webhook and naming what went wrong.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use linnet_proto::callback::{BeforeReply, Event, WatchEvent};
use linnet_runtime::Clock;
use linnet_types::AppSettings;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

use crate::answer::{self, ANSWER_BYTES, Reason};
use crate::request;

/// Idle connections kept to one app's server.
const IDLE: usize = 64;
/// How much of an answer watchers see.
const SHOWN: usize = 4096;

/// Posts webhooks. Two clients: one resolves to public addresses only.
pub(crate) struct Sender {
    public: reqwest::Client,
    any: reqwest::Client,
    allow_private: bool,
    clock: Clock,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Result<BeforeReply, Reason>,
    pub(crate) http_status: u16,
    pub(crate) took: Duration,
    pub(crate) url: String,
    pub(crate) answer: Vec<u8>,
}

impl Attempt {
    pub(crate) fn verdict(&self) -> &'static str {
        self.outcome.as_ref().map_or_else(|reason| reason.label(), |_| "ok")
    }

    /// What watchers are shown.
    pub(crate) fn shown(&self, event: &Event, attempt: u32) -> WatchEvent {
        WatchEvent {
            event: Some(event.clone()),
            url: self.url.clone(),
            http_status: self.http_status.into(),
            verdict: self.verdict().to_owned(),
            took_ms: u32::try_from(self.took.as_millis()).unwrap_or(u32::MAX),
            attempt,
            answer: self.answer[..self.answer.len().min(SHOWN)].to_vec().into(),
        }
    }
}

impl Sender {
    /// `allow_private`: every app may name private addresses (one machine, for trying out).
    pub(crate) fn new(allow_private: bool, clock: Clock) -> Result<Self, reqwest::Error> {
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
        Ok(Self { public: build(true)?, any: build(false)?, allow_private, clock })
    }

    /// Posts `event` once and waits at most the app's time-out.
    pub(crate) async fn post(&self, settings: &AppSettings, event: &Event) -> Attempt {
        let started = self.clock.mono();
        let timeout = Duration::from_millis(settings.webhook_timeout_ms.into());
        let mut attempt = Attempt {
            outcome: Err(Reason::Timeout),
            http_status: 0,
            took: Duration::ZERO,
            url: String::new(),
            answer: Vec::new(),
        };
        let sent = tokio::time::timeout(timeout, self.exchange(settings, event, &mut attempt)).await;
        attempt.outcome = sent.unwrap_or(Err(Reason::Timeout));
        attempt.took = self.clock.mono().saturating_sub(started);
        attempt
    }

    async fn exchange(
        &self,
        settings: &AppSettings,
        event: &Event,
        attempt: &mut Attempt,
    ) -> Result<BeforeReply, Reason> {
        let now_s = self.clock.now().secs();
        let url = request::url(settings, event, now_s).map_err(|_| Reason::Dns)?;
        attempt.url = url.to_string();
        let private = self.allow_private || settings.webhook_allow_private;
        // A resolver is not asked about an address written out.
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if !private && literal.is_some_and(|ip| !is_public(ip)) {
            return Err(Reason::Unroutable);
        }
        let body = request::body(event).map_err(|error| {
            tracing::error!(command = event.command, %error, "a webhook body is not a JSON object");
            Reason::BadBody
        })?;
        let client = if private { &self.any } else { &self.public };
        let mut post = client.post(url).header("content-type", "application/json; charset=utf-8");
        if settings.webhook_auth {
            let signature = request::body_signature(&settings.webhook_token, now_s, &body);
            post = post.header("x-linnet-signature", signature);
        }
        let mut answer = post.body(body).send().await.map_err(|error| classify(&error))?;
        attempt.http_status = answer.status().as_u16();
        while let Some(part) = answer.chunk().await.map_err(|error| classify(&error))? {
            if attempt.answer.len() + part.len() > ANSWER_BYTES {
                return Err(Reason::BadBody);
            }
            attempt.answer.extend_from_slice(&part);
        }
        if attempt.http_status != 200 {
            return Err(Reason::HttpStatus);
        }
        answer::read(&attempt.answer)
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

/// The name resolves to addresses that webhooks may not reach.
#[derive(Debug, thiserror::Error)]
#[error("resolves to no public address")]
struct NotPublic;

/// The system's resolver; with `public`, private and loopback addresses are left out, so a name cannot smuggle one in
/// between the check and the connection.
struct Guarded {
    public: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let public = self.public;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<SocketAddr> = found.filter(|at| !public || is_public(at.ip())).collect();
            if kept.is_empty() {
                return Err(Box::new(NotPublic).into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet: not loopback, private, link-local (cloud metadata), shared,
/// multicast, reserved, or one of these mapped into IPv6.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_documentation()
                || shared
                || benchmark
                || a == 0
                || a >= 240
                || (a == 192 && b == 0))
        }
        IpAddr::V6(ip) => {
            if let Some(v4) = ip.to_ipv4() {
                return is_public(IpAddr::V4(v4));
            }
            let [first, second, ..] = ip.segments();
            let nat64 = ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            // Teredo and documentation, 6to4: each carries an IPv4 address that nobody checks, or none.
            let wrapped = (first == 0x2001 && (second == 0 || second == 0xdb8)) || first == 0x2002;
            let special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || nat64 || wrapped;
            let local = ip.is_unique_local() || ip.is_unicast_link_local();
            !(special || local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_seen_through_disguises() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2001:4860:4860::8888"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }
}
