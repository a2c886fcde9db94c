//! The two encodings of the client protocol, and pushes composed of items that were encoded once.

use bytes::{BufMut, Bytes, BytesMut};
use linnet_proto::client::{self, frame};
use linnet_types::{Refusal, code};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::ws::{self, Op};

/// Field numbers that composed pushes need: `Frame.push`, `Push.items`.
const FRAME_PUSH: u32 = 90;
const PUSH_ITEMS: u32 = 1;

/// How a connection encodes frames; its subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Json,
    Protobuf,
}

impl Wire {
    /// The subprotocol's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "linnet.v1+json",
            Self::Protobuf => "linnet.v1",
        }
    }

    /// The first subprotocol offered that we speak. Nothing offered: JSON, for consoles. Offers we do not know: `None`.
    pub(crate) fn choose<'a>(offers: impl Iterator<Item = &'a str>) -> Option<(Self, bool)> {
        let mut any = false;
        for offer in offers.flat_map(|line| line.split(',')).map(str::trim).filter(|offer| !offer.is_empty()) {
            any = true;
            for wire in [Self::Protobuf, Self::Json] {
                if offer == wire.name() {
                    return Some((wire, true));
                }
            }
        }
        (!any).then_some((Self::Json, false))
    }

    /// Reads one frame.
    pub(crate) fn decode(self, text: bool, payload: &[u8]) -> Result<client::Frame, Refusal> {
        let bad = |why: &str| Refusal::new(code::FRAME_BAD, why);
        match self {
            Self::Protobuf if text => Err(bad("linnet.v1 frames are binary")),
            Self::Protobuf => client::Frame::decode(payload).map_err(|_| bad("not a protobuf Frame")),
            Self::Json => {
                let text = std::str::from_utf8(payload).map_err(|_| bad("JSON must be UTF-8"))?;
                serde_json::from_str(text).map_err(|error| bad(&format!("not a JSON Frame: {error}")))
            }
        }
    }

    /// One frame, ready for the socket.
    pub(crate) fn encode(self, frame: &client::Frame) -> Bytes {
        match self {
            Self::Protobuf => ws::frame(Op::Binary, &frame.encode_to_vec()),
            Self::Json => match serde_json::to_vec(frame) {
                Ok(json) => ws::frame(Op::Text, &json),
                // A body that is not JSON: only possible for rows damaged in the store.
                Err(error) => {
                    tracing::error!(%error, "a frame could not be written as JSON");
                    let refusal = Refusal::new(code::OPENIM_INTERNAL, "the reply could not be encoded");
                    self.encode(&reply(frame.id, Err(refusal)))
                }
            },
        }
    }

    /// One item as it stands inside a push.
    pub(crate) fn item(self, item: &client::Item) -> Bytes {
        match self {
            Self::Protobuf => item.encode_to_vec().into(),
            Self::Json => serde_json::to_vec(item).unwrap_or_else(|_| b"{}".to_vec()).into(),
        }
    }

    /// The push frame of items encoded by [`Wire::item`], in order.
    pub(crate) fn push<'a>(self, items: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
        match self {
            Self::Json => {
                const HEAD: &[u8] = b"{\"push\":{\"items\":[";
                const TAIL: &[u8] = b"]}}";
                let length: usize = items.clone().map(|item| item.len() + 1).sum::<usize>().saturating_sub(1);
                let mut out = BytesMut::with_capacity(length + HEAD.len() + TAIL.len() + 10);
                ws::header(Op::Text, length + HEAD.len() + TAIL.len(), &mut out);
                out.extend_from_slice(HEAD);
                for (at, item) in items.enumerate() {
                    if at > 0 {
                        out.put_u8(b',');
                    }
                    out.extend_from_slice(item);
                }
                out.extend_from_slice(TAIL);
                out.freeze()
            }
            Self::Protobuf => {
                let one = |item: &Bytes| key_len(PUSH_ITEMS) + encoded_len_varint(item.len() as u64) + item.len();
                let length: usize = items.clone().map(one).sum();
                let whole = key_len(FRAME_PUSH) + encoded_len_varint(length as u64) + length;
                let mut out = BytesMut::with_capacity(whole + 10);
                ws::header(Op::Binary, whole, &mut out);
                encode_key(FRAME_PUSH, WireType::LengthDelimited, &mut out);
                encode_varint(length as u64, &mut out);
                for item in items {
                    encode_key(PUSH_ITEMS, WireType::LengthDelimited, &mut out);
                    encode_varint(item.len() as u64, &mut out);
                    out.extend_from_slice(item);
                }
                out.freeze()
            }
        }
    }
}

/// The frame that answers request `id`.
pub(crate) fn reply(id: u64, outcome: Result<frame::Body, Refusal>) -> client::Frame {
    let body = outcome.unwrap_or_else(|refusal| {
        frame::Body::Error(client::Error {
            code: refusal.code,
            info: refusal.info,
            retry_after_ms: refusal.retry_after_ms.unwrap_or_default(),
        })
    });
    client::Frame { id, body: Some(body) }
}

#[cfg(test)]
mod tests {
    use linnet_proto::client::{Advanced, Frame, Item, Message, Push, item};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..300), text: bool) {
            for wire in [Wire::Json, Wire::Protobuf] {
                if let Err(why) = wire.decode(text, &payload) {
                    prop_assert_eq!(why.code, code::FRAME_BAD);
                }
            }
        }

        #[test]
        fn any_json_is_a_frame_or_refused(
            json in r#"(\{|\[|\}|\]|"id"|"send"|"conv"|"body"|:|,|1|-1|1e9|null|"x"|true){0,40}"#,
            depth in 0_usize..20_000,
        ) {
            let _ = Wire::Json.decode(true, json.as_bytes());
            let deep = format!(r#"{{"id":1,"send":{{"conv":"C2C:b","body":{}"#, "[".repeat(depth));
            prop_assert!(Wire::Json.decode(true, deep.as_bytes()).is_err());
            let closed = format!("{deep}{}}}}}", "]".repeat(depth));
            prop_assert_eq!(Wire::Json.decode(true, closed.as_bytes()).is_ok(), depth > 0);
        }
    }

    fn items() -> Vec<Item> {
        let message = Message { seq: 3, from: "alice".into(), body: "[ 1 ]".into(), ..Message::default() };
        vec![
            Item { conv: "C2C:alice".into(), what: Some(item::What::Message(message)) },
            Item { conv: "GROUP:g".into(), what: Some(item::What::Advanced(Advanced { head: 9 })) },
        ]
    }

    #[test]
    fn a_composed_push_is_the_frame_encoded_whole() {
        for wire in [Wire::Json, Wire::Protobuf] {
            for count in 0..=2 {
                let items = items()[..count].to_vec();
                let encoded: Vec<_> = items.iter().map(|item| wire.item(item)).collect();
                let whole = Frame { id: 0, body: Some(frame::Body::Push(Push { items })) };
                let composed = wire.push(encoded.iter());
                let header = if composed.len() > 127 { 4 } else { 2 };
                assert_eq!(wire.decode(wire == Wire::Json, &composed[header..]), Ok(whole), "{wire:?} {count}");
            }
        }
    }

    #[test]
    fn subprotocols() {
        let choose = |offers: &[&'static str]| Wire::choose(offers.iter().copied()).map(|(wire, _)| wire);
        assert_eq!(choose(&[]), Some(Wire::Json));
        assert_eq!(choose(&["linnet.v1"]), Some(Wire::Protobuf));
        assert_eq!(choose(&["chat, linnet.v1+json", "linnet.v1"]), Some(Wire::Json));
        assert_eq!(choose(&["graphql-ws"]), None);
    }
}
