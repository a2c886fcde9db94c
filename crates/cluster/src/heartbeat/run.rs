//! The task that listens and speaks.

use std::sync::Arc;
use std::time::Duration;

use linnet_bus::{Event, Subscription, subject};
use linnet_proto::cluster::Beat;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Inner;
use super::view::Heard;

/// Everybody answers a newcomer within this, not all at once.
const ANSWER: Duration = Duration::from_millis(200);
/// The silent are looked for this often in a period.
const LOOKS: u32 = 4;
/// Pause before subscribing is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// A conflict is logged this often.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Beats of a replaced process that may be late; more are a second process.
const LATE: u32 = 2;

pub(super) async fn run(inner: Arc<Inner>) {
    let stopped = inner.stopped.clone();
    stopped.run_until_cancelled(listen(inner)).await;
}

async fn listen(inner: Arc<Inner>) {
    let source = loop {
        match inner.bus.subscribe(subject::members()).await {
            Ok(source) => break source,
            Err(linnet_bus::Error::Closed) => return,
            Err(why) => tracing::debug!(%why, "no beats can be heard"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let mut ticks = tokio::time::interval(inner.rules.period.get() / LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let connected = inner.bus.connected();
    let last_tick = inner.clock.mono();
    let mut listener = Listener {
        inner,
        source,
        ticks,
        connected,
        last_tick,
        looks: 0,
        answer_at: None,
        ready_at: None,
        complained: None,
        replaced_heard: 0,
    };
    listener.link().await;
    while listener.next().await.is_some() {
        listener.inner.refresh();
    }
}

struct Listener {
    inner: Arc<Inner>,
    source: Subscription,
    ticks: Interval,
    connected: watch::Receiver<bool>,
    last_tick: Duration,
    looks: u32,
    /// Somebody asked who is there.
    answer_at: Option<Instant>,
    /// When everybody was heard for the first time.
    ready_at: Option<Instant>,
    complained: Option<Instant>,
    /// Beats of replaced processes since the last complaint.
    replaced_heard: u32,
}

impl Listener {
    /// Takes one event; `None` once the bus is closed.
    async fn next(&mut self) -> Option<()> {
        let (answer_at, ready_at) = (self.answer_at, self.ready_at);
        tokio::select! {
            biased;
            Ok(()) = self.connected.changed() => self.link().await,
            event = self.source.recv() => self.take(event?).await,
            () = self.inner.changed.notified() => self.inner.beat(false).await,
            () = until(answer_at) => {
                self.answer_at = None;
                self.inner.beat(false).await;
            }
            () = until(ready_at) => {
                self.ready_at = None;
                self.inner.heard_all.send_replace(Some(self.inner.clock.mono()));
                self.inner.refresh();
                self.inner.beat(false).await;
            }
            _ = self.ticks.tick() => self.tick().await,
        }
        Some(())
    }

    /// The connection came or went.
    async fn link(&mut self) {
        let up = *self.connected.borrow_and_update();
        self.inner.view.lock().link(up);
        self.ready_at = None;
        if up {
            self.greet().await;
        }
    }

    /// Asks everybody to be heard soon.
    async fn greet(&mut self) {
        // When it fails the others' regular beats do.
        let _ = self.inner.bus.flush().await;
        self.inner.beat(true).await;
        if self.inner.heard_all.borrow().is_none() {
            self.ready_at = Some(Instant::now() + self.inner.rules.period.get() + ANSWER);
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Message { payload, .. } => match Beat::decode(payload) {
                Ok(beat) => self.hear(beat),
                Err(why) => tracing::debug!(%why, "not a beat"),
            },
            Event::Lagged { .. } => {
                self.inner.view.lock().missed(self.inner.clock.mono());
                self.greet().await;
            }
        }
    }

    fn hear(&mut self, beat: Beat) {
        let counts = &self.inner.counts;
        let (node, incarnation) = (beat.node.clone(), beat.incarnation);
        let heard = self.inner.view.lock().heard(self.inner.clock.mono(), self.inner.clock.now(), beat);
        match heard {
            Heard::Echo => {}
            // At once: it waits a moment only.
            Heard::Asks { answer: true } => self.inner.changed.notify_one(),
            Heard::Asks { answer: false } => {}
            Heard::Foreign => {
                counts.foreign.inc();
            }
            Heard::Alive { answer } => {
                counts.heard.inc();
                if answer && self.answer_at.is_none() {
                    self.answer_at = Some(Instant::now() + self.inner.rng.jitter(ANSWER));
                }
            }
            Heard::Replaced => {
                self.replaced_heard += 1;
                if self.replaced_heard > LATE {
                    self.complain(&node, incarnation);
                }
            }
            Heard::Superseded => {
                self.inner.superseded.send_if_modified(|superseded| !std::mem::replace(superseded, true));
                self.complain(&node, incarnation);
            }
        }
    }

    fn complain(&mut self, node: &str, incarnation: u64) {
        self.inner.counts.conflicts.inc();
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            self.replaced_heard = LATE;
            tracing::error!(
                node,
                incarnation,
                "two live processes have this node id: stop one, or give it an id of its own"
            );
        }
    }

    async fn tick(&mut self) {
        let now = self.inner.clock.mono();
        let slept = now.saturating_sub(std::mem::replace(&mut self.last_tick, now));
        let dead = {
            let mut view = self.inner.view.lock();
            if slept > self.inner.rules.period.get() * 3 {
                // The process was stopped, or had no turn: it did not listen.
                view.missed(now);
            }
            view.tick(now)
        };
        for node in &dead {
            tracing::warn!(%node, "not heard for too long: taken for dead");
            self.inner.counts.dead.inc();
        }
        let still = self.inner.view.lock().is_superseded();
        self.inner.superseded.send_if_modified(|superseded| std::mem::replace(superseded, still) != still);
        if self.looks.is_multiple_of(LOOKS) {
            self.inner.refresh();
            self.inner.beat(false).await;
        }
        self.looks = self.looks.wrapping_add(1);
    }
}

impl Inner {
    /// Sends a sign of life, unless this process makes no progress.
    pub(super) async fn beat(&self, hello: bool) {
        if !(self.probe)() {
            self.counts.skipped.inc();
            tracing::warn!("this process makes no progress: no sign of life is sent");
            return;
        }
        let beat = self.view.lock().beat(self.clock.mono(), self.clock.now(), hello);
        if self.bus.publish(subject::members(), beat.encode_to_vec().into()).await.is_ok() {
            self.view.lock().sent();
            self.counts.sent.inc();
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
