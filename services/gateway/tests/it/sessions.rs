//! Signing in, kicks, resuming, leaving.

use std::time::Duration;

use linnet_bus::subject;
use linnet_client::proto::{Kicked, frame};
use linnet_client::{Client, Error, Event, Events, Options};
use linnet_gateway::Config;
use linnet_proto::delivery::{Envelope, Kick, envelope};
use linnet_proto::session::SayAgain;
use linnet_runtime::config::Period;
use linnet_types::{AppSettings, code};
use prost::Message as _;

use crate::fakes::{APP, Node, Proxy, eventually};

async fn refused(node: &Node, change: impl FnOnce(&mut Options)) -> Option<u32> {
    let mut options = node.options("alice");
    change(&mut options);
    match Client::connect(options, &node.tasks, node.rng.clone()).await {
        Err(why) => why.code(),
        Ok(_) => None,
    }
}

async fn kicked(events: &mut Events) -> Kicked {
    loop {
        match events.next().await.expect("told") {
            Event::Kicked(kicked) => return kicked,
            Event::Disconnected => panic!("not told why"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_bad_sign_in_has_its_code() {
    let node = Node::start(Config::default()).await;
    let bobs = node.sig("bob");
    assert_eq!(refused(&node, |_| ()).await, None);
    assert_eq!(refused(&node, |o| o.app = 0).await, Some(code::BAD_SDKAPPID));
    assert_eq!(refused(&node, |o| o.app = 7).await, Some(code::APP_UNKNOWN));
    assert_eq!(refused(&node, |o| o.user.clear()).await, Some(code::NO_IDENTIFIER));
    assert_eq!(refused(&node, |o| o.user = "a\0".into()).await, Some(code::ACCOUNT_BAD_PARAM));
    assert_eq!(refused(&node, |o| o.platform = "Toaster".into()).await, Some(code::ACCOUNT_BAD_PARAM));
    assert_eq!(refused(&node, |o| o.usersig.clear()).await, Some(code::SIG_EMPTY));
    assert_eq!(refused(&node, |o| o.usersig = "eJx".into()).await, Some(code::SIG_UNDECODABLE));
    assert_eq!(refused(&node, |o| o.usersig = bobs).await, Some(code::SIG_WRONG_USER));
    let later = node.clock.now().secs() + 100;
    node.world.lock().kick_time_s.insert("alice".into(), later);
    assert_eq!(refused(&node, |_| ()).await, Some(code::SIG_REVOKED));
}

#[tokio::test]
async fn guessing_is_throttled_per_user() {
    let node = Node::start(Config::default()).await;
    for _ in 0..20 {
        assert_eq!(refused(&node, |o| o.usersig = "eJx".into()).await, Some(code::SIG_UNDECODABLE));
    }
    assert_eq!(refused(&node, |_| ()).await, Some(code::SIG_RETRY), "even with a good one");
    let (_bob, _events) = node.client("bob").await;
}

#[tokio::test]
async fn a_storm_is_told_when_to_come_back() {
    let config = Config { sign_ins_per_s: 1, ..Config::default() };
    let node = Node::start(config).await;
    let (_alice, _events) = node.client("alice").await;
    match Client::connect(node.options("bob"), &node.tasks, node.rng.clone()).await {
        Err(Error::Refused(why)) => assert!(why.code == code::OVERLOADED && why.retry_after_ms >= 50, "{why:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unknown_users_are_made_only_when_the_app_says_so() {
    let settings = AppSettings { auto_account: false, ..AppSettings::default() };
    let node = Node::with(Config::default(), settings).await;
    assert_eq!(refused(&node, |_| ()).await, Some(code::ACCOUNT_UNKNOWN));
    node.world.lock().accounts.insert("alice".into());
    assert_eq!(refused(&node, |_| ()).await, None);
}

#[tokio::test]
async fn the_older_device_of_a_platform_is_told_who_came() {
    let node = Node::start(Config::default()).await;
    let (_first, mut first) = node.client("alice").await;
    let (_second, _events) = node.client("alice").await;
    let told = kicked(&mut first).await;
    assert_eq!((told.reason.as_str(), told.by_platform.as_str()), ("multipleDevice", "Web"));
    assert_eq!(first.next().await, None, "it does not come back by itself");
    eventually("the older session is recorded as left", || {
        node.world.lock().sign_outs.iter().any(|out| out.reason == "Unregister")
    })
    .await;
}

#[tokio::test]
async fn the_session_service_can_kick_over_the_bus() {
    let node = Node::start(Config::default()).await;
    let (_alice, mut events) = node.client("alice").await;
    let kick = Kick { app: APP, user: "alice".into(), reason: "REST_API_Kick".into(), ..Kick::default() };
    let envelope = Envelope { kind: Some(envelope::Kind::Kick(kick)), service: "session".into() };
    let subject = linnet_bus::subject::gw(&node.node);
    node.bus.publish(subject, envelope.encode_to_vec().into()).await.expect("open");
    assert_eq!(kicked(&mut events).await.reason, "REST_API_Kick");
}

#[tokio::test]
async fn a_session_ends_with_its_usersig() {
    let node = Node::start(Config { refresh: Period::ms(50), ..Config::default() }).await;
    let mut options = node.options("alice");
    options.usersig = node.sig_for("alice", 2);
    let (_alice, mut events) = Client::connect(options, &node.tasks, node.rng.clone()).await.unwrap();
    let (bob, _bobs) = node.client("bob").await;
    assert_eq!(kicked(&mut events).await.reason, "userSigExpired");
    bob.text("C2C:carol", "hi").await.expect("his is still good");
}

#[tokio::test]
async fn a_connection_that_is_no_longer_current_is_closed_at_the_next_refresh() {
    let node = Node::start(Config { refresh: Period::ms(50), ..Config::default() }).await;
    let (_alice, mut events) = node.client("alice").await;
    let connection = node.world.lock().sessions[0].connection.clone();
    node.world.lock().stale.push(connection);
    assert_eq!(kicked(&mut events).await.reason, "multipleDevice");
}

/// The directory lost its records: the gateway says whom it has without waiting for its turn, which is far away here.
#[tokio::test]
async fn what_the_directory_lost_is_said_again_at_once() {
    let node = Node::start(Config { refresh: Period::secs(600), ..Config::default() }).await;
    let (_alice, mut events) = node.client("alice").await;
    // Only a refresh tells that a connection is not current.
    let connection = node.world.lock().sessions[0].connection.clone();
    node.world.lock().stale.push(connection);
    let lost = SayAgain { loss: "another life".to_owned() };
    node.bus.publish(subject::directory(), lost.encode_to_vec().into()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), kicked(&mut events)).await.expect("asked in time");
    assert_eq!(told.reason, "multipleDevice");
}

#[tokio::test]
async fn a_cut_connection_is_resumed_and_its_reasons_are_told() {
    let node = Node::start(Config::default()).await;
    let proxy = Proxy::start(&node).await;
    let mut options = node.options("alice");
    options.url = proxy.url();
    options.instance = "page-1".into();
    let (alice, mut events) = node.connect(options).await;
    assert!(
        matches!(events.next().await, Some(Event::SignedIn(first)) if !first.resumed && first.instance == "page-1")
    );
    proxy.cut();
    assert_eq!(events.next().await, Some(Event::Disconnected));
    assert!(matches!(events.next().await, Some(Event::SignedIn(again)) if again.resumed));
    alice.close().await;
    eventually("both ends are recorded", || node.world.lock().sign_outs.len() >= 2).await;
    let reasons: Vec<_> = node.world.lock().sign_outs.iter().map(|out| out.reason.clone()).collect();
    assert_eq!(reasons, ["LinkClose", "Unregister"]);
}

#[tokio::test]
async fn a_leaving_node_sends_its_clients_away() {
    let node = Node::start(Config::default()).await;
    let mut options = node.options("alice");
    options.reconnect = false;
    let (alice, mut events) = node.connect(options).await;
    node.running.stop(Duration::from_secs(5)).await;
    while let Some(event) = events.next().await {
        assert!(matches!(event, Event::SignedIn(_) | Event::Disconnected), "{event:?}");
    }
    let ping = frame::Body::Ping(linnet_client::proto::Ping {});
    assert!(alice.request(ping).await.is_err());
}
