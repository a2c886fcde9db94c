//! What becomes of a plan when neighbours, providers or the process fail.

use std::time::Duration;

use linnet_outbound::Reason;
use linnet_proto::push::{DevicesRequest, FailedRequest, ReplayRequest, StatsRequest};
use linnet_types::AppSettings;

use crate::rig::{APP, Rig};

const SOON: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn a_provider_that_was_down_gets_all_of_it_with_the_same_names() {
    let rig = Rig::new();
    rig.devices(&["bob"]).await;
    *rig.provider.fault.lock() = Some(Reason::Refused);
    for seq in 1..=3 {
        rig.tell_pair("alice", "bob", seq).await;
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(rig.provider.taken.lock().is_empty());
    let tries = rig.provider.tries.lock().len();
    assert!((5..40).contains(&tries), "it is not hammered: {tries}");
    *rig.provider.fault.lock() = None;
    let taken = rig.taken(3).await;
    let seqs: Vec<u64> = taken.iter().map(|batch| batch.notifications[0].seq).collect();
    assert_eq!(seqs, [1, 2, 3], "in order");
    let first = &taken[0].request_id;
    let names: Vec<_> = rig.provider.tries.lock().iter().map(|(name, _)| name.clone()).take(tries).collect();
    assert!(names.iter().all(|name| name == first), "one request was tried, not all: {names:?}");
    assert_eq!(rig.metrics.value("linnet_push_failed_total{reason=\"refused\"}"), Some(tries as f64));
}

#[tokio::test(start_paused = true)]
async fn one_request_that_a_provider_dislikes_does_not_hold_up_others() {
    let rig = Rig::new();
    rig.devices(&["bob"]).await;
    *rig.provider.fault.lock() = Some(Reason::HttpStatus);
    rig.tell_pair("alice", "bob", 1).await;
    tokio::time::sleep(SOON).await;
    *rig.provider.fault.lock() = None;
    rig.tell_pair("alice", "bob", 2).await;
    let taken = rig.taken(2).await;
    let seqs: Vec<u64> = taken.iter().map(|batch| batch.notifications[0].seq).collect();
    assert_eq!(seqs, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_given_up_listed_and_replayed() {
    let rig = Rig::with(AppSettings { push_ttl_s: 60, ..AppSettings::default() });
    rig.devices(&["bob"]).await;
    *rig.provider.fault.lock() = Some(Reason::Timeout);
    rig.tell_pair("alice", "bob", 1).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    let ask = FailedRequest { app: APP.0, ..FailedRequest::default() };
    let failed = rig.client().failed(ask.clone()).await.unwrap().into_inner();
    assert_eq!((failed.total, failed.letters[0].reason.as_str(), failed.letters[0].receivers), (1, "timeout", 1));
    *rig.provider.fault.lock() = None;
    let again = ReplayRequest { app: APP.0, ids: Vec::new(), all: true };
    assert_eq!(rig.client().replay(again).await.unwrap().into_inner().replayed, 1);
    assert_eq!(rig.taken(1).await[0].request_id, failed.letters[0].request_id);
    tokio::time::sleep(SOON).await;
    assert_eq!(rig.client().failed(ask).await.unwrap().into_inner().total, 0);
    let stats = rig.client().stats(StatsRequest { app: APP.0 }).await.unwrap().into_inner();
    assert_eq!((stats.planning, stats.sending, stats.dead), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_provider_names_is_removed() {
    let rig = Rig::new();
    rig.devices(&["bob"]).await;
    *rig.provider.invalid.lock() = vec!["t-bob".into(), "t-other".into()];
    rig.tell_pair("alice", "bob", 1).await;
    rig.taken(1).await;
    tokio::time::sleep(SOON).await;
    let left = rig.client().devices(DevicesRequest { app: APP.0, user: "bob".into() }).await.unwrap().into_inner();
    assert!(left.devices.is_empty());
    rig.tell_pair("alice", "bob", 2).await;
    tokio::time::sleep(SOON).await;
    assert_eq!(rig.provider.taken.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn plans_wait_for_presence_and_lose_nothing() {
    let rig = Rig::new();
    rig.world.lock().members = ["alice", "bob"].map(|user| (user.to_owned(), "AcceptAndNotify")).into();
    rig.devices(&["bob"]).await;
    rig.world.lock().sessions_away = true;
    rig.tell_pair("alice", "bob", 1).await;
    rig.tell_group("alice", 1..=3).await;
    assert!(rig.told_after(Duration::from_secs(60)).await.is_empty());
    rig.world.lock().sessions_away = false;
    let told = rig.told_after(Duration::from_secs(3)).await;
    let mut texts: Vec<_> = told["bob"].iter().map(|(_, text)| text.as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["3 new messages", "m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_loses_nothing() {
    for after_ms in [0, 1, 5, 1_900, 2_000, 2_001, 2_005, 2_050, 2_500] {
        let mut rig = Rig::with(AppSettings { push_batch: 10, ..AppSettings::default() });
        let users: Vec<String> = (0..120).map(|n| format!("u{n:03}")).collect();
        rig.world.lock().members = users.iter().map(|user| (user.clone(), "AcceptAndNotify")).collect();
        rig.devices(&users.iter().map(String::as_str).collect::<Vec<_>>()).await;
        rig.tell_pair("alice", "u000", 1).await;
        rig.tell_group("u119", 1..=4).await;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        rig.kill().await;
        rig.start();
        let told = rig.told_after(Duration::from_secs(60)).await;
        assert_eq!(told.len(), 119, "killed after {after_ms} ms");
        let mut names: Vec<_> = rig.provider.taken.lock().iter().map(|batch| batch.request_id.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let distinct = names.len();
        assert_eq!(distinct, 12 + 1, "repeats have the names of what they repeat; killed after {after_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_go_out_at_the_apps_rate() {
    let rig = Rig::with(AppSettings { push_rate: 5, ..AppSettings::default() });
    rig.devices(&["bob"]).await;
    let began = rig.clock.now();
    for seq in 1..=20 {
        rig.tell_pair("alice", "bob", seq).await;
    }
    rig.taken(20).await;
    let last = rig.provider.tries.lock().iter().map(|(_, at)| *at).max().unwrap();
    let took = last.since(began);
    assert!((2_900..6_000).contains(&took), "5 at once, 5 a second from then on: {took} ms");
}
