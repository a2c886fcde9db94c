//! Facts about one log; two owners at once are in `tests/takeover.rs`.

use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use linnet_types::{ConvId, Epoch, MsgKey, SdkAppId, Seq, UnixMillis, UserId};

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
        sender: UserId::trusted("alice"),
        random: 5,
        msg_seq: None,
        msg_seq_filled: false,
        content_hash: 9,
        flags: 0,
        visibility: None,
        kind: MessageKind::Message,
        priority: 1,
        countable: true,
        body: Bytes::copy_from_slice(text.as_bytes()),
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
async fn pages_account_for_every_seq_and_go_on_where_they_ended() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 4120).await;
    let reader = log.reader();
    let (mut to, mut seen) = (Seq(9999), Vec::new());
    loop {
        let page = reader.history(Seq(1), to, 50).await.unwrap();
        assert_eq!(page.last_seq, Seq(4120));
        seen.extend(seqs(&page));
        if page.from <= Seq(1) {
            break;
        }
        to = Seq(page.from.0 - 1);
    }
    assert_eq!(seen, (1..=4120).rev().collect::<Vec<_>>());
    let empty = reader.history(Seq(5000), Seq(6000), 10).await.unwrap();
    assert!(empty.messages.is_empty() && empty.missing.is_empty() && empty.to < empty.from);
}

#[tokio::test(start_paused = true)]
async fn revisions_are_laid_over_history_and_versions_are_checked() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 4100).await;
    let revoke = |revision: &mut Revision| {
        revision.revoke = Some(Revoke { by: "alice".to_owned(), reason: "oops".to_owned(), time_ms: 1 });
        true
    };
    let revised = log.revise(Seq(4095), None, revoke).await.unwrap();
    assert_eq!(revised.version, 1);
    let modify = |revision: &mut Revision| {
        revision.body = Some(Bytes::from_static(b"new"));
        true
    };
    log.revise(Seq(4098), Some(0), modify).await.unwrap();
    let late = log.revise(Seq(4098), Some(0), modify).await;
    assert!(matches!(late, Err(Error::Version(found)) if found.version == 1));
    assert!(matches!(log.revise(Seq(9000), None, revoke).await, Err(Error::NoSuchMessage(_))));
    let page = log.reader().history(Seq(4090), Seq(4100), 100).await.unwrap();
    let at = |seq: u64| page.messages.iter().find(|message| message.seq.0 == seq).unwrap();
    assert!(at(4095).is_revoked() && at(4095).body.is_empty());
    assert_eq!((&at(4098).body[..], &at(4097).body[..]), (&b"new"[..], &b"x"[..]));
    assert_eq!(log.snapshot().revoked[0].seq, 4095);
    let _new = w.open().await;
    assert!(matches!(log.revise(Seq(4098), None, modify).await, Err(Error::StaleOwner { .. })));
}

#[tokio::test(start_paused = true)]
async fn revising_over_a_rough_store_counts_each_change_once() {
    for seed in 0..40 {
        let clock = Clock::simulated(START);
        let sim = SimRows::new(Rng::seeded(seed), clock.clone(), Faults::none());
        let logs = Logs::new(sim.store(), clock, Rng::seeded(seed), "group");
        let mut log = logs.open(Opening { id: ID, class: Class::Week, route: String::new() }).await.unwrap();
        fill(&mut log, 1).await;
        sim.set_faults(Faults { unavailable_per_mille: 0, ..Faults::rough() });
        let mut done = 0;
        for _ in 0..20 {
            let add = |revision: &mut Revision| {
                let count = revision.extra.first().copied().unwrap_or(0);
                revision.extra = Bytes::from(vec![count + 1]);
                true
            };
            if log.revise(Seq(1), None, add).await.is_ok() {
                done += 1;
            }
        }
        sim.set_faults(Faults::none());
        let message = log.reader().message(Seq(1)).await.unwrap().unwrap();
        assert_eq!(message.revision.unwrap().extra[0], done, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_messages_are_answered_from_memory_as_from_the_store() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 100).await;
    assert!(log.cached(Seq(1), Seq(999), 20).is_none(), "nothing is kept before somebody reads");
    let first = log.history(Seq(1), Seq(999), 20).await.unwrap();
    assert_eq!(log.cached(Seq(1), Seq(999), 20).unwrap(), first);
    append(&mut log, vec![entry("new"), entry("newer")]).await;
    log.revise(Seq(95), None, |revision| {
        revision.revoke = Some(Revoke::default());
        true
    })
    .await
    .unwrap();
    log.revise(Seq(101), None, |revision| {
        revision.body = Some(Bytes::from_static(b"mod"));
        true
    })
    .await
    .unwrap();
    for (from, to, limit) in [(1, 999, 20), (90, 101, 5), (90, 101, 99), (95, 95, 1), (102, 102, 1)] {
        let cached = log.cached(Seq(from), Seq(to), limit).unwrap();
        let stored = log.reader().history(Seq(from), Seq(to), limit).await.unwrap();
        assert_eq!(cached, stored, "{from}..={to} limit {limit}");
    }
    assert!(log.cached(Seq(1), Seq(50), 20).is_none());
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(log.cached(Seq(1), Seq(999), 20).is_none(), "not confirmed for 8 s");
    log.history(Seq(1), Seq(999), 20).await.unwrap();
    assert!(log.cached(Seq(1), Seq(999), 20).is_some());
    tokio::time::advance(Duration::from_secs(9)).await;
    let _new = w.open().await;
    assert!(matches!(log.history(Seq(1), Seq(999), 20).await, Err(Error::StaleOwner { .. })));
}

#[tokio::test(start_paused = true)]
async fn memory_forgets_what_has_expired() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 10).await;
    w.clock.jump(DAY * 3);
    append(&mut log, vec![entry("later")]).await;
    log.history(Seq(1), Seq(99), 20).await.unwrap();
    w.clock.jump(DAY * 5);
    assert_eq!(seqs(&log.history(Seq(1), Seq(99), 20).await.unwrap()), [11]);
    assert_eq!(log.refresh_first_seq().await.unwrap(), Seq(11));
    assert_eq!(log.snapshot().first_seq, 11);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_found_by_its_public_key_inside_its_second() {
    let w = world();
    let mut log = w.open().await;
    for n in 0..300 {
        append(&mut log, vec![keyed(n, n * 7), keyed(n, n * 7 + 1)]).await;
        tokio::time::advance(Duration::from_millis(130)).await;
    }
    let reader = log.reader();
    for n in [0u32, 1, 150, 299] {
        let time = reader.head(Seq(u64::from(n) * 2 + 1)).await.unwrap().unwrap().time_ms;
        let key = MsgKey { msg_seq: n, random: n * 7 + 1, time_s: time / 1000 };
        assert_eq!(reader.find(key).await.unwrap().unwrap().0, Seq(u64::from(n) * 2 + 2));
        assert!(reader.find(MsgKey { time_s: key.time_s + 1, ..key }).await.unwrap().is_none());
        assert!(reader.find(MsgKey { random: 999_999, ..key }).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_taken_public_key_moves_the_message_to_the_next_second() {
    let w = world();
    let mut log = w.open().await;
    let first = append(&mut log, vec![keyed(1, 2), keyed(1, 2), keyed(1, 3)]).await;
    let seconds: Vec<u64> = first.iter().map(|a| a.time.secs() - START.secs()).collect();
    assert_eq!(seconds, [0, 1, 1]);
    drop(log);
    let mut log = w.open().await;
    let again = append(&mut log, vec![keyed(1, 2)]).await;
    assert_eq!(again[0].time.secs() - START.secs(), 2, "the keys of the newest second survive a take-over");
    assert_eq!(append(&mut log, vec![entry("no key"), entry("no key")]).await[1].time, again[0].time);
}

#[tokio::test(start_paused = true)]
async fn a_time_is_found_across_buckets() {
    let w = world();
    let mut log = w.open_as(Class::Forever).await;
    for _ in 0..20 {
        let to = log.last_seq().0 + 450;
        fill(&mut log, to).await;
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    let reader = log.reader();
    for minute in 0..20 {
        let found = reader.seq_at(START.plus_ms(minute * 60_000)).await.unwrap();
        assert_eq!(found.0, minute * 450 + 1, "minute {minute}");
        assert_eq!(reader.seq_at(START.plus_ms(minute * 60_000 + 1)).await.unwrap().0, (minute + 1) * 450 + 1);
    }
    assert_eq!(reader.seq_at(UnixMillis(0)).await.unwrap(), Seq(1));
}

#[tokio::test(start_paused = true)]
async fn recovery_reads_heads_back_to_the_window_or_the_row_limit() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 4000).await;
    tokio::time::advance(Duration::from_secs(600)).await;
    fill(&mut log, 4200).await;
    drop(log);
    let log = w.open().await;
    let window = log.recover(START.plus_ms(300_000), 12_000).await.unwrap();
    assert_eq!(window.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), (4001..=4200).rev().collect::<Vec<_>>());
    assert_eq!(window[0].1.content_hash, 9);
    assert_eq!(log.recover(UnixMillis(0), 1200).await.unwrap().len(), 1200);
    assert_eq!(log.recover(UnixMillis(0), 12_000).await.unwrap().len(), 4200);
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
async fn a_floor_hides_what_is_below_it_and_survives_the_owner() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 10).await;
    log.raise_floor(Seq(6)).await.unwrap();
    drop(log);
    let log = w.open().await;
    let page = log.reader().history(Seq(1), Seq(10), 99).await.unwrap();
    assert_eq!((seqs(&page), page.missing), (vec![10, 9, 8, 7], vec![(Seq(1), Seq(6))]));
}

#[tokio::test(start_paused = true)]
async fn sides_are_kept_per_message_and_user() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 4100).await;
    let reader = log.reader();
    let side = |seq, user: &str| Side { seq: Seq(seq), user: UserId::trusted(user), value: Bytes::from_static(b"v") };
    let written = [side(4095, "bob"), side(4096, "bob"), side(4097, "bob"), side(4097, "carol")];
    for _ in 0..2 {
        reader.put_sides(SideKind::Receipt, &written, START).await.unwrap();
    }
    reader.put_sides(SideKind::Deleted, &[side(4097, "dan")], START).await.unwrap();
    assert_eq!(reader.sides(SideKind::Receipt, Seq(4096), Seq(9999)).await.unwrap(), written[1..]);
    w.clock.jump(DAY * 7);
    assert!(reader.sides(SideKind::Receipt, Seq(1), Seq(9999)).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_row_of_a_log_can_be_inspected() {
    let w = world();
    let mut log = w.open().await;
    fill(&mut log, 2).await;
    log.revise(Seq(1), None, |revision| {
        revision.revoke = Some(Revoke::default());
        true
    })
    .await
    .unwrap();
    let side = Side { seq: Seq(1), user: UserId::trusted("bob"), value: Bytes::new() };
    log.reader().put_sides(SideKind::Receipt, &[side], START).await.unwrap();
    log.write_head().await.unwrap();
    let store = w.sim.store();
    let key = ["1400000001".to_owned(), "7".to_owned()];
    for (table, rows) in [("log_7d", 4), ("revision_7d", 1), ("side_7d", 1), ("log_head", 1), ("log_origin", 0)] {
        let found = crate::inspect::inspect(&store, table, &key, 50).await.unwrap().unwrap();
        assert_eq!((found.len(), found[0].rows.len()), (1, rows), "{table}");
    }
    let open = crate::inspect::inspect(&store, "open_logs", &["group".to_owned()], 50).await.unwrap().unwrap();
    assert_eq!(open[0].rows[0]["conv"], 7);
    assert!(crate::inspect::inspect(&store, "no such table", &[], 5).await.unwrap().is_none());
}
