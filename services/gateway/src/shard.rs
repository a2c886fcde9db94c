//! A shard: one task that owns its connections and does everything with their sockets.
//!
//! ```text
//! sockets --wakers--> ready list --+
//! services, batches --inbox--------+--> turn: commands, sockets, windows, timers --> one vectored write per dirty connection
//! ```
//!
//! One read buffer serves all connections. A batch reaches the shard once; its frame is built once per subprotocol and
//! side and shared by the receivers. A turn ends after about a thousand writes so that reads and pings are served.

mod conn;
mod fanout;
mod frames;
pub(crate) mod ready;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use linnet_proto::client::{self, frame, item};
use linnet_types::GroupId;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::hub::Hub;
use crate::queue::{Added, Limits, Outgoing};
use crate::session::{ConnRef, Ended, Session};
use crate::shard::conn::{Bucket, Conn, Stage, Wrote};
use crate::shard::fanout::Conversation;
use crate::shard::ready::{ConnWaker, Ready};
use crate::socket::Socket;
use crate::view::Prepared;
use crate::wire::Wire;
use crate::ws::{self, Op};
use crate::{COME_BACK_MS, PARTS};

/// Commands waiting for a shard; senders wait when it is full.
pub(crate) const INBOX: usize = 4096;
/// The shard's read buffer.
const READ_BYTES: usize = 64 << 10;
/// Largest frame before sign-in.
const FRESH_FRAME_BYTES: usize = 8 << 10;
/// Time a close frame has to get through.
const CLOSE_S: u32 = 2;
/// Writes after which a turn ends.
const WRITES_PER_TURN: usize = 1000;
const COMMANDS_PER_TURN: usize = 512;

/// A socket that was just upgraded.
pub(crate) struct Upgraded {
    pub(crate) socket: Socket,
    pub(crate) number: u64,
    pub(crate) wire: Wire,
    pub(crate) ip: Box<str>,
    /// Read ahead by the HTTP server.
    pub(crate) leftover: Bytes,
}

/// Who a batch is for.
#[derive(Clone, Debug)]
pub(crate) enum Targets {
    /// Everybody listed under the conversation.
    Members,
    /// These connections of this shard.
    Only(Arc<[ConnRef]>),
}

/// How a connection is ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) ended: Ended,
    /// Status and reason of the close frame.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// What the client is told before.
    pub(crate) say: Option<frame::Body>,
}

impl End {
    pub(crate) fn new(ended: Ended, code: u16, reason: &'static str) -> Self {
        Self { ended, code, reason, say: None }
    }

    /// The session is over: the client must not come back by itself.
    pub(crate) fn kicked(reason: &str, by_platform: &str) -> Self {
        let say = client::Kicked { reason: reason.to_owned(), by_platform: by_platform.to_owned() };
        let end = Self::new(Ended::Unregister, 4001, "kicked");
        Self { say: Some(frame::Body::Kicked(say)), ..end }
    }
}

/// What a shard is told.
pub(crate) enum Command {
    Connect(Upgraded),
    /// A sign-in ended: the session with the live rooms to enter again and its reply, or the refusal.
    SignedIn {
        at: ConnRef,
        session: Option<(Arc<Session>, Vec<GroupId>)>,
        reply: Bytes,
    },
    /// The reply to a request that counted against the connection's bound.
    Reply {
        at: ConnRef,
        reply: Bytes,
        send: bool,
    },
    /// A frame of the server's own for one connection.
    Tell {
        at: ConnRef,
        frame: Bytes,
    },
    Batch {
        batch: Arc<Prepared>,
        to: Targets,
        joins: Arc<[(usize, Vec<ConnRef>)]>,
    },
    /// Lists a connection under a conversation; `first` is written to it before anything of the conversation.
    Enter {
        at: ConnRef,
        conv: u64,
        first: Option<Bytes>,
    },
    Leave {
        at: ConnRef,
        conv: u64,
    },
    End {
        at: ConnRef,
        end: Box<End>,
    },
    /// Ends one of [`PARTS`] of the connections, the last one all: the node is leaving.
    Drain {
        part: u32,
    },
}

pub(crate) struct Shard {
    index: u16,
    hub: Arc<Hub>,
    inbox: mpsc::Receiver<Command>,
    ready: Arc<Ready>,
    woken: Vec<u32>,
    conns: Slab<Conn>,
    convs: HashMap<u64, Conversation>,
    /// Windows that will close, soonest first.
    windows: BTreeSet<(Duration, u64)>,
    buffer: Vec<u8>,
    dirty: VecDeque<u32>,
    /// Connections that have not signed in, in the order they came; and those being closed.
    fresh: VecDeque<(u32, u32, u64)>,
    closing: VecDeque<(u32, u32, u64)>,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    timer_at: Duration,
    /// The second the last tick was for.
    ticked_s: u32,
    writes: usize,
}

impl Shard {
    pub(crate) fn new(index: u16, hub: Arc<Hub>, inbox: mpsc::Receiver<Command>) -> Self {
        let config = &hub.config;
        let bytes = config.queue_bytes.bytes();
        let limits = Limits { frames: config.queue_frames as usize, bytes, hard_bytes: bytes.saturating_mul(16) };
        let now = hub.clock.mono();
        Self {
            index,
            inbox,
            ready: Arc::default(),
            woken: Vec::new(),
            conns: Slab::new(),
            convs: HashMap::new(),
            windows: BTreeSet::new(),
            buffer: vec![0; READ_BYTES],
            dirty: VecDeque::new(),
            fresh: VecDeque::new(),
            closing: VecDeque::new(),
            limits,
            timer: Box::pin(tokio::time::sleep(Duration::from_secs(1))),
            timer_at: now + Duration::from_secs(1),
            ticked_s: now.as_secs() as u32,
            writes: 0,
            hub,
        }
    }

    /// Runs until every sender of the inbox is gone.
    pub(crate) async fn run(mut self) {
        // One task polls thousands of sockets: tokio's budget of 128 operations a poll would stop it early each turn.
        tokio::task::unconstrained(poll_fn(move |cx| self.poll(cx))).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ready.task.register(cx.waker());
        self.writes = 0;
        loop {
            let mut idle = true;
            for _ in 0..COMMANDS_PER_TURN {
                match self.inbox.poll_recv(cx) {
                    Poll::Ready(Some(command)) => {
                        idle = false;
                        self.command(command);
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            let mut woken = std::mem::take(&mut self.woken);
            self.ready.take(&mut woken);
            idle &= woken.is_empty();
            for slot in woken.drain(..) {
                self.look(slot);
            }
            self.woken = woken;
            self.close_windows();
            self.tick();
            self.write_dirty();
            if self.poll_timer(cx) {
                idle = false;
            }
            if idle {
                return Poll::Pending;
            }
            if self.writes >= WRITES_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Sets the timer to the next window or second; true when it is due already.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.hub.clock.mono();
        let tick = Duration::from_secs(u64::from(self.ticked_s) + 1);
        let next = self.windows.first().map_or(tick, |(due, _)| (*due).min(tick));
        if next != self.timer_at {
            self.timer_at = next;
            let wait = next.saturating_sub(now);
            self.timer.as_mut().reset(tokio::time::Instant::now() + wait);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        // The timer is a millisecond coarse: ask again if it fired early.
        self.timer_at = Duration::ZERO;
        true
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect(upgraded) => self.connect(upgraded),
            Command::SignedIn { at, session, reply } => self.signed_in(at, session, reply),
            Command::Reply { at, reply, send } => self.reply(at, reply, send),
            Command::Tell { at, frame } => {
                if self.get(at).is_some_and(|conn| conn.session().is_some()) {
                    self.queue(at.slot, Outgoing::control(frame));
                }
            }
            Command::Batch { batch, to, joins } => self.batch(&batch, &to, &joins),
            Command::Enter { at, conv, first } => self.enter(at, conv, first),
            Command::Leave { at, conv } => {
                if self.get(at).is_some() {
                    self.unlist(at.slot, conv);
                }
            }
            Command::End { at, end } => {
                if self.get(at).is_some() {
                    self.end(at.slot, *end);
                }
            }
            Command::Drain { part } => {
                // The last part takes who came meanwhile too.
                let leaves = |slot: u32| slot % PARTS == part || part + 1 >= PARTS;
                let here = self.conns.iter().filter(|(_, conn)| !matches!(conn.stage, Stage::Closing));
                let slots: Vec<u32> = here.map(|(slot, _)| slot as u32).filter(|slot| leaves(*slot)).collect();
                for slot in slots {
                    let after_ms = self.hub.rng.below(COME_BACK_MS) as u32;
                    let say = Some(frame::Body::GoingAway(client::GoingAway { after_ms }));
                    self.end(slot, End { say, ..End::new(Ended::LinkClose, 1001, "going away") });
                }
            }
        }
    }

    fn get(&mut self, at: ConnRef) -> Option<&mut Conn> {
        self.conns.get_mut(at.slot as usize).filter(|conn| conn.number == at.number)
    }

    fn at(&self, slot: u32) -> ConnRef {
        ConnRef { shard: self.index, slot, number: self.conns[slot as usize].number }
    }

    fn connect(&mut self, upgraded: Upgraded) {
        let Upgraded { socket, number, wire, ip, leftover } = upgraded;
        let now = self.hub.clock.mono();
        let now_s = now.as_secs() as u32;
        let entry = self.conns.vacant_entry();
        let slot = entry.key() as u32;
        let flag = ConnWaker::new(slot, Arc::clone(&self.ready));
        let bucket = Bucket::new(self.hub.config.frames_burst, now);
        let mut conn = Conn::new(socket, number, wire, ip, Arc::clone(&flag), bucket, now_s);
        conn.partial = leftover.to_vec();
        entry.insert(conn);
        self.hub.meters.connections.inc();
        let deadline = now_s + self.hub.config.sign_in_deadline.get().as_secs() as u32;
        self.fresh.push_back((deadline, slot, number));
        self.partial(slot);
        flag.again();
    }

    fn signed_in(&mut self, at: ConnRef, session: Option<(Arc<Session>, Vec<GroupId>)>, reply: Bytes) {
        let hub = Arc::clone(&self.hub);
        let waiting = self.get(at).and_then(|conn| match conn.stage {
            Stage::SigningIn(attempts) => Some((conn, attempts)),
            Stage::Fresh(_) | Stage::In(_) | Stage::Closing => None,
        });
        let Some((conn, attempts)) = waiting else {
            if let Some((session, _)) = session {
                hub.closed(session, Ended::LinkClose);
            }
            return;
        };
        match session {
            Some((session, rooms)) => {
                conn.stage = Stage::In(Arc::clone(&session));
                hub.seat(at, &session);
                hub.seated(at, session, rooms);
            }
            None => conn.stage = Stage::Fresh(attempts + 1),
        }
        self.queue(at.slot, Outgoing::control(reply));
        self.partial(at.slot);
    }

    fn reply(&mut self, at: ConnRef, reply: Bytes, send: bool) {
        let Some(conn) = self.get(at) else { return };
        if send {
            conn.sends = conn.sends.saturating_sub(1);
        } else {
            conn.requests = conn.requests.saturating_sub(1);
        }
        if conn.closing() {
            return;
        }
        self.queue(at.slot, Outgoing::control(reply));
        self.partial(at.slot);
    }

    /// Adds a frame to what is written at the end of the turn.
    fn queue(&mut self, slot: u32, frame: Outgoing) {
        let now_s = self.ticked_s;
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let added = conn.queue(frame, self.limits, &self.hub.ledger);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push_back(slot);
        }
        match added {
            Added::Fits => {}
            Added::Squeezed => {
                conn.squeezed_s.get_or_insert(now_s);
            }
            Added::Overflow => self.drop_conn(slot, Ended::TimeOut, "overflow"),
        }
    }

    /// Writes what was queued, up to the end of the turn; the rest stays for the next.
    fn write_dirty(&mut self) {
        while self.writes < WRITES_PER_TURN
            && let Some(slot) = self.dirty.pop_front()
        {
            if let Some(conn) = self.conns.get_mut(slot as usize)
                && conn.dirty
            {
                conn.dirty = false;
                self.write(slot);
            }
        }
    }

    fn write(&mut self, slot: u32) {
        self.writes += 1;
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.write(self.limits, &self.hub.ledger, advanced) == Wrote::Failed {
            self.drop_conn(slot, Ended::LinkClose, "reset");
        }
    }

    /// Says goodbye: the session ends now, the socket when the close frame is through or after two seconds.
    fn end(&mut self, slot: u32, end: End) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.closing() {
            return;
        }
        let (wire, number) = (conn.wire, conn.number);
        self.detach(slot, end.ended);
        self.hub.count_closed(end.reason);
        if let Some(body) = end.say {
            self.queue(slot, Outgoing::control(wire.encode(&client::Frame { id: 0, body: Some(body) })));
        }
        self.queue(slot, Outgoing::control(ws::close(end.code, end.reason)));
        self.closing.push_back((self.ticked_s + CLOSE_S, slot, number));
    }

    /// Forgets a connection at once.
    fn drop_conn(&mut self, slot: u32, ended: Ended, cause: &'static str) {
        let Some(conn) = self.conns.get(slot as usize) else { return };
        if !conn.closing() {
            self.detach(slot, ended);
            self.hub.count_closed(cause);
        }
        let mut conn = self.conns.remove(slot as usize);
        conn.abandon(&self.hub.ledger);
        conn.shutdown();
        self.hub.gone();
    }

    /// Takes a connection out of every list; nothing more is delivered to it.
    fn detach(&mut self, slot: u32, ended: Ended) {
        let at = self.at(slot);
        let conn = &mut self.conns[slot as usize];
        conn.partial = Vec::new();
        conn.fragments = None;
        let stage = std::mem::replace(&mut conn.stage, Stage::Closing);
        self.hub.meters.listed.dec_by(conn.convs.len() as i64);
        for conv in std::mem::take(&mut conn.convs) {
            if let Some(listed) = self.convs.get_mut(&conv) {
                listed.remove(slot);
            }
        }
        if let Stage::In(session) = stage {
            self.hub.unseat(at, &session);
            self.hub.closed(session, ended);
        }
    }

    /// Once a second: pings, and everything with a deadline.
    fn tick(&mut self) {
        let now_s = self.hub.clock.mono().as_secs() as u32;
        while self.ticked_s < now_s {
            self.ticked_s += 1;
            self.ping();
            self.expire();
        }
    }

    fn ping(&mut self) {
        let period = (self.hub.config.ping.get().as_secs() as u32).max(1);
        let turn = self.ticked_s % period;
        let ping = ws::frame(Op::Ping, b"");
        let highest = self.conns.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
        for slot in (turn..highest).step_by(period as usize) {
            let Some(conn) = self.conns.get(slot as usize) else { continue };
            if self.ticked_s.saturating_sub(conn.heard_s) > 2 * period {
                self.drop_conn(slot, Ended::TimeOut, "silent");
            } else if conn.waiting() == 0 && !conn.closing() {
                self.queue(slot, Outgoing::control(ping.clone()));
            }
        }
    }

    fn expire(&mut self) {
        while let Some(&(deadline, slot, number)) = self.fresh.front()
            && deadline <= self.ticked_s
        {
            self.fresh.pop_front();
            let at = ConnRef { shard: self.index, slot, number };
            if self.get(at).is_some_and(|conn| matches!(conn.stage, Stage::Fresh(_) | Stage::SigningIn(_))) {
                self.end(slot, End::new(Ended::TimeOut, 1008, "sign in first"));
            }
        }
        while let Some(&(deadline, slot, number)) = self.closing.front()
            && deadline <= self.ticked_s
        {
            self.closing.pop_front();
            if self.get(ConnRef { shard: self.index, slot, number }).is_some() {
                self.drop_conn(slot, Ended::LinkClose, "closed");
            }
        }
        let patience = self.hub.config.overflow_deadline.get().as_secs() as u32;
        let stuck = |conn: &Conn| conn.squeezed_s.is_some_and(|since| self.ticked_s - since >= patience);
        let stuck: Vec<u32> = self.conns.iter().filter(|(_, conn)| stuck(conn)).map(|(slot, _)| slot as u32).collect();
        for slot in stuck {
            self.end(slot, End::new(Ended::TimeOut, 1008, "overflow"));
        }
        let now = self.hub.clock.mono();
        self.convs.retain(|_, conv| !conv.is_idle(now));
    }
}

/// What a connection is told of conversations whose frames were left out.
fn advanced(wire: Wire, collapsed: BTreeMap<Arc<str>, u64>) -> Bytes {
    let item = |(name, head): (Arc<str>, u64)| client::Item {
        conv: name.as_ref().to_owned(),
        what: Some(item::What::Advanced(client::Advanced { head })),
    };
    let push = client::Push { items: collapsed.into_iter().map(item).collect() };
    wire.encode(&client::Frame { id: 0, body: Some(frame::Body::Push(push)) })
}
