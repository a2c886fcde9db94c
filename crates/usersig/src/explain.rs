//! A sig explained to the person who made it.

use std::fmt;

use linnet_types::{Refusal, SdkAppId, UnixMillis};

use crate::check::{Expected, Keys, WhichKey, judge};
use crate::codec::decode;
use crate::{Claims, userbuf};

/// Everything there is to say about a UserSig; its `Display` is what the command line prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it says, if it can be read.
    pub claims: Option<Claims>,
    /// Which key made it, or the public code and text of the refusal.
    pub verdict: Result<WhichKey, Refusal>,
    /// Seconds since it was issued; negative when it is from the future.
    pub age_s: Option<i64>,
    /// Seconds until it expires; negative when it has.
    pub left_s: Option<i64>,
    /// How the app's keys begin, for telling them apart.
    keys: String,
}

/// Explains `text` as the server would judge it for `app` at `now`. Without `identifier`, the sig's own is taken.
#[must_use]
pub fn explain(text: &str, app: SdkAppId, identifier: Option<&str>, keys: Keys<'_>, now: UnixMillis) -> Explanation {
    let shown = key_line(&keys);
    let decoded = match decode(text.trim()) {
        Ok(decoded) => decoded,
        Err(refusal) => {
            return Explanation { claims: None, verdict: Err(refusal), age_s: None, left_s: None, keys: shown };
        }
    };
    let identifier = identifier.unwrap_or(&decoded.claims.identifier);
    let verdict = judge(&decoded, &Expected { app, identifier, keys, now });
    let (age_s, left_s) = (span(now.secs(), decoded.claims.time_s), span(decoded.claims.deadline_s(), now.secs()));
    Explanation { claims: Some(decoded.claims), verdict, age_s: Some(age_s), left_s: Some(left_s), keys: shown }
}

fn span(later: u64, earlier: u64) -> i64 {
    let difference = i128::from(later) - i128::from(earlier);
    i64::try_from(difference).unwrap_or(i64::MAX)
}

fn key_line(keys: &Keys<'_>) -> String {
    let start = |key: Option<&str>| match key.filter(|key| !key.is_empty()) {
        Some(key) => format!("{}…", key.chars().take(4).collect::<String>()),
        None => "none".to_owned(),
    };
    let count = [keys.current, keys.previous].into_iter().flatten().filter(|key| !key.is_empty()).count();
    let plural = if count == 1 { "key" } else { "keys" };
    format!("This app has {count} {plural} (current {}, previous {})", start(keys.current), start(keys.previous))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(claims), Some(age), Some(left)) = (&self.claims, self.age_s, self.left_s) {
            writeln!(f, "app        {}", claims.app)?;
            writeln!(f, "user       {}", claims.identifier)?;
            let (past, ahead) = if age < 0 { ("in", "") } else { ("", " ago") };
            writeln!(f, "issued     {} ({past}{}{}{ahead})", claims.time_s, space(past), Span(age))?;
            let end = if left > 0 { "expires in" } else { "expired, by" };
            writeln!(f, "lifetime   {} s ({end} {})", claims.expire_s, Span(left))?;
            if let Some(bytes) = &claims.userbuf {
                let content =
                    userbuf::RoomTicket::decode(bytes).map(|ticket| format!(": {ticket}")).unwrap_or_default();
                writeln!(f, "userbuf    {} bytes{content}", bytes.len())?;
            }
        }
        match &self.verdict {
            Ok(WhichKey::Current) => f.write_str("accepted   signed with the current key"),
            Ok(WhichKey::Previous) => f.write_str("accepted   signed with the previous key"),
            Err(refusal) => write!(f, "refused {}: {}. {}", refusal.code, refusal.info, self.keys),
        }
    }
}

fn space(before: &str) -> &str {
    if before.is_empty() { "" } else { " " }
}

/// A span of seconds in its two largest units, without sign.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.unsigned_abs();
        match s {
            0..60 => write!(f, "{s} s"),
            60..3_600 => write!(f, "{} min {} s", s / 60, s % 60),
            3_600..86_400 => write!(f, "{} h {} min", s / 3_600, s % 3_600 / 60),
            _ => write!(f, "{} d {} h", s / 86_400, s % 86_400 / 3_600),
        }
    }
}
