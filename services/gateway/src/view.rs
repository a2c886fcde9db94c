//! What one user sees of inner messages and batches.

use std::sync::OnceLock;

use bytes::Bytes;
use linnet_proto::client::{self, item};
use linnet_proto::delivery::{self, batch, record};
use linnet_proto::msg;
use linnet_types::MsgKey;

use crate::queue::Class;
use crate::wire::Wire;

/// A message as its reader names and sees it.
pub(crate) fn message(inner: &msg::Message, pair: bool) -> client::Message {
    let revoked = inner.revoked;
    client::Message {
        seq: inner.seq,
        from: inner.from.clone(),
        time_ms: inner.time_ms,
        random: inner.random,
        msg_seq: inner.msg_seq,
        msg_key: if pair { msg_key(inner.msg_seq, inner.random, inner.time_ms) } else { String::new() },
        body: if revoked { Bytes::new() } else { inner.body.clone() },
        cloud_custom_data: if revoked { String::new() } else { inner.cloud_custom_data.clone() },
        priority: match inner.priority() {
            msg::Priority::Normal => String::new(),
            other => priority_name(other).to_owned(),
        },
        kind: if inner.kind() == msg::MessageKind::Tip { "tip".to_owned() } else { String::new() },
        online_only: inner.online_only,
        no_unread: inner.no_unread,
        no_last_msg: inner.no_last_msg,
        need_receipt: inner.need_receipt,
        targeted: inner.visibility() == msg::Visibility::Listed,
        mentions: inner.mentions.clone(),
        revoked,
        revoker: inner.revoker.clone(),
        revoke_reason: inner.revoke_reason.clone(),
        version: inner.version,
        replayed: inner.replayed,
        peer_read: pair && inner.peer_read,
    }
}

/// The public key of a pair's message.
pub(crate) fn msg_key(msg_seq: u32, random: u32, time_ms: u64) -> String {
    MsgKey { msg_seq, random, time_s: time_ms / 1000 }.to_string()
}

/// The wire name of a priority.
pub(crate) fn priority_name(priority: msg::Priority) -> &'static str {
    match priority {
        msg::Priority::High => "High",
        msg::Priority::Normal => "Normal",
        msg::Priority::Low => "Low",
        msg::Priority::Lowest => "Lowest",
    }
}

/// Priorities by [`rank`].
pub(crate) const CLASSES: [&str; 4] = ["High", "Normal", "Low", "Lowest"];

/// 0 is delivered first and dropped last.
pub(crate) fn rank(priority: msg::Priority) -> u8 {
    match priority {
        msg::Priority::High => 0,
        msg::Priority::Normal => 1,
        msg::Priority::Low => 2,
        msg::Priority::Lowest => 3,
    }
}

/// What a batch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Group(String),
    Pair(String, String),
    /// Events of a user's own.
    User,
}

/// From which side a conversation is named: only pairs have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    First,
    Second,
}

/// One batch as every shard shares it: encoded at most once per side and subprotocol, and only if somebody needs it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) app: u32,
    pub(crate) conv: u64,
    pub(crate) subject: Subject,
    pub(crate) live: bool,
    pub(crate) head_seq: u64,
    pub(crate) entries: Vec<Entry>,
}

/// One record and its encodings.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: delivery::Record,
    /// Number of this gateway's connection that does not get it.
    pub(crate) except: Option<u64>,
    encoded: [[OnceLock<Bytes>; 2]; 2],
}

impl Prepared {
    /// `own` is this gateway's name: only its connections can be excepted here.
    pub(crate) fn new(batch: delivery::Batch, own: &str) -> Self {
        let subject = match batch.key {
            Some(batch::Key::GroupId(id)) => Subject::Group(id),
            Some(batch::Key::Pair(pair)) => Subject::Pair(pair.a, pair.b),
            Some(batch::Key::User(_)) | None => Subject::User,
        };
        let entry = |record: delivery::Record| {
            let except = connection_number(&record.except_connection, own);
            Entry { record, except, encoded: Default::default() }
        };
        Self {
            app: batch.app,
            conv: batch.conv,
            subject,
            live: batch.live,
            head_seq: batch.head_seq,
            entries: batch.records.into_iter().map(entry).collect(),
        }
    }

    /// The conversation as `user` names it; empty for events of his own.
    pub(crate) fn name(&self, side: Side) -> String {
        match (&self.subject, side) {
            (Subject::Group(id), _) => format!("GROUP:{id}"),
            (Subject::Pair(a, _), Side::Second) => format!("C2C:{a}"),
            (Subject::Pair(_, b), Side::First) => format!("C2C:{b}"),
            (Subject::User, _) => String::new(),
        }
    }

    /// Which side `user` is on.
    pub(crate) fn side(&self, user: &str) -> Side {
        match &self.subject {
            Subject::Pair(_, b) if b == user => Side::Second,
            _ => Side::First,
        }
    }

    /// The item of one entry, encoded; `None` when clients are not shown this kind of record.
    pub(crate) fn item(&self, entry: &Entry, side: Side, wire: Wire) -> Bytes {
        entry.encoded[side as usize][wire as usize]
            .get_or_init(|| self.build(entry, side).map(|item| wire.item(&item)).unwrap_or_default())
            .clone()
    }

    fn build(&self, entry: &Entry, side: Side) -> Option<client::Item> {
        let pair = matches!(self.subject, Subject::Pair(..));
        let mut conv = self.name(side);
        let what = match entry.record.kind.as_ref()? {
            record::Kind::Message(inner) => item::What::Message(message(inner, pair)),
            record::Kind::Revoked(revoked) => item::What::Recall(client::Recall {
                seqs: revoked.seqs.clone(),
                msg_keys: revoked.msg_keys.clone(),
                operator: revoked.operator.clone(),
                reason: revoked.reason.clone(),
            }),
            record::Kind::Read(read) => item::What::PeerRead(client::PeerRead {
                reader: read.reader.clone(),
                seq: read.seq,
                time_ms: read.time_ms,
            }),
            record::Kind::Notice(notice) => {
                item::What::Notice(client::Notice { r#type: notice.r#type, data: notice.json.clone() })
            }
            record::Kind::Changed(changed) => {
                conv = changed.conv.clone();
                item::What::Change(client::Change { what: changed.what.clone(), seq: changed.seq })
            }
            record::Kind::Control(control) => item::What::Room(room_state(control)?),
        };
        Some(client::Item { conv, what: Some(what) })
    }
}

/// What viewers of a live room are told of its control records.
fn room_state(control: &delivery::Control) -> Option<client::RoomState> {
    match control.kind.as_ref()? {
        delivery::control::Kind::Online(online) => {
            Some(client::RoomState { online: *online, ..client::RoomState::default() })
        }
        _ => None,
    }
}

impl Entry {
    /// Whether every receiver sees it.
    pub(crate) fn for_all(&self) -> bool {
        let listed = match &self.record.kind {
            Some(record::Kind::Message(inner)) => inner.visibility() != msg::Visibility::All,
            _ => false,
        };
        !listed && self.record.only.is_empty() && self.except.is_none()
    }

    /// Whether `user` on connection number `connection` sees it.
    pub(crate) fn visible_to(&self, user: &str, connection: u64) -> bool {
        if self.except == Some(connection) {
            return false;
        }
        if !self.record.only.is_empty() && !self.record.only.iter().any(|name| name == user) {
            return false;
        }
        let Some(record::Kind::Message(inner)) = &self.record.kind else { return true };
        match inner.visibility() {
            msg::Visibility::All => true,
            msg::Visibility::Listed => inner.from == user || inner.visible_to.iter().any(|name| name == user),
            msg::Visibility::Sender => inner.from == user,
            msg::Visibility::Receiver => inner.from != user,
        }
    }

    /// Whether clients are shown this kind of record at all.
    pub(crate) fn shown(&self) -> bool {
        match &self.record.kind {
            Some(record::Kind::Control(control)) => matches!(control.kind, Some(delivery::control::Kind::Online(_))),
            Some(_) => true,
            None => false,
        }
    }

    /// About how many bytes its item has.
    pub(crate) fn weight(&self) -> usize {
        match &self.record.kind {
            Some(record::Kind::Message(inner)) => inner.body.len() + inner.cloud_custom_data.len() + 64,
            Some(record::Kind::Notice(notice)) => notice.json.len() + 32,
            _ => 64,
        }
    }

    /// How the entry may be treated when a connection cannot keep up.
    pub(crate) fn class(&self, live: bool) -> Class {
        match &self.record.kind {
            Some(record::Kind::Message(inner)) if live || inner.online_only => {
                let tip = inner.kind() == msg::MessageKind::Tip;
                if tip { Class::Control } else { Class::Droppable(rank(inner.priority())) }
            }
            Some(record::Kind::Message(_)) => Class::Stored,
            Some(record::Kind::Control(_)) => Class::Droppable(0),
            _ => Class::Control,
        }
    }
}

/// The number in `<own>/<n>`.
pub(crate) fn connection_number(connection: &str, own: &str) -> Option<u64> {
    connection.strip_prefix(own)?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair_batch(message: msg::Message) -> Prepared {
        let record = delivery::Record {
            except_connection: "gw-1/7".into(),
            kind: Some(record::Kind::Message(message)),
            ..delivery::Record::default()
        };
        let batch = delivery::Batch {
            key: Some(batch::Key::Pair(delivery::Pair { a: "alice".into(), b: "bob".into() })),
            records: vec![record],
            ..delivery::Batch::default()
        };
        Prepared::new(batch, "gw-1")
    }

    #[test]
    fn each_side_of_a_pair_names_the_other() {
        let batch = pair_batch(msg::Message { seq: 1, from: "alice".into(), time_ms: 5000, ..msg::Message::default() });
        assert_eq!((batch.side("alice"), batch.side("bob")), (Side::First, Side::Second));
        assert_eq!((batch.name(Side::First), batch.name(Side::Second)), ("C2C:bob".into(), "C2C:alice".into()));
        let seen = batch.item(&batch.entries[0], Side::Second, Wire::Json);
        let expected = r#"{"conv":"C2C:alice","message":{"seq":1,"from":"alice","time_ms":5000,"msg_key":"0_0_5"}}"#;
        assert_eq!(seen, expected);
    }

    #[test]
    fn visibility() {
        let message = |visibility: msg::Visibility| msg::Message {
            from: "alice".into(),
            visibility: visibility.into(),
            visible_to: vec!["bob".into()],
            ..msg::Message::default()
        };
        let sees = |visibility, user: &str| pair_batch(message(visibility)).entries[0].visible_to(user, 1);
        for (visibility, alice, bob, eve) in [
            (msg::Visibility::All, true, true, true),
            (msg::Visibility::Listed, true, true, false),
            (msg::Visibility::Sender, true, false, false),
            (msg::Visibility::Receiver, false, true, true),
        ] {
            let seen = (sees(visibility, "alice"), sees(visibility, "bob"), sees(visibility, "eve"));
            assert_eq!(seen, (alice, bob, eve), "{visibility:?}");
        }
        let entry = &pair_batch(message(msg::Visibility::All)).entries[0];
        assert!(!entry.visible_to("alice", 7), "the sending connection has the reply");
        assert!(!entry.for_all());
    }

    #[test]
    fn a_revoked_message_shows_no_content() {
        let inner = msg::Message {
            revoked: true,
            body: "[1]".into(),
            cloud_custom_data: "x".into(),
            revoker: "bob".into(),
            ..msg::Message::default()
        };
        let seen = message(&inner, false);
        assert!(seen.revoked && seen.body.is_empty() && seen.cloud_custom_data.is_empty() && seen.revoker == "bob");
    }
}
