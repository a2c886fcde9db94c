//! From an HTTP request to a connection of a shard.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tungstenite::handshake::derive_accept_key;

use crate::hub::Hub;
use crate::shard::{Command, Upgraded};
use crate::socket::Socket;
use crate::wire::Wire;

/// What the upgrade answers with; an axum handler maps the body with `Body::new`.
pub type Answer = Response<Full<Bytes>>;

/// Time the HTTP server has to hand over the socket.
const HAND_OVER: Duration = Duration::from_secs(10);

/// Accepts upgrades; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) hub: Arc<Hub>,
}

impl Gateway {
    /// Answers a WebSocket upgrade and, once the HTTP server has let go of the socket, gives it to a shard. Works on the
    /// streams hyper and axum serve over plain TCP and TLS alike; the server must serve with upgrades. `ip` is the
    /// client's address as webhooks show it.
    ///
    /// Answers 101, or 400, 405, 426 for what is no WebSocket request, 503 with `Retry-After` when there is no room. It
    /// never blocks. The HTTP server bounds the time of the request's head (slow-loris); from the upgrade on the
    /// connection has `sign_in_deadline`.
    pub fn upgrade<B>(&self, mut request: Request<B>, ip: &str) -> Answer {
        let key = match check(request.method(), request.headers()) {
            Ok(key) => key,
            Err((status, why)) => return refuse(status, why),
        };
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let Some((wire, named)) = Wire::choose(offers.iter().filter_map(|line| line.to_str().ok())) else {
            return refuse(StatusCode::BAD_REQUEST, "subprotocols: linnet.v1, linnet.v1+json");
        };
        let number = match self.hub.admit() {
            Ok(number) => number,
            Err(why) => return busy(why.retry_after_ms),
        };
        let upgrading = hyper::upgrade::on(&mut request);
        let hub = Arc::clone(&self.hub);
        let ip: Box<str> = ip.into();
        self.hub.tasks.spawn("gateway.upgrade", async move {
            let upgraded = match tokio::time::timeout(HAND_OVER, upgrading).await {
                Ok(Ok(upgraded)) => upgraded,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a socket was not handed over");
                    return hub.abandoned();
                }
                Err(_) => return hub.abandoned(),
            };
            let (socket, leftover) = Socket::of(upgraded);
            hub.connect(Upgraded { socket, number, wire, ip, leftover }).await;
        });
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header value");
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if named {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(wire.name()));
        }
        answer
    }
}

impl Hub {
    /// Gives a socket to a shard.
    pub(crate) async fn connect(&self, upgraded: Upgraded) {
        let shard = (upgraded.number % self.shards.len() as u64) as u16;
        self.tell(shard, Command::Connect(upgraded)).await;
    }
}

/// The client's key, if this is a WebSocket request of the only version there is.
fn check(method: &Method, headers: &HeaderMap) -> Result<String, (StatusCode, &'static str)> {
    if method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"));
    }
    // Proxies spell it `Upgrade`, browsers may say `keep-alive, Upgrade` (`traps.md` 29).
    let has = |name, token: &str| {
        let lines = headers.get_all(name).iter().filter_map(|line: &HeaderValue| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.len() != 24 {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or wrong"));
    }
    Ok(key.to_owned())
}

fn refuse(status: StatusCode, why: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(why.as_bytes())));
    *answer.status_mut() = status;
    if status == StatusCode::UPGRADE_REQUIRED {
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    answer
}

fn busy(retry_after_ms: Option<u32>) -> Answer {
    let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, "no room for another connection");
    let seconds = retry_after_ms.unwrap_or(1000).div_ceil(1000);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(change: impl FnOnce(&mut HeaderMap)) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        change(&mut headers);
        check(&Method::GET, &headers).map_or_else(|(status, _)| status.as_u16(), |_| 101)
    }

    #[test]
    fn what_is_no_websocket_is_told_so() {
        assert_eq!(status(|_| ()), 101);
        assert_eq!(status(|h| drop(h.remove("upgrade"))), 426);
        assert_eq!(status(|h| drop(h.insert("connection", HeaderValue::from_static("close")))), 426);
        assert_eq!(status(|h| drop(h.insert("sec-websocket-version", HeaderValue::from_static("8")))), 426);
        assert_eq!(status(|h| drop(h.insert("sec-websocket-key", HeaderValue::from_static("short")))), 400);
        assert!(check(&Method::POST, &HeaderMap::new()).is_err());
    }
}
