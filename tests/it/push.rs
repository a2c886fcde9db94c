//! Offline push: the real binary, a provider of the app's, phones that are away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use linnet_testkit::{Hook, Hooks, Reply, Server, Socket, eventually, text_body};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(15);

fn turn_on(server: &Server, provider: &Hooks, more: &[&str]) -> Result<()> {
    let url = format!("push.url={}", provider.url());
    // A provider of a test is on this machine.
    let mut args = vec!["app", "set", url.as_str(), "push.key=secret", "push.allow_private=true"];
    args.extend(more);
    let done = server.cli(&args)?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Registers a phone of `user` by REST.
async fn phone(server: &Server, user: &str) {
    let device = json!({ "UserID": user, "Instance": format!("phone-{user}"), "Platform": "Android", "Vendor": "fcm",
        "Token": format!("t-{user}"), "Badge": 0 });
    server.rest().ok("linnet_push/set_device", device).await;
}

/// Everything a provider was handed, once by request: receiver, text, count.
fn told(hooks: &[Hook]) -> Vec<(String, String, u64)> {
    let mut seen = BTreeSet::new();
    let mut told = Vec::new();
    for hook in hooks.iter().filter(|hook| seen.insert(hook.query["RequestID"].clone())) {
        for one in hook.body["Notifications"].as_array().into_iter().flatten() {
            let (text, count) = (one["Desc"].as_str().unwrap_or_default(), one["Count"].as_u64().unwrap_or_default());
            for to in one["Receivers"].as_array().into_iter().flatten() {
                told.push((to["To_Account"].as_str().unwrap_or_default().to_owned(), text.to_owned(), count));
            }
        }
    }
    told
}

async fn until(
    provider: &Hooks,
    what: &str,
    enough: impl Fn(&[(String, String, u64)]) -> bool,
) -> Vec<(String, String, u64)> {
    eventually(what, WAIT, || async {
        let told = told(&provider.of(""));
        if enough(&told) { Ok(told) } else { Err(told) }
    })
    .await
}

fn texts_of<'a>(told: &'a [(String, String, u64)], user: &str) -> Vec<&'a str> {
    told.iter().filter(|(to, _, _)| to == user).map(|(_, text, _)| text.as_str()).collect()
}

async fn send(server: &Server, from: &str, to: &str, text: &str, random: u32, more: Value) {
    let mut body = json!({ "From_Account": from, "To_Account": to, "MsgRandom": random, "MsgBody": text_body(text) });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    server.rest().ok("openim/sendmsg", body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_is_pushed_to_and_who_is_online_or_wants_quiet_is_not() -> Result<()> {
    let server = Server::start()?;
    let provider = Hooks::start().await;
    server.rest().import(&["alice", "away", "online", "muted", "night"]).await;
    turn_on(&server, &provider, &[])?;
    for user in ["away", "online", "muted", "night"] {
        phone(&server, user).await;
    }
    let _online = Socket::sign_in(&server, "online", "Web").await?;
    let rest = server.rest();
    let option = json!({ "UserID": "muted", "To_Account": ["alice"], "MsgFlag": "AcceptNotNotify" });
    rest.ok("linnet_push/set_receive_opt", option).await;
    rest.ok("linnet_push/set_quiet_time", json!({ "UserID": "night", "MsgFlag": "AcceptNotNotify" })).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    for (n, user) in ["online", "muted", "night"].iter().enumerate() {
        alice.say(&format!("C2C:{user}"), n as u32, "quiet").await?;
    }
    let push = json!({ "Title": "News", "Ext": "{\"page\":7}", "AndroidInfo": { "Sound": "ding" } });
    let ask = json!({ "conv": "C2C:away", "random": 9, "body": text_body("hello"), "offline_push": push });
    alice.ask("send", ask).await?;
    // From REST, past what he said of this sender.
    send(&server, "alice", "muted", "from the app", 10, json!({})).await;
    let told = until(&provider, "two pushes", |told| told.len() >= 2).await;
    assert_eq!((texts_of(&told, "away"), texts_of(&told, "muted")), (vec!["hello"], vec!["from the app"]));
    assert_eq!(told.len(), 2, "{told:?}");
    let hooks = provider.of("");
    let hook = hooks.iter().find(|hook| hook.body["Notifications"][0]["Desc"] == "hello").context("it came")?;
    let shown = &hook.body["Notifications"][0];
    assert_eq!((&shown["Title"], &shown["Ext"]), (&json!("News"), &json!("{\"page\":7}")));
    assert_eq!(shown["OfflinePushInfo"], push, "as the sender wrote it");
    assert_eq!(shown["Receivers"][0]["Badge"], 1);
    assert_eq!(shown["Receivers"][0]["Devices"][0]["Token"], "t-away");
    assert!(hook.query.contains_key("Sign") && hook.query.contains_key("RequestTime"), "{:?}", hook.query);
    assert_eq!(hook.body["RequestId"], hook.query["RequestID"].as_str());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_registers_its_phone_and_loses_it_by_signing_out_or_being_kicked() -> Result<()> {
    let server = Server::start()?;
    let provider = Hooks::start().await;
    server.rest().import(&["alice", "bob"]).await;
    turn_on(&server, &provider, &[])?;
    let devices = async || server.rest().ok("linnet_push/get_device", json!({ "UserID": "bob" })).await;
    let register = json!({ "vendor": "fcm", "token": "t1", "language": "en", "badge": 4 });
    let mut bob = Socket::sign_in(&server, "bob", "Android").await?;
    bob.ask("device_set", register.clone()).await?;
    bob.ask("receive_set", json!({ "convs": ["C2C:carol"], "option": "Discard" })).await?;
    assert_eq!(
        bob.ask("receive_get", json!({})).await?["options"],
        json!([{ "conv": "C2C:carol", "option": "Discard" }])
    );
    let quiet = json!({ "option": "AcceptNotNotify", "start_s": 82_800, "duration_s": 1, "repeated": true });
    bob.ask("quiet_set", json!({ "quiet": quiet })).await?;
    assert_eq!(bob.ask("quiet_get", json!({})).await?, quiet);
    bob.ask("quiet_set", json!({})).await?;
    assert_eq!(bob.refused("device_set", json!({ "vendor": "fcm" })).await?, 22003);
    let found = devices().await;
    assert_eq!((&found["Badge"], &found["Devices"][0]["Token"]), (&json!(4), &json!("t1")), "{found}");
    bob.close().await;
    // A lost connection keeps it: that is what it is for.
    eventually("bob is away", WAIT, || async {
        send(&server, "alice", "bob", "you there?", linnet_testkit_random(), json!({})).await;
        let told = told(&provider.of(""));
        if told.is_empty() { Err(()) } else { Ok(()) }
    })
    .await;
    let mut bob = Socket::sign_in(&server, "bob", "Android").await?;
    bob.ask("device_set", register.clone()).await?;
    bob.ask("sign_out", json!({})).await?;
    eventually("signing out takes it away", WAIT, || async {
        let found = devices().await;
        if found["Devices"] == json!([]) { Ok(()) } else { Err(found) }
    })
    .await;
    phone(&server, "bob").await;
    server.rest().ok("im_open_login_svc/kick", json!({ "UserID": "bob" })).await;
    assert_eq!(devices().await["Devices"], json!([]), "a kick takes all of them");
    Ok(())
}

/// Numbers that differ, so that nothing is a retry.
fn linnet_testkit_random() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_told_together_a_mention_at_once_and_who_is_muted_only_of_that() -> Result<()> {
    let server = Server::start()?;
    let provider = Hooks::start().await;
    let rest = server.rest();
    rest.import(&["alice", "open", "muted", "except"]).await;
    turn_on(&server, &provider, &[])?;
    for user in ["open", "muted", "except"] {
        phone(&server, user).await;
    }
    let members: Vec<_> = ["open", "muted", "except"].map(|user| json!({ "Member_Account": user })).into();
    rest.ok(
        "group_open_http_svc/create_group",
        json!({ "Type": "Public", "Name": "Hikers", "GroupId": "g", "Owner_Account": "alice", "MemberList": members }),
    )
    .await;
    for (user, flag) in [("muted", "AcceptNotNotify"), ("except", "AcceptNotNotifyExceptAt")] {
        let change = json!({ "GroupId": "g", "Member_Account": user, "MsgFlag": flag });
        rest.ok("group_open_http_svc/modify_group_member_info", change).await;
    }
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    for n in 0..12 {
        alice.say("GROUP:g", n, &format!("m{n}")).await?;
    }
    let all = until(&provider, "a digest", |told| !told.is_empty()).await;
    assert_eq!(all, [("open".to_owned(), "12 new messages".to_owned(), 12)]);
    let mention = json!({ "conv": "GROUP:g", "random": 50, "body": text_body("@all of you"),
        "mentions": ["open", "muted", "except"] });
    alice.ask("send", mention).await?;
    let all = until(&provider, "a mention", |told| told.len() >= 3).await;
    assert_eq!(texts_of(&all, "open"), ["12 new messages", "@all of you"]);
    assert_eq!((texts_of(&all, "except"), texts_of(&all, "muted")), (vec!["@all of you"], vec![]));
    Ok(())
}

/// The window of a group above 1,000 is 30 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_above_a_thousand_is_told_once_of_half_a_minute() -> Result<()> {
    let server = Server::start()?;
    let provider = Hooks::start().await;
    let rest = server.rest();
    turn_on(&server, &provider, &[])?;
    let users: Vec<String> = (0..1_050).map(|n| format!("m{n}")).collect();
    for users in users.chunks(100) {
        rest.import(&users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let group = json!({ "Type": "Public", "Name": "Crowd", "GroupId": "crowd", "Owner_Account": "m0" });
    rest.ok("group_open_http_svc/create_group", group).await;
    for users in users[1..].chunks(100) {
        let members: Vec<_> = users.iter().map(|user| json!({ "Member_Account": user })).collect();
        let add = json!({ "GroupId": "crowd", "Silence": 1, "MemberList": members });
        rest.ok("group_open_http_svc/add_group_member", add).await;
    }
    for user in ["m1", "m600", "m1049"] {
        phone(&server, user).await;
    }
    let begun = std::time::Instant::now();
    for n in 0..12 {
        let message = json!({ "GroupId": "crowd", "From_Account": "m0", "Random": n, "MsgBody": text_body("x") });
        rest.ok("group_open_http_svc/send_group_msg", message).await;
    }
    let all = eventually("three digests", Duration::from_secs(60), || async {
        let told = told(&provider.of(""));
        if told.len() >= 3 { Ok(told) } else { Err(told) }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    assert!(all.iter().all(|(_, text, count)| text == "12 new messages" && *count == 12), "{all:?}");
    assert_eq!(all.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_room_pushes_nothing() -> Result<()> {
    let server = Server::start()?;
    let provider = Hooks::start().await;
    let rest = server.rest();
    rest.import(&["alice", "bob"]).await;
    turn_on(&server, &provider, &[])?;
    phone(&server, "bob").await;
    let room = json!({ "Type": "AVChatRoom", "Name": "r", "GroupId": "r", "Owner_Account": "alice" });
    rest.ok("group_open_http_svc/create_group", room).await;
    let message = json!({ "GroupId": "r", "From_Account": "alice", "Random": 1, "MsgBody": text_body("live") });
    rest.ok("group_open_http_svc/send_group_msg", message).await;
    send(&server, "alice", "bob", "after it", 2, json!({})).await;
    let told = until(&provider, "the message after it", |told| !told.is_empty()).await;
    assert_eq!(told, [("bob".to_owned(), "after it".to_owned(), 1)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_down_and_a_kill_in_the_middle_lose_nothing() -> Result<()> {
    let mut server = Server::own()?;
    let provider = Hooks::start().await;
    let rest = server.rest();
    let users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    rest.import(&names).await;
    rest.import(&["alice"]).await;
    turn_on(&server, &provider, &["push.batch=5"])?;
    for user in &names {
        phone(&server, user).await;
    }
    let members: Vec<_> = names.iter().map(|user| json!({ "Member_Account": user })).collect();
    let group =
        json!({ "Type": "Public", "Name": "g", "GroupId": "g", "Owner_Account": "alice", "MemberList": members });
    rest.ok("group_open_http_svc/create_group", group).await;
    provider.answer(|_| Reply::Status(503));
    for (n, user) in names.iter().enumerate() {
        send(&server, "alice", user, "for you", n as u32, json!({})).await;
    }
    for n in 0..5 {
        let message = json!({ "GroupId": "g", "From_Account": "alice", "Random": n, "MsgBody": text_body("for all") });
        rest.ok("group_open_http_svc/send_group_msg", message).await;
    }
    // The pairs' are being tried; the group's window is open, or just over.
    eventually("tries", WAIT, || async { if provider.of("").len() > 10 { Ok(()) } else { Err(()) } }).await;
    server.kill()?;
    server.restart()?;
    provider.answer(|_| Reply::ok());
    let want: BTreeMap<&str, [&str; 2]> = names.iter().map(|user| (*user, ["5 new messages", "for you"])).collect();
    until(&provider, "everybody was told of everything", |told| {
        let accepted = want.iter().all(|(user, texts)| texts.iter().all(|text| texts_of(told, user).contains(text)));
        accepted && told.len() >= 80
    })
    .await;
    let before: BTreeSet<String> = provider.of("").iter().map(|hook| hook.query["RequestID"].clone()).collect();
    eventually("nothing waits", Duration::from_secs(90), || async {
        let out = server.cli(&["inspect", "queue", "push_send", "--json"]).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if text.contains("request") || text.contains("payload_bytes") { Err(text) } else { Ok(()) }
    })
    .await;
    let after: BTreeSet<String> = provider.of("").iter().map(|hook| hook.query["RequestID"].clone()).collect();
    assert_eq!(before, after, "what came later were repeats");
    let told = told(&provider.of(""));
    assert_eq!(told.len(), 80, "each once, by the name of the request");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_provider_is_refused_where_it_is_not_allowed() -> Result<()> {
    use linnet_testkit::Options;
    let env = vec![("LINNET_PUSH__ALLOW_PRIVATE".to_owned(), "false".to_owned())];
    let server = Server::with(Options { env, ..Options::default() })?;
    let provider = Hooks::start().await;
    server.rest().import(&["alice", "bob"]).await;
    turn_on(&server, &provider, &["push.ttl_s=2", "push.allow_private=false"])?;
    phone(&server, "bob").await;
    send(&server, "alice", "bob", "x", 1, json!({})).await;
    let metrics = format!("{}/metrics", server.base());
    eventually("it is refused, then given up", Duration::from_secs(30), || async {
        let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
        let refused = text.contains("linnet_push_failed_total{reason=\"unroutable\"}");
        if refused && text.contains("linnet_push_dead_letters_total 1") { Ok(()) } else { Err(()) }
    })
    .await;
    assert!(provider.of("").is_empty());
    Ok(())
}
