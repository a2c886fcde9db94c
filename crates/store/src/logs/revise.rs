//! Changing stored messages: revocations, modifications, reactions. Kept beside the log and laid over it on reading.

use linnet_proto::store::{MessageHead, Revision, RevisionGuard, RevokedSeq};
use linnet_types::{Epoch, Seq};
use prost::Message;

use super::claim::contended;
use super::log::Log;
use super::read::decode_row;
use super::tables::{Class, bucket_of, class_of, revision_key};
use super::{Error, Result};
use crate::rows::{self, Applied, Guard, GuardedBatch, Table, Write};

/// Writers that lose this often in a row give up.
const TRIES: u32 = 16;

/// Where the revision of a message lies.
struct Place {
    seq: u64,
    class: Class,
    table: Table,
    partition: bytes::Bytes,
}

impl Log {
    /// Changes what became of a message. `change` sees its revision so far (the default when it has none) and says whether
    /// anything is to be written; it may be called again when a write is lost. Each write counts `version` up and sets the time.
    ///
    /// Returns the revision as it is now. Idempotent if `change` is. Two to four round trips.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`]; [`Error::StaleOwner`]: the change may be in, the new owner sees it;
    /// [`Error::Version`] when `expect` is not the version found (0 = never changed); [`Error::Store`].
    pub async fn revise(
        &mut self,
        seq: Seq,
        expect: Option<u32>,
        mut change: impl FnMut(&mut Revision) -> bool + Send,
    ) -> Result<Revision> {
        self.usable()?;
        let Some(head) = self.reader().head(seq).await? else { return Err(Error::NoSuchMessage(seq)) };
        let place = self.place(seq.0);
        for _ in 0..TRIES {
            // The guard first: a row newer than its guard makes the write fail, never the reverse.
            let guard = self.inner.store.guard(place.table, &place.partition).await?;
            if guard.as_ref().is_some_and(|guard| guard.epoch > self.epoch()) {
                return Err(self.depose());
            }
            let mut revision = self.revision(&place).await?.unwrap_or_default();
            if expect.is_some_and(|expected| expected != revision.version) {
                return Err(Error::Version(Box::new(revision)));
            }
            if !change(&mut revision) {
                return Ok(revision);
            }
            revision.version += 1;
            revision.time_ms = self.inner.clock.now().0;
            let name = self.inner.rng.u64();
            let batch = self.revision_batch(&place, guard.as_ref(), name, Some((&head, &revision)));
            let written = match self.inner.store.write(batch).await {
                Ok(applied) => applied.is_yes(),
                Err(rows::Error::Unknown { .. }) => {
                    // Whatever comes of it, memory is not to be believed.
                    self.cache.clear();
                    self.settle_revision(&place, name).await?
                }
                Err(e) => {
                    self.cache.clear();
                    return Err(e.into());
                }
            };
            if written {
                self.cache.revise(seq, &revision);
                // An owner that was replaced before this line has changed a message its successor may have in memory:
                // not being told "done", the caller asks the successor, who then looks.
                self.confirm().await?;
                if revision.revoke.is_some() {
                    self.note_revoked(RevokedSeq { seq: seq.0, ord: head.ord, countable: head.countable });
                }
                return Ok(revision);
            }
        }
        Err(contended(place.table).into())
    }

    fn place(&self, seq: u64) -> Place {
        let class = class_of(&self.classes, bucket_of(seq));
        Place { seq, class, table: class.revision(), partition: self.id.bucket(bucket_of(seq)) }
    }

    async fn revision(&self, place: &Place) -> Result<Option<Revision>> {
        let value = self.inner.store.get(place.table, &place.partition, &revision_key(place.seq)).await?;
        Ok(value.map(|value| decode_row(place.table, &value)).transpose()?)
    }

    /// Whether the write called `name` is in; if not, it never will be.
    async fn settle_revision(&mut self, place: &Place, name: u64) -> Result<bool> {
        for _ in 0..TRIES {
            let guard = self.inner.store.guard(place.table, &place.partition).await?;
            if let Some(guard) = &guard {
                let data: RevisionGuard = decode_row(place.table, &guard.data)?;
                if data.last_write == name {
                    return Ok(true);
                }
            }
            let batch = self.revision_batch(place, guard.as_ref(), 0, None);
            match self.inner.store.write(batch).await {
                // Refused because it changed: by ours, perhaps.
                Ok(Applied::No(_)) | Err(rows::Error::Unknown { .. }) => {}
                Ok(Applied::Yes) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Err(contended(place.table).into())
    }

    fn revision_batch(
        &self,
        place: &Place,
        found: Option<&Guard>,
        name: u64,
        row: Option<(&MessageHead, &Revision)>,
    ) -> GuardedBatch {
        let now = self.inner.clock.now();
        let writes = row.map(|(_, revision)| Write::Put {
            clustering: revision_key(place.seq),
            value: revision.encode_to_vec().into(),
        });
        let age = row.map_or(0, |(head, _)| now.0.saturating_sub(head.time_ms));
        let guard = Guard {
            epoch: self.epoch().max(found.map_or(Epoch(0), |guard| guard.epoch)),
            rev: found.map_or(1, |guard| guard.rev + 1),
            data: RevisionGuard { last_write: name }.encode_to_vec().into(),
        };
        GuardedBatch {
            table: place.table,
            partition: place.partition.clone(),
            expect: found.map(|guard: &Guard| -> (Epoch, u64) { (guard.epoch, guard.rev) }),
            guard,
            writes: writes.into_iter().collect(),
            life: place.class.life_left(age),
            guard_life: place.class.guard_life(),
        }
    }
}
