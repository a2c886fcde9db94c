//! Recalling messages for everyone, and deleting them for one side.

use linnet_proto::messages::{
    DeleteForUserReply, DeleteForUserRequest, RevokeReply, RevokeRequest, RevokeResult, TouchRequest,
};
use linnet_proto::msg::Origin;
use linnet_store::logs::{Class, LogHead, LogId, Side, SideKind};
use linnet_types::{AppSettings, Epoch, GroupId, MsgKey, SdkAppId, Seq, UnixMillis, UserId, code};
use tokio::sync::oneshot;

use crate::actor::{Command, Revoke, Revoked};
use crate::effects;
use crate::error::{Error, Result};
use crate::owners::Opening;
use crate::service::{Service, pair_opening, user};
use crate::state::{Subject, log_id};
use crate::webhook::{self, C2C_RECALLED};

/// Messages of one call.
const MOST: usize = 100;
/// A call that finds a message recalled this lately tells the app again: the call before may not have come so far. The
/// webhook queue knows for longer what it has delivered.
const TOLD_AGAIN_MS: u64 = 3_600_000;

impl Service {
    /// Recalls messages; each has its own code.
    pub(crate) async fn revoke(&self, request: RevokeRequest) -> Result<RevokeReply> {
        few(request.seqs.len())?;
        let origin = request.origin.clone().unwrap_or_default();
        let app = SdkAppId(request.app);
        if request.peer_a.is_empty() {
            let group = GroupId::parse(&request.group_id)?;
            let opening = Opening {
                id: log_id(request.app, request.conv),
                subject: Subject::Group(group),
                class: Class::for_days(request.retention_days),
            };
            let revoked = self.ask_revoke(&opening, &request, request.seqs.clone(), &origin).await?;
            return Ok(reply(revoked));
        }
        let (a, b) = (user(&request.peer_a)?, user(&request.peer_b)?);
        let missing = |seq| RevokeResult { seq, code: code::C2C_NO_MSG, ..RevokeResult::default() };
        let key: Option<MsgKey> = match request.msg_key.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|()| Error::refused(code::MSG_KEY, "not a MsgKey"))?),
        };
        let settings = self.ctx.apps.get(app).await?;
        let conv = self.pair(app, &a, &b).await?;
        let Some(conv) = conv else { return Ok(RevokeReply { results: vec![missing(0)] }) };
        let opening = pair_opening(app, conv, &a, &b, &settings.settings);
        let mut seqs = request.seqs.clone();
        if let Some(key) = key {
            match self.find(opening.id, key).await? {
                Some(seq) => seqs.push(seq),
                None => return Ok(RevokeReply { results: vec![missing(0)] }),
            }
        }
        let revoked = self.ask_revoke(&opening, &request, seqs, &origin).await?;
        self.unread_changed(opening.id, &settings.settings, &revoked);
        if settings.settings.webhook_on(C2C_RECALLED) {
            let now = self.ctx.clock.now();
            let lately = |one: &&Revoked| now.since(UnixMillis(one.marked_ms)) < TOLD_AGAIN_MS;
            let told = revoked.iter().filter(|one| one.marked_ms > 0).filter(lately);
            futures::future::try_join_all(told.map(|one| self.tell_recalled(opening.id, one, &origin))).await?;
        }
        Ok(reply(revoked))
    }

    async fn ask_revoke(
        &self,
        opening: &Opening,
        request: &RevokeRequest,
        seqs: Vec<u64>,
        origin: &Origin,
    ) -> Result<Vec<Revoked>> {
        let (reply, revoked) = oneshot::channel();
        let revoke = Revoke {
            seqs,
            by: origin.operator.clone(),
            reason: request.reason.clone(),
            max_age_s: u64::from(request.max_age_s),
            sender: request.sender.clone(),
            group_epoch: Epoch(request.group_epoch),
            mark_ms: request.mark_ms,
            reply,
        };
        self.owners.post(opening, Command::Revoke(revoke))?;
        revoked.await.map_err(|_| Error::Moved)?
    }

    /// Its time and name are those of the stored mark: told twice, it is one event.
    async fn tell_recalled(&self, id: LogId, one: &Revoked, origin: &Origin) -> Result<()> {
        let at = UnixMillis(one.marked_ms);
        let (to, from) = (UserId::trusted(one.to.as_str()), UserId::trusted(one.from.as_str()));
        let what = format!("recall-{}", one.seq);
        self.tell(id, &what, one.seq, &to, &from, |unread| {
            let body = webhook::c2c_recalled(&one.from, &one.to, &one.msg_key, unread, at);
            webhook::called(id.app.0, id.conv.0, C2C_RECALLED, &what, origin, at).event(body)
        })
        .await
    }

    /// Totals that are kept for webhooks hear of a recall.
    fn unread_changed(&self, id: LogId, settings: &AppSettings, revoked: &[Revoked]) {
        if !effects::totals_wanted(settings) {
            return;
        }
        for one in revoked.iter().filter(|one| one.code == 0) {
            let request = TouchRequest {
                app: id.app.0,
                users: vec![one.to.clone()],
                key: format!("C2C:{}", one.from),
                conv: id.conv.0,
                ..TouchRequest::default()
            };
            let (ctx, to) = (std::sync::Arc::clone(&self.ctx), UserId::trusted(one.to.as_str()));
            self.ctx.tasks.spawn("recall.touch", async move {
                // Best effort: a total that missed it is counted anew within minutes.
                if let Err(error) = effects::touch(&ctx, to, request).await {
                    tracing::debug!(%error, "a total did not hear of a recall");
                }
            });
        }
    }

    async fn find(&self, id: LogId, key: MsgKey) -> Result<Option<u64>> {
        let Some((_, head)) = self.head(id).await? else { return Ok(None) };
        Ok(self.reader(id, &head).find(key).await?.map(|(seq, _)| seq.0))
    }

    /// Takes messages out of one side's view of a pair, or everything up to now.
    pub(crate) async fn delete_for_user(&self, request: DeleteForUserRequest) -> Result<DeleteForUserReply> {
        let (owner, peer) = (user(&request.user)?, user(&request.peer)?);
        let app = SdkAppId(request.app);
        let mut out = DeleteForUserReply::default();
        few(request.seqs.len() + request.msg_keys.len())?;
        let keys: Vec<Option<MsgKey>> = request.msg_keys.iter().map(|text| text.parse().ok()).collect();
        for (text, key) in request.msg_keys.iter().zip(&keys) {
            if key.is_none() {
                out.invalid_keys.push(text.clone());
            }
        }
        let Some(conv) = self.pair(app, &owner, &peer).await? else { return Ok(out) };
        let id = LogId { app, conv };
        let Some((_, head)) = self.head(id).await? else { return Ok(out) };
        if request.clear {
            let floor = Seq(head.last_seq + 1);
            self.raise_pair_floor(app, &owner, &peer, floor).await?;
            // What is no longer shown does not wait to be read.
            self.move_place(id, &head, &owner, format!("C2C:{peer}"), head.last_seq).await?;
            out.floor_seq = floor.0;
            return Ok(out);
        }
        let mut seqs = request.seqs;
        for key in keys.into_iter().flatten() {
            seqs.extend(self.find(id, key).await?);
        }
        self.delete_seqs(id, &head, &owner, &seqs).await?;
        let origin = request.origin.unwrap_or_default();
        for seq in seqs {
            self.tell_own(app, &owner, "message_deleted", &format!("C2C:{peer}"), seq, &origin);
        }
        Ok(out)
    }

    async fn delete_seqs(&self, id: LogId, head: &LogHead, owner: &UserId, seqs: &[u64]) -> Result<()> {
        let reader = self.reader(id, head);
        for seq in seqs {
            let Some(message) = reader.head(Seq(*seq)).await? else { continue };
            let side = Side { seq: Seq(*seq), user: owner.clone(), value: bytes::Bytes::new() };
            reader.put_sides(SideKind::Deleted, &[side], UnixMillis(message.time_ms)).await?;
        }
        Ok(())
    }

    /// The side of `owner` sees nothing below `floor` any more.
    pub(crate) async fn raise_pair_floor(
        &self,
        app: SdkAppId,
        owner: &UserId,
        peer: &UserId,
        floor: Seq,
    ) -> Result<()> {
        let raise = |pair: &mut linnet_store::conversations::Pair| {
            if let Some(side) = pair.side_mut(owner) {
                side.floor = side.floor.max(floor);
            }
        };
        self.ctx.conversations.update_pair(app, owner, peer, raise).await?;
        Ok(())
    }
}

fn few(messages: usize) -> Result<()> {
    if messages > MOST {
        return Err(Error::refused(code::MSG_BAD_PARAM, "too many messages in one call"));
    }
    Ok(())
}

fn reply(revoked: Vec<Revoked>) -> RevokeReply {
    let results = revoked.into_iter().map(|one| RevokeResult {
        seq: one.seq,
        code: one.code,
        msg_key: one.msg_key,
        from: one.from,
    });
    RevokeReply { results: results.collect() }
}
