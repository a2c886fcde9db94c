//! The frames that the page shows.

use linnet_client::proto::frame::Body as B;
use linnet_client::proto::*;

type Example = (&'static str, Frame);

const BODY: &str = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi"}}]"#;
const TWO: &str = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"@bob look"}},{"MsgType":"TIMCustomElem","MsgContent":{"Data":"{\"n\":5.0}","Desc":"","Ext":""}}]"#;
const TIP: &str = r#"[{"MsgContent":{"groupJoinType":2,"groupProfile":{"from":"alice","groupID":"@TGS#1ABC","groupName":"hikers","to":"@TGS#1ABC"},"memberCount":3,"memberList":[{"userID":"carol"}],"operationType":1,"operatorID":"alice","operatorInfo":{"userID":"alice"},"platform":"Web","userIDList":["carol"]},"MsgType":"TIMGroupTipElem"}]"#;
const NOTICE: &str = r#"{"groupProfile":{"groupID":"@TGS#1ABC","groupName":"hikers"},"operationType":4,"operatorID":"alice","reason":"","time":1700000000}"#;
const RESUME: &str = "9f86d081884c7d659a2feaa0c55ad015";

pub(crate) fn examples() -> Vec<Example> {
    let mut all = session();
    all.extend(sending());
    all.extend(receiving());
    all.extend(conversations());
    all.extend(groups());
    all.extend(members());
    all.extend(people());
    all.extend(pushes());
    all
}

fn frame(id: u64, body: B) -> Frame {
    Frame { id, body: Some(body) }
}

fn push(conv: &str, what: item::What) -> Frame {
    frame(0, B::Push(Push { items: vec![Item { conv: conv.into(), what: Some(what) }] }))
}

fn message() -> Message {
    Message {
        seq: 7,
        from: "alice".into(),
        time_ms: 1_700_000_000_123,
        random: 12_345,
        msg_seq: 831_209_001,
        msg_key: "831209001_12345_1700000000".into(),
        body: BODY.into(),
        ..Message::default()
    }
}

fn hikers() -> String {
    "@TGS#1ABC".into()
}

fn concert() -> String {
    "@TGS#live".into()
}

fn member() -> Member {
    Member {
        user: "bob".into(),
        role: "Admin".into(),
        join_time_s: 1_700_000_100,
        msg_flag: "AcceptAndNotify".into(),
        ..Member::default()
    }
}

fn group() -> Group {
    Group {
        group_id: hikers(),
        r#type: "Public".into(),
        name: "hikers".into(),
        owner: "alice".into(),
        create_time_s: 1_700_000_000,
        member_num: 2,
        max_member_num: 6000,
        apply_join_option: "FreeAccess".into(),
        invite_join_option: "NeedPermission".into(),
        admins: vec!["bob".into()],
        next_seq: 8,
        self_: Some(member()),
        ..Group::default()
    }
}

fn session() -> Vec<Example> {
    let sign_in = SignIn {
        sdkappid: 1_600_000_001,
        user: "alice".into(),
        usersig: "eJw1jV0LgjAY…".into(),
        platform: "Web".into(),
        instance: "page-1".into(),
        ..SignIn::default()
    };
    let first = SignIn { client: "my-client/1.0".into(), ..sign_in.clone() };
    let again = SignIn { resume: RESUME.into(), ..sign_in };
    let signed_in = SignedIn {
        user: "alice".into(),
        time_ms: 1_700_000_000_000,
        instance: "page-1".into(),
        resume: RESUME.into(),
        resumed: false,
        ping_ms: 25_000,
        message_bytes: 12_288,
        frame_bytes: 131_072,
        connection: "gateway-1/42".into(),
    };
    let error = Error { code: 200_004, info: "the owner is moving".into(), retry_after_ms: 200 };
    vec![
        ("sign_in", frame(1, B::SignIn(first))),
        ("sign_in_resume", frame(1, B::SignIn(again))),
        ("signed_in", frame(1, B::SignedIn(signed_in))),
        ("error", frame(2, B::Error(error))),
        ("ok", frame(3, B::Ok(Ok {}))),
        ("sign_out", frame(4, B::SignOut(SignOut {}))),
        ("ping", frame(5, B::Ping(Ping {}))),
        ("pong", frame(5, B::Pong(Pong { time_ms: 1_700_000_000_000 }))),
        ("kicked", frame(0, B::Kicked(Kicked { reason: "multipleDevice".into(), by_platform: "Web".into() }))),
        ("going_away", frame(0, B::GoingAway(GoingAway { after_ms: 1_500 }))),
    ]
}

fn sending() -> Vec<Example> {
    let to_bob = Send {
        conv: "C2C:bob".into(),
        random: 12_345,
        body: BODY.into(),
        cloud_custom_data: "{\"color\":\"red\"}".into(),
        ..Send::default()
    };
    let to_group = Send {
        conv: "GROUP:@TGS#1ABC".into(),
        random: 67_890,
        body: TWO.into(),
        priority: "High".into(),
        mentions: vec!["bob".into()],
        offline_push: r#"{"PushFlag":0,"Desc":"alice mentioned you"}"#.into(),
        ..Send::default()
    };
    let typing = Send {
        conv: "C2C:bob".into(),
        random: 99,
        body: r#"[{"MsgType":"TIMCustomElem","MsgContent":{"Data":"typing"}}]"#.into(),
        online_only: true,
        ..Send::default()
    };
    let sent = Sent {
        conv: "C2C:bob".into(),
        seq: 7,
        time_ms: 1_700_000_000_123,
        random: 12_345,
        msg_seq: 831_209_001,
        msg_key: "831209001_12345_1700000000".into(),
        outcome: "stored".into(),
        ..Sent::default()
    };
    let shaped = Sent {
        conv: "GROUP:@TGS#live".into(),
        time_ms: 1_700_000_000_456,
        random: 55,
        outcome: "shaped".into(),
        drop_reason: "MsgFreqCtrl".into(),
        ..Sent::default()
    };
    vec![
        ("send", frame(6, B::Send(to_bob))),
        ("send_group", frame(7, B::Send(to_group))),
        ("send_typing", frame(8, B::Send(typing))),
        ("sent", frame(6, B::Sent(sent))),
        ("sent_shaped", frame(9, B::Sent(shaped))),
    ]
}

fn receiving() -> Vec<Example> {
    let tip = Message {
        seq: 8,
        from: "alice".into(),
        time_ms: 1_700_000_000_789,
        body: TIP.into(),
        kind: "tip".into(),
        no_unread: true,
        ..Message::default()
    };
    let next = Message {
        seq: 8,
        random: 12_346,
        msg_seq: 831_209_002,
        msg_key: "831209002_12346_1700000000".into(),
        ..message()
    };
    let recall = Recall {
        seqs: vec![7],
        msg_keys: vec!["831209001_12345_1700000000".into()],
        operator: "alice".into(),
        reason: "wrong window".into(),
    };
    let read = PeerRead { reader: "bob".into(), seq: 7, time_ms: 1_700_000_001_000 };
    let items = [message(), next].map(|m| Item { conv: "C2C:alice".into(), what: Some(item::What::Message(m)) });
    let viewers = RoomState { online: 1_204, ..RoomState::default() };
    let left = RoomState { left: true, why: "kicked".into(), ..RoomState::default() };
    let notice = Notice { r#type: 4, data: NOTICE.into() };
    vec![
        ("push_message", push("C2C:alice", item::What::Message(message()))),
        ("push_two", frame(0, B::Push(Push { items: items.into() }))),
        ("push_tip", push("GROUP:@TGS#1ABC", item::What::Message(tip))),
        ("push_recall", push("C2C:alice", item::What::Recall(recall))),
        ("push_peer_read", push("C2C:bob", item::What::PeerRead(read))),
        ("push_advanced", push("GROUP:@TGS#1ABC", item::What::Advanced(Advanced { head: 120 }))),
        ("push_notice", push("", item::What::Notice(notice))),
        ("push_change", push("C2C:bob", item::What::Change(Change { what: "read".into(), seq: 7 }))),
        ("push_room", push("GROUP:@TGS#live", item::What::Room(viewers))),
        ("push_room_left", push("GROUP:@TGS#live", item::What::Room(left))),
    ]
}

fn conversations() -> Vec<Example> {
    let alice = || "C2C:alice".to_owned();
    let conversation = Conversation {
        conv: alice(),
        head: 7,
        first_seq: 1,
        read_seq: 5,
        unread: 2,
        time_ms: 1_700_000_000_123,
        last: Some(message()),
        peer_read_seq: 4,
        generation: 1,
        ..Conversation::default()
    };
    let synced = Synced {
        conversations: vec![conversation],
        position_ms: 1_700_000_000_500,
        total_unread: 2,
        ..Synced::default()
    };
    let forward = History { conv: alice(), from_seq: 5, to_seq: 7, ascending: true, limit: 100 };
    let back = History { conv: "GROUP:@TGS#1ABC".into(), limit: 20, ..History::default() };
    let page = Page {
        conv: alice(),
        messages: vec![message()],
        nothing: vec![Nothing { from: 5, to: 6, why: "deleted".into() }],
        covered_from: 5,
        covered_to: 7,
        first_seq: 1,
        head: 7,
        complete: true,
        generation: 1,
    };
    let revoke = Revoke { conv: "C2C:bob".into(), seq: 7, reason: "wrong window".into(), ..Revoke::default() };
    let delete = DeleteConversation { conv: alice(), clear_history: true };
    vec![
        ("sync", frame(10, B::Sync(Sync { since_ms: 1_700_000_000_000, ..Sync::default() }))),
        ("synced", frame(10, B::Synced(synced))),
        ("history", frame(11, B::History(forward))),
        ("history_back", frame(12, B::History(back))),
        ("page", frame(11, B::Page(page))),
        ("read", frame(13, B::Read(Read { conv: alice(), seq: 7 }))),
        ("read_done", frame(13, B::ReadDone(ReadDone { conv: alice(), read_seq: 7 }))),
        ("open", frame(14, B::Open(Open { conv: "GROUP:@TGS#1ABC".into() }))),
        ("pin", frame(15, B::Pin(Pin { conv: alice(), pinned: true }))),
        ("delete_conversation", frame(16, B::DeleteConversation(delete))),
        ("revoke", frame(17, B::Revoke(revoke))),
        ("revoked", frame(17, B::Revoked(Revoked { conv: "C2C:bob".into(), seq: 7 }))),
        ("delete_messages", frame(18, B::DeleteMessages(DeleteMessages { conv: "C2C:bob".into(), seqs: vec![7, 9] }))),
    ]
}

fn groups() -> Vec<Example> {
    let create = GroupCreate {
        r#type: "Public".into(),
        name: "hikers".into(),
        members: vec!["bob".into()],
        custom: vec![KeyValue { key: "level".into(), value: "easy".into() }],
        ..GroupCreate::default()
    };
    let update = GroupUpdate {
        group_id: hikers(),
        notification: Some("Saturday, 8:00".into()),
        mute_all: Some(true),
        ..GroupUpdate::default()
    };
    let room = Group { group_id: concert(), r#type: "AVChatRoom".into(), name: "concert".into(), ..Group::default() };
    let joined = GroupJoined { group_id: concert(), status: "joined".into(), group: Some(room), online: 1_204 };
    vec![
        ("group_create", frame(20, B::GroupCreate(create))),
        ("group_created", frame(20, B::GroupCreated(GroupCreated { group_id: hikers(), r#type: "Public".into() }))),
        ("group_info", frame(21, B::GroupInfo(GroupInfo { group_id: hikers() }))),
        ("group", frame(21, B::Group(group()))),
        ("group_update", frame(22, B::GroupUpdate(update))),
        ("group_dismiss", frame(23, B::GroupDismiss(GroupDismiss { group_id: hikers() }))),
        ("group_join", frame(24, B::GroupJoin(GroupJoin { group_id: concert(), wording: String::new() }))),
        ("group_joined", frame(24, B::GroupJoined(joined))),
        ("group_quit", frame(25, B::GroupQuit(GroupQuit { group_id: hikers() }))),
        ("group_list", frame(31, B::GroupList(GroupList { limit: 50, offset: 0 }))),
        ("groups", frame(31, B::Groups(Groups { groups: vec![group()], total: 1 }))),
        ("group_transfer", frame(34, B::GroupTransfer(GroupTransfer { group_id: hikers(), user: "bob".into() }))),
        ("online_count", frame(35, B::OnlineCount(OnlineCount { group_id: concert() }))),
        ("online", frame(35, B::Online(Online { group_id: concert(), online: 1_204 }))),
    ]
}

fn members() -> Vec<Example> {
    let carol = || vec!["carol".to_owned()];
    let results = vec![GroupResult { user: "carol".into(), status: "added".into() }];
    let kick = GroupKick { group_id: hikers(), users: carol(), reason: "spam".into(), ban_s: 0 };
    let role = GroupRole { group_id: hikers(), user: "bob".into(), role: "Admin".into() };
    let ask = GroupMembers { group_id: hikers(), limit: 100, ..GroupMembers::default() };
    let page = Members { group_id: hikers(), members: vec![member()], member_num: 2, cursor: "bob".into() };
    let application = Application {
        id: "17".into(),
        group_id: hikers(),
        user: "dave".into(),
        kind: "join".into(),
        wording: "hello".into(),
        time_s: 1_700_000_200,
        ..Application::default()
    };
    let handle = GroupHandle { group_id: hikers(), id: "17".into(), accept: true, reason: "welcome".into() };
    let card = GroupMemberUpdate {
        group_id: hikers(),
        name_card: Some("Bob from the north".into()),
        ..GroupMemberUpdate::default()
    };
    vec![
        ("group_invite", frame(26, B::GroupInvite(GroupInvite { group_id: hikers(), users: carol() }))),
        ("group_results", frame(26, B::GroupResults(GroupResults { group_id: hikers(), results }))),
        ("group_kick", frame(27, B::GroupKick(kick))),
        ("group_mute", frame(28, B::GroupMute(GroupMute { group_id: hikers(), users: carol(), mute_s: 600 }))),
        ("group_role", frame(29, B::GroupRole(role))),
        ("group_members", frame(30, B::GroupMembers(ask))),
        ("members", frame(30, B::Members(page))),
        ("group_applications", frame(32, B::GroupApplications(GroupApplications { group_id: hikers() }))),
        ("applications", frame(32, B::Applications(Applications { applications: vec![application] }))),
        ("group_handle", frame(33, B::GroupHandle(handle))),
        ("group_member_update", frame(36, B::GroupMemberUpdate(card))),
    ]
}

fn people() -> Vec<Example> {
    let nick = ProfileItem { tag: "Tag_Profile_IM_Nick".into(), text: "Bob".into(), number: 0 };
    let level = ProfileItem { tag: "Tag_Profile_IM_Level".into(), text: String::new(), number: 3 };
    let items = vec![nick, level];
    let profiles = vec![
        Profile { user: "bob".into(), items: items.clone(), unknown: false },
        Profile { user: "nobody".into(), items: vec![], unknown: true },
    ];
    let status =
        UserStatus { user: "bob".into(), status: "Online".into(), platforms: vec!["Android".into(), "Web".into()] };
    vec![
        ("profile_get", frame(40, B::ProfileGet(ProfileGet { users: vec!["bob".into(), "nobody".into()] }))),
        ("profiles", frame(40, B::Profiles(Profiles { profiles }))),
        ("profile_set", frame(41, B::ProfileSet(ProfileSet { items }))),
        ("status", frame(42, B::Status(Status { users: vec!["bob".into()] }))),
        ("statuses", frame(42, B::Statuses(Statuses { statuses: vec![status] }))),
        ("block", frame(43, B::Block(Block { add: vec!["eve".into()], remove: vec![] }))),
    ]
}

fn pushes() -> Vec<Example> {
    let device = DeviceSet {
        vendor: "fcm".into(),
        token: "dRx3…".into(),
        business_id: "30011".into(),
        language: "en".into(),
        badge: Some(0),
    };
    let convs: Vec<String> = vec!["C2C:alice".into(), "GROUP:@TGS#1ABC".into()];
    let except = "AcceptNotNotifyExceptAt";
    let options = convs.iter().map(|conv| Receive { conv: conv.clone(), option: except.into() }).collect();
    let quiet = Quiet {
        option: "AcceptNotNotify".into(),
        start_s: 82_800,
        duration_s: 28_800,
        repeated: true,
        utc_offset_s: 3_600,
    };
    vec![
        ("device_set", frame(44, B::DeviceSet(device))),
        ("device_remove", frame(45, B::DeviceRemove(DeviceRemove {}))),
        ("badge", frame(46, B::Badge(Badge { count: 3 }))),
        ("receive_set", frame(47, B::ReceiveSet(ReceiveSet { convs: convs.clone(), option: except.into() }))),
        ("receive_get", frame(48, B::ReceiveGet(ReceiveGet { convs, after: String::new() }))),
        ("receives", frame(48, B::Receives(Receives { options, more: false }))),
        ("quiet_set", frame(49, B::QuietSet(QuietSet { quiet: Some(quiet.clone()) }))),
        ("quiet_get", frame(50, B::QuietGet(QuietGet {}))),
        ("quiet", frame(50, B::Quiet(quiet))),
    ]
}
