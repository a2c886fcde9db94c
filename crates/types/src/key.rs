//! Names of messages, conversations, devices and priorities as clients and backends spell them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, UserId};

/// Public identity of a one-to-one message: `<MsgSeq>_<random>_<time>` (`spec/rest-messages.md` §1). The seq is the
/// *caller's*, not the position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MsgKey {
    /// The caller's `MsgSeq`.
    pub msg_seq: u32,
    /// The caller's random.
    pub random: u32,
    /// Server time in whole seconds.
    pub time_s: u64,
}

impl fmt::Display for MsgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.msg_seq, self.random, self.time_s)
    }
}

impl FromStr for MsgKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('_');
        let (Some(seq), Some(random), Some(time), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        Ok(Self {
            msg_seq: seq.parse().map_err(drop)?,
            random: random.parse().map_err(drop)?,
            time_s: time.parse().map_err(drop)?,
        })
    }
}

/// A conversation as one of its members names it: `C2C:<peer>` or `GROUP:<group>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConversationKey {
    /// With another user.
    C2c(UserId),
    /// A group.
    Group(GroupId),
}

impl fmt::Display for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::C2c(peer) => write!(f, "C2C:{peer}"),
            Self::Group(group) => write!(f, "GROUP:{group}"),
        }
    }
}

impl FromStr for ConversationKey {
    type Err = crate::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(peer) = text.strip_prefix("C2C:") {
            return UserId::parse(peer).map(Self::C2c);
        }
        if let Some(group) = text.strip_prefix("GROUP:") {
            return GroupId::parse(group).map(Self::Group);
        }
        Err(crate::Refusal::new(crate::code::MSG_BAD_PARAM, "a conversation is C2C:<user> or GROUP:<group>"))
    }
}

/// The kind of device a session runs on. One session each by default, Web up to a setting (`design.md` §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Platform {
    /// Android phone.
    Android,
    /// iPhone.
    #[serde(rename = "iPhone")]
    IPhone,
    /// iPad.
    #[serde(rename = "iPad")]
    IPad,
    /// Windows.
    Windows,
    /// macOS.
    Mac,
    /// Linux desktop.
    Linux,
    /// Browser or mini program.
    Web,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 7] =
        [Self::Android, Self::IPhone, Self::IPad, Self::Windows, Self::Mac, Self::Linux, Self::Web];

    /// The name clients send and `query_online_status` shows.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::Android => "Android",
            Self::IPhone => "iPhone",
            Self::IPad => "iPad",
            Self::Windows => "Windows",
            Self::Mac => "Mac",
            Self::Linux => "Linux",
            Self::Web => "Web",
        }
    }

    /// Parses the name in any letter case; `iOS` is an iPhone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("ios") {
            return Some(Self::IPhone);
        }
        Self::ALL.into_iter().find(|platform| platform.wire().eq_ignore_ascii_case(text))
    }

    /// Whether a lost connection leaves the user `PushOnline` (`spec/rest-accounts.md` §7.1).
    #[must_use]
    pub fn is_mobile(self) -> bool {
        matches!(self, Self::Android | Self::IPhone | Self::IPad)
    }
}

/// Priority of a group message (`spec/rest-groups.md` §4.2); lower sorts first and is delivered first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// Gifts, orders.
    High,
    /// Text; the default.
    #[default]
    Normal,
    /// Likes.
    Low,
    /// Below `Low`.
    Lowest,
}

impl Priority {
    /// Every priority, highest first.
    pub const ALL: [Self; 4] = [Self::High, Self::Normal, Self::Low, Self::Lowest];

    /// Parses the case-sensitive wire value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.wire() == text)
    }
    /// The wire value.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::High => "High",
            Self::Normal => "Normal",
            Self::Low => "Low",
            Self::Lowest => "Lowest",
        }
    }
    /// 1 to 4, as history shows it (`spec/rest-groups.md` §3.5).
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_key_round_trip() {
        let key = MsgKey { msg_seq: 7, random: 9, time_s: 1_700_000_000 };
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "1_2", "1_2_3_4", "a_b_c", "-1_2_3", "4294967296_1_1"] {
            assert!(bad.parse::<MsgKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn conversation_key_round_trip() {
        for text in ["C2C:bob", "GROUP:@TGS#1", "GROUP:a/b"] {
            assert_eq!(text.parse::<ConversationKey>().expect("valid").to_string(), text);
        }
        assert!("bob".parse::<ConversationKey>().is_err());
    }
}
