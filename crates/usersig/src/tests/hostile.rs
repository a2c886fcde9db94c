//! Inputs made to break the decoder, or to pass with something that was not signed.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use super::*;

fn pack(bytes: &[u8]) -> String {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(bytes).unwrap();
    STANDARD.encode(zlib.finish().unwrap()).replace('+', "*").replace('/', "-").replace('=', "_")
}

/// A genuine sig's JSON, for tampering.
fn genuine() -> Value {
    json!({
        "TLS.ver": "2.0", "TLS.identifier": "administrator", "TLS.sdkappid": APP.0, "TLS.expire": 604_800,
        "TLS.time": TIME_S, "TLS.sig": "iECP5gtSH6gq7Xt4w0O7YDVIq2SuzGACrugA2qfsGEE=",
    })
}

fn with(field: &str, value: Value) -> String {
    let mut json = genuine();
    json[field] = value;
    pack(json.to_string().as_bytes())
}

fn code_of(sig: &str) -> u32 {
    refused(sig, &at(TIME_S, "administrator"))
}

#[test]
fn numbers_as_text_unknown_keys_and_escapes_are_read() {
    let mut json = genuine();
    json["TLS.expire"] = json!("604800");
    json["TLS.sdkappid"] = json!("1400000001");
    json["extra"] = json!([1, { "a": null }]);
    json["TLS.userbuf"] = Value::Null;
    let escaped = json.to_string().replace("administrator", "\\u0061dministrator");
    assert!(check(&pack(escaped.as_bytes()), &at(TIME_S, "administrator")).is_ok());
    let unpadded = pack(genuine().to_string().as_bytes()).replace('_', "");
    assert!(check(&unpadded, &at(TIME_S, "administrator")).is_ok());
}

#[test]
fn missing_fields_and_wrong_types_are_70005() {
    for field in ["TLS.ver", "TLS.identifier", "TLS.sdkappid", "TLS.expire", "TLS.time", "TLS.sig"] {
        let mut json = genuine();
        json.as_object_mut().unwrap().remove(field);
        assert_eq!(code_of(&pack(json.to_string().as_bytes())), code::SIG_INVALID, "{field} missing");
        for value in [Value::Null, json!([]), json!({}), json!(true)] {
            assert_eq!(code_of(&with(field, value)), code::SIG_INVALID, "{field} of a wrong type");
        }
    }
    for (field, value) in [
        ("TLS.ver", json!("1.0")),
        ("TLS.ver", json!(2.0)),
        ("TLS.sdkappid", json!(-1)),
        ("TLS.sdkappid", json!(1.5)),
        ("TLS.sdkappid", json!(1_u64 << 40)),
        ("TLS.time", json!("1e9")),
        ("TLS.time", json!("")),
        ("TLS.expire", json!("99999999999999999999999")),
        ("TLS.userbuf", json!(5)),
        ("TLS.userbuf", json!("not base64!")),
    ] {
        assert_eq!(code_of(&with(field, value.clone())), code::SIG_INVALID, "{field} = {value}");
    }
    for not_object in ["[]", "null", "5", "\"x\""] {
        assert_eq!(code_of(&pack(not_object.as_bytes())), code::SIG_INVALID, "{not_object}");
    }
}

#[test]
fn garbage_of_every_layer_is_70003() {
    let plain = STANDARD.encode(b"not zlib").replace('=', "_");
    let mut cut = pack(genuine().to_string().as_bytes());
    cut.truncate(cut.len() / 2);
    let nested = "[".repeat(4000);
    let not_utf8 = pack(b"{\"TLS.ver\":\"\xff\"}");
    for bad in ["%", "a b", "eJ+/=", "测试", "\0", "_", &plain, &cut, &pack(b"{"), &pack(nested.as_bytes()), &not_utf8]
    {
        assert_eq!(code_of(bad), code::SIG_UNDECODABLE, "{bad:?}");
    }
}

#[test]
fn oversize_and_compression_bombs_are_refused_unread() {
    assert_eq!(code_of(&"A".repeat(SIG_CHARS + 1)), code::SIG_UNDECODABLE);
    let bomb = pack(&vec![b' '; 1_000_000]);
    assert!(bomb.len() <= SIG_CHARS, "the bomb passes the length check: {}", bomb.len());
    assert_eq!(code_of(&bomb), code::SIG_UNDECODABLE);
}

#[test]
fn any_changed_claim_breaks_the_sig() {
    for (field, value) in [("TLS.time", json!(TIME_S + 1)), ("TLS.expire", json!(604_801)), ("TLS.userbuf", json!(""))]
    {
        assert_eq!(code_of(&with(field, value)), code::SIG_WRONG_KEY, "{field}");
    }
    for sig in ["", "AAAA", "not base64", "iECP5gtSH6gq7Xt4w0O7YDVIq2SuzGACrugA2qfsGEA=", "iECP5gtSH6gq7Xt4"] {
        assert_eq!(code_of(&with("TLS.sig", json!(sig))), code::SIG_WRONG_KEY, "{sig}");
    }
}

/// A server that signs any name is asked for one with line breaks; the same signed text then reads as another user's sig
/// with a `userbuf`. Neither side of the trick is accepted.
#[test]
fn line_breaks_cannot_move_the_border_between_claims() {
    let tail = format!("\nTLS.sdkappid:{APP}\nTLS.time:{TIME_S}\nTLS.expire:604800");
    let asked = format!("administrator{tail}\nTLS.userbuf:");
    let signed = sign(&Claims { identifier: asked.clone(), ..claims("administrator") }, KEY);
    assert_eq!(refused(&signed, &at(TIME_S, &asked)), code::SIG_INVALID);
    let mac = {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
        mac.update(codec::signed_text(&claims("administrator"), Some(&tail)).as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    };
    let mut forged = genuine();
    forged["TLS.userbuf"] = json!(tail);
    forged["TLS.sig"] = json!(mac);
    assert_eq!(code_of(&pack(forged.to_string().as_bytes())), code::SIG_INVALID);
}

#[test]
fn lifetimes_near_the_limits_do_not_wrap() {
    let eternal = Claims { expire_s: u64::MAX, ..claims("administrator") };
    assert!(check(&sign(&eternal, KEY), &at(TIME_S, "administrator")).is_ok());
    assert_eq!(eternal.deadline_s(), u64::MAX);
    let none = Claims { expire_s: 0, ..claims("administrator") };
    assert_eq!(code_of(&sign(&none, KEY)), code::SIG_EXPIRED);
}

proptest! {
    #[test]
    fn decoder_never_panics_on_text(text in "\\PC{0,300}") {
        let _ = decode(&text);
        let _ = explain(&text, APP, None, Keys::default(), UnixMillis(0)).to_string();
    }

    #[test]
    fn decoder_never_panics_on_packed_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&pack(&bytes));
        let _ = userbuf::RoomTicket::decode(&bytes);
    }

    #[test]
    fn one_flipped_character_is_never_accepted_as_something_else(at_char in 0..196_usize, to in "[A-Za-z0-9*_-]") {
        let mut bytes = VECTORS[0].1.as_bytes().to_vec();
        bytes[at_char] = to.as_bytes()[0];
        let flipped = String::from_utf8(bytes).unwrap();
        if let Ok(checked) = check(&flipped, &at(TIME_S, "administrator")) {
            prop_assert_eq!(checked.claims, claims("administrator"), "only the same claims may pass");
        }
    }
}
