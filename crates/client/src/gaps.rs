//! Where the client stands in each conversation, and what is missing before what came can be shown.
//!
//! Pure: it says which history to ask for and which messages to show.

use std::collections::{BTreeMap, HashMap};

use linnet_proto::client::{Conversation, History, Message, Page};

/// Messages of one page.
const PAGE: u32 = 100;
/// Positions of a conversation that is new to the client which are looked at before the one that was told.
const BACK: u64 = 500;
/// Messages held back for one conversation; the oldest gap is given up beyond it, the log still has it.
const HELD: usize = 10_000;

#[derive(Debug, Default)]
struct Stand {
    /// Everything up to here was shown, or is nothing for this user.
    seq: u64,
    /// The seq is known: from a sync, or from a first message.
    known: bool,
    generation: u64,
    /// Positions to reach by history.
    target: u64,
    /// What came ahead of the gap; `None` is one's own message, which needs no showing.
    held: BTreeMap<u64, Option<Message>>,
    asking: bool,
    /// Last position of the question before; more may be wanted by the time it is answered.
    asked_to: u64,
    /// Answers in a row of an owner that knew less than was told already.
    behind: u32,
    /// Live rooms have holes by nature.
    holes: bool,
}

/// Such answers that are asked again; then they are believed. With the pauses between them longer than an owner that was
/// replaced may answer from memory.
const BEHIND: u32 = 40;

/// What to do next.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Todo {
    /// To be shown, in order.
    pub(crate) show: Vec<Message>,
    /// To be asked.
    pub(crate) ask: Option<History>,
}

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    stands: HashMap<String, Stand>,
    /// A first sync is through: conversations that were not in it are new.
    complete: bool,
}

impl Gaps {
    /// A message was pushed.
    pub(crate) fn message(&mut self, conv: &str, message: Message) -> Todo {
        if message.seq == 0 || message.replayed {
            return Todo { show: vec![message], ask: None };
        }
        let seq = message.seq;
        self.arrived(conv, seq, Some(message))
    }

    /// One's own message was stored.
    pub(crate) fn sent(&mut self, conv: &str, seq: u64) -> Todo {
        if seq == 0 { Todo::default() } else { self.arrived(conv, seq, None) }
    }

    fn arrived(&mut self, conv: &str, seq: u64, message: Option<Message>) -> Todo {
        let complete = self.complete;
        let stand = self.stands.entry(conv.to_owned()).or_default();
        if stand.holes {
            stand.seq = stand.seq.max(seq);
            return Todo { show: message.into_iter().collect(), ask: None };
        }
        if !stand.known {
            // Before the first sync what came earlier is not a gap but the past.
            let past = if complete { (seq - 1).saturating_sub(BACK) } else { seq - 1 };
            (stand.known, stand.seq) = (true, past);
        }
        if seq <= stand.seq {
            return Todo::default();
        }
        stand.held.insert(seq, message);
        if stand.held.len() > HELD {
            stand.seq = stand.held.first_key_value().map_or(stand.seq, |(first, _)| first - 1);
        }
        stand.advance(conv)
    }

    /// The conversation has gone on to `head`.
    pub(crate) fn head(&mut self, conv: &str, head: u64) -> Todo {
        let complete = self.complete;
        let stand = self.stands.entry(conv.to_owned()).or_default();
        if stand.holes {
            return Todo::default();
        }
        if !stand.known {
            // As with a first message: what is new to the client after its first sync is not the past.
            let past = if complete { head.saturating_sub(BACK) } else { head };
            (stand.known, stand.seq) = (true, past);
        }
        stand.target = stand.target.max(head);
        stand.advance(conv)
    }

    /// What a sync says of one conversation.
    pub(crate) fn synced(&mut self, found: &Conversation) -> Todo {
        let stand = self.stands.entry(found.conv.clone()).or_default();
        if stand.known && stand.generation != 0 && found.generation != stand.generation {
            *stand = Stand::default();
        }
        stand.generation = found.generation;
        if !stand.known && self.complete {
            let past = found.read_seq.max(found.head.saturating_sub(BACK)).max(found.first_seq.saturating_sub(1));
            (stand.known, stand.seq) = (true, past.min(found.head));
        }
        self.head(&found.conv, found.head)
    }

    /// The first sync is through.
    pub(crate) fn synced_all(&mut self) {
        self.complete = true;
    }

    /// A page of history came.
    pub(crate) fn page(&mut self, conv: &str, page: Page) -> Todo {
        let Some(stand) = self.stands.get_mut(conv) else { return Todo::default() };
        stand.asking = false;
        if page.generation != 0 {
            stand.generation = page.generation;
        }
        let asked = stand.seq;
        for message in page.messages {
            if message.seq > stand.seq {
                stand.held.entry(message.seq).or_insert(Some(message));
            }
        }
        // Every answer moves the position: what it covers, what is no longer there, or all that was wanted.
        let mut sure = page.covered_to.max(page.first_seq.saturating_sub(1));
        if page.complete || sure <= asked {
            sure = sure.max(stand.asked_to);
        }
        stand.settle(sure, conv)
    }

    /// Whether a page comes from an owner that does not know yet what was told already, and is worth asking for again.
    pub(crate) fn is_behind(&mut self, conv: &str, page: &Page) -> bool {
        let Some(stand) = self.stands.get_mut(conv) else { return false };
        let behind = page.head < stand.asked_to && stand.behind < BEHIND;
        stand.behind = if behind { stand.behind + 1 } else { 0 };
        behind
    }

    /// Asks again what was not answered.
    pub(crate) fn again(&mut self, conv: &str) -> Todo {
        let Some(stand) = self.stands.get_mut(conv) else { return Todo::default() };
        stand.asking = false;
        stand.advance(conv)
    }

    /// History was refused for good: what came is shown as it is. A later hole is asked for again, since who was removed
    /// may be back by then.
    pub(crate) fn refused(&mut self, conv: &str) -> Todo {
        let Some(stand) = self.stands.get_mut(conv) else { return Todo::default() };
        stand.asking = false;
        let last = stand.wanted().max(stand.held.last_key_value().map_or(0, |(seq, _)| *seq));
        stand.settle(last, conv)
    }

    /// A live room was entered: its numbers have holes.
    pub(crate) fn live(&mut self, conv: &str) {
        let stand = self.stands.entry(conv.to_owned()).or_default();
        stand.holes = true;
    }

    /// The connection was lost: questions are not answered any more. Those to ask again.
    pub(crate) fn lost(&mut self) {
        for stand in self.stands.values_mut() {
            stand.asking = false;
        }
    }

    /// After a reconnect: what is still missing.
    pub(crate) fn resume(&mut self) -> Vec<(String, Todo)> {
        let stands = self.stands.iter_mut();
        stands.map(|(conv, stand)| (conv.clone(), stand.advance(conv))).filter(|(_, todo)| todo.ask.is_some()).collect()
    }

    #[cfg(test)]
    fn seq(&self, conv: &str) -> u64 {
        self.stands[conv].seq
    }
}

impl Stand {
    /// The last position before what is held, or the target.
    fn wanted(&self) -> u64 {
        let before_held = self.held.first_key_value().map_or(0, |(first, _)| first - 1);
        if before_held > self.seq { before_held } else { self.target.max(self.seq) }
    }

    /// Everything up to `sure` is here or is nothing.
    fn settle(&mut self, sure: u64, conv: &str) -> Todo {
        let mut show = Vec::new();
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= sure
        {
            self.seq = self.seq.max(*entry.key());
            show.extend(entry.remove());
        }
        self.seq = self.seq.max(sure);
        let more = self.advance(conv);
        show.extend(more.show);
        Todo { show, ask: more.ask }
    }

    /// Shows what follows without a hole, and asks for what is missing.
    fn advance(&mut self, conv: &str) -> Todo {
        let mut show = Vec::new();
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= self.seq + 1
        {
            self.seq = self.seq.max(*entry.key());
            show.extend(entry.remove());
        }
        let wanted = self.wanted();
        let ask = (wanted > self.seq && !self.asking && !self.holes).then(|| {
            (self.asking, self.asked_to) = (true, wanted);
            History { conv: conv.to_owned(), from_seq: self.seq + 1, to_seq: wanted, ascending: true, limit: PAGE }
        });
        Todo { show, ask }
    }
}

#[cfg(test)]
mod tests;
