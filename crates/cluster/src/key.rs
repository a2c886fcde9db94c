//! What is placed on the ring, as explicit bytes.

use std::fmt;

use linnet_types::{ConvId, GroupId, SdkAppId, UserId};

/// Decides the owner of a call. Equal things have equal bytes in every build; things of different kinds never do.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteKey(Vec<u8>);

impl RouteKey {
    /// A user of an app.
    #[must_use]
    pub fn user(app: SdkAppId, user: &UserId) -> Self {
        Self::new(b'u', app, &[user.as_str()])
    }

    /// A group of an app.
    #[must_use]
    pub fn group(app: SdkAppId, group: &GroupId) -> Self {
        Self::new(b'g', app, &[group.as_str()])
    }

    /// A conversation.
    #[must_use]
    pub fn conv(conv: ConvId) -> Self {
        let mut bytes = vec![b'c'];
        bytes.extend_from_slice(&conv.0.to_be_bytes());
        Self(bytes)
    }

    /// The conversation of two users, in whichever order they are named.
    #[must_use]
    pub fn pair(app: SdkAppId, one: &UserId, other: &UserId) -> Self {
        let (smaller, larger) = if one <= other { (one, other) } else { (other, one) };
        Self::new(b'p', app, &[smaller.as_str(), larger.as_str()])
    }

    /// An app as a whole.
    #[must_use]
    pub fn app(app: SdkAppId) -> Self {
        Self::new(b'a', app, &[])
    }

    /// A numbered partition of a service (slots of open logs, webhook partitions).
    #[must_use]
    pub fn slot(slot: u32) -> Self {
        let mut bytes = vec![b's'];
        bytes.extend_from_slice(&slot.to_be_bytes());
        Self(bytes)
    }

    /// The bytes that are hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn new(kind: u8, app: SdkAppId, names: &[&str]) -> Self {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&app.0.to_be_bytes());
        for name in names {
            let len = u32::try_from(name.len()).expect("ids are short");
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        Self(bytes)
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteKey({})", self.0.escape_ascii())
    }
}
