//! Logs of groups: the group decides who may speak, this service keeps what was said.

use std::time::Duration;

use linnet_admission::Flight;
use linnet_proto::messages::{AppendReply, AppendRequest, Appended, FenceReply, FenceRequest};
use linnet_store::logs::Class;
use linnet_types::{Epoch, GroupId, code};
use tokio::sync::oneshot;

use crate::actor::{Append, Command};
use crate::error::{Error, Result};
use crate::owners::Opening;
use crate::service::Service;
use crate::state::{Subject, log_id};
use crate::stored::Draft;

/// Messages of one batch.
const MOST: usize = linnet_store::logs::MAX_BATCH;

fn opening(app: u32, conv: u64, group_id: &str, retention_days: u32) -> Result<Opening> {
    if conv == 0 {
        return Err(Error::refused(code::GROUP_BAD_PARAM, "no conversation"));
    }
    let subject = Subject::Group(GroupId::parse(group_id)?);
    Ok(Opening { id: log_id(app, conv), subject, class: Class::for_days(retention_days) })
}

impl Service {
    /// Appends a group's batch as one thing; not at all when it has waited longer than `patience`.
    pub(crate) async fn append_group(&self, request: AppendRequest, patience: Duration) -> Result<AppendReply> {
        let AppendRequest { app, conv, group_id, group_epoch, retention_days, messages, group_type, .. } = request;
        let opening = opening(app, conv, &group_id, retention_days)?;
        if messages.len() > MOST {
            return Err(Error::refused(code::GROUP_BAD_PARAM, "at most 20 messages"));
        }
        let draft = |message| Draft {
            message,
            to: String::new(),
            group_id: group_id.clone(),
            group_type: group_type.clone(),
            failed: 0,
        };
        let drafts = messages.into_iter().map(draft).collect();
        let expires = Some(self.ctx.clock.mono() + patience);
        let (reply, given) = oneshot::channel();
        let append = Append {
            drafts,
            group_epoch: Epoch(group_epoch),
            class: opening.class,
            expires,
            deliver: None,
            flight: Flight::default(),
            taken: None,
            reply,
        };
        self.owners.post(&opening, Command::Append(append))?;
        let given = given.await.map_err(|_| Error::Unknown)??;
        let appended = given.into_iter().map(|g| Appended { seq: g.seq, ord: g.ord, time_ms: g.time.0 }).collect();
        Ok(AppendReply { appended })
    }

    /// Refuses what older owners of the group may still send; answers where the log stands.
    pub(crate) async fn fence_group(&self, request: FenceRequest) -> Result<FenceReply> {
        let opening = opening(request.app, request.conv, &request.group_id, request.retention_days)?;
        let (reply, fenced) = oneshot::channel();
        let fence = Command::Fence { group_epoch: Epoch(request.group_epoch), reply };
        self.owners.post(&opening, fence)?;
        let head = fenced.await.map_err(|_| Error::Moved)??;
        Ok(FenceReply { head_seq: head.last_seq, head_ord: head.ord, last_time_ms: head.last_time_ms })
    }
}
