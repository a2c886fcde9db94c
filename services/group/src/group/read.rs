//! What callers are shown.

use std::str::FromStr as _;

use linnet_proto::group::{self as pb, AuthorizeReply, AuthorizeRequest, InfoReply, MembersReply, MembersRequest};
use linnet_store::groups::{Member, MemberCursor, Restriction};
use linnet_types::{GroupType, Refusal, Role, UserId, code};

use super::Group;
use super::members::{FOREVER_S, key_values};
use crate::error::{Result, bad, no_right};
use crate::limits;
use crate::rules::{self, Act};

/// Life of a read grant.
const GRANT_MS: u64 = 60_000;
/// Members shown when the caller does not say.
const PAGE: u32 = 100;

impl Group {
    /// The profile.
    pub(crate) fn shown(&self) -> pb::Group {
        let record = self.record();
        let next = self.live.as_ref().map_or(self.head.0 + 1, super::Live::next_seq);
        pb::Group {
            group_id: record.group.to_string(),
            conv: record.conv.0,
            r#type: record.kind.wire().to_owned(),
            name: record.name.clone(),
            introduction: record.introduction.clone(),
            notification: record.notification.clone(),
            face_url: record.face_url.clone(),
            owner: record.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
            create_time_s: record.created.secs(),
            info_seq: record.info_seq,
            last_info_time_s: record.last_info.secs(),
            last_msg_time_s: self.last_ms / 1_000,
            next_msg_seq: next,
            member_num: self.count(),
            max_member_num: record.max_members,
            apply_join_option: record.apply.wire().to_owned(),
            invite_join_option: record.invite.wire().to_owned(),
            mute_all: record.mute_all,
            support_topic: record.support_topic,
            history_before_join: record.history_before_join,
            custom: key_values(&record.custom),
            admins: record.admins.iter().map(ToString::to_string).collect(),
            activated: record.activated,
            epoch: self.held.epoch().0,
            online: self.live.as_ref().map_or(0, super::Live::online),
        }
    }

    /// The profile and the caller's own membership.
    pub(crate) async fn info(&mut self, myself: &str) -> Result<InfoReply> {
        let mut reply = InfoReply { group: Some(self.shown()), ..InfoReply::default() };
        if !myself.is_empty() && !self.kind().is_live() {
            let state = self.state(&UserId::trusted(myself)).await?;
            let mute = state.mute.clone();
            reply.self_ = state.member.map(|member| self.member_shown(&member, mute.as_ref()));
        }
        Ok(reply)
    }

    pub(crate) fn member_shown(&self, member: &Member, mute: Option<&Restriction>) -> pb::Member {
        let now = self.now();
        let mute = mute.filter(|mute| mute.until > now);
        let default = rules::msg_flag_default(self.kind());
        pb::Member {
            user: member.user.to_string(),
            role: self.record().role(&member.user).wire().to_owned(),
            join_time_s: member.joined.secs(),
            msg_flag: if member.msg_flag.is_empty() { default.to_owned() } else { member.msg_flag.clone() },
            last_send_time_s: member.last_send.map_or(0, |at| at.secs()),
            name_card: member.name_card.clone(),
            mute_until_s: mute
                .map_or(0, |mute| if mute.until.0 == u64::MAX { FOREVER_S } else { mute.until.0.div_ceil(1_000) }),
            custom: key_values(&member.custom),
            ..pb::Member::default()
        }
    }

    /// A page of members, or some by name.
    pub(crate) async fn members(&mut self, request: &MembersRequest) -> Result<MembersReply> {
        let origin = request.origin.clone().unwrap_or_default();
        self.allow(&origin, Act::ListMembers).await?;
        if self.kind().is_live() {
            return self.viewers(request, origin.admin);
        }
        if !request.only.is_empty() {
            return self.named(request).await;
        }
        let limit = if request.limit == 0 { PAGE } else { request.limit.min(limits::MEMBERS_PAGE) } as usize;
        let roles: Vec<Role> = request.roles.iter().filter_map(|role| Role::parse(role)).collect();
        if self.index.is_whole() { self.page(request, &roles, limit) } else { self.scan(request, &roles, limit).await }
    }

    /// A live room shows its newest viewers, and its owner and admins.
    fn viewers(&self, request: &MembersRequest, admin: bool) -> Result<MembersReply> {
        if admin {
            rules::allow(self.kind(), rules::Rank::App, Act::ReadMembers)?;
        }
        let limit = if request.limit == 0 { PAGE } else { request.limit.min(1_000) } as usize;
        let role_wanted = |role: Role| request.roles.is_empty() || request.roles.iter().any(|r| r == role.wire());
        let mut seen = std::collections::HashSet::new();
        let shown = self.recent(1_000).into_iter().filter_map(|viewer| {
            let role = self.record().role(&UserId::trusted(viewer.user.as_str()));
            (role_wanted(role) && seen.insert(viewer.user.clone())).then(|| pb::Member {
                user: viewer.user,
                role: role.wire().to_owned(),
                join_time_s: viewer.joined_ms / 1_000,
                ..pb::Member::default()
            })
        });
        let members = shown.skip(request.offset as usize).take(limit).collect();
        Ok(MembersReply { member_num: self.count(), members, cursor: String::new() })
    }

    async fn named(&mut self, request: &MembersRequest) -> Result<MembersReply> {
        limits::accounts("Member_List_Account", request.only.len(), limits::MEMBERS_NAMED)?;
        let users: Vec<UserId> = request.only.iter().map(|user| UserId::trusted(user.as_str())).collect();
        let states = self.states(&users).await?;
        let members = states
            .into_iter()
            .filter_map(|state| Some(self.member_shown(state.member.as_ref()?, state.mute.as_ref())))
            .collect();
        Ok(MembersReply { member_num: self.count(), members, cursor: String::new() })
    }

    /// From memory, in the order of joining.
    fn page(&self, request: &MembersRequest, roles: &[Role], limit: usize) -> Result<MembersReply> {
        let offset = match request.cursor.as_str() {
            "" => request.offset as usize,
            cursor => cursor.parse().map_err(|_| bad("Next is not one of ours"))?,
        };
        let wanted = |member: &&Member| roles.is_empty() || roles.contains(&self.record().role(&member.user));
        let mut all: Vec<&Member> = self.index.members().values().filter(wanted).collect();
        all.sort_unstable_by(|a, b| (a.joined, &a.user).cmp(&(b.joined, &b.user)));
        let page = all.iter().skip(offset).take(limit);
        let members: Vec<_> =
            page.map(|member| self.member_shown(member, self.index.mutes().get(&member.user))).collect();
        let next = offset + members.len();
        let cursor = if next < all.len() { next.to_string() } else { String::new() };
        Ok(MembersReply { member_num: self.count(), members, cursor })
    }

    /// From the store, in a fixed order.
    async fn scan(&mut self, request: &MembersRequest, roles: &[Role], limit: usize) -> Result<MembersReply> {
        let groups = self.shared.groups.clone();
        let managers_only = !roles.is_empty() && !roles.contains(&Role::Member);
        let (members, next) = if managers_only {
            let read = groups.managers(&mut self.held).await;
            (self.store(read)?, None)
        } else {
            let from = match request.cursor.as_str() {
                "" => None,
                cursor => Some(MemberCursor::from_str(cursor).map_err(|()| bad("Next is not one of ours"))?),
            };
            let read = groups.members(&self.held, from.as_ref(), limit).await;
            self.store(read)?
        };
        let wanted = |member: &&Member| roles.is_empty() || roles.contains(&self.record().role(&member.user));
        let shown: Vec<&Member> = members.iter().filter(wanted).collect();
        let members = shown
            .into_iter()
            .map(|member| {
                let mute = self.index.get(&member.user).and_then(|state| state.mute);
                self.member_shown(member, mute.as_ref())
            })
            .collect();
        let cursor = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(MembersReply { member_num: self.count(), members, cursor })
    }

    /// Roles of some accounts, in order.
    pub(crate) async fn roles(&mut self, users: &[UserId]) -> Result<Vec<String>> {
        rules::allow(self.kind(), rules::Rank::App, Act::ReadMembers)?;
        let states = self.states(users).await?;
        let role = |state: &linnet_store::groups::UserState| match state.member {
            Some(_) => self.record().role(&state.user).wire().to_owned(),
            None => "NotMember".to_owned(),
        };
        Ok(states.iter().map(role).collect())
    }

    /// Leave to read the log.
    pub(crate) async fn authorize(&mut self, request: &AuthorizeRequest) -> Result<AuthorizeReply> {
        if self.kind() == GroupType::AVChatRoom {
            let refused = if request.admin { code::GROUP_NO_RIGHT } else { code::GROUP_NO_ROAMING };
            return Err(Refusal::new(refused, "a live room keeps no history"));
        }
        let mut reply = AuthorizeReply {
            conv: self.held.conv().0,
            until_ms: self.now().plus_ms(GRANT_MS).0,
            r#type: self.kind().wire().to_owned(),
            retention_days: self.app.settings.retention_days,
            membership_version: (self.held.epoch().0 << 24) | (self.version & 0xff_ffff),
            member_num: self.count(),
            ..AuthorizeReply::default()
        };
        if request.admin {
            return Ok(reply);
        }
        let user = UserId::trusted(request.user.as_str());
        let Some(member) = self.state(&user).await?.member else {
            return Err(no_right("the user is not a member of the group"));
        };
        self.record().role(&user).wire().clone_into(&mut reply.role);
        if !self.record().history_before_join {
            reply.floor_seq = member.visible_from.0.saturating_sub(1);
        }
        Ok(reply)
    }
}
