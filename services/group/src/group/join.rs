//! Entering on one's own, leaving, and applications in between.

use linnet_proto::delivery::Membership;
use linnet_proto::group::{Application as Shown, HandleApplicationRequest, JoinReply, JoinRequest};
use linnet_proto::msg::Origin;
use linnet_store::groups::{Application, Change, Edit, UserEdit};
use linnet_types::{GroupType, Refusal, Role, UserId, code};
use serde_json::json;

use super::members::{Entering, How};
use super::{Group, control};
use crate::error::{Result, no_right};
use crate::hooks::command;
use crate::limits;
use crate::remote::People;
use crate::rules::{self, Act, Entry};
use crate::tips::{NoticeKind, Tip};

impl Group {
    /// A user enters, or applies.
    pub(crate) async fn join(&mut self, request: &JoinRequest, people: &People) -> Result<JoinReply> {
        let origin = request.origin.clone().unwrap_or_default();
        let user = UserId::trusted(request.user.as_str());
        let state = self.state(&user).await?;
        let now = self.now();
        if state.ban.as_ref().is_some_and(|ban| ban.until > now) {
            return Err(no_right("the user is banned from the group"));
        }
        if self.kind().is_live() {
            return Ok(self.joined("live"));
        }
        if state.member.is_some() {
            return Ok(self.joined("already"));
        }
        match rules::on_apply(self.kind(), self.record().apply) {
            Entry::Refused => Err(no_right("the group is closed to applications")),
            Entry::Ask => {
                self.file(&user, &request.wording, &origin).await?;
                Ok(self.joined("waiting"))
            }
            Entry::AtOnce => {
                self.enter(&user, &origin, people).await?;
                Ok(self.joined("joined"))
            }
        }
    }

    fn joined(&self, status: &str) -> JoinReply {
        JoinReply { status: status.to_owned(), conv: self.held.conv().0, group: Some(self.shown()) }
    }

    async fn file(&mut self, user: &UserId, wording: &str, origin: &Origin) -> Result<()> {
        limits::text("wording", wording, limits::WORDING_BYTES)?;
        let now = self.now();
        let application = Application { at: now, inviter: None, text: wording.to_owned() };
        let edit = UserEdit::new(user.clone()).with_application(Edit::Put(application));
        let mut change = Change::at(now).user(edit);
        // The oldest falls off.
        if self.index.applications().len() >= limits::APPLICATIONS
            && let Some((oldest, _)) = self.index.applications().iter().min_by_key(|(_, application)| application.at)
            && oldest != user
        {
            change = change.user(UserEdit::new(oldest.clone()).with_application(Edit::Remove));
        }
        self.apply(change).await?;
        let extra = json!({"applicant": user.as_str(), "wording": wording});
        let notice = self.notice(NoticeKind::Application, &origin.operator, extra);
        self.notify(&self.managers(), &notice);
        Ok(())
    }

    /// Makes a member of somebody who comes on his own.
    async fn enter(&mut self, user: &UserId, origin: &Origin, people: &People) -> Result<()> {
        if self.room() == 0 {
            self.tell_full(true, origin).await?;
            return Err(Refusal::new(code::GROUP_FULL, "the group is full"));
        }
        let entering = Entering { how: How::Applied, tip: true, people };
        self.admit(std::slice::from_ref(user), origin, &entering).await?;
        self.tell_full(false, origin).await
    }

    /// Open applications, oldest first.
    pub(crate) async fn applications(&mut self, origin: &Origin) -> Result<Vec<Shown>> {
        self.allow(origin, Act::HandleApplication).await?;
        let mut open = if self.index.is_whole() {
            self.index.applications().iter().map(|(user, open)| (user.clone(), open.clone())).collect()
        } else {
            let groups = self.shared.groups.clone();
            let read = groups.applications(&self.held).await;
            self.store(read)?
        };
        open.sort_by_key(|(_, application)| application.at);
        Ok(open.into_iter().map(|(user, application)| self.application(&user, application)).collect())
    }

    fn application(&self, user: &UserId, application: Application) -> Shown {
        Shown {
            id: user.to_string(),
            group_id: self.id(),
            user: user.to_string(),
            kind: if application.inviter.is_some() { "invite" } else { "join" }.to_owned(),
            inviter: application.inviter.map(String::from).unwrap_or_default(),
            wording: application.text,
            time_s: application.at.secs(),
        }
    }

    /// Accepts or refuses an application.
    pub(crate) async fn handle(&mut self, request: &HandleApplicationRequest, people: &People) -> Result<()> {
        let origin = request.origin.clone().unwrap_or_default();
        self.allow(&origin, Act::HandleApplication).await?;
        limits::text("reason", &request.reason, limits::WORDING_BYTES)?;
        let user = UserId::trusted(request.id.as_str());
        let state = self.state(&user).await?;
        let Some(application) = state.application else {
            return Err(Refusal::new(code::GROUP_HANDLED, "the application was handled already"));
        };
        if !request.accept || state.member.is_some() {
            let settled = UserEdit::new(user.clone()).with_application(Edit::Remove);
            self.apply(Change::at(self.now()).user(settled)).await?;
        } else if self.room() == 0 {
            self.tell_full(true, &origin).await?;
            return Err(Refusal::new(code::GROUP_FULL, "the group is full"));
        } else {
            let how = if application.inviter.is_some() { How::Invited } else { How::Applied };
            let entering = Entering { how, tip: true, people };
            self.admit(std::slice::from_ref(&user), &origin, &entering).await?;
            self.tell_full(false, &origin).await?;
        }
        self.tell_decided(&user, application.inviter.as_ref(), request, &origin);
        Ok(())
    }

    fn tell_decided(
        &self,
        user: &UserId,
        inviter: Option<&UserId>,
        request: &HandleApplicationRequest,
        origin: &Origin,
    ) {
        let kind = if request.accept { NoticeKind::Accepted } else { NoticeKind::Refused };
        let extra = json!({"applicant": user.as_str(), "handleMessage": request.reason, "accepted": request.accept});
        let notice = self.notice(kind, &origin.operator, extra.clone());
        self.notify([inviter.unwrap_or(user)], &notice);
        let decided = self.notice(NoticeKind::Decided, &origin.operator, extra);
        let others: Vec<UserId> =
            self.managers().into_iter().filter(|manager| manager.as_str() != origin.operator).collect();
        self.notify(&others, &decided);
    }

    /// A member leaves.
    pub(crate) async fn quit(&mut self, user: &UserId, origin: &Origin, people: &People) -> Result<()> {
        if self.kind().is_live() {
            // Viewers are their gateways' business; the owner stays what he is.
            return if self.record().role(user) == Role::Owner { Err(owner_stays()) } else { Ok(()) };
        }
        if self.state(user).await?.member.is_none() {
            return Err(no_right("the user is not a member of the group"));
        }
        if self.record().role(user) == Role::Owner && self.kind() != GroupType::Work {
            return Err(owner_stays());
        }
        let person = self.person(people, user);
        let gone = std::slice::from_ref(user);
        let change = Change::at(self.now()).user(UserEdit::remove(user.clone()));
        let body = |group: &Self, users: &[UserId]| group.exit_body("Quit", users, origin);
        let mut change = self.member_events(change, gone, command::AFTER_EXIT, origin, body);
        let tip = self.draft(&Tip::Left(vec![person.clone()]), origin, &person, self.place_after(-1));
        if let Some(tip) = &tip {
            change = tip.with(change, Some(user));
        }
        self.apply(change).await?;
        let left = control(control::Kind::Left(Membership { users: vec![user.to_string()] }));
        self.tell(vec![left], None, gone).await;
        self.tell(Vec::new(), tip, &[]).await;
        let notice = self.notice(NoticeKind::Quit, &origin.operator, json!({}));
        self.notify([user], &notice);
        self.changed([user], "left");
        Ok(())
    }
}

fn owner_stays() -> Refusal {
    Refusal::new(code::GROUP_OWNER_QUIT, "the owner may not leave the group")
}
