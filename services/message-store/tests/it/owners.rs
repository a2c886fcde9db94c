//! Owners that idle, die, pause or are replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use linnet_cluster::{Node, Service};
use linnet_message_store::Config;
use linnet_runtime::config::Period;
use linnet_store::sim::{Counts, Faults};
use linnet_types::{AppSettings, code};

use crate::world::{World, node, texts};

#[tokio::test(start_paused = true)]
async fn an_idle_conversation_leaves_memory_and_goes_on_where_it_was() {
    let mut world = World::new(40).await;
    let node = world.start("m1").await;
    world.say("alice", "bob", "one").await;
    assert_eq!(node.running.active(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.eventually("the actor ends", async || node.running.active() == 0).await;
    assert_eq!(world.say("bob", "alice", "two").await.seq, 2);
    assert_eq!(texts(&world.history("bob", "alice").await), ["two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_the_next_node_has_everything_and_tells_the_app_the_rest() {
    let settings =
        AppSettings { webhook_url: "http://app".into(), webhook_events: "all".into(), ..AppSettings::default() };
    let mut world = World::with(41, settings).await;
    let first = world.start("m1").await;
    *world.outside.callbacks_down.lock() = true;
    let request = world.text("alice", "bob", "one");
    let reply = world.send(request.clone()).await.unwrap();
    world.script.leave(&node("m1"));
    first.kill().await;
    *world.outside.callbacks_down.lock() = false;
    let second = world.start("m2").await;
    // Nobody writes: the open log is taken over by itself.
    world.eventually("the event", async || world.commands() == ["C2C.CallbackAfterSendMsg"]).await;
    assert_eq!(second.running.active(), 1);
    let again = world.send(request).await.unwrap();
    assert!(again.duplicate);
    assert_eq!((again.seq, again.time_ms), (reply.seq, reply.time_ms));
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
    assert_eq!(world.unread("alice", "C2C:bob").await, 0);
    world.say("alice", "bob", "two").await;
    world.eventually("the second event", async || world.commands().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_leaves_nothing_open() {
    let mut world = World::new(42).await;
    let first = world.start("m1").await;
    world.say("alice", "bob", "one").await;
    world.script.leave(&node("m1"));
    first.running.stop(Duration::from_secs(5)).await;
    let second = world.start("m2").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(second.running.active(), 0);
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_acknowledges_nothing_more() {
    let mut world = World::new(43).await;
    let first = world.start("m1").await;
    world.say("alice", "bob", "one").await;
    world.script.leave(&node("m1"));
    let _second = world.start("m2").await;
    assert_eq!(world.say("alice", "bob", "two").await.seq, 2);
    // The ring of some edge still names the first.
    world.script.leave(&node("m2"));
    world.script.join(Node::new(node("m1"), [Service::MessageStore]));
    let late = world.text("alice", "bob", "three");
    assert_eq!(world.send(late.clone()).await.unwrap_err().code, code::BUSY);
    assert_eq!(first.metrics.value("linnet_message_store_deposed_total"), Some(1.0));
    // It claims back after a pause, since its ring names it.
    let mut again = world.send(late.clone()).await;
    for _ in 0..50 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        again = world.send(late.clone()).await;
    }
    assert_eq!(again.unwrap().seq, 3);
    assert_eq!(texts(&world.history("bob", "alice").await), ["three", "two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_answers_busy_before_anything_is_assigned() {
    let mut world = World::new(44).await;
    let node = world.start("m1").await;
    world.say("alice", "bob", "one").await;
    world.rows.set_down(true);
    let request = world.text("alice", "bob", "two");
    assert_eq!(world.send(request.clone()).await.unwrap_err().code, code::BUSY);
    world.rows.set_down(false);
    world.eventually("the store answers", async || world.send(request.clone()).await.is_ok()).await;
    assert_eq!(texts(&world.history("bob", "alice").await), ["two", "one"]);
    let stats = node.running.stats();
    let ended = stats.stored + stats.refused + stats.duplicate + stats.unknown_outcome + stats.pending;
    assert_eq!(stats.arrived, ended);
}

/// Two nodes, a store that loses, delays and half-does things, a ring that flaps, clients that retry.
async fn rough(seed: u64) -> Counts {
    let mut world = World::new(seed).await;
    let config = || Config { idle: Period::ms(300), ..Config::default() };
    let nodes = [world.start_with("m1", config()).await, world.start_with("m2", config()).await];
    world.say("alice", "bob", "first").await;
    world.rows.set_faults(Faults::rough());
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::from([(1, "first".to_owned())]);
    let mut order: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for n in 0..30_u64 {
        let from = if (seed + n) % 3 == 0 { "bob" } else { "alice" };
        let to = if from == "bob" { "alice" } else { "bob" };
        match (seed * 31 + n) % 11 {
            0 => world.script.leave(&node("m1")),
            3 => world.script.join(Node::new(node("m1"), [Service::MessageStore])),
            5 => world.script.leave(&node("m2")),
            7 => world.script.join(Node::new(node("m2"), [Service::MessageStore])),
            _ => {}
        }
        if world.cluster.nodes(Service::MessageStore).is_empty() {
            world.script.join(Node::new(node("m2"), [Service::MessageStore]));
        }
        let text = format!("{seed}-{n}");
        let request = world.text(from, to, &text);
        let mut tries = 0;
        let reply = loop {
            match world.send(request.clone()).await {
                Ok(reply) => break reply,
                Err(refusal) => assert!(refusal.retry_after_ms.is_some(), "seed {seed}: {refusal}"),
            }
            tries += 1;
            assert!(tries < 400, "seed {seed}: {text} was never acknowledged");
            tokio::time::sleep(Duration::from_millis(40)).await;
        };
        let before = acknowledged.insert(reply.seq, text);
        assert_eq!(before, None, "seed {seed}: seq {} twice", reply.seq);
        order.entry(from).or_default().push(reply.seq);
    }
    world.rows.set_faults(Faults::none());
    let head = *acknowledged.keys().last().unwrap();
    let page = world.history("alice", "bob").await;
    let mut stored: BTreeMap<u64, String> = BTreeMap::new();
    for (message, text) in page.messages.iter().zip(texts(&page)) {
        stored.insert(message.seq, text);
    }
    // Everything acknowledged is there, where it was said to be, and nothing else: retries made no second copy.
    assert_eq!(stored, acknowledged, "seed {seed}");
    assert_eq!(head, 31, "seed {seed}: a position was skipped");
    for (from, seqs) in &order {
        assert!(seqs.is_sorted(), "seed {seed}: order of {from}");
    }
    for running in &nodes {
        let s = running.running.stats();
        let ended = s.stored + s.refused + s.duplicate + s.unknown_outcome + s.pending + s.dropped_by_webhook;
        assert_eq!(s.arrived, ended, "seed {seed}");
    }
    let counts = world.rows.counts();
    for running in nodes {
        running.kill().await;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn two_owners_over_a_rough_store_lose_nothing_and_double_nothing() {
    let mut struck = Counts::default();
    for seed in 1..=60 {
        struck.add(&rough(seed).await);
    }
    println!("{struck:?}");
    assert!(struck.never_struck().is_empty(), "never struck: {:?}", struck.never_struck());
}
