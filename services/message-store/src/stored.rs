//! A message as a row of a log, and back.
//!
//! The head carries what counting, de-duplication and visibility need; the body is the whole message with what its
//! after-webhooks need (the receiver, or the group and its type).

use bytes::Bytes;
use linnet_proto::msg::{Message, MessageKind, Outcome, Priority, SendReply, Visibility};
use linnet_store::logs::{self, Appended, Entry, MessageHead, Stored};
use linnet_types::{ConvId, Seq, UserId};
use prost::Message as _;

use linnet_admission::Token;

use crate::unread::countable;

/// The receiver blocks the sender, who was told OK.
pub(crate) const BLOCKED: u32 = 1;

/// Where a message belongs, beside its log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Body {
    /// The message; seq, ord and time are the head's.
    #[prost(message, optional, tag = "1")]
    pub message: Option<Message>,
    /// Receiver in a pair.
    #[prost(string, tag = "2")]
    pub to: String,
    /// Public id of the group.
    #[prost(string, tag = "3")]
    pub group_id: String,
    /// Wire value of the group's type.
    #[prost(string, tag = "4")]
    pub group_type: String,
    /// Code told to nobody but the app: why the message reached the sender's side only.
    #[prost(uint32, tag = "5")]
    pub failed: u32,
}

/// A message on its way into a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub message: Message,
    pub to: String,
    pub group_id: String,
    pub group_type: String,
    pub failed: u32,
}

/// A message as it lies in a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub message: Message,
    pub countable: bool,
    pub to: String,
    pub group_id: String,
    pub group_type: String,
    pub failed: u32,
}

impl Draft {
    /// A message of a pair.
    pub(crate) fn c2c(message: Message, to: &UserId) -> Self {
        let to = to.as_str().to_owned();
        Self { message, to, group_id: String::new(), group_type: String::new(), failed: 0 }
    }

    /// The row to append.
    pub(crate) fn entry(&self) -> Entry {
        let message = &self.message;
        let body = Body {
            message: Some(Message { seq: 0, ord: 0, time_ms: 0, ..message.clone() }),
            to: self.to.clone(),
            group_id: self.group_id.clone(),
            group_type: self.group_type.clone(),
            failed: self.failed,
        };
        Entry {
            sender: UserId::trusted(message.from.as_str()),
            random: message.random,
            // Only messages of pairs have a public key made of it.
            msg_seq: self.group_id.is_empty().then_some(message.msg_seq),
            msg_seq_filled: message.msg_seq_filled,
            content_hash: u64::from(message.content_hash),
            flags: if self.failed == 0 { 0 } else { BLOCKED },
            visibility: visibility(message),
            kind: match message.kind() {
                MessageKind::Tip => logs::MessageKind::Tip,
                MessageKind::Chat | MessageKind::Unspecified => logs::MessageKind::Message,
            },
            priority: match message.priority() {
                Priority::High => 0,
                Priority::Normal => 1,
                Priority::Low => 2,
                Priority::Lowest => 3,
            },
            countable: countable(message),
            body: Bytes::from(body.encode_to_vec()),
        }
    }

    /// The row once appended.
    pub(crate) fn row(self, at: &Appended) -> Row {
        let countable = countable(&self.message);
        let message = Message { seq: at.seq.0, ord: at.ord, time_ms: at.time.0, ..self.message };
        Row {
            message,
            countable,
            to: self.to,
            group_id: self.group_id,
            group_type: self.group_type,
            failed: self.failed,
        }
    }
}

impl Row {
    /// The row as a log gives it back. What was revoked has no content any more.
    pub(crate) fn read(stored: Stored) -> Self {
        let Stored { seq, head, body, revision } = stored;
        let body = Body::decode(body).unwrap_or_default();
        let mut message = body.message.unwrap_or_else(|| bare(&head));
        (message.seq, message.ord, message.time_ms) = (seq.0, head.ord, head.time_ms);
        // Also of what was revoked: a retry of it is still the same message.
        message.content_hash = hash_of(&head);
        if let Some(revision) = revision {
            message.version = revision.version;
            if let Some(revoke) = revision.revoke {
                message.revoked = true;
                message.revoker = revoke.by;
                message.revoke_reason = revoke.reason;
            }
        }
        Self {
            message,
            countable: head.countable,
            to: body.to,
            group_id: body.group_id,
            group_type: body.group_type,
            failed: body.failed,
        }
    }
}

fn hash_of(head: &MessageHead) -> u32 {
    u32::try_from(head.content_hash & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// What the head alone says of a message.
fn bare(head: &MessageHead) -> Message {
    let mut message = Message {
        from: head.sender.clone(),
        random: head.random,
        msg_seq: head.msg_seq.unwrap_or_default(),
        msg_seq_filled: head.msg_seq_filled,
        body: Bytes::from_static(b"[]"),
        ..Message::default()
    };
    message.set_kind(match head.kind() {
        logs::MessageKind::Tip => MessageKind::Tip,
        logs::MessageKind::Message | logs::MessageKind::Unspecified => MessageKind::Chat,
    });
    message.set_priority(match head.priority {
        0 => Priority::High,
        2 => Priority::Low,
        3 => Priority::Lowest,
        _ => Priority::Normal,
    });
    if let Some(seen) = &head.visibility {
        match seen.kind() {
            logs::VisibilityKind::Unspecified => {}
            logs::VisibilityKind::Listed => {
                message.set_visibility(Visibility::Listed);
                message.visible_to.clone_from(&seen.users);
            }
            logs::VisibilityKind::OneSide => message.set_visibility(Visibility::Sender),
            logs::VisibilityKind::Except => message.set_visibility(Visibility::Receiver),
        }
    }
    message
}

fn visibility(message: &Message) -> Option<logs::Visibility> {
    let (kind, users) = match message.visibility() {
        Visibility::All => return None,
        Visibility::Listed => (logs::VisibilityKind::Listed, message.visible_to.clone()),
        Visibility::Sender => (logs::VisibilityKind::OneSide, vec![message.from.clone()]),
        Visibility::Receiver => (logs::VisibilityKind::Except, vec![message.from.clone()]),
    };
    Some(logs::Visibility { kind: kind.into(), users })
}

/// The token a stored message was admitted under.
pub(crate) fn token(conv: ConvId, head: &MessageHead) -> Token {
    Token {
        conv,
        from: UserId::trusted(head.sender.as_str()),
        msg_seq: if head.msg_seq_filled { None } else { head.msg_seq },
        random: head.random,
        // The hash of a message has 32 bits; the column is wider.
        hash: hash_of(head),
    }
}

/// The first reply of a stored message, as recovery can tell it.
pub(crate) fn reply_of(seq: Seq, head: &MessageHead) -> SendReply {
    let outcome = if head.flags & BLOCKED == 0 { Outcome::Stored } else { Outcome::Blocked };
    SendReply {
        outcome: outcome.into(),
        seq: seq.0,
        time_ms: head.time_ms,
        msg_seq: head.msg_seq.unwrap_or_default(),
        random: head.random,
        ..SendReply::default()
    }
}

#[cfg(test)]
mod tests;
