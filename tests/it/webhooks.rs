//! Webhooks: decisions, rewriting, order, retries, dead letters.

use std::time::Duration;

use anyhow::Result;
use linnet_testkit::{Hooks, Reply, Server, Socket, eventually, text_body};
use serde_json::json;

fn turn_on(server: &Server, hooks: &Hooks, more: &[&str]) {
    let url = format!("webhook.url={}", hooks.url());
    let mut args = vec!["app", "set", url.as_str(), "webhook.events=all"];
    args.extend(more);
    let done = server.cli(&args).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_decides_before_a_message_is_sent() -> Result<()> {
    let server = Server::start()?;
    let hooks = Hooks::start().await;
    server.rest().import(&["alice", "bob"]).await;
    turn_on(&server, &hooks, &["webhook.token=secret", "webhook.auth=true"]);
    hooks.answer(|hook| {
        let text = hook.body["MsgBody"][0]["MsgContent"]["Text"].as_str().unwrap_or_default();
        match (hook.command().contains("Before"), text) {
            (true, "refuse") => Reply::code(1),
            (true, "own") => Reply::code(120_500),
            (true, "drop") => Reply::code(2),
            (true, "rewrite") => Reply::Json(
                json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", "MsgBody": text_body("***") }),
            ),
            _ => Reply::ok(),
        }
    });
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let send = |text: &str, random: u32| json!({ "conv": "C2C:bob", "random": random, "body": text_body(text) });
    assert_eq!(alice.refused("send", send("refuse", 1)).await?, 20006);
    assert_eq!(alice.refused("send", send("own", 2)).await?, 120_500);
    let dropped = alice.ask("send", send("drop", 3)).await?;
    assert_eq!(dropped["seq"].as_u64().unwrap_or(0), 0, "{dropped}");
    let sent = alice.ask("send", send("rewrite", 4)).await?;
    assert_eq!(sent["body"], text_body("***"), "the sender is told what others see: {sent}");
    assert_eq!(bob.text("C2C:alice").await?, "***");
    let after = hooks.wait("C2C.CallbackAfterSendMsg", 1).await;
    assert_eq!(after.len(), 1, "refused and dropped ones have none");
    assert_eq!(after[0].body["MsgBody"], text_body("***"));
    assert_eq!(after[0].query["SdkAppid"], server.app().to_string());
    assert!(after[0].query.contains_key("Sign") && after[0].query.contains_key("RequestTime"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_events_come_in_order_once_the_server_is_back() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &[]);
    hooks.answer(|hook| if hook.command().contains("AfterSendMsg") { Reply::Status(500) } else { Reply::ok() });
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    for n in 0..5 {
        alice.say("C2C:bob", n, &format!("m{n}")).await?;
    }
    hooks.wait("C2C.CallbackAfterSendMsg", 1).await;
    hooks.answer(|_| Reply::ok());
    let seen = eventually("five texts in order", Duration::from_secs(20), || async {
        let mut texts: Vec<String> = hooks
            .of("C2C.CallbackAfterSendMsg")
            .iter()
            .map(|hook| hook.body["MsgBody"][0]["MsgContent"]["Text"].as_str().unwrap().to_owned())
            .collect();
        texts.dedup();
        if texts.len() >= 5 { Ok(texts) } else { Err(texts) }
    })
    .await;
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_out_event_becomes_a_dead_letter_that_can_be_replayed() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &["webhook.timeout_ms=200"]);
    hooks.answer(|hook| {
        if hook.command().contains("AfterSendMsg") { Reply::After(Duration::from_secs(1)) } else { Reply::ok() }
    });
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    alice.say("C2C:bob", 1, "late").await?;
    let failed = eventually("a dead letter", Duration::from_secs(10), || async {
        let out = server.cli(&["webhooks", "failed", "--json"]).unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if text.contains("timeout") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(failed.contains("C2C.CallbackAfterSendMsg"), "{failed}");
    hooks.answer(|_| Reply::ok());
    let seen = hooks.of("C2C.CallbackAfterSendMsg").len();
    let done = server.cli(&["webhooks", "replay", "--all"])?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    hooks.wait("C2C.CallbackAfterSendMsg", seen + 1).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_before_webhook_delays_its_sender_only() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["slow", "fast", "reader"]).await;
    rest.ok("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "reader", "MemberList": [{ "Member_Account": "slow" }, { "Member_Account": "fast" }] })).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &[]);
    hooks.answer(|hook| {
        let slow = hook.command() == "Group.CallbackBeforeSendMsg" && hook.body["From_Account"] == "slow";
        if slow { Reply::After(Duration::from_millis(1500)) } else { Reply::ok() }
    });
    let mut slow = Socket::sign_in(&server, "slow", "Web").await?;
    let mut fast = Socket::sign_in(&server, "fast", "Web").await?;
    let mut reader = Socket::sign_in(&server, "reader", "Web").await?;
    let waiting = tokio::spawn(async move { slow.say("GROUP:g", 1, "slow").await.map(|sent| (slow, sent)) });
    // Its question is with the app's server before the others begin.
    hooks.wait("Group.CallbackBeforeSendMsg", 1).await;
    for n in 0..10 {
        fast.say("GROUP:g", n, &format!("f{n}")).await?;
    }
    assert!(!waiting.is_finished(), "ten messages of another sender went by meanwhile");
    let (_, sent) = waiting.await??;
    assert_eq!(sent["outcome"], "stored");
    for n in 0..10 {
        assert_eq!(reader.text("GROUP:g").await?, format!("f{n}"));
    }
    assert_eq!(reader.text("GROUP:g").await?, "slow");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_before_webhook_that_is_late_follows_the_policy() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &["webhook.timeout_ms=200"]);
    hooks.answer(
        |hook| if hook.command().contains("Before") { Reply::After(Duration::from_secs(2)) } else { Reply::ok() },
    );
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let sent = alice.say("C2C:bob", 1, "passes").await?;
    assert_eq!(sent["outcome"], "stored", "the policy is pass: {sent}");
    assert!(server.cli(&["app", "set", "webhook.before_failure=block"])?.status.success());
    let request = json!({ "conv": "C2C:bob", "random": 2, "body": text_body("is held back") });
    assert_eq!(alice.refused("send", request).await?, 80003);
    assert_eq!(hooks.of("C2C.CallbackBeforeSendMsg").len(), 2, "a before-event is never asked twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_are_told() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice"]).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &[]);
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let login = &hooks.wait("State.StateChange", 1).await[0].body;
    assert_eq!((&login["Info"]["Action"], &login["Info"]["Reason"]), (&json!("Login"), &json!("Register")), "{login}");
    assert!(login["EventTime"].is_u64(), "{login}");
    let mut other = Socket::open(server.ws()).await?;
    let sign_in = json!({ "sdkappid": server.app().0, "user": "alice", "usersig": server.sig("alice"), "platform": "Web", "instance": "other" });
    other.ask("sign_in", sign_in).await?;
    let kicking = &hooks.wait("State.StateChange", 2).await[1].body;
    assert_eq!(kicking["KickedDevice"][0]["Platform"], "Web", "{kicking}");
    assert_eq!(alice.note().await?["kicked"]["reason"], "multipleDevice");
    other.ask("sign_out", json!({})).await?;
    let logout = &hooks.wait("State.StateChange", 3).await[2].body;
    assert_eq!(
        (&logout["Info"]["Action"], &logout["Info"]["Reason"]),
        (&json!("Logout"), &json!("Unregister")),
        "{logout}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_group_is_asked_and_told() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob", "carol"]).await;
    let hooks = Hooks::start().await;
    turn_on(&server, &hooks, &[]);
    hooks.answer(|hook| match hook.command() {
        "Group.CallbackBeforeCreateGroup" if hook.body["Name"] == "forbidden" => Reply::code(1),
        "Group.CallbackBeforeInviteJoinGroup" => Reply::Json(
            json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", "RefusedMembers_Account": ["carol"] }),
        ),
        _ => Reply::ok(),
    });
    let create = |name: &str| json!({ "Type": "Public", "Name": name, "GroupId": name, "Owner_Account": "alice" });
    assert_eq!(rest.code("group_open_http_svc/create_group", create("forbidden")).await, 10016);
    assert_eq!(
        rest.code(
            "group_open_http_svc/get_role_in_group",
            json!({ "GroupId": "forbidden", "User_Account": ["alice"] })
        )
        .await,
        10010
    );
    rest.ok("group_open_http_svc/create_group", create("club")).await;
    hooks.wait("Group.CallbackAfterCreateGroup", 1).await;
    let added = rest
        .ok(
            "group_open_http_svc/add_group_member",
            json!({ "GroupId": "club", "MemberList": [{ "Member_Account": "bob" }, { "Member_Account": "carol" }] }),
        )
        .await;
    let results: Vec<_> =
        added["MemberList"].as_array().unwrap().iter().map(|m| m["Result"].as_u64().unwrap()).collect();
    assert_eq!(results, [1, 0], "{added}");
    let joined = &hooks.wait("Group.CallbackAfterNewMemberJoin", 1).await[0].body;
    assert_eq!(
        (&joined["JoinType"], &joined["NewMemberList"][0]["Member_Account"]),
        (&json!("Invited"), &json!("bob")),
        "{joined}"
    );
    rest.ok("group_open_http_svc/delete_group_member", json!({ "GroupId": "club", "MemberToDel_Account": ["bob"] }))
        .await;
    let left = &hooks.wait("Group.CallbackAfterMemberExit", 1).await[0].body;
    assert_eq!(left["ExitType"], "Kicked", "{left}");
    let sent = rest
        .ok(
            "group_open_http_svc/send_group_msg",
            json!({ "GroupId": "club", "From_Account": "alice", "Random": 1, "MsgBody": text_body("x") }),
        )
        .await;
    rest.ok(
        "group_open_http_svc/group_msg_recall",
        json!({ "GroupId": "club", "MsgSeqList": [{ "MsgSeq": sent["MsgSeq"] }] }),
    )
    .await;
    let recalled = &hooks.wait("Group.CallbackAfterRecallMsg", 1).await[0].body;
    assert_eq!(recalled["MsgSeqList"][0]["MsgSeq"], sent["MsgSeq"], "{recalled}");
    rest.ok("group_open_http_svc/destroy_group", json!({ "GroupId": "club" })).await;
    hooks.wait("Group.CallbackAfterGroupDestroyed", 1).await;
    Ok(())
}
