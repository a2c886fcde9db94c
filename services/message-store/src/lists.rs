//! Conversation lists: computed from heads and positions at the user's owner, never written on send.

use std::cmp::Reverse;
use std::collections::HashMap;

use linnet_cluster::{RouteKey, Service as Target};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::{JoinedGroup, JoinedRequest};
use linnet_proto::messages::{
    Conversation, DeleteConversationRequest, Head, PinRequest, SyncReply, SyncRequest, UnreadC2cReply, UnreadC2cRequest,
};
use linnet_runtime::status;
use linnet_store::conversations::Entry;
use linnet_store::positions::Position;
use linnet_types::{ConvId, ConversationKey, GroupType, SdkAppId, Seq, UnixMillis, UserId, code};
use prost::Message as _;

use crate::effects::CALL;
use crate::error::{Error, Result};
use crate::places::fresh_entry;
use crate::service::{Service, user};
use crate::state::log_id;
use crate::unread::{self, Place, Tail};

/// Owners' clocks differ a little: what is this much older than the position is looked at again.
const OVERLAP_MS: u64 = 10_000;
/// Bytes of one page, well below what a gRPC message may have.
const PAGE_BYTES: usize = 1 << 20;
const LONGEST_PAGE: u32 = 500;
/// Conversations asked about in one call, whose last messages fit into one answer.
const HEADS: usize = 100;

/// One conversation on its way into the list.
struct Item {
    key: ConversationKey,
    conv: ConvId,
    entry: Option<Entry>,
    group: Option<JoinedGroup>,
    place: Option<Position>,
}

impl Item {
    /// Something but a message changed after `since`.
    fn touched(&self, since: u64) -> bool {
        let entry = self.entry.as_ref().is_some_and(|entry| entry.touched.0 > since);
        let read = self.place.is_some_and(|place| place.read_at.0 > since);
        let member = self.group.as_ref().and_then(|group| group.self_.as_ref());
        entry || read || member.is_some_and(|member| UnixMillis::from_secs(member.join_time_s + 1).0 > since)
    }

    fn route(&self, app: SdkAppId, user: &UserId) -> RouteKey {
        match &self.key {
            ConversationKey::C2c(peer) => RouteKey::pair(app, user, peer),
            ConversationKey::Group(_) => RouteKey::conv(self.conv),
        }
    }

    fn unread(&self, head: &Head) -> u64 {
        let tail = Tail::from(head);
        let mut place = self.place.as_ref().map_or_else(|| fresh_place(&tail), Place::from);
        if let Some(group) = &self.group {
            if !GroupType::parse(&group.r#type).is_some_and(GroupType::counts_unread) {
                return 0;
            }
            // What was said before the user came does not wait for him.
            place.read_ord = place.read_ord.max(group.join_ord);
            // Nor is anything of it subtracted when it is revoked.
            place.read_seq = place.read_seq.max(group.join_seq);
        }
        unread::unread(&place, &tail)
    }

    fn deleted_at(&self) -> u64 {
        self.entry.as_ref().map_or(0, |entry| entry.deleted_at.0)
    }
}

fn fresh_place(tail: &Tail) -> Place {
    Place { generation: tail.generation, ..Place::default() }
}

impl Service {
    /// The conversations that changed, newest first.
    pub(crate) async fn sync(&self, request: SyncRequest) -> Result<SyncReply> {
        let app = self.ctx.apps.get(SdkAppId(request.app)).await?;
        let owner = user(&request.user)?;
        let mut items = self.items(app.id, &owner).await?;
        if !request.only.is_empty() {
            items.retain(|item| request.only.contains(&item.key.to_string()));
        }
        let since = if request.only.is_empty() { request.since_ms } else { 0 };
        let mut heads = self.changed_heads(app.id, &owner, &items, since).await?;
        // Again, after the heads: what a head says was told to a position is in the one read now.
        let places: HashMap<ConvId, Position> = self.ctx.positions.all(app.id, &owner).await?.into_iter().collect();
        for item in &mut items {
            item.place = places.get(&item.conv).copied();
        }
        // The clock of an owner may be ahead: what others store from now on must not be older than this position.
        let now = self.ctx.cluster.common_time(self.ctx.clock.now()).0;
        let newest = heads.values().map(|head| head.time_ms).max().unwrap_or(0).min(now);
        let position_ms = newest.max(request.since_ms.min(now));
        let mut conversations: Vec<Conversation> =
            items.iter().filter_map(|item| entry_of(item, heads.remove(&item.conv.0), since)).collect();
        let total_unread = conversations.iter().map(|conversation| conversation.unread).sum();
        conversations.sort_by(|a, b| (Reverse(a.time_ms), &a.key).cmp(&(Reverse(b.time_ms), &b.key)));
        if let Some((time_ms, key)) = cursor(&request.cursor) {
            conversations.retain(|c| (Reverse(c.time_ms), c.key.as_str()) > (Reverse(time_ms), key));
        }
        let limit = if request.limit == 0 { app.settings.conversations } else { request.limit.min(LONGEST_PAGE) };
        let more = page(&mut conversations, limit as usize);
        let cursor = conversations.last().filter(|_| more).map(|last| format!("{} {}", last.time_ms, last.key));
        for conversation in &mut conversations {
            self.complete(app.id, &owner, conversation).await?;
        }
        Ok(SyncReply { conversations, position_ms, cursor: cursor.unwrap_or_default(), more, total_unread })
    }

    /// Everything that can be in the user's list.
    async fn items(&self, app: SdkAppId, user: &UserId) -> Result<Vec<Item>> {
        let entries = self.ctx.conversations.entries(app, user, None, 0);
        let places = self.ctx.positions.all(app, user);
        let (entries, places) = futures::try_join!(entries, places)?;
        let places: HashMap<ConvId, Position> = places.into_iter().collect();
        let mut items = Vec::new();
        let mut of_groups = HashMap::new();
        for entry in entries {
            match &entry.key {
                ConversationKey::C2c(_) => items.push(Item {
                    key: entry.key.clone(),
                    conv: entry.conv,
                    place: places.get(&entry.conv).copied(),
                    entry: Some(entry),
                    group: None,
                }),
                ConversationKey::Group(group) => {
                    of_groups.insert(group.as_str().to_owned(), entry);
                }
            }
        }
        for group in self.groups(app, user).await? {
            let conv = ConvId(group.conv);
            let entry = of_groups.remove(&group.group_id).filter(|entry| entry.conv == conv);
            let key = ConversationKey::Group(linnet_types::GroupId::trusted(group.group_id.as_str()));
            items.push(Item { key, conv, entry, place: places.get(&conv).copied(), group: Some(group) });
        }
        Ok(items)
    }

    async fn groups(&self, app: SdkAppId, user: &UserId) -> Result<Vec<JoinedGroup>> {
        let rpc = self.ctx.cluster.any(Target::Group)?;
        let request =
            JoinedRequest { app: app.0, user: user.as_str().to_owned(), with_info: true, ..JoinedRequest::default() };
        let reply = GroupsClient::new(rpc).joined(status::with_deadline(request, CALL)).await;
        let mut groups = reply.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))?.into_inner().groups;
        groups.retain(|group| GroupType::parse(&group.r#type).is_some_and(|kind| !kind.is_live()));
        Ok(groups)
    }

    /// Heads by conversation: of those that changed after `since`, or all.
    async fn changed_heads(
        &self,
        app: SdkAppId,
        user: &UserId,
        items: &[Item],
        since: u64,
    ) -> Result<HashMap<u64, Head>> {
        let (touched, rest): (Vec<&Item>, Vec<&Item>) =
            items.iter().partition(|item| since == 0 || item.touched(since));
        let mut heads = HashMap::new();
        for (items, since) in [(touched, 0), (rest, since.saturating_sub(OVERLAP_MS).max(1))] {
            for chunk in items.chunks(HEADS) {
                let convs: Vec<_> = chunk.iter().map(|item| (item.conv, item.route(app, user))).collect();
                let found = self.heads_of(app, user, &convs, since, true).await?;
                heads.extend(found.into_iter().map(|head| (head.conv, head)));
            }
        }
        Ok(heads)
    }

    /// What is looked up only for the conversations that are shown.
    async fn complete(&self, app: SdkAppId, owner: &UserId, shown: &mut Conversation) -> Result<()> {
        let Some(peer) = shown.key.strip_prefix("C2C:") else { return Ok(()) };
        let peer = UserId::trusted(peer);
        let place = self.ctx.positions.get(app, &peer, ConvId(shown.conv));
        let pair = self.ctx.conversations.pair(app, owner, &peer);
        let (place, pair) = futures::try_join!(place, pair)?;
        shown.peer_read_seq = place.map_or(0, |place| place.read_seq.0);
        let floor = pair.as_ref().and_then(|pair| pair.side(owner)).map_or(0, |side| side.floor.0);
        shown.first_seq = shown.first_seq.max(floor);
        if shown.last.as_ref().is_some_and(|last| last.seq < floor) {
            shown.last = None;
        }
        Ok(())
    }

    /// Unread one-to-one messages: in all, and with each of `peers`.
    pub(crate) async fn unread_c2c(&self, request: UnreadC2cRequest) -> Result<UnreadC2cReply> {
        let owner = user(&request.user)?;
        let app = SdkAppId(request.app);
        if request.peers.is_empty() && !request.changed.is_empty() {
            let ring = self.ctx.ring();
            let count = |peers: Option<Vec<String>>| self.count_c2c(app, owner.clone(), peers);
            let total = self.totals().get(app, &owner, ring, &request.changed, count).await?;
            return Ok(UnreadC2cReply { total, unread: Vec::new() });
        }
        let peers = (!request.peers.is_empty()).then(|| request.peers.clone());
        let by_peer = self.count_c2c(app, owner, peers).await?;
        let each = request.peers.iter().map(|peer| by_peer.get(peer).copied().unwrap_or(0));
        Ok(UnreadC2cReply { total: by_peer.values().sum(), unread: each.collect() })
    }

    /// Unread messages by peer, with `peers` or with all.
    async fn count_c2c(
        &self,
        app: SdkAppId,
        owner: UserId,
        peers: Option<Vec<String>>,
    ) -> Result<HashMap<String, u64>> {
        let entries = match &peers {
            None => self.ctx.conversations.entries(app, &owner, None, 0).await?,
            Some(peers) => {
                let mut found = Vec::new();
                for peer in peers {
                    let key = ConversationKey::C2c(UserId::trusted(peer.as_str()));
                    found.extend(self.ctx.conversations.entry(app, &owner, &key).await?);
                }
                found
            }
        };
        let c2c = |entry: &Entry| matches!(entry.key, ConversationKey::C2c(_));
        let entries = entries.into_iter().filter(c2c);
        let mut items: Vec<Item> = entries
            .map(|entry| Item {
                key: entry.key.clone(),
                conv: entry.conv,
                entry: Some(entry),
                group: None,
                place: None,
            })
            .collect();
        let mut heads = HashMap::new();
        for chunk in items.chunks(HEADS) {
            let convs: Vec<_> = chunk.iter().map(|item| (item.conv, item.route(app, &owner))).collect();
            let found = self.heads_of(app, &owner, &convs, 0, false).await?;
            heads.extend(found.into_iter().map(|head| (head.conv, head)));
        }
        let convs: Vec<ConvId> = items.iter().map(|item| item.conv).collect();
        let places = self.ctx.positions.get_many(app, &owner, &convs).await?;
        let mut by_peer = HashMap::new();
        for (item, place) in items.iter_mut().zip(places) {
            item.place = place;
            let unread = heads.get(&item.conv.0).map_or(0, |head| item.unread(head));
            if let ConversationKey::C2c(peer) = &item.key {
                by_peer.insert(peer.as_str().to_owned(), unread);
            }
        }
        Ok(by_peer)
    }

    /// Pins or unpins a conversation.
    pub(crate) async fn pin(&self, request: PinRequest) -> Result<()> {
        let app = self.ctx.apps.get(SdkAppId(request.app)).await?;
        let owner = user(&request.user)?;
        let key: ConversationKey = request.key.parse()?;
        let conv = self.conv_of(app.id, &owner, &key).await?;
        let now = self.ctx.clock.now();
        let _turn = self.turn(app.id, &owner).await;
        let entries = self.ctx.conversations.entries(app.id, &owner, None, 0).await?;
        let pinned = entries.iter().filter(|entry| entry.pinned.is_some() && entry.key != key).count();
        if request.pinned && pinned >= app.settings.pinned as usize {
            return Err(Error::refused(code::CONTACT_PINNED_CAP, "too many pinned conversations"));
        }
        let old = entries.into_iter().find(|entry| entry.key == key);
        let entry = Entry {
            conv,
            touched: now,
            pinned: request.pinned.then_some(now),
            ..old.unwrap_or_else(|| fresh_entry(key, conv, now))
        };
        self.ctx.conversations.put_entries(app.id, &[(owner.clone(), entry)]).await?;
        let what = if request.pinned { "pinned" } else { "unpinned" };
        self.tell_own(app.id, &owner, what, &request.key, 0, &request.origin.unwrap_or_default());
        Ok(())
    }

    /// Takes a conversation off the user's list until something new comes; with its history if asked.
    pub(crate) async fn delete_conversation(&self, request: DeleteConversationRequest) -> Result<()> {
        let app = SdkAppId(request.app);
        let owner = user(&request.user)?;
        let key: ConversationKey = request.key.parse()?;
        let conv = match self.conv_of(app, &owner, &key).await {
            Ok(conv) => conv,
            // A group he has left: nothing of it may stay in his list.
            Err(Error::Refused(refusal)) if refusal.retry_after_ms.is_none() => {
                self.ctx.conversations.remove_entry(app, &owner, &key).await?;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let id = log_id(app.0, conv.0);
        let head = self.ctx.logs.heads(&[id]).await?.into_iter().next().flatten().unwrap_or_default();
        let floor = Seq(head.last_seq + 1);
        if request.clear_history
            && let ConversationKey::C2c(peer) = &key
        {
            self.raise_pair_floor(app, &owner, peer, floor).await?;
        }
        let now = self.ctx.clock.now();
        let _turn = self.turn(app, &owner).await;
        let old = self.ctx.conversations.entry(app, &owner, &key).await?;
        let mut entry = old.unwrap_or_else(|| fresh_entry(key.clone(), conv, now));
        (entry.conv, entry.touched, entry.pinned, entry.deleted_at) = (conv, now, None, Seq(head.last_seq));
        if request.clear_history {
            entry.floor = floor;
        }
        self.ctx.conversations.put_entries(app, &[(owner.clone(), entry)]).await?;
        let place = self.ctx.positions.get(app, &owner, conv).await?.unwrap_or_default();
        let read = unread::read(&Place::from(&place), head.last_seq, head.ord, u64::from(head.generation));
        self.store_place(app, &owner, conv, read, now).await?;
        if let ConversationKey::C2c(peer) = &key {
            self.totals().changed(app, &owner, peer.as_str());
        }
        self.tell_own(app, &owner, "deleted", &request.key, head.last_seq, &request.origin.unwrap_or_default());
        Ok(())
    }

    /// The conversation a user names; refused when there is none for him.
    async fn conv_of(&self, app: SdkAppId, owner: &UserId, key: &ConversationKey) -> Result<ConvId> {
        match key {
            ConversationKey::C2c(peer) => {
                let conv = self.pair(app, owner, peer).await?;
                conv.ok_or_else(|| Error::refused(code::MSG_BAD_PARAM, "no such conversation"))
            }
            ConversationKey::Group(group) => {
                let access = self.authorize(app, group.as_str(), owner, false).await?;
                Ok(ConvId(access.conv))
            }
        }
    }
}

fn entry_of(item: &Item, head: Option<Head>, since: u64) -> Option<Conversation> {
    let info = item.group.as_ref().and_then(|group| group.group.as_ref());
    let joined = item.group.as_ref().and_then(|group| group.self_.as_ref()).map(|member| member.join_time_s);
    // Not changed, or nothing was ever said: of groups the latter is shown all the same.
    let known = head.is_some();
    let fresh_group = !known && item.group.is_some() && (since == 0 || item.touched(since));
    if !known && !fresh_group {
        return None;
    }
    let mut head = head.unwrap_or_default();
    let floor = item.group.as_ref().map_or(0, |group| group.floor_seq);
    let cleared = item.entry.as_ref().map_or(0, |entry| entry.floor.0.saturating_sub(1));
    let last = head.last.take().filter(|last| last.seq > floor.max(cleared));
    let newest = last.as_ref().map_or(0, |last| last.seq);
    let deleted = item.deleted_at() > 0 && newest <= item.deleted_at();
    if deleted && (since == 0 || !item.touched(since)) {
        return None;
    }
    let unread = item.unread(&head);
    if last.is_none() && item.group.is_none() && unread == 0 && !deleted && item.deleted_at() == 0 && cleared == 0 {
        // Only what the other side sees was ever written.
        return None;
    }
    let began = joined.map_or(0, |secs| UnixMillis::from_secs(secs).0);
    let read_seq = item.place.map_or(0, |place| place.read_seq.0);
    let mentions = head.mentions.iter().copied().filter(|seq| *seq > read_seq.max(floor)).collect();
    Some(Conversation {
        key: item.key.to_string(),
        conv: item.conv.0,
        head_seq: head.seq,
        first_seq: head.first_seq.max(floor + 1).max(cleared + 1),
        read_seq,
        unread,
        time_ms: last.as_ref().map_or_else(|| head.time_ms.max(began), |last| last.time_ms),
        pinned_ms: item.entry.as_ref().and_then(|entry| entry.pinned).map_or(0, |at| at.0),
        last,
        peer_read_seq: 0,
        group_type: item.group.as_ref().map(|group| group.r#type.clone()).unwrap_or_default(),
        group_name: info.map(|info| info.name.clone()).unwrap_or_default(),
        generation: head.generation,
        deleted,
        mentions,
        face_url: info.map(|info| info.face_url.clone()).unwrap_or_default(),
    })
}

/// Cuts the list to one page; true when something is left over.
fn page(conversations: &mut Vec<Conversation>, limit: usize) -> bool {
    let mut bytes = 0;
    let fits = conversations.iter().take(limit).take_while(|conversation| {
        bytes += conversation.encoded_len();
        bytes <= PAGE_BYTES
    });
    let count = fits.count().max(1).min(conversations.len());
    let more = count < conversations.len();
    conversations.truncate(count);
    more
}

fn cursor(text: &str) -> Option<(u64, &str)> {
    let (time, key) = text.split_once(' ')?;
    Some((time.parse().ok()?, key))
}
