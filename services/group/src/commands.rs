//! Commands as they come in: what is asked of others before the group's actor has its turn.
//!
//! Accounts and before-webhooks are asked here, so nothing slow is awaited inside a group.

use std::collections::HashSet;

use linnet_proto::group::{
    AddMembersReply, AddMembersRequest, BanRequest, HandleApplicationRequest, JoinReply, JoinRequest,
    ModifyMemberRequest, MuteRequest, RemoveMembersRequest, RolesRequest, UnbanRequest,
};
use linnet_proto::msg::Origin;
use linnet_types::{AppSettings, GroupId, Refusal, SdkAppId, UserId, code};

use crate::error::{Result, bad};
use crate::group::Add;
use crate::hooks::{self, Body, command};
use crate::limits;
use crate::remote::{People, wants};
use crate::shared::Shared;

/// Checks accounts named by a caller.
pub(crate) fn users(field: &str, names: &[String], cap: usize) -> Result<Vec<UserId>> {
    limits::accounts(field, names.len(), cap)?;
    names.iter().map(|name| UserId::parse(name).map_err(|_| bad("an account of the list cannot be one"))).collect()
}

impl Shared {
    /// Names for tips: those of `users` and of whoever asks.
    pub(crate) async fn names_with(&self, app: SdkAppId, users: &[UserId], origin: &Origin) -> People {
        let mut all = users.to_vec();
        if !origin.operator.is_empty() {
            all.push(UserId::trusted(origin.operator.as_str()));
        }
        self.names(app, &all).await
    }

    pub(crate) async fn add_members(&self, request: AddMembersRequest) -> Result<AddMembersReply> {
        let app = self.app(SdkAppId(request.app)).await?;
        let group = GroupId::parse(&request.group_id)?;
        let origin = request.origin.unwrap_or_default();
        let cap = if origin.admin { limits::ADD_MEMBERS } else { limits::INVITE_MEMBERS };
        limits::accounts("MemberList", request.users.len(), cap)?;
        // Ids that cannot be accounts are unknown ones.
        let users: Vec<UserId> = request.users.iter().map(|user| UserId::trusted(user.as_str())).collect();
        let mut asked = users.clone();
        asked.push(UserId::trusted(origin.operator.as_str()));
        let people = self.people(app.id, &asked).await?;
        let refused = self.ask_invite(app.id, &app.settings, &group, &users, &origin).await?;
        let over_cap = self.over_cap(app.id, &users, &people, app.settings.groups_per_user).await?;
        let add = Add { users, silence: request.silence, origin, people, refused, over_cap };
        let results = self.call(app.id, &group, move |group| Box::pin(group.add(add))).await?;
        Ok(AddMembersReply { results })
    }

    /// The app's server may refuse all or some.
    async fn ask_invite(
        &self,
        app: SdkAppId,
        settings: &AppSettings,
        group: &GroupId,
        users: &[UserId],
        origin: &Origin,
    ) -> Result<HashSet<String>> {
        if !wants(settings, command::BEFORE_INVITE) {
            return Ok(HashSet::new());
        }
        let handle = self.hub.get(self, app, group).await?;
        let now = self.clock.now();
        let body = Body::of(group.as_str(), handle.kind, now).operator(origin).accounts("DestinationMembers", users);
        let id = format!("g{}-invite-{}", handle.conv.0, self.rng.token(8));
        let event = hooks::event(app, command::BEFORE_INVITE, handle.conv.0, id, body.json(), origin, now);
        let reply = self.ask(settings, event).await?;
        Ok(reply.map(|reply| reply.refused_members.into_iter().collect()).unwrap_or_default())
    }

    pub(crate) async fn remove_members(&self, request: RemoveMembersRequest) -> Result<()> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        let origin = request.origin.unwrap_or_default();
        limits::text("Reason", &request.reason, limits::WORDING_BYTES)?;
        let users = users("MemberToDel_Account", &request.users, limits::REMOVE_MEMBERS)?;
        let people = self.names_with(app, &users, &origin).await;
        let (silence, reason) = (request.silence, request.reason);
        self.call(app, &group, move |group| {
            Box::pin(async move { group.remove(users, silence, &reason, &origin, &people).await })
        })
        .await
    }

    pub(crate) async fn modify_member(&self, request: ModifyMemberRequest) -> Result<()> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        let user = UserId::parse(&request.user).map_err(|_| bad("Member_Account cannot be an account"))?;
        let origin = request.origin.clone().unwrap_or_default();
        let people = self.names_with(app, &[user], &origin).await;
        self.call(app, &group, move |group| Box::pin(async move { group.modify_member(request, &people).await })).await
    }

    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinReply> {
        let app = self.app(SdkAppId(request.app)).await?;
        let group = GroupId::parse(&request.group_id)?;
        let user = UserId::parse(&request.user)?;
        let origin = request.origin.clone().unwrap_or_default();
        let people = self.people(app.id, std::slice::from_ref(&user)).await?;
        if !people.exists(&user) {
            return Err(Refusal::new(code::GROUP_NO_USER, "the account does not exist"));
        }
        let handle = self.hub.get(self, app.id, &group).await?;
        self.ask_join(app.id, &app.settings, &group, &handle, &request, &origin).await?;
        if !handle.kind.is_live() {
            let over = self.groups_of(app.id, &user).await? >= app.settings.groups_per_user as usize;
            // Who is in already only hears so.
            if over && !self.is_member(app.id, &user, handle.conv).await? {
                return Err(Refusal::new(code::GROUP_USER_CAP, "the user is in as many groups as he may be"));
            }
        }
        self.call(app.id, &group, move |group| Box::pin(async move { group.join(&request, &people).await })).await
    }

    async fn is_member(&self, app: SdkAppId, user: &UserId, conv: linnet_types::ConvId) -> Result<bool> {
        let joined = self.groups.joined(app, user).await.map_err(|error| crate::error::from_store(&error).0)?;
        Ok(joined.iter().any(|group| group.conv == conv))
    }

    async fn ask_join(
        &self,
        app: SdkAppId,
        settings: &AppSettings,
        group: &GroupId,
        handle: &crate::hub::Handle,
        request: &JoinRequest,
        origin: &Origin,
    ) -> Result<()> {
        if !wants(settings, command::BEFORE_APPLY) {
            return Ok(());
        }
        let now = self.clock.now();
        let body = Body::of(group.as_str(), handle.kind, now).with("Requestor_Account", &request.user);
        let id = format!("g{}-apply-{}", handle.conv.0, self.rng.token(8));
        let event = hooks::event(app, command::BEFORE_APPLY, handle.conv.0, id, body.json(), origin, now);
        self.ask(settings, event).await.map(drop)
    }

    pub(crate) async fn handle_application(&self, request: HandleApplicationRequest) -> Result<()> {
        let app = self.app(SdkAppId(request.app)).await?;
        let group = GroupId::parse(&request.group_id)?;
        let user = UserId::parse(&request.id).map_err(|_| bad("no such application"))?;
        let origin = request.origin.clone().unwrap_or_default();
        let people = self.names_with(app.id, std::slice::from_ref(&user), &origin).await;
        let full = self.groups_of(app.id, &user).await? >= app.settings.groups_per_user as usize;
        if request.accept && full {
            return Err(Refusal::new(code::GROUP_USER_CAP, "the user is in as many groups as he may be"));
        }
        self.call(app.id, &group, move |group| Box::pin(async move { group.handle(&request, &people).await })).await
    }

    pub(crate) async fn mute(&self, request: MuteRequest) -> Result<()> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        let origin = request.origin.unwrap_or_default();
        let users = users("Members_Account", &request.users, limits::MUTES)?;
        let people = self.names_with(app, &users, &origin).await;
        let seconds = request.mute_s;
        self.call(app, &group, move |group| Box::pin(async move { group.mute(users, seconds, &origin, &people).await }))
            .await
    }

    pub(crate) async fn ban(&self, request: BanRequest) -> Result<()> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        let origin = request.origin.clone().unwrap_or_default();
        limits::text("Description", &request.description, limits::BAN_DESCRIPTION_BYTES)?;
        let users = users("Members_Account", &request.users, limits::BANS)?;
        let people = self.names_with(app, &users, &origin).await;
        self.call(app, &group, move |group| Box::pin(async move { group.ban(&request, users, &people).await })).await
    }

    pub(crate) async fn unban(&self, request: UnbanRequest) -> Result<()> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        let origin = request.origin.unwrap_or_default();
        let users = users("Members_Account", &request.users, limits::BANS)?;
        let people = self.names_with(app, &users, &origin).await;
        self.call(app, &group, move |group| Box::pin(async move { group.unban(users, &origin, &people).await })).await
    }

    pub(crate) async fn roles(&self, request: RolesRequest) -> Result<Vec<String>> {
        let (app, group) = (SdkAppId(request.app), GroupId::parse(&request.group_id)?);
        limits::accounts("User_Account", request.users.len(), limits::ROLES)?;
        let users: Vec<UserId> = request.users.iter().map(|user| UserId::trusted(user.as_str())).collect();
        self.call(app, &group, move |group| Box::pin(async move { group.roles(&users).await })).await
    }
}
