use linnet_types::{UnixMillis, code};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

mod hostile;

/// `spec/rest-accounts.md` §1.6.4, common input.
const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";
const APP: SdkAppId = SdkAppId(1_400_000_001);
const TIME_S: u64 = 1_700_000_000;

const VECTORS: [(&str, &str); 4] = [
    (
        "administrator",
        "eJw1jV0LgjAYRv*K7DpkG0sj6EJ0WBAULKIuhc3xEtq*rCj672nqc3nOgeeDTnsRP5RD6wjRGKNF9CcgVRughlFUsoEWfHBVuLs58fJWGQOyDwjD48jk1MuAU71JMFthPNEAzcBIOtUz96CHF*D5camD2CbappfAnviQXovzzlLRvcssd53OqK19yfkGfX9pPTVu",
    ),
    (
        "administrator",
        "eJw1ylELgjAUBeD-cp9DNjEXgx7EhgVBwSLqUdgcl9B0u1YU-ffA2Xk73zkfOO118rAeJKQJg8XU0diOsMGJa9Nih4F8TXc-H4K51X2PBiTPWAyPC2FrQXIxK4tqXz16CzJn2epvAR1IQFUel470NneDuFD2ZAdx3Zx3Q6rHd1WUfnRFOjShUmoN3x-X3DQO",
    ),
    (
        "user_测试01",
        "eJw9jUELgjAARv*K7Bw6Y*oKPHSK1OigqYUQrk0bptl0EUX-PU3tO7734HuDwPPVBxNgqYC5CsFM*RFOWdXyjA9CNkycEmlSRBKJCTWgPoUNLdK65rTLdASH6aNjz5oL1hlsdmqELS97pFtjPPH*g8isvyPrqyRlCL04fB1jh9PoYP--eN4n**AWpk1J-BiJChXu9pzi3DOYdrHu0WbhOhpc1Tu3xDK3wecLevlClw__",
    ),
    (
        "user_测试01",
        "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwqXFqUXxz7Z2v1g-1cAQqqA4JTuxoCAzRcnK0MQAAgwhMiWZualKVobmUFEDiGhqRUFmUaqSlYWZCUwIZGxSaZqSlVKSe05pUm6YgU9EWFVUhFdmSnikLcyezHQlK6XQkPywxOLcpOAIk6I8k2xv3*REi3Qf01T9DPPCcE9Lby99A8cCf*9ci9J0W6VaABbVQUQ_",
    ),
];

fn claims(identifier: &str) -> Claims {
    let (expire_s, userbuf) =
        if identifier == "administrator" { (604_800, None) } else { (86_400, Some(b"linnet-userbuf".to_vec())) };
    Claims { app: APP, identifier: identifier.to_owned(), time_s: TIME_S, expire_s, userbuf }
}

fn at(now_s: u64, identifier: &str) -> Expected<'_> {
    let keys = Keys { current: Some(KEY), previous: None };
    Expected { app: APP, identifier, keys, now: UnixMillis::from_secs(now_s) }
}

fn refused(sig: &str, expected: &Expected<'_>) -> u32 {
    check(sig, expected).expect_err("must be refused").code
}

#[test]
fn all_four_published_strings_are_accepted() {
    for (identifier, sig) in VECTORS {
        let checked = check(sig, &at(TIME_S + 1, identifier)).expect("accepted");
        assert_eq!((checked.claims, checked.key), (claims(identifier), WhichKey::Current));
    }
}

#[test]
fn signed_text_and_mac_equal_the_published_ones() {
    let published = [
        ("administrator", None, 91, "4a3c75f70fbd3b6c56abeaf5b9f951e008e990dff008f97d3e57c646373d1f43"),
        (
            "user_测试01",
            Some("bGlubmV0LXVzZXJidWY="),
            123,
            "93a0fed89bf0978e206925bbc3265664046b1945d761799e807b47f38a2ddaf1",
        ),
    ];
    for (identifier, userbuf, len, sha) in published {
        let text = codec::signed_text(&claims(identifier), userbuf);
        assert_eq!((text.len(), hex::encode(Sha256::digest(&text))), (len, sha.to_owned()));
    }
    for (identifier, sig) in VECTORS {
        let ours = decode(&sign(&claims(identifier), KEY)).expect("decodes");
        assert_eq!(ours, decode(sig).expect("decodes"), "same fields and TLS.sig; the outer text may differ");
    }
}

#[test]
fn expiry_begins_at_the_second_the_vectors_name() {
    let (identifier, sig) = VECTORS[0];
    assert!(check(sig, &at(1_700_604_799, identifier)).is_ok());
    assert_eq!(refused(sig, &at(1_700_604_800, identifier)), code::SIG_EXPIRED);
}

#[test]
fn each_check_has_its_code_and_its_place() {
    let (identifier, sig) = VECTORS[0];
    let good = at(TIME_S, identifier);
    let wrong_key = Keys { current: Some("other"), previous: None };
    assert_eq!(refused("", &good), code::SIG_EMPTY);
    assert_eq!(refused(&sig[..100], &good), code::SIG_UNDECODABLE);
    assert_eq!(refused(sig, &Expected { app: SdkAppId(1), identifier: "bob", ..good }), code::SIG_WRONG_APP);
    assert_eq!(refused(sig, &Expected { identifier: "bob", keys: wrong_key, ..good }), code::SIG_WRONG_USER);
    let late = UnixMillis::from_secs(TIME_S + 1_000_000);
    assert_eq!(
        refused(sig, &Expected { keys: wrong_key, now: late, ..good }),
        code::SIG_WRONG_KEY,
        "forged before expired"
    );
    assert_eq!(refused(sig, &Expected { keys: Keys::default(), ..good }), code::SIG_NO_KEY);
    let empty = Keys { current: Some(""), previous: None };
    assert_eq!(refused(sig, &Expected { keys: empty, ..good }), code::SIG_NO_KEY, "an empty key signs nothing");
    assert!(check(sig, &at(TIME_S - FUTURE_SECS, identifier)).is_ok());
    assert_eq!(refused(sig, &at(TIME_S - FUTURE_SECS - 1, identifier)), code::SIG_UNDECODABLE);
}

#[test]
fn previous_key_is_accepted_during_a_rotation() {
    let (identifier, sig) = VECTORS[0];
    let keys = Keys { current: Some("new"), previous: Some(KEY) };
    let checked = check(sig, &Expected { keys, ..at(TIME_S, identifier) }).expect("accepted");
    assert_eq!(checked.key, WhichKey::Previous);
}

#[test]
fn explanation_shows_fields_age_and_verdict() {
    let (identifier, sig) = VECTORS[0];
    let keys = Keys { current: Some(KEY), previous: None };
    let now = UnixMillis::from_secs(TIME_S + 90);
    let text = explain(sig, APP, None, keys, now).to_string();
    let expected = "app        1400000001\nuser       administrator\nissued     1700000000 (1 min 30 s ago)\n\
                    lifetime   604800 s (expires in 6 d 23 h)\naccepted   signed with the current key";
    assert_eq!(text, expected);
    let other = explain(sig, APP, Some(identifier), Keys { current: Some("5f0c77"), previous: None }, now).to_string();
    let line =
        "refused 70009: the UserSig was signed with another key. This app has 1 key (current 5f0c…, previous none)";
    assert!(other.ends_with(line), "{other}");
    assert!(!other.contains("5f0c77"), "a key is never shown whole");
    let broken = explain("x", APP, None, keys, now);
    assert_eq!(
        (broken.claims.clone(), broken.verdict.clone().expect_err("refused").code),
        (None, code::SIG_UNDECODABLE)
    );
    assert!(broken.to_string().starts_with("refused 70003: "));
}

#[test]
fn room_ticket_has_the_published_layout() {
    let mut ticket = userbuf::RoomTicket {
        account: "ab".to_owned(),
        sdkappid: 1,
        room: 2,
        room_text: None,
        deadline_s: 3,
        privileges: 255,
    };
    let bytes = ticket.encode().expect("short");
    assert_eq!(hex::encode(&bytes), "00000261620000000100000002000000030000 00ff00000000".replace(' ', ""));
    assert_eq!(userbuf::RoomTicket::decode(&bytes), Some(ticket.clone()));
    ticket.room_text = Some("room/1".to_owned());
    let bytes = ticket.encode().expect("short");
    assert_eq!(bytes[0], 1);
    assert_eq!(userbuf::RoomTicket::decode(&bytes), Some(ticket));
    assert_eq!(userbuf::RoomTicket::decode(&bytes[..bytes.len() - 1]), None);
}

proptest! {
    #[test]
    fn sign_and_check_round_trip(
        app: u32,
        identifier in "[^\\p{Cc}]{1,40}",
        key in "\\PC{1,80}",
        time_s in 0..u64::from(u32::MAX),
        expire_s in 1..u64::from(u32::MAX),
        userbuf in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
    ) {
        let claims = Claims { app: SdkAppId(app), identifier: identifier.clone(), time_s, expire_s, userbuf };
        let sig = sign(&claims, &key);
        prop_assert!(sig.bytes().all(|b| b.is_ascii_alphanumeric() || b"*-_".contains(&b)));
        let now = UnixMillis::from_secs(time_s);
        let keys = Keys { current: Some(key.as_str()), previous: None };
        let checked = check(&sig, &Expected { app: SdkAppId(app), identifier: &identifier, keys, now });
        prop_assert_eq!(checked, Ok(Checked { claims, key: WhichKey::Current }));
    }
}
