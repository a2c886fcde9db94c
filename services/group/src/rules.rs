//! Who may do what in which kind of group: one table (`spec/rest-groups.md` §1.2-1.5).
//!
//! Everything that differs by kind is answered here, so a rule is changed in one place. An administrator of the app (and
//! the system itself) outranks all roles; what a kind does not have at all is refused to him too.

use linnet_types::{ApplyJoinOption, GroupType, InviteJoinOption, Refusal, Role, code};

/// What somebody is in a group when he asks for something; ordered by power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Not a member.
    Outside,
    /// Ordinary member.
    Member,
    /// Appointed by the owner.
    Admin,
    /// The owner.
    Owner,
    /// An administrator of the app, or the system.
    App,
}

impl Rank {
    /// The rank of a member, or of nobody.
    #[must_use]
    pub fn of(role: Option<Role>) -> Self {
        match role {
            None => Self::Outside,
            Some(Role::Member) => Self::Member,
            Some(Role::Admin) => Self::Admin,
            Some(Role::Owner) => Self::Owner,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Changes name, introduction, notification or face.
    EditFace,
    /// Changes any other field of the profile.
    EditProfile,
    /// Changes who may enter on their own.
    EditApplyOption,
    /// Changes whether members may bring others in.
    EditInviteOption,
    /// Makes and unmakes admins.
    Appoint,
    /// Removes a member of the rank given.
    Kick(Rank),
    /// Mutes or unmutes somebody of the rank given.
    Mute(Rank),
    /// Mutes everybody but owner and admins.
    MuteAll,
    /// Keeps somebody of the rank given out for a time.
    Ban(Rank),
    /// Ends the group.
    Disband,
    /// Makes another member the owner.
    Transfer,
    /// Brings others in; the invite option decides more.
    Invite,
    /// Reads and decides applications.
    HandleApplication,
    /// Recalls a message of somebody else.
    RecallOthers,
    /// Recalls an own message.
    RecallOwn,
    /// Changes name card or custom fields of another member.
    EditMember,
    /// Reads the list of members.
    ListMembers,
    /// Lists or asks for members one by one, as stored.
    ReadMembers,
    /// Leaves.
    Quit,
    /// Speaks only to some members.
    Target,
    /// Mentions everybody.
    MentionAll,
    /// Sends a notice of the system.
    Notify,
}

/// The least rank that may, or that the kind has no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Least {
    Rank(Rank),
    /// Not in this kind of group, whoever asks.
    Never(u32),
}

const NO: Least = Least::Never(code::GROUP_NO_RIGHT);

/// The table.
fn least(kind: GroupType, act: Act) -> Least {
    use GroupType::{AVChatRoom, Community, Meeting, Public, Work};
    use Rank::{Admin, App, Member, Outside, Owner};
    Least::Rank(match (act, kind) {
        (Act::EditFace, Work) => Member,
        (Act::EditFace | Act::EditProfile, Public | Meeting | Community) => Admin,
        (Act::EditFace, AVChatRoom) => Owner,
        (Act::EditProfile, Work | AVChatRoom) => Owner,

        (Act::EditApplyOption, Public | Meeting) => Admin,
        (Act::EditApplyOption, Work | AVChatRoom | Community) => return NO,
        (Act::EditInviteOption, Public | Meeting | Community) => Admin,
        (Act::EditInviteOption, Work) => Owner,
        (Act::EditInviteOption, AVChatRoom) => return NO,

        (Act::Appoint, Work) => return NO,
        (Act::Appoint, Public | Meeting | AVChatRoom | Community) => Owner,

        (Act::Kick(_), AVChatRoom) => return Least::Never(code::GROUP_BAD_PARAM),
        (Act::Kick(_), Work) => Owner,
        (Act::Kick(victim), Public | Meeting | Community) => above(victim),

        (Act::Mute(_), Work) => return NO,
        (Act::Mute(victim), Public | Meeting | AVChatRoom | Community) => above(victim),
        (Act::MuteAll, Work | AVChatRoom) => Owner,
        (Act::MuteAll, Public | Meeting | Community) => Admin,

        (Act::Ban(_), Community) => return NO,
        (Act::Ban(_), Work) => Owner,
        (Act::Ban(victim), Public | Meeting | AVChatRoom) => above(victim),

        (Act::Disband, Work) => App,
        (Act::Disband, Public | Meeting | AVChatRoom | Community) => Owner,
        (Act::Transfer, AVChatRoom) => return NO,
        (Act::Transfer, Work | Public | Meeting | Community) => Owner,

        (Act::Invite, AVChatRoom) => return NO,
        (Act::Invite, Work | Public | Meeting | Community) => Member,
        (Act::HandleApplication, AVChatRoom) => return NO,
        (Act::HandleApplication, Work) => Owner,
        (Act::HandleApplication, Public | Meeting | Community) => Admin,

        (Act::RecallOthers | Act::RecallOwn, AVChatRoom) => return NO,
        (Act::RecallOthers, Work) => Owner,
        (Act::RecallOthers, Public | Meeting | Community) => Admin,
        (Act::RecallOwn, Work | Public | Meeting | Community) => Member,

        (Act::EditMember, AVChatRoom) => return NO,
        (Act::EditMember, Work) => Owner,
        (Act::EditMember, Public | Meeting | Community) => Admin,
        (Act::ListMembers, AVChatRoom) => Outside,
        (Act::ListMembers, Work | Public | Meeting | Community) => Member,
        (Act::ReadMembers, AVChatRoom) => return NO,
        (Act::ReadMembers, Work | Public | Meeting | Community) => Outside,
        (Act::Quit, AVChatRoom) => Outside,
        (Act::Quit, Work | Public | Meeting | Community) => Member,

        (Act::Target, AVChatRoom | Community) => return NO,
        (Act::Target, Work | Public | Meeting) => Member,
        (Act::MentionAll, AVChatRoom) => return NO,
        (Act::MentionAll, Work | Public | Meeting) => Member,
        (Act::MentionAll, Community) => Admin,
        (Act::Notify, _) => App,
    })
}

/// Owners may act on everybody below them, admins on members and on people outside.
fn above(victim: Rank) -> Rank {
    match victim {
        Rank::Outside | Rank::Member => Rank::Admin,
        Rank::Admin => Rank::Owner,
        Rank::Owner | Rank::App => Rank::App,
    }
}

/// Whether somebody of `rank` may do `act` in a group of `kind`.
///
/// # Errors
/// The documented code: [`code::GROUP_NO_RIGHT`], or what the kind answers when it has no such operation.
pub fn allow(kind: GroupType, rank: Rank, act: Act) -> Result<(), Refusal> {
    match least(kind, act) {
        Least::Rank(least) if rank >= least => Ok(()),
        Least::Rank(_) => Err(Refusal::new(code::GROUP_NO_RIGHT, "no permission for this operation in the group")),
        Least::Never(code) => Err(Refusal::new(code, "the group type does not support this operation")),
    }
}

/// Whether the role exists in the kind.
#[must_use]
pub fn has_admins(kind: GroupType) -> bool {
    kind != GroupType::Work
}

/// Most admins of a group, 0 = no limit of its own.
#[must_use]
pub fn admin_cap(kind: GroupType) -> usize {
    if kind.is_live() { 5 } else { 0 }
}

/// What happens to a user who wants in (`spec/rest-groups.md` §1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// He is in.
    AtOnce,
    /// Owner or admins decide.
    Ask,
    /// No.
    Refused,
}

/// What happens to a user who applies.
#[must_use]
pub fn on_apply(kind: GroupType, option: ApplyJoinOption) -> Entry {
    match kind {
        GroupType::Work => Entry::Refused,
        GroupType::AVChatRoom | GroupType::Community => Entry::AtOnce,
        GroupType::Public | GroupType::Meeting => match option {
            ApplyJoinOption::FreeAccess => Entry::AtOnce,
            ApplyJoinOption::NeedPermission => Entry::Ask,
            ApplyJoinOption::DisableApply => Entry::Refused,
        },
    }
}

/// What happens to users whom somebody of `rank` brings in; owner and admins need nobody's consent but obey
/// `DisableInvite`.
#[must_use]
pub fn on_invite(kind: GroupType, option: InviteJoinOption, rank: Rank) -> Entry {
    if kind.is_live() || rank == Rank::Outside {
        return Entry::Refused;
    }
    match option {
        _ if rank == Rank::App => Entry::AtOnce,
        InviteJoinOption::FreeAccess => Entry::AtOnce,
        InviteJoinOption::NeedPermission if rank >= Rank::Admin => Entry::AtOnce,
        InviteJoinOption::NeedPermission => Entry::Ask,
        InviteJoinOption::DisableInvite => Entry::Refused,
    }
}

/// Who may enter on his own when the creator says nothing, or what the kind fixes.
#[must_use]
pub fn apply_default(kind: GroupType) -> ApplyJoinOption {
    match kind {
        GroupType::Work => ApplyJoinOption::DisableApply,
        GroupType::Public => ApplyJoinOption::NeedPermission,
        GroupType::Meeting | GroupType::AVChatRoom | GroupType::Community => ApplyJoinOption::FreeAccess,
    }
}

/// Whether the creator may choose who enters on his own.
#[must_use]
pub fn apply_is_free(kind: GroupType) -> bool {
    matches!(kind, GroupType::Public | GroupType::Meeting)
}

/// Whether members may bring others in when the creator says nothing.
#[must_use]
pub fn invite_default(kind: GroupType) -> InviteJoinOption {
    match kind {
        GroupType::Work | GroupType::Community => InviteJoinOption::FreeAccess,
        GroupType::Public | GroupType::Meeting | GroupType::AVChatRoom => InviteJoinOption::DisableInvite,
    }
}

/// Whether a newcomer reads what was said before he came, when the group does not say (`spec/rest-groups.md` §1.4).
#[must_use]
pub fn shows_earlier(kind: GroupType) -> bool {
    matches!(kind, GroupType::Meeting | GroupType::Community)
}

/// Whether the group may say it itself.
#[must_use]
pub fn earlier_is_free(kind: GroupType) -> bool {
    matches!(kind, GroupType::Work | GroupType::Public | GroupType::Meeting)
}

/// What a member may choose of how messages reach him (`spec/rest-groups.md` §1.4, `spec/client-api.md` §12).
pub const MSG_FLAGS: [&str; 5] =
    ["AcceptAndNotify", "AcceptNotNotify", "Discard", "AcceptNotNotifyExceptAt", "NotReceiveMsgExceptAt"];

/// A member's receive option when he has not chosen.
#[must_use]
pub fn msg_flag_default(kind: GroupType) -> &'static str {
    match kind {
        GroupType::Meeting | GroupType::AVChatRoom => "AcceptNotNotify",
        GroupType::Work | GroupType::Public | GroupType::Community => "AcceptAndNotify",
    }
}

/// Families of tips that are switched together (`spec/rest-groups.md` §1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TipFamily {
    /// Joined, invited, kicked, left.
    Members,
    /// Name, notification, introduction, face or owner changed.
    Face,
    /// Mute-all or join options changed.
    Options,
    /// A member was muted, an admin set or unset.
    Standing,
}

/// What becomes of a tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipFate {
    /// Not sent.
    Off,
    /// Sent to who is online; takes no seq.
    Sent,
    /// Sent and stored; takes a seq.
    Stored,
}

/// What becomes of a tip in a group of `kind`.
#[must_use]
pub fn tip_fate(kind: GroupType, family: TipFamily) -> TipFate {
    use GroupType::{AVChatRoom, Community, Meeting, Public, Work};
    match (family, kind) {
        (TipFamily::Members | TipFamily::Standing, Work | Public | Community) => TipFate::Stored,
        (TipFamily::Face, Work | Public | Meeting | Community) => TipFate::Stored,
        (TipFamily::Members | TipFamily::Face, AVChatRoom) => TipFate::Sent,
        (TipFamily::Members | TipFamily::Standing, Meeting) | (TipFamily::Standing, AVChatRoom) => TipFate::Off,
        (TipFamily::Options, _) => TipFate::Off,
    }
}

#[cfg(test)]
mod tests;
