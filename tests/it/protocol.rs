//! What a client written from `docs/protocol.md` alone relies on.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use linnet_testkit::{Server, Socket, text_body};
use serde_json::{Value, json};

/// Sends without waiting for answers; the positions in the order of sending.
async fn burst(socket: &mut Socket, conv: &str, first: u64, count: u64) -> Result<Vec<u64>> {
    for id in first..first + count {
        let send = json!({ "conv": conv, "random": id, "body": text_body(&id.to_string()) });
        socket.raw(&json!({ "id": id, "send": send }).to_string()).await?;
    }
    let mut answered = BTreeMap::new();
    while answered.len() < count as usize {
        let frame = socket.frame().await?;
        let Some(id) = frame["id"].as_u64() else { continue };
        let seq = frame["sent"]["seq"].as_u64().with_context(|| format!("not stored: {frame}"))?;
        answered.insert(id, seq);
    }
    Ok(answered.into_values().collect())
}

async fn group(owner: &mut Socket, kind: &str, members: Value) -> Result<String> {
    let made = owner.ask("group_create", json!({ "type": kind, "name": kind, "members": members })).await?;
    Ok(made["group_id"].as_str().context("an id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_one_connection_is_stored_in_the_order_it_was_sent() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut convs = vec!["C2C:bob".to_owned()];
    for kind in ["Public", "Community"] {
        convs.push(format!("GROUP:{}", group(&mut alice, kind, json!(["bob"])).await?));
    }
    let room = group(&mut alice, "AVChatRoom", json!([])).await?;
    alice.ask("group_join", json!({ "group_id": room })).await?;
    convs.push(format!("GROUP:{room}"));
    for (index, conv) in convs.iter().enumerate() {
        let seqs = burst(&mut alice, conv, 10_000 + 1_000 * index as u64, 30).await?;
        assert!(seqs.is_sorted(), "{conv}: {seqs:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn first_members_of_a_community_get_its_pushes() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let conv = format!("GROUP:{}", group(&mut alice, "Community", json!(["bob"])).await?);
    bob.item(|item| item["conv"] == conv && item["change"]["what"] == "joined").await?;
    alice.say(&conv, 1, "welcome").await?;
    // The push itself, or how far the log goes while bob's gateway was still listing him.
    let item =
        bob.item(|item| item["conv"] == conv && (item["message"].is_object() || item["advanced"].is_object())).await?;
    assert!(item["message"]["seq"] == 1 || item["advanced"]["head"] == 1, "{item}");
    alice.say(&conv, 2, "again").await?;
    let message = bob.item(|item| item["conv"] == conv && item["message"]["seq"] == 2).await?;
    assert_eq!(message["message"]["body"], text_body("again"));
    Ok(())
}

/// Positions a page accounts for, each once: true for a message, false for nothing.
fn account(page: &Value, into: &mut BTreeMap<u64, bool>) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut add = |seq: u64, message: bool| assert_eq!(into.insert(seq, message), None, "{seq} twice");
    for message in page["messages"].as_array().into_iter().flatten() {
        add(number(&message["seq"]), true);
    }
    for nothing in page["nothing"].as_array().into_iter().flatten() {
        (number(&nothing["from"])..=number(&nothing["to"])).for_each(|seq| add(seq, false));
    }
    let (from, to) = (number(&page["covered_from"]), number(&page["covered_to"]));
    for seq in from..=to {
        assert!(into.contains_key(&seq), "{seq} is covered but not accounted for: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gaps_ends_over_what_was_hidden_deleted_and_taken_back() -> Result<()> {
    let server = Server::start()?;
    server.rest().import(&["alice", "bob", "carol"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    let mut bob = Socket::sign_in(&server, "bob", "Web").await?;
    let mut phone = Socket::sign_in(&server, "bob", "Android").await?;
    burst(&mut alice, "C2C:bob", 100, 12).await?;
    bob.ask("block", json!({ "add": ["alice"] })).await?;
    burst(&mut alice, "C2C:bob", 200, 3).await?;
    bob.ask("block", json!({ "remove": ["alice"] })).await?;
    burst(&mut alice, "C2C:bob", 300, 5).await?;
    alice.ask("revoke", json!({ "conv": "C2C:bob", "seq": 18 })).await?;
    bob.ask("delete_messages", json!({ "conv": "C2C:alice", "seqs": [3, 4, 20] })).await?;
    let told = phone.item(|item| item["change"]["what"] == "message_deleted").await?;
    assert_eq!((&told["conv"], &told["change"]["seq"]), (&json!("C2C:alice"), &json!(3)));

    let (mut up, mut p) = (BTreeMap::new(), 0);
    while p < 20 {
        let ask = json!({ "conv": "C2C:alice", "from_seq": p + 1, "to_seq": 20, "ascending": true, "limit": 4 });
        let page = bob.ask("history", ask).await?;
        account(&page, &mut up);
        p = page["covered_to"].as_u64().filter(|to| *to > p).context("a page that covers nothing")?;
    }
    let (mut down, mut to) = (BTreeMap::new(), 0);
    while to != 1 {
        let ask = json!({ "conv": "C2C:alice", "to_seq": to.max(1) - 1, "limit": 3 });
        let page = bob.ask("history", ask).await?;
        account(&page, &mut down);
        to = page["covered_from"].as_u64().context("a page that covers nothing")?;
    }
    assert_eq!(up, down, "both ways");
    let nothing: Vec<u64> = up.iter().filter(|(_, message)| !**message).map(|(seq, _)| *seq).collect();
    assert_eq!((up.len(), nothing), (20, vec![3, 4, 13, 14, 15, 20]));
    Ok(())
}
