//! Refusals, deadlines, traces and epochs as they travel over gRPC.
//!
//! A refusal is a `tonic::Status` whose metadata carries the public code and the wait before a retry; its message is the
//! `info`. A status without that metadata is a fault of the transport or of the service, never a decision.

use std::time::Duration;

use linnet_types::{Epoch, Refusal, code};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, IntoRequest, Request, Status};

use crate::telemetry;

const CODE_KEY: &str = "linnet-code";
const RETRY_KEY: &str = "linnet-retry-after-ms";
const EPOCH_KEY: &str = "linnet-epoch";
const TIMEOUT_KEY: &str = "grpc-timeout";

/// The wait told to callers when the transport failed without a word.
pub const TRANSPORT_RETRY_MS: u32 = 200;

/// Longest `info` carried; the rest is cut (metadata has a size limit).
const INFO_BYTES: usize = 2048;

/// Packs a refusal. Retryable ones are `Unavailable`, final ones `FailedPrecondition`.
#[must_use]
pub fn to_status(refusal: &Refusal) -> Status {
    let mut metadata = MetadataMap::with_capacity(2);
    metadata.insert(CODE_KEY, MetadataValue::from(refusal.code));
    let mut code = Code::FailedPrecondition;
    if let Some(ms) = refusal.retry_after_ms {
        metadata.insert(RETRY_KEY, MetadataValue::from(ms));
        code = Code::Unavailable;
    }
    Status::with_metadata(code, cut(&refusal.info), metadata)
}

fn cut(info: &str) -> &str {
    &info[..info.floor_char_boundary(INFO_BYTES)]
}

/// Unpacks a refusal; a transport failure (unreachable, cut off, shed, too late) becomes a retryable [`code::BUSY`].
/// `None` for faults of the other side, which its own log explains.
#[must_use]
pub fn from_status(status: &Status) -> Option<Refusal> {
    if let Some(refusal) = carried(status) {
        return Some(refusal);
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
            Some(Refusal::retry(code::BUSY, "the service did not answer in time", TRANSPORT_RETRY_MS))
        }
        _ => None,
    }
}

/// Like [`from_status`], with a fault shown as `internal`, the caller's public code for "internal error".
#[must_use]
pub fn refusal_or(status: &Status, internal: u32) -> Refusal {
    from_status(status).unwrap_or_else(|| {
        tracing::error!(code = ?status.code(), message = status.message(), "inner call failed");
        Refusal::new(internal, "internal error")
    })
}

/// Whether the call may have been carried out although no answer came: only an idempotent call may be repeated.
#[must_use]
pub fn outcome_unknown(status: &Status) -> bool {
    carried(status).is_none()
        && matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

fn carried(status: &Status) -> Option<Refusal> {
    let number = |key| status.metadata().get(key)?.to_str().ok()?.parse::<u32>().ok();
    let code = number(CODE_KEY)?;
    Some(Refusal { code, info: status.message().to_owned(), retry_after_ms: number(RETRY_KEY) })
}

/// A request that must be answered within `timeout`, marked with the current trace.
pub fn with_deadline<T>(message: impl IntoRequest<T>, timeout: Duration) -> Request<T> {
    let mut request = message.into_request();
    request.set_timeout(timeout);
    telemetry::inject_metadata(request.metadata_mut());
    request
}

/// The time its caller gives a request (`grpc-timeout`); `None` when absent or malformed.
#[must_use]
pub fn timeout_of(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_KEY)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// The time left to a handler, from its request's metadata.
#[must_use]
pub fn time_left<T>(request: &Request<T>) -> Option<Duration> {
    timeout_of(request.metadata().as_ref())
}

/// Marks `request` with the epoch its sender holds.
#[must_use]
pub fn with_epoch<T>(mut request: Request<T>, epoch: Epoch) -> Request<T> {
    request.metadata_mut().insert(EPOCH_KEY, MetadataValue::from(epoch.0));
    request
}

/// The epoch the sender of a request holds.
#[must_use]
pub fn epoch_of<T>(request: &Request<T>) -> Option<Epoch> {
    request.metadata().get(EPOCH_KEY)?.to_str().ok()?.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests;
