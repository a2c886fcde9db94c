//! Plans: works off the queue of what is to be told, and writes batches for the provider.
//!
//! ```text
//! p l m  Direct --------------------------> receivers --> batches          in order per conversation
//! r      Rounds --window over--> merged --> first page                     planned up to seq N, noted after the page is stored
//! a      Round (everybody) ---------------> first page
//! g      Page  --members, 500--> shares --> receivers --> batches, next page
//! ```
//! Each arrow is durable before what it came from is forgotten, so a kill repeats and loses nothing.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use linnet_admission::apps::{App, Apps};
use linnet_outbound::name_of;
use linnet_proto::push::{Batch, Direct, Notification, Page, Round};
use linnet_runtime::Clock;
use linnet_store::queues::{Item, Source, WorkId};
use linnet_types::{ConvId, Refusal, SdkAppId, UnixMillis};
use linnet_work::{Handler, Next, Worked, Worker};
use parking_lot::Mutex;
use prost::Message as _;

use crate::error::{Error, Result};
use crate::metrics::Skip;
use crate::options::Receive;
use crate::page::{Ask, Pages, Place, Said};
use crate::plan;
use crate::trigger::kind;

/// Name of the stored queue.
pub(crate) const QUEUE: &str = "push";
/// Pieces of one key read at once: a window of a busy group.
pub(crate) const BATCH: usize = 1_000;
/// Keys of the provider's queue that one app uses: requests at once.
const LANES: u64 = 16;
/// What another service did not answer is asked again after this long.
const AGAIN_MS: u64 = 500;

pub(crate) struct Planner {
    pages: Pages,
    apps: Apps,
    clock: Clock,
    sending: Worker,
    due: Mutex<HashMap<(SdkAppId, String), Due>>,
}

/// When a round is over, and the oldest work it was reckoned from.
#[derive(Clone, Copy)]
struct Due {
    head: u64,
    at: UnixMillis,
}

impl Planner {
    pub(crate) fn new(pages: Pages, apps: Apps, clock: Clock, sending: Worker) -> Self {
        Self { pages, apps, clock, sending, due: Mutex::default() }
    }

    /// A round of this key is gathering here: nobody has to be woken for more of it.
    pub(crate) fn gathers(&self, app: SdkAppId, key: &str) -> bool {
        let now = self.clock.now();
        self.due.lock().get(&(app, key.to_owned())).is_some_and(|due| due.at > now)
    }

    async fn app(&self, app: SdkAppId) -> Result<Option<Arc<App>>> {
        match self.apps.get(app).await {
            Ok(app) => Ok((!app.settings.push_url.is_empty()).then_some(app)),
            Err(Refusal { retry_after_ms: None, .. }) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn expired(&self, app: &App, time_ms: u64) -> bool {
        let ttl_ms = u64::from(app.settings.push_ttl_s) * 1_000;
        self.clock.now().0 >= time_ms.saturating_add(ttl_ms)
    }

    /// One piece of a key that is not a round.
    async fn piece(&self, queue: &Worker, app: &App, kind: char, conv: u64, item: &Item) -> Result<()> {
        match kind {
            kind::PAIR | kind::LISTED | kind::MENTION => {
                self.direct(app, conv, Direct::decode(item.payload.clone())?).await
            }
            kind::EVERYONE => {
                let round = Round::decode(item.payload.clone())?;
                let page = Page { round: Some(round), conv, ..Page::default() };
                Ok(queue.enqueue(&[page_item(app.id, &page)]).await?)
            }
            kind::PAGE => self.page(queue, app, Page::decode(item.payload.clone())?).await,
            _ => Ok(()),
        }
    }

    /// A message for some users, at once.
    async fn direct(&self, app: &App, conv: u64, direct: Direct) -> Result<()> {
        let group = direct.group_id;
        let Some(note) = direct.note else { return Ok(()) };
        if self.expired(app, note.time_ms) {
            self.pages.meters.skipped(Skip::Expired, direct.users.len());
            return Ok(());
        }
        let raises = u32::from(!note.no_unread);
        let ask =
            |user: String, option| Ask { user, option, mentioned: direct.mentioned, count: 1, raises, note: &note };
        let (place, asks) = match group.as_str() {
            "" => (Place::Pair, direct.users.into_iter().map(|user| ask(user, Receive::Notify)).collect()),
            _ => {
                let name = self.pages.calls.group(app.id, &group).await?.name;
                // Who has left since is not told; what a member wants is kept with him.
                let members = self.pages.calls.named(app.id, &group, &direct.users).await?;
                let asks = members.into_iter().map(|one| ask(one.user, Receive::stored(Some(&one.msg_flag))));
                (Place::Group { id: group, name }, asks.collect())
            }
        };
        let now = self.clock.now();
        let said = Said { app, conv, place, from_seq: note.seq, to_seq: note.seq, now };
        let notifications = self.pages.notifications(&said, asks).await?;
        self.send(app.id, conv, notifications).await
    }

    /// The rounds of one group: waits for the window, then makes one plan of all.
    async fn rounds(
        &self,
        queue: &Worker,
        app: &App,
        key: &str,
        conv: u64,
        items: &[Item],
    ) -> Result<Option<UnixMillis>> {
        let Some(head) = items.first() else { return Ok(None) };
        let first = Round::decode(head.payload.clone())?;
        let members = self.pages.calls.group(app.id, &first.group_id).await?.members;
        let due = self.due_of(app.id, key, head.id.no, first.first_ms, members);
        if due > self.clock.now() {
            return Ok(Some(due));
        }
        let rounds: std::result::Result<Vec<Round>, _> =
            items.iter().map(|item| Round::decode(item.payload.clone())).collect();
        let planned = self.pages.store.planned(app.id, ConvId(conv)).await?;
        if let Some(round) = plan::merge(rounds?, planned) {
            let to_seq = round.to_seq;
            if self.expired(app, round.last_ms) {
                self.pages.meters.skipped(Skip::Expired, 1);
            } else {
                let page = Page { round: Some(round), conv, ..Page::default() };
                queue.enqueue(&[page_item(app.id, &page)]).await?;
            }
            self.pages.store.set_planned(app.id, ConvId(conv), to_seq).await?;
        }
        self.due.lock().remove(&(app.id, key.to_owned()));
        Ok(None)
    }

    /// When a round ends that begins with `head`: by the owner's clock, but never later than by ours from when it was seen.
    fn due_of(&self, app: SdkAppId, key: &str, head: u64, first_ms: u64, members: u32) -> UnixMillis {
        let window = u64::try_from(plan::window(members).as_millis()).unwrap_or(plan::SHORTEST_MS);
        let at = UnixMillis(first_ms).min(self.clock.now()).plus_ms(window);
        let mut known = self.due.lock();
        let due = known.entry((app, key.to_owned())).or_insert(Due { head, at });
        if due.head != head {
            *due = Due { head, at };
        }
        due.at
    }

    /// One page of a group.
    async fn page(&self, queue: &Worker, app: &App, page: Page) -> Result<()> {
        let Some(round) = &page.round else { return Ok(()) };
        let facts = self.pages.calls.group(app.id, &round.group_id).await?;
        let members = self.pages.calls.members(app.id, &round.group_id, &page.cursor).await?;
        let share = |member: linnet_proto::group::Member| {
            let share = plan::share(round, &member.user)?;
            Some(Ask {
                option: Receive::stored(Some(&member.msg_flag)),
                user: member.user,
                mentioned: round.everyone,
                count: share.count,
                raises: share.count.saturating_sub(round.uncounted),
                note: share.note,
            })
        };
        let asks = members.members.into_iter().filter_map(share).collect();
        let place = Place::Group { id: round.group_id.clone(), name: facts.name };
        let (from_seq, to_seq) = (round.from_seq, round.to_seq);
        let said = Said { app, conv: page.conv, place, from_seq, to_seq, now: self.clock.now() };
        let notifications = self.pages.notifications(&said, asks).await?;
        self.send(app.id, page.conv, notifications).await?;
        if !members.cursor.is_empty() {
            let next = Page { cursor: members.cursor, no: page.no + 1, ..page };
            queue.enqueue(&[page_item(app.id, &next)]).await?;
        }
        Ok(())
    }

    /// Stores what goes to the provider; durable when it returns.
    async fn send(&self, app: SdkAppId, conv: u64, notifications: Vec<Notification>) -> Result<()> {
        if notifications.is_empty() {
            return Ok(());
        }
        let items: Vec<Item> = notifications.into_iter().map(|one| batch_item(app, conv, one)).collect();
        Ok(self.sending.enqueue(&items).await?)
    }

    fn put_off(&self, error: &Error, done: Vec<WorkId>) -> Worked {
        tracing::debug!(%error, "a plan is put off");
        self.pages.meters.retried.inc();
        Worked { done, next: Next::At(self.clock.now().plus_ms(AGAIN_MS)) }
    }
}

#[async_trait]
impl Handler for Planner {
    async fn work(&self, queue: &Worker, app: SdkAppId, key: &str, items: &[Item]) -> Worked {
        let all = || items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
        let app = match self.app(app).await {
            Ok(Some(app)) => app,
            Ok(None) => {
                self.pages.meters.skipped(Skip::Off, items.len());
                return Worked { done: all(), next: Next::More };
            }
            Err(error) => return self.put_off(&error, Vec::new()),
        };
        let mut letters = key.chars();
        let kind = letters.next().unwrap_or_default();
        let conv = letters.as_str().parse().unwrap_or_default();
        if kind == kind::ROUND {
            return match self.rounds(queue, &app, key, conv, items).await {
                Ok(Some(due)) => Worked { done: Vec::new(), next: Next::At(due) },
                Ok(None) => Worked { done: all(), next: Next::More },
                Err(error) if error.is_final() => {
                    given_up(&error);
                    Worked { done: all(), next: Next::More }
                }
                Err(error) => self.put_off(&error, Vec::new()),
            };
        }
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            match self.piece(queue, &app, kind, conv, item).await {
                Ok(()) => {}
                Err(error) if error.is_final() => given_up(&error),
                Err(error) => return self.put_off(&error, done),
            }
            done.push(item.id.clone());
        }
        Worked { done, next: Next::More }
    }

    fn due(&self, head: &Item) -> UnixMillis {
        let known = self.due.lock();
        let due = known.get(&(head.id.app, head.id.key.clone())).filter(|due| due.head == head.id.no);
        due.map_or(head.next, |due| due.at)
    }
}

/// A group that is gone, for one: there is nobody to tell.
fn given_up(error: &Error) {
    tracing::debug!(%error, "a plan is given up");
}

fn page_item(app: SdkAppId, page: &Page) -> Item {
    let (at_ms, to_seq, everyone) =
        page.round.as_ref().map_or((0, 0, false), |round| (round.last_ms, round.to_seq, round.everyone));
    let id = WorkId {
        app,
        key: format!("{}{}", kind::PAGE, page.conv),
        at: UnixMillis(at_ms),
        source: Source::Log,
        no: to_seq,
        event: format!("{}{}", if everyone { kind::EVERYONE } else { kind::ROUND }, page.no),
    };
    Item::new(id, page.encode_to_vec())
}

/// One request to the provider.
fn batch_item(app: SdkAppId, conv: u64, notification: Notification) -> Item {
    let request_id = name_of(&format!("{app}/{}", notification.id));
    let id = WorkId {
        app,
        // What is said in one conversation goes out in order.
        key: format!("{}", conv % LANES),
        at: UnixMillis(notification.time_ms),
        source: Source::Log,
        no: notification.seq,
        event: request_id.clone(),
    };
    let batch = Batch { request_id, notifications: vec![notification] };
    Item::new(id, batch.encode_to_vec())
}
