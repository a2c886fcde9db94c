//! What every implementation of the bus must do; one suite for all.

use std::time::Duration;

use bytes::Bytes;
use linnet_bus::{Bus, Event, Limits, Subject, Subscription, subject};
use linnet_types::ConvId;

pub(crate) async fn next(subscription: &mut Subscription) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(5), subscription.recv()).await.expect("an event within 5 s")
}

pub(crate) async fn text(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Some(Event::Message { payload, .. }) => String::from_utf8(payload.to_vec()).expect("text"),
        other => panic!("expected a message, got {other:?}"),
    }
}

pub(crate) async fn publish(bus: &Bus, subject: &Subject, text: &str) {
    bus.publish(subject.clone(), Bytes::copy_from_slice(text.as_bytes())).await.expect("published");
}

pub(crate) fn conversation(n: u64) -> Subject {
    subject::fan("test", ConvId(n))
}

async fn every_subscriber_receives_in_order_after_flush(bus: &Bus) {
    let at = conversation(1);
    let (mut a, mut b) = (bus.subscribe(at.clone()).await.expect("a"), bus.subscribe(at.clone()).await.expect("b"));
    bus.flush().await.expect("flushed");
    for n in 0..100 {
        publish(bus, &at, &n.to_string()).await;
    }
    for n in 0..100 {
        assert_eq!((text(&mut a).await, text(&mut b).await), (n.to_string(), n.to_string()));
    }
}

async fn other_subjects_and_earlier_messages_are_not_received(bus: &Bus) {
    let at = conversation(2);
    publish(bus, &at, "too early").await;
    bus.flush().await.expect("flushed");
    let mut subscription = bus.subscribe(at.clone()).await.expect("subscribed");
    bus.flush().await.expect("flushed");
    publish(bus, &conversation(3), "elsewhere").await;
    publish(bus, &at, "here").await;
    assert_eq!(text(&mut subscription).await, "here");
}

async fn dropping_a_subscription_ends_only_it(bus: &Bus) {
    let at = conversation(4);
    let gone = bus.subscribe(at.clone()).await.expect("gone");
    let mut kept = bus.subscribe(at.clone()).await.expect("kept");
    bus.flush().await.expect("flushed");
    drop(gone);
    publish(bus, &at, "x").await;
    assert_eq!(text(&mut kept).await, "x");
}

async fn slow_consumer_learns_what_it_lost_in_its_place(bus: &Bus) {
    let at = conversation(5);
    let limits = Limits { messages: 10, bytes: 1 << 20 };
    let mut slow = bus.subscribe_with(at.clone(), limits).await.expect("slow");
    let mut fast = bus.subscribe(at.clone()).await.expect("fast");
    bus.flush().await.expect("flushed");
    for n in 0..50 {
        publish(bus, &at, &n.to_string()).await;
        assert_eq!(text(&mut fast).await, n.to_string(), "a slow neighbour delays nobody");
    }
    let (mut received, mut lost) = (0, 0);
    while received + lost < 50 {
        match next(&mut slow).await {
            Some(Event::Message { payload, .. }) => {
                assert_eq!(payload, (received + lost).to_string().as_bytes(), "holes are shown where they are");
                received += 1;
            }
            Some(Event::Lagged { dropped }) => lost += dropped,
            None => panic!("ended"),
        }
    }
    assert!(received >= 10 && lost > 0, "received {received}, lost {lost}");
}

async fn byte_limit_bounds_the_queue_but_one_large_message_passes(bus: &Bus) {
    let at = conversation(6);
    let limits = Limits { messages: 100, bytes: 1000 };
    let mut subscription = bus.subscribe_with(at.clone(), limits).await.expect("subscribed");
    bus.flush().await.expect("flushed");
    publish(bus, &at, &"x".repeat(5000)).await;
    assert_eq!(text(&mut subscription).await.len(), 5000);
}

pub(crate) async fn suite(bus: Bus) {
    every_subscriber_receives_in_order_after_flush(&bus).await;
    other_subjects_and_earlier_messages_are_not_received(&bus).await;
    dropping_a_subscription_ends_only_it(&bus).await;
    slow_consumer_learns_what_it_lost_in_its_place(&bus).await;
    byte_limit_bounds_the_queue_but_one_large_message_passes(&bus).await;
}
