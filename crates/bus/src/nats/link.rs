//! One connection to the bus, from sign-in to its end. It is never mended: a new one takes its place, so whatever was
//! received before and after is told apart exactly, and nothing old is sent late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event as Signal, ServerAddr, ServerError, Statistics, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use crate::config::Config;
use crate::{Error, Result};

/// Messages that may wait towards the server; their bytes are bounded by the configuration.
const WAITING: usize = 4096;
/// Messages of one subscription between the connection and its queue, while its task has no turn.
const UNREAD: usize = 16_384;
/// Flushes that may wait for their turn.
const FLUSHES: usize = 1024;
/// A broken connection's client tries once more by itself; by then everybody has let go of it, and it ends.
const ABANDONED: Duration = Duration::from_secs(1);

/// A connection that was signed in.
pub(crate) struct Link {
    client: Client,
    statistics: Arc<Statistics>,
    /// Bytes handed to the client, counted as it counts those it has written.
    offered: AtomicU64,
    /// The last message found no room in time: until one does, none waits.
    congested: AtomicBool,
    lost: CancellationToken,
    /// Rises when the client says that it dropped incoming messages.
    overruns: watch::Receiver<u64>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
}

/// The receiving half of [`Link`]'s flushes.
pub(crate) struct Echo {
    link: Arc<Link>,
    subject: String,
    source: Subscriber,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Link {
    /// Connects and signs in to one server. `echo` is a subject that nobody else uses.
    pub(crate) async fn open(
        server: ServerAddr,
        name: &str,
        echo: String,
        config: &Config,
        counts: &Counts,
    ) -> Result<(Arc<Self>, Echo)> {
        let lost = CancellationToken::new();
        let (overrun, overruns) = watch::channel(0);
        let options = options(config).await?.name(name);
        let client = watched(options, &lost, overrun, counts.clone())
            .connection_timeout(config.connect_timeout.get())
            .ping_interval(config.ping_interval.get())
            .client_capacity(WAITING)
            .subscription_capacity(UNREAD)
            .ignore_discovered_servers()
            .connect(server)
            .await
            .map_err(|why| Error::Disconnected(full(&why)))?;
        let source = client.subscribe(echo.clone()).await.map_err(|why| Error::Disconnected(full(&why)))?;
        let (sender, flushes) = mpsc::channel(FLUSHES);
        let link = Arc::new(Self {
            statistics: client.statistics(),
            client,
            offered: AtomicU64::new(0),
            congested: AtomicBool::new(false),
            lost,
            overruns,
            flushes: sender,
        });
        Ok((Arc::clone(&link), Echo { link, subject: echo, source, flushes }))
    }

    /// Cancelled once the connection is broken.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(crate) fn overruns(&self) -> watch::Receiver<u64> {
        self.overruns.clone()
    }

    /// Largest payload the server takes.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Other servers of the cluster, as this one names them.
    pub(crate) fn discovered(&self) -> Vec<ServerAddr> {
        self.client.server_info().connect_urls.iter().filter_map(|url| url.parse().ok()).collect()
    }

    pub(crate) fn server(&self) -> String {
        self.client.server_info().server_name
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber> {
        let subscribed = tokio::select! {
            biased;
            () = self.lost.cancelled() => return Err(broken()),
            subscribed = self.client.subscribe(subject) => subscribed,
        };
        subscribed.map_err(|why| Error::Disconnected(full(&why)))
    }

    /// Hands a message to the connection. Waits a little for room, but not again while there is none.
    pub(crate) async fn publish(&self, subject: String, payload: Bytes, config: &Config) -> Result<()> {
        let bytes = (subject.len() + payload.len()) as u64;
        let written = self.statistics.out_bytes.load(Ordering::Relaxed);
        if self.offered.load(Ordering::Relaxed).saturating_sub(written) + bytes > config.pending.0 {
            return Err(Error::Disconnected("too much waits towards the server".to_owned()));
        }
        let mut handed = std::pin::pin!(self.client.publish(subject, payload));
        let outcome = match handed.as_mut().now_or_never() {
            Some(outcome) => Some(outcome),
            None if self.congested.load(Ordering::Relaxed) => None,
            None => tokio::select! {
                biased;
                outcome = handed => Some(outcome),
                () = self.lost.cancelled() => None,
                () = tokio::time::sleep(config.publish_wait.get()) => None,
            },
        };
        self.congested.store(outcome.is_none(), Ordering::Relaxed);
        match outcome {
            Some(Ok(())) => {
                self.offered.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Some(Err(why)) => Err(Error::Disconnected(full(&why))),
            None if self.lost.is_cancelled() => Err(broken()),
            None => Err(Error::Disconnected("the server takes nothing more".to_owned())),
        }
    }

    /// Returns once the server has answered to everything handed over before.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (done, waiting) = oneshot::channel();
        let asked = async {
            self.flushes.send(done).await.map_err(|_| broken())?;
            waiting.await.map_err(|_| Error::Disconnected("the server did not answer a flush".to_owned()))
        };
        tokio::select! {
            biased;
            answered = asked => answered,
            () = self.lost.cancelled() => Err(broken()),
        }
    }
}

impl Echo {
    /// Answers flushes: a message to ourselves comes back after everything before it was taken by the server. Flushes that
    /// come meanwhile share the next one.
    pub(crate) async fn run(mut self, config: Config) {
        let mut waiting = Vec::new();
        for n in 0_u64.. {
            let lost = self.link.lost.clone();
            let asked = tokio::select! {
                biased;
                () = lost.cancelled() => return,
                asked = self.flushes.recv_many(&mut waiting, FLUSHES) => asked,
            };
            if asked == 0 {
                return;
            }
            let payload = Bytes::copy_from_slice(&n.to_be_bytes());
            let round = async {
                self.link.publish(self.subject.clone(), payload.clone(), &config).await.ok()?;
                while self.source.next().await?.payload != payload {}
                Some(())
            };
            let came_back = tokio::select! {
                biased;
                () = lost.cancelled() => return,
                round = tokio::time::timeout(config.flush_timeout.get(), round) => round == Ok(Some(())),
            };
            for flush in waiting.drain(..).filter(|_| came_back) {
                // Whoever asked may have stopped waiting.
                let _ = flush.send(());
            }
        }
    }
}

pub(crate) fn broken() -> Error {
    Error::Disconnected("the connection broke".to_owned())
}

/// An error with its causes, which the client keeps apart.
fn full(why: &dyn std::error::Error) -> String {
    let mut text = why.to_string();
    let mut cause = why.source();
    while let Some(why) = cause {
        let more = why.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = why.source();
    }
    text
}

/// Credentials and TLS, from files as they are now.
async fn options(config: &Config) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new();
    if !config.user.is_empty() {
        options = options.user_and_password(config.user.clone(), config.password.expose().to_owned());
    }
    if !config.token.is_empty() {
        options = options.token(config.token.expose().to_owned());
    }
    if !config.nkey.is_empty() {
        options = options.nkey(config.nkey.expose().trim().to_owned());
    }
    if !config.creds.is_empty() {
        let loaded = options.credentials_file(&config.creds).await;
        options = loaded.map_err(|why| Error::Disconnected(format!("{}: {why}", config.creds)))?;
    }
    if !config.tls_ca.is_empty() {
        options = options.add_root_certificates(config.tls_ca.clone().into()).require_tls(true);
    }
    if !config.tls_cert.is_empty() {
        options = options.add_client_certificate(config.tls_cert.clone().into(), config.tls_key.clone().into());
    }
    Ok(options)
}

/// Makes the client tell when its connection breaks, and keeps it from mending it: its second try is never made in time.
fn watched(
    options: ConnectOptions,
    lost: &CancellationToken,
    overrun: watch::Sender<u64>,
    counts: Counts,
) -> ConnectOptions {
    let (tried, lost) = (AtomicBool::new(false), lost.clone());
    let overrun = Arc::new(overrun);
    options
        .max_reconnects(1)
        // The one place that is called, and at once, whenever a connection is to be made: events may be dropped.
        .reconnect_delay_callback(move |_| {
            if !tried.swap(true, Ordering::Relaxed) {
                return Duration::ZERO;
            }
            lost.cancel();
            ABANDONED
        })
        .event_callback(move |signal| {
            let (overrun, counts) = (Arc::clone(&overrun), counts.clone());
            async move {
                match signal {
                    Signal::SlowConsumer(_) | Signal::ServerError(ServerError::SlowConsumer(_)) => {
                        counts.slow.inc();
                        overrun.send_modify(|times| *times += 1);
                    }
                    Signal::ServerError(why) => {
                        let text = why.to_string();
                        if text.to_lowercase().contains("slow consumer") {
                            counts.slow.inc();
                        }
                        let nth = counts.server_errors.inc() + 1;
                        // A subject that is not permitted is refused with every message.
                        if nth.is_power_of_two() {
                            tracing::error!(why = text, nth, "the bus refused something");
                        }
                    }
                    Signal::LameDuckMode => tracing::info!("this server of the bus is about to stop"),
                    Signal::Connected
                    | Signal::Disconnected
                    | Signal::Draining
                    | Signal::Closed
                    | Signal::ClientError(_) => {}
                }
            }
        })
}
