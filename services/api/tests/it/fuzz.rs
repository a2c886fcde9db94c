//! Anything at all is answered by an envelope.

use axum::body::Body;
use axum::extract::Request;
use proptest::prelude::*;
use serde_json::Value;

use crate::rig::{Rig, url};

fn answered(uri: &str, method: &str, body: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let Ok(request) = Request::builder().method(method).uri(uri).body(Body::from(body)) else { return };
        let rig = Rig::new();
        let (parts, text) = rig.send(request).await;
        assert_eq!(parts.status, 200);
        let reply: Value = serde_json::from_str(&text).expect("JSON");
        assert!(reply["ErrorCode"].is_u64() && reply["ActionStatus"].is_string(), "{text}");
    });
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("alice")),
        Just(Value::from("g1")),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Names that commands read, mostly.
fn name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "To_Account",
        "From_Account",
        "GroupId",
        "MsgBody",
        "MsgRandom",
        "Random",
        "UserID",
        "MsgType",
        "MsgContent",
        "Text",
        "GroupIdList",
        "MemberList",
        "Member_Account",
        "Members_Account",
        "ResponseFilter",
        "ProfileItem",
        "Tag",
        "Value",
        "TagList",
        "Type",
        "Name",
        "MsgKey",
        "OfflinePushInfo",
        "SendMsgControl",
        "MuteTime",
        "ReqMsgNumber",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,10}"]
}

fn command() -> impl Strategy<Value = &'static str> {
    let names: Vec<_> = linnet_api::catalogue().iter().map(|entry| entry.name).collect();
    prop::sample::select(names)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_request_line(path in "[ -~]{0,60}", query in "[ -~]{0,120}", method in "(GET|POST|PUT|X)") {
        answered(&format!("/v4/{path}?{query}"), &method, b"{}".to_vec());
    }

    #[test]
    fn any_bytes(command in command(), body in prop::collection::vec(any::<u8>(), 0..400)) {
        answered(&url(command), "POST", body);
    }

    #[test]
    fn any_object(command in command(), fields in prop::collection::vec((name(), json()), 0..8)) {
        let body = Value::Object(fields.into_iter().collect());
        answered(&url(command), "POST", body.to_string().into_bytes());
    }
}
