//! Commands that go on: chat, tail, webhooks, demo.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn events<'a>(objects: &'a [Value], event: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["event"] == event).collect()
}

#[tokio::test]
async fn two_people_talk_and_history_counts_as_heard() {
    let dev = Sandbox::start().await;
    let mut bob = dev.start_command(&["chat", "bob", "--with", "alice", "--json"]);
    bob.next_with("event", "ready").await;
    let said = dev.run(&["chat", "alice", "--with", "bob", "--send", "one", "--send", "two", "--json"]).await.exits(0);
    let objects = said.objects();
    assert_eq!(objects[0]["event"], "ready");
    let sent = events(&objects, "sent");
    let seqs: Vec<_> = sent.iter().map(|sent| (sent["text"].as_str(), sent["seq"].as_u64())).collect();
    assert_eq!(seqs, [(Some("one"), Some(1)), (Some("two"), Some(2))]);
    assert!(
        sent.iter().all(|sent| sent["outcome"] == "stored" && sent["conv"] == "C2C:bob" && sent["delay_ms"].is_f64())
    );
    for (seq, text) in [(1, "one"), (2, "two")] {
        let heard = bob.next_with("event", "message").await;
        assert_eq!((&heard["seq"], &heard["text"], &heard["from"]), (&json!(seq), &json!(text), &json!("alice")));
        assert_eq!(heard["conv"], "C2C:alice");
    }
    assert_eq!(bob.interrupt().await, Some(0));
    let heard = ["chat", "bob", "--with", "alice", "--expect", "on", "--expect", "tw", "--json"];
    let objects = dev.run(&heard).await.exits(0).objects();
    assert!(events(&objects, "message").iter().all(|message| message["history"] == true), "{objects:?}");
    // In order: what came first is not heard again.
    let order = ["chat", "bob", "--with", "alice", "--expect", "two", "--expect", "one", "--timeout", "500ms"];
    let late = dev.run(&order).await.exits(1);
    assert!(late.err.contains("no message with \"one\" within 500ms"), "{}", late.err);
    // Without a conversation, in any of them.
    dev.run(&["chat", "bob", "--expect", "two"]).await.exits(0);
}

#[tokio::test]
async fn lines_of_a_pipe_are_sent_in_order() {
    let dev = Sandbox::start().await;
    let done = dev.run_with(&["chat", "alice", "--with", "bob", "--json"], "first\nsecond\n").await.exits(0);
    let objects = done.objects();
    let sent: Vec<_> = events(&objects, "sent").iter().map(|sent| sent["text"].clone()).collect();
    assert_eq!(sent, ["first", "second"]);
}

#[tokio::test]
async fn a_room_is_entered_and_a_group_one_is_not_in_refuses() {
    let dev = Sandbox::start().await;
    for (kind, id) in [("AVChatRoom", "stage"), ("Work", "office")] {
        let ask = json!({ "Type": kind, "Name": id, "GroupId": id }).to_string();
        dev.run(&["call", "group_open_http_svc/create_group", &ask]).await.exits(0);
    }
    let mut bob = dev.start_command(&["chat", "bob", "--room", "stage", "--json"]);
    bob.next_with("event", "ready").await;
    let said = dev.run(&["chat", "alice", "--room", "stage", "--send", "hi all", "--json"]).await.exits(0).objects();
    assert_eq!(events(&said, "sent")[0]["outcome"], "published");
    let heard = loop {
        let heard = bob.next_with("event", "message").await;
        if heard["kind"] != "tip" {
            break heard;
        }
    };
    assert_eq!((&heard["conv"], &heard["text"]), (&json!("GROUP:stage"), &json!("hi all")));
    assert_eq!(bob.interrupt().await, Some(0));
    let refused = dev.run(&["chat", "alice", "--group", "office", "--send", "hi"]).await.exits(1);
    assert!(refused.err.contains("10007"), "{}", refused.err);
    dev.run(&["chat", "alice", "--send", "hi"]).await.exits(2);
}

#[tokio::test]
async fn a_scripted_webhook_refuses_and_the_url_comes_back() {
    let dev = Sandbox::start().await;
    let url = || async {
        let shown = dev.run(&["app", "show", "--json"]).await.exits(0).objects().remove(0);
        shown["settings"]["webhook.url"].clone()
    };
    dev.run(&["app", "set", "webhook.url=http://127.0.0.1:9/old"]).await.exits(0);
    let no = json!({ "C2C.CallbackBeforeSendMsg": { "ActionStatus": "OK", "ErrorCode": 1, "ErrorInfo": "no" } });
    std::fs::write(dev.path().join("reply.json"), no.to_string()).unwrap();
    let mut listen = dev.start_command(&["webhooks", "listen", "--reply", "reply.json", "--json"]);
    let listening = listen.next().await;
    assert_eq!((&listening["event"], url().await), (&json!("listening"), listening["url"].clone()));

    let refused = dev.run(&["chat", "alice", "--with", "bob", "--send", "please", "--json"]).await.exits(1);
    let objects = refused.objects();
    assert_eq!(events(&objects, "sent")[0]["code"], 20006, "{objects:?}");
    let asked = listen.next_with("command", "C2C.CallbackBeforeSendMsg").await;
    assert_eq!(asked["body"]["From_Account"], "alice");
    assert_eq!((&asked["answer"]["ErrorCode"], &asked["query"]["SdkAppid"]), (&json!(1), &json!("1600000001")));

    // The file is read again; a call prints what it caused.
    std::fs::write(dev.path().join("reply.json"), r#"{"C2C.CallbackBeforeSendMsg":"20ms"}"#).unwrap();
    let body = json!({ "From_Account": "alice", "To_Account": "bob", "MsgRandom": 9,
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "x" } }] });
    let called = dev.run(&["call", "openim/sendmsg", &body.to_string()]).await.exits(0);
    for command in ["C2C.CallbackBeforeSendMsg", "C2C.CallbackAfterSendMsg"] {
        assert!(called.err.contains(&format!("webhook {command}  ok")), "{}", called.err);
    }
    let tested = dev.run(&["webhooks", "test", "Group.CallbackAfterSendMsg", "--json"]).await.exits(0).objects();
    assert_eq!(tested[0]["ok"], true);
    assert_eq!(listen.interrupt().await, Some(0));
    assert_eq!(url().await, "http://127.0.0.1:9/old");
    dev.run(&["webhooks", "test", "Group.CallbackAfterSendMsg"]).await.exits(1);
    dev.run(&["webhooks", "failed", "--json"]).await.exits(0);
    dev.run(&["webhooks", "replay", "--all", "--json"]).await.exits(0);
}

#[tokio::test]
async fn a_recall_and_a_newer_device_are_events() {
    let dev = Sandbox::start().await;
    let mut bob = dev.start_command(&["chat", "bob", "--with", "alice", "--platform", "Windows", "--json"]);
    bob.next_with("event", "ready").await;
    let said = dev.run(&["chat", "alice", "--with", "bob", "--send", "oops", "--json"]).await.exits(0).objects();
    let key = events(&said, "sent")[0]["msg_key"].clone();
    bob.next_with("event", "message").await;
    let ask = json!({ "From_Account": "alice", "To_Account": "bob", "MsgKey": key }).to_string();
    dev.run(&["call", "openim/admin_msgwithdraw", &ask]).await.exits(0);
    let revoked = bob.next_with("event", "revoked").await;
    assert_eq!((&revoked["conv"], &revoked["seq"]), (&json!("C2C:alice"), &json!(1)));
    let mut newer = dev.start_command(&["chat", "bob", "--platform", "Windows", "--json"]);
    newer.next_with("event", "ready").await;
    let kicked = bob.next_with("event", "kicked").await;
    assert_eq!((&kicked["reason"], &kicked["by_platform"]), (&json!("multipleDevice"), &json!("Windows")));
    assert_eq!(bob.ended().await, Some(1));
    assert_eq!(newer.interrupt().await, Some(0));
}

#[tokio::test]
async fn everything_works_over_tls_with_the_folders_own_ca() {
    let dev = Sandbox::start_with(&["--tls"]).await;
    assert!(dev.ready["rest"].as_str().unwrap().starts_with("https://"));
    let called =
        dev.run(&["call", "im_open_login_svc/account_check", r#"{"CheckItem":[{"UserID":"bob"}]}"#]).await.exits(0);
    assert!(called.err.contains("--cacert"), "{}", called.err);
    dev.run(&["chat", "alice", "--with", "bob", "--send", "over TLS"]).await.exits(0);
    dev.run(&["chat", "bob", "--with", "alice", "--expect", "over TLS"]).await.exits(0);
    dev.run(&["status"]).await.exits(0);
    let found = dev.run(&["doctor", "--json"]).await.objects();
    assert!(found.iter().any(|finding| finding["check"] == "TLS CA" && finding["verdict"] == "ok"), "{found:?}");
    // Without the folder nobody knows the CA: not trusted is not reached.
    let stranger = Sandbox::empty();
    let rest = dev.ready["rest"].as_str().unwrap();
    let done = stranger.run(&["status", "--server", rest, "--token", "t"]).await.exits(3);
    assert!(done.err.to_lowercase().contains("certificate") || done.err.contains("UnknownIssuer"), "{}", done.err);
}

#[tokio::test]
async fn tail_shows_one_conversation_and_its_drops() {
    let dev = Sandbox::start().await;
    let mut pair = dev.start_command(&["tail", "--conv", "C2C:bob:alice", "--json"]);
    let mut everything = dev.start_command(&["tail", "--json"]);
    // A watch is in place when it shows something; sign-ins are shown to those who watch all.
    loop {
        dev.run(&["chat", "carol", "--with", "bob", "--send", "not shown"]).await;
        let ready =
            tokio::time::timeout(std::time::Duration::from_millis(500), everything.next_with("event", "message")).await;
        if ready.is_ok() {
            break;
        }
    }
    let seen = loop {
        dev.run(&["chat", "alice", "--with", "bob", "--send", "shown"]).await.exits(0);
        let seen =
            tokio::time::timeout(std::time::Duration::from_millis(500), pair.next_with("event", "message")).await;
        if let Ok(seen) = seen {
            break seen;
        }
    };
    assert_eq!((&seen["from"], &seen["to"], &seen["kind"]), (&json!("alice"), &json!("bob"), &json!("message")));
    assert!(seen.get("text").is_none() && !seen.to_string().contains("shown"), "no message text: {seen}");
    assert_eq!(pair.interrupt().await, Some(0));
    assert_eq!(everything.interrupt().await, Some(0));
    dev.run(&["tail", "--conv", "bob"]).await.exits(2);
}

#[tokio::test]
async fn a_full_room_adds_up() {
    let dev = Sandbox::start().await;
    let mut drops = dev.start_command(&["tail", "--drops", "--json"]);
    let scene = ["demo", "live", "--viewers", "25", "--rate", "120", "--seconds", "3", "--json"];
    let objects = dev.run(&scene).await.exits(0).objects();
    let account = events(&objects, "account")[0];
    let n = |name: &str| account[name].as_u64().unwrap();
    assert_eq!(n("sent"), 360);
    assert_eq!(n("sent"), n("published") + n("shaped") + n("refused"));
    assert_eq!(n("received"), n("published") * 24 - n("dropped"));
    assert!(n("shaped") > 0, "the room's rate is 40/s: {account}");
    let shaped = |kind: &str| {
        let kind = &account["kinds"][kind];
        kind["shaped"].as_f64().unwrap() / kind["sent"].as_f64().unwrap().max(1.0)
    };
    assert!(shaped("gift") < shaped("like"), "likes give way first: {account}");
    assert!(events(&objects, "totals").len() >= 2, "running totals");
    let drop = drops.next().await;
    assert_eq!((&drop["kind"], &drop["outcome"]), (&json!("drop"), &json!("shaped")));
    assert_eq!(drops.interrupt().await, Some(0));
}
