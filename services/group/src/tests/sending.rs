use std::sync::atomic::Ordering;
use std::time::Duration;

use linnet_proto::callback::BeforeReply;
use linnet_proto::msg::{Message, Outcome};
use linnet_types::AppSettings;

use super::*;

#[tokio::test(start_paused = true)]
async fn create_join_send_reaches_the_log_and_the_members() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Meeting", "g", "alice", &[]).await;
    assert_eq!(world.join("g", "bob").await.expect("joined").status, "joined");
    world.delivered().await;
    let reply = world.send("g", "alice", "hello").await.expect("sent");
    assert_eq!((reply.outcome(), reply.seq), (Outcome::Stored, 1));
    let conv = world.conv("g").await;
    assert_eq!(world.logs.of(conv).iter().map(what).collect::<Vec<_>>(), ["hello"]);
    let all = world.delivered().await;
    assert_eq!(seen_by(&all, "bob"), ["hello"]);
    assert_eq!(seen_by(&all, "carol"), Vec::<String>::new());
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_the_first_answer_and_other_content_is_another_message() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &[]).await;
    let first = world.send("g", "alice", "one").await.expect("sent");
    let again = world.send("g", "alice", "one").await.expect("sent");
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let other = world.send("g", "alice", "two").await.expect("sent");
    assert_eq!((other.seq, other.duplicate), (first.seq + 1, false));
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_restart_gets_the_first_answer() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &[]).await;
    let first = world.send("g", "alice", "one").await.expect("sent");
    world.start();
    let again = world.send("g", "alice", "one").await.expect("sent");
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_line_is_stored_before_what_was_sent_before_it() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &[]).await;
    world.send_in_line("g", "one", [1, 0, 1]).await.expect("the first of its line");
    assert_eq!(code(world.send_in_line("g", "three", [3, 2, 2]).await), linnet_types::code::BUSY, "two is not here");
    // Behind what the owner refuses for good, a line goes on; what was not taken holds it up all the same.
    assert_eq!(code(world.send_in_line("g", &"x".repeat(13_000), [4, 3, 2]).await), 80002);
    assert_eq!(code(world.send_in_line("g", "five", [5, 4, 2]).await), linnet_types::code::BUSY);
    world.send_in_line("g", "two", [2, 0, 2]).await.expect("two");
    world.send_in_line("g", "three", [3, 2, 2]).await.expect("three");
    world.send_in_line("g", "five", [5, 4, 3]).await.expect("five");
    // Another owner knows nothing of the line until its first comes again.
    world.start();
    assert_eq!(code(world.send_in_line("g", "six", [6, 5, 5]).await), linnet_types::code::BUSY);
    assert!(world.send_in_line("g", "five", [5, 0, 5]).await.expect("five").duplicate);
    world.send_in_line("g", "six", [6, 5, 5]).await.expect("six");
    let conv = world.conv("g").await;
    let stored: Vec<_> = world.logs.of(conv).iter().map(what).collect();
    assert_eq!(stored, ["one", "two", "three", "five", "six"]);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_speak_is_told_why() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    assert_eq!(code(world.send("nowhere", "alice", "x").await), 10010);
    assert_eq!(code(world.send("\u{7f}", "alice", "x").await), 10015);
    assert_eq!(code(world.send("g", "carol", "x").await), 10007);
    let mute = MuteRequest {
        app: APP.0,
        group_id: "g".into(),
        users: vec!["bob".into()],
        mute_s: 60,
        origin: Some(by("alice")),
    };
    done(world.groups().mute(mute).await).expect("muted");
    assert_eq!(code(world.send("g", "bob", "x").await), 10017);
    assert!(world.send_message("g", text_message("bob", "by the app"), admin()).await.is_ok());
    world.clock.jump(Duration::from_secs(61));
    assert!(world.send("g", "bob", "x").await.is_ok());
    let long = "x".repeat(13_000);
    assert_eq!(code(world.send("g", "alice", &long).await), 80002);
    let mut many = text_message("alice", "@all");
    many.mentions = (0..31).map(|i| format!("u{i}")).collect();
    assert_eq!(code(world.send_message("g", many, by("alice")).await), 10053);
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn mute_all_spares_owner_and_admins() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    let modify = ModifyRequest {
        app: APP.0,
        group_id: "g".into(),
        mute_all: Some(true),
        origin: Some(by("alice")),
        ..ModifyRequest::default()
    };
    done(world.groups().modify(modify).await).expect("muted");
    assert_eq!(code(world.send("g", "bob", "x").await), 10017);
    assert!(world.send("g", "alice", "x").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn over_the_rate_is_success_with_a_reason_or_10023_by_switch() {
    let world = World::new(AppSettings { group_rate: 2, ..hooked() }).await;
    world.create("Public", "g", "alice", &[]).await;
    for text in ["1", "2"] {
        assert_eq!(world.send("g", "alice", text).await.expect("sent").outcome(), Outcome::Stored);
    }
    let shaped = world.send("g", "alice", "3").await.expect("told success");
    assert_eq!((shaped.outcome(), shaped.seq, shaped.drop_reason.as_str()), (Outcome::Shaped, 0, "MsgFreqCtrl"));
    world.set(AppSettings { group_rate: 2, group_rate_error: true, ..hooked() });
    assert_eq!(code(world.send("g", "alice", "4").await), 10023);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.send("g", "alice", "5").await.expect("sent").seq, 3);
    let told = world.hooks.posted("Group.CallbackSendMsgException");
    assert_eq!(told.iter().map(|body| body["ErrorCode"].clone()).collect::<Vec<_>>(), [10023, 10023]);
    assert_eq!(world.stats().await.shaped, 1);
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_is_settled_and_stored_once() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &[]).await;
    world.logs.lose_answer.store(true, Ordering::Relaxed);
    let reply = world.send("g", "alice", "one").await.expect("settled");
    assert_eq!((reply.outcome(), reply.seq), (Outcome::Stored, 1));
    world.logs.lose_request.store(true, Ordering::Relaxed);
    let reply = world.send("g", "alice", "two").await.expect("settled");
    assert_eq!(reply.seq, 2);
    let conv = world.conv("g").await;
    assert_eq!(world.logs.of(conv).iter().map(what).collect::<Vec<_>>(), ["one", "two"]);
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_stored_as_one_batch() {
    let world = World::new(AppSettings { group_rate: 0, ..AppSettings::default() }).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    let sends = (0..100).map(|i| {
        let from = if i % 2 == 0 { "alice" } else { "bob" };
        world.send_message("g", text_message(from, &i.to_string()), by(from))
    });
    for reply in futures::future::join_all(sends).await {
        assert_eq!(reply.expect("sent").outcome(), Outcome::Stored);
    }
    let appends = world.logs.appends.load(Ordering::Relaxed);
    assert!(appends <= 30, "{appends} appends for 100 messages");
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn online_only_messages_take_no_seq_and_targeted_ones_reach_their_receivers() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob", "carol"]).await;
    world.delivered().await;
    let typing = Message { online_only: true, ..text_message("alice", "typing") };
    let reply = world.send_message("g", typing, by("alice")).await.expect("sent");
    assert_eq!((reply.outcome(), reply.seq), (Outcome::Published, 0));
    let secret = Message { visible_to: vec!["bob".into()], ..text_message("alice", "secret") };
    assert_eq!(world.send_message("g", secret, by("alice")).await.expect("sent").seq, 1);
    let all = world.delivered().await;
    assert_eq!(seen_by(&all, "bob"), ["typing", "secret"]);
    assert_eq!(seen_by(&all, "carol"), ["typing"]);
    assert_eq!(seen_by(&all, "alice"), ["typing", "secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_before_webhook_refuses_drops_and_rewrites() {
    let world = World::new(hooked()).await;
    world.create("Public", "g", "alice", &[]).await;
    world.hooks.answer(|event| {
        let text = String::from_utf8_lossy(&event.body).into_owned();
        let decision = if text.contains("bad") {
            1
        } else if text.contains("own") {
            10_101
        } else {
            2
        };
        let body = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"rewritten"}}]"#;
        let reply = if text.contains("rewrite") {
            BeforeReply { msg_body: body.into(), ..BeforeReply::default() }
        } else {
            BeforeReply { decision, info: "no".into(), ..BeforeReply::default() }
        };
        (reply, Duration::ZERO)
    });
    assert_eq!(code(world.send("g", "alice", "bad").await), 10016);
    assert_eq!(code(world.send("g", "alice", "own").await), 10101);
    assert_eq!(world.send("g", "alice", "drop").await.expect("told OK").outcome(), Outcome::Dropped);
    let reply = world.send("g", "alice", "rewrite").await.expect("sent");
    assert!(!reply.rewritten_body.is_empty());
    let conv = world.conv("g").await;
    assert_eq!(world.logs.of(conv).iter().map(what).collect::<Vec<_>>(), ["rewritten"]);
    assert_eq!(world.stats().await.dropped_by_webhook, 1);
    world.assert_law().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_before_webhook_delays_its_sender_only() {
    let world = World::new(AppSettings { group_rate: 0, ..hooked() }).await;
    world.create("Public", "g", "alice", &["slow"]).await;
    world.hooks.answer(|event| {
        let slow = String::from_utf8_lossy(&event.body).contains(r#""From_Account":"slow""#);
        (BeforeReply::default(), if slow { Duration::from_millis(1_500) } else { Duration::ZERO })
    });
    let started = tokio::time::Instant::now();
    let (slow, quick) = tokio::join!(world.send("g", "slow", "late"), async {
        for i in 0..20 {
            world.send("g", "alice", &i.to_string()).await.expect("sent");
        }
        started.elapsed()
    });
    slow.expect("sent");
    assert!(quick < Duration::from_millis(100), "{quick:?}");
    assert!(started.elapsed() >= Duration::from_millis(1_500));
}

#[tokio::test(start_paused = true)]
async fn a_community_with_topics_takes_no_messages_of_its_own() {
    let world = World::new(AppSettings::default()).await;
    let request = CreateRequest {
        app: APP.0,
        r#type: "Community".into(),
        group_id: "@TGS#_topics".into(),
        name: "topics".into(),
        owner: "alice".into(),
        support_topic: true,
        origin: Some(admin()),
        ..CreateRequest::default()
    };
    done(world.groups().create(request).await).expect("created");
    assert_eq!(code(world.send("@TGS#_topics", "alice", "hi").await), 10007);
    let by_rest = world.send_message("@TGS#_topics", text_message("alice", "hi"), admin()).await;
    assert_eq!(code(by_rest), 10007);
}

#[tokio::test(start_paused = true)]
async fn first_members_of_any_stored_group_are_told_of_it() {
    let mut world = World::new(AppSettings::default()).await;
    for (kind, id) in [("Work", "w"), ("Public", "p"), ("Meeting", "m"), ("Community", "@TGS#_c")] {
        world.create(kind, id, "alice", &["bob"]).await;
        let all = world.delivered().await;
        assert_eq!(seen_by(&all, "alice"), ["notice 6", "changed joined"], "{kind}");
        assert_eq!(seen_by(&all, "bob"), ["notice 7", "changed joined"], "{kind}");
    }
}
