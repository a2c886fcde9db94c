//! Public identity of one-to-one messages: `<MsgSeq>_<random>_<second>`, unique in one conversation (the log sees to it).

use linnet_proto::msg::Message;
use linnet_types::{MsgKey, UnixMillis};

/// The public key of a stored one-to-one message.
pub(crate) fn key_of(message: &Message) -> MsgKey {
    MsgKey { msg_seq: message.msg_seq, random: message.random, time_s: UnixMillis(message.time_ms).secs() }
}
