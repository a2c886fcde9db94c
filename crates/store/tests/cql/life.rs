//! Buckets that outlive their rows, and conversations that outlive their buckets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use linnet_store::logs::{Class, Entry, LogId, Logs, Opening};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UserId};

use crate::cql_store;
use crate::shortened::Shortened;

const ID: LogId = LogId { app: SdkAppId(1), conv: ConvId(1) };
/// Makes seven days five seconds.
const BY: u32 = 7 * 86_400 / 5;
const LIFE: Duration = Duration::from_secs(5);

fn entry(text: &str) -> Entry {
    Entry::message(UserId::trusted("ann"), 1, Bytes::copy_from_slice(text.as_bytes()))
}

fn opening() -> Opening {
    Opening { id: ID, class: Class::Week, route: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_in_use_outlives_its_rows_and_a_quiet_conversation_goes_on_at_its_next_seq() {
    let store = Arc::new(Shortened { inner: cql_store::store().await, by: BY });
    let clock = Clock::system();
    let logs = Logs::new(store, clock.clone(), Rng::seeded(1), "group");
    let mut log = logs.open(opening()).await.unwrap();
    let since = clock.mono();
    let mut count = 0;
    while clock.mono() - since < LIFE * 3 {
        count += 1;
        let appended = log.append(vec![entry(&count.to_string())], Epoch(0)).await.unwrap();
        assert_eq!(appended[0].seq, Seq(count), "the guard of a bucket in use does not expire under it");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let page = log.reader().history(Seq(1), Seq(u64::MAX), 1_000).await.unwrap();
    let first = page.messages.first().unwrap().seq;
    assert!(first > Seq(1) && first <= Seq(count), "old messages are gone, new ones are not: {first} of {count}");
    log.write_head().await.unwrap();
    tokio::time::sleep(LIFE * 2 + Duration::from_secs(2)).await;
    let mut next = logs.open(opening()).await.unwrap();
    assert!(next.epoch() > log.epoch());
    let appended = next.append(vec![entry("back")], Epoch(0)).await.unwrap();
    assert_eq!(appended[0].seq, Seq(count + 1));
    assert!(log.append(vec![entry("deposed")], Epoch(0)).await.is_err());
    let page = next.reader().history(Seq(1), Seq(u64::MAX), 1_000).await.unwrap();
    let seqs: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [Seq(count + 1)]);
}
