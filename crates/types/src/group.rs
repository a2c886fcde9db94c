//! Kinds of group and what a member may be. The rules that differ by kind are the table of `spec/rest-groups.md` §1.

use serde::{Deserialize, Serialize};

/// The five kinds of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GroupType {
    /// Small closed chat, by invitation (`Private` on the wire).
    Work,
    /// Moderated interest group.
    Public,
    /// Open conference (`ChatRoom` on the wire).
    Meeting,
    /// Live room: members are not stored, messages neither.
    AVChatRoom,
    /// Very large club.
    Community,
}

impl GroupType {
    /// Parses a wire value; both generations of names are accepted.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Private" | "Work" => Self::Work,
            "Public" => Self::Public,
            "ChatRoom" | "Meeting" => Self::Meeting,
            "AVChatRoom" => Self::AVChatRoom,
            "Community" => Self::Community,
            _ => return None,
        })
    }

    /// The value the public API emits.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::Work => "Private",
            Self::Public => "Public",
            Self::Meeting => "ChatRoom",
            Self::AVChatRoom => "AVChatRoom",
            Self::Community => "Community",
        }
    }

    /// Whether the kind is a live room.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::AVChatRoom)
    }

    /// Whether members have an unread count (`spec/rest-groups.md` §1.4).
    #[must_use]
    pub fn counts_unread(self) -> bool {
        matches!(self, Self::Work | Self::Public | Self::Community)
    }
}

/// A member's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Ordinary member.
    Member,
    /// Appointed by the owner.
    Admin,
    /// The one owner.
    Owner,
}

impl Role {
    /// Parses `Owner`, `Admin` or `Member`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Owner" => Self::Owner,
            "Admin" => Self::Admin,
            "Member" => Self::Member,
            _ => return None,
        })
    }
    /// The wire value.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::Owner => "Owner",
            Self::Admin => "Admin",
            Self::Member => "Member",
        }
    }
}

macro_rules! option {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// Parses the wire value.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $(stringify!($variant) => Some(Self::$variant),)+
                    _ => None,
                }
            }
            /// The wire value.
            #[must_use]
            pub fn wire(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    };
}

option!(
    /// Who may enter on their own.
    ApplyJoinOption {
        /// At once.
        FreeAccess,
        /// After the owner or an admin agrees.
        NeedPermission,
        /// Nobody.
        DisableApply,
    }
);
option!(
    /// Whether members may bring others in.
    InviteJoinOption {
        /// The invitee is in at once.
        FreeAccess,
        /// After the owner or an admin agrees.
        NeedPermission,
        /// Members may not invite; REST still may.
        DisableInvite,
    }
);
