//! The one HTTP client of the commands, and what its failures mean to a person.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Certificate, Client, Response};

use crate::output::Failure;
use crate::target::Target;

const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for a whole answer; streams have none.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// A client that trusts the server's private CA when it has one.
///
/// # Errors
/// When the CA file cannot be read.
pub(crate) fn client(target: &Target) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .no_proxy()
        .tcp_nodelay(true)
        .user_agent(concat!("linnet/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = target.ca.as_ref().filter(|_| target.rest.starts_with("https")) {
        let pem = std::fs::read(file).with_context(|| format!("cannot read the CA file {}", file.display()))?;
        let trusted = Certificate::from_pem_bundle(&pem).with_context(|| format!("{} is no PEM", file.display()))?;
        builder = builder.tls_certs_only(trusted);
    }
    Ok(builder.build()?)
}

/// A request that got no answer.
pub(crate) fn unreachable(server: &str, error: &reqwest::Error) -> anyhow::Error {
    if error.is_timeout() && !error.is_connect() {
        return Failure::unreachable(server, format!("no answer within {} s", ANSWER.as_secs())).into();
    }
    // The outer layers only repeat the address.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failure::unreachable(server, cause).into()
}

/// The body of an answer as text, at most `cap` bytes of it.
///
/// # Errors
/// [`Failure`] when the connection breaks or the body is larger.
pub(crate) async fn text(server: &str, mut response: Response, cap: usize) -> Result<String> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| unreachable(server, &error))? {
        if body.len() + part.len() > cap {
            let todo = "ask for less at once (--limit)";
            return Err(Failure::refused(
                format!("the answer of {server} is too large"),
                format!("over {cap} bytes"),
                todo,
            )
            .into());
        }
        body.extend_from_slice(&part);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
