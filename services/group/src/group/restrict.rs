//! Muting, keeping out, recalling, and notices of the app.

use linnet_proto::delivery::{Membership, Mute, Record, record};
use linnet_proto::group::{BanRequest, NotifyRequest, RecallRequest, Until};
use linnet_proto::msg::Origin;
use linnet_store::groups::{Change, Edit, Restriction, UserEdit, UserState};
use linnet_types::{Refusal, UnixMillis, UserId, code};
use prost::Message as _;
use serde_json::json;

use super::intents::{RECALL, Recall};
use super::members::{FOREVER_S, mute_edit, until};
use super::{Drafted, Group, control};
use crate::error::{Result, bad};
use crate::hooks::command;
use crate::limits;
use crate::remote::{People, wants};
use crate::rules::{self, Act, Rank};
use crate::tips::{NoticeKind, Person, Tip};

impl Group {
    fn rank_of(&self, state: &UserState) -> Rank {
        let role = (state.member.is_some() || self.kind().is_live()).then(|| self.record().role(&state.user));
        Rank::of(role)
    }

    /// Mutes or unmutes; who is no member may be muted too.
    pub(crate) async fn mute(
        &mut self,
        users: Vec<UserId>,
        seconds: u64,
        origin: &Origin,
        people: &People,
    ) -> Result<()> {
        let rank = self.allow(origin, Act::Mute(Rank::Member)).await?;
        let states = self.states(&users).await?;
        for state in &states {
            rules::allow(self.kind(), rank, Act::Mute(self.rank_of(state)))?;
        }
        let now = self.now();
        let until = until(now, seconds);
        let mut change = Change::at(now);
        for user in &users {
            if !change.users.iter().any(|edit| edit.user == *user) {
                change = change.user(UserEdit::new(user.clone()).with_mute(mute_edit(until, now, origin)));
            }
        }
        let tip = self.mute_tip(&users, until, origin, people);
        if let Some(tip) = &tip {
            change = tip.with(change, None);
        }
        self.apply(change).await?;
        self.tell_muted(&users, until, tip, origin).await;
        Ok(())
    }

    /// Who is muted now.
    pub(crate) async fn muted(&mut self) -> Result<Vec<Until>> {
        let mutes = if self.index.is_whole() {
            self.index.mutes().iter().map(|(user, mute)| (user.clone(), mute.clone())).collect()
        } else {
            let groups = self.shared.groups.clone();
            let read = groups.mutes(&self.held).await;
            self.store(read)?
        };
        Ok(in_force(mutes, self.now()))
    }

    /// Removes accounts and keeps them out for a time.
    pub(crate) async fn ban(&mut self, request: &BanRequest, users: Vec<UserId>, people: &People) -> Result<()> {
        let origin = request.origin.clone().unwrap_or_default();
        let rank = self.allow(&origin, Act::Ban(Rank::Member)).await?;
        let states = self.states(&users).await?;
        for state in &states {
            rules::allow(self.kind(), rank, Act::Ban(self.rank_of(state)))?;
        }
        let now = self.now();
        let until = until(now, request.duration_s.max(1));
        let mut change = Change::at(now);
        let mut gone = Vec::new();
        for state in states {
            let ban = Restriction {
                until,
                since: now,
                operator: origin.operator.clone(),
                description: request.description.clone(),
            };
            let mut edit = UserEdit::new(state.user.clone());
            if state.member.is_some() && !gone.contains(&state.user) {
                edit = UserEdit::remove(state.user.clone());
                gone.push(state.user);
            }
            if !change.users.iter().any(|other| other.user == edit.user) {
                change = change.user(edit.with_ban(Edit::Put(ban)));
            }
        }
        if !gone.is_empty() {
            change = self.event(change, None, command::AFTER_EXIT, self.exit_body("Kicked", &gone, &origin), &origin);
        }
        let persons: Vec<Person> = users.iter().map(|user| self.person(people, user)).collect();
        let tip = if self.kind().is_live() { Tip::Banned(persons) } else { Tip::Kicked(persons) };
        let place = self.place_after(-(gone.len() as i64));
        let tip = self.draft(&tip, &origin, &self.operator(people, &origin), place);
        if let Some(tip) = &tip {
            change = tip.with(change, None);
        }
        self.apply(change).await?;
        self.tell_banned(&users, &gone, tip, until, &origin).await;
        Ok(())
    }

    async fn tell_banned(
        &mut self,
        users: &[UserId],
        gone: &[UserId],
        tip: Option<Drafted>,
        until: UnixMillis,
        origin: &Origin,
    ) {
        let banned = |user: &UserId| control(control::Kind::Banned(Mute { user: user.to_string(), until_ms: until.0 }));
        let mut controls: Vec<_> = users.iter().map(banned).collect();
        if !gone.is_empty() {
            let users = gone.iter().map(ToString::to_string).collect();
            controls.push(control(control::Kind::Kicked(Membership { users })));
        }
        self.tell(controls, None, gone).await;
        self.tell(Vec::new(), tip, &[]).await;
        let seconds = until.since(self.now()).div_ceil(1_000).min(FOREVER_S);
        let notice = self.notice(NoticeKind::Banned, &origin.operator, json!({"duration": seconds}));
        self.notify(users, &notice);
        self.changed(gone, "left");
    }

    /// Lets accounts back in.
    pub(crate) async fn unban(&mut self, users: Vec<UserId>, origin: &Origin, people: &People) -> Result<()> {
        self.allow(origin, Act::Ban(Rank::Member)).await?;
        let mut change = Change::at(self.now());
        for user in &users {
            if !change.users.iter().any(|edit| edit.user == *user) {
                change = change.user(UserEdit::new(user.clone()).with_ban(Edit::Remove));
            }
        }
        self.apply(change).await?;
        let lifted = |user: &UserId| control(control::Kind::Banned(Mute { user: user.to_string(), until_ms: 0 }));
        let controls = users.iter().map(lifted).collect();
        let tip = self.kind().is_live().then(|| {
            let persons = users.iter().map(|user| people.person(user)).collect();
            self.draft(&Tip::Unbanned(persons), origin, &self.operator(people, origin), self.place())
        });
        self.tell(controls, tip.flatten(), &[]).await;
        let notice = self.notice(NoticeKind::Unbanned, &origin.operator, json!({}));
        self.notify(&users, &notice);
        Ok(())
    }

    /// Who is banned now, by user; a page and where the next begins (0 = the end).
    pub(crate) fn banned(&self, offset: usize, limit: usize) -> Result<(Vec<Until>, u32)> {
        rules::allow(self.kind(), Rank::App, Act::Ban(Rank::Member))?;
        let bans = self.index.bans().iter().map(|(user, ban)| (user.clone(), ban.clone())).collect();
        let all = in_force(bans, self.now());
        let page: Vec<Until> = all.iter().skip(offset).take(limit).cloned().collect();
        let next = offset + page.len();
        let next = if next < all.len() { u32::try_from(next).unwrap_or(0) } else { 0 };
        Ok((page, next))
    }

    /// Recalls messages; a code for each.
    pub(crate) async fn recall(&mut self, request: &RecallRequest) -> Result<Vec<u32>> {
        let origin = request.origin.clone().unwrap_or_default();
        let rank = self.allow(&origin, Act::RecallOwn).await?;
        let others = rules::allow(self.kind(), rank, Act::RecallOthers).is_ok();
        let recall = Recall {
            token: self.shared.rng.u64(),
            mark_ms: self.now().0,
            seqs: request.seqs.clone(),
            reason: request.reason.clone(),
            sender: if others { String::new() } else { origin.operator.clone() },
            max_age_s: if rank == Rank::App { 0 } else { self.app.settings.recall_s },
            origin: Some(origin),
        };
        if wants(&self.app.settings, command::AFTER_RECALL) {
            // Whoever owns the group when the messages are recalled tells the app.
            let change = Change::at(self.now()).event(None, RECALL, recall.encode_to_vec());
            self.apply(change).await?;
        }
        self.recall_now(&recall).await
    }

    /// Sends a notice of the app's backend to everybody, or to some members; who is online gets it.
    pub(crate) async fn notice_all(&mut self, request: &NotifyRequest) -> Result<()> {
        let origin = request.origin.clone().unwrap_or_default();
        self.allow(&origin, Act::Notify).await?;
        if request.content.len() > self.app.settings.message_bytes as usize {
            return Err(Refusal::new(code::MSG_TOO_LONG, "Content is longer than the app allows"));
        }
        let content = json!({"userDefinedField": request.content});
        let notice = self.notice(NoticeKind::Custom, &origin.operator, content);
        if request.to.is_empty() {
            self.publish(vec![Record { kind: Some(record::Kind::Notice(notice)), ..Record::default() }], &[]);
            return Ok(());
        }
        if self.kind().is_live() {
            return Err(bad("ToMembers_Account must be absent for a live room"));
        }
        if request.to.len() > limits::NOTIFY_TO {
            return Err(Refusal::new(code::GROUP_TOO_MANY, "more than 500 receivers"));
        }
        let users: Vec<UserId> = request.to.iter().map(|user| UserId::trusted(user.as_str())).collect();
        let states = self.states(&users).await?;
        let members: Vec<UserId> =
            states.into_iter().filter(|state| state.member.is_some()).map(|state| state.user).collect();
        self.notify(&members, &notice);
        Ok(())
    }
}

/// Those that have not ended, as callers see them.
fn in_force(restrictions: Vec<(UserId, Restriction)>, now: UnixMillis) -> Vec<Until> {
    let ahead = restrictions.into_iter().filter(|(_, restriction)| restriction.until > now);
    let seconds = |until: UnixMillis| if until.0 == u64::MAX { FOREVER_S } else { until.0.div_ceil(1_000) };
    ahead.map(|(user, restriction)| Until { user: user.to_string(), until_s: seconds(restriction.until) }).collect()
}
