//! Lists, history, recall and deletion.

use linnet_proto::delivery::record;
use linnet_proto::messages::{
    DeleteConversationRequest, DeleteForUserRequest, HistoryReply, HistoryRequest, PinRequest, ReadC2cRequest,
    RevokeRequest, SyncRequest, UnreadC2cRequest,
};
use linnet_proto::msg::Origin;
use linnet_runtime::status;
use linnet_types::code;

use crate::world::{APP, World, texts};

/// Every position of the covered range is a message or in a placeholder, once.
fn assert_whole(page: &HistoryReply) {
    let mut seen: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
    for gap in &page.placeholders {
        seen.extend(gap.from_seq..=gap.to_seq);
    }
    seen.sort_unstable();
    let range: Vec<u64> = (page.covered_from..=page.covered_to).collect();
    assert_eq!(seen, range);
}

#[tokio::test(start_paused = true)]
async fn history_is_paged_in_both_directions_and_by_time_and_key() {
    let mut world = World::new(20).await;
    let _node = world.start("m1").await;
    for n in 0..250 {
        world.say("alice", "bob", &n.to_string()).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let page = async |change: &dyn Fn(&mut HistoryRequest)| {
        let mut request = HistoryRequest {
            app: APP,
            peer_a: "bob".into(),
            peer_b: "alice".into(),
            viewer: "bob".into(),
            limit: 100,
            ..HistoryRequest::default()
        };
        change(&mut request);
        world.pair("alice", "bob").history(request).await.unwrap().into_inner()
    };
    let mut to = 0;
    let mut all = Vec::new();
    loop {
        let got = page(&|request| request.to_seq = to).await;
        assert_whole(&got);
        all.extend(got.messages.iter().map(|message| message.seq));
        if got.complete {
            break;
        }
        to = got.covered_from - 1;
    }
    assert_eq!(all, (1..=250).rev().collect::<Vec<u64>>());
    let up = page(&|request| (request.from_seq, request.ascending) = (100, true)).await;
    assert_whole(&up);
    assert_eq!((up.covered_from, up.covered_to, up.complete), (100, 199, false));
    let newest = page(&|_| {}).await;
    let time_s = newest.messages[30].time_ms / 1000;
    let timed = page(&|request| (request.from_time_s, request.to_time_s) = (time_s, time_s)).await;
    assert!(timed.messages.iter().all(|message| message.time_ms / 1000 == time_s) && timed.messages.len() == 10);
    assert!(timed.complete);
    let at = &newest.messages[5];
    let key = format!("{}_{}_{}", at.msg_seq, at.random, at.time_ms / 1000);
    let older = page(&|request| request.before_msg_key = key.clone()).await;
    assert_eq!(older.messages[0].seq, at.seq - 1);
    let small = page(&|request| request.max_bytes = 1).await;
    assert_eq!(small.messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recall_reaches_both_sides_and_takes_the_content_and_the_count() {
    let mut world = World::new(21).await;
    let _node = world.start("m1").await;
    let first = world.say("alice", "bob", "oops").await;
    world.say("alice", "bob", "fine").await;
    assert_eq!(world.unread("bob", "C2C:alice").await, 2);
    let request = RevokeRequest {
        app: APP,
        peer_a: "alice".into(),
        peer_b: "bob".into(),
        msg_key: format!("{}_{}_{}", first.msg_seq, first.random, first.time_ms / 1000),
        sender: "alice".into(),
        max_age_s: 120,
        origin: Some(Origin { operator: "alice".into(), ..Origin::default() }),
        ..RevokeRequest::default()
    };
    let code_of = async |request: RevokeRequest| {
        world.pair("alice", "bob").revoke(request).await.unwrap().into_inner().results[0].code
    };
    let by_bob = RevokeRequest { sender: "bob".into(), ..request.clone() };
    assert_eq!(code_of(by_bob).await, code::C2C_NO_MSG);
    assert_eq!(code_of(request.clone()).await, 0);
    assert_eq!(code_of(request.clone()).await, code::C2C_ALREADY_RECALLED);
    let absent = RevokeRequest { msg_key: "1_2_3".into(), ..request.clone() };
    assert_eq!(code_of(absent).await, code::C2C_NO_MSG);
    tokio::time::sleep(std::time::Duration::from_secs(121)).await;
    let late = RevokeRequest { msg_key: String::new(), seqs: vec![2], ..request.clone() };
    assert_eq!(code_of(late).await, code::C2C_RECALL_LATE);
    let malformed = RevokeRequest { msg_key: "x".into(), ..request };
    let refused = world.pair("alice", "bob").revoke(malformed).await.unwrap_err();
    assert_eq!(status::from_status(&refused).unwrap().code, code::MSG_KEY);
    let page = world.history("bob", "alice").await;
    let recalled = &page.messages[1];
    assert_eq!((recalled.revoked, recalled.revoker.as_str(), &recalled.body[..]), (true, "alice", &b"[]"[..]));
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
    world
        .record("recall", |record, _| match &record.kind {
            Some(record::Kind::Revoked(revoked)) => Some(revoked.seqs.clone()),
            _ => None,
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_one_side_deletes_the_other_keeps() {
    let mut world = World::new(22).await;
    let _node = world.start("m1").await;
    for text in ["one", "two", "three"] {
        world.say("alice", "bob", text).await;
    }
    let request = DeleteForUserRequest {
        app: APP,
        user: "bob".into(),
        peer: "alice".into(),
        seqs: vec![2],
        msg_keys: vec!["nonsense".into()],
        ..DeleteForUserRequest::default()
    };
    let reply = world.pair("alice", "bob").delete_for_user(request.clone()).await.unwrap().into_inner();
    assert_eq!(reply.invalid_keys, ["nonsense"]);
    // His other devices take it away too.
    let told = world
        .record("deletion", |record, users| match &record.kind {
            Some(record::Kind::Changed(changed)) if changed.what == "message_deleted" => {
                Some((changed.conv.clone(), changed.seq, users.to_vec()))
            }
            _ => None,
        })
        .await;
    assert_eq!(told, ("C2C:alice".to_owned(), 2, vec!["bob".to_owned()]));
    let page = world.history("bob", "alice").await;
    assert_whole(&page);
    assert_eq!(texts(&page), ["three", "one"]);
    assert_eq!(texts(&world.history("alice", "bob").await), ["three", "two", "one"]);
    let clear = DeleteForUserRequest { clear: true, ..request };
    world.pair("alice", "bob").delete_for_user(clear).await.unwrap();
    let page = world.history("bob", "alice").await;
    assert_whole(&page);
    assert!(page.messages.is_empty() && page.first_seq == 4);
    assert_eq!(world.unread("bob", "C2C:alice").await, 0);
    world.say("alice", "bob", "four").await;
    assert_eq!(texts(&world.history("bob", "alice").await), ["four"]);
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_conversation_comes_back_with_the_next_message() {
    let mut world = World::new(23).await;
    let _node = world.start("m1").await;
    world.say("alice", "bob", "hi").await;
    let request = DeleteConversationRequest {
        app: APP,
        user: "bob".into(),
        key: "C2C:alice".into(),
        ..DeleteConversationRequest::default()
    };
    world.of("bob").delete_conversation(request.clone()).await.unwrap();
    assert!(world.listed("bob", "C2C:alice").await.is_none());
    assert_eq!(texts(&world.history("bob", "alice").await), ["hi"]);
    world.say("alice", "bob", "again").await;
    assert_eq!(world.unread("bob", "C2C:alice").await, 1);
    let clear = DeleteConversationRequest { clear_history: true, ..request };
    world.of("bob").delete_conversation(clear).await.unwrap();
    assert!(world.history("bob", "alice").await.messages.is_empty());
    assert_eq!(texts(&world.history("alice", "bob").await), ["again", "hi"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_newest_first_paged_and_synced_from_a_position() {
    let mut world = World::new(24).await;
    let _node = world.start("m1").await;
    for n in 0..30 {
        let peer = format!("u{n:02}");
        world.outside.accounts.lock().insert(peer.clone());
        world.say(&peer, "bob", "hi").await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let sync = async |change: &dyn Fn(&mut SyncRequest)| {
        let mut request = SyncRequest { app: APP, user: "bob".into(), ..SyncRequest::default() };
        change(&mut request);
        world.of("bob").sync(request).await.unwrap().into_inner()
    };
    let keys = |reply: &linnet_proto::messages::SyncReply| {
        reply.conversations.iter().map(|c| c.key.clone()).collect::<Vec<_>>()
    };
    let first = sync(&|request| request.limit = 20).await;
    assert_eq!((first.conversations.len(), first.more, first.total_unread), (20, true, 30));
    assert_eq!(first.conversations[0].key, "C2C:u29");
    let rest = sync(&|request| (request.limit, request.cursor) = (20, first.cursor.clone())).await;
    assert_eq!((rest.conversations.len(), rest.more), (10, false));
    assert_eq!(rest.conversations[9].key, "C2C:u00");
    let nothing = sync(&|request| request.since_ms = first.position_ms + 11_000).await;
    assert!(nothing.conversations.is_empty());
    let pin = PinRequest { app: APP, user: "bob".into(), key: "C2C:u03".into(), pinned: true, origin: None };
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    world.of("bob").pin(pin).await.unwrap();
    let pinned = sync(&|request| request.since_ms = first.position_ms + 11_000).await;
    assert_eq!(keys(&pinned), ["C2C:u03"]);
    assert!(pinned.conversations[0].pinned_ms > 0);
    let only = sync(&|request| request.only = vec!["C2C:u05".into()]).await;
    assert_eq!(keys(&only), ["C2C:u05"]);
}

#[tokio::test(start_paused = true)]
async fn one_to_one_unread_counts_add_up_and_reading_by_time_works() {
    let mut world = World::new(25).await;
    let _node = world.start("m1").await;
    world.say("alice", "bob", "1").await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let second = world.say("alice", "bob", "2").await;
    world.say("carol", "bob", "3").await;
    world.say("bob", "carol", "mine").await;
    let counts = async || {
        let request = UnreadC2cRequest {
            app: APP,
            user: "bob".into(),
            peers: vec!["carol".into(), "nobody".into(), "alice".into()],
            ..Default::default()
        };
        let each = world.of("bob").unread_c2c(request).await.unwrap().into_inner();
        let request = UnreadC2cRequest { app: APP, user: "bob".into(), ..Default::default() };
        (world.of("bob").unread_c2c(request).await.unwrap().into_inner().total, each.unread)
    };
    assert_eq!(counts().await, (3, vec![1, 0, 2]));
    let request = ReadC2cRequest {
        app: APP,
        reader: "bob".into(),
        peer: "alice".into(),
        time_s: second.time_ms / 1000 - 2,
        ..ReadC2cRequest::default()
    };
    assert_eq!(world.pair("alice", "bob").read_c2c(request).await.unwrap().into_inner().read_seq, 1);
    assert_eq!(counts().await, (2, vec![1, 0, 1]));
}

#[tokio::test(start_paused = true)]
async fn reading_never_goes_back_and_the_answer_says_where_it_is() {
    let mut world = World::new(28).await;
    let _node = world.start("m1").await;
    for text in ["one", "two", "three"] {
        world.say("alice", "bob", text).await;
    }
    for (asked, stands) in [(2, 2), (1, 2), (3, 3), (99, 3), (0, 3)] {
        let request = ReadC2cRequest {
            app: APP,
            reader: "bob".into(),
            peer: "alice".into(),
            seq: asked,
            ..ReadC2cRequest::default()
        };
        let reply = world.pair("alice", "bob").read_c2c(request).await.unwrap().into_inner();
        assert_eq!(reply.read_seq, stands, "asked for {asked}");
    }
    assert_eq!(world.unread("bob", "C2C:alice").await, 0);
}

/// Whatever was hidden, deleted, recalled or cleared: pages of any size in either direction cover all positions once, and
/// end; both directions show the same messages, and nothing the other side alone may see.
#[tokio::test(start_paused = true)]
async fn closing_gaps_ends_and_shows_each_side_its_own() {
    for seed in 1..=25 {
        let rng = linnet_runtime::Rng::seeded(seed);
        let mut world = World::new(1_000 + seed).await;
        let _node = world.start("m1").await;
        let count = 20 + rng.below(60);
        let mut of_bob = Vec::new();
        for n in 0..count {
            let mut request = world.text(if rng.chance(70) { "alice" } else { "bob" }, "", &n.to_string());
            let own = request.message.as_ref().unwrap().from == "bob";
            request.to = if own { "alice" } else { "bob" }.into();
            let sides = [0, 0, 1, 2];
            request.sync_other_machine = sides[rng.below(4) as usize];
            let hidden = own && request.sync_other_machine == 2;
            let seq = world.send(request).await.unwrap().seq;
            if !hidden {
                of_bob.push(seq);
            }
        }
        let deleted: Vec<u64> = (0..rng.below(8)).map(|_| 1 + rng.below(count)).collect();
        let clear = rng.chance(20);
        let delete = DeleteForUserRequest {
            app: APP,
            user: "bob".into(),
            peer: "alice".into(),
            seqs: if clear { Vec::new() } else { deleted.clone() },
            clear,
            ..DeleteForUserRequest::default()
        };
        world.pair("alice", "bob").delete_for_user(delete).await.unwrap();
        of_bob.retain(|seq| !clear && !deleted.contains(seq));
        for ascending in [false, true] {
            let (mut from, mut to, mut shown, mut covered) = (0, 0, Vec::new(), 0);
            for round in 0.. {
                assert!(round < 200, "seed {seed}: closing gaps does not end");
                let request = HistoryRequest {
                    app: APP,
                    peer_a: "alice".into(),
                    peer_b: "bob".into(),
                    viewer: "bob".into(),
                    from_seq: from,
                    to_seq: to,
                    ascending,
                    limit: 1 + u32::try_from(rng.below(9)).unwrap(),
                    ..HistoryRequest::default()
                };
                let page = world.pair("alice", "bob").history(request).await.unwrap().into_inner();
                assert_whole(&page);
                covered += page.covered_to + 1 - page.covered_from;
                shown.extend(page.messages.iter().map(|message| message.seq));
                if page.complete {
                    break;
                }
                if ascending { from = page.covered_to + 1 } else { to = page.covered_from - 1 }
            }
            shown.sort_unstable();
            assert_eq!((covered, &shown), (count, &of_bob), "seed {seed}, ascending {ascending}");
        }
    }
}
