//! Bodies: what is no JSON object, what is too large, slow or deep, wrong types in every field, bytes kept.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use linnet_types::code;
use serde_json::Value;

use crate::golden::{ODD_BODY, commands, requests};
use crate::rig::{Rig, url};

const CHECK: &str = "im_open_login_svc/account_check";

/// Calls that change nothing.
const READS: [&str; 14] = [
    "Groups/OnlineCount",
    "Accounts/Lookup",
    "Sessions/Status",
    "Messages/History",
    "Messages/Sync",
    "Messages/UnreadC2c",
    "Groups/Info",
    "Groups/Members",
    "Groups/Roles",
    "Groups/Muted",
    "Groups/Banned",
    "Groups/Joined",
    "Groups/List",
    "Groups/Authorize",
];

#[tokio::test(start_paused = true)]
async fn what_is_no_object_is_refused_by_every_command() {
    let rig = Rig::new();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(33), "]".repeat(33));
    let very_deep = format!("{{\"a\":{}", "[".repeat(100_000));
    for command in commands() {
        let bodies: [&[u8]; 12] = [
            b"",
            b"  \n",
            b"[]",
            b"1",
            b"null",
            b"\"{}\"",
            b"{",
            b"{}{}",
            b"{\"a\":1,}",
            b"{\"a\":\"\xff\"}",
            deep.as_bytes(),
            very_deep.as_bytes(),
        ];
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            // Rates are counted before the body; the slowest command has one call a second.
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(rig.code(command, body.to_vec()).await, u64::from(code::NOT_JSON), "{command} {shown}");
        }
        let calls = rig.fakes.take_calls();
        assert!(calls.iter().all(|call| call.starts_with("Accounts/Lookup")), "{command} {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_byte_order_and_white_space_are_passed_over() {
    let rig = Rig::new();
    let body = "\u{feff} \n{\"CheckItem\":[{\"UserID\":\"alice\"}]}\n";
    assert_eq!(rig.code(CHECK, body).await, 0);
}

#[tokio::test(start_paused = true)]
async fn large_bodies_are_refused_without_being_kept() {
    let rig = Rig::new();
    let fits = format!("{{\"CheckItem\":[{{\"UserID\":\"alice\"}}],\"x\":\"{}\"}}", "x".repeat(1024 * 1024 - 100));
    assert_eq!(rig.code(CHECK, fits).await, 0, "unknown fields may be long");
    for megabytes in [2, 10, 30] {
        let chunk = "x".repeat(1024 * 1024);
        let stream = futures::stream::iter((0..megabytes).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
        assert_eq!(rig.code(CHECK, Body::from_stream(stream)).await, u64::from(code::TIMEOUT), "{megabytes} MB");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_or_breaks_off_is_given_up() {
    let rig = Rig::new();
    let never = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let begun = tokio::time::Instant::now();
    assert_eq!(rig.code(CHECK, never).await, u64::from(code::TIMEOUT));
    assert_eq!(begun.elapsed().as_secs(), 10);
    let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    assert_eq!(rig.code(CHECK, Body::from_stream(broken)).await, u64::from(code::TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_does_not_wait_for_the_body_for_ever() {
    let rig = Rig::new();
    let never = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let begun = tokio::time::Instant::now();
    let request = Request::post("/v4/x/y").body(never).expect("a request");
    assert_eq!(rig.code_of(request).await, u64::from(code::UNKNOWN_COMMAND));
    assert!(begun.elapsed() <= Duration::from_secs(5));
}

/// Every field of every documented request, by its path, replaced by values of every type, removed, or renamed: a clear
/// code, never an internal one, and whoever is refused has changed nothing.
#[tokio::test(start_paused = true)]
async fn wrong_types_in_every_field_are_refused_and_change_nothing() {
    let internal = [70500_u64, 91000, 40006, 50004, 10002, 60013];
    let wrong: Vec<Value> =
        ["null", "true", "-1", "5.5", "1e300", "\"\"", "\"x\"", "\"\\u0000\"", "[]", "[[1]]", "{}", "[null]"]
            .iter()
            .map(|text| serde_json::from_str(text).expect("JSON"))
            .collect();
    let rig = Rig::new();
    let mut tried = 0;
    for command in commands() {
        // The first ones have every field; the others show single refusals.
        for request in requests(command).into_iter().take(2) {
            let request: Value = serde_json::from_str(&request).expect("JSON");
            // The lists made to be too long say nothing more here.
            for at in paths(&request).into_iter().filter(|at| !at.contains("/1/")).take(40) {
                for value in &wrong {
                    let mut body = request.clone();
                    *body.pointer_mut(&at).expect("a path") = value.clone();
                    tokio::time::advance(Duration::from_secs(2)).await;
                    rig.fakes.take_calls();
                    let reply = rig.call(command, body.to_string()).await;
                    let code = reply["ErrorCode"].as_u64().expect("a code");
                    assert!(!internal.contains(&code), "{command} {at} = {value}: {reply}");
                    let calls = rig.fakes.take_calls();
                    let changed = calls.iter().find(|call| !READS.iter().any(|read| call.starts_with(read)));
                    // A service's own refusal comes after it was asked.
                    let asked =
                        ["20003", "90012", "10010", "10017", "70107", "20022"].contains(&code.to_string().as_str());
                    assert!(
                        code == 0 || asked || changed.is_none(),
                        "{command} {at} = {value}: {reply} after {changed:?}"
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 3_000, "{tried}");
}

fn paths(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().take(2).enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        found.push(format!("/{key}"));
        found.extend(paths(child).into_iter().map(|rest| format!("/{key}{rest}")));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn unknown_and_null_fields_are_passed_over() {
    let rig = Rig::new();
    for command in commands() {
        let mut body: Value = serde_json::from_str(&requests(command)[0]).expect("JSON");
        for (name, value) in [("Type2", Value::Null), ("x-unknown", serde_json::json!([{"a": 1}]))] {
            body[name] = value;
        }
        assert_eq!(rig.code(command, body.to_string()).await, 0, "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn elements_leave_as_they_came() {
    let rig = Rig::new();
    let elements = r#"[ {"MsgType":"TIMCustomElem","MsgContent":{"Data":"\u0000\/é\ud83d\ude00","Ext":5.0,"n":-0,"big":123456789012345678901234567890}} ]"#;
    let send = format!(r#"{{"To_Account":"bob","MsgRandom":1,"MsgBody":{elements}}}"#);
    assert_eq!(rig.code("openim/sendmsg", send).await, 0);
    let send = format!(r#"{{"GroupId":"g1","Random":1,"MsgBody":{elements}}}"#);
    assert_eq!(rig.code("group_open_http_svc/send_group_msg", send).await, 0);
    let shown = elements.escape_debug().to_string();
    let inner: Vec<_> = rig.fakes.take_calls().into_iter().filter(|call| call.contains("TIMCustomElem")).collect();
    assert_eq!(inner.len(), 2);
    for call in inner {
        let body = call.split("body: b\"").nth(1).expect("a body");
        let bytes: Vec<u8> = elements.bytes().flat_map(std::ascii::escape_default).collect();
        assert!(body.starts_with(std::str::from_utf8(&bytes).expect("ASCII")), "{body} for {shown}");
    }
    let history = r#"{"Operator_Account":"alice","Peer_Account":"bob","MaxCnt":1,"MinTime":0,"MaxTime":1}"#;
    let simple = r#"{"GroupId":"g1","ReqMsgNumber":1}"#;
    for (command, body) in [("openim/admin_getroammsg", history), ("group_open_http_svc/group_msg_get_simple", simple)]
    {
        let request = Request::post(url(command)).body(Body::from(body)).expect("a request");
        let (_, reply) = rig.send(request).await;
        assert!(reply.contains(&format!("\"MsgBody\":{ODD_BODY}")), "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_may_have_12288_bytes_and_each_family_has_its_code_for_more() {
    let rig = Rig::new();
    let cases = [
        ("openim/sendmsg", r#""To_Account":"bob","MsgRandom":1"#, code::REQUEST_TOO_LONG),
        ("openim/batchsendmsg", r#""To_Account":["bob"],"MsgRandom":1"#, code::BATCH_TOO_LONG),
        ("group_open_http_svc/send_group_msg", r#""GroupId":"g1","Random":1"#, code::MSG_TOO_LONG),
    ];
    for (command, fields, over) in cases {
        for (bytes, want) in [(12_288, code::OK), (12_289, over)] {
            let frame = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":""}}]"#;
            let text = "x".repeat(bytes - frame.len());
            let elements = frame.replace(r#""Text":"""#, &format!(r#""Text":"{text}""#));
            assert_eq!(elements.len(), bytes);
            let body = format!(r#"{{{fields},"MsgBody":{elements}}}"#);
            assert_eq!(rig.code(command, body).await, u64::from(want), "{command} {bytes}");
        }
    }
}
