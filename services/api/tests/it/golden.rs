//! Documented requests and replies, a file per command: what it is sent, what it asks the services, what it answers.
//! `UPDATE_GOLDEN=1` writes calls and replies anew; read the difference before committing it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use linnet_proto::account::{self, profile_item::Value as ProfileValue};
use linnet_proto::msg::{Message, MessageKind, Outcome, Placeholder, Priority, SendReply};
use linnet_proto::{group, messages, push, session};
use linnet_types::{Refusal, code};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::rig::{Fakes, NOW_S, Rig};

#[derive(Deserialize)]
struct Case {
    name: String,
    request: Box<RawValue>,
    #[serde(default)]
    calls: Vec<String>,
    #[serde(default)]
    reply: Value,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn file(command: &str) -> PathBuf {
    folder().join(format!("{}.json", command.replace('/', ".")))
}

/// Every golden request of `command`, as sent.
pub(crate) fn requests(command: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file(command)).expect(command);
    let cases: Vec<Case> = serde_json::from_str(&text).expect(command);
    cases.into_iter().map(|case| case.request.get().to_owned()).collect()
}

/// The commands that have a file of their own; aliases are tested with what they stand for.
pub(crate) fn commands() -> Vec<&'static str> {
    let own = |entry: &&linnet_api::Entry| !matches!(entry.status, linnet_api::Status::AliasOf(_));
    linnet_api::catalogue().iter().filter(own).map(|entry| entry.name).collect()
}

#[tokio::test(start_paused = true)]
async fn every_command_asks_and_answers_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for command in commands() {
        let path = file(command);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{command} has no golden file"));
        let mut cases: Vec<Case> = serde_json::from_str(&text).expect(command);
        for case in &mut cases {
            let rig = Rig::new();
            let mut reply = rig.call(command, case.request.get().to_owned()).await;
            reply["RequestId"] = "*".into();
            let calls: Vec<_> = rig.fakes.take_calls().into_iter().filter(|call| !is_admin_lookup(call)).collect();
            if update {
                (case.calls, case.reply) = (calls, reply);
            } else {
                assert_eq!(calls, case.calls, "{command}: {}", case.name);
                assert_eq!(reply, case.reply, "{command}: {}", case.name);
            }
        }
        assert!(cases.iter().any(|case| case.reply["ErrorCode"] == 0), "{command} has a success");
        if update {
            std::fs::write(&path, written(&cases)).expect("writable");
        }
    }
}

#[test]
fn no_golden_file_is_left_over() {
    let known: HashSet<_> = commands().into_iter().map(file).collect();
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let path = entry.expect("an entry").path();
        assert!(known.contains(&path), "{}", path.display());
    }
}

/// The edge looks up whether the administrator was kicked; that is no part of a command.
fn is_admin_lookup(call: &str) -> bool {
    call.contains("users: [ \"administrator\", ], }") && call.starts_with("Accounts/Lookup")
}

fn written(cases: &[Case]) -> String {
    let mut out = String::from("[\n");
    for (n, case) in cases.iter().enumerate() {
        let json = |value: &dyn erased::Json| value.json();
        let calls: Vec<_> = case.calls.iter().map(|call| format!("\n    {}", json(call))).collect();
        let comma = if n + 1 == cases.len() { "" } else { "," };
        write!(
            out,
            "  {{\n   \"name\": {},\n   \"request\": {},\n   \"calls\": [{}],\n   \"reply\": {}\n  }}{comma}\n",
            json(&case.name),
            case.request.get(),
            calls.join(","),
            json(&case.reply),
        )
        .expect("a String");
    }
    out + "]\n"
}

mod erased {
    pub(super) trait Json {
        fn json(&self) -> String;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).expect("plain JSON")
        }
    }
}

const USERS: [&str; 4] = ["administrator", "alice", "bob", "carol"];
/// Elements that a typed round trip would change.
pub(crate) const ODD_BODY: &str =
    r#"[ {"MsgContent":{"Z":5.0,"Text":"hi","big":12345678901234567890123},"MsgType":"TIMTextElem"} ]"#;

/// What the services know: four accounts, groups by name, one message in each history. Every write is granted.
pub(crate) fn world(fakes: &Fakes) {
    accounts(fakes);
    sessions(fakes);
    pushes(fakes);
    one_to_one(fakes);
    lists(fakes);
    groups(fakes);
    members(fakes);
    group_messages(fakes);
}

fn accounts(fakes: &Fakes) {
    fakes.on("Accounts/Lookup", |ask: account::LookupRequest| {
        let text = |tag: &str, value: &str| account::ProfileItem {
            tag: tag.into(),
            value: Some(ProfileValue::Text(value.into())),
        };
        let level = account::ProfileItem { tag: "Tag_Profile_IM_Level".into(), value: Some(ProfileValue::Number(7)) };
        let profile =
            vec![text("Tag_Profile_IM_Nick", "Al"), level, text("Tag_Profile_IM_Gender", "Gender_Type_Unknown")];
        let one = |user: String| account::Account {
            exists: USERS.contains(&user.as_str()),
            profile: if ask.want_profile { profile.clone() } else { Vec::new() },
            user,
            ..Default::default()
        };
        Ok(account::LookupReply { accounts: ask.users.into_iter().map(one).collect() })
    });
    fakes.on("Accounts/Import", |ask: account::ImportRequest| {
        let bad: Vec<_> = ask.accounts.iter().filter(|a| a.user.len() > 32).map(|a| a.user.clone()).collect();
        Ok(account::ImportReply { codes: bad.iter().map(|_| code::ACCOUNT_BAD_PARAM).collect(), failed: bad })
    });
    fakes.on("Accounts/Delete", |ask: account::DeleteRequest| {
        let one = |user: String| {
            let code = if USERS.contains(&user.as_str()) { 0 } else { code::ACCOUNT_UNKNOWN };
            account::UserResult { user, code, info: String::new() }
        };
        Ok(account::DeleteReply { results: ask.users.into_iter().map(one).collect() })
    });
    fakes.on("Accounts/Kick", |ask: account::KickRequest| match ask.user.as_str() {
        "nobody" => Err(Refusal::new(code::ACCOUNT_UNKNOWN, "no such account")),
        _ => Ok(account::KickReply { kick_time_s: NOW_S }),
    });
    fakes.on("Accounts/SetProfile", |_: account::SetProfileRequest| Ok(account::SetProfileReply {}));
}

fn sessions(fakes: &Fakes) {
    fakes.on("Sessions/Status", |ask: session::StatusRequest| {
        let windows = || session::PlatformStatus { platform: "Windows".into(), status: "Online".into() };
        let one = |user: String| {
            let online = user == "alice";
            session::UserStatus {
                user,
                status: if online { "Online".into() } else { "Offline".into() },
                platforms: if online { vec![windows()] } else { Vec::new() },
            }
        };
        Ok(session::StatusReply { users: ask.users.into_iter().map(one).collect() })
    });
}

fn pushes(fakes: &Fakes) {
    let quiet = || push::QuietTime {
        option: "AcceptNotNotify".into(),
        start_s: 82_800,
        duration_s: 28_800,
        repeated: true,
        utc_offset_s: -3_600,
        set_ms: NOW_S * 1_000,
    };
    let device = || push::Device {
        instance: "phone".into(),
        platform: "Android".into(),
        vendor: "fcm".into(),
        token: "t1".into(),
        business_id: "30011".into(),
        language: "en".into(),
        updated_ms: NOW_S * 1_000,
    };
    fakes.on("Pushes/SetDevice", |ask: push::SetDeviceRequest| match ask.device {
        Some(device) if device.token.len() > 256 => Err(Refusal::new(code::PUSH_TOKEN_LONG, "too long")),
        _ => Ok(push::SetDeviceReply {}),
    });
    fakes.on("Pushes/RemoveDevices", |_: push::RemoveDevicesRequest| Ok(push::RemoveDevicesReply { removed: 1 }));
    fakes.on("Pushes/Devices", move |_: push::DevicesRequest| {
        Ok(push::DevicesReply { devices: vec![device()], badge: 3 })
    });
    fakes.on("Pushes/SetBadge", |_: push::SetBadgeRequest| Ok(push::SetBadgeReply {}));
    fakes.on("Pushes/SetOptions", |_: push::SetOptionsRequest| Ok(push::SetOptionsReply {}));
    fakes.on("Pushes/Options", |ask: push::OptionsRequest| {
        let option = push::Option { conv: "C2C:bob".into(), option: "Discard".into() };
        Ok(push::OptionsReply { options: vec![option], more: ask.convs.is_empty() })
    });
    fakes.on("Pushes/SetQuiet", |_: push::SetQuietRequest| Ok(push::SetQuietReply {}));
    fakes.on("Pushes/Quiet", move |ask: push::QuietRequest| {
        Ok(push::QuietReply { quiet: (ask.user == "alice").then(quiet) })
    });
}

fn stored(message: &Message, seq: u64) -> SendReply {
    SendReply {
        outcome: Outcome::Stored.into(),
        seq,
        time_ms: NOW_S * 1000 + 123,
        msg_seq: message.msg_seq,
        random: message.random,
        ..Default::default()
    }
}

fn one_to_one(fakes: &Fakes) {
    fakes.on("Messages/SendC2c", |ask: messages::SendC2cRequest| {
        let message = ask.message.unwrap_or_default();
        if !USERS.contains(&message.from.as_str()) {
            return Err(Refusal::new(code::C2C_NO_USER, "no such sender"));
        }
        if !USERS.contains(&ask.to.as_str()) {
            return Err(Refusal::new(code::TO_ACCOUNT_UNKNOWN, "no such receiver"));
        }
        Ok(stored(&message, 1))
    });
    fakes.on("Messages/History", |ask: messages::HistoryRequest| {
        if ask.conv != 0 {
            return Ok(group_history(&ask));
        }
        if [&ask.peer_a, &ask.peer_b].iter().any(|user| !USERS.contains(&user.as_str())) {
            return Ok(messages::HistoryReply { complete: true, ..Default::default() });
        }
        let message = |seq: u64, from: &str| Message {
            seq,
            from: from.into(),
            msg_seq: 70 + u32::try_from(seq).expect("small"),
            random: 9,
            time_ms: (NOW_S + seq) * 1000,
            body: Bytes::from_static(ODD_BODY.as_bytes()),
            cloud_custom_data: "c".into(),
            revoked: seq == 1,
            peer_read: seq == 2,
            ..Default::default()
        };
        let messages = vec![message(2, &ask.peer_a), message(1, &ask.peer_b)];
        Ok(messages::HistoryReply { messages, complete: true, ..Default::default() })
    });
    fakes.on("Messages/Revoke", |ask: messages::RevokeRequest| {
        let code = if ask.msg_key.starts_with("404_") { code::C2C_NO_MSG } else { 0 };
        Ok(messages::RevokeReply { results: vec![messages::RevokeResult { code, ..Default::default() }] })
    });
    fakes.on("Messages/ReadC2c", |_: messages::ReadC2cRequest| Ok(messages::ReadC2cReply::default()));
    fakes.on("Messages/UnreadC2c", |ask: messages::UnreadC2cRequest| {
        Ok(messages::UnreadC2cReply { total: 12, unread: ask.peers.iter().map(|_| 5).collect() })
    });
}

fn group_history(ask: &messages::HistoryRequest) -> messages::HistoryReply {
    let message = |seq: u64, kind: MessageKind| Message {
        seq,
        from: "alice".into(),
        random: 3,
        time_ms: (NOW_S + seq) * 1000,
        body: Bytes::from_static(ODD_BODY.as_bytes()),
        kind: kind.into(),
        priority: Priority::High.into(),
        ..Default::default()
    };
    let head = if ask.to_seq == 0 { 6 } else { ask.to_seq.min(6) };
    let revoked = Message { revoked: true, ..message(5, MessageKind::Chat) };
    let all = vec![message(6, MessageKind::Chat), revoked, message(4, MessageKind::Tip)];
    let messages = all.into_iter().filter(|one| one.seq <= head).collect();
    let placeholders = vec![Placeholder { from_seq: 1, to_seq: 3, why: "expired".into() }];
    messages::HistoryReply {
        messages,
        placeholders,
        covered_from: 1,
        covered_to: head,
        complete: true,
        ..Default::default()
    }
}

fn lists(fakes: &Fakes) {
    fakes.on("Messages/Sync", |_: messages::SyncRequest| {
        let one = |key: &str, age: u64, pinned_ms: u64| messages::Conversation {
            key: key.into(),
            time_ms: (NOW_S - age) * 1000,
            pinned_ms,
            last: (age != 3).then(Message::default),
            ..Default::default()
        };
        let conversations = vec![
            one("C2C:bob", 1, 0),
            one("GROUP:@TGS#1", 2, NOW_S * 1000),
            one("C2C:carol", 3, 0),
            messages::Conversation { deleted: true, ..one("C2C:gone", 4, 0) },
        ];
        Ok(messages::SyncReply { conversations, ..Default::default() })
    });
    fakes.on("Messages/DeleteConversation", |_: messages::DeleteConversationRequest| {
        Ok(messages::DeleteConversationReply {})
    });
    fakes.on("Messages/SetUnread", |_: messages::SetUnreadRequest| Ok(messages::SetUnreadReply {}));
}

fn pair(key: &str, value: &str) -> group::KeyValue {
    group::KeyValue { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// A group whose id says its type; `none…` does not exist.
fn group_of(id: &str) -> Result<group::Group, Refusal> {
    let kind = match id.get(..4).unwrap_or(id) {
        "none" => return Err(Refusal::new(code::GROUP_UNKNOWN, "no such group")),
        "live" => "AVChatRoom",
        "meet" => "ChatRoom",
        "@TGS" => "Community",
        _ => "Public",
    };
    Ok(group::Group {
        group_id: id.into(),
        conv: 11,
        r#type: kind.into(),
        name: "Group".into(),
        owner: "alice".into(),
        create_time_s: NOW_S - 100,
        info_seq: 2,
        last_info_time_s: NOW_S - 50,
        next_msg_seq: 7,
        member_num: 2,
        max_member_num: 6000,
        apply_join_option: "FreeAccess".into(),
        invite_join_option: "DisableInvite".into(),
        mute_all: true,
        custom: vec![pair("k1", "v1"), pair("k2", "v2")],
        admins: vec!["bob".into()],
        online: 42,
        ..Default::default()
    })
}

fn member(user: &str) -> group::Member {
    group::Member {
        user: user.into(),
        role: if user == "alice" { "Owner".into() } else { "Member".into() },
        join_time_s: NOW_S - 90,
        read_seq: 3,
        msg_flag: "AcceptAndNotify".into(),
        last_send_time_s: NOW_S - 10,
        name_card: "Card".into(),
        mute_until_s: 0,
        custom: vec![pair("m1", "x")],
    }
}

fn groups(fakes: &Fakes) {
    fakes.on("Groups/Create", |ask: group::CreateRequest| {
        let group_id = if ask.group_id.is_empty() { "@TGS#2NEW".into() } else { ask.group_id };
        Ok(group::CreateReply { group_id, r#type: ask.r#type })
    });
    fakes.on("Groups/Destroy", |ask: group::DestroyRequest| group_of(&ask.group_id).map(|_| group::DestroyReply {}));
    fakes.on("Groups/Info", |ask: group::InfoRequest| {
        let group = group_of(&ask.group_id)?;
        let own = (ask.self_ == "alice" || ask.self_ == "bob").then(|| member(&ask.self_));
        Ok(group::InfoReply { group: Some(group), self_: own })
    });
    fakes.on("Groups/Modify", |_: group::ModifyRequest| Ok(group::ModifyReply {}));
    fakes.on("Groups/ChangeOwner", |_: group::ChangeOwnerRequest| Ok(group::ChangeOwnerReply {}));
    fakes.on("Groups/List", |ask: group::ListRequest| {
        let total = if ask.r#type.is_empty() { 3 } else { 1 };
        Ok(group::ListReply { group_ids: vec!["g1".into()], next: 18_446_744_073_709_551_615, total })
    });
    fakes.on("Groups/Joined", |ask: group::JoinedRequest| {
        let one = |id: &str| group::JoinedGroup {
            group_id: id.into(),
            group: ask.with_info.then(|| group_of(id).expect("exists")),
            self_: ask.with_info.then(|| member("bob")),
            ..Default::default()
        };
        Ok(group::JoinedReply { groups: vec![one("g1"), one("meet1")], total: 2 })
    });
    fakes.on("Groups/OnlineCount", |ask: group::OnlineCountRequest| {
        Ok(group::OnlineCountReply { online: 42, not_live: !ask.group_id.starts_with("live") })
    });
}

fn members(fakes: &Fakes) {
    fakes.on("Groups/Members", |ask: group::MembersRequest| {
        group_of(&ask.group_id)?;
        let all = ["alice", "bob"].iter().filter(|user| ask.only.is_empty() || ask.only.iter().any(|one| one == *user));
        let members = all.map(|user| member(user)).collect();
        Ok(group::MembersReply { member_num: 2, members, cursor: String::new() })
    });
    fakes.on("Groups/Roles", |ask: group::RolesRequest| {
        let role = |user: &String| if user == "alice" { "Owner".to_owned() } else { "NotMember".to_owned() };
        Ok(group::RolesReply { roles: ask.users.iter().map(role).collect() })
    });
    fakes.on("Groups/AddMembers", |ask: group::AddMembersRequest| {
        let result = |user: &String| match user.as_str() {
            "bob" => 2,
            "nobody" => 0,
            _ => 1,
        };
        Ok(group::AddMembersReply { results: ask.users.iter().map(result).collect() })
    });
    fakes.on("Groups/RemoveMembers", |_: group::RemoveMembersRequest| Ok(group::RemoveMembersReply {}));
    fakes.on("Groups/ModifyMember", |_: group::ModifyMemberRequest| Ok(group::ModifyMemberReply {}));
    fakes.on("Groups/Mute", |_: group::MuteRequest| Ok(group::MuteReply {}));
    fakes.on("Groups/Muted", |_: group::MutedRequest| {
        let ends = |user: &str, until_s| group::Until { user: user.into(), until_s };
        Ok(group::MutedReply { muted: vec![ends("bob", NOW_S + 60), ends("carol", NOW_S + 4_000_000_000)] })
    });
    fakes.on("Groups/Ban", |_: group::BanRequest| Ok(group::BanReply {}));
    fakes.on("Groups/Unban", |_: group::UnbanRequest| Ok(group::BanReply {}));
    fakes.on("Groups/Banned", |_: group::BannedRequest| {
        let ends = |user: &str, until_s| group::Until { user: user.into(), until_s };
        let banned = vec![ends("bob", NOW_S + 60), ends("carol", NOW_S + 4_000_000_000)];
        Ok(group::BannedReply { banned, next_offset: 0 })
    });
}

fn group_messages(fakes: &Fakes) {
    fakes.on("Groups/Send", |ask: group::SendRequest| {
        let message = ask.message.unwrap_or_default();
        match ask.group_id.as_str() {
            "live_full" => Ok(SendReply {
                outcome: Outcome::Shaped.into(),
                seq: 8,
                drop_reason: "MsgFreqCtrl".into(),
                ..stored(&message, 0)
            }),
            "muted" => Err(Refusal::new(code::GROUP_MUTED, "the sender is muted")),
            _ => Ok(stored(&message, 7)),
        }
    });
    fakes.on("Groups/Notify", |_: group::NotifyRequest| Ok(group::NotifyReply {}));
    fakes.on("Groups/Recall", |ask: group::RecallRequest| {
        let code = |seq: &u64| if *seq > 100 { code::GROUP_NO_MSG } else { 0 };
        Ok(group::RecallReply { codes: ask.seqs.iter().map(code).collect() })
    });
    fakes.on("Groups/Authorize", |ask: group::AuthorizeRequest| {
        let group = group_of(&ask.group_id)?;
        Ok(group::AuthorizeReply { conv: group.conv, r#type: group.r#type, retention_days: 7, ..Default::default() })
    });
}
