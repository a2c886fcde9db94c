use std::time::Duration;

use linnet_bus::Subscription;
use linnet_proto::delivery::delivery_client::DeliveryClient;
use linnet_proto::delivery::{RegisterReply, RegisterRequest};
use linnet_proto::msg::{Outcome, Priority};
use linnet_types::AppSettings;

use super::*;

async fn room(settings: AppSettings) -> (World, u64) {
    let world = World::new(settings).await;
    world.create("AVChatRoom", "l", "host", &[]).await;
    let conv = world.conv("l").await;
    (world, conv)
}

async fn register(world: &World, conv: u64, count: u32) -> RegisterReply {
    let key = RouteKey::group(APP, &GroupId::trusted("l"));
    let rpc = world.cluster.for_owner(Service::Group, key).expect("a node");
    let request = RegisterRequest {
        app: APP.0,
        conv,
        gateway: NODE.into(),
        incarnation: 1,
        group_id: "l".into(),
        live_count: count,
        ..RegisterRequest::default()
    };
    done(DeliveryClient::new(rpc).register(request).await).expect("registered")
}

async fn delta(world: &World, conv: u64, joined: &[&str], left: &[&str], local: u32) -> LiveDeltaReply {
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let request = LiveDeltaRequest {
        app: APP.0,
        conv,
        group_id: "l".into(),
        gateway: NODE.into(),
        incarnation: 1,
        joined: names(joined),
        left: names(left),
        joined_count: u32::try_from(joined.len()).expect("few"),
        left_count: u32::try_from(left.len()).expect("few"),
        local,
        ..LiveDeltaRequest::default()
    };
    done(world.groups().live_delta(request).await).expect("answered")
}

async fn words(seen: &mut Subscription) -> Vec<String> {
    drain(seen).await.iter().map(word).collect()
}

async fn send_as(world: &World, from: &str, text: &str, priority: Priority) -> Outcome {
    let mut message = text_message(from, text);
    message.set_priority(priority);
    world.send_message("l", message, by(from)).await.expect("told success").outcome()
}

#[tokio::test(start_paused = true)]
async fn messages_are_published_numbered_and_not_stored() {
    let (world, conv) = room(hooked()).await;
    let mut seen = world.watch(conv).await;
    assert_eq!(register(&world, conv, 1).await.live.expect("state").online, 1);
    let first = world.send("l", "anyone", "hi").await.expect("sent");
    let second = world.send("l", "anyone", "ho").await.expect("sent");
    assert_eq!((first.outcome(), second.seq), (Outcome::Published, first.seq + 1));
    assert!(world.logs.of(conv).is_empty());
    assert_eq!(&words(&mut seen).await[..2], ["hi", "ho"]);
    let told = world.hooks.posted("Group.CallbackAfterSendMsg");
    assert_eq!((told.len(), &told[0]["MsgSeq"]), (2, &first.seq.into()));
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn sequences_never_go_back_after_a_restart() {
    let (mut world, _) = room(AppSettings::default()).await;
    let before = world.send("l", "a", "one").await.expect("sent").seq;
    world.start();
    let after = world.send("l", "a", "two").await.expect("sent").seq;
    assert!(after > before, "{after} after {before}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_shaped_by_priority_and_told() {
    let (world, conv) = room(AppSettings { live_rate: 10, ..hooked() }).await;
    register(&world, conv, 1).await;
    let mut sends = Vec::new();
    for i in 0..60 {
        let priority = if i % 10 == 0 { Priority::High } else { Priority::Normal };
        let (world, text, from) = (&world, i.to_string(), format!("u{i}"));
        sends.push(async move {
            // 60 messages in 3 s, twice the budget.
            tokio::time::sleep(Duration::from_millis(50 * i)).await;
            (priority, send_as(world, &from, &text, priority).await)
        });
    }
    let outcomes = futures::future::join_all(sends).await;
    let passed = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Published).count();
    let high_lost = outcomes.iter().filter(|(p, o)| *p == Priority::High && *o == Outcome::Shaped).count();
    assert!((25..=40).contains(&passed), "{passed}");
    assert_eq!(high_lost, 0);
    let told = world.hooks.posted("Group.CallbackSendMsgException");
    assert_eq!(told.len(), 60 - passed);
    assert!(told.iter().all(|body| body["ErrorCode"] == 10023));
    assert_eq!(world.hooks.posted("Group.CallbackAfterSendMsg").len(), passed);
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn notices_and_controls_pass_while_messages_are_shaped() {
    let (world, conv) = room(AppSettings { live_rate: 1, ..AppSettings::default() }).await;
    register(&world, conv, 1).await;
    let mut seen = world.watch(conv).await;
    let flood = (0..50).map(|i| {
        let (world, from) = (&world, format!("u{i}"));
        async move { send_as(world, &from, "x", Priority::Normal).await }
    });
    let notify = NotifyRequest {
        app: APP.0,
        group_id: "l".into(),
        content: "sale".into(),
        origin: Some(admin()),
        ..NotifyRequest::default()
    };
    let mut groups = world.groups();
    let (outcomes, told) = tokio::join!(futures::future::join_all(flood), groups.notify(notify));
    done(told).expect("told");
    assert!(outcomes.contains(&Outcome::Shaped));
    assert!(words(&mut seen).await.contains(&"notice 255".to_owned()));
    let some = NotifyRequest {
        app: APP.0,
        group_id: "l".into(),
        content: "x".into(),
        to: vec!["a".into()],
        origin: Some(admin()),
    };
    assert_eq!(code(done(world.groups().notify(some).await)), 10004);
}

#[tokio::test(start_paused = true)]
async fn the_count_is_that_of_the_gateways_and_joins_are_told() {
    let (world, conv) = room(hooked()).await;
    let mut seen = world.watch(conv).await;
    assert!(delta(&world, conv, &["a"], &[], 1).await.unknown, "not registered yet");
    register(&world, conv, 0).await;
    assert_eq!(
        delta(&world, conv, &["a", "b"], &[], 2).await,
        LiveDeltaReply { online: 2, ..LiveDeltaReply::default() }
    );
    assert_eq!(delta(&world, conv, &["c"], &["a"], 2).await.online, 2);
    let count = OnlineCountRequest { app: APP.0, group_id: "l".into() };
    assert_eq!(done(world.groups().online_count(count).await).expect("count").online, 2);
    let words = words(&mut seen).await;
    assert_eq!(words.iter().filter(|word| *word == "tip 1").count(), 3);
    assert_eq!(words.iter().filter(|word| *word == "tip 2").count(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let joins = world.hooks.posted("Group.CallbackAfterNewMemberJoin");
    let names: usize = joins.iter().map(|body| body["NewMemberList"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!((names, &joins[0]["JoinType"]), (3, &"Apply".into()));
    assert_eq!(world.hooks.posted("Group.CallbackAfterMemberExit").len(), 1);
    let states = world.hooks.posted("Group.CallbackOnMemberStateChange");
    assert!(states.iter().any(|body| body["EventType"] == "Offline" && body["EventCause"] == "Quit"));
}

#[tokio::test(start_paused = true)]
async fn above_the_limit_joins_share_tips_and_webhooks() {
    let (world, conv) = room(AppSettings { live_tip_full: 10, ..hooked() }).await;
    register(&world, conv, 0).await;
    let mut seen = world.watch(conv).await;
    for i in 0..50_u32 {
        let names: Vec<String> = (0..20).map(|n| format!("u{i}-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        delta(&world, conv, &names, &[], (i + 1) * 20).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let words = words(&mut seen).await;
    assert!(words.iter().filter(|word| *word == "tip 1").count() <= 3, "{words:?}");
    let joins = world.hooks.posted("Group.CallbackAfterNewMemberJoin");
    let sizes: Vec<usize> = joins.iter().map(|body| body["NewMemberList"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 1_000);
    assert!(sizes.iter().all(|size| *size <= 100));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_the_last_messages_if_the_app_wants_it() {
    let (world, conv) = room(AppSettings { live_replay: 3, live_rate: 0, ..AppSettings::default() }).await;
    for i in 0..5 {
        world.send("l", "a", &i.to_string()).await.expect("sent");
    }
    let replay = register(&world, conv, 1).await.live.expect("state").replay;
    assert_eq!(replay.iter().map(what).collect::<Vec<_>>(), ["2", "3", "4"]);
    assert!(replay.iter().all(|message| message.replayed));
    world.clock.jump(Duration::from_secs(25 * 3_600));
    assert!(register(&world, conv, 1).await.live.expect("state").replay.is_empty());
}

#[tokio::test(start_paused = true)]
async fn bans_and_mutes_reach_gateways_and_newcomers_of_the_room() {
    let (world, conv) = room(AppSettings::default()).await;
    register(&world, conv, 1).await;
    let mut seen = world.watch(conv).await;
    let ban = BanRequest {
        app: APP.0,
        group_id: "l".into(),
        users: vec!["troll".into()],
        duration_s: 600,
        origin: Some(by("host")),
        ..BanRequest::default()
    };
    done(world.groups().ban(ban).await).expect("banned");
    let mute = MuteRequest {
        app: APP.0,
        group_id: "l".into(),
        users: vec!["loud".into()],
        mute_s: 600,
        origin: Some(by("host")),
    };
    done(world.groups().mute(mute).await).expect("muted");
    assert_eq!(&words(&mut seen).await[..3], ["banned troll", "tip 10", "muted loud"]);
    assert_eq!(code(world.send("l", "troll", "x").await), 10007);
    assert_eq!(code(world.send("l", "loud", "x").await), 10017);
    assert_eq!(code(world.join("l", "troll").await), 10007);
    let state = register(&world, conv, 1).await.live.expect("state");
    assert!(state.banned.contains_key("troll") && state.muted.contains_key("loud"));
    assert_eq!(code(world.kick("l", &["x"], admin()).await), 10004);
    assert_eq!(code(world.add("l", &["x"], admin()).await), 10007);
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_learns_the_room_from_registrations() {
    let (mut world, conv) = room(AppSettings::default()).await;
    register(&world, conv, 7).await;
    world.start();
    let count = OnlineCountRequest { app: APP.0, group_id: "l".into() };
    assert_eq!(done(world.groups().online_count(count.clone()).await).expect("count").online, 0);
    assert!(delta(&world, conv, &[], &[], 7).await.unknown);
    register(&world, conv, 7).await;
    assert_eq!(done(world.groups().online_count(count).await).expect("count").online, 7);
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_together_leave_in_one_batch() {
    let (world, conv) = room(AppSettings { live_rate: 0, ..AppSettings::default() }).await;
    register(&world, conv, 1).await;
    let mut seen = world.watch(conv).await;
    let names: Vec<String> = (0..40).map(|i| format!("u{i}")).collect();
    futures::future::join_all(names.iter().map(|from| world.send("l", from, "hi"))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (mut batches, mut messages) = (0, 0);
    while let Some(event) = seen.try_recv() {
        let records = records(&event);
        batches += usize::from(!records.is_empty());
        messages += records.len();
    }
    assert_eq!(messages, 40);
    assert!(batches < 20, "{batches} batches");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_of_two_gateways_is_one_and_the_owner_of_a_room_does_not_quit_it() {
    let (world, conv) = room(AppSettings::default()).await;
    let key = RouteKey::group(APP, &GroupId::trusted("l"));
    for (gateway, names) in [("g1", vec!["a", "b"]), ("g2", vec!["b", "c"])] {
        let rpc = world.cluster.for_owner(Service::Group, key.clone()).expect("a node");
        let member =
            |user: &&str| linnet_proto::delivery::LiveMember { user: (*user).to_owned(), ..Default::default() };
        let request = RegisterRequest {
            app: APP.0,
            conv,
            gateway: gateway.into(),
            incarnation: 1,
            group_id: "l".into(),
            live_count: 2,
            live_members: names.iter().map(member).collect(),
            ..RegisterRequest::default()
        };
        done(DeliveryClient::new(rpc).register(request).await).expect("registered");
    }
    let count = OnlineCountRequest { app: APP.0, group_id: "l".into() };
    assert_eq!(done(world.groups().online_count(count).await).expect("count").online, 3);
    let quit = |user: &str| QuitRequest { app: APP.0, group_id: "l".into(), user: user.into(), origin: Some(by(user)) };
    assert_eq!(code(done(world.groups().quit(quit("host")).await)), 10009);
    done(world.groups().quit(quit("a")).await).expect("left");
}
