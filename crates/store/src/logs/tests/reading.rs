//! Reading, revising and searching a log.

use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use linnet_types::{MsgKey, Seq, UnixMillis, UserId};

use super::*;

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
