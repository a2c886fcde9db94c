//! The request body: read within a size and a time, or thrown away so that the caller hears the answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;
use linnet_types::element::{MAX_DEPTH, check_depth};
use linnet_types::{Refusal, code};

/// Read and thrown away of a body that is not wanted, so that the connection can be used again or the answer is heard.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Reads a whole body.
///
/// # Errors
/// [`code::TIMEOUT`] when it is over `limit` bytes, broken off or slower than `timeout`; [`code::NOT_JSON`] when it is
/// empty, not UTF-8 or nests deeper than 32.
pub(crate) async fn read(body: Body, limit: usize, timeout: Duration) -> Result<String, Refusal> {
    let bytes = tokio::time::timeout(timeout, collect(body, limit)).await;
    let bytes = bytes.map_err(|_| Refusal::new(code::TIMEOUT, "the body did not arrive in time"))??;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::new(code::NOT_JSON, "the body is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Refusal::new(code::NOT_JSON, "the body is empty; send at least {}"));
    }
    if check_depth(&text).is_err() {
        return Err(Refusal::new(code::NOT_JSON, format!("the body nests deeper than {MAX_DEPTH}")));
    }
    Ok(text)
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::new(code::TIMEOUT, "the body broke off"))?;
        if bytes.len() + chunk.len() > limit {
            drop(bytes);
            drain(stream).await;
            return Err(Refusal::new(code::TIMEOUT, format!("the body is over {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Throws a body away, within bounds.
pub(crate) async fn discard(body: Body) {
    drain(body.into_data_stream()).await;
}

async fn drain<E>(mut stream: impl futures::Stream<Item = Result<Bytes, E>> + Unpin) {
    let all = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Over the time the connection is closed with the answer.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}
