use std::collections::BTreeMap;

use linnet_runtime::{Clock, Rng};

use super::*;
use crate::sim::{Counts, Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const OTHER: SdkAppId = SdkAppId(1_400_000_001);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn queue(seed: u64) -> (Queues, SimRows) {
    let sim = SimRows::new(Rng::seeded(seed), Clock::simulated(NOW), Faults::none());
    (Queues::new(sim.store(), "webhook"), sim)
}

fn work(app: SdkAppId, key: &str, n: u64) -> Item {
    let id = WorkId {
        app,
        key: key.to_owned(),
        at: NOW.plus_ms(n),
        source: Source::Log,
        no: n,
        event: "after_send".to_owned(),
    };
    Item::new(id, format!("{key}/{n}"))
}

async fn numbers(queue: &Queues, app: SdkAppId, key: &str) -> Vec<u64> {
    queue.of_key(app, key, 100).await.unwrap().into_iter().map(|item| item.id.no).collect()
}

#[tokio::test(start_paused = true)]
async fn work_of_a_key_comes_in_the_order_it_happened() {
    let (queue, _) = queue(1);
    let mut items = vec![work(APP, "g1", 3), work(APP, "g1", 1), work(APP, "g2", 2)];
    // An event of the group's state between two messages.
    items.push(Item::new(
        WorkId { at: NOW.plus_ms(2), source: Source::Outbox, no: 1 << 24, ..items[0].id.clone() },
        "joined",
    ));
    queue.enqueue(&items).await.unwrap();
    assert_eq!(numbers(&queue, APP, "g1").await, [1, 1 << 24, 3]);
    assert_eq!(numbers(&queue, APP, "g2").await, [2]);
    assert_eq!(numbers(&queue, APP, "g").await, [0; 0], "a key is not its prefix");
}

#[tokio::test(start_paused = true)]
async fn enqueuing_twice_is_enqueuing_once_even_after_the_work_is_done() {
    let (queue, _) = queue(2);
    let item = work(APP, "g", 1);
    queue.enqueue(&[item.clone(), work(APP, "g", 2)]).await.unwrap();
    queue.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(numbers(&queue, APP, "g").await, [1, 2]);
    queue.ack(std::slice::from_ref(&item.id)).await.unwrap();
    queue.enqueue(std::slice::from_ref(&item)).await.unwrap();
    let partition = partition_of(APP, "g");
    let (heads, end) = queue.heads(partition, None, 10, &[]).await.unwrap();
    assert_eq!(heads.iter().map(|item| item.id.no).collect::<Vec<_>>(), [2]);
    assert_eq!(end, None);
    assert_eq!(numbers(&queue, APP, "g").await, [2]);
    assert_eq!(queue.waiting(partition, 100).await.unwrap().depth, 1, "the repeat is gone for good");
}

#[tokio::test(start_paused = true)]
async fn work_that_is_put_off_keeps_its_place() {
    let (queue, _) = queue(3);
    queue.enqueue(&[work(APP, "g", 1), work(APP, "g", 2)]).await.unwrap();
    let first = queue.of_key(APP, "g", 1).await.unwrap().remove(0);
    queue.retry(&first, NOW, NOW.plus_ms(500), "timed out").await.unwrap();
    let again = queue.of_key(APP, "g", 1).await.unwrap().remove(0);
    assert_eq!((again.id, again.attempts, again.next), (first.id, 1, NOW.plus_ms(500)));
    assert_eq!((again.first_try, again.last_error.as_str()), (Some(NOW), "timed out"));
    assert_eq!(again.payload, "g/1");
}

/// Keys of both apps that share a partition.
fn neighbours() -> (u16, [String; 3]) {
    let partition = partition_of(APP, "g");
    let near = |app| (0..).map(|n| format!("k{n}")).find(move |key| partition_of(app, key) == partition).unwrap();
    (partition, ["g".to_owned(), near(APP), near(OTHER)])
}

#[tokio::test(start_paused = true)]
async fn a_walk_meets_the_oldest_work_of_each_key_and_passes_parked_apps_by() {
    let (queue, _) = queue(4);
    let (partition, [g, k, other]) = neighbours();
    for n in 1..=3 {
        queue.enqueue(&[work(APP, &g, n), work(APP, &k, 10 + n), work(OTHER, &other, 20 + n)]).await.unwrap();
    }
    let (all, end) = queue.heads(partition, None, 10, &[]).await.unwrap();
    assert_eq!(all.iter().map(|item| item.id.no).collect::<Vec<_>>(), [1, 11, 21]);
    assert_eq!(end, None);
    let (first, next) = queue.heads(partition, None, 2, &[]).await.unwrap();
    let (rest, _) = queue.heads(partition, next.as_ref(), 2, &[]).await.unwrap();
    assert_eq!([first, rest].concat(), all);
    queue.park(Parked { app: APP, since: NOW, until: NOW.plus_ms(5_000) }).await.unwrap();
    let skip: Vec<SdkAppId> = queue.parked().await.unwrap().into_iter().map(|parked| parked.app).collect();
    let (heads, _) = queue.heads(partition, None, 10, &skip).await.unwrap();
    assert_eq!(heads.iter().map(|item| item.id.no).collect::<Vec<_>>(), [21]);
    queue.unpark(APP).await.unwrap();
    assert_eq!(queue.parked().await.unwrap(), []);
    let waiting = queue.waiting(partition, 1_000).await.unwrap();
    assert_eq!(waiting, Waiting { depth: 9, oldest: Some(NOW.plus_ms(1)) });
    assert_eq!(queue.waiting(partition, 4).await.unwrap().depth, 4);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_can_be_listed_and_replayed_before_newer_work() {
    let (queue, _) = queue(5);
    queue.enqueue(&[work(APP, "g", 1), work(APP, "g", 2), work(OTHER, "g", 3)]).await.unwrap();
    let item = queue.of_key(APP, "g", 1).await.unwrap().remove(0);
    let tried = queue.retry(&item, NOW, NOW, "refused").await.unwrap();
    let id = queue.bury(&tried, NOW.plus_ms(9), "gave up").await.unwrap();
    queue.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(numbers(&queue, APP, "g").await, [2], "a producer's repeat does not bring it back");
    let letters = queue.dead(APP, None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].id, letters[0].why.as_str(), letters[0].item.attempts), (id, "gave up", 1));
    assert_eq!(queue.dead(OTHER, None, 10).await.unwrap(), []);
    let typed: DeadId = id.to_string().parse().unwrap();
    let back = queue.replay(APP, typed).await.unwrap().unwrap();
    assert_eq!((back.id.no, back.attempts, back.payload.as_ref()), (1, 0, b"g/1".as_ref()));
    assert_eq!(numbers(&queue, APP, "g").await, [1, 2]);
    assert_eq!(queue.dead(APP, None, 10).await.unwrap(), []);
    assert_eq!(queue.replay(APP, typed).await.unwrap(), None);
    queue.ack(&[back.id]).await.unwrap();
    assert_eq!(numbers(&queue, APP, "g").await, [2]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_page_and_go_when_deleted() {
    let (queue, _) = queue(6);
    for n in 0..5 {
        queue.bury(&work(APP, &format!("g{n}"), n), NOW, "same millisecond").await.unwrap();
    }
    let first = queue.dead(APP, None, 3).await.unwrap();
    let rest = queue.dead(APP, Some(first[2].id), 10).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 2));
    queue.delete_dead(APP, first[0].id).await.unwrap();
    assert_eq!(queue.dead_letter(APP, first[0].id).await.unwrap(), None);
    assert_eq!(queue.dead(APP, None, 10).await.unwrap().len(), 4);
}

/// A producer that repeats itself whenever it is not sure, and a worker that does so too, over a store that misbehaves.
async fn produce_and_work(seed: u64) -> Counts {
    let (queue, sim) = queue(seed);
    sim.set_faults(Faults::rough());
    let dice = Rng::seeded(seed ^ 0x5eed);
    let keys = ["a", "b", "c"];
    let mut produced: BTreeMap<&str, u64> = BTreeMap::new();
    let mut done: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for _ in 0..80 {
        let key = keys[dice.below(3) as usize];
        if dice.chance(50) {
            let upto = produced.entry(key).or_default();
            // From anywhere: a producer whose cursor lags tells old work again.
            let from = dice.below(*upto + 1) + 1;
            let items: Vec<Item> = (from..=*upto + 1).map(|n| work(APP, key, n)).collect();
            while queue.enqueue(&items).await.is_err() {}
            *upto += 1;
        } else if let Ok(items) = queue.of_key(APP, key, 1).await
            && let Some(item) = items.first()
        {
            while queue.ack(std::slice::from_ref(&item.id)).await.is_err() {}
            done.entry(key).or_default().push(item.id.no);
        }
    }
    let counts = sim.counts();
    sim.set_faults(Faults::none());
    for key in keys {
        for item in queue.of_key(APP, key, 1_000).await.unwrap() {
            done.entry(key).or_default().push(item.id.no);
        }
        let all: Vec<u64> = (1..=produced.get(key).copied().unwrap_or(0)).collect();
        assert_eq!(done.remove(key).unwrap_or_default(), all, "seed {seed}: {key} once each, in order");
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn repeated_work_is_done_once_and_in_order_over_a_failing_store() {
    let mut counts = Counts::default();
    for seed in 0..200 {
        counts.add(&produce_and_work(seed).await);
    }
    println!("{counts:?}");
    assert!(counts.unavailable > 0 && counts.partial_write > 0 && counts.stale_replica_read > 0, "{counts:?}");
}
