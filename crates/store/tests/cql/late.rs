//! Writes that nobody answered, and that arrive when the world has moved on.

use std::time::Duration;

use bytes::Bytes;
use linnet_runtime::config::Period;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::{Config, Cql};
use linnet_store::groups::{Change, Created, GroupGuard, GroupRecord, Groups, Member, NewGroup, UserEdit};
use linnet_store::logs::{Class, Entry, Error, LogId, Logs, Opening};
use linnet_store::{Applied, Guard, GuardedBatch, Kind, Life, PlainBatch, Store, Table, Write};
use linnet_types::{ConvId, Epoch, GroupId, GroupType, Role, SdkAppId, Seq, UnixMillis, UserId};

use crate::cql_store;
use crate::held::HeldAtWrite;
use crate::relay::Relay;

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const G: Table = Table { name: "suite_guarded", kind: Kind::Guarded };
const P: Table = Table { name: "suite_plain", kind: Kind::Plain };

/// A store whose words can be held back, and one that speaks to the server at once.
async fn two_ways() -> (Relay, Store, Store) {
    let config = cql_store::config().await;
    let relay = Relay::to(&config.nodes[0]).await;
    let slow = Config {
        via: vec![format!("{}={}", config.nodes[0], relay.address)],
        write_timeout: Period::ms(700),
        read_timeout: Period::secs(2),
        keepalive: Period::secs(120),
        ..config.clone()
    };
    let test = Rng::system().u64();
    let own = |cql| cql_store::prefixed(cql, test);
    (relay, own(cql_store::connect(slow).await), own(cql_store::connect(config).await))
}

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

fn put(key: &'static str, value: &'static str) -> Write {
    Write::Put { clustering: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn batch(partition: &'static str, expect: Option<(u64, u64)>, guard: (u64, u64), writes: Vec<Write>) -> GuardedBatch {
    GuardedBatch {
        table: G,
        partition: Bytes::from_static(partition.as_bytes()),
        expect: expect.map(|(epoch, rev)| (Epoch(epoch), rev)),
        guard: Guard { epoch: Epoch(guard.0), rev: guard.1, data: Bytes::new() },
        writes,
        life: Life::Forever,
        guard_life: Life::Forever,
    }
}

/// Waits until the server has worked off what arrived before now on other connections.
async fn settled(store: &Store) {
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.guard(G, b"none").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_lands_after_a_read_and_not_after_a_claim() {
    let (relay, slow, store) = two_ways().await;
    for partition in ["read", "claimed"] {
        assert!(slow.write(batch(partition, None, (1, 0), vec![put("j", "in time")])).await.unwrap().is_yes());
        assert!(slow.write(batch(partition, Some((1, 0)), (1, 1), vec![])).await.unwrap().is_yes());
    }
    relay.hold();
    for partition in ["read", "claimed"] {
        let late = slow.write(batch(partition, Some((1, 1)), (1, 2), vec![put("k", "late")])).await;
        assert!(matches!(late, Err(linnet_store::Error::Unknown { .. })), "{late:?}");
    }
    assert_eq!(store.guard(G, b"read").await.unwrap().unwrap().rev, 1, "a read says that it is not in");
    assert!(store.write(batch("claimed", Some((1, 1)), (2, 1), vec![])).await.unwrap().is_yes());
    relay.release();
    settled(&store).await;
    assert_eq!(store.get(G, b"read", b"k").await.unwrap().unwrap(), "late", "this is what the claim is for");
    assert_eq!(store.get(G, b"claimed", b"k").await.unwrap(), None);
    let refused = store.write(batch("claimed", Some((1, 1)), (1, 2), vec![])).await.unwrap();
    assert!(matches!(refused, Applied::No(Some(guard)) if guard.epoch == Epoch(2) && guard.rev == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_nobody_answered_does_not_land_over_what_its_settling_acknowledged() {
    let (relay, slow, store) = two_ways().await;
    let id = LogId { app: APP, conv: ConvId(77) };
    let opening = || Opening { id, class: Class::Week, route: String::new() };
    let of = |store: &Store, seed| Logs::new(store.clone(), Clock::system(), Rng::seeded(seed), "group");
    let mut paused = of(&slow, 1).open(opening()).await.unwrap();
    paused.append(vec![entry("first")], Epoch(0)).await.unwrap();
    relay.hold();
    let unanswered = paused.append(vec![entry("late")], Epoch(0)).await;
    assert!(matches!(unanswered, Err(Error::Unsettled)), "{unanswered:?}");
    let mut owner = of(&store, 2).open(opening()).await.unwrap();
    let appended = owner.append(vec![entry("second")], Epoch(0)).await.unwrap();
    assert_eq!(appended[0].seq, Seq(2));
    relay.release();
    settled(&store).await;
    let page = owner.reader().history(Seq(1), Seq(u64::MAX), 10).await.unwrap();
    let bodies: Vec<&[u8]> = page.messages.iter().rev().map(|message| &message.body[..]).collect();
    assert_eq!(bodies, [&b"first"[..], b"second"]);
    assert!(matches!(paused.settle().await, Err(Error::StaleOwner { .. })), "the paused owner is told");
    assert_eq!(owner.append(vec![entry("third")], Epoch(0)).await.unwrap()[0].seq, Seq(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_nobody_answered_is_settled_by_its_own_owner_and_stays_refused() {
    let (relay, slow, store) = two_ways().await;
    let id = LogId { app: APP, conv: ConvId(78) };
    let logs = Logs::new(slow, Clock::system(), Rng::seeded(3), "group");
    let mut log = logs.open(Opening { id, class: Class::Week, route: String::new() }).await.unwrap();
    log.append(vec![entry("first")], Epoch(0)).await.unwrap();
    relay.hold();
    assert!(matches!(log.append(vec![entry("late")], Epoch(0)).await, Err(Error::Unsettled)));
    relay.release();
    // The late write and the claim race now: whichever wins, the log says so and goes on.
    let settled_as = loop {
        match log.settle().await {
            Ok(settled) => break settled,
            Err(Error::Unsettled | Error::Store(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    log.append(vec![entry("next")], Epoch(0)).await.unwrap();
    settled(&store).await;
    let page = log.reader().history(Seq(1), Seq(u64::MAX), 10).await.unwrap();
    let bodies: Vec<&[u8]> = page.messages.iter().rev().map(|message| &message.body[..]).collect();
    match settled_as {
        linnet_store::logs::Settled::Stored(_) => assert_eq!(bodies, [&b"first"[..], b"late", b"next"]),
        linnet_store::logs::Settled::NotStored => assert_eq!(bodies, [&b"first"[..], b"next"]),
    }
}

async fn claim(groups: &Groups, conv: ConvId) -> GroupGuard {
    groups.claim(APP, conv).await.unwrap().unwrap()
}

async fn late_add_after_kick(kind: GroupType, conv: ConvId, name: &str) {
    let (relay, slow, store) = two_ways().await;
    let (paused, groups) = (Groups::new(slow.clone()), Groups::new(store.clone()));
    let owner = Member { role: Role::Owner, ..Member::new(user("ann"), NOW, Seq(0)) };
    let new = NewGroup {
        record: GroupRecord::new(APP, conv, GroupId::trusted(name), kind, NOW),
        members: vec![owner],
        events: vec![],
        at: NOW,
    };
    let Created::New(mut held) = paused.create(new).await.unwrap() else { panic!("the id is free") };
    // Its partition is claimed beforehand, so that what is late is the write itself.
    paused.member(&mut held, &user("bob")).await.unwrap();
    let paused = Groups::new(std::sync::Arc::new(HeldAtWrite { inner: slow, relay: relay.clone() }));
    let late =
        paused.apply(&mut held, Change::at(NOW).user(UserEdit::put(Member::new(user("bob"), NOW, Seq(0))))).await;
    assert!(matches!(late, Err(linnet_store::Error::Unknown { .. })), "{late:?}");
    let mut now = claim(&groups, conv).await;
    groups.apply(&mut now, Change::at(NOW).user(UserEdit::remove(user("bob")))).await.unwrap();
    relay.release();
    settled(&store).await;
    let mut judge = claim(&groups, conv).await;
    assert_eq!(groups.member(&mut judge, &user("bob")).await.unwrap(), None, "{kind:?}");
    assert_eq!(judge.record().member_count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_add_member_does_not_undo_a_kick() {
    late_add_after_kick(GroupType::Public, ConvId(80), "late").await;
    late_add_after_kick(GroupType::Community, ConvId(81), "@TGS#_late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_write_nobody_answered_does_not_replace_a_later_one() {
    let (relay, slow, store) = two_ways().await;
    let write = |value| PlainBatch {
        table: P,
        writes: vec![(Bytes::from_static(b"late"), put("k", value))],
        life: Life::Forever,
    };
    relay.hold();
    assert!(slow.put(write("first")).await.is_err());
    store.put(write("second")).await.unwrap();
    relay.release();
    settled(&store).await;
    assert_eq!(store.get(P, b"late", b"k").await.unwrap().unwrap(), "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_ahead_does_not_hide_what_others_write_after_it() {
    let config = cql_store::config().await;
    let (metrics, test) = (Metrics::new(), Rng::system().u64());
    let ahead = Clock::system().skewed(5 * 60_000);
    let ahead = Cql::connect(config.clone(), ahead, &Tasks::new(&metrics), &metrics).await.unwrap();
    let off = metrics.value("linnet_store_cql_clock_off_ms").unwrap();
    assert!((off + 300_000.0).abs() < 5_000.0, "{off}");
    let (ahead, right) =
        (cql_store::prefixed(ahead, test), cql_store::prefixed(cql_store::connect(config).await, test));
    let write = |value| PlainBatch { table: P, writes: vec![("p".into(), put("k", value))], life: Life::Forever };
    let gone = Write::Delete { clustering: Bytes::from_static(b"k") };
    ahead.put(write("ahead")).await.unwrap();
    ahead.put(PlainBatch { writes: vec![("p".into(), gone)], ..write("") }).await.unwrap();
    // Within the time an answer takes either may be the last; five minutes it is not.
    let clock = Clock::system();
    let since = clock.mono();
    loop {
        right.put(write("right")).await.unwrap();
        if right.get(P, b"p", b"k").await.unwrap().is_some_and(|value| value == "right") {
            break;
        }
        assert!(clock.mono() - since < Duration::from_secs(2), "hidden by a write of a node that is ahead");
    }
}

fn entry(text: &'static str) -> Entry {
    Entry::message(user("ann"), 1, Bytes::from_static(text.as_bytes()))
}
