//! The bus that misbehaves by seed.

use std::time::Duration;

use bytes::Bytes;
use linnet_bus::{Event, FaultPlan, Faulty, Local};
use linnet_runtime::{Metrics, Rng, Tasks};

use crate::suite::{conversation, next, publish, suite, text};

#[tokio::test]
async fn faulty_without_faults() {
    let metrics = Metrics::new();
    suite(Faulty::new(Local::new(&metrics).bus(), Rng::seeded(1), Tasks::new(&metrics)).bus()).await;
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
