//! `OfflinePushInfo` (`spec/rest-messages.md` §2.2) as far as planning reads it; providers get all of it as it came.

use bytes::Bytes;
use linnet_proto::msg::Message;
use linnet_types::MsgBody;
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest title and text a plan keeps, in characters; vendors cut further.
const TITLE: usize = 200;
const TEXT: usize = 1_000;

/// The settings that decide here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// Never pushed.
    pub(crate) never: bool,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) ext: String,
    /// Leaves the number on the icon as it is.
    pub(crate) no_badge: bool,
    /// Pushed even without a text: a call, or something for the app alone.
    pub(crate) textless: bool,
}

/// Reads settings in the spelling of REST or of client libraries; what is not understood is left to the provider.
pub(crate) fn read(json: &[u8]) -> Info {
    let Ok(Value::Object(fields)) = serde_json::from_slice(json) else { return Info::default() };
    let text = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| fields.get(*name)?.as_str());
        found.unwrap_or_default().to_owned()
    };
    let number = |within: &Value, name: &str| within.get(name).and_then(Value::as_u64);
    let object = |names: [&str; 2]| names.iter().find_map(|name| fields.get(*name)).cloned().unwrap_or(Value::Null);
    let apns = object(["ApnsInfo", "apnsInfo"]);
    let yes = |within: &Value, name: &str| within.get(name).and_then(Value::as_bool) == Some(true);
    let all = Value::Object(fields.clone());
    Info {
        never: number(&all, "PushFlag") == Some(1) || yes(&all, "disablePush"),
        title: cut(&text(["Title", "title"]), TITLE),
        text: cut(&text(["Desc", "description"]), TEXT),
        ext: text(["Ext", "extension"]),
        no_badge: number(&apns, "BadgeMode") == Some(1) || yes(&apns, "ignoreIOSBadge") || yes(&all, "ignoreIOSBadge"),
        textless: number(&apns, "ContentAvailable") == Some(1) || number(&apns, "IsVoipPush") == Some(1),
    }
}

/// What a message says on a lock screen, and the settings it goes with. `None`: it is not pushed.
pub(crate) fn of(message: &Message) -> Option<(String, Bytes)> {
    let own = !message.offline_push.is_empty();
    let settings = if own { message.offline_push.clone() } else { of_custom(&message.body) };
    let info = read(&settings);
    if info.never {
        return None;
    }
    let body = || std::str::from_utf8(&message.body).map(|text| MsgBody::trusted(text).preview()).unwrap_or_default();
    let text = if info.text.is_empty() { cut(&body(), TEXT) } else { info.text };
    (!text.is_empty() || info.textless).then_some((text, settings))
}

#[derive(Deserialize)]
struct Element {
    #[serde(rename = "MsgType")]
    kind: String,
    #[serde(rename = "MsgContent", default)]
    content: Value,
}

/// The push fields of a custom element, which count when the message has no settings of its own.
fn of_custom(body: &[u8]) -> Bytes {
    let elements: Vec<Element> = serde_json::from_slice(body).unwrap_or_default();
    let Some(custom) = elements.iter().find(|element| element.kind == "TIMCustomElem") else { return Bytes::new() };
    let field = |name: &str| custom.content.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (ext, sound) = (field("Ext"), field("Sound"));
    if ext.is_none() && sound.is_none() {
        return Bytes::new();
    }
    let mut settings = serde_json::Map::new();
    if let Some(ext) = ext {
        settings.insert("Ext".to_owned(), json!(ext));
    }
    if let Some(sound) = sound {
        settings.insert("ApnsInfo".to_owned(), json!({ "Sound": sound }));
    }
    Value::Object(settings).to_string().into()
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str, push: &str) -> Message {
        Message {
            body: Bytes::copy_from_slice(body.as_bytes()),
            offline_push: Bytes::copy_from_slice(push.as_bytes()),
            ..Message::default()
        }
    }

    const TEXT_BODY: &str =
        r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi "}},{"MsgType":"TIMFaceElem","MsgContent":{"Index":1}}]"#;

    #[test]
    fn the_text_is_the_settings_or_what_the_elements_say() {
        assert_eq!(of(&message(TEXT_BODY, "")).expect("a push").0, "hi [Face]");
        let (text, settings) = of(&message(TEXT_BODY, r#"{"Desc":"look","Ext":"{}"}"#)).expect("a push");
        assert_eq!((text.as_str(), &settings[..]), ("look", &br#"{"Desc":"look","Ext":"{}"}"#[..]));
    }

    #[test]
    fn both_spellings_turn_pushes_off() {
        for off in [r#"{"PushFlag":1}"#, r#"{"disablePush":true}"#] {
            assert_eq!(of(&message(TEXT_BODY, off)), None, "{off}");
        }
        assert!(read(br#"{"ApnsInfo":{"BadgeMode":1}}"#).no_badge);
        assert!(read(br#"{"apnsInfo":{"ignoreIOSBadge":true}}"#).no_badge);
    }

    #[test]
    fn a_custom_element_without_a_description_is_silent_and_with_one_brings_its_settings() {
        let custom = |content: &str| format!(r#"[{{"MsgType":"TIMCustomElem","MsgContent":{content}}}]"#);
        assert_eq!(of(&message(&custom(r#"{"Data":"x","Ext":"e"}"#), "")), None);
        let (text, settings) =
            of(&message(&custom(r#"{"Data":"x","Desc":"d","Ext":"e","Sound":"s.caf"}"#), "")).expect("a push");
        assert_eq!(text, "d");
        assert_eq!(&settings[..], br#"{"ApnsInfo":{"Sound":"s.caf"},"Ext":"e"}"#);
        let voip = r#"{"ApnsInfo":{"IsVoipPush":1}}"#;
        assert_eq!(of(&message(&custom(r#"{"Data":"x"}"#), voip)).expect("a push").0, "");
    }

    #[test]
    fn odd_settings_do_not_stop_a_push() {
        for odd in ["[]", "{", r#"{"Title":5,"PushFlag":"1"}"#] {
            assert!(of(&message(TEXT_BODY, odd)).is_some(), "{odd}");
        }
        let long = "x".repeat(5_000);
        assert_eq!(cut(&long, TEXT).len(), TEXT + 3);
    }
}
