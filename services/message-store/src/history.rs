//! Reading logs: pages of one viewer's history in both directions.
//!
//! The newest rows come from the owner's memory, older ones from the store; equal reads at the same time are done once.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared as SharedFuture};
use linnet_proto::messages::{HistoryReply, HistoryRequest};
use linnet_store::logs::{LogHead, LogId, Reader, SideKind};
use linnet_types::{ConversationKey, MsgKey, SdkAppId, Seq, UnixMillis, UserId, code};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::owners::Handle;
use crate::service::{Service, user};
use crate::state::{Subject, log_id};
use crate::stored::Row;
use crate::view::{Page, Viewer, Why};

const LIMIT: u32 = 100;
const BYTES: usize = 256 * 1024;
/// Positions looked at for one page; a viewer who sees few of them gets a page that is not full.
const SCAN: u64 = 2_000;

type Pages = SharedFuture<BoxFuture<'static, Result<Arc<Found>>>>;

/// What makes two reads equal: log, range, last seq, and changes of stored rows so far.
type Equal = (LogId, u64, u64, u64, u64);

/// Reads in flight, by what they read.
#[derive(Default)]
pub(crate) struct Joined {
    reads: Mutex<HashMap<Equal, Pages>>,
}

/// Rows of `from..=to`, oldest first: all that are there.
#[derive(Clone, Debug, Default)]
struct Found {
    rows: Vec<Arc<Row>>,
}

/// Where a page lies.
struct Bounds {
    low: u64,
    high: u64,
    /// Below it nothing is stored any more.
    first: u64,
}

/// One log being read.
struct Reading<'a> {
    service: &'a Service,
    id: LogId,
    handle: Option<Handle>,
    head: Arc<LogHead>,
    viewer: Viewer,
    /// Whose one-sided deletes count; pairs only.
    deletes_of: Option<UserId>,
}

impl Service {
    /// One page of history.
    pub(crate) async fn history(&self, request: HistoryRequest) -> Result<HistoryReply> {
        let app = SdkAppId(request.app);
        let (id, mut viewer, deletes_of) = if request.peer_a.is_empty() {
            (log_id(request.app, request.conv), self.group_viewer(&request)?, None)
        } else {
            let (a, b) = (user(&request.peer_a)?, user(&request.peer_b)?);
            let Some(pair) = self.ctx.conversations.pair(app, &a, &b).await? else { return Ok(nothing()) };
            let mut viewer = Viewer::default();
            let mut deletes_of = None;
            if !request.viewer.is_empty() {
                let user = user(&request.viewer)?;
                let side = pair.side(&user).ok_or_else(|| Error::refused(code::MSG_BAD_PARAM, "not of this pair"))?;
                (viewer.floor, viewer.cleared) = (side.floor.0.saturating_sub(1), true);
                viewer.user = Some(request.viewer.clone());
                deletes_of = Some(user);
            }
            (LogId { app, conv: pair.conv }, viewer, deletes_of)
        };
        let Some((handle, head)) = self.head(id).await? else { return Ok(nothing()) };
        if deletes_of.is_none() {
            self.own_floor(id, &head, &mut viewer).await?;
        }
        let reading = Reading { service: self, id, handle, head, viewer, deletes_of };
        reading.page(&request).await
    }

    fn group_viewer(&self, request: &HistoryRequest) -> Result<Viewer> {
        if request.viewer.is_empty() {
            return Ok(Viewer::default());
        }
        let Some(grant) = &request.grant else {
            return Err(Error::refused(code::GROUP_NO_RIGHT, "reading a group needs a grant"));
        };
        if UnixMillis(grant.until_ms) < self.ctx.clock.now() {
            return Err(Error::Busy("the grant has ended".to_owned()));
        }
        Ok(Viewer { user: Some(request.viewer.clone()), floor: grant.floor_seq, ..Viewer::default() })
    }

    /// A member who cleared the group's history for himself has a floor of his own.
    async fn own_floor(&self, id: LogId, head: &LogHead, viewer: &mut Viewer) -> Result<()> {
        let (Some(user), Ok(Subject::Group(group))) = (&viewer.user, head.route.parse()) else { return Ok(()) };
        let key = ConversationKey::Group(group);
        let entry = self.ctx.conversations.entry(id.app, &UserId::trusted(user.as_str()), &key).await?;
        let own = entry.map_or(0, |entry| entry.floor.0.saturating_sub(1));
        if own > viewer.floor {
            (viewer.floor, viewer.cleared) = (own, true);
        }
        Ok(())
    }
}

fn nothing() -> HistoryReply {
    HistoryReply { covered_from: 1, complete: true, first_seq: 1, ..HistoryReply::default() }
}

impl Reading<'_> {
    async fn page(mut self, request: &HistoryRequest) -> Result<HistoryReply> {
        let bounds = self.bounds(request).await?;
        let limit = if request.limit == 0 { LIMIT } else { request.limit.min(LIMIT) } as usize;
        let bytes = if request.max_bytes == 0 { BYTES } else { request.max_bytes as usize };
        let start = if request.ascending { bounds.low } else { bounds.high };
        let mut page = Page::new(start, request.ascending, limit, bytes);
        let mut complete = true;
        if bounds.low <= bounds.high {
            complete = if request.ascending {
                self.ascend(&mut page, &bounds, limit).await?
            } else {
                self.descend(&mut page, &bounds, limit).await?
            };
        }
        let (covered_from, covered_to) = page.covered();
        Ok(HistoryReply {
            messages: page.messages,
            placeholders: page.placeholders,
            covered_from,
            covered_to,
            first_seq: bounds.first.max(self.viewer.floor + 1),
            head: self.head.last_seq,
            complete,
            generation: u64::from(self.head.generation),
        })
    }

    async fn bounds(&self, request: &HistoryRequest) -> Result<Bounds> {
        let reader = self.reader();
        let head = self.head.last_seq;
        let mut low = request.from_seq.max(1);
        let mut high = if request.to_seq == 0 { head } else { request.to_seq.min(head) };
        if request.from_time_s > 0 {
            low = low.max(reader.seq_at(UnixMillis::from_secs(request.from_time_s)).await?.0);
        }
        if request.to_time_s > 0 {
            let after = reader.seq_at(UnixMillis::from_secs(request.to_time_s.saturating_add(1))).await?;
            high = high.min(after.0.saturating_sub(1));
        }
        if !request.before_msg_key.is_empty() {
            let key: MsgKey =
                request.before_msg_key.parse().map_err(|()| Error::refused(code::MSG_KEY, "not a MsgKey"))?;
            if let Some((seq, _)) = reader.find(key).await? {
                high = high.min(seq.0.saturating_sub(1));
            }
        }
        Ok(Bounds { low, high, first: self.head.first_seq.max(self.head.floor + 1).max(1) })
    }

    /// Newest first. True when the lower bound was reached.
    async fn descend(&mut self, page: &mut Page, bounds: &Bounds, limit: usize) -> Result<bool> {
        let bottom = bounds.low.max(bounds.first).max(self.viewer.floor + 1);
        let mut scanned = 0;
        while page.next() >= bottom && scanned < SCAN {
            let from = bottom.max((page.next() + 1).saturating_sub(limit as u64));
            let to = page.next();
            scanned += to + 1 - from;
            let rows = self.rows(from, to).await?;
            for row in rows.iter().rev() {
                let hidden = self.viewer.hidden(&row.message);
                if !page.take(row.message.clone(), hidden) {
                    return Ok(false);
                }
            }
            page.finish(from, Why::Expired);
            if page.messages.len() >= limit {
                break;
            }
        }
        if page.next() >= bottom && page.next() > 0 {
            return Ok(false);
        }
        page.finish(bounds.low.max(self.viewer.floor + 1), Why::Expired);
        page.finish(bounds.low, self.viewer.below_floor());
        Ok(true)
    }

    /// Oldest first. True when the upper bound was reached.
    async fn ascend(&mut self, page: &mut Page, bounds: &Bounds, limit: usize) -> Result<bool> {
        page.finish(self.viewer.floor.min(bounds.high), self.viewer.below_floor());
        page.finish((bounds.first - 1).min(bounds.high), Why::Expired);
        let mut scanned = 0;
        while page.next() <= bounds.high && scanned < SCAN && page.messages.len() < limit {
            let from = page.next();
            let to = bounds.high.min(from + limit as u64 - 1);
            scanned += to + 1 - from;
            for row in &self.rows(from, to).await? {
                let hidden = self.viewer.hidden(&row.message);
                if !page.take(row.message.clone(), hidden) {
                    return Ok(false);
                }
            }
            page.finish(to, Why::Expired);
        }
        Ok(page.next() > bounds.high)
    }

    /// What is stored of `from..=to`, oldest first, with the viewer's deletes noted.
    async fn rows(&mut self, from: u64, to: u64) -> Result<Vec<Arc<Row>>> {
        if let Some(user) = &self.deletes_of {
            let sides = self.reader().sides(SideKind::Deleted, Seq(from), Seq(to)).await?;
            let own = sides.into_iter().filter(|side| side.user == *user).map(|side| side.seq.0);
            self.viewer.deleted = own.collect::<BTreeSet<_>>();
        }
        if let Some(handle) = &self.handle
            && let Some(rows) = handle.shared.rows(from, to)
        {
            self.service.ctx.meters.page(true);
            return Ok(rows);
        }
        self.service.ctx.meters.page(false);
        self.service.stored(self.id, self.handle.as_ref(), &self.head, from, to).await
    }

    fn reader(&self) -> Reader {
        self.service.reader(self.id, &self.head)
    }
}

impl Service {
    /// Rows of `from..=to` out of the store, oldest first; equal reads at the same time are one. The newest stay in memory
    /// once somebody asked for them.
    pub(crate) async fn stored(
        &self,
        id: LogId,
        handle: Option<&Handle>,
        head: &LogHead,
        from: u64,
        to: u64,
    ) -> Result<Vec<Arc<Row>>> {
        let changes = handle.map_or(0, |handle| handle.shared.changes());
        let key = (id, from, to, head.last_seq, changes);
        let read = {
            let mut reads = self.joined().reads.lock();
            match reads.get(&key) {
                Some(read) => read.clone(),
                None => {
                    let read = read_all(self.reader(id, head), from, to).boxed().shared();
                    reads.insert(key, read.clone());
                    read
                }
            }
        };
        let found = read.await;
        self.joined().reads.lock().remove(&key);
        let rows = found?.rows.clone();
        if let Some(handle) = handle {
            handle.shared.preload(rows.clone(), changes);
        }
        Ok(rows)
    }
}

async fn read_all(reader: Reader, from: u64, to: u64) -> Result<Arc<Found>> {
    let mut rows = Vec::new();
    let mut next = to;
    while next >= from {
        let most = usize::try_from(next + 1 - from).unwrap_or(usize::MAX);
        let page = reader.history(Seq(from), Seq(next), most).await?;
        rows.extend(page.messages.into_iter().map(|stored| Arc::new(Row::read(stored))));
        if page.from.0 > next || page.from.0 <= from {
            break;
        }
        next = page.from.0 - 1;
    }
    rows.reverse();
    Ok(Arc::new(Found { rows }))
}
