//! Reading members, mutes, bans and applications.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_types::{UnixMillis, UserId};

use super::layout::{self, GROUP, tag};
use super::model::{Application, Member, MemberCursor, Restriction, UserState};
use super::{GroupGuard, Groups};
use crate::keys;
use crate::rows::{Range, Result, Write};

/// Rows read at once.
const READS: usize = 16;
/// Rows removed by one batch.
const SWEEP: usize = 256;

impl Groups {
    /// One member. Claims his partition, so the answer stays true until this holder changes it or is deposed.
    ///
    /// # Errors
    /// As [`Groups::apply`].
    pub async fn member(&self, held: &mut GroupGuard, user: &UserId) -> Result<Option<Member>> {
        let slot = held.slot_of(user);
        self.own(held, slot).await?;
        let value = self.store.get(GROUP, &held.partition(slot), &layout::user_key(tag::MEMBER, user)).await?;
        value.map(|value| layout::member_from_row(&held.record, user.clone(), &value)).transpose()
    }

    /// Everything known about some accounts, in their order. Claims their partitions.
    ///
    /// # Errors
    /// As [`Groups::apply`].
    pub async fn user_states(&self, held: &mut GroupGuard, users: &[UserId]) -> Result<Vec<UserState>> {
        for user in users {
            let slot = held.slot_of(user);
            self.own(held, slot).await?;
        }
        let held = &*held;
        stream::iter(users.to_vec()).map(|user| self.user_state(held, user)).buffered(READS).try_collect().await
    }

    async fn user_state(&self, held: &GroupGuard, user: UserId) -> Result<UserState> {
        let partition = held.partition(held.slot_of(&user));
        let get = |tag| {
            let (partition, key) = (partition.clone(), layout::user_key(tag, &user));
            async move { self.store.get(GROUP, &partition, &key).await }
        };
        let (member, mute, ban, application) =
            futures::try_join!(get(tag::MEMBER), get(tag::MUTE), get(tag::BAN), get(tag::APPLICATION))?;
        let restriction = |value: Option<Bytes>| value.map(|value| layout::restriction_from_row(&value)).transpose();
        Ok(UserState {
            member: member.map(|value| layout::member_from_row(&held.record, user.clone(), &value)).transpose()?,
            mute: restriction(mute)?,
            ban: restriction(ban)?,
            application: application.map(|value| layout::application_from_row(&value)).transpose()?,
            user,
        })
    }

    /// Lists members in a fixed order, at most `limit` (at least 1) after `from`; `None` beside the page = end. For display:
    /// partitions are not claimed.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn members(
        &self,
        held: &GroupGuard,
        from: Option<&MemberCursor>,
        limit: usize,
    ) -> Result<(Vec<Member>, Option<MemberCursor>)> {
        let limit = limit.max(1);
        let (mut slot, mut after) = from.map_or((0, None), |from| (from.slot, Some(&from.after)));
        let mut members: Vec<Member> = Vec::new();
        while slot < held.record.slots {
            let all = keys::prefix(layout::tag_key(tag::MEMBER));
            let from = after.take().map(|user| keys::after(&layout::user_key(tag::MEMBER, user)));
            let want = limit - members.len();
            let range = Range { from: from.or_else(|| all.from.clone()), limit: want, ..all };
            let rows = self.store.scan(GROUP, &held.partition(slot), range).await?;
            for row in &rows {
                members.push(layout::member_from_row(&held.record, layout::key_user(&row.clustering)?, &row.value)?);
            }
            if rows.len() == want {
                let next = members.last().map(|last| MemberCursor { slot, after: last.user.clone() });
                return Ok((members, next));
            }
            slot += 1;
        }
        Ok((members, None))
    }

    /// Owner and admins as members, without walking the group.
    ///
    /// # Errors
    /// As [`Groups::apply`].
    pub async fn managers(&self, held: &mut GroupGuard) -> Result<Vec<Member>> {
        let users: Vec<UserId> = held.record.owner.iter().chain(&held.record.admins).cloned().collect();
        Ok(self.user_states(held, &users).await?.into_iter().filter_map(|state| state.member).collect())
    }

    /// Every mute, expired ones too, by partition and user.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn mutes(&self, held: &GroupGuard) -> Result<Vec<(UserId, Restriction)>> {
        self.users_of(held, tag::MUTE, layout::restriction_from_row).await
    }

    /// Every ban, expired ones too, by partition and user.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn bans(&self, held: &GroupGuard) -> Result<Vec<(UserId, Restriction)>> {
        self.users_of(held, tag::BAN, layout::restriction_from_row).await
    }

    /// Every pending application, by partition and user.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn applications(&self, held: &GroupGuard) -> Result<Vec<(UserId, Application)>> {
        self.users_of(held, tag::APPLICATION, layout::application_from_row).await
    }

    /// Removes mutes and bans that ended before `now`, and returns how many: without it their rows only pile up.
    ///
    /// # Errors
    /// As [`Groups::apply`]: what is left is found again.
    pub async fn sweep_restrictions(&self, held: &mut GroupGuard, now: UnixMillis) -> Result<usize> {
        let mut by_slot: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        for (tag, rows) in [(tag::MUTE, self.mutes(held).await?), (tag::BAN, self.bans(held).await?)] {
            for (user, _) in rows.iter().filter(|(_, restriction)| restriction.until <= now) {
                by_slot.entry(held.slot_of(user)).or_default().push(layout::user_key(tag, user));
            }
        }
        let mut swept = 0;
        for (slot, keys) in by_slot {
            self.own(held, slot).await?;
            for keys in keys.chunks(SWEEP) {
                let partition = held.partition(slot);
                let mut writes = Vec::with_capacity(keys.len());
                for clustering in keys {
                    // Read again under the claim: it may have been renewed.
                    let value = self.store.get(GROUP, &partition, clustering).await?;
                    let Some(value) = value else { continue };
                    if layout::restriction_from_row(&value)?.until <= now {
                        writes.push(Write::Delete { clustering: clustering.clone() });
                    }
                }
                if !writes.is_empty() {
                    swept += writes.len();
                    let data = held.slots[usize::from(slot)].data;
                    self.write(held, slot, writes, data).await?;
                }
            }
        }
        Ok(swept)
    }

    async fn users_of<T>(
        &self,
        held: &GroupGuard,
        tag: u8,
        from_row: fn(&[u8]) -> Result<T>,
    ) -> Result<Vec<(UserId, T)>> {
        let scans: Vec<_> = stream::iter(0..held.record.slots)
            .map(|slot| {
                let partition = held.partition(slot);
                async move { self.store.scan(GROUP, &partition, keys::prefix(layout::tag_key(tag))).await }
            })
            .buffered(READS)
            .try_collect()
            .await?;
        let mut found = Vec::new();
        for row in scans.into_iter().flatten() {
            found.push((layout::key_user(&row.clustering)?, from_row(&row.value)?));
        }
        Ok(found)
    }
}
