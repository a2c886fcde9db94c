//! Sending, reading and listing between two users.

use linnet_proto::callback::BeforeReply;
use linnet_proto::delivery::record;
use linnet_proto::msg::Outcome;
use linnet_types::{AppSettings, code};

use crate::world::{World, body, texts};

#[tokio::test(start_paused = true)]
async fn a_message_is_stored_delivered_listed_and_read() {
    let mut world = World::new(1).await;
    let _node = world.start("m1").await;
    let reply = world.say("alice", "bob", "hi").await;
    assert_eq!((reply.outcome(), reply.seq), (Outcome::Stored, 1));
    let (only, except) = world
        .record("message", |record, _| match &record.kind {
            Some(record::Kind::Message(message)) if message.seq == 1 => {
                Some((record.only.clone(), record.except_connection.clone()))
            }
            _ => None,
        })
        .await;
    assert_eq!((only, except.as_str()), (Vec::new(), "gw/alice"));
    assert_eq!(texts(&world.history("bob", "alice").await), ["hi"]);
    assert_eq!((world.unread("bob", "C2C:alice").await, world.unread("alice", "C2C:bob").await), (1, 0));
    world.read("bob", "alice", 0).await;
    assert_eq!(world.unread("bob", "C2C:alice").await, 0);
    let seq = world
        .record("read receipt", |record, _| match &record.kind {
            Some(record::Kind::Read(read)) if read.reader == "bob" => Some(read.seq),
            _ => None,
        })
        .await;
    assert_eq!(seq, 1);
    assert_eq!(world.listed("alice", "C2C:bob").await.unwrap().peer_read_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_answered_again_and_stored_once() {
    let mut world = World::new(2).await;
    let node = world.start("m1").await;
    let request = world.text("alice", "bob", "hi");
    let first = world.send(request.clone()).await.unwrap();
    let again = world.send(request).await.unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.seq, again.time_ms, again.msg_seq), (first.seq, first.time_ms, first.msg_seq));
    assert_eq!(world.history("bob", "alice").await.messages.len(), 1);
    let stats = node.running.stats();
    assert_eq!((stats.arrived, stats.stored, stats.duplicate, stats.pending), (2, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_constant_random_with_three_texts_makes_three_messages() {
    let mut world = World::new(3).await;
    let _node = world.start("m1").await;
    for text in ["one", "two", "three"] {
        let mut request = world.text("alice", "bob", text);
        request.message.as_mut().unwrap().random = 7;
        world.send(request).await.unwrap();
    }
    assert_eq!(texts(&world.history("bob", "alice").await), ["three", "two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn seq_and_random_taken_in_a_second_get_the_next() {
    let mut world = World::new(4).await;
    let _node = world.start("m1").await;
    let mut times = Vec::new();
    for text in ["one", "two"] {
        let mut request = world.text("alice", "bob", text);
        let message = request.message.as_mut().unwrap();
        (message.random, message.msg_seq) = (7, 9);
        let reply = world.send(request).await.unwrap();
        times.push(reply.time_ms / 1000);
    }
    assert_eq!(times[1], times[0] + 1);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_sender_is_told_ok_and_alone_sees_what_he_wrote() {
    let mut world = World::new(5).await;
    let _node = world.start("m1").await;
    world.outside.blocks.lock().insert(("bob".into(), "alice".into()));
    let reply = world.say("alice", "bob", "hi").await;
    assert_eq!(reply.outcome(), Outcome::Blocked);
    assert_eq!(texts(&world.history("alice", "bob").await), ["hi"]);
    let bob = world.history("bob", "alice").await;
    assert_eq!((bob.messages.len(), bob.placeholders.len()), (0, 1));
    assert!(world.listed("bob", "C2C:alice").await.is_none());
    assert!(world.listed("alice", "C2C:bob").await.is_some());
    world.outside.blocks.lock().clear();
    world.say("alice", "bob", "again").await;
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_codes_and_store_nothing() {
    let settings = AppSettings { blocked_as_ok: false, ..AppSettings::default() };
    let mut world = World::with(6, settings).await;
    let node = world.start("m1").await;
    let nobody = world.text("alice", "nobody", "x");
    assert_eq!(world.send(nobody.clone()).await.unwrap_err().code, code::C2C_NO_USER);
    let mut by_rest = nobody;
    by_rest.origin.as_mut().unwrap().admin = true;
    assert_eq!(world.send(by_rest).await.unwrap_err().code, code::TO_ACCOUNT_UNKNOWN);
    let ghost = world.text("ghost", "bob", "x");
    assert_eq!(world.send(ghost).await.unwrap_err().code, code::C2C_NO_USER);
    let long = world.text("alice", "bob", &"x".repeat(13_000));
    assert_eq!(world.send(long).await.unwrap_err().code, code::MSG_TOO_LONG);
    world.outside.blocks.lock().insert(("bob".into(), "alice".into()));
    let blocked = world.text("alice", "bob", "x");
    assert_eq!(world.send(blocked.clone()).await.unwrap_err().code, code::C2C_BLOCKED);
    let mut trusted = blocked;
    trusted.trusted = true;
    assert_eq!(world.send(trusted).await.unwrap().outcome(), Outcome::Stored);
    let stats = node.running.stats();
    assert_eq!((stats.arrived, stats.refused, stats.stored), (6, 5, 1));
}

#[tokio::test(start_paused = true)]
async fn sync_other_machine_2_leaves_nothing_on_the_senders_side() {
    let mut world = World::new(7).await;
    let _node = world.start("m1").await;
    let mut request = world.text("alice", "bob", "hi");
    request.sync_other_machine = 2;
    world.send(request).await.unwrap();
    assert!(world.history("alice", "bob").await.messages.is_empty());
    assert_eq!(texts(&world.history("bob", "alice").await), ["hi"]);
    assert!(world.listed("alice", "C2C:bob").await.is_none());
    let only = world
        .record("message", |record, _| match &record.kind {
            Some(record::Kind::Message(_)) => Some(record.only.clone()),
            _ => None,
        })
        .await;
    assert_eq!(only, ["bob"]);
}

#[tokio::test(start_paused = true)]
async fn an_online_only_message_is_delivered_and_leaves_no_trace() {
    let mut world = World::new(8).await;
    let node = world.start("m1").await;
    let mut request = world.text("alice", "bob", "typing");
    request.message.as_mut().unwrap().online_only = true;
    let reply = world.send(request).await.unwrap();
    assert_eq!((reply.outcome(), reply.seq), (Outcome::Published, 0));
    world
        .record("message", |record, _| match &record.kind {
            Some(record::Kind::Message(message)) if message.online_only => Some(()),
            _ => None,
        })
        .await;
    assert!(world.history("bob", "alice").await.messages.is_empty());
    assert!(world.listed("bob", "C2C:alice").await.is_none());
    assert_eq!(node.running.stats().published_only, 1);
}

#[tokio::test(start_paused = true)]
async fn a_note_to_oneself_is_one_message_that_does_not_wait() {
    let mut world = World::new(12).await;
    let _node = world.start("m1").await;
    world.say("alice", "alice", "note").await;
    assert_eq!(texts(&world.history("alice", "alice").await), ["note"]);
    let listed = world.listed("alice", "C2C:alice").await.unwrap();
    assert_eq!((listed.unread, listed.head_seq), (0, 1));
    let users = world
        .record("message", |record, users| match &record.kind {
            Some(record::Kind::Message(_)) => Some(users.to_vec()),
            _ => None,
        })
        .await;
    assert_eq!(users, ["alice"]);
}

fn with_hooks() -> AppSettings {
    AppSettings { webhook_url: "http://app".into(), webhook_events: "all".into(), ..AppSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn the_before_webhook_refuses_drops_and_rewrites() {
    let mut world = World::with(9, with_hooks()).await;
    let node = world.start("m1").await;
    *world.outside.decision.lock() = BeforeReply { decision: 1, ..BeforeReply::default() };
    let request = world.text("alice", "bob", "no");
    assert_eq!(world.send(request).await.unwrap_err().code, code::C2C_REFUSED);
    *world.outside.decision.lock() = BeforeReply { decision: 2, ..BeforeReply::default() };
    assert_eq!(world.say("alice", "bob", "gone").await.outcome(), Outcome::Dropped);
    *world.outside.decision.lock() = BeforeReply { msg_body: body("nicer"), ..BeforeReply::default() };
    let reply = world.say("alice", "bob", "rude").await;
    assert_eq!((reply.seq, reply.rewritten_body.as_ref()), (1, body("nicer").as_ref()));
    assert_eq!(texts(&world.history("bob", "alice").await), ["nicer"]);
    let stats = node.running.stats();
    assert_eq!((stats.arrived, stats.refused, stats.dropped_by_webhook, stats.stored), (3, 1, 1, 1));
    world.eventually("after-webhook", async || world.commands() == ["C2C.CallbackAfterSendMsg"]).await;
    let event = world.outside.events.lock()[0].clone();
    let told: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(told["MsgBody"][0]["MsgContent"]["Text"], "nicer");
    assert_eq!((told["UnreadMsgNum"].as_i64(), told["SendMsgResult"].as_i64()), (Some(1), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_send_calls_no_webhook_and_a_bot_is_told() {
    let mut world = World::with(10, with_hooks()).await;
    let _node = world.start("m1").await;
    let mut request = world.text("alice", "bob", "batch");
    request.no_webhooks = true;
    world.send(request).await.unwrap();
    assert!(world.outside.asked.lock().is_empty());
    world.say("alice", "@RBT#1", "hello").await;
    world.eventually("bot event", async || world.commands().len() == 2).await;
    assert_eq!(world.commands(), ["C2C.CallbackAfterSendMsg", "Bot.OnC2CMessage"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_nobody_can_take_does_not_hold_up_the_rest_for_ever() {
    let mut world = World::with(13, with_hooks()).await;
    let _node = world.start("m1").await;
    world.say("alice", "bob", "poison").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(world.commands().is_empty());
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    world.say("alice", "bob", "fine").await;
    world.eventually("the next event", async || world.commands().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_total_in_after_webhooks_follows_messages_reading_and_recalls() {
    let mut world = World::with(11, with_hooks()).await;
    let _node = world.start("m1").await;
    let mut told = 0;
    let mut total = async |world: &World, command: &str| {
        told += 1;
        world.eventually(command, async || world.commands().len() == told).await;
        let event = world.outside.events.lock()[told - 1].clone();
        assert_eq!(event.command, command);
        serde_json::from_slice::<serde_json::Value>(&event.body).unwrap()["UnreadMsgNum"].as_i64().unwrap()
    };
    const SENT: &str = "C2C.CallbackAfterSendMsg";
    world.say("alice", "bob", "1").await;
    assert_eq!(total(&world, SENT).await, 1);
    let second = world.say("carol", "bob", "2").await;
    assert_eq!(total(&world, SENT).await, 2);
    world.say("alice", "bob", "3").await;
    assert_eq!(total(&world, SENT).await, 3);
    world.read("bob", "alice", 0).await;
    assert_eq!(total(&world, "C2C.CallbackAfterMsgReport").await, 1);
    let recall = linnet_proto::messages::RevokeRequest {
        app: crate::world::APP,
        peer_a: "carol".into(),
        peer_b: "bob".into(),
        seqs: vec![second.seq],
        ..Default::default()
    };
    world.pair("carol", "bob").revoke(recall).await.unwrap();
    assert_eq!(total(&world, "C2C.CallbackAfterMsgWithDraw").await, 0);
    world.say("alice", "bob", "4").await;
    assert_eq!(total(&world, SENT).await, 1);
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
}
