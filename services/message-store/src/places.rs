//! Read positions: where users are in their conversations, and what moves them.

use linnet_cluster::{RouteKey, Service as Target};
use linnet_proto::delivery::{Changed, Read, Record, record};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::{AuthorizeReply, AuthorizeRequest};
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::messages::{
    Head, HeadsRequest, ReadC2cReply, ReadC2cRequest, ReadGroupReply, ReadGroupRequest, ReadPlace, SetUnreadRequest,
    TouchReply, TouchRequest,
};
use linnet_proto::msg::Origin;
use linnet_runtime::status;
use linnet_store::conversations::Entry;
use linnet_store::logs::{LogHead, LogId};
use linnet_store::positions::{Placed, Position};
use linnet_types::{AppSettings, ConvId, ConversationKey, GroupId, GroupType, SdkAppId, Seq, UnixMillis, UserId, code};

use crate::actor::{Command, only};
use crate::effects::{self, CALL};
use crate::error::{Error, Result};
use crate::service::{Service, pair_opening, user};
use crate::state::log_id;
use crate::unread::{self, Place, Tail};
use crate::webhook::{self, C2C_READ};

/// A call that finds the position where it wants it, moved this lately, tells the app again. The webhook queue knows for
/// longer what it has delivered.
const TOLD_AGAIN_MS: u64 = 600_000;
/// Own messages looked for behind a position that is not the head.
const OWN_AFTER: usize = 4_096;

impl From<&Position> for Place {
    fn from(position: &Position) -> Self {
        Self {
            read_seq: position.read_seq.0,
            read_ord: position.read_ord,
            own_since: position.own_since,
            own_to: position.own_to.0,
            adjust: position.adjust,
            generation: u64::from(position.generation),
        }
    }
}

impl Place {
    fn position(self, read_at: UnixMillis) -> Position {
        Position {
            read_seq: Seq(self.read_seq),
            read_ord: self.read_ord,
            own_since: self.own_since,
            own_to: Seq(self.own_to),
            adjust: self.adjust,
            generation: u32::try_from(self.generation).unwrap_or(u32::MAX),
            read_at,
        }
    }
}

impl From<&Head> for Tail {
    fn from(head: &Head) -> Self {
        Self {
            seq: head.seq,
            ord: head.ord,
            generation: head.generation,
            revoked: head.revoked.clone(),
            own: head.own.clone(),
        }
    }
}

impl Service {
    /// Marks a one-to-one conversation read, at the pair's owner.
    pub(crate) async fn read_c2c(&self, request: ReadC2cRequest) -> Result<ReadC2cReply> {
        let (reader, peer) = (user(&request.reader)?, user(&request.peer)?);
        let app = SdkAppId(request.app);
        let Some(conv) = self.pair(app, &reader, &peer).await? else { return Ok(ReadC2cReply::default()) };
        let id = LogId { app, conv };
        let Some((_, head)) = self.head(id).await? else { return Ok(ReadC2cReply::default()) };
        let seq = match (request.seq, request.time_s) {
            (0, 0) => head.last_seq,
            (0, time_s) => {
                let after = self.reader(id, &head).seq_at(UnixMillis::from_secs(time_s.saturating_add(1))).await?;
                after.0.saturating_sub(1).min(head.last_seq)
            }
            (seq, _) => seq.min(head.last_seq),
        };
        if seq == 0 {
            return Ok(ReadC2cReply::default());
        }
        let place = self.move_place(id, &head, &reader, format!("C2C:{peer}"), seq).await?;
        let origin = request.origin.unwrap_or_default();
        let app = self.ctx.apps.get(id.app).await?;
        let at = UnixMillis(place.read_ms);
        if place.moved {
            self.show_read(id, &app.settings, &reader, &peer, seq, at, &origin)?;
        }
        // The call that moved the position may not have come so far as to tell the app.
        let again = place.read_seq == seq && self.ctx.clock.now().since(at) < TOLD_AGAIN_MS;
        if (place.moved || again) && app.settings.webhook_on(C2C_READ) {
            let what = format!("read-{reader}-{seq}");
            self.tell(id, &what, 0, &reader, &peer, |unread| {
                let body = webhook::c2c_read(reader.as_str(), peer.as_str(), at.secs(), unread, at);
                webhook::called(id.app.0, id.conv.0, C2C_READ, &what, &origin, at).event(body)
            })
            .await?;
        }
        Ok(ReadC2cReply { read_seq: place.read_seq })
    }

    /// The peer sees how far his messages are read, the reader's other devices that they are.
    #[expect(clippy::too_many_arguments, reason = "all of it is the read position")]
    fn show_read(
        &self,
        id: LogId,
        settings: &AppSettings,
        reader: &UserId,
        peer: &UserId,
        seq: u64,
        at: UnixMillis,
        origin: &Origin,
    ) -> Result<()> {
        let read = Read { reader: reader.as_str().to_owned(), seq, time_ms: at.0 };
        let told = Record { only: only(peer), kind: Some(record::Kind::Read(read)), ..Record::default() };
        let own = Record {
            only: only(reader),
            except_connection: origin.connection.clone(),
            kind: Some(record::Kind::Changed(Changed { what: "read".to_owned(), conv: format!("C2C:{peer}"), seq })),
        };
        let records = if reader == peer { vec![own] } else { vec![told, own] };
        let opening = pair_opening(id.app, id.conv, reader, peer, settings);
        self.owners.post(&opening, Command::Publish(records))
    }

    /// Moves the reader's position to `seq`, never back; his owner writes it. Answers where it is.
    pub(crate) async fn move_place(
        &self,
        id: LogId,
        head: &LogHead,
        user: &UserId,
        key: String,
        seq: u64,
    ) -> Result<TouchReply> {
        let (ord, own_seqs) = self.ord_at(id, head, user, seq).await?;
        let request = TouchRequest {
            app: id.app.0,
            users: vec![user.as_str().to_owned()],
            key,
            conv: id.conv.0,
            time_ms: head.last_time_ms,
            own_seqs,
            read: Some(ReadPlace { seq, ord, generation: head.generation, time_ms: self.ctx.clock.now().0 }),
        };
        effects::touch(&self.ctx, user.clone(), request).await
    }

    /// Countable messages up to `seq`, and the user's own after it.
    async fn ord_at(&self, id: LogId, head: &LogHead, user: &UserId, seq: u64) -> Result<(u64, Vec<u64>)> {
        if seq >= head.last_seq {
            return Ok((head.ord, Vec::new()));
        }
        let reader = self.reader(id, head);
        let Some(at) = reader.head(Seq(seq)).await? else {
            // Expired: nothing that is still there was read.
            return Ok((0, Vec::new()));
        };
        let since = UnixMillis(at.time_ms);
        let after = reader.recover(since, OWN_AFTER).await?;
        let own = after.into_iter().filter(|(own, head)| own.0 > seq && head.countable && head.sender == user.as_str());
        let mut own: Vec<u64> = own.map(|(seq, _)| seq.0).collect();
        own.sort_unstable();
        Ok((at.ord, own))
    }

    /// Marks a group read, at the reader's owner.
    pub(crate) async fn read_group(&self, request: ReadGroupRequest) -> Result<ReadGroupReply> {
        let reader = user(&request.user)?;
        let app = SdkAppId(request.app);
        let origin = request.origin.clone().unwrap_or_default();
        let access = self.authorize(app, &request.group_id, &reader, false).await?;
        let id = log_id(request.app, access.conv);
        let heads = self.ctx.logs.heads(&[id]).await?;
        let Some(head) = heads.into_iter().next().flatten() else { return Ok(ReadGroupReply::default()) };
        let seq = if request.seq == 0 { head.last_seq } else { request.seq.min(head.last_seq) };
        let key = format!("GROUP:{}", request.group_id);
        let place = self.move_place(id, &head, &reader, key.clone(), seq).await?;
        if place.moved {
            self.tell_own(app, &reader, "read", &key, seq, &origin);
        }
        Ok(ReadGroupReply { read_seq: place.read_seq })
    }

    /// Sets a group's unread count for one member.
    pub(crate) async fn set_unread(&self, request: SetUnreadRequest) -> Result<()> {
        let member = user(&request.user)?;
        let app = SdkAppId(request.app);
        let access = self.authorize(app, &request.group_id, &member, false).await?;
        if !GroupType::parse(&access.r#type).is_some_and(GroupType::counts_unread) {
            return Err(Error::refused(code::GROUP_NO_RIGHT, "this type of group has no unread counts"));
        }
        let conv = ConvId(access.conv);
        let head = self.heads_of(app, &member, &[(conv, RouteKey::conv(conv))], 0, false).await?.pop();
        let tail = head.as_ref().map(Tail::from).unwrap_or_default();
        let _turn = self.turn(app, &member).await;
        let old = self.ctx.positions.get(app, &member, conv).await?;
        let place = old.as_ref().map(Place::from).unwrap_or_default();
        let position = unread::set(&place, &tail, request.unread).position(old.unwrap_or_default().read_at);
        self.ctx.positions.set(app, &[Placed { user: member, conv, position }]).await?;
        Ok(())
    }

    /// What other owners tell the owner of these users: own messages, reading, a first message.
    pub(crate) async fn touch(&self, request: TouchRequest) -> Result<TouchReply> {
        let app = SdkAppId(request.app);
        let key: ConversationKey = request.key.parse()?;
        let conv = ConvId(request.conv);
        let mut first = None;
        for name in &request.users {
            let touched = user(name)?;
            let _turn = self.turn(app, &touched).await;
            if let ConversationKey::C2c(peer) = &key {
                self.totals().changed(app, &touched, peer.as_str());
            }
            let moved = if request.own_seqs.is_empty() && request.read.is_none() {
                self.list(app, &touched, &key, conv, UnixMillis(request.time_ms)).await?;
                TouchReply::default()
            } else {
                self.place(app, touched, conv, &request).await?
            };
            first.get_or_insert(moved);
        }
        Ok(first.unwrap_or_default())
    }

    async fn place(&self, app: SdkAppId, user: UserId, conv: ConvId, request: &TouchRequest) -> Result<TouchReply> {
        let old = self.ctx.positions.get(app, &user, conv).await?.unwrap_or_default();
        let mut place = Place::from(&old);
        let mut read_at = old.read_at;
        if let Some(read) = &request.read {
            place = unread::read(&place, read.seq, read.ord, u64::from(read.generation));
            if place != Place::from(&old) {
                read_at = UnixMillis(read.time_ms);
            }
        }
        let moved = place != Place::from(&old);
        place = unread::sent(&place, &request.own_seqs);
        if place != Place::from(&old) {
            self.ctx.positions.set(app, &[Placed { user, conv, position: place.position(read_at) }]).await?;
        }
        Ok(TouchReply { moved, read_seq: place.read_seq, read_ms: read_at.0 })
    }

    /// Stores a user's place; the caller has his turn.
    pub(crate) async fn store_place(
        &self,
        app: SdkAppId,
        user: &UserId,
        conv: ConvId,
        place: Place,
        read_at: UnixMillis,
    ) -> Result<()> {
        let position = place.position(read_at);
        self.ctx.positions.set(app, &[Placed { user: user.clone(), conv, position }]).await?;
        Ok(())
    }

    /// Enters a conversation into a user's list unless it is there.
    async fn list(
        &self,
        app: SdkAppId,
        user: &UserId,
        key: &ConversationKey,
        conv: ConvId,
        at: UnixMillis,
    ) -> Result<()> {
        if self.ctx.conversations.entry(app, user, key).await?.is_none() {
            let entry = fresh_entry(key.clone(), conv, at);
            self.ctx.conversations.put_entries(app, &[(user.clone(), entry)]).await?;
        }
        Ok(())
    }

    /// Leave to read a group, from its owner.
    pub(crate) async fn authorize(
        &self,
        app: SdkAppId,
        group_id: &str,
        user: &UserId,
        admin: bool,
    ) -> Result<AuthorizeReply> {
        let group = GroupId::parse(group_id)?;
        let rpc = self.ctx.cluster.for_owner(Target::Group, RouteKey::group(app, &group))?;
        let request =
            AuthorizeRequest { app: app.0, group_id: group_id.to_owned(), user: user.as_str().to_owned(), admin };
        let reply = GroupsClient::new(rpc).authorize(status::with_deadline(request, CALL)).await;
        Ok(reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?.into_inner())
    }

    /// Heads of conversations as `user` sees them, one question per owner. In no order.
    pub(crate) async fn heads_of(
        &self,
        app: SdkAppId,
        user: &UserId,
        convs: &[(ConvId, RouteKey)],
        since_ms: u64,
        want_last: bool,
    ) -> Result<Vec<Head>> {
        let mut by_node = std::collections::BTreeMap::new();
        for (conv, key) in convs {
            let node = self.ctx.cluster.owner_node(Target::MessageStore, key)?;
            by_node.entry(node).or_insert_with(Vec::new).push(conv.0);
        }
        let calls = by_node.into_iter().map(|(node, convs)| async move {
            let request = HeadsRequest { app: app.0, convs, since_ms, want_last, user: user.as_str().to_owned() };
            let rpc = self.ctx.cluster.for_node(Target::MessageStore, &node)?;
            let reply = MessagesClient::new(rpc).heads(status::with_deadline(request, CALL)).await;
            let reply = reply.map_err(|why| status::refusal_or(&why, code::C2C_INTERNAL))?;
            Ok::<_, Error>(reply.into_inner().heads)
        });
        Ok(futures::future::try_join_all(calls).await?.into_iter().flatten().collect())
    }

    /// Tells the user's other devices that something of his list changed.
    pub(crate) fn tell_own(&self, app: SdkAppId, user: &UserId, what: &str, key: &str, seq: u64, origin: &Origin) {
        let changed = Changed { what: what.to_owned(), conv: key.to_owned(), seq };
        let record = Record {
            only: Vec::new(),
            except_connection: origin.connection.clone(),
            kind: Some(record::Kind::Changed(changed)),
        };
        self.ctx.publisher.notify_user(app, user, vec![record]);
    }
}

/// An entry nobody has touched.
pub(crate) fn fresh_entry(key: ConversationKey, conv: ConvId, touched: UnixMillis) -> Entry {
    Entry { key, conv, touched, pinned: None, floor: Seq(0), deleted_at: Seq(0), adjust: 0 }
}
