//! Which sends were seen: pending ones are joined, done ones answered again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use linnet_proto::msg::SendReply;
use linnet_types::{ConvId, Refusal, UserId};
use tokio::sync::watch;

/// What makes two sends the same one (`docs/architecture.md`, De-duplication).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The conversation.
    pub conv: ConvId,
    /// The sender.
    pub from: UserId,
    /// The caller's `MsgSeq`, if the caller gave one (one-to-one only).
    pub msg_seq: Option<u32>,
    /// The caller's random.
    pub random: u32,
    /// [`crate::content_hash`] of the message as the caller sent it.
    pub hash: u32,
}

/// What became of a send.
pub(crate) type Done = Result<SendReply, Refusal>;

/// Where a send stands.
pub(crate) enum Seen {
    /// Not seen: it is pending from now on, and its outcome goes in here.
    New(watch::Sender<Option<Done>>),
    /// In flight: the outcome comes out of here.
    Pending(watch::Receiver<Option<Done>>),
    /// Done within its window.
    Done(SendReply),
    /// Too many in flight.
    Full,
}

/// Time of a table, from the injected clock.
pub(crate) type Instant = Duration;

#[derive(Default)]
pub(crate) struct Table {
    pending: HashMap<Token, watch::Receiver<Option<Done>>>,
    done: HashMap<Token, (SendReply, Instant)>,
    expiry: BTreeSet<(Instant, Token)>,
    pending_cap: usize,
    done_cap: usize,
}

impl Table {
    pub(crate) fn new(pending_cap: usize, done_cap: usize) -> Self {
        Self { pending_cap, done_cap, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, token: &Token, now: Instant) -> Seen {
        self.expire(now);
        if let Some((reply, _)) = self.done.get(token) {
            return Seen::Done(reply.clone());
        }
        if let Some(outcome) = self.pending.get(token) {
            return Seen::Pending(outcome.clone());
        }
        if self.pending.len() >= self.pending_cap {
            return Seen::Full;
        }
        let (tell, outcome) = watch::channel(None);
        self.pending.insert(token.clone(), outcome);
        Seen::New(tell)
    }

    /// Ends a pending send; a refused one may be tried again at once.
    pub(crate) fn end(&mut self, token: &Token, outcome: &Done, until: Instant) {
        self.pending.remove(token);
        if let Ok(reply) = outcome {
            self.remember(token.clone(), reply.clone(), until);
        }
    }

    pub(crate) fn remember(&mut self, token: Token, reply: SendReply, until: Instant) {
        if let Some((_, old)) = self.done.insert(token.clone(), (reply, until)) {
            self.expiry.remove(&(old, token.clone()));
        }
        self.expiry.insert((until, token));
        while self.done.len() > self.done_cap {
            let Some((_, oldest)) = self.expiry.pop_first() else { break };
            self.done.remove(&oldest);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, _)) = self.expiry.first()
            && *until <= now
        {
            let Some((_, token)) = self.expiry.pop_first() else { break };
            self.done.remove(&token);
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(random: u32) -> Token {
        Token { conv: ConvId(1), from: UserId::trusted("alice"), msg_seq: None, random, hash: 7 }
    }
    const fn at(s: u64) -> Instant {
        Duration::from_secs(s)
    }

    #[test]
    fn a_done_send_is_answered_again_until_its_window_ends() {
        let mut table = Table::new(10, 10);
        let reply = SendReply { seq: 5, ..SendReply::default() };
        assert!(matches!(table.begin(&token(1), at(0)), Seen::New(_)));
        assert!(matches!(table.begin(&token(1), at(0)), Seen::Pending(_)));
        table.end(&token(1), &Ok(reply.clone()), at(120));
        assert!(matches!(table.begin(&token(1), at(119)), Seen::Done(again) if again == reply));
        assert!(matches!(table.begin(&token(1), at(120)), Seen::New(_)));
    }

    #[test]
    fn a_refused_send_may_be_tried_again() {
        let mut table = Table::new(10, 10);
        assert!(matches!(table.begin(&token(1), at(0)), Seen::New(_)));
        table.end(&token(1), &Err(Refusal::new(1, "no")), at(120));
        assert!(matches!(table.begin(&token(1), at(0)), Seen::New(_)));
    }

    #[test]
    fn tables_have_bounds() {
        let mut table = Table::new(2, 3);
        assert!(matches!(table.begin(&token(1), at(0)), Seen::New(_)));
        assert!(matches!(table.begin(&token(2), at(0)), Seen::New(_)));
        assert!(matches!(table.begin(&token(3), at(0)), Seen::Full));
        for n in 10..20 {
            table.remember(token(n), SendReply::default(), at(100 + u64::from(n)));
        }
        assert_eq!((table.done.len(), table.expiry.len()), (3, 3));
        assert!(table.done.contains_key(&token(19)) && !table.done.contains_key(&token(16)));
    }
}
