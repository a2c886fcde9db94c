//! The bus within one process.

use bytes::Bytes;
use linnet_bus::{Event, Limits, Local};
use linnet_runtime::Metrics;

use crate::suite::{conversation, next, publish, suite, text};

#[tokio::test]
async fn local() {
    suite(Local::new(&Metrics::new()).bus()).await;
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
