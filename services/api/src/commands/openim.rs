//! `openim`: one-to-one messages and login state (`spec/rest-messages.md` §3, `spec/rest-accounts.md` §2.6).

pub(crate) mod admin_getroammsg;
pub(crate) mod admin_msgwithdraw;
pub(crate) mod admin_set_msg_read;
pub(crate) mod batchsendmsg;
pub(crate) mod get_c2c_unread_msg_num;
pub(crate) mod query_online_status;
pub(crate) mod sendmsg;

use linnet_proto::msg::Message;
use linnet_types::{Refusal, code};

use crate::call::Call;
use crate::commands::message::{self, Codes};

/// The message of a send, and `SyncOtherMachine`; `too_long` is the code of one over the app's limit.
fn outgoing(call: &Call<'_>, too_long: u32) -> Result<(Message, u32), Refusal> {
    let codes = Codes {
        bad: code::OPENIM_BAD_JSON,
        body: None,
        body_missing: code::BODY_SHAPE,
        too_long,
        offline_push: code::OFFLINE_PUSH,
    };
    let body = &call.body;
    let from = body.at("From_Account").user(code::FROM_ACCOUNT, code::FROM_ACCOUNT)?.value;
    let random = body.at("MsgRandom").number(code::MSG_RANDOM)?.need(code::MSG_RANDOM)?;
    let seq = body.at("MsgSeq").number(code::MSG_SEQ)?.value;
    let sync = body.at("SyncOtherMachine").number(code::SYNC_OTHER)?.or(0);
    // Longer than seven days is seven days; 0 is what OnlineOnlyFlag says since.
    let online_only = body.at("MsgLifeTime").number::<u64>(code::LIFETIME_TYPE)?.value == Some(0);
    let mut message = message::parse(call, &codes)?;
    message.from = from.unwrap_or_else(|| call.admin.to_string());
    message.random = random;
    message.msg_seq_filled = seq.is_none();
    // 31 bits: published clients read MsgSeq into a signed integer.
    message.msg_seq = seq.unwrap_or_else(|| call.world.rng.u32() >> 1);
    message.online_only |= online_only;
    Ok((message, sync))
}
