use linnet_runtime::status::{from_status, outcome_unknown, timeout_of, to_status};
use linnet_types::{Refusal, code};
use proptest::prelude::*;

use super::*;

fn response(body: &'static [u8], tail: &[(&'static str, &'static str)]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    for (name, value) in tail {
        trailers.insert(*name, HeaderValue::from_static(value));
    }
    let body = Full::new(Bytes::from_static(body)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::new(Body::new(body))
}

#[tokio::test]
async fn success_needs_no_words_and_comes_back_whole() {
    let reply = reply_out(7, Ok(response(b"\0\0\0\0\x01x", &[("grpc-status", "0")]))).await;
    assert_eq!((reply.id, reply.head.len(), reply.tail.len(), reply.more), (7, 0, 0, false));
    let collected = reply_in(reply).into_body().collect().await.expect("no error");
    assert_eq!(collected.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(collected.to_bytes().as_ref(), b"\0\0\0\0\x01x");
}

#[tokio::test]
async fn metadata_after_the_body_comes_back() {
    let reply = reply_out(7, Ok(response(b"", &[("grpc-status", "5"), ("linnet-code", "10010")]))).await;
    let collected = reply_in(reply).into_body().collect().await.expect("no error");
    let tail = collected.trailers().expect("trailers");
    assert_eq!((tail["grpc-status"].as_bytes(), tail["linnet-code"].as_bytes()), (&b"5"[..], &b"10010"[..]));
}

#[tokio::test]
async fn refusals_keep_their_code_text_and_wait() {
    let refusal = Refusal::retry(code::BUSY, "too fast, später", 250);
    let back = reply_in(reply_out(1, Err(to_status(&refusal))).await);
    let status = Status::from_header_map(back.headers()).expect("a status");
    assert_eq!(from_status(&status), Some(refusal));
    assert!(!outcome_unknown(&status));
}

#[test]
fn a_body_that_is_not_ready_or_large_is_left_open() {
    let slow = Body::new(StreamBody::new(stream::pending::<Result<http_body::Frame<Bytes>, Status>>()));
    assert!(matches!(gather(slow), Ok(Gathered::Open(_))));
    let large = Body::new(Full::new(Bytes::from(vec![0; LARGE + 1])));
    assert!(matches!(gather(large), Ok(Gathered::Open(_))));
    let small = Body::new(Full::new(Bytes::from(vec![0; LARGE])));
    assert!(matches!(gather(small), Ok(Gathered::Whole(body)) if body.len() == LARGE));
}

#[tokio::test]
async fn an_open_body_keeps_what_was_taken() {
    let frames =
        [vec![1; LARGE], vec![2; 10], vec![3; 10]].map(|data| Ok::<_, Status>(http_body::Frame::data(data.into())));
    let Ok(Gathered::Open(body)) = gather(Body::new(StreamBody::new(stream::iter(frames)))) else { panic!("large") };
    let whole = body.collect().await.expect("no error").to_bytes();
    assert_eq!((whole.len(), whole[LARGE], whole[LARGE + 19]), (LARGE + 20, 2, 3));
}

proptest! {
    /// What a caller set is what a handler sees, whatever it is.
    #[test]
    fn calls_come_back(
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        lines in proptest::collection::vec(("x-[a-z]{1,12}", "[ -~]{0,40}"), 0..6),
        us in any::<u64>(),
    ) {
        let mut request = Request::post("/linnet.group.v1.Groups/Send").body(()).expect("a request");
        for (name, value) in &lines {
            let value = HeaderValue::from_str(value.trim()).expect("printable");
            request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        let (head, ()) = request.into_parts();
        let call = proto::Call { timeout_us: us, ..call_out(&head, body.clone().into()) };
        let back = call_in(call).expect("a path");
        prop_assert_eq!(back.uri().path(), "/linnet.group.v1.Groups/Send");
        for (name, _) in &lines {
            let all = |map: &HeaderMap| map.get_all(name.as_str()).iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(all(back.headers()), all(&head.headers));
        }
        let told = timeout_of(back.headers()).expect("a timeout").as_micros();
        prop_assert!(told <= u128::from(us) && (us >= 99_999_999_000 || u128::from(us) - told < 1000));
        let whole = futures::executor::block_on(back.into_body().collect()).expect("no error").to_bytes();
        prop_assert_eq!(whole.as_ref(), &body[..]);
    }
}
