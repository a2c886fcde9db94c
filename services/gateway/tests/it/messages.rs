//! Sending and receiving.

use std::time::Duration;

use linnet_client::proto::{self, item};
use linnet_client::{Error, Event};
use linnet_gateway::Config;
use linnet_proto::delivery::{Batch, Changed, Record, batch, control, record};
use linnet_proto::{delivery, group, msg};
use linnet_runtime::config::Period;
use linnet_types::code;

use crate::fakes::{APP, LARGE, Node, Proxy, eventually, publish, refusal};

#[tokio::test]
async fn a_message_reaches_the_peer_in_both_encodings_and_not_its_own_connection() {
    let node = Node::start(Config::default()).await;
    let (alice, mut alice_events) = node.connect(node.options("alice").json()).await;
    let (_bob, mut bob_events) = node.client("bob").await;
    let mut phone = node.options("alice");
    phone.platform = "Android".into();
    let (_phone, mut phone_events) = node.connect(phone).await;
    let mut watch = node.running.gateway.events();

    let sent = alice.text("C2C:bob", "hi \"there\"").await.expect("stored");
    assert_eq!((sent.seq, sent.outcome.as_str(), sent.conv.as_str()), (1, "stored", "C2C:bob"));
    let (conv, message) = bob_events.message().await.expect("pushed");
    assert_eq!((conv.as_str(), message.from.as_str(), message.seq), ("C2C:alice", "alice", 1));
    assert_eq!(message.body, r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi \"there\""}}]"#);
    assert_eq!(message.msg_key, sent.msg_key);
    let (conv, _) = phone_events.message().await.expect("the sender's other device gets it");
    assert_eq!(conv, "C2C:bob");

    let line = loop {
        let event = watch.recv().await.expect("watched");
        if matches!(event, linnet_gateway::Event::Message { .. }) {
            break event.to_string();
        }
    };
    assert!(line.starts_with("alice -> bob seq 1 stored ") && line.contains("delivered to 2 devices"), "{line}");
    while let Some(event) = alice_events.try_next() {
        assert!(!matches!(event, Event::Message { .. }), "the sending connection has the reply");
    }
    node.accounts_add_up().await;
}

#[tokio::test]
async fn order_is_kept_while_a_slow_answer_delays_only_itself() {
    let node = Node::start(Config::default()).await;
    let (alice, _a) = node.client("alice").await;
    node.world.lock().slow.insert("slow".into(), Duration::from_millis(300));
    let slow = {
        let alice = alice.clone();
        node.tasks.spawn("test", async move { alice.text("C2C:bob", "slow").await })
    };
    eventually("the slow one is with its owner", || !node.world.lock().sends.is_empty()).await;
    let began = node.clock.mono();
    alice.text("C2C:bob", "fast").await.expect("stored");
    assert!(node.clock.mono() - began < Duration::from_millis(250));
    slow.await.expect("joined").expect("ran").expect("stored");

    let sends = (0..100).map(|n| {
        let alice = alice.clone();
        async move { alice.text("C2C:carol", &n.to_string()).await.expect("stored").seq }
    });
    let seqs = futures::future::join_all(sends).await;
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>(), "handed over in the order they were sent");
}

#[tokio::test]
async fn refusals_carry_their_code_and_what_is_worth_a_retry_is_retried_with_the_same_token() {
    let node = Node::start(Config::default()).await;
    let (alice, _events) = node.client("alice").await;
    node.world.lock().refuse.insert("muted".into(), refusal(None));
    let refused = alice.text("C2C:bob", "muted").await.expect_err("refused");
    assert_eq!(refused.code(), Some(code::C2C_MUTED));

    node.world.lock().refuse.insert("busy".into(), refusal(Some(50)));
    let sending = {
        let alice = alice.clone();
        node.tasks.spawn("test", async move { alice.text("C2C:bob", "busy").await })
    };
    let tries = || node.world.lock().sends.iter().filter(|m| m.body.windows(4).any(|w| w == b"busy")).count();
    eventually("it was tried twice", || tries() >= 2).await;
    node.world.lock().refuse.clear();
    sending.await.expect("joined").expect("ran").expect("stored at last");
    let world = node.world.lock();
    let randoms: std::collections::BTreeSet<_> =
        world.sends.iter().filter(|m| m.body.windows(4).any(|w| w == b"busy")).map(|m| m.random).collect();
    assert_eq!(randoms.len(), 1);
}

#[tokio::test]
async fn messages_that_nobody_took_are_sent_again_in_their_order_while_the_client_waits() {
    let node = Node::start(Config::default()).await;
    let (alice, _events) = node.client("alice").await;
    node.world.lock().refuse.insert("m".into(), linnet_types::Refusal::retry(code::BUSY, "it is moving", 50));
    let sends = (0..20).map(|n| {
        let alice = alice.clone();
        async move { alice.text("C2C:bob", &format!("m{n}")).await.expect("stored").seq }
    });
    let all = node.tasks.spawn("test", futures::future::join_all(sends.collect::<Vec<_>>()));
    eventually("they were tried again and again", || node.world.lock().sends.len() >= 5).await;
    node.world.lock().refuse.clear();
    assert_eq!(all.await.expect("joined").expect("ran"), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn bad_messages_are_refused_at_the_edge() {
    let node = Node::start(Config::default()).await;
    let (alice, _events) = node.client("alice").await;
    let send = |change: fn(&mut proto::Send)| {
        let body = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"x"}}]"#;
        let mut send = proto::Send { conv: "C2C:bob".into(), body: body.into(), ..proto::Send::default() };
        change(&mut send);
        let alice = alice.clone();
        async move { alice.send(send).await.expect_err("refused").code() }
    };
    assert_eq!(send(|s| s.body = "{}".into()).await, Some(code::BODY_NOT_ARRAY));
    assert_eq!(send(|s| s.body = "[]".into()).await, Some(code::BODY_SHAPE));
    let deep = |s: &mut proto::Send| {
        let nested = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        s.body = format!(r#"[{{"MsgType":"TIMCustomElem","MsgContent":{{"Data":{nested}}}}}]"#).into();
    };
    assert_eq!(send(deep).await, Some(code::BODY_SHAPE));
    assert_eq!(send(|s| s.body = vec![0xff].into()).await, Some(code::MSG_BAD_PARAM));
    assert_eq!(send(|s| s.body = " ".repeat(13_000).into()).await, Some(code::MSG_TOO_LONG));
    assert_eq!(send(|s| s.conv = "bob".into()).await, Some(code::MSG_BAD_PARAM));
    assert_eq!(send(|s| s.priority = "Highest".into()).await, Some(code::MSG_BAD_PARAM));
    assert_eq!(send(|s| s.to = vec!["eve".into()]).await, Some(code::MSG_BAD_PARAM));
    let mentions = |s: &mut proto::Send| {
        s.conv = "GROUP:g".into();
        s.mentions = vec!["x".into(); 31];
    };
    assert_eq!(send(mentions).await, Some(code::GROUP_MENTIONS));
    assert!(node.world.lock().sends.is_empty(), "nothing reached an owner");
}

#[tokio::test]
async fn what_was_missed_while_away_comes_from_history_once_and_in_order() {
    let node = Node::start(Config::default()).await;
    let (alice, _a) = node.client("alice").await;
    let proxy = Proxy::start(&node).await;
    let mut options = node.options("bob");
    options.url = proxy.url();
    let (bob, mut bob_events) = node.connect(options).await;
    alice.text("C2C:bob", "1").await.expect("stored");
    assert_eq!(bob_events.message().await.expect("pushed").1.seq, 1);
    proxy.cut();
    eventually("the gateway sees it", || node.world.lock().sign_outs.iter().any(|out| out.reason == "LinkClose")).await;
    for n in 2..=5 {
        alice.text("C2C:bob", &n.to_string()).await.expect("stored");
    }
    let mut seqs = Vec::new();
    while seqs.len() < 4 {
        seqs.push(bob_events.message().await.expect("comes back").1.seq);
    }
    assert_eq!(seqs, [2, 3, 4, 5]);
    let sent = bob.text("C2C:alice", "6").await.expect("works again");
    assert_eq!(sent.seq, 6);
}

#[tokio::test]
async fn reads_of_groups_are_stored_once_with_the_last_position() {
    let config = Config { read_delay: Period::ms(200), ..Config::default() };
    let node = Node::start(config).await;
    let (alice, _events) = node.client("alice").await;
    for seq in 1..=50 {
        assert_eq!(alice.read("GROUP:g", seq).await, Ok(seq));
    }
    eventually("the position is stored", || !node.world.lock().reads.is_empty()).await;
    assert_eq!(node.world.lock().reads.iter().map(|read| read.seq).collect::<Vec<_>>(), [50]);
    alice.read("GROUP:g", 60).await.expect("noted");
    alice.close().await;
    eventually("the last one is stored on leaving", || node.world.lock().reads.last().is_some_and(|r| r.seq == 60))
        .await;
}

fn group_message(seq: u64, from: &str) -> Record {
    let message = msg::Message { seq, from: from.into(), body: "[1]".into(), ..msg::Message::default() };
    Record { kind: Some(record::Kind::Message(message)), ..Record::default() }
}

fn control_record(kind: control::Kind) -> Record {
    Record { kind: Some(record::Kind::Control(delivery::Control { kind: Some(kind) })), ..Record::default() }
}

fn large_batch(no: u64, records: Vec<Record>, head_seq: u64) -> Batch {
    Batch {
        app: APP,
        conv: LARGE,
        tenure: 1,
        no,
        prev: no - 1,
        key: Some(batch::Key::GroupId("large".into())),
        records,
        head_seq,
        ..Batch::default()
    }
}

fn large_group() -> group::JoinedGroup {
    let group = group::Group { member_num: 5000, ..group::Group::default() };
    group::JoinedGroup {
        group_id: "large".into(),
        conv: LARGE,
        r#type: "Public".into(),
        group: Some(group),
        ..group::JoinedGroup::default()
    }
}

#[tokio::test]
async fn the_large_groups_of_a_user_are_asked_for_until_they_are_told() {
    let node = Node::start(Config::default()).await;
    node.world.lock().joined = vec![large_group()];
    node.world.lock().joined_busy = 2;
    let (_alice, _events) = node.client("alice").await;
    eventually("she is listed", || node.metrics.value("linnet_gateway_listed") == Some(1.0)).await;
    assert_eq!(node.world.lock().joined_busy, 0);
}

#[tokio::test]
async fn members_of_a_large_group_get_its_batches_and_a_kicked_one_nothing_after_the_kick() {
    let node = Node::start(Config::default()).await;
    node.world.lock().joined = vec![large_group()];
    let (_alice, mut alice) = node.client("alice").await;
    let (_bob, mut bob) = node.client("bob").await;
    let members = || node.metrics.value("linnet_gateway_listed").unwrap_or_default();
    eventually("both are listed", || members() >= 2.0).await;
    let kicked = control::Kind::Kicked(delivery::Membership { users: vec!["bob".into()] });
    let records = vec![group_message(1, "carol"), control_record(kicked), group_message(2, "carol")];
    node.fan(large_batch(1, records, 2)).await;
    assert_eq!(alice.message().await.expect("pushed").1.seq, 1);
    assert_eq!(alice.message().await.expect("pushed").1.seq, 2);
    assert_eq!(bob.message().await.expect("before the kick").1.seq, 1);
    let joined = control::Kind::Joined(delivery::Membership { users: vec!["bob".into()] });
    node.fan(large_batch(2, vec![group_message(3, "carol"), control_record(joined), group_message(4, "carol")], 4))
        .await;
    let (_, message) = bob.message().await.expect("a member again");
    assert!(message.seq == 4 || message.seq == 2, "{}: history is not pushed", message.seq);
    node.accounts_add_up().await;
}

#[tokio::test]
async fn targeted_messages_and_own_events_reach_only_their_users() {
    let node = Node::start(Config::default()).await;
    let (_alice, mut alice) = node.client("alice").await;
    let (_bob, mut bob) = node.client("bob").await;
    let secret = Record { only: vec!["alice".into()], ..group_message(1, "carol") };
    let batch = Batch {
        app: APP,
        conv: 9,
        key: Some(batch::Key::GroupId("small".into())),
        records: vec![secret, group_message(2, "carol")],
        head_seq: 2,
        users: vec!["alice".into(), "bob".into()],
        ..Batch::default()
    };
    publish(&node.world, &node.bus, &node.node, batch).await;
    assert_eq!(alice.message().await.expect("pushed").1.seq, 1);
    assert_eq!(bob.message().await.expect("pushed").1.seq, 2, "not the targeted one");
    let changed = Changed { what: "pinned".into(), conv: "C2C:carol".into(), seq: 0 };
    let batch = Batch {
        app: APP,
        key: Some(batch::Key::User("bob".into())),
        records: vec![Record { kind: Some(record::Kind::Changed(changed)), ..Record::default() }],
        users: vec!["bob".into()],
        ..Batch::default()
    };
    publish(&node.world, &node.bus, &node.node, batch).await;
    let pinned = loop {
        if let Event::Item(item) = bob.next().await.expect("told") {
            break item;
        }
    };
    let wanted = proto::Change { what: "pinned".into(), seq: 0 };
    assert_eq!((pinned.conv.as_str(), pinned.what), ("C2C:carol", Some(item::What::Change(wanted))));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_time_out_of_the_request() {
    let node = Node::start(Config::default()).await;
    node.world.lock().slow.insert("never".into(), Duration::from_secs(60));
    let mut options = node.options("alice");
    options.timeout = Duration::from_millis(200);
    let (alice, _events) = node.connect(options).await;
    assert_eq!(alice.text("C2C:bob", "never").await, Err(Error::TimedOut));
}
