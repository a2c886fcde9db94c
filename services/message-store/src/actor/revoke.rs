//! Recalling stored messages.

use linnet_proto::delivery::{self, Record, record};
use linnet_proto::msg::MessageKind;
use linnet_store::logs::{self, Revoke as Mark};
use linnet_types::{Epoch, Seq, UnixMillis, code};
use tokio::sync::oneshot;

use super::Actor;
use crate::error::{Error, Result};
use crate::msgkey::key_of;
use crate::stored::Row;

/// Which messages, by whom, and within which limits.
pub(crate) struct Revoke {
    pub seqs: Vec<u64>,
    pub by: String,
    pub reason: String,
    /// 0 = no limit of age.
    pub max_age_s: u64,
    /// Only this sender's; empty = anybody's.
    pub sender: String,
    pub group_epoch: Epoch,
    /// Time of the recall where the caller may repeat it; 0 = now.
    pub mark_ms: u64,
    pub reply: oneshot::Sender<Result<Vec<Revoked>>>,
}

/// What became of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub seq: u64,
    /// 0 or a public code.
    pub code: u32,
    pub msg_key: String,
    pub from: String,
    pub to: String,
    /// When it was recalled, by this call or one before; 0 = it is not.
    pub marked_ms: u64,
}

/// The codes of one kind of conversation.
struct Codes {
    missing: u32,
    already: u32,
    late: u32,
    not_recallable: u32,
}

const PAIR: Codes = Codes {
    missing: code::C2C_NO_MSG,
    already: code::C2C_ALREADY_RECALLED,
    late: code::C2C_RECALL_LATE,
    not_recallable: code::C2C_NO_MSG,
};
const GROUP: Codes = Codes {
    missing: code::GROUP_NO_MSG,
    // A group's message that was recalled is not there to be recalled.
    already: code::GROUP_NO_MSG,
    late: code::GROUP_RECALL_LATE,
    not_recallable: code::GROUP_NOT_RECALLABLE,
};

impl Actor {
    pub(super) async fn revoke(&mut self, revoke: Revoke) {
        if revoke.group_epoch < self.log.group_epoch() && !self.shared.subject.is_pair() {
            let stale = Error::StaleGroup { ours: self.log.group_epoch(), theirs: revoke.group_epoch };
            drop(revoke.reply.send(Err(stale)));
            return;
        }
        let mut results = Vec::with_capacity(revoke.seqs.len());
        for seq in &revoke.seqs {
            match self.revoke_one(*seq, &revoke).await {
                Ok(result) => results.push(result),
                Err(error) => {
                    drop(revoke.reply.send(Err(error)));
                    return;
                }
            }
        }
        self.show();
        let done: Vec<&Revoked> = results.iter().filter(|result| result.code == 0).collect();
        if self.shared.subject.is_pair() && !done.is_empty() {
            let record = delivery::Revoked {
                seqs: done.iter().map(|result| result.seq).collect(),
                msg_keys: done.iter().map(|result| result.msg_key.clone()).collect(),
                operator: revoke.by.clone(),
                reason: revoke.reason.clone(),
            };
            self.publish(vec![Record { kind: Some(record::Kind::Revoked(record)), ..Record::default() }]);
        }
        drop(revoke.reply.send(Ok(results)));
    }

    async fn revoke_one(&mut self, seq: u64, revoke: &Revoke) -> Result<Revoked> {
        let codes = if self.shared.subject.is_pair() { &PAIR } else { &GROUP };
        let refused = |code| Revoked { seq, code, ..Revoked::default() };
        let Some(stored) = self.log.reader().message(Seq(seq)).await? else { return Ok(refused(codes.missing)) };
        let already = stored.revision.as_ref().and_then(|revision| revision.revoke.clone());
        let row = Row::read(stored);
        let message = &row.message;
        let result = Revoked {
            seq,
            code: 0,
            msg_key: key_of(message).to_string(),
            from: message.from.clone(),
            to: self.shared.subject.peer(&message.from).map(|to| to.as_str().to_owned()).unwrap_or_default(),
            marked_ms: already.as_ref().map_or(0, |mark| mark.time_ms),
        };
        if let Some(mark) = &already
            && revoke.mark_ms > 0
            && (mark.time_ms, &mark.by) == (revoke.mark_ms, &revoke.by)
        {
            return Ok(result);
        }
        let age_ms = self.ctx.clock.now().since(UnixMillis(message.time_ms));
        let code = if already.is_some() {
            codes.already
        } else if message.kind() == MessageKind::Tip {
            codes.not_recallable
        } else if !revoke.sender.is_empty() && revoke.sender != message.from {
            codes.missing
        } else if revoke.max_age_s > 0 && age_ms > revoke.max_age_s.saturating_mul(1000) {
            codes.late
        } else {
            0
        };
        if code != 0 {
            return Ok(Revoked { code, ..result });
        }
        let time_ms = if revoke.mark_ms > 0 { revoke.mark_ms } else { self.ctx.clock.now().0 };
        let mark = Mark { by: revoke.by.clone(), reason: revoke.reason.clone(), time_ms };
        let revised = self.log.revise(Seq(seq), None, |revision| {
            // Somebody else's recall may have come between: the first one stays.
            let first = revision.revoke.is_none();
            if first {
                revision.revoke = Some(mark.clone());
            }
            first
        });
        let revision = match revised.await {
            Ok(revision) => revision,
            Err(logs::Error::NoSuchMessage(_)) => return Ok(Revoked { code: codes.missing, ..result }),
            Err(error) => return Err(error.into()),
        };
        self.shared.note_revoked(seq, &result.from);
        self.shared.amend(seq, |row| {
            row.message.revoked = true;
            row.message.revoker.clone_from(&revoke.by);
            row.message.revoke_reason.clone_from(&revoke.reason);
        });
        Ok(Revoked { marked_ms: revision.revoke.map_or(time_ms, |mark| mark.time_ms), ..result })
    }
}
