//! What needs no server, and what is said when there is none.

use crate::sandbox::Sandbox;

const KNOWN: [&str; 4] = ["--app", "1600000001", "--key", "0123456789abcdef0123456789abcdef"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[tokio::test]
async fn a_sig_is_made_and_explained_with_a_key_alone() {
    let here = Sandbox::empty();
    let sig = here.run(&with(&["usersig", "alice", "--expire", "1h"], &KNOWN)).await.exits(0).out;
    assert_eq!(sig.lines().count(), 1, "the sig alone on stdout");
    let sig = sig.trim();
    let told = here.run(&with(&["usersig", "check", sig], &KNOWN)).await.exits(0).out;
    assert!(told.contains("user       alice") && told.contains("accepted"), "{told}");
    let other = ["--app", "1600000001", "--key", "another key"];
    let told = here.run(&with(&["usersig", "check", sig], &other)).await.exits(1).out;
    let verdict =
        "refused 70009: the UserSig was signed with another key. This app has 1 key (current anot…, previous none)";
    assert!(told.contains(verdict), "{told}");
    let told = here.run(&with(&["usersig", "check", "nonsense", "--json"], &KNOWN)).await.exits(1);
    assert_eq!(told.objects()[0]["code"], 70003);
}

#[tokio::test]
async fn bytes_of_a_file_are_attached() {
    let here = Sandbox::empty();
    std::fs::write(here.path().join("extra"), [0, 1, 2]).unwrap();
    let sig = here.run(&with(&["usersig", "alice", "--userbuf", "extra"], &KNOWN)).await.exits(0).out;
    let told = here.run(&with(&["usersig", "check", sig.trim(), "--json"], &KNOWN)).await.exits(0);
    assert_eq!(told.objects()[0]["userbuf_bytes"], 3);
}

#[tokio::test]
async fn nothing_there_is_3_and_nothing_known_is_2() {
    let here = Sandbox::empty();
    let nowhere = ["--server", "http://127.0.0.1:9", "--token", "t"];
    let args = with(&with(&["call", "openim/sendmsg"], &nowhere), &KNOWN);
    let done = here.run(&args).await.exits(3);
    assert_eq!(
        done.err.lines().filter(|line| !line.starts_with("curl")).count(),
        3,
        "what, why, what to do: {}",
        done.err
    );
    for command in [&["status"][..], &["app", "list"], &["tail"], &["inspect"], &["chat", "alice"]] {
        here.run(&with(&with(command, &nowhere), &KNOWN)).await.exits(3);
        let done = here.run(command).await.exits(2);
        assert!(done.err.contains("linnet dev"), "{}", done.err);
    }
    here.run(&["call"]).await.exits(2);
    here.run(&["no-such-command"]).await.exits(2);
    here.run(&with(&["usersig", "a\nb"], &KNOWN)).await.exits(2);
}

#[tokio::test]
async fn the_catalogue_is_listed_and_searched() {
    let here = Sandbox::empty();
    let all = here.run(&["call", "--list"]).await.exits(0).out;
    let some = here.run(&["call", "--list", "SENDMSG"]).await.exits(0).out;
    assert!(all.lines().count() > some.lines().count() && some.contains("openim/sendmsg"));
    assert!(some.lines().skip(1).all(|line| line.contains("sendmsg")));
    let object = here.run(&["call", "--list", "openim/sendmsg", "--json"]).await.exits(0).objects().remove(0);
    assert_eq!((object["command"].as_str(), object["rate_per_s"].as_u64()), (Some("openim/sendmsg"), Some(200)));
    here.run(&["call", "--list", "no such thing"]).await.exits(1);
}

#[tokio::test]
async fn a_configuration_is_checked_as_a_whole() {
    let here = Sandbox::empty();
    let file = here.path().join("bad.toml");
    std::fs::write(&file, "[server]\nsite = \"a b\"\nlistn = \"x\"\n[gateway]\nping = \"1h\"\n").unwrap();
    let done = here.run(&["config", "check", "bad.toml", "--json"]).await.exits(1);
    let mut keys: Vec<_> = done.objects().iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    assert_eq!(keys, ["gateway.ping", "server.listn", "server.site"], "all at once");
    assert!(done.err.contains("did you mean server.listen?"), "{}", done.err);
    std::fs::write(&file, "[server]\nsite = \"east\"\n").unwrap();
    here.run(&["config", "check", "bad.toml"]).await.exits(0);
    let shown = here.run(&["config", "show", "--config", "bad.toml", "--json"]).await.exits(0);
    let site = shown.objects().into_iter().find(|object| object["key"] == "server.site").unwrap();
    assert_eq!((site["value"].as_str(), site["from"].as_str()), (Some("east"), Some("bad.toml")));
    std::fs::write(here.path().join("empty.toml"), "").unwrap();
    let changed = here.run(&["config", "diff", "empty.toml", "bad.toml", "--json"]).await.exits(0).objects();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0]["key"].as_str(), changed[0]["change"].as_str()), (Some("server.site"), Some("restart")));
    let docs = here.run(&["config", "docs"]).await.exits(0).out;
    assert!(docs.contains("`listen`") && docs.starts_with("# Configuration"));
}

#[tokio::test]
async fn completions_and_manual_name_every_command() {
    let here = Sandbox::empty();
    let pages = [here.run(&["completions", "bash"]).await.exits(0).out, here.run(&["man"]).await.exits(0).out];
    for page in pages {
        for word in ["usersig", "webhooks", "rotate", "doctor"] {
            assert!(page.contains(word), "{word}");
        }
    }
}

#[tokio::test]
async fn doctor_looks_even_where_nothing_runs() {
    let here = Sandbox::empty();
    let done = here.run(&["doctor", "--json", "--server", "http://127.0.0.1:9", "--token", "t"]).await.exits(1);
    let found = done.objects();
    let verdict = |name: &str| {
        let finding = found.iter().find(|finding| finding["check"] == name);
        finding.map(|finding| finding["verdict"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(verdict("server").as_deref(), Some("fail"), "a server that was named must be there");
    for name in ["open files", "clock", "data folder", "fsync", "config"] {
        assert!(verdict(name).is_some(), "{name}");
    }
    let fixes = found.iter().filter(|finding| finding["verdict"] == "fail");
    assert!(fixes.into_iter().all(|finding| finding["fix"] != ""), "a fix for each failure");
}
