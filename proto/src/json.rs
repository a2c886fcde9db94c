//! The JSON form of the client protocol: absent means default, and message bodies are embedded as they are.

/// Whether a field holds its type's default, and so is left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes that hold JSON text, written into the document unchanged.
pub(crate) mod embedded {
    use bytes::Bytes;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::value::RawValue;

    pub(crate) fn serialize<S: Serializer>(json: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let text = std::str::from_utf8(json).map_err(|_| S::Error::custom("embedded JSON is not UTF-8"))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer).map_err(D::Error::custom)?;
        if raw.get() == "null" {
            return Ok(Bytes::new());
        }
        Ok(Bytes::from(String::from(Box::<str>::from(raw))))
    }
}

#[cfg(test)]
mod tests {
    use crate::client::{Frame, Item, Message, Push, Send, frame, item};

    fn round_trip(text: &str) -> Frame {
        let frame: Frame = serde_json::from_str(text).expect(text);
        assert_eq!(serde_json::to_string(&frame).expect("plain data"), text);
        frame
    }

    #[test]
    fn a_body_is_embedded_byte_for_byte() {
        let body = r#"[ {"MsgType":"TIMCustomElem","MsgContent":{"Z":5.0,"A":12345678901234567890123}} ]"#;
        let frame = round_trip(&format!(r#"{{"id":7,"send":{{"conv":"C2C:bob","random":9,"body":{body}}}}}"#));
        let Some(frame::Body::Send(Send { body: kept, .. })) = frame.body else { panic!("not a send") };
        assert_eq!(kept, body.as_bytes());
    }

    #[test]
    fn pushes_nest() {
        let message = Message { seq: 3, from: "alice".into(), body: "[1 ]".into(), ..Message::default() };
        let item = Item { conv: "C2C:alice".into(), what: Some(item::What::Message(message)) };
        let frame = Frame { id: 0, body: Some(frame::Body::Push(Push { items: vec![item] })) };
        let text = serde_json::to_string(&frame).expect("plain data");
        assert_eq!(text, r#"{"push":{"items":[{"conv":"C2C:alice","message":{"seq":3,"from":"alice","body":[1 ]}}]}}"#);
        assert_eq!(serde_json::from_str::<Frame>(&text).expect("ours"), frame);
    }

    #[test]
    fn odd_frames() {
        assert!(serde_json::from_str::<Frame>(r#"{"id":1,"ping":{},"sync":{}}"#).is_err(), "two kinds");
        assert!(serde_json::from_str::<Frame>("[]").is_err());
        assert!(serde_json::from_str::<Frame>(r#"{"id":-1,"ping":{}}"#).is_err());
        let unknown: Frame =
            serde_json::from_str(r#"{"id":1,"fly":{"x":[1]}}"#).expect("unknown kinds are seen by the server");
        assert!(unknown.body.is_none());
    }
}
