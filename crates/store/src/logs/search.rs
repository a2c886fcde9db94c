//! Finding a place in a log: the first readable seq, the seq at a time, the message of a public key.
//!
//! Time never decreases along a log and messages expire in the order of their time, so each is a binary search, in one
//! stretch of seqs after another (a stretch has one class and no jump in it; nearly every log is one stretch).

use linnet_proto::store::MessageHead;
use linnet_types::{MsgKey, Seq, UnixMillis};

use super::Result;
use super::read::Reader;
use super::tables::{BUCKET_SEQS, Class, bucket_of, bucket_span};

/// Seqs without a hole, all of one class.
struct Stretch {
    start: u64,
    end: u64,
    class: Class,
}

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
        for stretch in self.stretches() {
            if let Some(first) = self.first_of(&stretch, least).await? {
                return Ok(Seq(first));
            }
        }
        Ok(Seq(least.max(self.last_seq + 1)))
    }

    /// The stretches up to the last seq, oldest first.
    fn stretches(&self) -> Vec<Stretch> {
        let mut found = Vec::new();
        for (at, span) in self.classes.iter().enumerate() {
            let next = self.classes.get(at + 1).map_or(u64::MAX, |next| next.from_bucket * BUCKET_SEQS);
            let class = Class::for_days(span.days);
            let mut start = bucket_span(span.from_bucket).0;
            let end = next.min(self.last_seq);
            for jump in &self.jumps {
                if jump.to_seq < start || jump.after_seq >= end {
                    continue;
                }
                found.push(Stretch { start, end: jump.after_seq, class });
                start = jump.to_seq + 1;
            }
            found.push(Stretch { start, end, class });
        }
        found.retain(|stretch| stretch.start <= stretch.end);
        found
    }

    /// The first seq of a stretch, from `least` on, that is there.
    async fn first_of(&self, stretch: &Stretch, least: u64) -> Result<Option<u64>> {
        let (start, end) = (stretch.start.max(least), stretch.end);
        if start > end || stretch.class == Class::Forever {
            return Ok((start <= end).then_some(start));
        }
        let (mut low, mut high) = (bucket_of(start), bucket_of(end));
        while low < high {
            let middle = low + (high - low) / 2;
            let (from, to) = bucket_span(middle);
            let is_gone = self.heads_between(from, to.min(end), 1, false).await?.is_empty();
            if is_gone { low = middle + 1 } else { high = middle }
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
        let mut found = self.last_seq + 1;
        for stretch in self.stretches().iter().rev() {
            let Some(first) = self.first_of(stretch, self.first_seq).await? else { break };
            let (mut low, mut high) = (first, stretch.end + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.is_older(middle, time).await? { low = middle + 1 } else { high = middle }
            }
            if low <= stretch.end {
                found = low;
            }
            if low > first {
                break;
            }
        }
        Ok(Seq(found))
    }

    async fn is_older(&self, seq: u64, time: UnixMillis) -> Result<bool> {
        Ok(self.head(Seq(seq)).await?.is_none_or(|head| head.time_ms < time.0))
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
