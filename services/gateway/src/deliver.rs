//! What comes from owners, in order, to the shards.
//!
//! The loop awaits nothing of the receiver's: what must ask an owner is started beside it.

use std::sync::Arc;

use bytes::Bytes;
use linnet_delivery::{Delivered, Interest, Local, Locals, Which};
use linnet_proto::client::{self, frame, item};
use linnet_proto::delivery::{self, batch, control, record};
use linnet_types::{ConvId, ConversationKey, GroupId, SdkAppId};
use tokio::sync::mpsc;

use crate::hub::{Hub, Seat};
use crate::session::ConnRef;
use crate::shard::{Command, Targets};
use crate::view::Prepared;
use crate::wire::Wire;

/// Live members named when a room is registered: all of one in which the owner knows everybody by name.
const NAMED: usize = 10_000;

/// What the gateway knows of its local members.
pub(crate) struct LocalMembers(pub(crate) std::sync::Weak<Hub>);

impl Locals for LocalMembers {
    fn local(&self, _app: SdkAppId, conv: ConvId, which: Which) -> Local {
        let Some(hub) = self.0.upgrade() else { return Local::default() };
        let stored = || Local { members: hub.interest.members(conv.0, which == Which::New), ..Local::default() };
        hub.rooms.local(conv.0, NAMED).unwrap_or_else(stored)
    }

    fn is_here(&self, app: SdkAppId, user: &str) -> bool {
        self.0.upgrade().is_some_and(|hub| hub.is_here(app.0, user))
    }
}

/// Hands on until the receiver ends.
pub(crate) async fn run(hub: Arc<Hub>, mut delivered: mpsc::Receiver<Delivered>) {
    while let Some(next) = delivered.recv().await {
        match next {
            Delivered::Batch(batch) => hub.batch(Arc::unwrap_or_clone(batch)).await,
            Delivered::Registered { interest, reply, checked, .. } => hub.registered(&interest, &reply, checked).await,
            Delivered::Advanced { interest, head_seq } => {
                let seats = hub.interest.seats(interest.conv.0);
                hub.tell_advanced(&seats, format!("GROUP:{}", interest.group_id), head_seq.0).await;
            }
            Delivered::Closed { interest, refusal } => {
                tracing::debug!(conv = %interest.conv, code = refusal.code, "a conversation is registered no more");
                hub.rooms.closed(&hub, interest.conv.0).await;
                hub.interest.leave(&hub, interest.conv.0, |_| true).await;
            }
            Delivered::Resync { owner } => {
                tracing::warn!(%owner, "frames were lost for good: every client here syncs");
                hub.tell_advanced(&hub.all_seats(), String::new(), 0).await;
            }
            Delivered::Kick(kick) => hub.kick(kick).await,
        }
    }
}

impl Hub {
    /// The owner answered a registration: from this place of the stream on its word holds.
    async fn registered(&self, interest: &Interest, reply: &delivery::RegisterReply, checked: Vec<String>) {
        let conv = interest.conv.0;
        self.rooms.registered(conv, reply);
        let gone = |user: &str| reply.not_members.iter().any(|name| name == user);
        if !reply.not_members.is_empty() {
            self.interest.leave(self, conv, |session| gone(session.user.as_str())).await;
        }
        let members: Vec<String> = checked.into_iter().filter(|user| !gone(user)).collect();
        if !members.is_empty() {
            let name = format!("GROUP:{}", interest.group_id);
            self.interest.confirmed(self, conv, &members, &name, reply.head_seq).await;
        }
    }

    /// Hands one batch to the shards that have receivers of it.
    pub(crate) async fn batch(self: &Arc<Self>, batch: delivery::Batch) {
        self.follow_changes(&batch);
        if batch.live {
            self.rooms.apply(self, &batch).await;
        }
        if batch.register {
            self.grown(&batch);
        }
        let joins: Arc<[(usize, Vec<ConnRef>)]> = self.membership(&batch).into();
        let named = batch.users.clone();
        let direct = !named.is_empty();
        let prepared = Arc::new(Prepared::new(batch, &self.me));
        if direct && prepared.entries.is_empty() {
            return self.tell_behind(&prepared, &named).await;
        }
        if direct {
            let by_shard = self.refs_by_shard(prepared.app, &named);
            for (shard, refs) in by_shard.into_iter().enumerate().filter(|(_, refs)| !refs.is_empty()) {
                let command = Command::Batch {
                    batch: Arc::clone(&prepared),
                    to: Targets::Only(refs.into()),
                    joins: Arc::clone(&joins),
                };
                self.tell(shard as u16, command).await;
            }
            return;
        }
        for shard in 0..self.shards.len() {
            let command =
                Command::Batch { batch: Arc::clone(&prepared), to: Targets::Members, joins: Arc::clone(&joins) };
            self.tell(shard as u16, command).await;
        }
    }

    /// Membership of registered conversations, as control records change it; the connections of those who joined by the
    /// record's index. The shards act on it between the messages.
    fn membership(self: &Arc<Self>, batch: &delivery::Batch) -> Vec<(usize, Vec<ConnRef>)> {
        let mut joins = Vec::new();
        if batch.live || !batch.users.is_empty() {
            return joins;
        }
        for (index, record) in batch.records.iter().enumerate() {
            let Some(record::Kind::Control(control)) = &record.kind else { continue };
            match &control.kind {
                Some(control::Kind::Joined(joined)) => {
                    joins.push((index, self.interest.add_users(self, batch.app, batch.conv, &joined.users)));
                }
                Some(control::Kind::Left(gone) | control::Kind::Kicked(gone)) => {
                    let named = |user: &str| gone.users.iter().any(|name| name == user);
                    self.interest.forget(self, batch.conv, |session| named(session.user.as_str()));
                }
                Some(control::Kind::Dismissed(_)) => {
                    self.interest.forget(self, batch.conv, |_| true);
                }
                _ => {}
            }
        }
        joins
    }

    /// Groups a user of this gateway joined or left.
    fn follow_changes(self: &Arc<Self>, batch: &delivery::Batch) {
        let Some(batch::Key::User(user)) = &batch.key else { return };
        for record in &batch.records {
            let Some(record::Kind::Changed(changed)) = &record.kind else { continue };
            let joined = match changed.what.as_str() {
                "joined" => true,
                "left" => false,
                _ => continue,
            };
            let Ok(ConversationKey::Group(group)) = changed.conv.parse() else { continue };
            let (hub, app, user) = (Arc::clone(self), batch.app, user.clone());
            self.tasks.spawn("gateway.membership", async move {
                if joined {
                    hub.interest.joined(&hub, app, &user, &group).await;
                } else {
                    hub.interest.left(&hub, app, &user, &group).await;
                }
            });
        }
    }

    /// A group outgrew delivery by name: its local members are listed.
    fn grown(self: &Arc<Self>, batch: &delivery::Batch) {
        let Some(batch::Key::GroupId(group)) = &batch.key else { return };
        let (hub, app, conv) = (Arc::clone(self), batch.app, batch.conv);
        let (group, users) = (GroupId::trusted(group.as_str()), batch.users.clone());
        self.tasks.spawn("gateway.grown", async move {
            for user in users {
                hub.interest.enter_user(&hub, app, &user, conv, &group).await;
            }
        });
    }

    /// A batch by name without records only says how far its conversation is: after a take-over, and to users who came
    /// while something was sent to them elsewhere.
    async fn tell_behind(&self, batch: &Prepared, users: &[String]) {
        if batch.head_seq == 0 {
            return;
        }
        for user in users {
            let name = batch.name(batch.side(user));
            self.tell_advanced(&self.seats_of(batch.app, user), name, batch.head_seq).await;
        }
    }

    /// Tells connections that a conversation went on without them; without a name, that anything may have.
    async fn tell_advanced(&self, seats: &[Seat], conv: String, head: u64) {
        let mut encoded: [Option<Bytes>; 2] = [None, None];
        for seat in seats {
            let wire = seat.session.wire;
            let bytes = encoded[wire as usize].get_or_insert_with(|| advanced(wire, &conv, head)).clone();
            self.push(seat.at, bytes).await;
        }
    }
}

/// The frame that says a conversation went on to `head`.
pub(crate) fn advanced(wire: Wire, conv: &str, head: u64) -> Bytes {
    let item = client::Item { conv: conv.to_owned(), what: Some(item::What::Advanced(client::Advanced { head })) };
    wire.encode(&client::Frame { id: 0, body: Some(frame::Body::Push(client::Push { items: vec![item] })) })
}
