//! HTTP requests and responses as items of a stream, and back.

use std::pin::pin;

use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use linnet_proto::cluster as proto;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as _, Bytes};

/// Requests above this go by a connection of their own, where they hold nobody up.
pub(super) const LARGE: usize = 256 << 10;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What every message has, and the other end sets again.
const IMPLIED: [HeaderName; 6] = [CONTENT_TYPE, CONTENT_LENGTH, DATE, TE, USER_AGENT, GRPC_TIMEOUT];

/// The body of a request that is to be sent.
pub(super) enum Gathered {
    /// A message that was ready.
    Whole(Bytes),
    /// One that is large, or still being made: a stream of requests.
    Open(Body),
}

/// Takes a body without waiting for it, so that calls keep their order.
pub(super) fn gather(mut body: Body) -> Result<Gathered, Status> {
    let mut whole = Vec::with_capacity(1);
    let mut bytes = 0;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        match pin!(&mut body).poll_frame(&mut context) {
            std::task::Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                bytes += data.len();
                whole.push(data);
                if bytes > LARGE {
                    return Ok(Gathered::Open(rejoin(whole, body)));
                }
            }
            std::task::Poll::Ready(Some(Err(status))) => return Err(status),
            std::task::Poll::Ready(None) => return Ok(Gathered::Whole(concat(whole))),
            // Whoever reads the rest polls again, with a waker that counts.
            std::task::Poll::Pending => return Ok(Gathered::Open(rejoin(whole, body))),
        }
    }
}

fn rejoin(begun: Vec<Bytes>, rest: Body) -> Body {
    let begun = stream::iter(begun).map(|data| Ok(http_body::Frame::data(data)));
    Body::new(StreamBody::new(begun.chain(BodyStream::new(rest))))
}

fn concat(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    }
}

fn headers_out(map: &HeaderMap) -> Vec<proto::Header> {
    let wanted = map.iter().filter(|(name, _)| !IMPLIED.contains(name));
    let line = |(name, value): (&HeaderName, &HeaderValue)| proto::Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    wanted.map(line).collect()
}

/// Lines that cannot be headers are left out: the other end made them from headers.
fn headers_in(lines: Vec<proto::Header>, map: &mut HeaderMap) {
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(line.value)) {
            map.append(name, value);
        }
    }
}

/// A call without its id and its time.
pub(super) fn call_out(head: &http::request::Parts, body: Bytes) -> proto::Call {
    let path = head.uri.path().to_owned();
    proto::Call { id: 0, path, timeout_us: 0, headers: headers_out(&head.headers), body }
}

/// The size of what was put into an item by its caller.
pub(super) fn size(headers: &[proto::Header], body: &Bytes) -> usize {
    body.len() + headers.iter().map(|line| line.name.len() + line.value.len() + 8).sum::<usize>() + 64
}

/// The request a call was made from; `None` when its path is none.
pub(super) fn call_in(call: proto::Call) -> Option<Request<Body>> {
    let mut request = Request::new(Body::new(Full::new(call.body)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = call.path.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(GRPC_TIMEOUT, timeout(call.timeout_us));
    headers_in(call.headers, headers);
    Some(request)
}

/// At most eight digits and a unit.
pub(super) fn timeout(us: u64) -> HeaderValue {
    let text = match us {
        0..100_000_000 => format!("{us}u"),
        _ => format!("{}m", (us / 1000).min(99_999_999)),
    };
    HeaderValue::try_from(text).expect("digits and a letter")
}

/// What a handler answered, its body gathered.
pub(super) async fn reply_out(id: u64, result: Result<Response<Body>, Status>) -> proto::Reply {
    let gathered = match result {
        Ok(response) => {
            let (head, body) = response.into_parts();
            body.collect().await.map(|body| (head, body))
        }
        Err(status) => Err(status),
    };
    let (head, body) = match gathered {
        Ok(gathered) => gathered,
        Err(status) => return status_out(id, &status),
    };
    let tail = body.trailers().map(headers_out).unwrap_or_default();
    let plain = tail.len() == 1 && tail[0].name == GRPC_STATUS.as_str() && tail[0].value.as_ref() == b"0";
    proto::Reply {
        id,
        head: headers_out(&head.headers),
        body: body.to_bytes(),
        tail: if plain { Vec::new() } else { tail },
        more: false,
    }
}

/// A refusal or a fault as a reply.
pub(super) fn status_out(id: u64, status: &Status) -> proto::Reply {
    let mut head = HeaderMap::new();
    // Fails only for metadata that is not printable, which ours is.
    if status.add_header(&mut head).is_err() {
        head.insert(GRPC_STATUS, HeaderValue::from(tonic::Code::Internal as i32));
    }
    proto::Reply { id, head: headers_out(&head), body: Bytes::new(), tail: Vec::new(), more: false }
}

/// The response of the local path that this reply was made from.
pub(super) fn reply_in(reply: proto::Reply) -> Response<Body> {
    let mut head = HeaderMap::with_capacity(reply.head.len() + 1);
    headers_in(reply.head, &mut head);
    head.insert(CONTENT_TYPE, GRPC);
    let body = if head.contains_key(GRPC_STATUS) {
        Body::empty()
    } else {
        let mut tail = HeaderMap::with_capacity(reply.tail.len() + 1);
        headers_in(reply.tail, &mut tail);
        if tail.is_empty() {
            tail.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        }
        Body::new(Full::new(reply.body).with_trailers(std::future::ready(Some(Ok(tail)))))
    };
    let mut response = Response::new(body);
    *response.headers_mut() = head;
    response
}

#[cfg(test)]
mod tests;
