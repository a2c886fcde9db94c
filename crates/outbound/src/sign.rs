//! Signatures and names of requests (`spec/webhooks.md` §1.3).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// `lowercase_hex(SHA-256(token ‖ time))`: not over the body, as receivers compare exactly.
#[must_use]
pub fn sign(token: &str, now_s: u64) -> String {
    hex::encode(Sha256::digest(format!("{token}{now_s}")))
}

/// Value of `X-Linnet-Signature`: time and an HMAC over time and body, for receivers that want the body covered.
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn body_signature(token: &str, now_s: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{now_s}.{body}").as_bytes());
    format!("t={now_s},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// A name made of what is named, in the form of a UUID: the same on every attempt, so that a server can tell a repeat.
#[must_use]
pub fn name_of(what: &str) -> String {
    let digest = Sha256::digest(what);
    let hex = hex::encode(&digest[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_signature_vector() {
        let want = "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061";
        assert_eq!(sign("xxxxyyyy", 1_669_872_112), want);
    }

    #[test]
    fn the_body_is_covered_and_names_repeat() {
        assert_ne!(body_signature("k", 5, "{}"), body_signature("k", 5, "{ }"));
        assert_eq!(name_of("a"), name_of("a"));
        assert_eq!(name_of("a").len(), 36);
    }
}
