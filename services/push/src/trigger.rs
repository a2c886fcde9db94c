//! From stored messages to pieces of work: who is told at once, and what waits for its window.
//!
//! | message | work | key |
//! |---|---|---|
//! | of a pair | [`Direct`] for the receiver | `p<conv>` |
//! | to a few members | [`Direct`] for them | `l<conv>` |
//! | mentions some | [`Direct`] for them, and a part of the round for all others | `m<conv>` |
//! | mentions everybody | a [`Round`] of its own, at once | `a<conv>` |
//! | any other of a group | part of the [`Round`] | `r<conv>` |

use std::collections::HashMap;

use linnet_proto::msg::{Message, MessageKind, Visibility};
use linnet_proto::push::{AdvancedRequest, Direct, Note, Round, Stored};
use linnet_store::queues::{Item, Source, WorkId};
use linnet_types::{GroupType, SdkAppId, UnixMillis};

use crate::{info, plan};

/// Mention of everyone, as clients write it.
const AT_ALL: &str = "__kImSDK_MesssageAtALL__";
/// Where calls of an administrator come from.
const REST: &str = "RESTAPI";

/// Kinds of work, as the first letter of a key.
pub(crate) mod kind {
    pub(crate) const PAIR: char = 'p';
    pub(crate) const LISTED: char = 'l';
    pub(crate) const MENTION: char = 'm';
    pub(crate) const EVERYONE: char = 'a';
    pub(crate) const ROUND: char = 'r';
    pub(crate) const PAGE: char = 'g';
}

/// The work of some consecutive messages; each piece says the same when the messages are told again.
pub(crate) fn pieces(request: &AdvancedRequest) -> Vec<Item> {
    let group = request.group_id.clone();
    let mut work = Work { app: SdkAppId(request.app), conv: request.conv, group, items: Vec::new() };
    if request.group_id.is_empty() {
        for stored in &request.messages {
            work.pair(stored);
        }
        return work.items;
    }
    let mut round = Round { group_id: request.group_id.clone(), ..Round::default() };
    for stored in &request.messages {
        if let (Some(message), Some(note)) = (&stored.message, note(stored)) {
            work.group(message, note, &mut round);
        }
    }
    if round.total > 0 {
        work.add(kind::ROUND, round.last_ms, round.to_seq, &round);
    }
    work.items
}

struct Work {
    app: SdkAppId,
    conv: u64,
    group: String,
    items: Vec<Item>,
}

impl Work {
    fn add(&mut self, kind: char, at_ms: u64, no: u64, payload: &impl prost::Message) {
        let id = WorkId {
            app: self.app,
            key: format!("{kind}{}", self.conv),
            at: UnixMillis(at_ms),
            source: Source::Log,
            no,
            event: String::new(),
        };
        self.items.push(Item::new(id, payload.encode_to_vec()));
    }

    fn direct(&mut self, kind: char, note: Note, users: Vec<String>, mentioned: bool) {
        if !users.is_empty() {
            let (at_ms, seq) = (note.time_ms, note.seq);
            let group_id = self.group.clone();
            self.add(kind, at_ms, seq, &Direct { note: Some(note), users, mentioned, group_id });
        }
    }

    fn pair(&mut self, stored: &Stored) {
        let Some(note) = note(stored) else { return };
        if stored.to.is_empty() || stored.to == note.from {
            return;
        }
        self.direct(kind::PAIR, note, vec![stored.to.clone()], false);
    }

    fn group(&mut self, message: &Message, note: Note, round: &mut Round) {
        let everyone = message.mentions.iter().any(|user| user == AT_ALL);
        let named = others(&message.mentions, &note.from);
        if message.visibility() == Visibility::Listed {
            let (mentioned, listed): (Vec<_>, Vec<_>) =
                others(&message.visible_to, &note.from).into_iter().partition(|user| everyone || named.contains(user));
            self.direct(kind::MENTION, note.clone(), mentioned, true);
            self.direct(kind::LISTED, note, listed, false);
            return;
        }
        if everyone {
            let mut all = Round { group_id: round.group_id.clone(), everyone: true, ..Round::default() };
            plan::add(&mut all, note.clone(), &[]);
            self.add(kind::EVERYONE, note.time_ms, note.seq, &all);
            return;
        }
        self.direct(kind::MENTION, note.clone(), named.clone(), true);
        plan::add(round, note, &named);
    }
}

/// `users` without `from` and what stands for everybody, each once.
fn others(users: &[String], from: &str) -> Vec<String> {
    let mut seen: HashMap<&str, ()> = HashMap::new();
    let wanted = |user: &&String| user.as_str() != from && user.as_str() != AT_ALL;
    users.iter().filter(wanted).filter(|user| seen.insert(user, ()).is_none()).cloned().collect()
}

/// What is kept of a message; `None` when nobody is told of it.
fn note(stored: &Stored) -> Option<Note> {
    let message = stored.message.as_ref()?;
    let live = GroupType::parse(&stored.group_type).is_some_and(GroupType::is_live);
    let silent = message.online_only || message.revoked || message.visibility() == Visibility::Sender;
    if stored.failed || live || silent || message.kind() == MessageKind::Tip {
        return None;
    }
    let (text, offline_push) = info::of(message)?;
    Some(Note {
        seq: message.seq,
        from: message.from.clone(),
        time_ms: message.time_ms,
        random: message.random,
        msg_seq: message.msg_seq,
        text,
        offline_push,
        no_unread: message.no_unread,
        past_option: message.origin_platform == REST && !message.with_mute_notifications,
        mentions: others(&message.mentions, &message.from),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn stored(seq: u64, from: &str) -> Stored {
        let message = Message {
            seq,
            from: from.into(),
            time_ms: 1_000 + seq,
            body: format!(r#"[{{"MsgType":"TIMTextElem","MsgContent":{{"Text":"m{seq}"}}}}]"#).into(),
            kind: MessageKind::Chat.into(),
            ..Message::default()
        };
        Stored { message: Some(message), to: String::new(), group_type: "Public".into(), failed: false }
    }

    fn with(mut stored: Stored, change: impl FnOnce(&mut Message)) -> Stored {
        change(stored.message.as_mut().expect("it has one"));
        stored
    }

    fn work(group: &str, messages: Vec<Stored>) -> Vec<Item> {
        pieces(&AdvancedRequest { app: 1, conv: 9, group_id: group.into(), messages })
    }

    fn keys(items: &[Item]) -> Vec<(&str, u64)> {
        items.iter().map(|item| (item.id.key.as_str(), item.id.no)).collect()
    }

    fn round(item: &Item) -> Round {
        Round::decode(item.payload.clone()).expect("a round")
    }

    #[test]
    fn every_message_of_a_pair_is_told_by_itself() {
        let to = |stored: Stored, to: &str| Stored { to: to.into(), ..stored };
        let items = work("", vec![to(stored(1, "a"), "b"), to(stored(2, "b"), "a"), to(stored(3, "a"), "a")]);
        assert_eq!(keys(&items), [("p9", 1), ("p9", 2)], "nobody is told of what he writes to himself");
        let direct = Direct::decode(items[1].payload.clone()).expect("a direct");
        assert_eq!((direct.users, direct.note.expect("a note").text), (vec!["a".to_owned()], "m2".to_owned()));
    }

    #[test]
    fn messages_of_a_group_are_one_round() {
        let items = work("g", vec![stored(5, "a"), stored(6, "a"), stored(7, "b")]);
        assert_eq!(keys(&items), [("r9", 7)]);
        let round = round(&items[0]);
        assert_eq!((round.from_seq, round.to_seq, round.total, round.less["a"], round.less["b"]), (5, 7, 3, 2, 1));
    }

    #[test]
    fn a_mention_is_told_at_once_and_not_again_in_the_round() {
        let items = work("g", vec![with(stored(5, "a"), |m| m.mentions = vec!["b".into(), "a".into()])]);
        assert_eq!(keys(&items), [("m9", 5), ("r9", 5)]);
        let direct = Direct::decode(items[0].payload.clone()).expect("a direct");
        assert_eq!((direct.users, direct.mentioned), (vec!["b".to_owned()], true));
        assert_eq!((round(&items[1]).less["a"], round(&items[1]).less["b"]), (1, 1));
    }

    #[test]
    fn everybody_is_told_at_once_and_listed_members_only_if_it_is_for_them() {
        let all = with(stored(5, "a"), |m| m.mentions = vec![AT_ALL.into()]);
        let few = with(stored(6, "a"), |m| {
            m.set_visibility(Visibility::Listed);
            m.visible_to = vec!["b".into(), "c".into(), "a".into()];
            m.mentions = vec!["c".into(), "d".into()];
        });
        let items = work("g", vec![all, few]);
        assert_eq!(keys(&items), [("a9", 5), ("m9", 6), ("l9", 6)]);
        assert!(round(&items[0]).everyone);
        assert_eq!(Direct::decode(items[1].payload.clone()).expect("a direct").users, ["c"]);
        assert_eq!(Direct::decode(items[2].payload.clone()).expect("a direct").users, ["b"]);
    }

    #[test]
    fn what_nobody_should_hear_of_makes_no_work() {
        let quiet = vec![
            with(stored(1, "a"), |m| m.set_kind(MessageKind::Tip)),
            with(stored(2, "a"), |m| m.revoked = true),
            with(stored(3, "a"), |m| m.set_visibility(Visibility::Sender)),
            with(stored(4, "a"), |m| m.offline_push = r#"{"PushFlag":1}"#.into()),
            with(stored(5, "a"), |m| m.online_only = true),
            Stored { failed: true, ..stored(6, "a") },
            Stored { group_type: "AVChatRoom".into(), ..stored(7, "a") },
        ];
        assert_eq!(work("g", quiet), []);
    }

    #[test]
    fn the_same_messages_make_the_same_work() {
        let told = || work("g", vec![stored(5, "a"), stored(6, "b")]);
        assert_eq!(told()[0].id, told()[0].id);
    }
}
