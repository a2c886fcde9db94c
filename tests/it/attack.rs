//! Bad input and hostile peers: a clear refusal, others served.

use anyhow::Result;
use linnet_testkit::{Server, Socket, text_body};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_edge_refuses_in_the_documented_order() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice"]).await;
    let client = reqwest::Client::new();
    let post = async |url: String, body: Vec<u8>| -> Result<Value> {
        let reply = client.post(url).body(body).send().await?;
        assert_eq!(reply.status(), 200);
        Ok(serde_json::from_slice(&reply.bytes().await?)?)
    };
    let base = server.base();
    let query = rest.query().to_owned();
    let good = format!("{base}/v4/im_open_login_svc/account_check?{query}");
    let cases: Vec<(String, Vec<u8>, u64)> = vec![
        (format!("{base}/v4/nope/nope?{query}"), b"{}".to_vec(), 60009),
        (format!("{base}/v4/openim/sendmsg?identifier=administrator"), b"{}".to_vec(), 60012),
        (format!("{base}/v4/openim/sendmsg?sdkappid=abc"), b"{}".to_vec(), 60006),
        (format!("{base}/v4/openim/sendmsg?sdkappid=1&identifier=administrator&usersig=x"), b"{}".to_vec(), 70020),
        (format!("{base}/v4/openim/sendmsg?sdkappid={}&identifier=administrator", server.app()), b"{}".to_vec(), 70002),
        (
            format!("{base}/v4/openim/sendmsg?sdkappid={}&identifier=administrator&usersig=xxxx", server.app()),
            b"{}".to_vec(),
            70003,
        ),
        (
            format!(
                "{base}/v4/openim/sendmsg?sdkappid={}&identifier=administrator&usersig={}",
                server.app(),
                server.sig("alice")
            ),
            b"{}".to_vec(),
            70013,
        ),
        (good.clone(), b"".to_vec(), 60003),
        (good.clone(), b"nonsense".to_vec(), 60003),
        (good.clone(), b"[1]".to_vec(), 60003),
        (good.clone(), "[".repeat(100_000).into_bytes(), 60003),
    ];
    for (url, body, code) in cases {
        let reply = post(url.clone(), body).await?;
        assert_eq!(reply["ErrorCode"], code, "{url}: {reply}");
        assert_eq!(reply["ActionStatus"], "FAIL");
        assert!(reply["RequestId"].is_string(), "{reply}");
    }
    let big = post(good.clone(), vec![b' '; 10 * 1024 * 1024]).await;
    assert!(big.is_err() || big?["ActionStatus"] == "FAIL", "10 MB is refused");
    assert_eq!(
        server
            .rest_as("alice")
            .code("openim/sendmsg", json!({ "To_Account": "alice", "MsgRandom": 1, "MsgBody": text_body("x") }))
            .await,
        60010
    );
    // No content type, and GET with a body.
    let reply = client.get(&good).body(r#"{"CheckItem":[{"UserID":"alice"}]}"#).send().await?.text().await?;
    assert!(reply.contains("\"Imported\""), "{reply}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_ids_reach_nothing() -> Result<()> {
    let server = Server::start()?;
    let rest = server.rest();
    rest.import(&["alice", "a/b c"]).await;
    for bad in ["\u{0}", "a\u{0}b", "测试", &"x".repeat(4096)] {
        let code = rest
            .code(
                "openim/sendmsg",
                json!({ "From_Account": "alice", "To_Account": bad, "MsgRandom": 1, "MsgBody": text_body("x") }),
            )
            .await;
        assert!([90003, 90012, 20003].contains(&code), "{bad:?}: {code}");
        let code = rest
            .code("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "n", "GroupId": bad }))
            .await;
        assert!([10004, 10015].contains(&code), "{bad:?}: {code}");
    }
    for forged in ["@TGS#1", "@TGS#_@TGS#1"] {
        let code = rest
            .code("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "n", "GroupId": forged }))
            .await;
        assert!([10004, 10015].contains(&code), "{forged}: {code}");
    }
    rest.ok(
        "openim/sendmsg",
        json!({ "From_Account": "alice", "To_Account": "a/b c", "MsgRandom": 1, "MsgBody": text_body("x") }),
    )
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_cost_their_own_connection_only() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    // Not signed in.
    let mut stranger = Socket::open(server.ws()).await?;
    assert!(stranger.refused("send", json!({ "conv": "C2C:bob", "random": 1, "body": text_body("x") })).await.is_ok());
    for text in [
        "",
        "nonsense",
        "[]",
        r#"{"id":1}"#,
        r#"{"id":1,"fly":{}}"#,
        r#"{"id":1,"ping":{},"sync":{}}"#,
        &"[".repeat(100_000),
    ] {
        let mut socket = Socket::sign_in(&server, "alice", "Web").await?;
        // Refused or closed: either way it is over with this one.
        let _ = socket.raw(text).await;
        let _ = socket.frame().await;
    }
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    assert_eq!(
        alice
            .refused("send", json!({ "conv": "C2C:bob", "random": 1, "body": text_body(&"x".repeat(13_000)) }))
            .await?,
        80002
    );
    assert!(alice.refused("send", json!({ "conv": "C2C:bob", "random": 1, "body": {} })).await.is_ok());
    assert_eq!(
        alice.refused("send", json!({ "conv": "C2C:nobody", "random": 1, "body": text_body("x") })).await?,
        20003
    );
    alice.say("C2C:bob", 1, "still here").await?;
    assert_eq!(bob.text("C2C:alice").await?, "still here");
    Ok(())
}
