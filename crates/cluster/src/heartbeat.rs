//! Members by signs of life on the bus.
//!
//! ```text
//! every node --Beat, each second--> bus --> View of every node --> Snapshot with rings
//!   own beat does not come back, or no connection   -> nobody is judged; counts begin anew afterwards
//!   not heard for 8 s                               -> dead, to this watcher
//!   over half silent at once                        -> frozen for up to 30 s
//! ```

mod config;
mod counts;
mod run;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use linnet_bus::{Bus, Event, subject};
use linnet_proto::cluster::{Beat, Standing};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{NodeId, UnixMillis};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::config::HeartbeatConfig;
use self::counts::Counts;
use self::view::View;
use crate::members::{Members, Node, Script};

/// How long a node that starts waits to be told its last life.
const ASK_LIFE: Duration = Duration::from_millis(250);

/// What [`Heartbeats::start`] works with.
#[derive(Clone, Debug)]
pub struct HeartbeatDeps {
    /// Carries the beats.
    pub bus: Bus,
    /// Time.
    pub clock: Clock,
    /// Jitter.
    pub rng: Rng,
    /// Owner of the listening task.
    pub tasks: Tasks,
    /// Counts live nodes, ring versions, deaths.
    pub metrics: Metrics,
}

/// This node's place among the others. Clones share it.
///
/// A node begins as *starting*: known, and asked nothing. From [`Heartbeats::serve`] on it is *young*, and after ten seconds
/// *settled*: on the rings of its services. While no node of a service is settled, all young ones are on its ring, and stay.
/// A node that is back within 8 s keeps the place it had. [`Heartbeats::leave`] takes it off the rings; it stays reachable
/// until [`Heartbeats::stop`].
#[derive(Clone)]
pub struct Heartbeats {
    inner: Arc<Inner>,
}

struct Inner {
    id: NodeId,
    rules: HeartbeatConfig,
    bus: Bus,
    clock: Clock,
    rng: Rng,
    counts: Counts,
    script: Script,
    view: Mutex<View>,
    stage: Mutex<Stage>,
    /// The stage changed: say so at once.
    changed: Notify,
    /// When everybody had been heard for the first time.
    heard_all: watch::Sender<Option<Duration>>,
    superseded: watch::Sender<bool>,
    stopped: CancellationToken,
    probe: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What the process asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    /// Since then.
    Serving(Duration),
    Leaving,
    Gone,
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeats").field("node", &self.inner.id).finish_non_exhaustive()
    }
}

impl Heartbeats {
    /// Joins `cluster` as `me`, whose `incarnation` is higher with each start. `probe` is asked before each beat; while it says
    /// that this process makes no progress (an actor shard or the store client is stuck), none is sent, and after 8 s
    /// the others go on without this node.
    ///
    /// [`next_life`] finds the incarnation.
    ///
    /// Returns at once; see [`Heartbeats::ready`].
    pub fn start(
        rules: HeartbeatConfig,
        cluster: &str,
        me: Node,
        deps: HeartbeatDeps,
        probe: impl Fn() -> bool + Send + Sync + 'static,
    ) -> (Members, Self) {
        let HeartbeatDeps { bus, clock, rng, tasks, metrics } = deps;
        let (members, script) = Members::scripted([]);
        let inner = Arc::new(Inner {
            id: me.id.clone(),
            view: Mutex::new(View::new(rules.clone(), cluster, me)),
            rules,
            bus,
            clock,
            rng: rng.fork("heartbeat"),
            counts: Counts::new(&metrics),
            script,
            stage: Mutex::new(Stage::Starting),
            changed: Notify::new(),
            heard_all: watch::Sender::new(None),
            superseded: watch::Sender::new(false),
            stopped: CancellationToken::new(),
            probe: Box::new(probe),
        });
        inner.refresh();
        tasks.spawn("heartbeat", run::run(Arc::clone(&inner)));
        (members, Self { inner })
    }

    /// Returns once this node has listened to the others for a whole period, so that its rings are theirs. Waits for the bus.
    pub async fn ready(&self) {
        // The sender lives as long as we do.
        let _ = self.inner.heard_all.subscribe().wait_for(Option::is_some).await;
    }

    /// This process answers calls from now on. Its time as a young node begins, once it is [`Heartbeats::ready`] too.
    pub fn serve(&self) {
        let now = self.inner.clock.mono();
        self.inner.enter(|stage| if stage == Stage::Starting { Stage::Serving(now) } else { stage });
    }

    /// Takes this node off the rings, here at once, and returns when the others were told. It stays reachable.
    pub async fn leave(&self) {
        self.inner.enter(|stage| if stage == Stage::Gone { stage } else { Stage::Leaving });
        self.inner.tell().await;
    }

    /// [`Heartbeats::leave`], and waits for as long as a lost word takes to be said again.
    pub async fn drain(&self) {
        self.leave().await;
        tokio::time::sleep(self.inner.rules.period.get()).await;
    }

    /// Says that this node ends, so that nobody waits for its death, and falls silent. Its own view stays as it was.
    pub async fn stop(&self) {
        self.inner.enter(|_| Stage::Gone);
        self.inner.tell().await;
        self.inner.stopped.cancel();
    }

    /// Whether a newer process uses this node's id: one of the two has to go. Nothing is routed here meanwhile.
    #[must_use]
    pub fn superseded(&self) -> watch::Receiver<bool> {
        self.inner.superseded.subscribe()
    }
}

/// The incarnation for a node that starts at `now`: above every life of it that anybody on the bus remembers, also when its
/// clock was set back meanwhile. Takes a quarter of a second, for nobody need answer.
pub async fn next_life(bus: &Bus, cluster: &str, node: &NodeId, now: UnixMillis) -> u64 {
    let mut last = 0;
    let ask = Beat { cluster: cluster.to_owned(), node: node.to_string(), asks_life: true, ..Beat::default() };
    let asked = async {
        let mut beats = bus.subscribe(subject::members()).await?;
        // The subscription is at the server before the question is.
        bus.flush().await?;
        bus.publish(subject::members(), ask.encode_to_vec().into()).await?;
        while let Some(event) = beats.recv().await {
            let Event::Message { payload, .. } = event else { continue };
            let Ok(beat) = Beat::decode(payload) else { continue };
            let told = beat.lives.iter().filter(|life| beat.cluster == cluster && life.node == node.as_str());
            last = told.map(|life| life.incarnation).fold(last, u64::max);
        }
        Ok::<_, linnet_bus::Error>(())
    };
    // Answers come until the time is over.
    if let Ok(Err(why)) = tokio::time::timeout(ASK_LIFE, asked).await {
        tracing::debug!(%why, "nobody can be asked for the last life of this node");
    }
    now.0.max(last + 1)
}

impl Inner {
    fn enter(&self, next: impl FnOnce(Stage) -> Stage) {
        let mut stage = self.stage.lock();
        *stage = next(*stage);
        drop(stage);
        self.refresh();
        self.changed.notify_one();
    }

    /// The standing that follows from the stage, the time, and what others say.
    fn stand(&self, view: &mut View) {
        let now = self.clock.mono();
        let standing = match (*self.stage.lock(), *self.heard_all.borrow()) {
            (Stage::Serving(served), Some(heard)) => {
                let age = now.saturating_sub(served.max(heard));
                if age >= self.rules.settle.get() { Standing::Settled } else { Standing::Young }
            }
            // To serve on rings of its own making before it has heard anybody would be a guess.
            (Stage::Starting | Stage::Serving(_), _) => Standing::Starting,
            (Stage::Leaving, _) => Standing::Leaving,
            (Stage::Gone, _) => Standing::Gone,
        };
        view.stand(standing);
    }

    /// Shows what is known now; rings change only when it differs.
    fn refresh(&self) {
        let mut view = self.view.lock();
        self.stand(&mut view);
        if view.standing() == Standing::Gone {
            return;
        }
        let nodes = view.nodes(self.clock.mono());
        self.counts.live.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
        self.counts.frozen.set(i64::from(view.frozen()));
        let ahead_ms = view.ahead_ms();
        self.counts.clock_behind.set(ahead_ms);
        self.script.set_ahead_ms(ahead_ms);
        // Under the view's lock, so that a newer state is not overwritten by an older one.
        if let Some(version) = self.script.change_to(nodes) {
            self.counts.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        }
    }

    /// Says it three times, for one may be lost, and waits until that has left.
    async fn tell(&self) {
        for _ in 0..3 {
            self.beat(false).await;
            tokio::time::sleep(self.rules.period.get() / 20).await;
        }
        if let Err(why) = self.bus.flush().await {
            tracing::debug!(%why, "the others may not have been told");
        }
    }
}
