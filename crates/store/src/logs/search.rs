//! Finding a place in a log: the first readable seq, the seq at a time, the message of a public key.
//!
//! Time never decreases along a log and messages expire in the order of their time, so each is a binary search: over the
//! buckets' guards first, then over heads inside one bucket.

use linnet_proto::store::MessageHead;
use linnet_types::{MsgKey, Seq, UnixMillis};

use super::Result;
use super::log::decode_guard;
use super::read::Reader;
use super::tables::{BUCKET_SEQS, Class, bucket_of, bucket_span, class_of};

/// Heads read at once while looking through one second.
const STEP: usize = 200;

impl Reader {
    /// The lowest seq that can still be read; one past the last when nothing can. About 2 log2(seqs) point reads, none
    /// when nothing of the log expires.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn first_seq(&self) -> Result<Seq> {
        let least = self.first_seq.max(self.floor + 1);
        let mut from = least;
        for span in self.spans() {
            let (start, end) = (span.0.max(from), span.1.min(self.last_seq));
            if start > end {
                continue;
            }
            if span.2 == Class::Forever {
                return Ok(Seq(start));
            }
            if let Some(first) = self.first_of(start, end).await? {
                return Ok(Seq(first));
            }
            from = end + 1;
        }
        Ok(Seq(from.max(least)))
    }

    /// (first seq, last seq, class) of each stretch kept in one class.
    fn spans(&self) -> Vec<(u64, u64, Class)> {
        let starts = self.classes.iter().map(|span| (span.from_bucket, Class::for_days(span.days)));
        let starts: Vec<_> = starts.collect();
        let ends = starts.iter().skip(1).map(|(bucket, _)| bucket * BUCKET_SEQS).chain([u64::MAX]);
        starts.iter().zip(ends).map(|((bucket, class), end)| (bucket_span(*bucket).0, end, *class)).collect()
    }

    /// The first seq of `start..=end` that is there.
    async fn first_of(&self, start: u64, end: u64) -> Result<Option<u64>> {
        let (mut low, mut high) = (bucket_of(start), bucket_of(end));
        while low < high {
            let middle = low + (high - low) / 2;
            let (from, to) = bucket_span(middle);
            if self.heads_between(from, to.min(end), 1, false).await?.is_empty() {
                low = middle + 1
            } else {
                high = middle
            }
        }
        let (from, to) = bucket_span(low);
        let oldest = self.heads_between(from.max(start), to.min(end), 1, true).await?;
        Ok(oldest.first().map(|(seq, _)| *seq))
    }

    /// The first message at or after `time`; one past the last when all are older. Expired messages count as older.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn seq_at(&self, time: UnixMillis) -> Result<Seq> {
        if self.last_seq == 0 {
            return Ok(Seq(1));
        }
        let (mut low, mut high) = (bucket_of(self.first_seq), bucket_of(self.last_seq));
        // The last bucket that begins before `time` holds the place, or it is the one after.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.begins_before(middle, time).await? { low = middle } else { high = middle - 1 }
        }
        let (start, end) = bucket_span(low);
        let (mut low, mut high) = (start, end.min(self.last_seq) + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let is_older = self.head(Seq(middle)).await?.is_none_or(|head| head.time_ms < time.0);
            if is_older { low = middle + 1 } else { high = middle }
        }
        Ok(Seq(low))
    }

    async fn begins_before(&self, bucket: u64, time: UnixMillis) -> Result<bool> {
        let table = class_of(&self.classes, bucket).log();
        let Some(guard) = self.inner.store.guard(table, &self.id.bucket(bucket)).await? else {
            return Ok(bucket < bucket_of(self.last_seq));
        };
        let first = decode_guard(table, &guard)?.first_time_ms;
        Ok(first != 0 && first < time.0)
    }

    /// Finds a message by its public key: the caller's seq, random and second.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub async fn find(&self, key: MsgKey) -> Result<Option<(Seq, MessageHead)>> {
        let end_ms = UnixMillis::from_secs(key.time_s + 1).0;
        let mut from = self.seq_at(UnixMillis::from_secs(key.time_s)).await?.0;
        while from <= self.last_seq {
            let to = bucket_span(bucket_of(from)).1.min(self.last_seq);
            let heads = self.heads_between(from, to, STEP, true).await?;
            let Some((last, _)) = heads.last() else { return Ok(None) };
            from = last + 1;
            for (seq, head) in heads {
                if head.time_ms >= end_ms {
                    return Ok(None);
                }
                if head.msg_seq == Some(key.msg_seq) && head.random == key.random {
                    return Ok(Some((Seq(seq), head)));
                }
            }
        }
        Ok(None)
    }
}
