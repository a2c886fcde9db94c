//! Just enough HTTP for loopback: one request a connection, the whole reply as text.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// What came back.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// GET of a path at `host:port`.
pub(crate) fn get(address: &str, path: &str) -> Result<Page> {
    request(address, "GET", path, "", None)
}

/// A request with a bearer token (none when empty) and a JSON body.
pub(crate) fn request(address: &str, method: &str, path: &str, token: &str, body: Option<&Value>) -> Result<Page> {
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP reply")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    Ok(Page { status, body: body.to_owned() })
}

/// As [`request`], insisting on success and JSON.
pub(crate) fn json(address: &str, method: &str, path: &str, token: &str, body: Option<&Value>) -> Result<Value> {
    let page =
        request(address, method, path, token, body).with_context(|| format!("{method} http://{address}{path}"))?;
    anyhow::ensure!(page.status == 200, "{method} http://{address}{path}: {} {}", page.status, page.body);
    serde_json::from_str(&page.body).with_context(|| format!("{method} http://{address}{path}: {}", page.body))
}
