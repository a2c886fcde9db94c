//! Tables, keys and retention classes of a log.

use std::time::Duration;

use bytes::Bytes;
use linnet_proto::store::ClassSpan;
use linnet_types::{ConvId, SdkAppId};

use crate::keys::Key;
use crate::rows::{Kind, Life, Result, Table};

/// Seqs of one bucket, which is one partition.
pub const BUCKET_SEQS: u64 = 4096;
/// Hash slots over which a service's open logs are spread.
pub const SLOTS: u32 = 64;

const HEAD: u8 = 0;
const BODY: u8 = 1;

const fn guarded(name: &'static str) -> Table {
    Table { name, kind: Kind::Guarded }
}

const fn plain(name: &'static str) -> Table {
    Table { name, kind: Kind::Plain }
}

/// Which class the first bucket of a conversation is kept in: decided once, before there is anything else.
pub const LOG_ORIGIN: Table = guarded("log_origin");
/// What is known of a log without its buckets. A row per epoch: a deposed owner's late write changes nothing.
pub const LOG_HEAD: Table = plain("log_head");
/// The logs that are open, by service and slot.
pub const OPEN_LOGS: Table = plain("open_logs");

/// How long messages are kept; each class has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 90 days.
    Quarter,
    /// 365 days.
    Year,
    /// Never expires.
    Forever,
}

impl Class {
    /// Every class, shortest first.
    pub const ALL: [Self; 5] = [Self::Week, Self::Month, Self::Quarter, Self::Year, Self::Forever];

    /// Days a message is kept; 0 = for ever.
    #[must_use]
    pub fn days(self) -> u32 {
        match self {
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
            Self::Year => 365,
            Self::Forever => 0,
        }
    }

    /// The shortest class that keeps messages for `days` days; 0 = for ever.
    #[must_use]
    pub fn for_days(days: u32) -> Self {
        match days {
            1..=7 => Self::Week,
            8..=30 => Self::Month,
            31..=90 => Self::Quarter,
            91..=365 => Self::Year,
            _ => Self::Forever,
        }
    }

    /// Life of a message.
    #[must_use]
    pub fn life(self) -> Life {
        match self.days() {
            0 => Life::Forever,
            days => Life::For(days_long(days)),
        }
    }

    /// Life of a guard: a little longer, so that no row is ever without one.
    #[must_use]
    pub fn guard_life(self) -> Life {
        match self.days() {
            0 => Life::Forever,
            days => Life::For(days_long(days) + days_long(days) / 20 + Duration::from_secs(3600)),
        }
    }

    /// What is left of the life of a message sent `age_ms` ago.
    #[must_use]
    pub fn life_left(self, age_ms: u64) -> Life {
        match self.days() {
            0 => Life::Forever,
            days => {
                let left = days_long(days).saturating_sub(Duration::from_millis(age_ms));
                Life::For(left.max(Duration::from_secs(1)))
            }
        }
    }

    /// Messages.
    #[must_use]
    pub fn log(self) -> Table {
        guarded(match self {
            Self::Week => "log_7d",
            Self::Month => "log_30d",
            Self::Quarter => "log_90d",
            Self::Year => "log_1y",
            Self::Forever => "log_forever",
        })
    }

    /// Revocations, modifications, reactions.
    #[must_use]
    pub fn revision(self) -> Table {
        guarded(match self {
            Self::Week => "revision_7d",
            Self::Month => "revision_30d",
            Self::Quarter => "revision_90d",
            Self::Year => "revision_1y",
            Self::Forever => "revision_forever",
        })
    }

    /// Receipts and one-sided deletes.
    #[must_use]
    pub fn side(self) -> Table {
        plain(match self {
            Self::Week => "side_7d",
            Self::Month => "side_30d",
            Self::Quarter => "side_90d",
            Self::Year => "side_1y",
            Self::Forever => "side_forever",
        })
    }
}

fn days_long(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

/// The class of `bucket`, by the spans of a log (ascending).
pub(super) fn class_of(classes: &[ClassSpan], bucket: u64) -> Class {
    let span = classes.iter().rev().find(|span| span.from_bucket <= bucket).or_else(|| classes.first());
    Class::for_days(span.map_or(0, |span| span.days))
}

/// Notes that buckets from `bucket` on are kept for `days`, unless that or more is known already.
pub(super) fn note_class(classes: &mut Vec<ClassSpan>, bucket: u64, days: u32) {
    if classes.last().is_none_or(|last| last.days != days && last.from_bucket < bucket) {
        classes.push(ClassSpan { from_bucket: bucket, days });
    }
}

/// A log, inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The tenant.
    pub app: SdkAppId,
    /// The conversation.
    pub conv: ConvId,
}

impl LogId {
    /// Partition of `log_head` and `log_origin`.
    pub(super) fn partition(self) -> Bytes {
        Key::new().u32(self.app.0).u64(self.conv.0).done()
    }

    /// Partition of one bucket, in the tables of messages, revisions and side rows alike.
    pub(super) fn bucket(self, bucket: u64) -> Bytes {
        Key::new().u32(self.app.0).u64(self.conv.0).u64(bucket).done()
    }

    /// Slot of `open_logs`: by a fixed mix of the id, whatever order ids were allocated in.
    #[must_use]
    pub fn slot(self) -> u32 {
        let mut hash = self.conv.0 ^ (u64::from(self.app.0) << 40);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((hash ^ (hash >> 31)) % u64::from(SLOTS)).expect("below the number of slots")
    }
}

/// The bucket that holds `seq` (from 1).
pub(super) fn bucket_of(seq: u64) -> u64 {
    seq.saturating_sub(1) / BUCKET_SEQS
}

/// First and last seq of a bucket.
pub(super) fn bucket_span(bucket: u64) -> (u64, u64) {
    (bucket * BUCKET_SEQS + 1, (bucket + 1) * BUCKET_SEQS)
}

pub(super) fn head_key(seq: u64) -> Bytes {
    Key::new().u8(HEAD).u64_desc(seq).done()
}

pub(super) fn body_key(seq: u64) -> Bytes {
    Key::new().u8(BODY).u64_desc(seq).done()
}

pub(super) fn revision_key(seq: u64) -> Bytes {
    Key::new().u64_desc(seq).done()
}

/// Seq of a head, body or revision row.
pub(super) fn seq_of(table: Table, clustering: &[u8]) -> Result<u64> {
    match clustering.last_chunk() {
        Some(desc) => Ok(!u64::from_be_bytes(*desc)),
        None => Err(crate::Error::Corrupt { table: table.name, why: "a key without a seq".to_owned() }),
    }
}

/// Whether a row of a log table holds a head rather than a body.
pub(super) fn is_head(clustering: &[u8]) -> bool {
    clustering.first() == Some(&HEAD)
}

pub(super) fn open_partition(service: &str, slot: u32) -> Bytes {
    Key::new().text(service).u32(slot).done()
}

pub(super) fn open_key(id: LogId, epoch: u64) -> Bytes {
    Key::new().u32(id.app.0).u64(id.conv.0).u64(epoch).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_4096_seqs_from_1() {
        assert_eq!((bucket_of(1), bucket_of(4096), bucket_of(4097)), (0, 0, 1));
        assert_eq!((bucket_span(0), bucket_span(1)), ((1, 4096), (4097, 8192)));
    }

    #[test]
    fn a_class_covers_the_days_asked_for() {
        for days in 1..400 {
            let class = Class::for_days(days);
            assert!(class == Class::Forever || class.days() >= days, "{days}");
        }
        assert!(Class::ALL.into_iter().all(|class| Class::for_days(class.days()) == class));
    }

    #[test]
    fn a_bucket_has_the_class_of_the_last_span_that_begins_before_it() {
        let mut spans = Vec::new();
        note_class(&mut spans, 0, 7);
        note_class(&mut spans, 3, 7);
        note_class(&mut spans, 5, 30);
        note_class(&mut spans, 3, 90);
        assert_eq!(spans.len(), 2, "what is known of later buckets stands");
        assert_eq!((class_of(&spans, 4), class_of(&spans, 5)), (Class::Week, Class::Month));
    }

    #[test]
    fn newer_messages_sort_first_and_heads_before_bodies() {
        assert!(head_key(9) < head_key(8) && head_key(1) < body_key(9));
        assert_eq!(seq_of(LOG_HEAD, &body_key(7)).unwrap(), 7);
    }
}
