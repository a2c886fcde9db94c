//! Commands that ask the server.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn text(from: &str, to: &str, random: u32, text: &str) -> String {
    json!({
        "From_Account": from, "To_Account": to, "MsgRandom": random,
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }],
    })
    .to_string()
}

#[tokio::test]
async fn a_call_is_answered_and_its_curl_does_the_same() {
    let dev = Sandbox::start().await;
    let body = text("alice", "bob", 1, "it's a quote");
    let done = dev.run(&["call", "openim/sendmsg", &body]).await.exits(0);
    let reply: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(reply["ActionStatus"], "OK");
    let curl = done.err.lines().find(|line| line.starts_with("curl")).unwrap().to_owned();
    let output = tokio::process::Command::new("sh").args(["-c", &curl]).output().await.unwrap();
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&again["ErrorCode"], &again["MsgKey"]), (&json!(0), &reply["MsgKey"]), "the same message: {again}");

    let refused = dev.run(&["call", "openim/sendmsg", &text("alice", "nobody", 2, "x"), "--json"]).await.exits(1);
    assert_eq!(refused.objects()[0]["ErrorCode"], 90012);
    assert!(refused.err.contains("90012") && !refused.err.contains("curl"), "{}", refused.err);
    let shown = dev.run(&["call", "openim/no_such", "--json", "--show", "curl"]).await.exits(1);
    assert!(shown.err.contains("curl") && shown.err.contains("60009"), "{}", shown.err);
    dev.run(&["call", "openim/sendmsg", "{", "--quiet"]).await.exits(1);
    std::fs::write(dev.path().join("body.json"), text("alice", "bob", 3, "from a file")).unwrap();
    dev.run(&["call", "openim/sendmsg", "@body.json"]).await.exits(0);
    dev.run_with(&["call", "openim/sendmsg", "@-"], &text("alice", "bob", 4, "from stdin")).await.exits(0);
    let partly = json!({ "From_Account": "alice", "To_Account": ["bob", "nobody"], "MsgRandom": 5,
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "x" } }] });
    dev.run(&["call", "openim/batchsendmsg", &partly.to_string()]).await.exits(4);
    dev.run(&["call", "openim/sendmsg", &body, "--as", "alice"]).await.exits(1);
}

#[tokio::test]
async fn apps_are_made_changed_and_deleted() {
    let dev = Sandbox::start().await;
    let key = "a-key-that-moves-here-with-its-app";
    let made = dev.run(&["app", "create", "--sdkappid", "1400000007", "--new-key", key, "--json"]).await.exits(0);
    assert_eq!(made.objects()[0]["key"], key);
    let listed = dev.run(&["app", "list", "--json"]).await.exits(0).objects();
    assert!(listed.iter().any(|app| app["sdkappid"] == 1_400_000_007), "{listed:?}");
    let set = ["app", "set", "history.days=30", "webhook.events=C2C.CallbackAfterSendMsg", "--app", "1400000007"];
    dev.run(&set).await.exits(0);
    let shown = dev.run(&["app", "show", "1400000007", "--json", "--changed"]).await.exits(0).objects().remove(0);
    assert_eq!(shown["settings"], json!({ "history.days": "30", "webhook.events": "C2C.CallbackAfterSendMsg" }));
    let people = dev.run(&["app", "show", "1400000007"]).await.exits(0).out;
    assert!(!people.contains(key) && people.contains("history.days"), "{people}");
    let wrong = dev.run(&["app", "set", "history.dayz=30"]).await.exits(1);
    assert!(wrong.err.contains("history.dayz"), "{}", wrong.err);
    let admins = dev.run(&["app", "admins", "add", "alice", "--json"]).await.exits(0).objects().remove(0);
    assert!(admins["admins"].as_array().unwrap().contains(&json!("alice")));
    dev.run(&["call", "im_open_login_svc/account_check", r#"{"CheckItem":[{"UserID":"bob"}]}"#, "--as", "alice"])
        .await
        .exits(0);
    dev.run(&["app", "delete"]).await.exits(2);
    dev.run(&["app", "delete", "1400000007", "--yes"]).await.exits(0);
    dev.run(&["app", "show", "1400000007"]).await.exits(1);
}

#[tokio::test]
async fn a_rotated_key_is_remembered_and_the_old_one_still_explained() {
    let dev = Sandbox::start().await;
    let old = dev.run(&["usersig", "alice"]).await.exits(0).out;
    let rotated = dev.run(&["app", "rotate-key", "--keep", "1h", "--json"]).await.exits(0).objects().remove(0);
    assert_ne!(rotated["key"], dev.ready["key"]);
    let told = dev.run(&["usersig", "check", old.trim()]).await.exits(0).out;
    assert!(told.contains("signed with the previous key"), "{told}");
    let new = dev.run(&["usersig", "alice"]).await.exits(0).out;
    let told = dev.run(&["usersig", "check", new.trim()]).await.exits(0).out;
    assert!(told.contains("signed with the current key"), "{told}");
    dev.run(&["call", "im_open_login_svc/account_check", r#"{"CheckItem":[{"UserID":"bob"}]}"#]).await.exits(0);
}

#[tokio::test]
async fn rows_are_readable() {
    let dev = Sandbox::start().await;
    dev.run(&["call", "openim/sendmsg", &text("alice", "bob", 1, "kept")]).await.exits(0);
    let tables = dev.run(&["inspect", "--json"]).await.exits(0).objects();
    assert!(tables.len() >= 8, "{tables:?}");
    let mut filled = HashMap::new();
    for table in tables.iter().filter_map(|table| table["table"].as_str()) {
        let done = dev.run(&["inspect", table, "--json"]).await;
        let found = if done.code == Some(0) { done.objects().len() } else { 0 };
        filled.insert(table.to_owned(), found);
    }
    assert!(filled.values().filter(|found| **found > 0).count() >= 3, "{filled:?}");
    let missing = dev.run(&["inspect", "no_such_table"]).await.exits(1);
    assert!(missing.err.contains("no table no_such_table"), "{}", missing.err);
}

#[tokio::test]
async fn status_adds_up_and_doctor_is_content() {
    let dev = Sandbox::start().await;
    dev.run(&["chat", "alice", "--with", "bob", "--send", "one"]).await.exits(0);
    let status = dev.run(&["status", "--json"]).await.exits(0).objects().remove(0);
    assert_eq!(status["unaccounted"], 0);
    let shown = dev.run(&["status"]).await.exits(0).out;
    assert!(shown.contains("unaccounted 0") && shown.contains("arrived 1 = stored 1"), "{shown}");
    let mut watch = dev.start_command(&["status", "--watch", "--json"]);
    watch.next().await;
    assert_eq!(watch.interrupt().await, Some(0));
    let found = dev.run(&["doctor", "--json"]).await.objects();
    let server = found.iter().find(|finding| finding["check"] == "server").unwrap();
    assert_eq!(server["verdict"], "ok", "{found:?}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_what_to_do() {
    let dev = Sandbox::start().await;
    let done = dev.run(&["app", "list", "--token", "wrong"]).await.exits(1);
    assert!(done.err.contains("60005") && done.err.contains("--token"), "{}", done.err);
}
