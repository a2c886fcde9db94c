//! Who is pushed to, and what.

use std::time::Duration;

use linnet_proto::push::{
    DevicesRequest, Option as Receive, QuietTime, RemoveDevicesRequest, SetOptionsRequest, SetQuietRequest,
};
use linnet_types::AppSettings;

use crate::rig::{APP, Rig, START};

const SOON: Duration = Duration::from_millis(500);

fn one(text: &str) -> Vec<(u32, String)> {
    vec![(1, text.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn an_offline_user_is_told_with_everything_a_provider_needs() {
    let rig = Rig::new();
    rig.devices(&["bob"]).await;
    rig.tell_pair_as("alice", "bob", 5, |m| {
        m.offline_push = r#"{"Title":"News","Desc":"look","Ext":"{\"a\":1}"}"#.into();
        (m.msg_seq, m.random) = (11, 22);
    })
    .await;
    let batch = rig.taken(1).await.remove(0);
    let told = &batch.notifications[0];
    assert_eq!((told.title.as_str(), told.text.as_str(), told.ext.as_str()), ("News", "look", r#"{"a":1}"#));
    assert_eq!((told.kind.as_str(), told.conv_type.as_str(), told.seq, told.count), ("message", "C2C", 5, 1));
    assert_eq!((told.msg_key.as_str(), told.nick.as_str()), ("11_22_1700000000", "alice's nick"));
    let receiver = &told.receivers[0];
    assert_eq!((receiver.user.as_str(), receiver.badge, receiver.devices[0].token.as_str()), ("bob", Some(1), "t-bob"));
    assert!(told.expire_ms > told.time_ms);
}

#[tokio::test(start_paused = true)]
async fn who_is_online_or_has_no_device_or_said_it_himself_is_not_told() {
    let rig = Rig::new();
    rig.devices(&["bob", "alice"]).await;
    rig.world.lock().online.insert("bob".into());
    rig.tell_pair("alice", "bob", 1).await;
    rig.tell_pair("alice", "carol", 2).await;
    assert_eq!(rig.tell_pair("alice", "alice", 3).await, 0);
    assert!(rig.told_after(SOON).await.is_empty());
    assert_eq!(rig.metrics.value("linnet_push_skipped_total{why=\"online\"}"), Some(1.0));
    assert_eq!(rig.metrics.value("linnet_push_skipped_total{why=\"no_device\"}"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn an_app_may_want_devices_told_that_are_away_while_another_is_online() {
    let rig = Rig::with(AppSettings { push_when_online: true, ..AppSettings::default() });
    rig.devices(&["bob"]).await;
    rig.world.lock().online.insert("bob".into());
    rig.tell_pair("alice", "bob", 1).await;
    assert_eq!(rig.told_after(SOON).await["bob"], one("m1"), "his page is online, his phone is not");
}

#[tokio::test(start_paused = true)]
async fn options_and_quiet_time_are_kept_to_unless_rest_goes_past_them() {
    let rig = Rig::new();
    rig.devices(&["bob", "carol"]).await;
    let option = Receive { conv: "C2C:alice".into(), option: "AcceptNotNotify".into() };
    let request = SetOptionsRequest { app: APP.0, user: "bob".into(), options: vec![option] };
    rig.client().set_options(request).await.unwrap();
    rig.tell_pair("alice", "bob", 1).await;
    rig.tell_pair_as("alice", "bob", 2, |m| m.origin_platform = "RESTAPI".into()).await;
    rig.tell_pair_as("alice", "bob", 3, |m| {
        m.origin_platform = "RESTAPI".into();
        m.with_mute_notifications = true;
    })
    .await;
    // 22:13 UTC: quiet from 22:00 on for an hour.
    let quiet = QuietTime {
        option: "AcceptNotNotify".into(),
        start_s: 22 * 3600,
        duration_s: 3600,
        repeated: true,
        ..QuietTime::default()
    };
    let request = SetQuietRequest { app: APP.0, user: "carol".into(), quiet: Some(quiet) };
    rig.client().set_quiet(request).await.unwrap();
    rig.tell_pair_as("alice", "carol", 4, |m| m.origin_platform = "RESTAPI".into()).await;
    let told = rig.told_after(SOON).await;
    assert_eq!(told.get("bob"), Some(&one("m2")));
    assert_eq!(told.get("carol"), None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    rig.tell_pair("alice", "carol", 5).await;
    assert_eq!(rig.told_after(SOON).await["carol"], one("m5"));
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_group_are_told_together_when_its_window_is_over() {
    let rig = Rig::new();
    rig.world.lock().members = ["alice", "bob", "carol"].map(|user| (user.to_owned(), "AcceptAndNotify")).into();
    rig.devices(&["alice", "bob", "carol"]).await;
    rig.tell_group("alice", 1..=11).await;
    rig.tell_group("bob", 12..=12).await;
    assert!(rig.told_after(Duration::from_millis(1_800)).await.is_empty(), "the window is not over");
    let told = rig.told_after(Duration::from_secs(1)).await;
    assert_eq!(told["carol"], [(12, "12 new messages".to_owned())]);
    assert_eq!(told["alice"], one("m12"), "of his own he is not told");
    assert_eq!(told["bob"], [(11, "11 new messages".to_owned())]);
    rig.tell_group("alice", 13..=13).await;
    let told = rig.told_after(Duration::from_secs(3)).await;
    assert_eq!(told["carol"][1..], one("m13"), "the next window begins with the next message");
    let badges: Vec<_> = rig.taken(4).await.iter().flat_map(|b| b.notifications.clone()).collect();
    let carol = badges.iter().flat_map(|n| &n.receivers).filter(|r| r.user == "carol").map(|r| r.badge);
    assert_eq!(carol.collect::<Vec<_>>(), [Some(12), Some(13)]);
}

#[tokio::test(start_paused = true)]
async fn a_mention_is_told_at_once_and_gets_past_options_made_for_it() {
    let rig = Rig::new();
    rig.world.lock().members = vec![
        ("alice".into(), "AcceptAndNotify"),
        ("open".into(), "AcceptAndNotify"),
        ("muted".into(), "AcceptNotNotify"),
        ("except".into(), "AcceptNotNotifyExceptAt"),
    ];
    rig.devices(&["alice", "open", "muted", "except"]).await;
    let mentioned = ["open", "muted", "except", "stranger"].map(str::to_owned);
    rig.tell_group_as("alice", 1, |m| m.mentions = mentioned.into()).await;
    let told = rig.told_after(SOON).await;
    assert_eq!((told.get("open"), told.get("except")), (Some(&one("m1")), Some(&one("m1"))));
    rig.tell_group("alice", 2..=3).await;
    let told = rig.told_after(Duration::from_secs(3)).await;
    assert_eq!(told["open"][1..], [(2, "2 new messages".to_owned())], "what was told at once is not told again");
    assert_eq!((told.get("except").map(Vec::len), told.get("muted")), (Some(1), None));
    rig.tell_group_as("alice", 4, |m| m.mentions = vec!["__kImSDK_MesssageAtALL__".into()]).await;
    let told = rig.told_after(SOON).await;
    assert_eq!(told["open"][2..], one("m4"));
    assert_eq!((told.get("except").map(Vec::len), told.get("muted")), (Some(2), None));
}

#[tokio::test(start_paused = true)]
async fn a_group_of_1_200_is_told_by_pages_with_one_presence_read_each() {
    let rig = Rig::new();
    let users: Vec<String> = (0..1_200).map(|n| format!("u{n:04}")).collect();
    rig.world.lock().members = users.iter().map(|user| (user.clone(), "AcceptAndNotify")).collect();
    rig.devices(&users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    rig.world.lock().online = users[..200].iter().cloned().collect();
    rig.tell_group("u1199", 1..=12).await;
    assert!(rig.told_after(Duration::from_secs(29)).await.is_empty(), "30 s above 1,000 members");
    let told = rig.told_after(Duration::from_secs(5)).await;
    assert_eq!(told.len(), 999, "neither the 200 who are online nor the sender");
    assert!(told.values().all(|all| *all == [(12, "12 new messages".to_owned())]));
    assert_eq!(rig.world.lock().reads, 3);
    let most = rig.provider.taken.lock().iter().flat_map(|b| &b.notifications).map(|n| n.receivers.len()).max();
    assert_eq!(most, Some(100), "receivers of one request");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_what_was_said_again_or_of_what_is_not_for_him() {
    let rig = Rig::new();
    rig.world.lock().members = ["alice", "bob", "carol"].map(|user| (user.to_owned(), "AcceptAndNotify")).into();
    rig.devices(&["bob", "carol"]).await;
    let same = |m: &mut linnet_proto::msg::Message| m.time_ms = START.0;
    for _ in 0..3 {
        rig.tell_pair_as("alice", "bob", 1, same).await;
    }
    assert_eq!(rig.told_after(SOON).await["bob"], one("m1"));
    rig.tell_pair_as("alice", "bob", 1, same).await;
    rig.tell_group_as("alice", 1, |m| {
        m.set_visibility(linnet_proto::msg::Visibility::Listed);
        m.visible_to = vec!["carol".into()];
    })
    .await;
    rig.tell_group_as("alice", 2, |m| m.offline_push = r#"{"PushFlag":1}"#.into()).await;
    let told = rig.told_after(Duration::from_secs(40)).await;
    assert_eq!((told["bob"].len(), &told["carol"]), (1, &one("m1")));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_removed_or_changes_hands_gets_nothing_of_its_old_user() {
    let rig = Rig::new();
    rig.devices(&["bob", "carol"]).await;
    let instances = vec!["phone-carol".to_owned()];
    let gone = RemoveDevicesRequest { app: APP.0, user: "carol".into(), instances, ..Default::default() };
    assert_eq!(rig.client().remove_devices(gone).await.unwrap().into_inner().removed, 1);
    rig.tell_pair("alice", "carol", 1).await;
    rig.tell_pair("alice", "bob", 2).await;
    assert_eq!(rig.told_after(SOON).await.into_keys().collect::<Vec<_>>(), ["bob"]);
    let left = rig.client().devices(DevicesRequest { app: APP.0, user: "bob".into() }).await.unwrap().into_inner();
    assert_eq!((left.devices.len(), left.badge), (1, 1));
}
