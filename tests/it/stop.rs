//! A planned stop: clients are told, accepted work is finished, nothing is left open.

use anyhow::Result;
use linnet_testkit::{Server, Socket};
use serde_json::{Value, json};

fn status(server: &Server) -> Result<Value> {
    let out = server.cli(&["status", "--json"])?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_clients_and_leaves_nothing_open_a_kill_does() -> Result<()> {
    let mut server = Server::own()?;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "alice" }),
    )
    .await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    alice.say("C2C:bob", 1, "one").await?;
    alice.say("GROUP:g", 2, "two").await?;
    let told = tokio::spawn(async move { alice.note().await });
    tokio::task::block_in_place(|| server.stop())?;
    let note = told.await??;
    assert!(note["going_away"].is_object(), "{note}");
    server.restart()?;
    let recovered = &status(&server)?["recovered"];
    assert_eq!(recovered, &json!({ "conversations": 0, "groups": 0 }));
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    assert_eq!(alice.say("C2C:bob", 3, "three").await?["seq"], 2);
    server.kill()?;
    server.restart()?;
    let recovered = &status(&server)?["recovered"];
    assert!(recovered["conversations"].as_u64().unwrap() > 0, "{recovered}");
    Ok(())
}
