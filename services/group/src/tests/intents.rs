//! What follows a change whoever owns the group by then.

use linnet_types::AppSettings;

use super::*;

/// Tips that name `user`.
fn tips_of(world: &World, conv: u64, user: &str) -> usize {
    let names = |message: &Message| String::from_utf8_lossy(&message.body).contains(&format!("\"{user}\""));
    let tips = world.logs.of(conv).into_iter().filter(|message| message.kind() == MessageKind::Tip);
    tips.filter(names).count()
}

async fn cut_short<T>(call: impl Future<Output = T>) {
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err(), "nobody answers");
}

#[tokio::test(start_paused = true)]
async fn a_tip_is_stored_once_whether_its_owner_died_before_storing_it_or_after() {
    for landed in [false, true] {
        let mut world = World::new(AppSettings::default()).await;
        world.create("Public", "g", "alice", &[]).await;
        let conv = world.conv("g").await;
        *world.logs.stall.lock() = Some(landed);
        cut_short(world.add("g", &["bob"], admin())).await;
        assert_eq!(tips_of(&world, conv, "bob"), usize::from(landed));
        world.start();
        world.send("g", "bob", "hello").await.expect("bob is in");
        assert_eq!(tips_of(&world, conv, "bob"), 1);
        let last = world.logs.of(conv).pop().expect("a message");
        assert_eq!(last.kind(), MessageKind::Chat, "the tip comes before what is said afterwards");
        // Nor does the next owner tell it again.
        world.start();
        world.send("g", "bob", "again").await.expect("sent");
        assert_eq!(tips_of(&world, conv, "bob"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tip_is_told_once_with_the_count_after_its_change() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    let conv = world.conv("g").await;
    world.kick("g", &["bob"], by("alice")).await.expect("removed");
    assert_eq!(tips_of(&world, conv, "bob"), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(tips_of(&world, conv, "bob"), 1, "told once");
    let tip = world.logs.of(conv).pop().expect("a tip");
    let tip: serde_json::Value = serde_json::from_slice(&tip.body).expect("JSON");
    assert_eq!(tip[0]["MsgContent"]["memberCount"], 1, "the count after the change");
}

#[tokio::test(start_paused = true)]
async fn a_recall_is_told_to_the_app_though_its_owner_died_before_it_or_after() {
    for landed in [false, true] {
        let mut world = World::new(hooked()).await;
        world.create("Public", "g", "alice", &["bob"]).await;
        let seq = world.send("g", "bob", "oops").await.expect("sent").seq;
        *world.logs.stall.lock() = Some(landed);
        let recall = || RecallRequest {
            app: APP.0,
            group_id: "g".into(),
            seqs: vec![seq],
            reason: String::new(),
            origin: Some(by("bob")),
        };
        cut_short(async { world.groups().recall(recall()).await }).await;
        assert!(world.hooks.queued("Group.CallbackAfterRecallMsg").is_empty());
        world.start();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let told = world.hooks.queued("Group.CallbackAfterRecallMsg");
        assert_eq!(told.len(), 1, "landed before: {landed}");
        assert_eq!((&told[0]["MsgSeqList"][0]["MsgSeq"], &told[0]["Operator_Account"]), (&seq.into(), &"bob".into()));
        let again = world.groups().recall(recall()).await.expect("answered").into_inner();
        assert_eq!(again.codes, [10_030], "it is recalled");
        world.start();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(world.hooks.queued("Group.CallbackAfterRecallMsg").len(), 1);
    }
}
