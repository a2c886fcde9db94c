//! The bus over NATS (core, no JetStream).

mod counts;
mod forward;
mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::ServerAddr;
use async_trait::async_trait;
use bytes::Bytes;
use linnet_runtime::{Metrics, Rng, Tasks};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::counts::Counts;
use self::forward::Forward;
use self::link::{Echo, Link};
use crate::config::Config;
use crate::queue::{Limits, Queue, Subscription};
use crate::subject::{self, Subject};
use crate::{Bus, Error, Port, Result};

/// Pause before the first try after a connection broke, so that the nodes of a dead server do not all come at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A connection to NATS that is made again for ever. Clones share it.
///
/// - Every subject is prefixed with the cluster's name, so clusters that share a server never meet.
/// - While there is no connection, publishing fails at once: nothing is kept to be sent late. While the server takes nothing,
///   what waits is bounded in messages and bytes, and the rest is dropped and counted.
/// - After each new connection every subscription stands again and is told of a hole **between** what it received before and
///   after; likewise when the server or the client found it too slow.
/// - [`Bus::flush`] is a round trip to the server this node is connected to. Other servers of a NATS cluster learn of a
///   subscription moments later; the numbering above the bus covers that.
///
/// What a server may limit each role to is listed by [`crate::Permissions`].
#[derive(Clone)]
pub struct Nats {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    /// Cluster name and separator.
    prefix: String,
    /// Shown by the server's monitoring.
    name: String,
    rng: Rng,
    tasks: Tasks,
    link: watch::Sender<Option<Arc<Link>>>,
    connected: watch::Sender<bool>,
    closed: CancellationToken,
    /// Why there is no connection.
    why: Mutex<String>,
    loss: AtomicU32,
    counts: Counts,
}

impl Nats {
    /// Connects `node` of `cluster` to the servers of `config`. Waits up to the connect timeout for the first connection, and
    /// returns without one as well: the tasks go on trying until [`Nats::close`] or the end of `tasks`.
    ///
    /// # Errors
    /// [`Error::Config`] when no server is named or an address is not one.
    pub async fn connect(
        config: Config,
        cluster: &str,
        node: &str,
        metrics: &Metrics,
        rng: &Rng,
        tasks: &Tasks,
    ) -> Result<Self> {
        let servers = config.urls.iter().map(|url| url.parse::<ServerAddr>());
        let mut servers: Vec<_> =
            servers.collect::<std::result::Result<_, _>>().map_err(|why| Error::Config(why.to_string()))?;
        if servers.is_empty() {
            return Err(Error::Config("no server is named".to_owned()));
        }
        rng.shuffle(&mut servers);
        let wait = config.connect_timeout.get();
        let inner = Arc::new(Inner {
            prefix: format!("{}.", subject::token(cluster)),
            name: format!("linnet {cluster} {node}"),
            rng: rng.fork("bus"),
            tasks: tasks.child("bus"),
            link: watch::Sender::new(None),
            connected: watch::Sender::new(false),
            closed: CancellationToken::new(),
            why: Mutex::new("connecting".to_owned()),
            loss: AtomicU32::new(0),
            counts: Counts::new(metrics),
            config,
        });
        let nats = Self { inner: Arc::clone(&inner) };
        let mut connected = nats.connected();
        tasks.spawn("bus", Arc::clone(&inner).keep_connected(servers));
        // Without a connection in time the node starts all the same, and shows that it is not ready.
        let _ = tokio::time::timeout(wait, connected.wait_for(|up| *up)).await;
        Ok(nats)
    }

    /// A handle to this bus.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(self.clone())
    }

    /// Whether there is a connection, for readiness, and for whoever concludes something from silence.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.subscribe()
    }

    /// Why there is no connection, for operators; `None` while there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        (!*self.inner.connected.borrow()).then(|| self.inner.why.lock().clone())
    }

    /// From now on loses `percent` of the messages this node publishes, and the same share of what each of its subscriptions
    /// would receive. Counted; for trying faults.
    pub fn set_loss(&self, percent: u32) {
        self.inner.loss.store(percent.min(100), Ordering::Relaxed);
    }

    /// What [`Nats::set_loss`] was last given.
    #[must_use]
    pub fn loss(&self) -> u32 {
        self.inner.loss.load(Ordering::Relaxed)
    }

    /// Whether operators may use [`Nats::set_loss`].
    #[must_use]
    pub fn faults_allowed(&self) -> bool {
        self.inner.config.faults
    }

    /// Sends what was published, ends every subscription and the connection, for good.
    pub async fn close(&self) {
        // Without a connection there is nothing to send.
        let _ = self.flush().await;
        self.inner.closed.cancel();
        self.inner.down("closed");
    }
}

#[async_trait]
impl Port for Nats {
    async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        let inner = &self.inner;
        let link = inner.link().inspect_err(|_| inner.counts.unsent("disconnected"))?;
        let (bytes, limit) = (payload.len(), link.max_payload());
        if bytes > limit {
            inner.counts.unsent("too_large");
            return Err(Error::TooLarge { bytes, limit });
        }
        inner.counts.published.inc();
        inner.counts.published_bytes.inc_by(bytes as u64);
        if inner.loses("out") {
            return Ok(());
        }
        let sent = link.publish(inner.spelled(&subject), payload, &inner.config).await;
        sent.inspect_err(|_| inner.counts.unsent("congested"))
    }

    async fn subscribe(&self, subject: Subject, limits: Limits) -> Result<Subscription> {
        let inner = &self.inner;
        if inner.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let queue = Queue::new(limits, inner.counts.dropped.clone());
        let forward = Forward::new(Arc::clone(inner), subject.clone(), Arc::clone(&queue));
        // On the connection before this returns, so that a flush covers it. Without one it stands when there is one again.
        let first = match inner.link() {
            Ok(link) => link.subscribe(inner.spelled(&subject)).await.ok().map(|source| (link, source)),
            Err(_) => None,
        };
        inner.tasks.spawn("bus-subscription", forward.run(first));
        // The task sees the queue end and unsubscribes.
        Ok(Subscription::new(queue, || ()))
    }

    async fn flush(&self) -> Result<()> {
        let link = self.inner.link()?;
        let limit = self.inner.config.flush_timeout.get();
        let late = || Error::Disconnected("the server did not answer a flush in time".to_owned());
        tokio::time::timeout(limit, link.flush()).await.map_err(|_| late())?
    }

    fn connected(&self) -> watch::Receiver<bool> {
        Nats::connected(self)
    }
}

impl Inner {
    fn spelled(&self, subject: &Subject) -> String {
        format!("{}{subject}", self.prefix)
    }

    fn link(&self) -> Result<Arc<Link>> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let link = self.link.borrow().clone();
        link.ok_or_else(|| Error::Disconnected(self.why.lock().clone()))
    }

    /// Draws whether a message is thrown away on an operator's order.
    fn loses(&self, direction: &'static str) -> bool {
        let percent = self.loss.load(Ordering::Relaxed);
        let lost = percent > 0 && self.rng.chance(percent);
        if lost {
            self.counts.lost(direction);
        }
        lost
    }

    fn up(&self, link: Arc<Link>) {
        tracing::info!(server = link.server(), "connected to the bus");
        self.counts.connects.inc();
        self.counts.connected.set(1);
        self.link.send_replace(Some(link));
        self.connected.send_replace(true);
    }

    fn down(&self, why: &str) {
        why.clone_into(&mut self.why.lock());
        self.counts.connected.set(0);
        self.link.send_replace(None);
        self.connected.send_replace(false);
    }

    async fn keep_connected(self: Arc<Self>, mut servers: Vec<ServerAddr>) {
        let (mut turn, mut failures) = (0, 0_u32);
        loop {
            if self.closed.is_cancelled() {
                return;
            }
            let server = servers[turn % servers.len()].clone();
            match self.open(server.clone()).await {
                Ok((link, echo)) => {
                    failures = 0;
                    self.discover(&link, &mut servers);
                    self.serve(link, echo).await;
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    // Once for each round, else an hour without servers fills the log.
                    if failures.is_power_of_two() {
                        tracing::warn!(server = server.host(), port = server.port(), %why, failures, "no connection to the bus");
                    }
                    *self.why.lock() = why.to_string();
                    turn += 1;
                }
            }
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep(self.pause(failures, servers.len())) => {}
            }
        }
    }

    async fn open(&self, server: ServerAddr) -> Result<(Arc<Link>, Echo)> {
        let echo = format!("{}{}", self.prefix, subject::echo(&self.rng.token(12)));
        Link::open(server, &self.name, echo, &self.config, &self.counts).await
    }

    /// Until the connection breaks.
    async fn serve(&self, link: Arc<Link>, echo: Echo) {
        let lost = link.lost().clone();
        self.tasks.spawn("bus-flush", echo.run(self.config.clone()));
        self.up(link);
        tokio::select! {
            () = lost.cancelled() => tracing::warn!("the connection to the bus broke"),
            // Whoever answers flushes holds the connection: it ends here for them too.
            () = self.closed.cancelled() => lost.cancel(),
        }
        self.down("the connection broke");
    }

    fn discover(&self, link: &Link, servers: &mut Vec<ServerAddr>) {
        if !self.config.ignore_discovered {
            let new = link.discovered().into_iter().filter(|server| !servers.contains(server));
            servers.extend(new.collect::<Vec<_>>());
        }
    }

    /// Short while there are servers that were not tried yet, then doubling up to the configured longest.
    fn pause(&self, failures: u32, servers: usize) -> Duration {
        let rounds = failures / u32::try_from(servers).unwrap_or(u32::MAX).max(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << rounds.min(16));
        self.rng.jitter(pause.min(self.config.reconnect_pause.get()))
    }
}
