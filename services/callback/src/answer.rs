//! What an app's server answered, and what that means (`spec/webhooks.md` §1.4-1.6).

pub(crate) use linnet_outbound::Reason;
use linnet_proto::callback::BeforeReply;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Largest answer read; more is a bad body.
pub(crate) const ANSWER_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(default)]
    action_status: Option<String>,
    #[serde(default)]
    error_code: Option<i64>,
    #[serde(default)]
    error_info: Option<String>,
    #[serde(borrow, default)]
    msg_body: Option<&'a RawValue>,
    #[serde(default)]
    cloud_custom_data: Option<String>,
    #[serde(rename = "RefusedMembers_Account", default)]
    refused_members: Option<Vec<String>>,
}

/// Reads an answer with status 200.
pub(crate) fn read(body: &[u8]) -> Result<BeforeReply, Reason> {
    let text = std::str::from_utf8(body).map_err(|_| Reason::BadBody)?;
    linnet_types::element::check_depth(text).map_err(|()| Reason::BadBody)?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| Reason::BadBody)?;
    let code = envelope.error_code.ok_or(Reason::BadBody)?;
    let failed = envelope.action_status.as_deref() == Some("FAIL");
    if failed && code == 0 {
        return Err(Reason::BadBody);
    }
    // Outside every listed value: a refusal.
    let decision = u32::try_from(code).unwrap_or(1);
    let rewritten = envelope.msg_body.map(RawValue::get).filter(|json| *json != "null" && !is_empty_array(json));
    Ok(BeforeReply {
        decision,
        info: envelope.error_info.unwrap_or_default(),
        msg_body: rewritten.map(str::to_owned).unwrap_or_default().into(),
        cloud_custom_data: envelope.cloud_custom_data,
        refused_members: envelope.refused_members.unwrap_or_default(),
        asked: true,
        ..BeforeReply::default()
    })
}

fn is_empty_array(json: &str) -> bool {
    json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|inside| inside.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_real_and_odd_servers() {
        let decision = |body: &str| read(body.as_bytes()).map(|reply| reply.decision);
        assert_eq!(decision(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#), Ok(0));
        assert_eq!(decision(r#"{"ActionStatus":"FAIL","ErrorCode":1,"ErrorInfo":"no"}"#), Ok(1));
        assert_eq!(decision(r#"{"ErrorCode":10150,"Extra":{"a":[1]}}"#), Ok(10_150));
        assert_eq!(decision(r#"{"ErrorCode":-5}"#), Ok(1));
        for bad in
            ["", "<html>", "[]", "{}", r#"{"ActionStatus":"OK"}"#, r#"{"ActionStatus":"FAIL","ErrorCode":0}"#, "\u{ff}"]
        {
            assert_eq!(decision(bad), Err(Reason::BadBody), "{bad}");
        }
        assert_eq!(read(b"\xff\xfe").map(|r| r.decision), Err(Reason::BadBody));
    }

    #[test]
    fn a_rewrite_keeps_its_bytes() {
        let body = r#"{"ErrorCode":0,"MsgBody":[ {"MsgType":"TIMTextElem","MsgContent":{"Text":"x","n":5.0}} ],"CloudCustomData":"c"}"#;
        let reply = read(body.as_bytes()).expect("an answer");
        assert_eq!(reply.msg_body, r#"[ {"MsgType":"TIMTextElem","MsgContent":{"Text":"x","n":5.0}} ]"#.as_bytes());
        assert_eq!(reply.cloud_custom_data.as_deref(), Some("c"));
        let empty = read(br#"{"ErrorCode":0,"MsgBody":[ ]}"#).expect("an answer");
        assert!(empty.msg_body.is_empty(), "an empty array is no rewrite");
    }
}
