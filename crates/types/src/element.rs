//! Message elements, kept byte for byte.
//!
//! A message body is the JSON array of elements exactly as the sender wrote it (`traps.md` 6): unknown fields, key order
//! and number forms come out as they went in. The typed view beside it only checks shapes and answers questions.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::code;
use crate::refusal::Refusal;

/// Deepest nesting of a body: arrays and objects inside one another.
pub const MAX_DEPTH: usize = 32;

/// A checked array of message elements, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsgBody {
    json: Arc<str>,
}

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow, rename = "MsgType")]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, rename = "MsgContent")]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Text<'a> {
    #[serde(borrow)]
    text: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Custom<'a> {
    #[serde(borrow)]
    desc: Option<std::borrow::Cow<'a, str>>,
}

/// Required fields of each kind (`spec/rest-messages.md` §2): name and JSON type.
const KINDS: &[(&str, &[(&str, Type)])] = &[
    ("TIMTextElem", &[("Text", Type::String)]),
    ("TIMLocationElem", &[("Latitude", Type::Number), ("Longitude", Type::Number)]),
    ("TIMFaceElem", &[("Index", Type::Number)]),
    ("TIMCustomElem", &[]),
    ("TIMSoundElem", &[]),
    ("TIMImageElem", &[("ImageInfoArray", Type::Array)]),
    ("TIMFileElem", &[]),
    ("TIMVideoFileElem", &[]),
    ("TIMRelayElem", &[]),
    ("TIMStreamElem", &[("Chunks", Type::Array)]),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    String,
    Number,
    Array,
    Other,
}

impl MsgBody {
    /// Checks and keeps `json`, the text of a JSON array of elements.
    ///
    /// # Errors
    /// [`code::BODY_NOT_ARRAY`] when it is not an array, [`code::BODY_SHAPE`] when an element has a wrong shape or kind,
    /// when the array is empty, nests deeper than [`MAX_DEPTH`], or has two custom elements.
    pub fn parse(json: &str) -> Result<Self, Refusal> {
        if !json.trim_start().starts_with('[') {
            return Err(Refusal::new(code::BODY_NOT_ARRAY, "MsgBody must be an array"));
        }
        let bad = |why: &str| Refusal::new(code::BODY_SHAPE, why.to_owned());
        check_depth(json).map_err(|()| bad("MsgBody nests deeper than 32"))?;
        let elements: Vec<Element<'_>> =
            serde_json::from_str(json).map_err(|_| bad("MsgBody is not an array of elements"))?;
        if elements.is_empty() {
            return Err(bad("MsgBody is empty"));
        }
        let mut customs = 0;
        for element in &elements {
            let (Some(kind), Some(content)) = (&element.kind, element.content) else {
                return Err(bad("an element needs MsgType and MsgContent"));
            };
            let Some((_, required)) = KINDS.iter().find(|(name, _)| name == kind) else {
                return Err(bad("unknown MsgType"));
            };
            let found = field_types(content.get(), required).map_err(|_| bad("MsgContent must be an object"))?;
            if let Some((name, _)) =
                required.iter().zip(found).find(|((_, want), got)| Some(*want) != *got).map(|(r, _)| r)
            {
                return Err(bad(&format!("{kind} needs {name} of the documented type")));
            }
            customs += usize::from(kind == "TIMCustomElem");
        }
        if customs > 1 {
            return Err(bad("at most one TIMCustomElem"));
        }
        Ok(Self { json: json.into() })
    }

    /// Keeps a body that was checked when it was stored.
    #[must_use]
    pub fn trusted(json: impl Into<Arc<str>>) -> Self {
        Self { json: json.into() }
    }

    /// The array as received.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Bytes that count against the message size limit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// Never: a parsed body has at least one element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// A line for people: the texts and kinds, in order (`spec/rest-messages.md` §2, "Push text").
    #[must_use]
    pub fn preview(&self) -> String {
        let elements: Vec<Element<'_>> = serde_json::from_str(&self.json).unwrap_or_default();
        let mut out = String::new();
        for element in elements {
            let content = element.content.map_or("{}", RawValue::get);
            match element.kind.as_deref() {
                Some("TIMTextElem") => {
                    let text = serde_json::from_str::<Text<'_>>(content).ok().and_then(|t| t.text);
                    out.push_str(text.as_deref().unwrap_or_default());
                }
                Some("TIMCustomElem") => {
                    let desc = serde_json::from_str::<Custom<'_>>(content).ok().and_then(|c| c.desc);
                    out.push_str(desc.as_deref().unwrap_or_default());
                }
                Some("TIMLocationElem") => out.push_str("[Location]"),
                Some("TIMFaceElem") => out.push_str("[Face]"),
                Some("TIMSoundElem") => out.push_str("[Voice]"),
                Some("TIMImageElem") => out.push_str("[Image]"),
                Some("TIMFileElem") => out.push_str("[File]"),
                Some("TIMVideoFileElem") => out.push_str("[Video]"),
                Some("TIMRelayElem") => out.push_str("[Chat History]"),
                _ => {}
            }
        }
        out
    }
}

/// Refuses a document nested deeper than [`MAX_DEPTH`] before any parser recurses into it.
///
/// # Errors
/// When it is.
#[allow(clippy::result_unit_err)]
pub fn check_depth(json: &str) -> Result<(), ()> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(());
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The types of `wanted` fields in the object `json`, in that order; `None` where absent.
fn field_types(json: &str, wanted: &[(&str, Type)]) -> Result<Vec<Option<Type>>, serde_json::Error> {
    struct Fields<'w>(&'w [(&'w str, Type)]);
    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = Vec<Option<Type>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = vec![None; self.0.len()];
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                let kind = map.next_value_seed(TypeOf)?;
                if let Some(at) = self.0.iter().position(|(name, _)| *name == key) {
                    found[at] = Some(kind);
                }
            }
            Ok(found)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_map(Fields(wanted))
}

/// Consumes one value and says which type it was.
struct TypeOf;

impl<'de> DeserializeSeed<'de> for TypeOf {
    type Value = Type;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Type, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TypeOf {
    type Value = Type;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }
    fn visit_str<E>(self, _: &str) -> Result<Type, E> {
        Ok(Type::String)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Type, E> {
        Ok(Type::Number)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Type, E> {
        Ok(Type::Number)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Type, E> {
        Ok(Type::Number)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Type, E> {
        Ok(Type::Other)
    }
    fn visit_unit<E>(self) -> Result<Type, E> {
        Ok(Type::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Type, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Type::Array)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Type, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Type::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(json: &str) -> u32 {
        MsgBody::parse(json).expect_err(json).code
    }

    #[test]
    fn bytes_are_kept() {
        let json =
            r#"[ {"MsgType":"TIMCustomElem","MsgContent":{"Z":5.0,"A":12345678901234567890123,"Data":"\u0001"}} ]"#;
        assert_eq!(MsgBody::parse(json).expect("valid").as_json(), json);
    }

    #[test]
    fn shapes() {
        assert_eq!(refused("{}"), code::BODY_NOT_ARRAY);
        assert_eq!(refused("\"a\""), code::BODY_NOT_ARRAY);
        for bad in [
            "[]",
            "[1]",
            "[",
            r#"[{"MsgType":"TIMTextElem"}]"#,
            r#"[{"MsgType":"TIMTextElem","MsgContent":{}}]"#,
            r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":5}}]"#,
            r#"[{"MsgType":"TIMTextElem","MsgContent":[]}]"#,
            r#"[{"MsgType":"Nope","MsgContent":{}}]"#,
            r#"[{"MsgType":"TIMCustomElem","MsgContent":{}},{"MsgType":"TIMCustomElem","MsgContent":{}}]"#,
        ] {
            assert_eq!(refused(bad), code::BODY_SHAPE, "{bad}");
        }
        let deep = format!(
            r#"[{{"MsgType":"TIMCustomElem","MsgContent":{{"Data":{}1{}}}}}]"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        assert_eq!(refused(&deep), code::BODY_SHAPE);
    }

    #[test]
    fn preview_concatenates() {
        let json = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi "}},{"MsgType":"TIMFaceElem","MsgContent":{"Index":1}}]"#;
        assert_eq!(MsgBody::parse(json).expect("valid").preview(), "hi [Face]");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = MsgBody::parse(&text);
            let _ = MsgBody::parse(&format!("[{text}]"));
        }
    }
}
