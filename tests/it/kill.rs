//! kill -9 of the real binary under load: nothing acknowledged is lost, nothing is there twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use linnet_testkit::{Hooks, Server, Socket, eventually, text_body};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const ROUNDS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_again_and_again() -> Result<()> {
    let seed: u64 = std::env::var("LINNET_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut server = Server::own()?;
    server.rest().import(&["alice", "bob"]).await;
    server.rest().ok("group_open_http_svc/create_group", json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "alice", "MemberList": [{ "Member_Account": "bob" }] })).await;
    let hooks = Hooks::start().await;
    let url = format!("webhook.url={}", hooks.url());
    let on = server.cli(&[
        "app",
        "set",
        &url,
        "webhook.events=C2C.CallbackAfterSendMsg,Group.CallbackAfterSendMsg",
        "group.msg_rate=0",
    ])?;
    assert!(on.status.success(), "{}", String::from_utf8_lossy(&on.stderr));
    // (conversation, seq) -> text, for everything acknowledged.
    let mut acknowledged: BTreeMap<(String, u64), String> = BTreeMap::new();
    let mut epochs = highest_epochs(&server)?;
    for round in 0..ROUNDS {
        let writers: Vec<_> = [("alice", "C2C:bob"), ("bob", "GROUP:g")]
            .into_iter()
            .map(|(user, conv)| {
                let url = server.ws().to_owned();
                let sign_in = json!({ "sdkappid": server.app().0, "user": user, "usersig": server.sig(user), "platform": "Web", "instance": user });
                tokio::spawn(write_until_cut(url, sign_in, conv.to_owned(), format!("r{round}")))
            })
            .collect();
        let rest = server.rest();
        let backend = tokio::spawn(async move {
            let mut done = Vec::new();
            for n in 0_u32.. {
                let text = format!("r{round} rest {n}");
                let body = json!({ "GroupId": "g", "From_Account": "alice", "Random": n + round * 100_000, "MsgBody": text_body(&text) });
                let Ok(reply) = rest.try_call("group_open_http_svc/send_group_msg", body).await else { break };
                if reply["ErrorCode"] == 0 && reply["MsgSeq"].as_u64().unwrap_or(0) > 0 {
                    done.push((("GROUP:g".to_owned(), reply["MsgSeq"].as_u64().unwrap()), text));
                }
            }
            done
        });
        tokio::time::sleep(Duration::from_millis(rng.random_range(150..900))).await;
        server.kill()?;
        for writer in writers {
            acknowledged.extend(writer.await?);
        }
        acknowledged.extend(backend.await?);
        server.restart()?;
        let now = eventually("owners have claimed what was open", Duration::from_secs(20), || async {
            let now = highest_epochs(&server).unwrap();
            if now.iter().zip(&epochs).all(|(now, before)| now > before) { Ok(now) } else { Err((now, epochs.clone())) }
        })
        .await;
        epochs = now;
    }
    println!("{} messages were acknowledged over {ROUNDS} kills", acknowledged.len());
    assert!(acknowledged.len() > 50, "the load was real");
    let mut bob = Socket::sign_in(&server, "bob", "Android").await?;
    for conv in ["C2C:alice", "GROUP:g"] {
        let stored = history(&mut bob, conv).await?;
        let mine = if conv == "C2C:alice" { "C2C:bob" } else { conv };
        for ((_, seq), text) in acknowledged.iter().filter(|((c, _), _)| c == mine) {
            assert_eq!(stored.get(seq), Some(text), "seed {seed}: {conv} seq {seq}");
        }
        let mut texts: Vec<&String> = stored.values().filter(|text| text.starts_with('r')).collect();
        let count = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), count, "seed {seed}: a message is there twice in {conv}");
    }
    // Every acknowledged message has its after-event, in the end.
    eventually("an after-event for each", Duration::from_secs(60), || async {
        let told: std::collections::BTreeSet<String> = ["C2C.CallbackAfterSendMsg", "Group.CallbackAfterSendMsg"]
            .into_iter()
            .flat_map(|command| hooks.of(command))
            .filter_map(|hook| hook.body["MsgBody"][0]["MsgContent"]["Text"].as_str().map(str::to_owned))
            .collect();
        let missing: Vec<_> = acknowledged.values().filter(|text| !told.contains(*text)).take(5).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    })
    .await;
    Ok(())
}

/// The highest epoch of any log bucket, and of any group.
fn highest_epochs(server: &Server) -> Result<Vec<u64>> {
    let mut highest = Vec::new();
    for table in ["log_7d", "group"] {
        let out = server.cli(&["inspect", table, "--json", "--limit", "10000"])?;
        let text = String::from_utf8(out.stdout)?;
        let epochs = text.split("\"epoch\":").skip(1).filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<u64>().ok())
        });
        highest.push(epochs.max().unwrap_or(0));
    }
    Ok(highest)
}

type Written = Vec<((String, u64), String)>;

async fn write_until_cut(url: String, sign_in: Value, conv: String, label: String) -> Written {
    let mut done = Vec::new();
    let Ok(mut socket) = Socket::open(&url).await else { return done };
    if socket.ask("sign_in", sign_in).await.is_err() {
        return done;
    }
    for n in 0_u32.. {
        let text = format!("{label} {conv} {n}");
        match socket.say(&conv, rand::random(), &text).await {
            Ok(sent) if sent["outcome"] == "stored" => done.push(((conv.clone(), sent["seq"].as_u64().unwrap()), text)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    done
}

/// Everything in a conversation, by paging forward; placeholders are passed over.
async fn history(socket: &mut Socket, conv: &str) -> Result<BTreeMap<u64, String>> {
    let mut found = BTreeMap::new();
    let mut from = 1;
    loop {
        let page =
            socket.ask("history", json!({ "conv": conv, "from_seq": from, "ascending": true, "limit": 100 })).await?;
        for message in page["messages"].as_array().into_iter().flatten() {
            let text = message["body"][0]["MsgContent"]["Text"].as_str().unwrap_or_default();
            found.insert(message["seq"].as_u64().unwrap(), text.to_owned());
        }
        if page["complete"] == true {
            return Ok(found);
        }
        let covered = page["covered_to"].as_u64().unwrap();
        assert!(covered >= from, "paging goes on: {page}");
        from = covered + 1;
    }
}
