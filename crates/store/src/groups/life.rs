//! Beginning and end of a group.

use linnet_proto::store::GroupNameRow;
use linnet_types::{GroupId, SdkAppId, UnixMillis};

use super::layout::{self, NAME};
use super::model::{Change, Event, GroupName, GroupRecord, Member, UserEdit};
use super::{GroupGuard, Groups};
use crate::record::{self, Decision};
use crate::rows::{Error, Result};

/// A group to be.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its record; `conv` is freshly allocated, `generation` is filled in.
    pub record: GroupRecord,
    /// First members, the owner among them; their roles go into the record.
    pub members: Vec<Member>,
    /// What is told about it.
    pub events: Vec<Event>,
    /// When.
    pub at: UnixMillis,
}

/// How a creation ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart at once by the caller, who keeps the guard")]
pub enum Created {
    /// It is there, and claimed.
    New(GroupGuard),
    /// Another group has the id.
    Taken(GroupName),
}

impl Groups {
    /// Creates a group under its id, with its members, events and everything, or not at all: it exists from the moment
    /// its id names it. Of several at once with one id, one is created.
    ///
    /// # Errors
    /// [`Error`] of the store: it may exist or not; the id tells ([`Groups::find`]).
    pub async fn create(&self, new: NewGroup) -> Result<Created> {
        let (app, conv, group, kind) = (new.record.app, new.record.conv, new.record.group.clone(), new.record.kind);
        let (taken, generation) = self.name(app, &group).await?;
        if let Some(name) = taken {
            return Ok(Created::Taken(name));
        }
        let record = GroupRecord { generation: generation + 1, member_count: 0, destroyed: None, ..new.record };
        let mut held = GroupGuard::fresh(record.clone());
        let change = Change {
            at: new.at,
            record: Some(record.clone()),
            users: new.members.into_iter().map(UserEdit::put).collect(),
            events: new.events,
        };
        // Noted first: whatever a crash leaves half done is found again, or never had a name.
        self.put_open(app, conv, held.epoch).await?;
        let (_, intents) = self.apply_truth(&mut held, change).await?;
        let row = GroupNameRow {
            version: linnet_proto::store::RowVersion::RowVersion1.into(),
            conv: conv.0,
            generation: record.generation,
            kind: layout::kind_to_row(kind).into(),
            slots: record.slots.into(),
        };
        let value = record::encode(&row);
        let taken = record::change(&self.store, NAME, layout::name_partition(app, &group), |old| {
            let (name, last) = layout::name_from_row(old)?;
            match name {
                Some(name) => Ok(Decision::Keep(Some(name))),
                None if last != generation => {
                    let why = "the id was used and freed meanwhile".to_owned();
                    Err(Error::Unavailable { table: NAME.name, why })
                }
                None => Ok(Decision::Write(value.clone(), None)),
            }
        })
        .await?;
        if let Some(name) = taken {
            // Nobody will ever ask for this one; what is left of it hurts nobody, so a failure here is not the caller's.
            if let Err(error) = self.remove_open(app, conv, held.epoch).await {
                tracing::debug!(%error, "rows of a group that was not created stay behind");
            }
            return Ok(Created::Taken(name));
        }
        match self.put_index(&record).await {
            Ok(()) => self.carry_out(&mut held, intents).await,
            // The intents stay, and with them `resume` has the list in its care.
            Err(error) => tracing::warn!(%error, "derived rows of a new group are late"),
        }
        Ok(Created::New(held))
    }

    /// Dismisses a group: nobody changes it any more, its id is free, its last events are stored. Rows of its members go
    /// with [`Groups::resume`], which may take long for a large one.
    ///
    /// # Errors
    /// As [`Groups::apply`]. Once the first batch is in the group is dismissed, and `resume` does the rest.
    pub async fn destroy(&self, held: &mut GroupGuard, at: UnixMillis, events: Vec<Event>) -> Result<()> {
        held.usable()?;
        if held.record.destroyed.is_none() {
            let writes = held.event_rows(0, at, events)?;
            let mut data = held.slots[0].data;
            data.destroyed_ms = at.0.max(1);
            self.write(held, 0, writes, data).await?;
        }
        self.release(held).await
    }

    /// Frees the id of a dismissed group and takes it off the app's list.
    pub(super) async fn release(&self, held: &GroupGuard) -> Result<()> {
        let (app, conv) = (held.record.app, held.record.conv);
        record::change(&self.store, NAME, layout::name_partition(app, &held.record.group), |old| {
            let (name, generation) = layout::name_from_row(old)?;
            if name.is_none_or(|name| name.conv != conv) {
                return Ok(Decision::Keep(()));
            }
            Ok(Decision::Write(record::encode(&GroupNameRow { generation, ..GroupNameRow::default() }), ()))
        })
        .await?;
        self.remove_index(&held.record).await
    }

    async fn name(&self, app: SdkAppId, group: &GroupId) -> Result<(Option<GroupName>, u32)> {
        let value = record::load(&self.store, NAME, &layout::name_partition(app, group)).await?;
        layout::name_from_row(value.as_deref())
    }
}
