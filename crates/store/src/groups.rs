//! Groups, their members, mutes, bans, applications and events.
//!
//! ```text
//! group_name (app, id)          guarded  id -> conversation; a reused id gets a new one
//! group      (app, conv, slot)  guarded  slot 0: profile, counters; every slot: rows of the users that hash to it
//!                                        (member, mute, ban, application), outbox rows, intents
//! joined     (app, user)        plain    derived: user -> groups
//! app_group  (app, kind)        plain    derived: app -> groups
//! open_group (slot)             plain    groups claimed and not closed: what a node looks at after a crash
//! ```
//!
//! - A small group has one slot, so a change of members, roles and events is one batch. A community has 64; its changes are
//!   ordered so that rights are narrowed first and widened last.
//! - Everything is written by the holder of a [`GroupGuard`]: his epoch and rev are the condition of every batch, so an
//!   earlier holder, or his write that was under way, changes nothing after the claim.
//! - A change of memberships leaves an intent in its batch; [`Groups::resume`] brings the derived tables in line with it.
//!
//! ```text
//! claim -> GroupGuard -> apply(change) -> one batch: rows + events + intent     Stale -> drop the guard
//!                           |  durable here
//!                           +-> derived rows; the intent goes with a later batch
//! ```

mod change;
mod derived;
mod describe;
mod guard;
mod layout;
mod life;
mod members;
mod model;
mod outbox;
#[cfg(test)]
mod tests;

use linnet_proto::store::GroupGuardData;
use linnet_types::{ConvId, GroupId, SdkAppId, UnixMillis};

pub use derived::OPEN_SLOTS;
pub use describe::{describe, describe_guard, tables};
pub use guard::GroupGuard;
pub use life::{Created, NewGroup};
pub use model::{
    AppGroup, Application, Change, Done, Edit, Event, GroupName, GroupRecord, Joined, Member, MemberCursor, OpenGroup,
    OutboxEvent, Restriction, UserEdit, UserState, slots_of,
};

use crate::record;
use crate::rows::{Result, Store};

/// Every group.
#[derive(Clone)]
pub struct Groups {
    store: Store,
}

impl Groups {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// What a group id means now; `None` when no group has it.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn find(&self, app: SdkAppId, group: &GroupId) -> Result<Option<GroupName>> {
        let value = record::load(&self.store, layout::NAME, &layout::name_partition(app, group)).await?;
        Ok(layout::name_from_row(value.as_deref())?.0)
    }

    /// Reads a group without claiming it: what was true a moment ago, for display and search, never for rights.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn read(&self, app: SdkAppId, conv: ConvId) -> Result<Option<GroupRecord>> {
        let first = layout::partition(app, conv, 0);
        let Some(profile) = self.store.get(layout::GROUP, &first, &layout::profile_key()).await? else {
            return Ok(None);
        };
        let mut record = layout::profile_from_row(app, conv, &profile)?;
        for slot in 0..record.slots {
            let guard = self.store.guard(layout::GROUP, &layout::partition(app, conv, slot)).await?;
            let Some(guard) = guard else { continue };
            let data: GroupGuardData = record::decode(layout::GROUP, &guard.data)?;
            record.member_count += data.members;
            if slot == 0 {
                record.info_seq = data.info_seq;
                record.live_seq = data.live_seq;
                record.destroyed = (data.destroyed_ms != 0).then_some(UnixMillis(data.destroyed_ms));
            }
        }
        Ok(Some(record))
    }

    /// Whether `conv` is the conversation its group id means, or a dismissed group's.
    async fn exists(&self, app: SdkAppId, conv: ConvId) -> Result<bool> {
        let first = layout::partition(app, conv, 0);
        let Some(profile) = self.store.get(layout::GROUP, &first, &layout::profile_key()).await? else {
            return Ok(false);
        };
        let group = layout::profile_from_row(app, conv, &profile)?.group;
        if self.find(app, &group).await?.is_some_and(|name| name.conv == conv) {
            return Ok(true);
        }
        let Some(guard) = self.store.guard(layout::GROUP, &first).await? else { return Ok(false) };
        let data: GroupGuardData = record::decode(layout::GROUP, &guard.data)?;
        Ok(data.destroyed_ms != 0)
    }
}
