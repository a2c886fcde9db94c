//! Making a group.

use linnet_proto::group::{CreateReply, CreateRequest};
use linnet_proto::msg::Origin;
use linnet_store::groups::{Created, Event, GroupName, GroupRecord, Member, NewGroup};
use linnet_types::id::{COMMUNITY_PREFIX, GROUP_PREFIX};
use linnet_types::{
    AppSettings, ApplyJoinOption, ConvId, GroupId, GroupType, InviteJoinOption, Refusal, Role, SdkAppId, Seq,
    UnixMillis, UserId, code,
};
use serde_json::json;

use crate::error::{Result, bad, from_store, no_right};
use crate::group::{Group, custom_text, set_custom};
use crate::hooks::{self, Body, command};
use crate::limits;
use crate::remote::{People, wants};
use crate::rules;
use crate::shared::Shared;
use crate::tips::NoticeKind;

/// Attempts to find a free id and conversation.
const TRIES: u32 = 4;

/// A request that was looked at: what is created if nothing refuses.
struct Plan {
    kind: GroupType,
    owner: Option<UserId>,
    members: Vec<(UserId, Role)>,
    origin: Origin,
    request: CreateRequest,
}

impl Shared {
    /// Creates a group.
    ///
    /// # Errors
    /// The documented codes; nothing is created then.
    pub(crate) async fn create(&self, request: CreateRequest) -> Result<CreateReply> {
        let app = self.app(SdkAppId(request.app)).await?;
        let plan = plan(request, &app.settings)?;
        let mut users: Vec<UserId> = plan.members.iter().map(|(user, _)| user.clone()).collect();
        users.extend(plan.owner.clone());
        let people = self.people(app.id, &users).await?;
        if let Some(stranger) = users.iter().find(|user| !people.exists(user)) {
            tracing::debug!(user = %stranger, "an unknown account in create_group");
            return Err(Refusal::new(code::GROUP_NO_USER, "owner or a member does not exist"));
        }
        self.check_caps(app.id, &plan, &app.settings).await?;
        self.ask_create(app.id, &plan, &app.settings).await?;
        let mut tries = 0;
        let held = loop {
            tries += 1;
            let conv = self.ids.fresh().await.map_err(|error| from_store(&error).0)?;
            let new = self.new_group(app.id, conv, &plan, &app.settings)?;
            let generated = plan.request.group_id.is_empty();
            match self.groups.create(new).await {
                Ok(Created::New(held)) => break held,
                Ok(Created::Taken(_)) if generated && tries < TRIES => {}
                Ok(Created::Taken(name)) => return Err(self.taken(app.id, &name, plan.owner.as_ref()).await),
                Err(error) => return Err(from_store(&error).0),
            }
        };
        let reply = CreateReply { group_id: held.record().group.to_string(), r#type: plan.kind.wire().to_owned() };
        // The group exists; that it cannot be started now is not the creator's trouble.
        match self.hub.adopt(self, held).await {
            Ok(handle) => {
                let origin = plan.origin.clone();
                let members = plan.owner.iter().chain(plan.members.iter().map(|(user, _)| user)).cloned().collect();
                let told = handle.call(move |group| {
                    Box::pin(async move {
                        group.tell_created(members, &origin);
                        Ok(())
                    })
                });
                if let Err(refusal) = told.await {
                    tracing::debug!(%refusal, "nobody was told of a new group");
                }
            }
            Err(refusal) => tracing::warn!(%refusal, "a new group could not be started yet"),
        }
        Ok(reply)
    }

    /// The caps of the users who would be in it.
    async fn check_caps(&self, app: SdkAppId, plan: &Plan, settings: &AppSettings) -> Result<()> {
        if plan.kind.is_live() {
            return Ok(());
        }
        let Some(owner) = &plan.owner else { return Ok(()) };
        if self.groups_of(app, owner).await? >= settings.groups_per_user as usize {
            return Err(Refusal::new(code::GROUP_USER_CAP, "the owner is in as many groups as he may be"));
        }
        Ok(())
    }

    /// How many groups a user is in.
    pub(crate) async fn groups_of(&self, app: SdkAppId, user: &UserId) -> Result<usize> {
        self.groups.joined(app, user).await.map(|joined| joined.len()).map_err(|error| from_store(&error).0)
    }

    async fn ask_create(&self, app: SdkAppId, plan: &Plan, settings: &AppSettings) -> Result<()> {
        if !wants(settings, command::BEFORE_CREATE) {
            return Ok(());
        }
        let now = self.clock.now();
        let owned = match &plan.owner {
            None => 0,
            Some(owner) => {
                let joined = self.groups.joined(app, owner).await.map_err(|error| from_store(&error).0)?;
                joined.iter().filter(|group| group.kind == plan.kind && group.role == Role::Owner).count()
            }
        };
        let body = Body::default()
            .with("Type", plan.kind.wire())
            .with("EventTime", &now.0)
            .operator(&plan.origin)
            .with("Owner_Account", plan.owner.as_ref().map_or("", UserId::as_str))
            .with("Name", &plan.request.name)
            .with("CreateGroupNum", &owned)
            .accounts("MemberList", plan.members.iter().map(|(user, _)| user));
        let id = format!("create-{}", self.rng.token(8));
        let event = hooks::event(app, command::BEFORE_CREATE, 0, id, body.json(), &plan.origin, now);
        self.ask(settings, event).await.map(drop)
    }

    fn new_group(&self, app: SdkAppId, conv: ConvId, plan: &Plan, settings: &AppSettings) -> Result<NewGroup> {
        let now = self.clock.now();
        let id = match plan.request.group_id.as_str() {
            "" => self.generated(plan.kind),
            id => GroupId::parse_custom(id, plan.kind == GroupType::Community)?,
        };
        let record = plan.record(app, conv, id, settings, now)?;
        let mut members = Vec::new();
        if !plan.kind.is_live() {
            let all = plan.owner.iter().map(|owner| (owner, Role::Owner));
            let all = all.chain(plan.members.iter().map(|(user, role)| (user, *role)));
            for (user, role) in all {
                if members.iter().any(|member: &Member| member.user == *user) {
                    continue;
                }
                let mut member = plan.member(user, now)?;
                member.role = role;
                members.push(member);
            }
            if record.max_members != 0 && members.len() > record.max_members as usize {
                return Err(Refusal::new(code::GROUP_MEMBER_CAP, "more members than the group may have"));
            }
        }
        let events = plan.events(&record, settings, now);
        Ok(NewGroup { record, members, events, at: now })
    }

    fn generated(&self, kind: GroupType) -> GroupId {
        let token = self.rng.token(8);
        GroupId::trusted(match kind {
            GroupType::Community => format!("{COMMUNITY_PREFIX}{GROUP_PREFIX}c{token}"),
            GroupType::AVChatRoom => format!("{GROUP_PREFIX}a{token}"),
            GroupType::Work | GroupType::Public | GroupType::Meeting => format!("{GROUP_PREFIX}{token}"),
        })
    }

    /// The same owner's id, or somebody else's.
    async fn taken(&self, app: SdkAppId, name: &GroupName, owner: Option<&UserId>) -> Refusal {
        let there = self.groups.read(app, name.conv).await.ok().flatten().and_then(|record| record.owner);
        if owner.is_some() && there.as_ref() == owner {
            return Refusal::new(code::GROUP_ID_YOURS, "the owner has a group of this id already");
        }
        Refusal::new(code::GROUP_ID_TAKEN, "the group id is taken")
    }
}

/// Checks what can be checked without asking anybody.
fn plan(request: CreateRequest, settings: &AppSettings) -> Result<Plan> {
    let kind = GroupType::parse(&request.r#type).ok_or_else(|| bad("unknown Type"))?;
    let origin = request.origin.clone().unwrap_or_default();
    limits::name(&request.name, settings)?;
    limits::text("Introduction", &request.introduction, limits::INTRODUCTION_BYTES)?;
    limits::text("Notification", &request.notification, limits::NOTIFICATION_BYTES)?;
    limits::text("FaceUrl", &request.face_url, limits::FACE_URL_BYTES)?;
    limits::group_custom(&request.custom, settings)?;
    if request.members.len() > limits::CREATE_MEMBERS {
        return Err(Refusal::new(code::GROUP_TOO_MANY, "MemberList holds more than 100 accounts"));
    }
    if kind.is_live() && !request.members.is_empty() {
        return Err(no_right("a live room has no members at its creation"));
    }
    if request.support_topic && kind != GroupType::Community {
        return Err(bad("only a Community supports topics"));
    }
    if !request.group_id.is_empty() {
        GroupId::parse_custom(&request.group_id, kind == GroupType::Community)?;
    }
    let owner = match (request.owner.as_str(), origin.admin) {
        ("", true) => None,
        ("", false) => Some(UserId::trusted(origin.operator.as_str())),
        (owner, _) => Some(UserId::parse(owner)?),
    };
    if !origin.admin && owner.as_ref().is_some_and(|owner| owner.as_str() != origin.operator) {
        return Err(no_right("a client owns the groups it creates"));
    }
    let mut members = Vec::with_capacity(request.members.len());
    for member in &request.members {
        let role = match member.role.as_str() {
            "" | "Member" => Role::Member,
            "Admin" if rules::has_admins(kind) => Role::Admin,
            _ => return Err(bad("Role of a member must be Admin or absent")),
        };
        limits::text("NameCard", &member.name_card, limits::NAME_CARD_BYTES)?;
        limits::member_custom(&member.custom, settings)?;
        members.push((UserId::parse(&member.user).map_err(|_| bad("Member_Account cannot be an account"))?, role));
    }
    Ok(Plan { kind, owner, members, origin, request })
}

impl Plan {
    fn record(
        &self,
        app: SdkAppId,
        conv: ConvId,
        id: GroupId,
        settings: &AppSettings,
        now: UnixMillis,
    ) -> Result<GroupRecord> {
        let request = &self.request;
        let kind = self.kind;
        let mut record = GroupRecord::new(app, conv, id, kind, now);
        record.name.clone_from(&request.name);
        record.introduction.clone_from(&request.introduction);
        record.notification.clone_from(&request.notification);
        record.face_url.clone_from(&request.face_url);
        record.owner.clone_from(&self.owner);
        record.max_members = limits::chosen_cap(kind, request.max_member_num, settings)?;
        record.apply = match request.apply_join_option.as_str() {
            "" => rules::apply_default(kind),
            _ if !rules::apply_is_free(kind) => rules::apply_default(kind),
            option => ApplyJoinOption::parse(option).ok_or_else(|| bad("unknown ApplyJoinOption"))?,
        };
        record.invite = match request.invite_join_option.as_str() {
            "" => rules::invite_default(kind),
            _ if kind.is_live() => rules::invite_default(kind),
            option => InviteJoinOption::parse(option).ok_or_else(|| bad("unknown InviteJoinOption"))?,
        };
        record.history_before_join = rules::shows_earlier(kind);
        record.support_topic = request.support_topic;
        record.activated = kind != GroupType::Work || !settings.work_activation || self.owner.is_none();
        set_custom(&mut record.custom, custom_text(&request.custom)?);
        Ok(record)
    }

    fn member(&self, user: &UserId, now: UnixMillis) -> Result<Member> {
        let mut member = Member::new(user.clone(), now, Seq(0));
        if let Some(given) = self.request.members.iter().find(|given| given.user == user.as_str()) {
            member.name_card.clone_from(&given.name_card);
            set_custom(&mut member.custom, custom_text(&given.custom)?);
        }
        Ok(member)
    }

    fn events(&self, record: &GroupRecord, settings: &AppSettings, now: UnixMillis) -> Vec<Event> {
        if !wants(settings, command::AFTER_CREATE) {
            return Vec::new();
        }
        let body = Body::of(record.group.as_str(), self.kind, now)
            .operator(&self.origin)
            .with("Owner_Account", self.owner.as_ref().map_or("", UserId::as_str))
            .with("Name", &record.name)
            .accounts("MemberList", self.owner.iter().chain(self.members.iter().map(|(user, _)| user)));
        let body = hooks::custom(body, &self.request.custom);
        vec![Event { about: None, event: command::AFTER_CREATE.to_owned(), body: hooks::stored(&body, &self.origin) }]
    }
}

impl Group {
    /// Tells owner and first members of their new group; a community's index need not know them.
    fn tell_created(&mut self, members: std::collections::BTreeSet<UserId>, origin: &Origin) {
        let owner = self.record().owner.clone();
        if let Some(owner) = &owner {
            let notice = self.notice(NoticeKind::Created, &origin.operator, json!({}));
            self.notify([owner], &notice);
        }
        let others: Vec<UserId> = members.iter().filter(|user| Some(*user) != owner.as_ref()).cloned().collect();
        let notice = self.notice(NoticeKind::Invited, &origin.operator, json!({}));
        self.notify(&others, &notice);
        if !self.kind().is_live() {
            self.changed(&members, "joined");
        }
    }
}

impl Shared {
    /// Which of `users` are in as many groups as they may be.
    pub(crate) async fn over_cap(
        &self,
        app: SdkAppId,
        users: &[UserId],
        people: &People,
        cap: u32,
    ) -> Result<std::collections::HashSet<UserId>> {
        let mut over = std::collections::HashSet::new();
        for user in users {
            if people.exists(user) && self.groups_of(app, user).await? >= cap as usize {
                over.insert(user.clone());
            }
        }
        Ok(over)
    }
}
