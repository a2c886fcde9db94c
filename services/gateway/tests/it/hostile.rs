//! Bad, slow and greedy clients.

use std::time::Duration;

use linnet_client::proto::{Frame, frame};
use linnet_gateway::Config;
use linnet_runtime::config::{ByteSize, Period};
use linnet_types::code;
use tokio::io::AsyncWriteExt;

use crate::fakes::{Node, eventually};
use crate::raw::{MASK, Raw};

fn error_of(frame: &Frame) -> u32 {
    match &frame.body {
        Some(frame::Body::Error(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_the_right_status() {
    let node = Node::start(Config::default()).await;
    let cases: [(&[u8], u16); 4] = [
        (&[0x81, 0x02, b'h', b'i'], 1002),
        (&[0xC1, 0x80, 1, 2, 3, 4], 1002),
        (&[0x83, 0x80, 1, 2, 3, 4], 1002),
        (&[0x09, 0x80, 1, 2, 3, 4], 1002),
    ];
    for (bytes, status) in cases {
        let mut raw = Raw::open(&node, "/ws").await;
        raw.stream.write_all(bytes).await.expect("writes");
        assert_eq!(raw.closed().await.1, status, "{bytes:?}");
    }
    let mut raw = Raw::open(&node, "/binfo").await;
    raw.send(0x81, &[0xff, 0xfe]).await;
    assert_eq!(raw.closed().await.1, 1007);
}

#[tokio::test]
async fn oversize_frames_are_named_before_their_bytes_arrive() {
    let node = Node::start(Config::default()).await;
    let mut raw = Raw::open(&node, "/ws").await;
    raw.stream.write_all(&[0x81, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0]).await.expect("writes");
    raw.stream.write_all(&MASK).await.expect("writes");
    assert_eq!(raw.closed().await, (Some(code::FRAME_TOO_LARGE), 1009));

    let mut raw = Raw::open(&node, "/ws").await;
    raw.sign_in(&node, "alice").await;
    raw.send(0x81, &vec![b' '; 200 << 10]).await;
    assert_eq!(raw.closed().await, (Some(code::FRAME_TOO_LARGE), 1009));
}

#[tokio::test]
async fn nonsense_is_refused_and_the_connection_goes_on() {
    let node = Node::start(Config::default()).await;
    let mut raw = Raw::open(&node, "/ws").await;
    assert_eq!(error_of(&raw.text(r#"{"id":1,"sync":{}}"#).await), code::NOT_SIGNED_IN);
    raw.sign_in(&node, "alice").await;
    for bad in
        ["", "null", "[]", "{", r#"{"id":2}"#, r#"{"id":0,"ping":{}}"#, r#"{"id":2,"fly":{}}"#, r#"{"id":2,"ping":3}"#]
    {
        assert_eq!(error_of(&raw.text(bad).await), code::FRAME_BAD, "{bad}");
    }
    let unknown = raw.text(r#"{"id":77,"fly":{"x":[1]}}"#).await;
    assert_eq!((unknown.id, error_of(&unknown)), (77, code::FRAME_BAD));
    assert_eq!(error_of(&raw.text(r#"{"id":3,"signed_in":{}}"#).await), code::FRAME_BAD, "a reply is no request");
    assert!(matches!(raw.text(r#"{"id":4,"ping":{}}"#).await.body, Some(frame::Body::Pong(_))));
}

#[tokio::test]
async fn fragments_and_frames_in_one_packet_are_read() {
    let node = Node::start(Config::default()).await;
    let mut raw = Raw::open(&node, "/ws").await;
    raw.sign_in(&node, "alice").await;
    raw.send(0x01, br#"{"id":5,"#).await;
    raw.send(0x89, b"are you there").await;
    raw.send(0x80, br#""ping":{}}"#).await;
    let (op, payload) = raw.frame().await.expect("pong");
    assert_eq!((op, payload.as_slice()), (10, &b"are you there"[..]));
    let (op, payload) = raw.frame().await.expect("reply");
    assert!(op == 1 && payload.starts_with(br#"{"id":5,"pong""#));
    // Byte by byte, slowly: the rest of a frame is waited for.
    for byte in [0x81_u8, 0x80 | 18].into_iter().chain(MASK) {
        raw.stream.write_all(&[byte]).await.expect("writes");
    }
    for (at, byte) in br#"{"id":6,"ping":{}}"#.iter().enumerate() {
        raw.stream.write_all(&[byte ^ MASK[at % 4]]).await.expect("writes");
        tokio::task::yield_now().await;
    }
    assert!(raw.frame().await.expect("reply").1.starts_with(br#"{"id":6,"pong""#));
}

#[tokio::test]
async fn who_does_not_sign_in_or_falls_silent_is_closed() {
    let config = Config { sign_in_deadline: Period::secs(1), ping: Period::secs(1), ..Config::default() };
    let node = Node::start(config).await;
    let mut slow = Raw::open(&node, "/ws").await;
    slow.stream.write_all(&[0x81]).await.expect("writes");
    assert_eq!(slow.closed().await.1, 1008);
    let mut silent = Raw::open(&node, "/ws").await;
    silent.sign_in(&node, "alice").await;
    while let Some((op, _)) = silent.frame().await {
        assert_eq!(op, 9, "pings that are not answered");
    }
    eventually("the session is recorded as timed out", || {
        node.world.lock().sign_outs.iter().any(|out| out.reason == "TimeOut")
    })
    .await;
}

#[tokio::test]
async fn a_closing_handshake_ends_at_once_whoever_begins_it() {
    let node = Node::start(Config::default()).await;
    let began = node.clock.mono();
    let mut raw = Raw::open(&node, "/ws").await;
    raw.sign_in(&node, "alice").await;
    raw.send(0x88, &[0x03, 0xE8]).await;
    assert_eq!(raw.closed().await.1, 1000);
    assert_eq!(raw.frame().await, None, "the server lets go");
    let mut raw = Raw::open(&node, "/ws").await;
    raw.sign_in(&node, "alice").await;
    assert!(matches!(raw.text(r#"{"id":2,"sign_out":{}}"#).await.body, Some(frame::Body::Ok(_))));
    assert_eq!(raw.closed().await.1, 1000);
    raw.send(0x88, &[0x03, 0xE8]).await;
    assert_eq!(raw.frame().await, None);
    assert!(node.clock.mono() - began < Duration::from_millis(1800), "nobody waited for the deadline");
}

#[tokio::test]
async fn a_flood_is_refused_then_ended_while_others_are_served() {
    let config = Config { frames_per_s: 50, frames_burst: 50, ..Config::default() };
    let node = Node::start(config).await;
    let (bob, _events) = node.client("bob").await;
    let mut raw = Raw::open(&node, "/ws").await;
    raw.sign_in(&node, "alice").await;
    for _ in 0..400 {
        raw.send(0x81, br#"{"id":9,"ping":{}}"#).await;
    }
    bob.text("C2C:carol", "hello").await.expect("others are served");
    assert_eq!(raw.closed().await, (Some(code::CONN_RATE), 1008));
}

#[tokio::test]
async fn who_does_not_read_is_bounded_then_closed_and_every_delivery_is_accounted_for() {
    let config = Config {
        queue_frames: 8,
        queue_bytes: ByteSize::kib(64),
        overflow_deadline: Period::secs(1),
        frames_per_s: 100_000,
        frames_burst: 100_000,
        ..Config::default()
    };
    let node = Node::start(config).await;
    let (alice, _a) = node.client("alice").await;
    let (_carol, mut carol) = node.client("carol").await;
    let mut lazy = Raw::open(&node, "/ws").await;
    lazy.sign_in(&node, "bob").await;
    let text = "x".repeat(10_000);
    eventually_async(&node, || async {
        for _ in 0..50 {
            alice.text("C2C:bob", &text).await.expect("stored");
        }
        node.metrics.sum("linnet_gateway_deliveries_collapsed_total") > 0.0
    })
    .await;
    alice.text("C2C:carol", "still here").await.expect("stored");
    assert!(carol.message().await.is_some(), "others are served");
    eventually("the lazy one is closed", || {
        node.metrics.value("linnet_gateway_closed_total{cause=\"overflow\"}").is_some()
    })
    .await;
    drop(lazy);
    node.accounts_add_up().await;
}

async fn eventually_async<F: Future<Output = bool>>(node: &Node, mut fact: impl FnMut() -> F) {
    let deadline = node.clock.mono() + Duration::from_secs(60);
    while !fact().await {
        assert!(node.clock.mono() < deadline, "not within a minute");
    }
}
