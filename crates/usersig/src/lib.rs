//! UserSig, algorithm v2: what proves to Linnet that an app's own server vouches for a user.
//!
//! Hides the encoding (HMAC-SHA256 over five lines of text, JSON, zlib, a base64 variant; `spec/rest-accounts.md` §1.6) and
//! the order of checks with their public codes (§1.6.5, rows 2 to 9; kicks, block lists, throttling and the admin check
//! belong to the caller). Knows neither HTTP nor who exists. Invariants:
//!
//! - A sig is compared in constant time, against the current and the previous key alike.
//! - Input is bounded before it is inflated: 2,048 characters, 8 KiB of JSON.
//! - Different claims never share a signed text: control characters in the identifier and a `TLS.userbuf` that is not
//!   base64 are refused, for they could move the border between two lines.
//!
//! ```text
//! text --70002 empty--> alphabet, base64, zlib, JSON --70003--> fields --70005--> app 70014 -> user 70013 -> MAC 70009, 70016
//!                                                                                   -> expired 70001 -> from the future 70003
//! ```
#![warn(missing_docs)]

mod check;
mod codec;
mod explain;
pub mod userbuf;

use linnet_types::SdkAppId;

pub use check::{Checked, Expected, Keys, WhichKey, check};
pub use codec::{Decoded, decode, sign};
pub use explain::{Explanation, explain};

/// Longest accepted UserSig in characters; real ones have 180 to 260.
pub const SIG_CHARS: usize = 2048;
/// Longest accepted JSON inside a UserSig in bytes.
pub const JSON_BYTES: usize = 8 * 1024;
/// How far a sig's time may be ahead of the server's clock.
pub const FUTURE_SECS: u64 = 15 * 60;
/// Lifetime published libraries use when none is given: 180 days.
pub const DEFAULT_EXPIRE_SECS: u64 = 15_552_000;

/// What a UserSig says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The app it is for.
    pub app: SdkAppId,
    /// The user it is for, as text: not every text is a possible `UserId`.
    pub identifier: String,
    /// Issue time, Unix seconds.
    pub time_s: u64,
    /// Lifetime in seconds, from `time_s`.
    pub expire_s: u64,
    /// Bytes the app's server attached; carried, not interpreted.
    pub userbuf: Option<Vec<u8>>,
}

impl Claims {
    /// First second at which the sig is no longer accepted.
    #[must_use]
    pub fn deadline_s(&self) -> u64 {
        self.time_s.saturating_add(self.expire_s)
    }
}

#[cfg(test)]
mod tests;
