//! Samples for `linnet webhooks test`: one body a command, with the fields of `spec/webhooks.md`.

use serde_json::{Value, json};

/// Commands that can be tried, with a sample of each.
pub(crate) fn body(command: &str, now_ms: u64) -> Option<Value> {
    let message = json!([{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "a sample from linnet webhooks test" } }]);
    let c2c = json!({
        "From_Account": "alice", "To_Account": "bob", "MsgSeq": 1, "MsgRandom": 2, "MsgTime": now_ms / 1000,
        "MsgKey": format!("1_2_{}", now_ms / 1000), "OnlineOnlyFlag": 0, "MsgBody": message, "CloudCustomData": "",
        "EventTime": now_ms,
    });
    let group = json!({
        "GroupId": "sample", "Type": "Public", "From_Account": "alice", "Operator_Account": "alice", "Random": 2,
        "OnlineOnlyFlag": 0, "MsgBody": message, "CloudCustomData": "", "EventTime": now_ms,
    });
    let with = |mut base: Value, more: Value| {
        if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
            base.extend(more.clone());
        }
        base
    };
    Some(match command {
        "C2C.CallbackBeforeSendMsg" => c2c,
        "C2C.CallbackAfterSendMsg" => {
            with(c2c, json!({ "SendMsgResult": 0, "ErrorInfo": "send msg succeed", "UnreadMsgNum": 1 }))
        }
        "Group.CallbackBeforeSendMsg" => group,
        "Group.CallbackAfterSendMsg" => with(group, json!({ "MsgSeq": 1, "MsgTime": now_ms / 1000 })),
        "Group.CallbackSendMsgException" => with(group, json!({ "ErrorCode": 10023, "ErrorInfo": "sample" })),
        "Group.CallbackAfterNewMemberJoin" => json!({
            "GroupId": "sample", "Type": "Public", "JoinType": "Apply", "Operator_Account": "alice",
            "NewMemberList": [{ "Member_Account": "bob" }], "EventTime": now_ms,
        }),
        "Group.CallbackAfterMemberExit" => json!({
            "GroupId": "sample", "Type": "Public", "ExitType": "Quit", "Operator_Account": "bob",
            "ExitMemberList": [{ "Member_Account": "bob" }], "EventTime": now_ms,
        }),
        "State.StateChange" => json!({
            "EventTime": now_ms, "Info": { "To_Account": "alice", "Action": "Login", "Reason": "Register" },
        }),
        _ => return None,
    })
}

/// The commands [`body`] knows.
pub(crate) const KNOWN: &[&str] = &[
    "C2C.CallbackBeforeSendMsg",
    "C2C.CallbackAfterSendMsg",
    "Group.CallbackBeforeSendMsg",
    "Group.CallbackAfterSendMsg",
    "Group.CallbackSendMsgException",
    "Group.CallbackAfterNewMemberJoin",
    "Group.CallbackAfterMemberExit",
    "State.StateChange",
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_known_command_has_a_sample() {
        assert!(super::KNOWN.iter().all(|command| super::body(command, 0).is_some_and(|body| body.is_object())));
    }
}
