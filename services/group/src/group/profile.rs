//! The group's own profile, its owner, and its end.

use linnet_proto::delivery::{Record, record};
use linnet_proto::group::ModifyRequest;
use linnet_proto::msg::Origin;
use linnet_store::groups::{Change, Event, GroupRecord};
use linnet_types::{ApplyJoinOption, InviteJoinOption, Role, UserId};
use serde_json::{Map, Value, json};

use super::{Group, control, control_record, custom_text, set_custom};
use crate::error::{Result, bad, no_right, unknown};
use crate::hooks;
use crate::hooks::{Body, command};
use crate::limits;
use crate::remote::{People, wants};
use crate::rules::{self, Act, Rank};
use crate::tips::{self, NoticeKind, Tip};

/// Members named by the webhook of a dismissal.
const NAMED: usize = 6_000;

/// What a modification does: the record afterwards, what members see of it, what the app is told.
struct Modified {
    record: GroupRecord,
    fields: Map<String, Value>,
    body: Body,
    told: bool,
}

impl Group {
    /// Changes the profile.
    pub(crate) async fn modify(&mut self, request: ModifyRequest, people: &People) -> Result<()> {
        let origin = request.origin.clone().unwrap_or_default();
        let rank = self.rank(&origin).await?;
        self.may_modify(&request, rank)?;
        let modified = self.modified(&request)?;
        if modified.record == *self.record() {
            return Ok(());
        }
        let muted = (modified.record.mute_all != self.record().mute_all).then_some(modified.record.mute_all);
        let name = modified.record.name.clone();
        let mut change = Change::at(self.now()).record(modified.record);
        if modified.told {
            change = self.event(change, None, command::AFTER_INFO, modified.body.operator(&origin), &origin);
        }
        let seen = !modified.fields.is_empty();
        let place = tips::Place { name: &name, ..self.place() };
        let tip = Tip::Profile(modified.fields);
        let tip = seen.then(|| self.draft(&tip, &origin, &self.operator(people, &origin), place)).flatten();
        if let Some(tip) = &tip {
            change = tip.with(change, None);
        }
        self.apply(change).await?;
        let controls = muted.map(|on| control(control::Kind::MuteAll(on))).into_iter().collect();
        self.tell(controls, tip, &[]).await;
        Ok(())
    }

    fn may_modify(&self, request: &ModifyRequest, rank: Rank) -> Result<()> {
        let kind = self.kind();
        let face = request.name.is_some()
            || request.introduction.is_some()
            || request.notification.is_some()
            || request.face_url.is_some();
        let asked = [
            (face, Act::EditFace),
            (!request.custom.is_empty() || request.max_member_num.is_some(), Act::EditProfile),
            (request.history_before_join.is_some(), Act::EditProfile),
            (request.apply_join_option.is_some(), Act::EditApplyOption),
            (request.invite_join_option.is_some(), Act::EditInviteOption),
            (request.mute_all.is_some(), Act::MuteAll),
        ];
        for (is_asked, act) in asked {
            if is_asked {
                rules::allow(kind, rank, act)?;
            }
        }
        if request.history_before_join.is_some() && !rules::earlier_is_free(kind) {
            return Err(no_right("the group type does not support this option"));
        }
        let none_asked = asked.iter().all(|(is_asked, _)| !is_asked);
        if none_asked { rules::allow(kind, rank, Act::EditFace) } else { Ok(()) }
    }

    fn modified(&self, request: &ModifyRequest) -> Result<Modified> {
        let settings = &self.app.settings;
        let mut out = Modified { record: self.record().clone(), fields: Map::new(), body: self.body(), told: false };
        if let Some(name) = &request.name {
            limits::name(name, settings)?;
            out.face("groupName", "Name", name, |record| &mut record.name);
        }
        if let Some(text) = &request.introduction {
            limits::text("Introduction", text, limits::INTRODUCTION_BYTES)?;
            out.face("introduction", "Introduction", text, |record| &mut record.introduction);
        }
        if let Some(text) = &request.notification {
            limits::text("Notification", text, limits::NOTIFICATION_BYTES)?;
            out.face("notification", "Notification", text, |record| &mut record.notification);
        }
        if let Some(url) = &request.face_url {
            limits::text("FaceUrl", url, limits::FACE_URL_BYTES)?;
            out.face("avatar", "FaceUrl", url, |record| &mut record.face_url);
        }
        if let Some(max) = request.max_member_num {
            out.record.max_members = limits::chosen_cap(self.kind(), max, settings)?;
        }
        if let Some(option) = &request.apply_join_option {
            out.record.apply = ApplyJoinOption::parse(option).ok_or_else(|| bad("unknown ApplyJoinOption"))?;
            out.fields.insert("joinOption".into(), option.clone().into());
        }
        if let Some(option) = &request.invite_join_option {
            out.record.invite = InviteJoinOption::parse(option).ok_or_else(|| bad("unknown InviteJoinOption"))?;
            out.fields.insert("inviteOption".into(), option.clone().into());
        }
        if let Some(on) = request.mute_all {
            out.record.mute_all = on;
            out.fields.insert("muteAllMembers".into(), on.into());
        }
        if let Some(on) = request.history_before_join {
            out.record.history_before_join = on;
        }
        if !request.custom.is_empty() {
            limits::group_custom(&request.custom, settings)?;
            set_custom(&mut out.record.custom, custom_text(&request.custom)?);
            out.fields.insert("groupCustomField".into(), tips::custom_fields(&request.custom));
        }
        Ok(out)
    }

    /// Makes another member the owner; the old one becomes an ordinary member.
    pub(crate) async fn change_owner(&mut self, to: &UserId, origin: &Origin, people: &People) -> Result<()> {
        self.allow(origin, Act::Transfer).await?;
        if self.state(to).await?.member.is_none() {
            return Err(no_right("the new owner must be a member of the group"));
        }
        let old = self.record().owner.clone();
        if old.as_ref() == Some(to) {
            return Ok(());
        }
        let mut record = self.record().clone();
        record.set_role(to, Role::Owner);
        let was = old.as_ref().map(ToString::to_string).unwrap_or_default();
        let body = self.body().operator(origin).with("OldOwner_Account", &was).with("NewOwner_Account", to.as_str());
        let change = Change::at(self.now()).record(record);
        let mut change = self.event(change, None, command::AFTER_OWNER, body, origin);
        let fields = Map::from_iter([("ownerID".to_owned(), Value::from(to.as_str()))]);
        let tip = self.draft(&Tip::Profile(fields), origin, &self.operator(people, origin), self.place());
        if let Some(tip) = &tip {
            change = tip.with(change, None);
        }
        self.apply(change).await?;
        let role = |user: &UserId, role: Role| {
            let changed = linnet_proto::delivery::RoleChange { user: user.to_string(), role: role.wire().to_owned() };
            control(control::Kind::Role(changed))
        };
        let mut controls = vec![role(to, Role::Owner)];
        controls.extend(old.iter().map(|old| role(old, Role::Member)));
        self.tell(controls, tip, &[]).await;
        Ok(())
    }

    /// Ends the group.
    pub(crate) async fn destroy(&mut self, origin: &Origin) -> Result<()> {
        if self.dismissed {
            return Err(unknown());
        }
        self.allow(origin, Act::Disband).await?;
        let mut events = Vec::new();
        if wants(&self.app.settings, command::AFTER_DESTROY) {
            events.push(self.destroyed_event(origin));
        }
        let groups = self.shared.groups.clone();
        let at = self.now();
        let destroyed = groups.destroy(&mut self.held, at, events).await;
        if self.held.record().destroyed.is_none() {
            self.store(destroyed)?;
        }
        self.dismissed = true;
        let notice = self.notice(NoticeKind::Dismissed, &origin.operator, json!({}));
        let records = vec![
            Record { kind: Some(record::Kind::Notice(notice)), ..Record::default() },
            control_record(control(control::Kind::Dismissed(true))),
        ];
        self.publish(records, &[]);
        let members: Vec<UserId> = self.index.members().keys().cloned().collect();
        self.changed(&members, "left");
        Ok(())
    }

    fn destroyed_event(&self, origin: &Origin) -> Event {
        let record = self.record();
        let owner = record.owner.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut body = self.body().operator(origin).with("Owner_Account", &owner).with("Name", &record.name);
        if self.index.is_whole() {
            body = body.accounts("MemberList", self.index.members().keys().take(NAMED));
        }
        Event { about: None, event: command::AFTER_DESTROY.to_owned(), body: hooks::stored(&body, origin) }
    }
}

impl Modified {
    /// One of the four fields whose change the app hears of.
    fn face(&mut self, web: &str, hook: &'static str, value: &str, field: fn(&mut GroupRecord) -> &mut String) {
        let slot = field(&mut self.record);
        if slot == value {
            return;
        }
        value.clone_into(slot);
        self.fields.insert(web.to_owned(), value.into());
        self.body = std::mem::take(&mut self.body).with(hook, value);
        self.told = true;
    }
}
