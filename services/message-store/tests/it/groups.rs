//! Logs of groups: appended by the group, counted for its members.

use linnet_cluster::RouteKey;
use linnet_proto::messages::{
    AppendRequest, DeleteConversationRequest, FenceRequest, HistoryRequest, ReadGrant, ReadGroupRequest, RevokeRequest,
    SetUnreadRequest,
};
use linnet_proto::msg::{Message, MessageKind};
use linnet_runtime::status;
use linnet_types::{AppSettings, ConvId, code};

use crate::fake::FakeGroup;
use crate::world::{APP, World, body, texts};

const CONV: u64 = 900;

fn route() -> RouteKey {
    RouteKey::conv(ConvId(CONV))
}

fn group(world: &World, kind: &str) {
    let members = ["alice", "bob"].map(String::from).to_vec();
    world.outside.groups.lock().insert("g".into(), FakeGroup { conv: CONV, kind: kind.into(), members });
}

fn append(epoch: u64, kind: &str, messages: Vec<Message>) -> AppendRequest {
    AppendRequest {
        app: APP,
        conv: CONV,
        group_id: "g".into(),
        group_epoch: epoch,
        retention_days: 7,
        messages,
        group_type: kind.into(),
    }
}

fn said(from: &str, text: &str) -> Message {
    Message { from: from.into(), body: body(text), kind: MessageKind::Chat.into(), ..Message::default() }
}

#[tokio::test(start_paused = true)]
async fn an_older_owner_of_the_group_is_refused() {
    let mut world = World::new(30).await;
    let _node = world.start("m1").await;
    let mut client = world.client(route());
    let reply = client.append(append(3, "Public", vec![said("alice", "a"), said("bob", "b")])).await.unwrap();
    let seqs: Vec<_> = reply.into_inner().appended.iter().map(|a| (a.seq, a.ord)).collect();
    assert_eq!(seqs, [(1, 1), (2, 2)]);
    let fence = FenceRequest { app: APP, conv: CONV, group_id: "g".into(), group_epoch: 5, retention_days: 7 };
    let fenced = client.fence(fence).await.unwrap().into_inner();
    assert_eq!((fenced.head_seq, fenced.head_ord), (2, 2));
    let refused = client.append(append(4, "Public", vec![said("alice", "late")])).await.unwrap_err();
    assert_eq!(status::from_status(&refused).unwrap().code, code::BUSY);
    let next = client.append(append(5, "Public", vec![said("alice", "c")])).await.unwrap().into_inner();
    assert_eq!(next.appended[0].seq, 3);
}

#[tokio::test(start_paused = true)]
async fn members_count_what_others_said_until_they_read() {
    let mut world = World::new(31).await;
    let _node = world.start("m1").await;
    group(&world, "Public");
    let mut client = world.client(route());
    let tip = Message { kind: MessageKind::Tip.into(), ..said("alice", "joined") };
    let mention = Message { mentions: vec!["bob".into()], ..said("alice", "@bob") };
    client.append(append(1, "Public", vec![tip, said("alice", "a"), said("bob", "mine"), mention])).await.unwrap();
    let listed = world.listed("bob", "GROUP:g").await.unwrap();
    assert_eq!((listed.unread, listed.mentions.as_slice(), listed.head_seq), (2, &[4][..], 4));
    assert_eq!(world.unread("alice", "GROUP:g").await, 1);
    let read = ReadGroupRequest { app: APP, user: "bob".into(), group_id: "g".into(), seq: 2, origin: None };
    world.of("bob").read_group(read.clone()).await.unwrap();
    assert_eq!(world.unread("bob", "GROUP:g").await, 1);
    world.of("bob").read_group(ReadGroupRequest { seq: 0, ..read }).await.unwrap();
    assert_eq!(world.unread("bob", "GROUP:g").await, 0);
    let set = SetUnreadRequest { app: APP, user: "bob".into(), group_id: "g".into(), unread: 5 };
    world.of("bob").set_unread(set).await.unwrap();
    client.append(append(1, "Public", vec![said("alice", "more"), said("bob", "mine too")])).await.unwrap();
    assert_eq!(world.unread("bob", "GROUP:g").await, 6);
    let revoke = RevokeRequest {
        app: APP,
        conv: CONV,
        group_id: "g".into(),
        group_epoch: 1,
        seqs: vec![5, 99, 1],
        retention_days: 7,
        ..RevokeRequest::default()
    };
    let codes: Vec<_> = client.revoke(revoke).await.unwrap().into_inner().results.iter().map(|r| r.code).collect();
    assert_eq!(codes, [0, code::GROUP_NO_MSG, code::GROUP_NOT_RECALLABLE]);
    assert_eq!(world.unread("bob", "GROUP:g").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_meeting_has_no_unread_count() {
    let mut world = World::new(32).await;
    let _node = world.start("m1").await;
    group(&world, "ChatRoom");
    world.client(route()).append(append(1, "ChatRoom", vec![said("alice", "a")])).await.unwrap();
    assert_eq!(world.unread("bob", "GROUP:g").await, 0);
    let set = SetUnreadRequest { app: APP, user: "bob".into(), group_id: "g".into(), unread: 5 };
    let refused = world.of("bob").set_unread(set).await.unwrap_err();
    assert_eq!(status::from_status(&refused).unwrap().code, code::GROUP_NO_RIGHT);
}

#[tokio::test(start_paused = true)]
async fn a_groups_history_needs_a_grant_and_begins_at_its_floor() {
    let mut world = World::new(33).await;
    let _node = world.start("m1").await;
    group(&world, "Public");
    let mut client = world.client(route());
    let messages = ["a", "b", "c"].map(|text| said("alice", text)).to_vec();
    client.append(append(1, "Public", messages)).await.unwrap();
    let request = HistoryRequest { app: APP, conv: CONV, viewer: "bob".into(), ..HistoryRequest::default() };
    let refused = client.history(request.clone()).await.unwrap_err();
    assert_eq!(status::from_status(&refused).unwrap().code, code::GROUP_NO_RIGHT);
    let grant = Some(ReadGrant { floor_seq: 1, until_ms: u64::MAX });
    let granted = HistoryRequest { grant, ..request.clone() };
    let page = client.history(granted.clone()).await.unwrap().into_inner();
    assert_eq!((texts(&page), page.first_seq), (vec!["c".to_owned(), "b".to_owned()], 2));
    assert_eq!((page.placeholders[0].to_seq, page.placeholders[0].why.as_str()), (1, "hidden"));
    let admin = HistoryRequest { viewer: String::new(), ..request };
    assert_eq!(texts(&client.history(admin).await.unwrap().into_inner()), ["c", "b", "a"]);
    let delete = DeleteConversationRequest {
        app: APP,
        user: "bob".into(),
        key: "GROUP:g".into(),
        clear_history: true,
        origin: None,
    };
    world.of("bob").delete_conversation(delete).await.unwrap();
    assert!(client.history(granted).await.unwrap().into_inner().messages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_webhooks_of_groups_come_from_the_log_in_order() {
    let settings =
        AppSettings { webhook_url: "http://app".into(), webhook_events: "all".into(), ..AppSettings::default() };
    let mut world = World::with(34, settings).await;
    let _node = world.start("m1").await;
    let tip = Message { kind: MessageKind::Tip.into(), ..said("alice", "joined") };
    let silent = Message { forbid_after: true, ..said("alice", "silent") };
    let bot = Message { mentions: vec!["@RBT#1".into()], ..said("alice", "@bot") };
    world.client(route()).append(append(1, "Public", vec![tip, said("alice", "a"), silent, bot])).await.unwrap();
    world.eventually("events", async || world.commands().len() == 3).await;
    assert_eq!(world.commands(), ["Group.CallbackAfterSendMsg", "Group.CallbackAfterSendMsg", "Bot.OnGroupMessage"]);
    let told: serde_json::Value = serde_json::from_slice(&world.outside.events.lock()[0].body).unwrap();
    assert_eq!((told["MsgSeq"].as_u64(), told["Type"].as_str()), (Some(2), Some("Public")));
}
