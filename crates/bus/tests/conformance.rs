//! What every implementation of the bus must do; one suite for all.

use std::time::Duration;

use bytes::Bytes;
use linnet_bus::{Bus, Event, FaultPlan, Faulty, Limits, Local, Subject, Subscription, subject};
use linnet_runtime::{Metrics, Rng, Tasks};
use linnet_types::ConvId;

async fn next(subscription: &mut Subscription) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(5), subscription.recv()).await.expect("an event within 5 s")
}

async fn text(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Some(Event::Message { payload, .. }) => String::from_utf8(payload.to_vec()).expect("text"),
        other => panic!("expected a message, got {other:?}"),
    }
}

async fn publish(bus: &Bus, subject: &Subject, text: &str) {
    bus.publish(subject.clone(), Bytes::copy_from_slice(text.as_bytes())).await.expect("published");
}

fn conversation(n: u64) -> Subject {
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

async fn suite(bus: Bus) {
    every_subscriber_receives_in_order_after_flush(&bus).await;
    other_subjects_and_earlier_messages_are_not_received(&bus).await;
    dropping_a_subscription_ends_only_it(&bus).await;
    slow_consumer_learns_what_it_lost_in_its_place(&bus).await;
    byte_limit_bounds_the_queue_but_one_large_message_passes(&bus).await;
}

#[tokio::test]
async fn local() {
    suite(Local::new(&Metrics::new()).bus()).await;
}

#[tokio::test]
async fn faulty_without_faults() {
    let metrics = Metrics::new();
    suite(Faulty::new(Local::new(&metrics).bus(), Rng::seeded(1), Tasks::new(&metrics)).bus()).await;
}

#[tokio::test]
async fn local_counts_and_closes() {
    let metrics = Metrics::new();
    let local = Local::new(&metrics);
    let bus = local.bus();
    let mut subscription = bus.subscribe_with(conversation(1), Limits { messages: 1, bytes: 10 }).await.expect("ok");
    publish(&bus, &conversation(1), "a").await;
    publish(&bus, &conversation(1), "b").await;
    let counted = ["published", "delivered", "slow_consumer_dropped"]
        .map(|name| metrics.value(&format!("linnet_bus_{name}_total")).expect("exported"));
    assert_eq!(counted, [2.0, 1.0, 1.0]);
    assert_eq!(local.subscriptions(), 1);
    drop(bus.subscribe(conversation(2)).await.expect("subscribed"));
    assert_eq!(local.subscriptions(), 1, "a dropped subscription leaves nothing behind");
    local.close();
    assert_eq!(text(&mut subscription).await, "a");
    assert_eq!(next(&mut subscription).await, Some(Event::Lagged { dropped: 1 }));
    assert_eq!(next(&mut subscription).await, None);
    assert!(bus.publish(conversation(1), Bytes::new()).await.is_err());
    assert!(bus.subscribe(conversation(1)).await.is_err());
}

/// What a run of 2,000 messages looks like from the subscriber, with every fault.
async fn faulty_run(seed: u64) -> (Vec<u64>, linnet_bus::FaultCounts) {
    let metrics = Metrics::new();
    let faulty = Faulty::new(Local::new(&metrics).bus(), Rng::seeded(seed), Tasks::new(&metrics));
    let bus = faulty.bus();
    let mut subscription = bus.subscribe(conversation(1)).await.expect("subscribed");
    let max_delay = Duration::from_millis(30);
    faulty.set(FaultPlan { drop_percent: 10, delay_percent: 5, reorder_percent: 5, max_delay });
    for n in 0..2000_u64 {
        bus.publish(conversation(1), Bytes::copy_from_slice(&n.to_be_bytes())).await.expect("published");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut got = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), subscription.recv()).await {
        match event {
            Event::Message { payload, .. } => got.push(u64::from_be_bytes(payload[..].try_into().expect("8 bytes"))),
            Event::Lagged { .. } => panic!("drops of a faulty bus are silent"),
        }
    }
    (got, faulty.counts())
}

#[tokio::test(start_paused = true)]
async fn faults_strike_are_counted_and_replay_by_seed() {
    let (got, counts) = faulty_run(11).await;
    println!("seed 11: {counts:?}");
    assert_eq!(counts.seen, 2000);
    assert_eq!(got.len() as u64, counts.seen - counts.dropped, "each message arrives once or is counted as dropped");
    assert!(counts.dropped > 100 && counts.delayed > 40 && counts.reordered > 40, "{counts:?}");
    let backwards = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(backwards > 40, "{backwards}");
    assert_eq!(faulty_run(11).await, (got, counts), "same seed, same run");
    assert_ne!(faulty_run(12).await.1, counts);
}

#[tokio::test(start_paused = true)]
async fn healed_bus_loses_nothing() {
    let metrics = Metrics::new();
    let faulty = Faulty::new(Local::new(&metrics).bus(), Rng::seeded(3), Tasks::new(&metrics));
    let bus = faulty.bus();
    let mut subscription = bus.subscribe(conversation(1)).await.expect("subscribed");
    faulty.set(FaultPlan::dropping(100));
    publish(&bus, &conversation(1), "lost").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    faulty.heal();
    publish(&bus, &conversation(1), "kept").await;
    assert_eq!(text(&mut subscription).await, "kept");
    assert_eq!(faulty.counts().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_every_subscriber_is_told_of_a_hole() {
    let metrics = Metrics::new();
    let faulty = Faulty::new(Local::new(&metrics).bus(), Rng::seeded(4), Tasks::new(&metrics));
    let bus = faulty.bus();
    let mut subscription = bus.subscribe(conversation(1)).await.expect("subscribed");
    publish(&bus, &conversation(1), "before").await;
    assert_eq!(text(&mut subscription).await, "before");
    faulty.down();
    assert!(bus.publish(conversation(1), Bytes::new()).await.is_err());
    assert!(bus.flush().await.is_err());
    faulty.up();
    assert_eq!(next(&mut subscription).await, Some(Event::Lagged { dropped: 1 }));
    publish(&bus, &conversation(1), "after").await;
    assert_eq!(text(&mut subscription).await, "after");
    assert_eq!(faulty.counts().outages, 1);
}
