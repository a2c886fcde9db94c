//! Live rooms.

use linnet_client::proto::{Item, RoomState, item};
use linnet_client::{Event, Events};
use linnet_gateway::Config;
use linnet_proto::delivery::{Batch, Control, LiveState, Mute, Record, batch, control, record};
use linnet_proto::gateway::gateways_client::GatewaysClient;
use linnet_proto::{gateway, msg};
use linnet_types::{AppSettings, code};

use crate::fakes::{APP, LIVE, Node, eventually};

fn message(seq: u64) -> Record {
    let kind = msg::MessageKind::Chat.into();
    let message = msg::Message { seq, from: "host".into(), body: "[1]".into(), kind, ..msg::Message::default() };
    Record { kind: Some(record::Kind::Message(message)), ..Record::default() }
}

fn says(kind: control::Kind) -> Record {
    Record { kind: Some(record::Kind::Control(Control { kind: Some(kind) })), ..Record::default() }
}

fn room_batch(no: u64, records: Vec<Record>) -> Batch {
    Batch {
        app: APP,
        conv: LIVE,
        tenure: 1,
        no,
        prev: no - 1,
        key: Some(batch::Key::GroupId("live".into())),
        records,
        live: true,
        ..Batch::default()
    }
}

async fn room_state(events: &mut Events) -> RoomState {
    loop {
        if let Event::Item(Item { what: Some(item::What::Room(state)), conv }) = events.next().await.expect("told") {
            assert_eq!(conv, "GROUP:live");
            return state;
        }
    }
}

#[tokio::test]
async fn viewers_come_and_go_and_the_owner_is_told_once_a_tick() {
    let node = Node::start(Config::default()).await;
    let (alice, mut a) = node.client("alice").await;
    let (bob, mut b) = node.client("bob").await;
    let joined = alice.join("live").await.expect("in");
    assert_eq!((joined.status.as_str(), joined.group.expect("shown").r#type.as_str()), ("joined", "AVChatRoom"));
    assert_eq!(bob.join("live").await.expect("in").online, 2);
    assert_eq!(bob.join("live").await.expect("in").status, "already");
    eventually("the owner knows", || node.world.lock().deltas.iter().map(|d| d.joined_count).sum::<u32>() == 2).await;
    node.fan(room_batch(1, vec![message(10), message(15)])).await;
    assert_eq!((a.message().await.expect("pushed").1.seq, a.message().await.expect("pushed").1.seq), (10, 15));
    assert_eq!(b.message().await.expect("pushed").1.seq, 10);

    let mut owner = GatewaysClient::new(node_rpc(&node));
    let ask = gateway::LiveMembersRequest { app: APP, conv: LIVE, limit: 1 };
    let members = owner.live_members(ask).await.expect("answers").into_inner();
    assert_eq!((members.count, members.members[0].user.as_str()), (2, "bob"), "newest first");

    let quit =
        linnet_client::proto::frame::Body::GroupQuit(linnet_client::proto::GroupQuit { group_id: "live".into() });
    bob.done(quit).await.expect("out");
    eventually("the owner knows", || node.world.lock().deltas.iter().map(|d| d.left_count).sum::<u32>() == 1).await;
    node.accounts_add_up().await;
}

fn node_rpc(node: &Node) -> linnet_cluster::Rpc {
    node.cluster.for_node(linnet_cluster::Service::Gateway, &node.node).expect("registered")
}

#[tokio::test]
async fn mutes_bans_and_kicks_act_in_their_place() {
    let node = Node::start(Config::default()).await;
    let live = LiveState { banned: [("eve".to_owned(), u64::MAX)].into(), ..LiveState::default() };
    node.world.lock().live = Some(live);
    let (alice, mut a) = node.client("alice").await;
    let (bob, mut b) = node.client("bob").await;
    let (eve, _e) = node.client("eve").await;
    alice.join("live").await.expect("in");
    bob.join("live").await.expect("in");
    assert_eq!(eve.join("live").await.expect_err("banned").code(), Some(code::GROUP_NO_RIGHT));
    assert_eq!(eve.text("GROUP:live", "x").await.expect_err("not in").code(), Some(code::GROUP_NO_RIGHT));

    let mute = |until_ms| says(control::Kind::Muted(Mute { user: "bob".into(), until_ms }));
    node.fan(room_batch(1, vec![mute(u64::MAX), message(1)])).await;
    a.message().await.expect("pushed");
    assert_eq!(bob.text("GROUP:live", "x").await.expect_err("muted").code(), Some(code::GROUP_MUTED));
    node.fan(room_batch(2, vec![mute(0), message(2)])).await;
    a.message().await.expect("pushed");
    assert_eq!(bob.text("GROUP:live", "x").await.expect("published").outcome, "published");

    let banned = |user: &str| LiveState { banned: [(user.to_owned(), u64::MAX)].into(), ..LiveState::default() };
    node.world.lock().live = Some(banned("bob"));
    let ban = says(control::Kind::Banned(Mute { user: "bob".into(), until_ms: u64::MAX }));
    node.fan(room_batch(3, vec![ban, message(3)])).await;
    let state = room_state(&mut b).await;
    assert!(state.left && state.why == "banned");
    assert_eq!(a.message().await.expect("pushed").1.seq, 3);
    assert_eq!(bob.join("live").await.expect_err("banned").code(), Some(code::GROUP_NO_RIGHT));
    // Lifted at the owner a moment ago, and not heard here yet.
    assert_eq!(eve.join("live").await.expect("not banned any more").status, "joined");
    assert_eq!(eve.join("live").await.expect("already in").status, "already");

    node.fan(room_batch(4, vec![message(4), says(control::Kind::Dismissed(true))])).await;
    assert!(room_state(&mut a).await.why == "dismissed");
    while let Some(event) = b.try_next() {
        assert!(!matches!(event, Event::Message { message, .. } if message.seq > 2), "nothing after the ban");
    }
}

#[tokio::test]
async fn no_gateway_forwards_more_than_the_rooms_cap_and_the_rest_is_told_and_reported() {
    let node = Node::start(Config::default()).await;
    node.world.lock().live = Some(LiveState { rate_per_s: 10, ..LiveState::default() });
    let (alice, _a) = node.client("alice").await;
    alice.join("live").await.expect("in");
    let sends = (0..60).map(|n| {
        let alice = alice.clone();
        async move { alice.text("GROUP:live", &format!("{n}")).await.expect("answered") }
    });
    let sent = futures::future::join_all(sends).await;
    let shaped = sent.iter().filter(|sent| sent.outcome == "shaped").count();
    let forwarded = node.world.lock().group_sends.len();
    assert_eq!(shaped + forwarded, 60);
    assert!((10..=20).contains(&forwarded), "{forwarded}");
    assert!(sent.iter().all(|sent| (sent.outcome == "shaped") == (sent.drop_reason == "MsgFreqCtrl")));
    eventually("the owner is told", || {
        node.world.lock().deltas.iter().flat_map(|d| &d.shed).sum::<u32>() as usize == shaped
    })
    .await;
}

#[tokio::test]
async fn newcomers_get_the_last_messages_marked_as_replayed() {
    let settings = AppSettings { live_replay: 2, ..AppSettings::default() };
    let node = Node::with(Config::default(), settings).await;
    let (alice, mut a) = node.client("alice").await;
    alice.join("live").await.expect("in");
    node.fan(room_batch(1, vec![message(1), message(2), message(3)])).await;
    for _ in 0..3 {
        assert!(!a.message().await.expect("pushed").1.replayed);
    }
    let (bob, mut b) = node.client("bob").await;
    bob.join("live").await.expect("in");
    let (first, second) = (b.message().await.expect("replayed").1, b.message().await.expect("replayed").1);
    assert_eq!((first.seq, second.seq, first.replayed, second.replayed), (2, 3, true, true));
    node.fan(room_batch(2, vec![message(4)])).await;
    assert_eq!(b.message().await.expect("pushed").1.seq, 4);
}

#[tokio::test]
async fn a_connection_is_in_one_room_unless_the_app_says_more() {
    let node = Node::start(Config::default()).await;
    let (alice, mut a) = node.client("alice").await;
    alice.join("live").await.expect("in");
    let mut other = GatewaysClient::new(node_rpc(&node));
    let ask = gateway::LeaveRoomRequest {
        app: APP,
        user: "alice".into(),
        group_id: "live".into(),
        connection: String::new(),
    };
    other.leave_room(ask).await.expect("done");
    let state = room_state(&mut a).await;
    assert!(state.left && state.why == "other_room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_viewer_gets_every_message_in_order_and_the_counts_agree() {
    const VIEWERS: usize = 150;
    const MESSAGES: u64 = 100;
    let node = Node::start(Config { shards: 2, ..Config::default() }).await;
    let mut viewers = Vec::new();
    for n in 0..VIEWERS {
        let mut options = node.options(&format!("v{n}"));
        options.follow = false;
        let options = if n % 3 == 0 { options.json() } else { options };
        let (client, events) = node.connect(options).await;
        client.join("live").await.expect("in");
        viewers.push((client, events));
    }
    eventually("all are listed", || node.metrics.value("linnet_gateway_listed") == Some(VIEWERS as f64)).await;
    let reading = viewers.into_iter().map(|(client, mut events)| {
        let counted = async move {
            for seq in 1..=MESSAGES {
                assert_eq!(events.message().await.expect("pushed").1.seq, seq);
            }
            drop(client);
        };
        node.tasks.spawn("test.viewer", counted)
    });
    let reading: Vec<_> = reading.collect();
    for no in 1..=MESSAGES {
        node.fan(room_batch(no, vec![message(no)])).await;
        if no % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for viewer in reading {
        viewer.await.expect("joined").expect("has everything");
    }
    node.accounts_add_up().await;
    let totals = node.running.gateway.totals();
    assert!(totals.written >= VIEWERS as u64 * MESSAGES && totals.collapsed == 0, "{totals:?}");
    let frames = node.running.gateway.stats().frames_out;
    assert!(frames < VIEWERS as u64 * MESSAGES / 2, "windows merge: {frames} frames");
}
