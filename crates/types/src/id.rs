//! Newtypes for identities. Text ids are checked once, on the way in; numbers inside are opaque.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::code;
use crate::refusal::Refusal;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl From<$inner> for $name {
            fn from(n: $inner) -> Self {
                Self(n)
            }
        }
        impl From<$name> for $inner {
            fn from(n: $name) -> Self {
                n.0
            }
        }
    };
}

number!(
    /// A tenant: one app of the platform. Prefixes every key.
    SdkAppId, u32
);
number!(
    /// Inner name of a conversation: allocated, never derived from a public id, new for each incarnation of a group.
    ConvId, u64
);
number!(
    /// Gap-free position in one conversation, assigned by its owner; the first is 1.
    Seq, u64
);
number!(
    /// The fencing number an owner holds for a partition; rises with every claim.
    Epoch, u64
);

impl Seq {
    /// The next position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch a claim raises to.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// Wraps an id that was checked when it was stored (rows, inner messages).
            #[must_use]
            pub fn trusted(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
    };
}

text!(
    /// An account of one app.
    UserId
);
text!(
    /// Public id of a group; may be reused after the group is dismissed (inside, [`ConvId`] tells incarnations apart).
    GroupId
);
text!(
    /// A process of the cluster: `<role>-<random>`; unique for its life.
    NodeId
);

/// Longest `UserId` in bytes (`spec/rest-accounts.md` §1.9).
pub const USER_ID_BYTES: usize = 32;
/// Longest id of an official account in bytes (`spec/rest-accounts.md` §1.9).
pub const OFFICIAL_ID_BYTES: usize = 48;
/// Longest caller-chosen `GroupId` in bytes (`spec/rest-groups.md` §1.6).
pub const GROUP_ID_BYTES: usize = 48;
/// Longest stored id of any kind: generated community ids carry two prefixes.
pub const ANY_ID_BYTES: usize = 96;

/// Prefix of ids the server makes for groups.
pub const GROUP_PREFIX: &str = "@TGS#";
/// Prefix of community ids.
pub const COMMUNITY_PREFIX: &str = "@TGS#_";
/// Prefix of robot accounts.
pub const ROBOT_PREFIX: &str = "@RBT#";
/// Prefix of official accounts.
pub const OFFICIAL_PREFIX: &str = "@TOA#_";

fn printable(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

impl UserId {
    /// Checks an id that names an existing or new account.
    ///
    /// # Errors
    /// [`code::ACCOUNT_BAD_PARAM`] when it is empty, longer than 32 bytes (48 for `@TOA#_…`), not printable ASCII, begins
    /// or ends with a space, or begins with `@TGS#`.
    pub fn parse(id: &str) -> Result<Self, Refusal> {
        let cap = if id.starts_with(OFFICIAL_PREFIX) { OFFICIAL_ID_BYTES } else { USER_ID_BYTES };
        let bad = !printable(id) || id.len() > cap || id.trim() != id || id.starts_with(GROUP_PREFIX);
        if bad {
            return Err(Refusal::new(code::ACCOUNT_BAD_PARAM, "UserID must be 1 to 32 printable ASCII bytes"));
        }
        Ok(Self::trusted(id))
    }

    /// Whether the account is a bot (`spec/webhooks.md` §6).
    #[must_use]
    pub fn is_robot(&self) -> bool {
        self.0.starts_with(ROBOT_PREFIX)
    }
}

impl GroupId {
    /// Checks an id that refers to a group, however it was made.
    ///
    /// # Errors
    /// [`code::GROUP_BAD_ID`] when it cannot be the id of any group.
    pub fn parse(id: &str) -> Result<Self, Refusal> {
        if !printable(id) || id.len() > ANY_ID_BYTES {
            return Err(Refusal::new(code::GROUP_BAD_ID, "GroupId is not a possible group id"));
        }
        Ok(Self::trusted(id))
    }

    /// Checks an id chosen by the caller who creates a group: `@TGS#…` is forged unless the group is a community and the
    /// id is `@TGS#_` followed by a custom part that does not itself start `@TGS#`.
    ///
    /// # Errors
    /// [`code::GROUP_BAD_ID`].
    pub fn parse_custom(id: &str, community: bool) -> Result<Self, Refusal> {
        let bad = |why: &str| Err(Refusal::new(code::GROUP_BAD_ID, why));
        if !printable(id) || id.len() > GROUP_ID_BYTES {
            return bad("GroupId must be 1 to 48 printable ASCII bytes");
        }
        match (community, id.strip_prefix(COMMUNITY_PREFIX)) {
            (true, Some(custom)) if !custom.is_empty() && !custom.starts_with(GROUP_PREFIX) => Ok(Self::trusted(id)),
            (true, _) => bad("the GroupId of a community must be @TGS#_ and a custom part"),
            (false, _) if id.starts_with(GROUP_PREFIX) => bad("GroupId must not start with @TGS#"),
            (false, _) => Ok(Self::trusted(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids() {
        for good in ["alice", "a b", "u/1", "@RBT#001", "@TOA#_news"] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "测试", "a\0", "@TGS#1", &"x".repeat(33), &"x".repeat(4096)] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn custom_group_ids() {
        assert!(GroupId::parse_custom("room/9", false).is_ok());
        assert!(GroupId::parse_custom("@TGS#1", false).is_err());
        assert!(GroupId::parse_custom("@TGS#_club", true).is_ok());
        assert!(GroupId::parse_custom("@TGS#_@TGS#club", true).is_err());
        assert!(GroupId::parse_custom("club", true).is_err());
        assert!(GroupId::parse_custom("@TGS#_club", false).is_err());
        assert!(GroupId::parse_custom(&"x".repeat(49), false).is_err());
    }
}
