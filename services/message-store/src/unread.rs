//! Unread counts by ordinals: no row per member, no walk over messages.
//!
//! Every row of a log carries `ord`, the number of countable messages up to it. A reader's place holds the `ord` of what
//! he read, how many countable messages of his own came since, and an adjustment; the rest is subtraction
//! (`docs/architecture.md`, Unread).

use linnet_proto::msg::{Message, MessageKind, Visibility};

/// A reader's place in one conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Everything up to here is read.
    pub read_seq: u64,
    /// Countable messages up to `read_seq`.
    pub read_ord: u64,
    /// The reader's own countable messages in `(read_seq, own_to]`.
    pub own_since: u64,
    /// How far own messages are counted.
    pub own_to: u64,
    /// Added to the count: one that was set from outside.
    pub adjust: i64,
    /// Generation of the log the numbers belong to.
    pub generation: u64,
}

/// What a count needs to know of the end of a log, as one reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Last seq.
    pub seq: u64,
    /// Its `ord`.
    pub ord: u64,
    /// Generation of the log.
    pub generation: u64,
    /// Countable messages of others that were revoked lately.
    pub revoked: Vec<u64>,
    /// The reader's own countable messages that his place may not know yet.
    pub own: Vec<u64>,
}

/// Whether a message raises the unread count of those who did not send it.
///
/// Tips, `NoUnread`, targeted messages and what a blocked sender keeps for himself do not; neither does anything in a
/// Meeting or live room, which is the caller's to know.
pub(crate) fn countable(message: &Message) -> bool {
    let shown_to_others = matches!(message.visibility(), Visibility::All | Visibility::Receiver);
    message.kind() != MessageKind::Tip && !message.no_unread && !message.online_only && shown_to_others
}

/// How many messages wait for the reader.
pub(crate) fn unread(place: &Place, tail: &Tail) -> u64 {
    if place.generation != tail.generation {
        // The log was restored or moved: the numbers of the place mean nothing until the next read.
        return 0;
    }
    u64::try_from(plain(place, tail) + i128::from(place.adjust)).unwrap_or(0)
}

/// The count before its adjustment; negative only when the tail is older than the place.
fn plain(place: &Place, tail: &Tail) -> i128 {
    let counted = place.own_to.max(place.read_seq);
    let own = tail.own.iter().filter(|seq| **seq > counted).count() as u64 + place.own_since;
    let revoked = tail.revoked.iter().filter(|seq| **seq > place.read_seq).count() as u64;
    i128::from(tail.ord) - i128::from(place.read_ord) - i128::from(own) - i128::from(revoked)
}

/// The place after reading up to `seq`, whose `ord` is given. Never moves back. When `seq` is not the head, own messages
/// after it are to be told again with [`sent`].
pub(crate) fn read(place: &Place, seq: u64, ord: u64, generation: u64) -> Place {
    if generation == place.generation && seq < place.read_seq {
        return *place;
    }
    Place { read_seq: seq, read_ord: ord, own_since: 0, own_to: seq, adjust: 0, generation }
}

/// The place after own countable messages were stored at `seqs`, ascending. Repeating a call changes nothing.
pub(crate) fn sent(place: &Place, seqs: &[u64]) -> Place {
    let counted = place.own_to.max(place.read_seq);
    let new = seqs.iter().filter(|seq| **seq > counted).count() as u64;
    let own_to = seqs.iter().copied().max().unwrap_or(0).max(counted);
    Place { own_since: place.own_since + new, own_to, ..*place }
}

/// The place that makes the count `unread` now; later messages add to it, reading clears it.
pub(crate) fn set(place: &Place, tail: &Tail, unread: u64) -> Place {
    let same = place.generation == tail.generation;
    let base = if same { *place } else { read(place, tail.seq, tail.ord, tail.generation) };
    let adjust = i128::from(unread) - plain(&base, tail);
    Place { adjust: i64::try_from(adjust).unwrap_or(i64::MAX), ..base }
}

#[cfg(test)]
mod tests;
