//! Groups: made by REST and by clients, with their join, role and speak rules.

use anyhow::Result;
use linnet_testkit::{Server, Socket, text_body};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_public_group_from_creation_to_dismissal() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob", "carol"]).await;
    let created = rest
        .ok("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "club", "GroupId": "club/1", "Owner_Account": "alice", "MemberList": [{ "Member_Account": "bob" }] }))
        .await;
    assert_eq!(created["GroupId"], "club/1");
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let mut carol = Socket::sign_in(&server, "carol", "Web").await?;
    // Not a member: neither speaks nor reads.
    assert_eq!(
        carol.refused("send", json!({ "conv": "GROUP:club/1", "random": 1, "body": text_body("x") })).await?,
        10007
    );
    assert_eq!(carol.refused("history", json!({ "conv": "GROUP:club/1" })).await?, 10007);
    alice.say("GROUP:club/1", 1, "welcome").await?;
    assert_eq!(bob.text("GROUP:club/1").await?, "welcome");
    // Joining a Public group needs consent.
    let applied = carol.ask("group_join", json!({ "group_id": "club/1", "wording": "please" })).await?;
    assert_eq!(applied["status"], "waiting", "{applied}");
    let waiting = alice.ask("group_applications", json!({ "group_id": "club/1" })).await?;
    let id = waiting["applications"][0]["id"].clone();
    alice.ask("group_handle", json!({ "group_id": "club/1", "id": id, "accept": true })).await?;
    alice.say("GROUP:club/1", 2, "hello carol").await?;
    assert_eq!(carol.text("GROUP:club/1").await?, "hello carol");
    // What was said before the join is not shown.
    let page = carol.ask("history", json!({ "conv": "GROUP:club/1", "limit": 100 })).await?;
    let texts: Vec<_> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["body"][0]["MsgContent"]["Text"].as_str())
        .collect();
    assert_eq!(texts, ["hello carol"], "{page}");
    // Mute, speak, unmute.
    rest.ok(
        "group_open_http_svc/forbid_send_msg",
        json!({ "GroupId": "club/1", "Members_Account": ["bob"], "MuteTime": 600 }),
    )
    .await;
    assert_eq!(
        bob.refused("send", json!({ "conv": "GROUP:club/1", "random": 3, "body": text_body("x") })).await?,
        10017
    );
    rest.ok(
        "group_open_http_svc/forbid_send_msg",
        json!({ "GroupId": "club/1", "Members_Account": ["bob"], "MuteTime": 0 }),
    )
    .await;
    bob.say("GROUP:club/1", 4, "free").await?;
    // Kicked: nothing after the kick.
    rest.ok(
        "group_open_http_svc/delete_group_member",
        json!({ "GroupId": "club/1", "MemberToDel_Account": ["carol"] }),
    )
    .await;
    alice.say("GROUP:club/1", 5, "secret").await?;
    assert_eq!(bob.text("GROUP:club/1").await?, "hello carol");
    assert_eq!(bob.text("GROUP:club/1").await?, "secret");
    assert!(!carol.drain().await.iter().any(|item| item.to_string().contains("secret")));
    assert_eq!(carol.refused("history", json!({ "conv": "GROUP:club/1" })).await?, 10007);
    let roles = rest
        .ok(
            "group_open_http_svc/get_role_in_group",
            json!({ "GroupId": "club/1", "User_Account": ["alice", "bob", "carol"] }),
        )
        .await;
    let roles: Vec<_> = roles["UserIdList"].as_array().unwrap().iter().map(|u| u["Role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["Owner", "Member", "NotMember"]);
    assert_eq!(alice.refused("group_quit", json!({ "group_id": "club/1" })).await?, 10009);
    rest.ok("group_open_http_svc/destroy_group", json!({ "GroupId": "club/1" })).await;
    assert_eq!(
        alice.refused("send", json!({ "conv": "GROUP:club/1", "random": 6, "body": text_body("x") })).await?,
        10010
    );
    // The id may be used again, and shows nothing of before.
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "Public", "Name": "new", "GroupId": "club/1", "Owner_Account": "bob" }),
    )
    .await;
    let page = bob.ask("history", json!({ "conv": "GROUP:club/1", "limit": 100 })).await?;
    assert!(!page.to_string().contains("secret"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn group_unread_and_history_by_rest() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    rest.ok("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "alice", "MemberList": [{ "Member_Account": "bob" }] })).await;
    for n in 1..=3 {
        let sent = rest
            .ok(
                "group_open_http_svc/send_group_msg",
                json!({ "GroupId": "g", "From_Account": "alice", "Random": n, "MsgBody": text_body(&format!("m{n}")) }),
            )
            .await;
        assert!(sent["MsgSeq"].as_u64().unwrap() >= n, "{sent}");
    }
    // One library sends a constant Random: other texts are other messages, the same text is one.
    let same = rest
        .ok(
            "group_open_http_svc/send_group_msg",
            json!({ "GroupId": "g", "From_Account": "alice", "Random": 3, "MsgBody": text_body("m3") }),
        )
        .await;
    let other = rest
        .ok(
            "group_open_http_svc/send_group_msg",
            json!({ "GroupId": "g", "From_Account": "alice", "Random": 3, "MsgBody": text_body("m4") }),
        )
        .await;
    assert_eq!(same["MsgSeq"].as_u64().unwrap() + 1, other["MsgSeq"].as_u64().unwrap());
    let history =
        rest.ok("group_open_http_svc/group_msg_get_simple", json!({ "GroupId": "g", "ReqMsgNumber": 20 })).await;
    let texts: Vec<_> = history["RspMsgList"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["MsgBody"][0]["MsgContent"]["Text"].as_str())
        .collect();
    assert_eq!(texts, ["m4", "m3", "m2", "m1"], "{history}");
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let unread = |synced: &serde_json::Value| {
        synced["conversations"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["conv"] == "GROUP:g")
            .map(|c| c["unread"].as_u64().unwrap_or(0))
    };
    assert_eq!(unread(&bob.ask("sync", json!({})).await?), Some(4));
    rest.ok(
        "group_open_http_svc/set_unread_msg_num",
        json!({ "GroupId": "g", "Member_Account": "bob", "UnreadMsgNum": 2 }),
    )
    .await;
    assert_eq!(unread(&bob.ask("sync", json!({})).await?), Some(2));
    bob.ask("read", json!({ "conv": "GROUP:g" })).await?;
    assert_eq!(unread(&bob.ask("sync", json!({})).await?), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice"]).await;
    // Not the same one twice on a cluster that stays up.
    let other: u32 = rand::random_range(1_700_000_000..1_800_000_000);
    let made = server.cli(&[
        "app",
        "create",
        "--sdkappid",
        &other.to_string(),
        "--new-key",
        "0123456789abcdef0123456789abcdef",
        "--json",
    ])?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // A sig of one app is worth nothing in the other.
    let mut socket = Socket::open(server.ws()).await?;
    let request = json!({ "sdkappid": other, "user": "alice", "usersig": server.sig("alice"), "platform": "Web" });
    assert_eq!(socket.refused("sign_in", request).await?, 70014);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_kill_gets_the_first_answer_also_of_a_recalled_message() -> Result<()> {
    let mut server = Server::own()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "alice" }),
    )
    .await;
    let send = |random: u32| json!({ "GroupId": "g", "From_Account": "alice", "Random": random, "MsgBody": text_body("once") });
    let pair = json!({ "From_Account": "alice", "To_Account": "bob", "MsgRandom": 1, "MsgSeq": 1, "MsgBody": text_body("once") });
    let kept = rest.ok("group_open_http_svc/send_group_msg", send(1)).await;
    let recalled = rest.ok("group_open_http_svc/send_group_msg", send(2)).await;
    let recall = json!({ "GroupId": "g", "MsgSeqList": [{ "MsgSeq": recalled["MsgSeq"] }] });
    rest.ok("group_open_http_svc/group_msg_recall", recall).await;
    let first = rest.ok("openim/sendmsg", pair.clone()).await;
    server.kill()?;
    server.restart()?;
    let rest = server.rest();
    for (random, before) in [(1, kept), (2, recalled)] {
        let again = rest.ok("group_open_http_svc/send_group_msg", send(random)).await;
        assert_eq!(again["MsgSeq"], before["MsgSeq"]);
    }
    assert_eq!(rest.ok("openim/sendmsg", pair).await["MsgKey"], first["MsgKey"]);
    Ok(())
}
