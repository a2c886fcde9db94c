//! Facts beside messages that need no order: receipts and one-sided deletes. Plain rows, written by any node.

use bytes::Bytes;
use linnet_types::{Seq, UnixMillis, UserId};

use super::Result;
use super::head::put;
use super::read::Reader;
use super::tables::{bucket_of, bucket_span, class_of};
use crate::keys::{Key, Parts};
use crate::rows::{self, PlainBatch, Range, Write};

/// What a side row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SideKind {
    /// The user has read the message.
    Receipt = 1,
    /// The user has deleted the message for himself.
    Deleted = 2,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The message.
    pub seq: Seq,
    /// Of whom it is said.
    pub user: UserId,
    /// More, by the service's own encoding.
    pub value: Bytes,
}

impl Reader {
    /// Writes facts of one kind about messages; repeating changes nothing. `sent` is the time of the oldest of them: the
    /// facts live as long as a message of that age still does.
    ///
    /// # Errors
    /// [`super::Error::Store`]: some may be written; repeat.
    pub async fn put_sides(&self, kind: SideKind, sides: &[Side], sent: UnixMillis) -> Result<()> {
        let age = self.inner.clock.now().since(sent);
        let mut rest = sides;
        while let Some(first) = rest.first() {
            let bucket = bucket_of(first.seq.0);
            let same = rest.iter().take_while(|side| bucket_of(side.seq.0) == bucket).count();
            let class = class_of(&self.classes, bucket);
            let write = |side: &Side| {
                let clustering = key(kind).u64(side.seq.0).text(side.user.as_str()).done();
                (self.id.bucket(bucket), Write::Put { clustering, value: side.value.clone() })
            };
            let writes = rest[..same].iter().map(write).collect();
            put(&self.inner.store, PlainBatch { table: class.side(), writes, life: class.life_left(age) }).await?;
            rest = &rest[same..];
        }
        Ok(())
    }

    /// The facts of one kind about `from..=to`, by seq, then user.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn sides(&self, kind: SideKind, from: Seq, to: Seq) -> Result<Vec<Side>> {
        let mut found = Vec::new();
        let mut next = from.0.max(1);
        let last = to.0.min(self.last_seq);
        while next <= last {
            let bucket = bucket_of(next);
            let end = bucket_span(bucket).1.min(last);
            let table = class_of(&self.classes, bucket).side();
            let range = Range {
                from: Some(key(kind).u64(next).done()),
                to: Some(key(kind).u64(end + 1).done()),
                ..Range::default()
            };
            for row in self.inner.store.scan(table, &self.id.bucket(bucket), range).await? {
                found.push(decode(table.name, &row)?);
            }
            next = end + 1;
        }
        Ok(found)
    }
}

fn key(kind: SideKind) -> Key {
    Key::new().u8(kind as u8)
}

fn decode(table: &'static str, row: &rows::Row) -> rows::Result<Side> {
    let mut parts = Parts::new(table, &row.clustering);
    parts.u8()?;
    let (seq, user) = (parts.u64()?, parts.text()?);
    Ok(Side { seq: Seq(seq), user: UserId::trusted(user), value: row.value.clone() })
}
