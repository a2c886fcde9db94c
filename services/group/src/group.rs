//! One active group: what its actor knows, and the steps every command is made of.
//!
//! ```text
//! activate: claim guard -> resume -> fence log -> load index -> open stream -> commands
//! command:  check rules -> change, events, tip: one guarded batch   Stale, Unknown -> actor ends, callers retry
//!                             |  durable here
//!                             +-> tip appended (if stored) -> control records and tip published in their place
//!                             +-> events, tips: outbox -> callback queue, log, in order, acknowledged
//! send:     check again -> shape -> append with all that waits -> acknowledge -> publish
//! ```

mod append;
mod intents;
mod join;
mod live;
mod members;
mod outbox;
mod profile;
mod read;
mod restrict;
mod run;
mod send;
mod viewers;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use linnet_admission::Taker;
use linnet_admission::apps::App;
use linnet_cluster::{RouteKey, Service};
use linnet_delivery::{Audience, ConvName, PublishOptions, Stream};
use linnet_proto::delivery::{Control, Notice, Record, control, record};
use linnet_proto::group::KeyValue;
use linnet_proto::messages::FenceRequest;
use linnet_proto::msg::{Message, Origin};
use linnet_runtime::status;
use linnet_store::groups::{Change, Done, GroupGuard, GroupRecord, Member, UserState};
use linnet_types::{Epoch, GroupType, Refusal, Role, Seq, UnixMillis, UserId, code};
use tokio::sync::mpsc;

use crate::error::{Result, busy, from_store, unknown};
use crate::hub::{Handle, Sending};
use crate::index::Index;
use crate::rules::{self, Act, Rank};
use crate::shaping::Bucket;
use crate::shared::Shared;
use crate::tips::{self, Place};

pub(crate) use intents::Drafted;
pub(crate) use live::Live;
pub(crate) use members::Add;
pub(crate) use outbox::events as outbox_events;

/// After a group outgrew delivery by name, batches go both ways this long.
const BOTH_MS: u64 = 30_000;

/// An owner that wrote nothing for this long looks at its claim before it answers from memory.
const DOUBT: Duration = Duration::from_secs(8);

/// The state of one actor.
pub(crate) struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: Arc<App>,
    pub(crate) held: GroupGuard,
    pub(crate) index: Index,
    /// Last stored position, countable messages up to it, and its time.
    pub(crate) head: Seq,
    pub(crate) head_ord: u64,
    pub(crate) last_ms: u64,
    stream: Stream,
    /// The epoch log and stream know.
    epoch: Epoch,
    bucket: Bucket,
    pub(crate) live: Option<Live>,
    outbox: outbox::Outbox,
    /// Members by name, for delivery; rebuilt after a change.
    named: Option<Arc<[UserId]>>,
    /// When the group last outgrew delivery by name.
    crossed: Option<UnixMillis>,
    /// The app heard that the group is full, and nobody left since.
    full_told: bool,
    /// Rises with each change of membership or rights.
    version: u64,
    /// When the claim was last known to stand, and version of the ring then.
    confirmed: Duration,
    ring: u64,
    /// It is not known whether the claim stands: nobody is answered.
    doubted: bool,
    /// Told to let go.
    yielding: bool,
    /// Members who sent since they were last written.
    spoke: HashSet<UserId>,
    /// This life of the actor, as the lines of connections know it.
    taker: Taker,
    /// Messages in flight in the loop, in order.
    waiting: VecDeque<Box<Sending>>,
    /// The claim is gone: the actor ends.
    lost: bool,
    /// The group was dismissed: the actor cleans up and ends.
    dismissed: bool,
}

/// Starts the actor of a claimed group.
///
/// # Errors
/// When its log cannot be fenced or the group not be read.
pub(crate) async fn start(shared: &Shared, mut held: GroupGuard) -> Result<Handle> {
    let app = shared.app(held.app()).await?;
    let kind = held.record().kind;
    let fence = if kind.is_live() { None } else { Some(fence(shared, &held, &app).await?) };
    let store = |error| from_store(&error).0;
    let index = Index::load(&shared.groups, &held).await.map_err(store)?;
    let live = if kind.is_live() { Some(Live::open(shared, &mut held).await?) } else { None };
    let fence = fence.unwrap_or_default();
    let name = ConvName::Group(held.record().group.clone());
    let stream = shared.publisher.open(held.app(), held.conv(), name, held.epoch(), Seq(fence.head_seq));
    let (mailbox, commands) = mpsc::channel(shared.config.mailbox);
    let handle = Handle { conv: held.conv(), kind, mailbox };
    let now = shared.clock.now();
    let mut group = Group {
        epoch: held.epoch(),
        head: Seq(fence.head_seq),
        head_ord: fence.head_ord,
        last_ms: fence.last_time_ms,
        bucket: Bucket::new(app.settings.group_rate, now),
        shared: shared.me(),
        app,
        held,
        index,
        stream,
        live,
        outbox: outbox::Outbox::default(),
        named: None,
        crossed: None,
        full_told: false,
        version: 0,
        confirmed: shared.clock.mono(),
        ring: shared.ring(),
        doubted: false,
        yielding: false,
        spoke: HashSet::new(),
        taker: Taker::new(),
        waiting: VecDeque::new(),
        lost: false,
        dismissed: false,
    };
    group.recover(fence.last_time_ms).await?;
    group.finish_tips().await?;
    shared.tasks.spawn("group.actor", group.run(commands));
    Ok(handle)
}

/// Makes the log refuse what older owners of the group may still send.
async fn fence(shared: &Shared, held: &GroupGuard, app: &App) -> Result<linnet_proto::messages::FenceReply> {
    let request = FenceRequest {
        app: held.app().0,
        conv: held.conv().0,
        group_id: held.record().group.to_string(),
        group_epoch: held.epoch().0,
        retention_days: app.settings.retention_days,
    };
    shared.fence(request).await.map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))
}

impl Group {
    pub(crate) fn record(&self) -> &GroupRecord {
        self.held.record()
    }

    pub(crate) fn kind(&self) -> GroupType {
        self.record().kind
    }

    pub(crate) fn id(&self) -> String {
        self.record().group.to_string()
    }

    pub(crate) fn conv(&self) -> u64 {
        self.held.conv().0
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.shared.clock.now()
    }

    /// Members, or viewers of a live room.
    pub(crate) fn count(&self) -> u32 {
        self.live.as_ref().map_or_else(|| self.record().member_count, Live::online)
    }

    fn place(&self) -> Place<'_> {
        self.place_after(0)
    }

    /// The group once `coming` members more (or, below 0, fewer) are in it.
    fn place_after(&self, coming: i64) -> Place<'_> {
        let record = self.record();
        let count = i64::from(self.count()) + coming;
        Place { group: record.group.as_str(), name: &record.name, member_count: u32::try_from(count).unwrap_or(0) }
    }

    /// What the holder of the claim learns from a failed store call.
    fn store<T>(&mut self, result: linnet_store::Result<T>) -> Result<T> {
        result.map_err(|error| {
            let (refusal, lost) = from_store(&error);
            self.lost |= lost;
            refusal
        })
    }

    /// Ends the actor after this command.
    fn give_up(&mut self) -> Refusal {
        self.lost = true;
        busy("the group is moving")
    }

    /// Everything known of some accounts, in their order.
    pub(crate) async fn states(&mut self, users: &[UserId]) -> Result<Vec<UserState>> {
        let missing: Vec<UserId> = users.iter().filter(|user| self.index.get(user).is_none()).cloned().collect();
        if !missing.is_empty() {
            let groups = self.shared.groups.clone();
            let read = groups.user_states(&mut self.held, &missing).await;
            let read = self.store(read)?;
            self.index.remember(read);
        }
        users.iter().map(|user| self.index.get(user).ok_or_else(|| busy("the group is busy"))).collect()
    }

    pub(crate) async fn state(&mut self, user: &UserId) -> Result<UserState> {
        let mut states = self.states(std::slice::from_ref(user)).await?;
        states.pop().ok_or_else(|| busy("the group is busy"))
    }

    /// The role of a stored member; in a live room everybody is one.
    pub(crate) async fn role(&mut self, user: &UserId) -> Result<Option<Role>> {
        if self.kind().is_live() {
            return Ok(Some(self.record().role(user)));
        }
        let member = self.state(user).await?.member.is_some();
        Ok(member.then(|| self.record().role(user)))
    }

    /// Looks at the claim when nothing confirmed it for a while, or the ring changed and names another node: another may own
    /// the group by now. False when that cannot be known.
    async fn confirm(&mut self) -> bool {
        let (now, ring) = (self.shared.clock.mono(), self.shared.ring());
        let key = RouteKey::group(self.held.app(), &self.record().group);
        let moved = ring != self.ring && !self.shared.cluster.owns(Service::Group, key);
        if !moved && now < self.confirmed + DOUBT {
            return true;
        }
        let groups = self.shared.groups.clone();
        match groups.still_holds(&self.held).await {
            Ok(true) => (self.confirmed, self.ring) = (now, ring),
            Ok(false) => self.lost = true,
            Err(error) => {
                tracing::debug!(%error, "a claim could not be looked at");
                return false;
            }
        }
        true
    }

    /// What the caller of a command is here.
    pub(crate) async fn rank(&mut self, origin: &Origin) -> Result<Rank> {
        if origin.admin || origin.operator.is_empty() {
            return Ok(Rank::App);
        }
        let operator = UserId::trusted(origin.operator.as_str());
        Ok(Rank::of(self.role(&operator).await?))
    }

    /// Refuses when the caller may not.
    pub(crate) async fn allow(&mut self, origin: &Origin, act: Act) -> Result<Rank> {
        let rank = self.rank(origin).await?;
        rules::allow(self.kind(), rank, act)?;
        Ok(rank)
    }

    /// Writes a change and follows it in memory.
    pub(crate) async fn apply(&mut self, change: Change) -> Result<Done> {
        if self.dismissed {
            return Err(unknown());
        }
        let edits = change.users.clone();
        let events = change.events.iter().map(|event| intents::is_intent(&event.event)).reduce(|all, one| all && one);
        let before = self.record().member_count;
        let groups = self.shared.groups.clone();
        let done = groups.apply(&mut self.held, change).await;
        if done.is_err() {
            self.index.doubt();
        }
        let done = self.store(done);
        self.keep_epoch().await?;
        let done = done?;
        self.confirmed = self.shared.clock.mono();
        self.index.take(edits);
        self.version += 1;
        if let Some(only_intents) = events {
            self.outbox.added(only_intents, self.shared.clock.now());
        }
        if !done.added.is_empty() || !done.removed.is_empty() {
            self.named = None;
            self.full_told &= done.removed.is_empty();
            let small = self.app.settings.small_group;
            if before <= small && self.record().member_count > small {
                self.crossed = Some(self.now());
            }
        }
        Ok(done)
    }

    /// A settled write raises the epoch: log and gateways must know the new one before anything else is sent.
    async fn keep_epoch(&mut self) -> Result<()> {
        if self.held.epoch() == self.epoch || self.lost {
            return Ok(());
        }
        if !self.kind().is_live() && fence(&self.shared, &self.held, &self.app).await.is_err() {
            return Err(self.give_up());
        }
        self.epoch = self.held.epoch();
        let name = ConvName::Group(self.record().group.clone());
        self.stream = self.shared.publisher.open(self.held.app(), self.held.conv(), name, self.epoch, self.head);
        Ok(())
    }

    /// Whom a batch is for; `also` are users who left with it.
    fn audience(&mut self, also: &[UserId]) -> (Audience, bool) {
        let small = self.index.is_whole() && !self.kind().is_live();
        if !small {
            return (Audience::Registered, false);
        }
        let count = u32::try_from(self.index.members().len()).unwrap_or(u32::MAX);
        let crossing = self.crossed.is_some_and(|at| self.now().since(at) < BOTH_MS);
        if count > self.app.settings.small_group && !crossing {
            self.crossed = None;
            return (Audience::Registered, false);
        }
        let members = &self.index;
        let named = self.named.get_or_insert_with(|| members.members().keys().cloned().collect());
        let users = if also.is_empty() {
            Arc::clone(named)
        } else {
            named.iter().chain(also.iter().filter(|user| !members.members().contains_key(*user))).cloned().collect()
        };
        match count > self.app.settings.small_group {
            true => (Audience::Both(users), true),
            false if self.stream.registered() > 0 => (Audience::Both(users), false),
            false => (Audience::Users(users), false),
        }
    }

    /// Publishes records in their place; `also` gets them too.
    pub(crate) fn publish(&mut self, records: Vec<Record>, also: &[UserId]) {
        if records.is_empty() {
            return;
        }
        #[cfg(feature = "next")]
        let records = std::iter::once(control_record(control(control::Kind::NextBuild(true)))).chain(records).collect();
        let (audience, register) = self.audience(also);
        let (live, shaped) = match &mut self.live {
            Some(live) => (true, std::mem::take(&mut live.shaped)),
            None => (false, [0; 4]),
        };
        let head = if live { Seq(0) } else { self.head };
        self.stream.publish(records, head, &audience, PublishOptions { live, shaped, register });
    }

    /// Tells what changed: control records first, so that members who left do not see what follows, then the tips.
    pub(crate) async fn tell(
        &mut self,
        controls: Vec<Control>,
        tips: impl IntoIterator<Item = Drafted> + Send,
        also: &[UserId],
    ) {
        let mut records: Vec<Record> = controls.into_iter().map(control_record).collect();
        for tip in tips {
            records.extend(self.store_tip(tip).await.map(|message| message_record(message, String::new())));
        }
        self.publish(records, also);
    }

    /// Sends a notice to some users, outside the group's stream.
    pub(crate) fn notify<'a>(&self, users: impl IntoIterator<Item = &'a UserId>, notice: &Notice) {
        for user in users {
            let record = Record { kind: Some(record::Kind::Notice(notice.clone())), ..Record::default() };
            self.shared.publisher.notify_user(self.held.app(), user, vec![record]);
        }
    }

    /// Tells a user's devices that his list of groups changed.
    pub(crate) fn changed<'a>(&self, users: impl IntoIterator<Item = &'a UserId>, what: &str) {
        let conv = format!("GROUP:{}", self.record().group);
        for user in users {
            let changed =
                linnet_proto::delivery::Changed { what: what.to_owned(), conv: conv.clone(), seq: self.head.0 };
            let record = Record { kind: Some(record::Kind::Changed(changed)), ..Record::default() };
            self.shared.publisher.notify_user(self.held.app(), user, vec![record]);
        }
    }

    /// A notice about this group.
    pub(crate) fn notice(&self, kind: tips::NoticeKind, operator: &str, extra: serde_json::Value) -> Notice {
        tips::notice(kind, self.place(), operator, self.now(), extra)
    }

    /// Owner and admins.
    pub(crate) fn managers(&self) -> Vec<UserId> {
        self.record().owner.iter().chain(&self.record().admins).cloned().collect()
    }

    /// A new member as of now.
    pub(crate) fn newcomer(&self, user: &UserId) -> Member {
        let mut member = Member::new(user.clone(), self.now(), self.head);
        member.join_ord = self.head_ord;
        if self.record().history_before_join {
            member.visible_from = Seq(1);
        }
        member
    }
}

/// A control record.
pub(crate) fn control(kind: control::Kind) -> Control {
    Control { kind: Some(kind) }
}

fn control_record(control: Control) -> Record {
    Record { kind: Some(record::Kind::Control(control)), ..Record::default() }
}

/// A message as a record: targeted ones only for their receivers and the sender.
pub(crate) fn message_record(message: Message, except_connection: String) -> Record {
    let mut only = message.visible_to.clone();
    if !only.is_empty() && !only.contains(&message.from) {
        only.push(message.from.clone());
    }
    Record { only, except_connection, kind: Some(record::Kind::Message(message)) }
}

/// Custom fields as the store keeps them: text.
pub(crate) fn custom_text(fields: &[KeyValue]) -> Result<Vec<(String, String)>> {
    fields
        .iter()
        .map(|field| {
            let value = std::str::from_utf8(&field.value).map_err(|_| crate::error::bad("a value is not UTF-8"))?;
            Ok((field.key.clone(), value.to_owned()))
        })
        .collect()
}

/// Sets fields; an empty value deletes.
pub(crate) fn set_custom(custom: &mut std::collections::BTreeMap<String, String>, fields: Vec<(String, String)>) {
    for (key, value) in fields {
        if value.is_empty() {
            custom.remove(&key);
        } else {
            custom.insert(key, value);
        }
    }
}
