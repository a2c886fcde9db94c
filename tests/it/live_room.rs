//! Live rooms: no stored members, four priorities, a rate, bans and mutes.

use std::time::Duration;

use anyhow::Result;
use linnet_testkit::{Server, Socket, eventually, text_body};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn viewers_receive_and_the_rate_is_told_truthfully() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["host", "v1", "v2"]).await;
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "AVChatRoom", "Name": "live", "GroupId": "live", "Owner_Account": "host" }),
    )
    .await;
    let mut host = Socket::sign_in(&server, "host", "Web").await?;
    let mut v1 = Socket::sign_in(&server, "v1", "Web").await?;
    let mut v2 = Socket::sign_in(&server, "v2", "Web").await?;
    let request = json!({ "conv": "GROUP:live", "random": 1, "body": text_body("from outside") });
    assert_eq!(v1.refused("send", request).await?, 10007, "not in the room");
    for viewer in [&mut host, &mut v1, &mut v2] {
        let joined = viewer.ask("group_join", json!({ "group_id": "live" })).await?;
        assert_eq!(joined["status"], "joined", "{joined}");
    }
    eventually("three are counted", Duration::from_secs(12), || async {
        let count = rest.ok("group_open_http_svc/get_online_member_num", json!({ "GroupId": "live" })).await;
        if count["OnlineMemberNum"] == 3 { Ok(()) } else { Err(count) }
    })
    .await;
    let sent = host.say("GROUP:live", 1, "hello viewers").await?;
    assert_eq!(sent["outcome"], "published", "{sent}");
    assert_eq!(v1.text("GROUP:live").await?, "hello viewers");
    assert_eq!(v2.text("GROUP:live").await?, "hello viewers");
    // Over the rate every send is answered, and what was published is what viewers get.
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for n in 0..200 {
        let sent = v1.say("GROUP:live", 100 + n, &format!("n{n}")).await?;
        *outcomes.entry(sent["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let (published, shaped) =
        (outcomes.get("published").copied().unwrap_or(0), outcomes.get("shaped").copied().unwrap_or(0));
    assert_eq!(published + shaped, 200, "{outcomes:?}");
    assert!(shaped > 0, "200 messages as fast as they go are over 40/s: {outcomes:?}");
    let mut received = 0;
    while received < published {
        if v2.text("GROUP:live").await?.starts_with('n') {
            received += 1;
        }
    }
    assert_eq!(
        rest.code("group_open_http_svc/group_msg_get_simple", json!({ "GroupId": "live", "ReqMsgNumber": 20 })).await,
        10007
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_viewer_is_out_until_unbanned() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["host", "troll"]).await;
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "AVChatRoom", "Name": "live", "GroupId": "live", "Owner_Account": "host" }),
    )
    .await;
    let mut troll = Socket::sign_in(&server, "troll", "Web").await?;
    troll.ask("group_join", json!({ "group_id": "live" })).await?;
    rest.ok(
        "group_open_http_svc/ban_group_member",
        json!({ "GroupId": "live", "Members_Account": ["troll"], "Duration": 600 }),
    )
    .await;
    troll.item(|item| item["room"]["left"] == true).await?;
    assert!(troll.ask("group_join", json!({ "group_id": "live" })).await.is_err());
    let banned = rest.ok("group_open_http_svc/get_group_ban_member", json!({ "GroupId": "live", "Offset": 0 })).await;
    assert_eq!(banned["BannedAccountList"][0]["Member_Account"], "troll", "{banned}");
    rest.ok("group_open_http_svc/unban_group_member", json!({ "GroupId": "live", "Members_Account": ["troll"] })).await;
    troll.ask("group_join", json!({ "group_id": "live" })).await?;
    troll.say("GROUP:live", 1, "sorry").await?;
    Ok(())
}
