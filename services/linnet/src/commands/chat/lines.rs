//! One event of a chat, as an object for scripts and a line for people.

use std::time::Duration;

use linnet_client::proto;
use linnet_types::UnixMillis;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::commands::text::clock;

/// One event.
pub(super) struct Line {
    pub(super) object: Value,
    pub(super) shown: String,
    /// What `--expect` looks into.
    pub(super) text: String,
}

impl Line {
    fn new(object: Value, shown: String) -> Self {
        Self { object, shown, text: String::new() }
    }
}

pub(super) fn ready(user: &str, conv: Option<&str>, now: UnixMillis) -> Line {
    let object = json!({ "event": "ready", "user": user, "conv": conv, "time_ms": now.0 });
    let place = conv.map_or_else(String::new, |conv| format!(" in {conv}"));
    Line::new(object, format!("{} {user} is ready{place}", clock(now.0)))
}

pub(super) fn sent(conv: &str, from: &str, text: &str, done: &proto::Sent, delay: Duration) -> Line {
    let delay_ms = millis(delay);
    let mut object = json!({
        "event": "sent", "conv": conv, "from": from, "seq": done.seq, "text": text, "outcome": done.outcome,
        "delay_ms": delay_ms, "time_ms": done.time_ms,
    });
    if let Some(fields) = object.as_object_mut() {
        put(fields, "msg_key", &done.msg_key);
        put(fields, "drop_reason", &done.drop_reason);
    }
    let seq = if done.seq > 0 { format!(" seq {}", done.seq) } else { String::new() };
    let why = if done.drop_reason.is_empty() { String::new() } else { format!(" ({})", done.drop_reason) };
    Line::new(object, format!("{} you: {text}  [{}{why}{seq} {delay_ms:.1} ms]", clock(done.time_ms), done.outcome))
}

pub(super) fn refused(conv: &str, from: &str, text: &str, why: &proto::Error, delay: Duration) -> Line {
    let object = json!({
        "event": "sent", "conv": conv, "from": from, "seq": 0, "text": text, "outcome": "refused", "code": why.code,
        "info": why.info, "delay_ms": millis(delay),
    });
    Line::new(object, format!("you: {text}  [refused {}: {}]", why.code, why.info))
}

pub(super) fn message(conv: &str, one: &proto::Message, history: bool, now: UnixMillis) -> Line {
    let text = text_of(&one.body);
    let mut object =
        json!({ "event": "message", "conv": conv, "from": one.from, "seq": one.seq, "time_ms": one.time_ms });
    if let Some(fields) = object.as_object_mut() {
        match &text {
            Some(text) => drop(fields.insert("text".to_owned(), json!(text))),
            None => drop(fields.insert("elements".to_owned(), elements(&one.body))),
        }
        if !history && !one.replayed {
            fields.insert("delay_ms".to_owned(), json!(now.0.saturating_sub(one.time_ms)));
        }
        put(fields, "kind", &one.kind);
        put(fields, "msg_key", &one.msg_key);
        put(fields, "revoker", &one.revoker);
        for (name, on) in
            [("history", history || one.replayed), ("revoked", one.revoked), ("online_only", one.online_only)]
        {
            if on {
                fields.insert(name.to_owned(), json!(true));
            }
        }
    }
    // What is not text can be expected by its JSON.
    let seen = text.unwrap_or_else(|| String::from_utf8_lossy(&one.body).into_owned());
    let shown = if one.revoked { "(revoked)".to_owned() } else { one_line(&seen) };
    let seq = if one.seq > 0 { format!("  [{conv} seq {}]", one.seq) } else { format!("  [{conv}]") };
    Line { object, shown: format!("{} {}: {shown}{seq}", clock(one.time_ms), one.from), text: seen }
}

pub(super) fn recalled(conv: &str, recall: &proto::Recall) -> Vec<Line> {
    let lines = (0..recall.seqs.len().max(recall.msg_keys.len())).map(|i| {
        let seq = recall.seqs.get(i).copied().unwrap_or(0);
        let mut object = json!({ "event": "revoked", "conv": conv, "from": recall.operator, "seq": seq });
        if let Some(fields) = object.as_object_mut() {
            put(fields, "msg_key", recall.msg_keys.get(i).map_or("", String::as_str));
            put(fields, "reason", &recall.reason);
        }
        Line::new(
            object,
            format!("{} revoked seq {seq} of {conv} {}", recall.operator, recall.reason).trim_end().to_owned(),
        )
    });
    lines.collect()
}

pub(super) fn kicked(why: &proto::Kicked) -> Line {
    let object = json!({ "event": "kicked", "reason": why.reason, "by_platform": why.by_platform });
    Line::new(object, format!("kicked: {} {}", why.reason, why.by_platform).trim_end().to_owned())
}

/// Out of a live room.
pub(super) fn left(conv: &str, why: &str) -> Line {
    Line::new(json!({ "event": "kicked", "conv": conv, "reason": why }), format!("out of {conv}: {why}"))
}

pub(super) fn gap(conv: &str, seq: u64, why: &str) -> Line {
    let object = json!({ "event": "gap", "conv": conv, "seq": seq, "why": why });
    let place = if conv.is_empty() { String::new() } else { format!(" in {conv}") };
    Line::new(object, format!("gap{place}: {why}"))
}

fn put(fields: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(name.to_owned(), json!(text));
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The text of a message that is nothing but text.
fn text_of(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Element<'a> {
        #[serde(borrow)]
        msg_type: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        msg_content: &'a RawValue,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Text {
        text: String,
    }
    let elements: Vec<Element<'_>> = serde_json::from_slice(body).ok()?;
    let parts = elements.iter().map(|element| {
        let text = element.msg_type == "TIMTextElem";
        text.then(|| serde_json::from_str::<Text>(element.msg_content.get()).ok()).flatten().map(|text| text.text)
    });
    let parts: Option<Vec<_>> = parts.collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.concat())
}

fn elements(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!([]))
}

/// Text of others must not move a terminal's cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(body: &str) -> proto::Message {
        proto::Message {
            seq: 3,
            from: "bob".to_owned(),
            time_ms: 1000,
            body: body.to_owned().into(),
            ..Default::default()
        }
    }

    #[test]
    fn text_is_text_and_the_rest_are_elements() {
        let text = one(r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi \u001b[2J"}}]"#);
        let line = message("C2C:bob", &text, false, UnixMillis(1004));
        assert_eq!(line.object["text"], "hi \u{1b}[2J");
        assert_eq!((line.object["delay_ms"].as_u64(), line.object["seq"].as_u64()), (Some(4), Some(3)));
        assert!(!line.shown.contains('\u{1b}'), "control characters do not reach the terminal");
        let custom = one(r#"[{"MsgType":"TIMCustomElem","MsgContent":{"Data":"gift"}}]"#);
        let line = message("C2C:bob", &custom, true, UnixMillis(1004));
        assert_eq!(line.object["elements"][0]["MsgContent"]["Data"], "gift");
        assert!(line.object.get("delay_ms").is_none() && line.object["history"] == true);
        assert!(line.text.contains("gift"), "it can be expected");
    }

    #[test]
    fn a_shaped_send_says_why() {
        let done = proto::Sent { outcome: "shaped".to_owned(), drop_reason: "rate".to_owned(), ..Default::default() };
        let line = sent("GROUP:g", "alice", "hi", &done, Duration::from_micros(1234));
        assert_eq!(line.object["delay_ms"], 1.2);
        assert!(line.shown.contains("[shaped (rate) 1.2 ms]"), "{}", line.shown);
    }
}
