//! Who is in a group, as its actor remembers it.
//!
//! Small groups and live rooms are remembered whole. Of a community only the accounts somebody asked about are; nothing
//! walks its members.

use std::collections::{BTreeMap, HashMap};

use linnet_store::groups::{Application, Edit, GroupGuard, Groups, Member, Restriction, UserEdit, UserState};
use linnet_types::{UnixMillis, UserId};

/// Accounts of a community remembered at once (about 500 bytes each).
const CACHED: usize = 20_000;
/// Members read at once while a small group is loaded.
const PAGE: usize = 1_000;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Index {
    whole: bool,
    members: HashMap<UserId, Member>,
    mutes: BTreeMap<UserId, Restriction>,
    bans: BTreeMap<UserId, Restriction>,
    applications: BTreeMap<UserId, Application>,
    cached: HashMap<UserId, UserState>,
}

impl Index {
    /// Reads what a claimed group remembers whole.
    pub(crate) async fn load(groups: &Groups, held: &GroupGuard) -> linnet_store::Result<Self> {
        let mut index = Self { whole: held.record().slots == 1, ..Self::default() };
        if !index.whole {
            return Ok(index);
        }
        let mut from = None;
        loop {
            let (page, next) = groups.members(held, from.as_ref(), PAGE).await?;
            index.members.extend(page.into_iter().map(|member| (member.user.clone(), member)));
            from = next;
            if from.is_none() {
                break;
            }
        }
        index.mutes = groups.mutes(held).await?.into_iter().collect();
        index.bans = groups.bans(held).await?.into_iter().collect();
        index.applications = groups.applications(held).await?.into_iter().collect();
        Ok(index)
    }

    /// Whether everything is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Members, of a group remembered whole.
    pub(crate) fn members(&self) -> &HashMap<UserId, Member> {
        &self.members
    }

    /// Mutes, of a group remembered whole.
    pub(crate) fn mutes(&self) -> &BTreeMap<UserId, Restriction> {
        &self.mutes
    }

    /// Bans, of a group remembered whole.
    pub(crate) fn bans(&self) -> &BTreeMap<UserId, Restriction> {
        &self.bans
    }

    /// Applications, of a group remembered whole.
    pub(crate) fn applications(&self) -> &BTreeMap<UserId, Application> {
        &self.applications
    }

    /// What is known of `user` without asking the store; `None` = not known here.
    pub(crate) fn get(&self, user: &UserId) -> Option<UserState> {
        if !self.whole {
            return self.cached.get(user).cloned();
        }
        Some(UserState {
            user: user.clone(),
            member: self.members.get(user).cloned(),
            mute: self.mutes.get(user).cloned(),
            ban: self.bans.get(user).cloned(),
            application: self.applications.get(user).cloned(),
        })
    }

    /// Whether `user` may speak as far as membership, mute and ban go, without copying; `None` = not known here.
    pub(crate) fn standing(&self, user: &UserId) -> Option<Standing> {
        let until = |restriction: Option<&Restriction>| restriction.map_or(UnixMillis(0), |r| r.until);
        if self.whole {
            return Some(Standing {
                member: self.members.contains_key(user),
                muted_until: until(self.mutes.get(user)),
                banned_until: until(self.bans.get(user)),
            });
        }
        self.cached.get(user).map(|state| Standing {
            member: state.member.is_some(),
            muted_until: until(state.mute.as_ref()),
            banned_until: until(state.ban.as_ref()),
        })
    }

    /// Remembers what the store said.
    pub(crate) fn remember(&mut self, states: impl IntoIterator<Item = UserState>) {
        if self.cached.len() > CACHED {
            self.cached.clear();
        }
        self.cached.extend(states.into_iter().map(|state| (state.user.clone(), state)));
    }

    /// Notes when a member of a group remembered whole last sent. True when he is one.
    pub(crate) fn spoke(&mut self, user: &str, at: UnixMillis) -> bool {
        let member = self.members.get_mut(user);
        member.map(|member| member.last_send = Some(at)).is_some()
    }

    /// Forgets what may be wrong after a change that failed half way.
    pub(crate) fn doubt(&mut self) {
        self.cached.clear();
    }

    /// Follows a change that is durable.
    pub(crate) fn take(&mut self, edits: Vec<UserEdit>) {
        for edit in edits {
            let user = edit.user;
            if self.whole {
                put(edit.member, |value| keep(&mut self.members, &user, value));
                put(edit.mute, |value| keep_sorted(&mut self.mutes, &user, value));
                put(edit.ban, |value| keep_sorted(&mut self.bans, &user, value));
                put(edit.application, |value| keep_sorted(&mut self.applications, &user, value));
            } else if let Some(state) = self.cached.get_mut(&user) {
                put(edit.member, |value| state.member = value);
                put(edit.mute, |value| state.mute = value);
                put(edit.ban, |value| state.ban = value);
                put(edit.application, |value| state.application = value);
            }
        }
    }
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) member: bool,
    pub(crate) muted_until: UnixMillis,
    pub(crate) banned_until: UnixMillis,
}

fn put<T>(edit: Edit<T>, set: impl FnOnce(Option<T>)) {
    match edit {
        Edit::Keep => {}
        Edit::Put(value) => set(Some(value)),
        Edit::Remove => set(None),
    }
}

fn keep<T>(map: &mut HashMap<UserId, T>, user: &UserId, value: Option<T>) {
    match value {
        Some(value) => map.insert(user.clone(), value),
        None => map.remove(user),
    };
}

fn keep_sorted<T>(map: &mut BTreeMap<UserId, T>, user: &UserId, value: Option<T>) {
    match value {
        Some(value) => map.insert(user.clone(), value),
        None => map.remove(user),
    };
}
