//! Two people chat; a backend sends, reads and recalls; every device agrees.

use anyhow::Result;
use linnet_testkit::{Server, Socket, text_body};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_the_other_side_and_history() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let sent = alice.say("C2C:bob", 7, "hello").await?;
    assert_eq!((sent["seq"].as_u64(), sent["outcome"].as_str()), (Some(1), Some("stored")));
    let message = bob.message("C2C:alice").await?;
    assert_eq!(message["seq"], 1);
    assert_eq!(message["body"], text_body("hello"));
    assert_eq!(message["msg_key"], sent["msg_key"]);
    // A retry is the same message.
    let again = alice.say("C2C:bob", 7, "hello").await?;
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(1), &json!(true)));
    // The backend sends; both sides read the same history.
    let reply = rest
        .ok(
            "openim/sendmsg",
            json!({ "From_Account": "bob", "To_Account": "alice", "MsgRandom": 9, "MsgSeq": 3, "MsgBody": text_body("from REST"), "CloudCustomData": "c" }),
        )
        .await;
    assert!(reply["MsgKey"].as_str().unwrap().starts_with("3_9_"), "{reply}");
    let message = alice.message("C2C:bob").await?;
    assert_eq!((&message["seq"], &message["cloud_custom_data"]), (&json!(2), &json!("c")));
    for (socket, conv) in [(&mut alice, "C2C:bob"), (&mut bob, "C2C:alice")] {
        let page = socket.ask("history", json!({ "conv": conv })).await?;
        let seqs: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [2, 1], "newest first");
        assert_eq!(page["complete"], true);
    }
    let roam = rest
        .ok("openim/admin_getroammsg", json!({ "Operator_Account": "alice", "Peer_Account": "bob", "MaxCnt": 10, "MinTime": 0, "MaxTime": 4_000_000_000_u64 }))
        .await;
    assert_eq!(roam["MsgCnt"], 2, "{roam}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_read_and_the_conversation_list() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    for n in 0..3 {
        alice.say("C2C:bob", n, &format!("m{n}")).await?;
    }
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let synced = bob.ask("sync", json!({})).await?;
    let row = &synced["conversations"][0];
    assert_eq!((&row["conv"], &row["unread"], &row["head"]), (&json!("C2C:alice"), &json!(3), &json!(3)), "{synced}");
    assert_eq!(row["last"]["body"], text_body("m2"));
    let unread = rest.ok("openim/get_c2c_unread_msg_num", json!({ "To_Account": "bob" })).await;
    assert_eq!(unread["AllC2CUnreadMsgNum"], 3);
    bob.ask("read", json!({ "conv": "C2C:alice", "seq": 2 })).await?;
    let item = alice.item(|item| item["peer_read"].is_object()).await?;
    assert_eq!(item["peer_read"]["seq"], 2);
    let synced = bob.ask("sync", json!({})).await?;
    assert_eq!(synced["conversations"][0]["unread"], 1);
    let list = rest
        .ok("recentcontact/get_list", json!({ "From_Account": "bob", "TimeStamp": 0, "StartIndex": 0, "TopTimeStamp": 0, "TopStartIndex": 0, "AssistFlags": 7 }))
        .await;
    assert_eq!(list["SessionItem"][0]["To_Account"], "alice", "{list}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recall_shows_everywhere() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let sent = alice.say("C2C:bob", 1, "oops").await?;
    bob.message("C2C:alice").await?;
    alice.ask("revoke", json!({ "conv": "C2C:bob", "seq": 1 })).await?;
    let item = bob.item(|item| item["recall"].is_object()).await?;
    assert_eq!(item["recall"]["seqs"], json!([1]));
    let page = bob.ask("history", json!({ "conv": "C2C:alice" })).await?;
    assert_eq!(page["messages"][0]["revoked"], true);
    assert!(page["messages"][0]["body"].is_null(), "the text is gone for clients: {page}");
    let code = rest
        .code(
            "openim/admin_msgwithdraw",
            json!({ "From_Account": "alice", "To_Account": "bob", "MsgKey": sent["msg_key"] }),
        )
        .await;
    assert_eq!(code, 20023, "already recalled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_come_out_as_they_went_in() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let body = r#"[ {"MsgType":"TIMCustomElem","MsgContent":{"Zeta":5.0,"Alpha":12345678901234567890123,"Data":"\u0007\ud83d\ude00","Ext":""},"Extra":[1,  2]} ]"#;
    alice.raw(&format!(r#"{{"id":99,"send":{{"conv":"C2C:bob","random":1,"body":{body}}}}}"#)).await?;
    alice.frame().await?;
    let url = format!("{}/v4/openim/admin_getroammsg?{}", server.base(), server.rest().query());
    let request = r#"{"Operator_Account":"bob","Peer_Account":"alice","MaxCnt":10,"MinTime":0,"MaxTime":4000000000}"#;
    let text = reqwest::Client::new().post(url).body(request).send().await?.text().await?;
    assert!(text.contains(body), "byte for byte in {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_device_of_a_platform_ends_the_first() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice"]).await;
    let mut phone = Socket::sign_in(&server, "alice", "Android").await?;
    let mut web = Socket::open(server.ws()).await?;
    let sign_in = |instance: &str| json!({ "sdkappid": server.app().0, "user": "alice", "usersig": server.sig("alice"), "platform": "Web", "instance": instance });
    web.ask("sign_in", sign_in("one")).await?;
    let mut newer = Socket::open(server.ws()).await?;
    newer.ask("sign_in", sign_in("two")).await?;
    let kicked = web.note().await?;
    assert_eq!(kicked["kicked"]["reason"], "multipleDevice", "{kicked}");
    // The phone stays, and is told by a kick of the backend.
    phone.ask("ping", json!({})).await?;
    let rest = server.rest();
    let before = server.sig("alice");
    rest.ok("im_open_login_svc/kick", json!({ "UserID": "alice" })).await;
    let kicked = phone.note().await?;
    assert_eq!(kicked["kicked"]["reason"], "REST_API_Kick");
    // A sig of before is refused, one made now works at once.
    let mut old = Socket::open(server.ws()).await?;
    let mut request = sign_in("three");
    request["usersig"] = json!(before);
    assert_eq!(old.refused("sign_in", request).await?, 70052);
    let _signed_in = Socket::sign_in(&server, "alice", "Web").await?;
    let status = rest.ok("openim/query_online_status", json!({ "To_Account": ["alice"], "IsNeedDetail": 1 })).await;
    assert_eq!(status["QueryResult"][0]["Status"], "Online", "{status}");
    Ok(())
}
