//! Plain data of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use linnet_types::{ApplyJoinOption, ConvId, Epoch, GroupId, GroupType, InviteJoinOption, Role, SdkAppId, Seq};
use linnet_types::{UnixMillis, UserId};

/// Partitions a group's members spread over, by kind.
#[must_use]
pub fn slots_of(kind: GroupType) -> u16 {
    match kind {
        GroupType::Community => 64,
        GroupType::Work | GroupType::Public | GroupType::Meeting | GroupType::AVChatRoom => 1,
    }
}

/// What a group id means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName {
    /// The conversation.
    pub conv: ConvId,
    /// Incarnation: rises with every reuse of the id.
    pub generation: u32,
    /// Kind.
    pub kind: GroupType,
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Tenant.
    pub app: SdkAppId,
    /// Inner name.
    pub conv: ConvId,
    /// Public id.
    pub group: GroupId,
    /// Incarnation of the id.
    pub generation: u32,
    /// Kind.
    pub kind: GroupType,
    /// Partitions its members spread over.
    pub slots: u16,
    /// Name.
    pub name: String,
    /// Introduction.
    pub introduction: String,
    /// Notification.
    pub notification: String,
    /// Picture.
    pub face_url: String,
    /// Owner; `None` = ownerless.
    pub owner: Option<UserId>,
    /// Admins, without the owner.
    pub admins: BTreeSet<UserId>,
    /// Creation, or what an import said.
    pub created: UnixMillis,
    /// Last change of the profile.
    pub last_info: UnixMillis,
    /// Rises with every change of the profile.
    pub info_seq: u64,
    /// Stored members.
    pub member_count: u32,
    /// Most members.
    pub max_members: u32,
    /// Who may enter on their own.
    pub apply: ApplyJoinOption,
    /// Whether members may bring others in.
    pub invite: InviteJoinOption,
    /// Only owner and admins may speak.
    pub mute_all: bool,
    /// Custom fields.
    pub custom: BTreeMap<String, String>,
    /// Members see what was said before they joined.
    pub history_before_join: bool,
    /// Whether members see a Work group already.
    pub activated: bool,
    /// A community with topics.
    pub support_topic: bool,
    /// JSON object for what has no field of its own; may be empty.
    pub settings: String,
    /// Live rooms: sequences up to here, exclusive, are handed out.
    pub live_seq: u64,
    /// When it was dismissed.
    pub destroyed: Option<UnixMillis>,
}

impl GroupRecord {
    /// A nameless, ownerless group with the least restrictive options.
    #[must_use]
    pub fn new(app: SdkAppId, conv: ConvId, group: GroupId, kind: GroupType, now: UnixMillis) -> Self {
        Self {
            app,
            conv,
            group,
            generation: 0,
            kind,
            slots: slots_of(kind),
            name: String::new(),
            introduction: String::new(),
            notification: String::new(),
            face_url: String::new(),
            owner: None,
            admins: BTreeSet::new(),
            created: now,
            last_info: now,
            info_seq: 0,
            member_count: 0,
            max_members: 0,
            apply: ApplyJoinOption::FreeAccess,
            invite: InviteJoinOption::FreeAccess,
            mute_all: false,
            custom: BTreeMap::new(),
            history_before_join: false,
            activated: true,
            support_topic: false,
            settings: String::new(),
            live_seq: 0,
            destroyed: None,
        }
    }

    /// The role `user` has if he is a member.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Role {
        if self.owner.as_ref() == Some(user) {
            Role::Owner
        } else if self.admins.contains(user) {
            Role::Admin
        } else {
            Role::Member
        }
    }

    /// Gives `user` a role; a new owner replaces the old one, who becomes an ordinary member.
    pub fn set_role(&mut self, user: &UserId, role: Role) {
        self.admins.remove(user);
        if self.owner.as_ref() == Some(user) {
            self.owner = None;
        }
        match role {
            Role::Owner => self.owner = Some(user.clone()),
            Role::Admin => {
                self.admins.insert(user.clone());
            }
            Role::Member => {}
        }
    }

    /// Members by role: owner, admins, ordinary. Exact while owner and admins are members, which every change of stored
    /// members keeps so.
    #[must_use]
    pub fn count_by_role(&self) -> (u32, u32, u32) {
        let owner = u32::from(self.owner.is_some());
        let admins = u32::try_from(self.admins.len()).unwrap_or(u32::MAX);
        (owner, admins, self.member_count.saturating_sub(owner.saturating_add(admins)))
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Role. Kept in the group's record; what a put says here is carried over there in the same change.
    pub role: Role,
    /// When he joined.
    pub joined: UnixMillis,
    /// Head of the log at the join.
    pub join_seq: Seq,
    /// Countable messages up to `join_seq`: where his unread count begins.
    pub join_ord: u64,
    /// First seq he may read.
    pub visible_from: Seq,
    /// Name card.
    pub name_card: String,
    /// Custom fields.
    pub custom: BTreeMap<String, String>,
    /// Receive option, wire value; empty = the default of the kind.
    pub msg_flag: String,
    /// When he last sent; written behind, never per message.
    pub last_send: Option<UnixMillis>,
}

impl Member {
    /// An ordinary member who joins at `join_seq` and sees what comes after it.
    #[must_use]
    pub fn new(user: UserId, joined: UnixMillis, join_seq: Seq) -> Self {
        Self {
            user,
            role: Role::Member,
            joined,
            join_seq,
            join_ord: 0,
            visible_from: join_seq.next(),
            name_card: String::new(),
            custom: BTreeMap::new(),
            msg_flag: String::new(),
            last_send: None,
        }
    }
}

/// A mute or a ban. It outlives membership, and counts until `until`, whether or not the row is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// Until when.
    pub until: UnixMillis,
    /// Since when.
    pub since: UnixMillis,
    /// Who did it.
    pub operator: String,
    /// Why.
    pub description: String,
}

/// An application or invitation that waits for consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// When it was made.
    pub at: UnixMillis,
    /// Who invited; `None` = the applicant himself.
    pub inviter: Option<UserId>,
    /// The applicant's words.
    pub text: String,
}

/// Everything a group knows about one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    /// Who.
    pub user: UserId,
    /// Membership.
    pub member: Option<Member>,
    /// Mute, expired ones too.
    pub mute: Option<Restriction>,
    /// Ban, expired ones too.
    pub ban: Option<Restriction>,
    /// Pending application.
    pub application: Option<Application>,
}

/// What happens to one fact about an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// Stays as it is.
    #[default]
    Keep,
    /// Is this from now on.
    Put(T),
    /// Goes; absent is fine.
    Remove,
}

impl<T> Edit<T> {
    pub(super) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// What happens to one account, in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEdit {
    /// Who.
    pub user: UserId,
    /// Membership; its end takes role and application with it.
    pub member: Edit<Member>,
    /// Mute.
    pub mute: Edit<Restriction>,
    /// Ban.
    pub ban: Edit<Restriction>,
    /// Pending application.
    pub application: Edit<Application>,
}

impl UserEdit {
    /// Changes nothing yet.
    #[must_use]
    pub fn new(user: UserId) -> Self {
        Self { user, member: Edit::Keep, mute: Edit::Keep, ban: Edit::Keep, application: Edit::Keep }
    }
    /// Adds or replaces the membership; a pending application is settled by it.
    #[must_use]
    pub fn put(member: Member) -> Self {
        let user = member.user.clone();
        Self { member: Edit::Put(member), application: Edit::Remove, ..Self::new(user) }
    }
    /// Ends the membership.
    #[must_use]
    pub fn remove(user: UserId) -> Self {
        Self { member: Edit::Remove, application: Edit::Remove, ..Self::new(user) }
    }
    /// Mutes or unmutes.
    #[must_use]
    pub fn with_mute(self, mute: Edit<Restriction>) -> Self {
        Self { mute, ..self }
    }
    /// Bans or unbans.
    #[must_use]
    pub fn with_ban(self, ban: Edit<Restriction>) -> Self {
        Self { ban, ..self }
    }
    /// Files or settles an application.
    #[must_use]
    pub fn with_application(self, application: Edit<Application>) -> Self {
        Self { application, ..self }
    }
}

/// An event of a group's state; its row is in the batch of the change it tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The account it is about, if one of those the change edits: it is then in that account's batch. Else it goes with
    /// the record, which is written last.
    pub about: Option<UserId>,
    /// Name of the event.
    pub event: String,
    /// JSON.
    pub body: Bytes,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Rises through the life of the group, with holes.
    pub no: u64,
    /// Time of the change.
    pub at: UnixMillis,
    /// Name of the event.
    pub event: String,
    /// JSON.
    pub body: Bytes,
}

/// A change of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: UnixMillis,
    /// The record afterwards. What identifies the group, counters and `destroyed` are the store's and ignored here.
    pub record: Option<GroupRecord>,
    /// What happens to accounts; each at most once.
    pub users: Vec<UserEdit>,
    /// What is told about it, in order.
    pub events: Vec<Event>,
}

impl Change {
    /// Changes nothing yet.
    #[must_use]
    pub fn at(at: UnixMillis) -> Self {
        Self { at, record: None, users: Vec::new(), events: Vec::new() }
    }
    /// Replaces the record.
    #[must_use]
    pub fn record(mut self, record: GroupRecord) -> Self {
        self.record = Some(record);
        self
    }
    /// Edits one account.
    #[must_use]
    pub fn user(mut self, edit: UserEdit) -> Self {
        self.users.push(edit);
        self
    }
    /// Tells of it.
    #[must_use]
    pub fn event(mut self, about: Option<UserId>, event: impl Into<String>, body: impl Into<Bytes>) -> Self {
        self.events.push(Event { about, event: event.into(), body: body.into() });
        self
    }
}

/// What a change did to memberships.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// New members.
    pub added: Vec<UserId>,
    /// Members no more.
    pub removed: Vec<UserId>,
}

/// A group of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Inner name.
    pub conv: ConvId,
    /// Public id.
    pub group: GroupId,
    /// Kind.
    pub kind: GroupType,
    /// His role.
    pub role: Role,
    /// When he joined.
    pub joined: UnixMillis,
    /// First seq he may read, as of his join.
    pub visible_from: Seq,
    /// Countable messages before his join.
    pub join_ord: u64,
    /// Head of the log at his join.
    pub join_seq: Seq,
}

/// A group of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppGroup {
    /// Inner name; the listing goes on after it.
    pub conv: ConvId,
    /// Public id.
    pub group: GroupId,
    /// Kind.
    pub kind: GroupType,
    /// When it was created.
    pub created: UnixMillis,
}

/// A group whose owner has not closed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGroup {
    /// Tenant.
    pub app: SdkAppId,
    /// Inner name.
    pub conv: ConvId,
    /// The epoch it was opened with.
    pub epoch: Epoch,
}

/// Where a listing of members goes on; as text it is what callers hand back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberCursor {
    pub(super) slot: u16,
    pub(super) after: UserId,
}

impl fmt::Display for MemberCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.slot, self.after)
    }
}

impl FromStr for MemberCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (slot, after) = text.split_once('.').ok_or(())?;
        let slot = u16::from_str_radix(slot, 16).map_err(drop)?;
        if after.len() > linnet_types::id::ANY_ID_BYTES {
            return Err(());
        }
        Ok(Self { slot, after: UserId::trusted(after) })
    }
}
