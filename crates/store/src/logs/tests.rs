//! Facts about one log; two owners at once are in `tests/takeover.rs`.

mod reading;

use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use linnet_types::{ConvId, Epoch, SdkAppId, Seq, UnixMillis, UserId};

use super::*;
use crate::sim::{Faults, SimRows};

const START: UnixMillis = UnixMillis(1_700_000_000_000);
const ID: LogId = LogId { app: SdkAppId(1_400_000_001), conv: ConvId(7) };
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    sim: SimRows,
    clock: Clock,
    logs: Logs,
}

fn world() -> World {
    let clock = Clock::simulated(START);
    let rng = Rng::seeded(11);
    let sim = SimRows::new(rng.fork("store"), clock.clone(), Faults::none());
    let logs = Logs::new(sim.store(), clock.clone(), rng.fork("logs"), "group");
    World { sim, clock, logs }
}

impl World {
    async fn open_as(&self, class: Class) -> Log {
        self.logs.open(Opening { id: ID, class, route: "g1".to_owned() }).await.unwrap()
    }

    async fn open(&self) -> Log {
        self.open_as(Class::Week).await
    }
}

fn entry(text: &str) -> Entry {
    Entry {
        content_hash: 9,
        priority: 1,
        ..Entry::message(UserId::trusted("alice"), 5, Bytes::copy_from_slice(text.as_bytes()))
    }
}

fn keyed(msg_seq: u32, random: u32) -> Entry {
    Entry { msg_seq: Some(msg_seq), random, ..entry("keyed") }
}

async fn append(log: &mut Log, entries: Vec<Entry>) -> Vec<Appended> {
    let epoch = log.group_epoch();
    log.append(entries, epoch).await.unwrap()
}

async fn fill(log: &mut Log, to: u64) {
    while log.last_seq().0 < to {
        let wanted = usize::try_from(to - log.last_seq().0).unwrap().min(MAX_BATCH);
        let mut entries: Vec<Entry> = (0..wanted).map(|_| entry("x")).collect();
        entries.truncate(fit(&entries, log.last_seq()));
        append(log, entries).await;
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|message| message.seq.0).collect()
}

#[tokio::test(start_paused = true)]
async fn seqs_are_gap_free_ord_counts_the_countable_and_time_never_decreases() {
    let w = world();
    let mut log = w.open().await;
    let first = append(&mut log, vec![entry("a"), Entry { countable: false, ..entry("b") }, entry("c")]).await;
    assert_eq!(first.iter().map(|a| (a.seq.0, a.ord)).collect::<Vec<_>>(), [(1, 1), (2, 1), (3, 2)]);
    let earlier = Logs::new(w.sim.store(), w.clock.skewed(-60_000), Rng::seeded(1), "group");
    let mut log = earlier.open(Opening { id: ID, class: Class::Week, route: String::new() }).await.unwrap();
    let next = append(&mut log, vec![entry("d")]).await;
    assert_eq!((next[0].seq.0, next[0].ord), (4, 3));
    assert!(next[0].time >= first[2].time);
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_at_20_messages_48_kb_or_the_bucket() {
    let small = vec![entry("x"); 30];
    assert_eq!(fit(&small, Seq(0)), 20);
    assert_eq!(fit(&small, Seq(4090)), 6);
    assert_eq!(fit(&small, Seq(4096)), 20);
    let large = vec![entry(&"x".repeat(12_000)); 30];
    assert_eq!(fit(&large, Seq(0)), 4);
    assert_eq!(fit(&[entry(&"x".repeat(100_000))], Seq(0)), 1);
    assert_eq!(fit(&[], Seq(0)), 0);
    let w = world();
    let mut log = w.open().await;
    let refused = log.append(vec![entry("x"); 21], Epoch(0)).await;
    assert!(matches!(refused, Err(Error::TooMany { given: 21, fits: 20 })));
    assert_eq!(log.last_seq(), Seq(0));
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_on_in_the_next_bucket_and_is_found_there_without_its_head() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 4096).await;
    assert_eq!(log.tail.bucket, 0);
    // The owner dies with a full bucket; `log_head` has never been written since the log was empty.
    drop(log);
    let mut log = w.open().await;
    assert_eq!((log.last_seq(), log.ord()), (Seq(4096), 4096));
    fill(&mut log, 8200).await;
    assert!(log.head_due(), "a new bucket makes the head due");
    drop(log);
    let mut log = w.open().await;
    assert_eq!(append(&mut log, vec![entry("y")]).await[0].seq, Seq(8201));
    let page = log.reader().history(Seq(4000), Seq(8300), 5000).await.unwrap();
    assert_eq!(page.messages.len(), 8201 - 4000 + 1);
    assert!(page.missing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn quiet_longer_than_its_retention_then_a_send_continues_the_seq() {
    for last in [10, 4096, 5000] {
        let w = world();
        let mut log = w.open().await;
        fill(&mut log, last).await;
        let ord = log.ord();
        log.close().await.unwrap();
        w.clock.jump(DAY * 40);
        let mut log = w.open().await;
        let next = append(&mut log, vec![entry("after a long time")]).await;
        assert_eq!((next[0].seq.0, next[0].ord), (last + 1, ord + 1));
        let page = log.reader().history(Seq(1), Seq(u64::MAX), 100).await.unwrap();
        assert_eq!(seqs(&page), [last + 1]);
        assert_eq!(page.missing, [(Seq(1), Seq(last))]);
        assert_eq!((page.from, page.first_seq), (Seq(1), Seq(last + 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_active_bucket_outlives_its_first_messages() {
    let w = world();
    let mut log = w.open().await;
    for _ in 0..20 {
        append(&mut log, vec![entry("daily")]).await;
        w.clock.jump(DAY);
    }
    let page = log.reader().history(Seq(1), Seq(20), 100).await.unwrap();
    assert_eq!(seqs(&page), [20, 19, 18, 17, 16, 15]);
    assert_eq!(page.missing, [(Seq(1), Seq(14))]);
    assert_eq!(log.reader().first_seq().await.unwrap(), Seq(15));
    drop(log);
    assert_eq!(w.open().await.last_seq(), Seq(20));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_owner_stores_nothing_and_says_so() {
    let w = world();
    let mut old = w.open().await;
    append(&mut old, vec![entry("1")]).await;
    let mut new = w.open().await;
    assert!(new.epoch() > old.epoch());
    assert!(matches!(old.append(vec![entry("lost")], Epoch(0)).await, Err(Error::StaleOwner { .. })));
    assert!(old.is_stale());
    assert!(matches!(old.write_head().await, Err(Error::StaleOwner { .. })));
    append(&mut new, vec![entry("2")]).await;
    let page = new.reader().history(Seq(1), Seq(9), 9).await.unwrap();
    assert_eq!(page.messages.iter().map(|m| &m.body[..]).collect::<Vec<_>>(), [b"2", b"1"]);
}

#[tokio::test(start_paused = true)]
async fn confirm_notices_a_new_owner_even_behind_a_full_bucket() {
    let w = world();
    let mut old = w.open().await;
    old.confirm().await.unwrap();
    fill(&mut old, 4096).await;
    old.confirm().await.unwrap();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(old.unconfirmed_for() > Duration::from_secs(8));
    let _new = w.open().await;
    assert!(matches!(old.confirm().await, Err(Error::StaleOwner { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_fence_refuses_appends_of_lower_group_epochs() {
    let w = world();
    let mut log = w.open().await;
    log.append(vec![entry("1")], Epoch(3)).await.unwrap();
    log.fence(Epoch(5)).await.unwrap();
    assert!(matches!(log.append(vec![entry("2")], Epoch(4)).await, Err(Error::StaleGroup { .. })));
    assert!(matches!(log.fence(Epoch(4)).await, Err(Error::StaleGroup { .. })));
    drop(log);
    let mut log = w.open().await;
    assert!(matches!(log.append(vec![entry("2")], Epoch(4)).await, Err(Error::StaleGroup { .. })));
    assert_eq!(log.append(vec![entry("2")], Epoch(5)).await.unwrap()[0].seq, Seq(2));
    fill(&mut log, 4096).await;
    log.fence(Epoch(6)).await.unwrap();
    drop(log);
    assert_eq!(w.open().await.group_epoch(), Epoch(6));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_settled_before_anything_else() {
    let (mut stored, mut not_stored) = (0, 0);
    for seed in 0..60 {
        let clock = Clock::simulated(START);
        let sim = SimRows::new(Rng::seeded(seed), clock.clone(), Faults::none());
        let logs = Logs::new(sim.store(), clock, Rng::seeded(seed), "group");
        let mut log = logs.open(Opening { id: ID, class: Class::Week, route: String::new() }).await.unwrap();
        fill(&mut log, if seed % 2 == 0 { 3 } else { 4096 }).await;
        let before = log.last_seq().0;
        sim.set_faults(Faults { unknown_per_mille: 1000, ..Faults::none() });
        assert!(matches!(log.append(vec![entry("?")], Epoch(0)).await, Err(Error::Unsettled)));
        assert!(matches!(log.append(vec![entry("!")], Epoch(0)).await, Err(Error::Unsettled)));
        sim.set_faults(Faults::none());
        match log.settle().await.unwrap() {
            Settled::Stored(appended) => {
                stored += 1;
                assert_eq!((appended.len(), appended[0].seq.0), (1, before + 1), "seed {seed}");
            }
            Settled::NotStored => not_stored += 1,
        }
        let last = log.last_seq().0;
        let next = append(&mut log, vec![entry("next")]).await;
        assert_eq!(next[0].seq.0, last + 1, "seed {seed}");
        let page = log.reader().history(Seq(before), Seq(last + 9), 99).await.unwrap();
        assert_eq!(page.messages.len() as u64, last + 1 - before + 1, "seed {seed}");
    }
    assert!(stored > 5 && not_stored > 5, "stored {stored}, not {not_stored}");
}

#[tokio::test(start_paused = true)]
async fn the_head_is_due_after_a_second_or_64_messages() {
    let w = world();
    let mut log = w.open().await;
    assert!(!log.head_due() && log.head_due_in().is_none());
    append(&mut log, vec![entry("1")]).await;
    assert!(!log.head_due());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(log.head_due());
    log.write_head().await.unwrap();
    assert!(log.head_due_in().is_none());
    fill(&mut log, 65).await;
    assert!(log.head_due());
}

#[tokio::test(start_paused = true)]
async fn heads_of_open_logs_show_what_is_acknowledged() {
    let w = world();
    let mut log = w.open().await;
    append(&mut log, vec![entry("1"), entry("2")]).await;
    let other = LogId { conv: ConvId(8), ..ID };
    let heads = w.logs.heads(&[ID, other]).await.unwrap();
    let head = heads[0].as_ref().unwrap();
    assert_eq!((head.last_seq, head.ord, head.open), (2, 2, true), "ahead of its row");
    assert!(heads[1].is_none());
    fill(&mut log, 4100).await;
    assert_eq!(w.logs.heads(&[ID]).await.unwrap()[0].as_ref().unwrap().last_seq, 4100, "across a bucket");
    log.set_cursor(Seq(4099));
    log.close().await.unwrap();
    let head = w.logs.heads(&[ID]).await.unwrap().remove(0).unwrap();
    assert_eq!((head.last_seq, head.cursor, head.open, head.bucket), (4100, 4099, false, 1));
    assert_eq!(w.open().await.cursor(), Seq(4099));
}

#[tokio::test(start_paused = true)]
async fn open_logs_are_listed_until_they_are_closed_cleanly() {
    let w = world();
    let slot = ID.slot();
    let log = w.open().await;
    let died = w.logs.open_logs(slot).await.unwrap();
    assert_eq!((died.len(), died[0].conv, died[0].route.as_str()), (1, 7, "g1"));
    drop(log);
    let log = w.open().await;
    let listed = w.logs.open_logs(slot).await.unwrap();
    assert_eq!((listed.len(), listed[0].epoch), (1, log.epoch().0), "a dead owner's row is taken away");
    log.close().await.unwrap();
    assert!(w.logs.open_logs(slot).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_owner_cannot_close_the_log_of_its_successor() {
    let w = world();
    let old = w.open().await;
    let mut new = w.open().await;
    append(&mut new, vec![entry("1")]).await;
    assert!(matches!(old.close().await, Err(Error::StaleOwner { .. })));
    assert_eq!(w.logs.open_logs(ID.slot()).await.unwrap().len(), 1);
    assert!(w.logs.heads(&[ID]).await.unwrap()[0].as_ref().unwrap().open);
}

#[tokio::test(start_paused = true)]
async fn a_new_retention_begins_with_the_next_bucket() {
    let w = world();
    let mut log = w.open_as(Class::Week).await;
    fill(&mut log, 4000).await;
    drop(log);
    let mut log = w.open_as(Class::Year).await;
    fill(&mut log, 4100).await;
    w.clock.jump(DAY * 9);
    let page = log.reader().history(Seq(1), Seq(9999), 999).await.unwrap();
    assert_eq!(seqs(&page), [4100, 4099, 4098, 4097]);
    assert_eq!(page.missing, [(Seq(1), Seq(4096))]);
    drop(log);
    assert_eq!(w.open_as(Class::Week).await.last_seq(), Seq(4100));
    let reader = w.logs.reader(ID).await.unwrap().unwrap();
    assert_eq!(reader.first_seq().await.unwrap(), Seq(4097));
}

#[tokio::test(start_paused = true)]
async fn a_restored_log_jumps_in_a_new_generation_and_searches_go_on_working() {
    for margin in [100, 10_000] {
        let w = world();
        let mut log = w.open().await;
        fill(&mut log, 4000).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        log.restore(margin).await.unwrap();
        let first = append(&mut log, vec![entry("after")]).await;
        assert_eq!((first[0].seq.0, log.generation(), log.ord()), (4000 + margin + 1, 1, 4001));
        drop(log);
        let mut log = w.open().await;
        assert_eq!((log.last_seq().0, log.generation()), (4000 + margin + 1, 1));
        append(&mut log, vec![entry("and on")]).await;
        let reader = log.reader();
        let page = reader.history(Seq(3999), Seq(u64::MAX), 99).await.unwrap();
        assert_eq!(seqs(&page), [4000 + margin + 2, 4000 + margin + 1, 4000, 3999]);
        assert_eq!(page.missing, [(Seq(4001), Seq(4000 + margin))]);
        assert_eq!(reader.seq_at(START.plus_ms(30_000)).await.unwrap().0, 4000 + margin + 1);
        assert_eq!(reader.seq_at(START).await.unwrap(), Seq(1));
        assert_eq!(reader.first_seq().await.unwrap(), Seq(1));
        assert_eq!(log.recover(UnixMillis(0), RECOVERY_ROWS).await.unwrap().len(), 4002);
        assert_eq!(w.logs.heads(&[ID]).await.unwrap()[0].as_ref().unwrap().last_seq, 4000 + margin + 2);
    }
}
