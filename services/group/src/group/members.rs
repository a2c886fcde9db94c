//! Bringing members in, removing them, and changing what they are.

use std::collections::HashSet;

use linnet_proto::delivery::{Membership, Mute, RoleChange};
use linnet_proto::group::{KeyValue, ModifyMemberRequest};
use linnet_proto::msg::Origin;
use linnet_store::groups::{Application, Change, Edit, Member, Restriction, UserEdit, UserState};
use linnet_types::{Refusal, Role, UnixMillis, UserId, code};
use serde_json::json;

use super::{Drafted, Group, control, custom_text, set_custom};
use crate::error::{Result, bad, no_right};
use crate::hooks::{self, Body, command};
use crate::limits;
use crate::remote::{People, wants};
use crate::rules::{self, Act, Entry, Rank};
use crate::tips::{NoticeKind, Person, Tip};

/// "For ever" in a mute or ban.
pub(crate) const FOREVER_S: u64 = 4_294_967_295;

/// Accounts the store changes in one write.
const TOGETHER: usize = 64;

/// Results of bringing somebody in (`spec/rest-groups.md` §3.2).
pub(crate) mod added {
    pub(crate) const FAILED: u32 = 0;
    pub(crate) const ADDED: u32 = 1;
    pub(crate) const ALREADY: u32 = 2;
    pub(crate) const WAITING: u32 = 3;
}

/// Users to be brought in, with what was found out about them before the loop.
pub(crate) struct Add {
    pub(crate) users: Vec<UserId>,
    pub(crate) silence: bool,
    pub(crate) origin: Origin,
    pub(crate) people: People,
    /// The app's server does not want these.
    pub(crate) refused: HashSet<String>,
    /// These are in as many groups as they may be.
    pub(crate) over_cap: HashSet<UserId>,
}

/// How somebody comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Invited,
    Applied,
}

impl How {
    /// As webhooks name it.
    fn wire(self) -> &'static str {
        match self {
            Self::Invited => "Invited",
            Self::Applied => "Apply",
        }
    }
}

/// How users become members and what others see of it.
pub(super) struct Entering<'a> {
    pub(super) how: How,
    /// With a tip.
    pub(super) tip: bool,
    pub(super) people: &'a People,
}

/// Why somebody did not get in, worst last: the code when nobody did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Failed {
    Refused = 1,
    Banned,
    OverCap,
    Unknown,
    Full,
}

impl Group {
    /// The events of a change, if the app wants them.
    pub(super) fn event(&self, change: Change, about: Option<&UserId>, what: &str, body: Body, by: &Origin) -> Change {
        if !wants(&self.app.settings, what) {
            return change;
        }
        change.event(about.cloned(), what, hooks::stored(&body, by))
    }

    pub(super) fn body(&self) -> Body {
        Body::of(self.record().group.as_str(), self.kind(), self.now())
    }

    pub(super) fn exit_body(&self, how: &str, users: &[UserId], origin: &Origin) -> Body {
        self.body().operator(origin).with("ExitType", how).accounts("ExitMemberList", users)
    }

    /// As a tip shows a member.
    pub(super) fn person(&self, people: &People, user: &UserId) -> Person {
        let card = self.index.get(user).and_then(|state| state.member).map(|member| member.name_card);
        Person { name_card: card.unwrap_or_default(), ..people.person(user) }
    }

    pub(super) fn operator(&self, people: &People, origin: &Origin) -> Person {
        self.person(people, &UserId::trusted(origin.operator.as_str()))
    }

    /// Brings users in, or asks for consent; a result for each, in order.
    pub(crate) async fn add(&mut self, add: Add) -> Result<Vec<u32>> {
        let rank = self.allow(&add.origin, Act::Invite).await?;
        let entry = rules::on_invite(self.kind(), self.record().invite, rank);
        if entry == Entry::Refused {
            return Err(no_right("members may not invite into this group"));
        }
        let states = self.states(&add.users).await?;
        let mut results = Vec::with_capacity(states.len());
        let mut worst = None;
        let mut newcomers: Vec<UserId> = Vec::new();
        let mut asked: Vec<UserId> = Vec::new();
        for state in states {
            let room = self.room() > newcomers.len() as u64;
            let result = match self.fitness(&state, &add, room) {
                _ if state.member.is_some() || newcomers.contains(&state.user) => added::ALREADY,
                Some(why) => {
                    worst = worst.max(Some(why));
                    added::FAILED
                }
                None if entry == Entry::Ask => {
                    asked.push(state.user.clone());
                    added::WAITING
                }
                None => {
                    newcomers.push(state.user.clone());
                    added::ADDED
                }
            };
            results.push(result);
        }
        self.ask_admins(&asked, &add).await?;
        let entering = Entering { how: How::Invited, tip: !add.silence, people: &add.people };
        self.admit(&newcomers, &add.origin, &entering).await?;
        self.tell_full(worst == Some(Failed::Full), &add.origin).await?;
        match worst {
            Some(why) if results.iter().all(|result| *result == added::FAILED) => Err(refusal(why)),
            _ => Ok(results),
        }
    }

    /// Places left.
    pub(super) fn room(&self) -> u64 {
        let record = self.record();
        match record.max_members {
            0 => u64::MAX,
            max => u64::from(max.saturating_sub(record.member_count)),
        }
    }

    fn fitness(&self, state: &UserState, add: &Add, room: bool) -> Option<Failed> {
        let banned = state.ban.as_ref().is_some_and(|ban| ban.until > self.now());
        match () {
            () if !add.people.exists(&state.user) => Some(Failed::Unknown),
            () if add.refused.contains(state.user.as_str()) => Some(Failed::Refused),
            () if banned => Some(Failed::Banned),
            () if add.over_cap.contains(&state.user) => Some(Failed::OverCap),
            () if !room => Some(Failed::Full),
            () => None,
        }
    }

    async fn ask_admins(&mut self, asked: &[UserId], add: &Add) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let inviter = UserId::trusted(add.origin.operator.as_str());
        let mut change = Change::at(now);
        for user in asked {
            let application = Application { at: now, inviter: Some(inviter.clone()), text: String::new() };
            change = change.user(UserEdit::new(user.clone()).with_application(Edit::Put(application)));
        }
        self.apply(change).await?;
        for user in asked {
            let extra = json!({"applicant": user.as_str(), "inviter": inviter.as_str()});
            let notice = self.notice(NoticeKind::InviteAsked, inviter.as_str(), extra);
            self.notify(&self.managers(), &notice);
        }
        Ok(())
    }

    /// Makes users members, with the events of it, and tells everybody.
    pub(super) async fn admit(&mut self, users: &[UserId], origin: &Origin, entering: &Entering<'_>) -> Result<()> {
        for batch in self.batches(users).map(<[UserId]>::to_vec).collect::<Vec<_>>() {
            let mut change = Change::at(self.now());
            for user in &batch {
                change = change.user(UserEdit::put(self.newcomer(user)));
            }
            let body = |group: &Self, users: &[UserId]| {
                let body = group.body().operator(origin).with("JoinType", entering.how.wire());
                body.accounts("NewMemberList", users)
            };
            change = self.member_events(change, &batch, command::AFTER_JOIN, origin, body);
            let tip = if entering.tip { self.entry_tip(&batch, origin, entering) } else { None };
            if let Some(tip) = &tip {
                change = tip.with(change, only(&batch));
            }
            self.apply(change).await?;
            self.tell_joined(&batch, tip, origin, entering.how).await;
        }
        Ok(())
    }

    fn entry_tip(&self, users: &[UserId], origin: &Origin, entering: &Entering<'_>) -> Option<Drafted> {
        let persons: Vec<Person> = users.iter().map(|user| self.person(entering.people, user)).collect();
        let place = self.place_after(users.len() as i64);
        match (entering.how, persons.first()) {
            (How::Applied, Some(person)) => {
                let person = person.clone();
                self.draft(&Tip::Joined(persons), origin, &person, place)
            }
            _ => self.draft(&Tip::Invited(persons), origin, &self.operator(entering.people, origin), place),
        }
    }

    /// The app hears once that the group is full. `turned_away`: somebody found it so.
    pub(super) async fn tell_full(&mut self, turned_away: bool, origin: &Origin) -> Result<()> {
        if self.full_told || !(turned_away || self.room() == 0) {
            return Ok(());
        }
        let body = Body::default().with("GroupId", &self.id()).with("EventTime", &self.now().0);
        let change = self.event(Change::at(self.now()), None, command::AFTER_FULL, body, origin);
        if !change.events.is_empty() {
            self.apply(change).await?;
        }
        self.full_told = true;
        Ok(())
    }

    /// Users as they are changed together: a small group's batch is one write, events included.
    pub(super) fn batches<'a>(&self, users: &'a [UserId]) -> std::slice::Chunks<'a, UserId> {
        users.chunks(if self.index.is_whole() { TOGETHER } else { users.len().max(1) })
    }

    /// Events of memberships: one for a batch that is one write, else one for each account, in the write of the account.
    pub(super) fn member_events(
        &self,
        mut change: Change,
        users: &[UserId],
        what: &str,
        origin: &Origin,
        body: impl Fn(&Self, &[UserId]) -> Body,
    ) -> Change {
        if self.index.is_whole() {
            return self.event(change, None, what, body(self, users), origin);
        }
        for user in users {
            let about = std::slice::from_ref(user);
            change = self.event(change, Some(user), what, body(self, about), origin);
        }
        change
    }

    /// Tells everybody of new members, and the members themselves.
    async fn tell_joined(&mut self, users: &[UserId], tip: Option<Drafted>, origin: &Origin, how: How) {
        let names = users.iter().map(ToString::to_string).collect();
        let joined = control(control::Kind::Joined(Membership { users: names }));
        self.tell(vec![joined], tip, &[]).await;
        if how == How::Invited {
            let notice = self.notice(NoticeKind::Invited, &origin.operator, json!({}));
            self.notify(users, &notice);
        }
        self.changed(users, "joined");
    }

    /// Removes members; users who are none are passed over.
    pub(crate) async fn remove(
        &mut self,
        users: Vec<UserId>,
        silence: bool,
        reason: &str,
        origin: &Origin,
        people: &People,
    ) -> Result<()> {
        let rank = self.allow(origin, Act::Kick(Rank::Member)).await?;
        let states = self.states(&users).await?;
        let mut gone = Vec::new();
        for state in states {
            if state.member.is_none() || state.user.as_str() == origin.operator || gone.contains(&state.user) {
                continue;
            }
            let role = self.record().role(&state.user);
            rules::allow(self.kind(), rank, Act::Kick(Rank::of(Some(role))))?;
            gone.push(state.user);
        }
        if gone.is_empty() {
            return Ok(());
        }
        for batch in self.batches(&gone).map(<[UserId]>::to_vec).collect::<Vec<_>>() {
            let mut change = Change::at(self.now());
            for user in &batch {
                change = change.user(UserEdit::remove(user.clone()));
            }
            let body = |group: &Self, users: &[UserId]| group.exit_body("Kicked", users, origin);
            change = self.member_events(change, &batch, command::AFTER_EXIT, origin, body);
            let persons = batch.iter().map(|user| self.person(people, user)).collect();
            let place = self.place_after(-(batch.len() as i64));
            let tip =
                (!silence).then(|| self.draft(&Tip::Kicked(persons), origin, &self.operator(people, origin), place));
            let tip = tip.flatten();
            if let Some(tip) = &tip {
                change = tip.with(change, only(&batch));
            }
            self.apply(change).await?;
            self.tell_kicked(&batch, tip).await;
            let notice = self.notice(NoticeKind::Kicked, &origin.operator, json!({"reason": reason}));
            self.notify(&batch, &notice);
            self.changed(&batch, "left");
        }
        Ok(())
    }

    /// The record that ends delivery to the removed comes before everything they must not see.
    async fn tell_kicked(&mut self, gone: &[UserId], tip: Option<Drafted>) {
        let users = gone.iter().map(ToString::to_string).collect();
        let kicked = control(control::Kind::Kicked(Membership { users }));
        // Published apart from the tip: the batch that carries the tip goes to members only.
        self.tell(vec![kicked], None, gone).await;
        self.tell(Vec::new(), tip, &[]).await;
    }

    /// Changes one member.
    pub(crate) async fn modify_member(&mut self, request: ModifyMemberRequest, people: &People) -> Result<()> {
        let origin = request.origin.clone().unwrap_or_default();
        let user = UserId::trusted(request.user.as_str());
        let rank = self.rank(&origin).await?;
        let live = self.kind().is_live();
        let only_role = request.msg_flag.is_none()
            && request.name_card.is_none()
            && request.custom.is_empty()
            && request.mute_s.is_none();
        if live && !only_role {
            return Err(no_right("members of a live room are not stored"));
        }
        let state = self.state(&user).await?;
        if state.member.is_none() && !live {
            return Err(no_right("the user is not a member of the group"));
        }
        let role = request.role.as_deref().map(|role| self.new_role(rank, &user, role)).transpose()?.flatten();
        let myself = origin.operator == request.user;
        let edited = self.edited_member(&request, state.member, rank, myself)?;
        let until = self.mute_until(&request, rank, &user)?;
        let mut change = Change::at(self.now());
        let mut edit = UserEdit::new(user.clone());
        if let Some(until) = until {
            edit = edit.with_mute(mute_edit(until, self.now(), &origin));
        }
        if let Some(mut member) = edited {
            // The record says who is what; a member that is put carries it along.
            member.role = role.unwrap_or_else(|| self.record().role(&user));
            edit.member = Edit::Put(member);
        } else if let Some(role) = role {
            let mut record = self.record().clone();
            record.set_role(&user, role);
            change = change.record(record);
        }
        let card = match &edit.member {
            Edit::Put(member) => Some(member.name_card.clone()),
            Edit::Keep | Edit::Remove => None,
        };
        change = change.user(edit);
        change = self.member_event(change, &request, role, &origin);
        let role_tip = role.and_then(|role| self.role_tip(&user, role, card, &origin, people));
        let mute_tip = until.and_then(|until| self.mute_tip(std::slice::from_ref(&user), until, &origin, people));
        for tip in role_tip.iter().chain(&mute_tip) {
            change = tip.with(change, Some(&user));
        }
        self.apply(change).await?;
        if let Some(role) = role {
            self.tell_role(&user, role, role_tip, &origin).await;
        }
        if let Some(until) = until {
            self.tell_muted(std::slice::from_ref(&user), until, mute_tip, &origin).await;
        }
        Ok(())
    }

    /// The role asked for, checked; `None` when it is his already.
    fn new_role(&self, rank: Rank, user: &UserId, role: &str) -> Result<Option<Role>> {
        let role = Role::parse(role).filter(|role| *role != Role::Owner);
        let role = role.ok_or_else(|| bad("Role must be Admin or Member"))?;
        rules::allow(self.kind(), rank, Act::Appoint)?;
        let now = self.record().role(user);
        if now == Role::Owner {
            return Err(no_right("the owner's role is changed by changing the owner"));
        }
        let cap = rules::admin_cap(self.kind());
        if role == Role::Admin && cap != 0 && now != Role::Admin && self.record().admins.len() >= cap {
            return Err(no_right("the room has all the admins it may have"));
        }
        Ok((role != now).then_some(role))
    }

    /// The member with changed fields, if any changes.
    fn edited_member(
        &self,
        request: &ModifyMemberRequest,
        member: Option<Member>,
        rank: Rank,
        myself: bool,
    ) -> Result<Option<Member>> {
        let Some(mut member) = member else { return Ok(None) };
        let before = member.clone();
        if !myself && (request.name_card.is_some() || !request.custom.is_empty()) {
            rules::allow(self.kind(), rank, Act::EditMember)?;
        }
        if let Some(card) = &request.name_card {
            limits::text("NameCard", card, limits::NAME_CARD_BYTES)?;
            member.name_card.clone_from(card);
        }
        limits::member_custom(&request.custom, &self.app.settings)?;
        set_custom(&mut member.custom, custom_text(&request.custom)?);
        if let Some(flag) = &request.msg_flag {
            if !myself && rank != Rank::App {
                return Err(no_right("the receive option is the member's own"));
            }
            if !rules::MSG_FLAGS.contains(&flag.as_str()) {
                return Err(bad(&format!("MsgFlag must be one of {}", rules::MSG_FLAGS.join(", "))));
            }
            member.msg_flag.clone_from(flag);
        }
        Ok((member != before).then_some(member))
    }

    fn mute_until(&self, request: &ModifyMemberRequest, rank: Rank, user: &UserId) -> Result<Option<UnixMillis>> {
        let Some(seconds) = request.mute_s else { return Ok(None) };
        let target = Rank::of(Some(self.record().role(user)));
        rules::allow(self.kind(), rank, Act::Mute(target))?;
        Ok(Some(until(self.now(), seconds)))
    }

    fn member_event(
        &self,
        change: Change,
        request: &ModifyMemberRequest,
        role: Option<Role>,
        origin: &Origin,
    ) -> Change {
        if role.is_none() && request.name_card.is_none() {
            return change;
        }
        let mut body = self.body().operator(origin).with("Member_Account", &request.user);
        if let Some(role) = role {
            body = body.with("Role", role.wire());
        }
        if let Some(card) = &request.name_card {
            body = body.with("NameCard", card);
        }
        self.event(change, None, command::AFTER_MEMBER, body, origin)
    }

    fn role_tip(
        &self,
        user: &UserId,
        role: Role,
        card: Option<String>,
        origin: &Origin,
        people: &People,
    ) -> Option<Drafted> {
        let mut person = Person { role: Some(role.wire()), ..self.person(people, user) };
        person.name_card = card.unwrap_or(person.name_card);
        let tip = if role == Role::Admin { Tip::AdminSet(vec![person]) } else { Tip::AdminUnset(vec![person]) };
        self.draft(&tip, origin, &self.operator(people, origin), self.place())
    }

    async fn tell_role(&mut self, user: &UserId, role: Role, tip: Option<Drafted>, origin: &Origin) {
        let changed = RoleChange { user: user.to_string(), role: role.wire().to_owned() };
        self.tell(vec![control(control::Kind::Role(changed))], tip, &[]).await;
        let notice = if role == Role::Admin { NoticeKind::AdminSet } else { NoticeKind::AdminUnset };
        let notice = self.notice(notice, &origin.operator, json!({}));
        self.notify([user], &notice);
    }

    /// The tip of mutes that begin or end.
    pub(super) fn mute_tip(
        &self,
        users: &[UserId],
        until: UnixMillis,
        origin: &Origin,
        people: &People,
    ) -> Option<Drafted> {
        let seconds = self.mute_seconds(until);
        let person = |user: &UserId| Person { mute_time: Some(seconds), ..self.person(people, user) };
        let tip = Tip::Muted(users.iter().map(person).collect());
        self.draft(&tip, origin, &self.operator(people, origin), self.place())
    }

    fn mute_seconds(&self, until: UnixMillis) -> u64 {
        until.since(self.now()).div_ceil(1_000).min(FOREVER_S)
    }

    /// Tells of mutes that begin or end.
    pub(super) async fn tell_muted(
        &mut self,
        users: &[UserId],
        until: UnixMillis,
        tip: Option<Drafted>,
        origin: &Origin,
    ) {
        let seconds = self.mute_seconds(until);
        let controls = users
            .iter()
            .map(|user| control(control::Kind::Muted(Mute { user: user.to_string(), until_ms: until.0 })))
            .collect();
        self.tell(controls, tip, &[]).await;
        let notice = self.notice(NoticeKind::Muted, &origin.operator, json!({"muteTime": seconds}));
        self.notify(users, &notice);
    }
}

/// The account, where it is only one.
fn only(users: &[UserId]) -> Option<&UserId> {
    if let [user] = users { Some(user) } else { None }
}

/// The end of a mute or ban of `seconds`; 0 = it ends now.
pub(crate) fn until(now: UnixMillis, seconds: u64) -> UnixMillis {
    match seconds {
        0 => UnixMillis(0),
        FOREVER_S.. => UnixMillis(u64::MAX),
        seconds => now.plus_ms(seconds.saturating_mul(1_000)),
    }
}

/// The row of a mute or ban.
pub(super) fn mute_edit(until: UnixMillis, now: UnixMillis, origin: &Origin) -> Edit<Restriction> {
    if until.0 == 0 {
        return Edit::Remove;
    }
    Edit::Put(Restriction { until, since: now, operator: origin.operator.clone(), description: String::new() })
}

/// Custom fields of a member as callers see them.
pub(super) fn key_values(custom: &std::collections::BTreeMap<String, String>) -> Vec<KeyValue> {
    custom.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes().into() }).collect()
}

fn refusal(why: Failed) -> Refusal {
    match why {
        Failed::Full => Refusal::new(code::GROUP_FULL, "the group is full"),
        Failed::Unknown => Refusal::new(code::GROUP_NO_USER, "the account does not exist"),
        Failed::OverCap => Refusal::new(code::GROUP_USER_CAP, "the user is in as many groups as he may be"),
        Failed::Banned => no_right("the user is banned from the group"),
        Failed::Refused => Refusal::new(code::GROUP_VETO, "refused by the app's server"),
    }
}
