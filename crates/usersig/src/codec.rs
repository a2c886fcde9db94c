//! Text form of a UserSig, both ways.

use std::fmt::Write as _;
use std::io::{Read, Write as _};

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use hmac::{Hmac, KeyInit, Mac};
use linnet_types::{Refusal, SdkAppId, code};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::{Claims, JSON_BYTES, SIG_CHARS};

/// Standard base64 that does without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A UserSig whose form is right; nothing is proved before [`Decoded::signed_with`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub claims: Claims,
    /// `TLS.userbuf` as written: the signed text holds this, not its decoding.
    userbuf_text: Option<String>,
    /// `TLS.sig` as written.
    sig: String,
}

/// Makes a UserSig. `key` is used as the bytes of its text, as shown to the app's owner; it is not hex-decoded.
#[must_use]
pub fn sign(claims: &Claims, key: &str) -> String {
    let userbuf = claims.userbuf.as_ref().map(|bytes| STANDARD.encode(bytes));
    let mac = mac(key, &signed_text(claims, userbuf.as_deref())).finalize().into_bytes();
    let mut json = Map::new();
    json.insert("TLS.ver".into(), "2.0".into());
    json.insert("TLS.identifier".into(), claims.identifier.as_str().into());
    json.insert("TLS.sdkappid".into(), claims.app.0.into());
    json.insert("TLS.expire".into(), claims.expire_s.into());
    json.insert("TLS.time".into(), claims.time_s.into());
    json.insert("TLS.sig".into(), STANDARD.encode(mac).into());
    if let Some(userbuf) = userbuf {
        json.insert("TLS.userbuf".into(), userbuf.into());
    }
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(Value::Object(json).to_string().as_bytes()).expect("writing to a Vec cannot fail");
    let packed = zlib.finish().expect("writing to a Vec cannot fail");
    let swap = |c| match c {
        '+' => '*',
        '/' => '-',
        '=' => '_',
        other => other,
    };
    STANDARD.encode(packed).chars().map(swap).collect()
}

/// Reads a UserSig without judging who made it.
///
/// # Errors
/// [`code::SIG_EMPTY`], [`code::SIG_UNDECODABLE`] or [`code::SIG_INVALID`]; the text says which step failed.
pub fn decode(text: &str) -> Result<Decoded, Refusal> {
    if text.is_empty() {
        return Err(Refusal::new(code::SIG_EMPTY, "the UserSig is empty"));
    }
    fields(&unpack(text).map_err(|why| Refusal::new(code::SIG_UNDECODABLE, why))?)
        .map_err(|why| Refusal::new(code::SIG_INVALID, why))
}

/// Alphabet, base64, zlib, JSON.
fn unpack(text: &str) -> Result<Value, &'static str> {
    if text.len() > SIG_CHARS {
        return Err("the UserSig is longer than 2048 characters");
    }
    let mut standard = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        standard.push(match byte {
            b'*' => b'+',
            b'-' => b'/',
            b'_' => b'=',
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => return Err("the UserSig has a character outside its alphabet"),
        });
    }
    let packed = LENIENT.decode(standard).map_err(|_| "the UserSig is not base64 (cut short?)")?;
    let mut json = Vec::new();
    let bound = u64::try_from(JSON_BYTES).expect("small") + 1;
    let inflated = ZlibDecoder::new(packed.as_slice()).take(bound).read_to_end(&mut json);
    inflated.map_err(|_| "the UserSig is not zlib data (cut short?)")?;
    if json.len() > JSON_BYTES {
        return Err("the UserSig inflates to more than 8 KiB");
    }
    serde_json::from_slice(&json).map_err(|_| "the UserSig does not hold JSON")
}

/// The mandatory fields with their types; unknown ones are ignored, numbers may be decimal text.
fn fields(json: &Value) -> Result<Decoded, &'static str> {
    let text = |name: &str| json.get(name).and_then(Value::as_str);
    if text("TLS.ver") != Some("2.0") {
        return Err("TLS.ver is not \"2.0\"");
    }
    let identifier = text("TLS.identifier").ok_or("TLS.identifier is missing or not text")?;
    if identifier.chars().any(char::is_control) {
        return Err("TLS.identifier holds a control character");
    }
    let app = number(json.get("TLS.sdkappid")).and_then(|n| u32::try_from(n).ok());
    let app = app.ok_or("TLS.sdkappid is missing or not an app id")?;
    let expire_s = number(json.get("TLS.expire")).ok_or("TLS.expire is missing or not a number of seconds")?;
    let time_s = number(json.get("TLS.time")).ok_or("TLS.time is missing or not a number of seconds")?;
    let userbuf_text = match json.get("TLS.userbuf") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err("TLS.userbuf is not text"),
    };
    let userbuf = userbuf_text.as_ref().map(|text| LENIENT.decode(text)).transpose();
    let userbuf = userbuf.map_err(|_| "TLS.userbuf is not base64")?;
    let sig = text("TLS.sig").ok_or("TLS.sig is missing or not text")?.to_owned();
    let claims = Claims { app: SdkAppId(app), identifier: identifier.to_owned(), time_s, expire_s, userbuf };
    Ok(Decoded { claims, userbuf_text, sig })
}

fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

impl Decoded {
    /// Whether `key` made this sig; takes the same time wherever the sigs differ.
    #[must_use]
    pub fn signed_with(&self, key: &str) -> bool {
        let Ok(shown) = STANDARD.decode(&self.sig) else { return false };
        mac(key, &signed_text(&self.claims, self.userbuf_text.as_deref())).verify_slice(&shown).is_ok()
    }
}

fn mac(key: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

pub(crate) fn signed_text(claims: &Claims, userbuf_text: Option<&str>) -> String {
    let mut text = format!(
        "TLS.identifier:{}\nTLS.sdkappid:{}\nTLS.time:{}\nTLS.expire:{}\n",
        claims.identifier, claims.app, claims.time_s, claims.expire_s
    );
    if let Some(userbuf) = userbuf_text {
        writeln!(text, "TLS.userbuf:{userbuf}").expect("writing to a String cannot fail");
    }
    text
}
