//! Ends of logs, as one user sees them: what conversation lists and unread counts are made of.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::messages::{Head, HeadsReply, HeadsRequest};
use linnet_proto::msg::Message;
use linnet_store::logs::{LogHead, LogId};
use linnet_types::Seq;

use crate::error::Result;
use crate::owners::Handle;
use crate::service::Service;
use crate::state::log_id;
use crate::stored::Row;
use crate::view::Viewer;
use crate::webhook::AT_ALL;

/// Logs looked at together.
const AT_ONCE: usize = 32;
/// Newest rows searched for one that is shown in lists, and for mentions.
const SEARCHED: u64 = 64;
const MENTIONS: usize = 10;

impl Service {
    /// Heads of conversations; those that do not exist, or have not changed, are left out.
    pub(crate) async fn heads(&self, request: HeadsRequest) -> Result<HeadsReply> {
        let ids: Vec<LogId> = request.convs.iter().map(|conv| log_id(request.app, *conv)).collect();
        let request = &request;
        let heads = stream::iter(ids).map(|id| self.one_head(id, request)).buffered(AT_ONCE);
        let heads: Vec<Option<Head>> = heads.try_collect().await?;
        Ok(HeadsReply { heads: heads.into_iter().flatten().collect() })
    }

    async fn one_head(&self, id: LogId, request: &HeadsRequest) -> Result<Option<Head>> {
        let Some((handle, head)) = self.head(id).await? else { return Ok(None) };
        if head.last_time_ms <= request.since_ms && request.since_ms > 0 {
            return Ok(None);
        }
        // Before anything else: what is stored up to here was told to the sender's position before it moved.
        let cursor = handle.as_ref().map_or(head.cursor, |handle| handle.shared.cursor());
        let first_seq = head.first_seq.max(head.floor + 1).max(1);
        let mut out = Head {
            conv: id.conv.0,
            seq: head.last_seq,
            ord: head.ord,
            time_ms: head.last_time_ms,
            first_seq,
            generation: u64::from(head.generation),
            epoch: head.epoch,
            ..Head::default()
        };
        let user = request.user.as_str();
        out.revoked = self.revoked(id, &handle, &head, user).await?;
        if !user.is_empty() && cursor < head.last_seq {
            out.own = self.own(id, &handle, &head, user, cursor + 1).await?;
        }
        if request.want_last && head.last_seq > 0 {
            let from = first_seq.max((head.last_seq + 1).saturating_sub(SEARCHED));
            let rows = self.newest(id, &handle, &head, from).await?;
            let viewer = Viewer { user: (!user.is_empty()).then(|| user.to_owned()), ..Viewer::default() };
            out.last = last_shown(&rows, &viewer);
            out.mentions = mentions(&rows, &viewer);
        }
        Ok(Some(out))
    }

    async fn revoked(&self, id: LogId, handle: &Option<Handle>, head: &LogHead, user: &str) -> Result<Vec<u64>> {
        let mut seqs = Vec::new();
        for revoked in head.revoked.iter().filter(|revoked| revoked.countable) {
            let known = handle.as_ref().and_then(|handle| handle.shared.revoked_by(revoked.seq));
            let by = match known {
                _ if user.is_empty() => None,
                Some(by) => Some(by),
                None => self.reader(id, head).head(Seq(revoked.seq)).await?.map(|head| head.sender),
            };
            if let (Some(handle), Some(by)) = (handle, &by) {
                handle.shared.note_revoked(revoked.seq, by);
            }
            if by.as_deref() != Some(user) {
                seqs.push(revoked.seq);
            }
        }
        Ok(seqs)
    }

    /// Countable messages of the user's own that the side effects have not told to his position.
    async fn own(&self, id: LogId, handle: &Option<Handle>, head: &LogHead, user: &str, from: u64) -> Result<Vec<u64>> {
        let rows = self.newest(id, handle, head, from).await?;
        let own = rows.iter().filter(|row| row.countable && row.message.from == user);
        Ok(own.map(|row| row.message.seq).collect())
    }

    /// Rows of `from..=head`, oldest first.
    async fn newest(&self, id: LogId, handle: &Option<Handle>, head: &LogHead, from: u64) -> Result<Vec<Arc<Row>>> {
        if let Some(rows) = handle.as_ref().and_then(|handle| handle.shared.rows(from, head.last_seq)) {
            return Ok(rows);
        }
        self.stored(id, handle.as_ref(), head, from, head.last_seq).await
    }
}

fn last_shown(rows: &[Arc<Row>], viewer: &Viewer) -> Option<Message> {
    let shown = |row: &&Arc<Row>| !row.message.no_last_msg && viewer.hidden(&row.message).is_none();
    rows.iter().rev().find(shown).map(|row| Viewer::show(row.message.clone()))
}

fn mentions(rows: &[Arc<Row>], viewer: &Viewer) -> Vec<u64> {
    let Some(user) = &viewer.user else { return Vec::new() };
    let named = |row: &&Arc<Row>| {
        let message = &row.message;
        let at = message.mentions.iter().any(|who| who == user || who == AT_ALL);
        at && message.from != *user && !message.revoked && viewer.hidden(message).is_none()
    };
    rows.iter().rev().filter(named).take(MENTIONS).map(|row| row.message.seq).collect()
}
