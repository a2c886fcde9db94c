//! The only place that spells bus addresses. Subjects are made of numbers and of tokens without separators, so no id can
//! reach another subject.

use std::fmt;
use std::sync::Arc;

use linnet_types::{ConvId, NodeId, SdkAppId};

/// Number of presence subjects; users spread over them by hash.
pub const PRESENCE_SUBJECTS: u16 = 1024;

/// An address on the bus; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The address as text: dot-separated tokens of `[A-Za-z0-9_~-]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Batches of one conversation for the gateways of one site.
#[must_use]
pub fn fan(site: &str, conv: ConvId) -> Subject {
    Subject::new(format!("fan.{}.{conv}", token(site)))
}

/// Frames for one gateway. Never leaves its site.
#[must_use]
pub fn gw(gateway: &NodeId) -> Subject {
    Subject::new(format!("gw.{}", token(gateway.as_str())))
}

/// Presence changes of the users of slot `n`, which is taken modulo [`PRESENCE_SUBJECTS`].
#[must_use]
pub fn presence(n: u16) -> Subject {
    Subject::new(format!("presence.{}", n % PRESENCE_SUBJECTS))
}

/// Hints where users are from now on, for the owners of conversations.
#[must_use]
pub fn places() -> Subject {
    Subject::new("places".to_owned())
}

/// Asks gateways to say again who is connected.
#[must_use]
pub fn directory() -> Subject {
    Subject::new("directory".to_owned())
}

/// Changed settings of one app.
#[must_use]
pub fn app_changed(app: SdkAppId) -> Subject {
    Subject::new(format!("app.{app}"))
}

/// Changed settings of any app; the payload says which.
#[must_use]
pub fn apps_changed() -> Subject {
    Subject::new("apps".to_owned())
}

/// Heartbeats of live nodes.
#[must_use]
pub fn members() -> Subject {
    Subject::new("members".to_owned())
}

/// Wakes the workers of a stored queue.
#[must_use]
pub fn work(queue: &str) -> Subject {
    Subject::new(format!("work.{}", token(queue)))
}

/// What a node sends to itself to learn that the server has taken everything before it; `name` is unique to a connection.
pub(crate) fn echo(name: &str) -> Subject {
    Subject::new(format!("echo.{}", token(name)))
}

/// One token without separators or wildcards; other bytes become `~xx`, so different names stay different.
pub(crate) fn token(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("~{byte:02x}"));
        }
    }
    if out.is_empty() { "~".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_are_spelled_so() {
        assert_eq!(fan("eu-1", ConvId(7)).as_str(), "fan.eu-1.7");
        assert_eq!(gw(&NodeId::trusted("gateway-1")).as_str(), "gw.gateway-1");
        assert_eq!(presence(1025).as_str(), "presence.1");
        assert_eq!(app_changed(SdkAppId(9)).as_str(), "app.9");
        assert_eq!(work("webhooks").as_str(), "work.webhooks");
    }

    proptest! {
        #[test]
        fn hostile_names_stay_one_token_and_apart(a in "\\PC{0,20}", b in "\\PC{0,20}") {
            let (x, y) = (gw(&NodeId::trusted(a.as_str())), gw(&NodeId::trusted(b.as_str())));
            prop_assert_eq!(a == b, x == y);
            prop_assert_eq!(x.as_str().split('.').count(), 2);
            prop_assert!(!x.as_str().contains(['*', '>', ' ', '\r', '\n']));
        }
    }
}
