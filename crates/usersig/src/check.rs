//! The verdict: `spec/rest-accounts.md` §1.6.5, rows 2 to 9, in that order.

use linnet_types::{Refusal, SdkAppId, UnixMillis, code};

use crate::codec::{Decoded, decode};
use crate::{Claims, FUTURE_SECS};

/// The keys of an app; the previous one is accepted during a rotation. Empty text is no key.
#[derive(Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Signs now.
    pub current: Option<&'a str>,
    /// Signed until the rotation.
    pub previous: Option<&'a str>,
}

/// Which key a sig was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichKey {
    /// The current one.
    Current,
    /// The one before the rotation.
    Previous,
}

/// What a sig is held against.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The app the request names.
    pub app: SdkAppId,
    /// The user the request names.
    pub identifier: &'a str,
    /// The app's keys.
    pub keys: Keys<'a>,
    /// The server's clock.
    pub now: UnixMillis,
}

/// A sig that is good at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says. Its `time_s` decides whether a later kick revoked it.
    pub claims: Claims,
    /// The key it was made with.
    pub key: WhichKey,
}

/// Judges a sig.
///
/// # Errors
/// 70002 empty, 70003 undecodable or from the future, 70005 fields, 70014 app, 70013 user, 70016 the app has no key,
/// 70009 key, 70001 expired. Whether it is expired is told only to who holds a genuine one.
pub fn check(text: &str, expected: &Expected<'_>) -> Result<Checked, Refusal> {
    let decoded = decode(text)?;
    let key = judge(&decoded, expected)?;
    Ok(Checked { claims: decoded.claims, key })
}

pub(crate) fn judge(sig: &Decoded, expected: &Expected<'_>) -> Result<WhichKey, Refusal> {
    let refuse = |code, why: &str| Err(Refusal::new(code, why));
    if sig.claims.app != expected.app {
        return refuse(code::SIG_WRONG_APP, "the UserSig is for another SDKAppID");
    }
    if sig.claims.identifier != expected.identifier {
        return refuse(code::SIG_WRONG_USER, "the UserSig is for another identifier");
    }
    let key = made_with(sig, &expected.keys)?;
    let now_s = expected.now.secs();
    if now_s >= sig.claims.deadline_s() {
        return refuse(code::SIG_EXPIRED, "the UserSig has expired");
    }
    if sig.claims.time_s > now_s.saturating_add(FUTURE_SECS) {
        return refuse(code::SIG_UNDECODABLE, "the UserSig was issued more than 15 minutes in the future");
    }
    Ok(key)
}

pub(crate) fn made_with(sig: &Decoded, keys: &Keys<'_>) -> Result<WhichKey, Refusal> {
    let try_key = |key: Option<&str>| key.filter(|key| !key.is_empty()).map(|key| sig.signed_with(key));
    // Both are always tried: the time does not tell which one an app is using.
    match (try_key(keys.current), try_key(keys.previous)) {
        (Some(true), _) => Ok(WhichKey::Current),
        (_, Some(true)) => Ok(WhichKey::Previous),
        (None, None) => Err(Refusal::new(code::SIG_NO_KEY, "the app has no key")),
        _ => Err(Refusal::new(code::SIG_WRONG_KEY, "the UserSig was signed with another key")),
    }
}
