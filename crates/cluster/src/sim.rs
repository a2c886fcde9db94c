//! Faults of a simulated network between the nodes of one process.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyStream, StreamBody};
use linnet_runtime::Rng;
use linnet_types::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

/// How often calls fail, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetFaults {
    /// The request never arrives; the caller is told at once.
    pub lose_request_percent: u32,
    /// The call is carried out and the reply is lost: the outcome is unknown to the caller.
    pub lose_reply_percent: u32,
    /// The request waits up to `max_delay`.
    pub delay_percent: u32,
    /// Longest delay.
    pub max_delay: Duration,
}

/// How often each fault struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Calls that entered the network.
    pub calls: u64,
    /// Requests lost.
    pub requests_lost: u64,
    /// Replies lost.
    pub replies_lost: u64,
    /// Requests delayed.
    pub delayed: u64,
    /// Calls and streams broken by the death of a node.
    pub broken: u64,
    /// Calls that had to wait for a pause or a cut.
    pub blocked: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Nodes paused.
    pub pauses: u64,
    /// Links cut.
    pub cuts: u64,
}

/// Controls a simulated network. Clones share it.
///
/// A killed node answers nothing and everything in flight with it breaks, streams included; its tasks must be ended
/// through their owner. What a paused node sends or receives waits, as with SIGSTOP: its own tasks still run, so pause
/// whatever else they touch too. A cut link holds what crosses it until it heals.
#[derive(Clone, Debug)]
pub struct Sim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    killed: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    faults: NetFaults,
    counts: NetCounts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    Blocked,
    Dead,
}

impl Sim {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { inner: Arc::new(Inner { rng, state: Mutex::default(), changed: watch::channel(0).0 }) }
    }

    /// Breaks everything to and from `node`, for ever: a node that starts again has a new id.
    pub fn kill(&self, node: &NodeId) {
        self.change(|state| {
            state.counts.kills += 1;
            state.killed.insert(node.clone());
        });
    }

    /// Holds everything to and from `node`.
    pub fn pause(&self, node: &NodeId) {
        self.change(|state| {
            state.counts.pauses += 1;
            state.paused.insert(node.clone());
        });
    }

    /// Lets what was held go on.
    pub fn resume(&self, node: &NodeId) {
        self.change(|state| {
            state.paused.remove(node);
        });
    }

    /// Holds everything between two nodes.
    pub fn cut(&self, one: &NodeId, other: &NodeId) {
        self.change(|state| {
            state.counts.cuts += 1;
            state.cut.insert(ordered(one, other));
        });
    }

    /// Mends the link between two nodes.
    pub fn mend(&self, one: &NodeId, other: &NodeId) {
        self.change(|state| {
            state.cut.remove(&ordered(one, other));
        });
    }

    /// Changes how calls fail from now on.
    pub fn set(&self, faults: NetFaults) {
        self.change(|state| state.faults = faults);
    }

    /// No more faults, pauses and cuts; the killed stay dead.
    pub fn heal(&self) {
        self.change(|state| {
            state.faults = NetFaults::default();
            state.paused.clear();
            state.cut.clear();
        });
    }

    /// What struck so far.
    #[must_use]
    pub fn counts(&self) -> NetCounts {
        self.inner.state.lock().counts
    }

    pub(crate) fn link(&self, from: NodeId, to: NodeId) -> Link {
        Link { sim: self.clone(), from, to }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.inner.state.lock());
        self.inner.changed.send_modify(|version| *version += 1);
    }

    fn count(&self, count: impl FnOnce(&mut NetCounts)) {
        count(&mut self.inner.state.lock().counts);
    }
}

fn ordered(one: &NodeId, other: &NodeId) -> (NodeId, NodeId) {
    if one <= other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) }
}

/// The way between two nodes.
#[derive(Clone)]
pub(crate) struct Link {
    sim: Sim,
    from: NodeId,
    to: NodeId,
}

impl Link {
    /// Carries a call across, with whatever befalls it.
    pub(crate) async fn carry<F, R>(&self, request: Request<Body>, serve: F) -> Result<Response<Body>, Status>
    where
        F: FnOnce(Request<Body>) -> R,
        R: Future<Output = Result<Response<Body>, Status>>,
    {
        self.sim.count(|counts| counts.calls += 1);
        let faults = self.sim.inner.state.lock().faults;
        let rng = &self.sim.inner.rng;
        self.pass().await?;
        if rng.chance(faults.delay_percent) {
            self.sim.count(|counts| counts.delayed += 1);
            let micros = u64::try_from(faults.max_delay.as_micros()).unwrap_or(u64::MAX);
            tokio::time::sleep(Duration::from_micros(rng.below(micros))).await;
        }
        if rng.chance(faults.lose_request_percent) {
            self.sim.count(|counts| counts.requests_lost += 1);
            return Err(Status::unavailable("simulated: the request was lost"));
        }
        let reply_lost = rng.chance(faults.lose_reply_percent);
        let (head, body) = request.into_parts();
        let served = serve(Request::from_parts(head, self.guard(body)));
        let reply = tokio::select! {
            biased;
            () = self.dead() => return Err(self.broken()),
            reply = served => reply,
        };
        if reply_lost {
            self.sim.count(|counts| counts.replies_lost += 1);
            return Err(Status::unavailable("simulated: the reply was lost"));
        }
        self.pass().await?;
        reply.map(|reply| reply.map(|body| self.guard(body)))
    }

    fn state(&self) -> LinkState {
        let state = self.sim.inner.state.lock();
        if state.killed.contains(&self.from) || state.killed.contains(&self.to) {
            return LinkState::Dead;
        }
        let blocked = state.paused.contains(&self.from)
            || state.paused.contains(&self.to)
            || state.cut.contains(&ordered(&self.from, &self.to));
        if blocked { LinkState::Blocked } else { LinkState::Open }
    }

    /// Waits while the link is blocked.
    async fn pass(&self) -> Result<(), Status> {
        let mut changed = self.sim.inner.changed.subscribe();
        let mut waited = false;
        loop {
            match self.state() {
                LinkState::Open => return Ok(()),
                LinkState::Dead => return Err(self.broken()),
                LinkState::Blocked => {
                    if !std::mem::replace(&mut waited, true) {
                        self.sim.count(|counts| counts.blocked += 1);
                    }
                    changed.changed().await.expect("the link holds the sender");
                }
            }
        }
    }

    /// Waits until one end is dead.
    async fn dead(&self) {
        let mut changed = self.sim.inner.changed.subscribe();
        while self.state() != LinkState::Dead {
            changed.changed().await.expect("the link holds the sender");
        }
    }

    fn broken(&self) -> Status {
        self.sim.count(|counts| counts.broken += 1);
        Status::unavailable("simulated: the node is dead")
    }

    /// A body whose frames cross the link one by one.
    fn guard(&self, body: Body) -> Body {
        let frames = futures::stream::unfold(Some((self.clone(), BodyStream::new(body))), |state| async {
            let (link, mut frames) = state?;
            let frame = tokio::select! {
                biased;
                () = link.dead() => return Some((Err(link.broken()), None)),
                frame = frames.next() => frame?,
            };
            match (frame, link.pass().await) {
                (Ok(frame), Ok(())) => Some((Ok(frame), Some((link, frames)))),
                (Err(status), _) | (_, Err(status)) => Some((Err(status), None)),
            }
        });
        Body::new(StreamBody::new(frames))
    }
}
