//! One Redis server: the connection, whether it is away, its clock, and whether it forgot.

use std::sync::Arc;
use std::time::Duration;

use linnet_runtime::{Clock, Rng, Tasks};
use linnet_types::UnixMillis;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};
use tokio::sync::{Notify, Semaphore, watch};

use super::Meters;
use super::script::{self, Keys};
use crate::directory::{Error, Result};

/// A server that answers is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// One that is away is tried this often.
const TRY: Duration = Duration::from_millis(250);

/// Errors of a server that serves nobody, or not us: another connection may reach one that does.
const NOT_SERVING: [&str; 5] = ["LOADING", "MASTERDOWN", "READONLY", "NOAUTH", "CLUSTERDOWN"];

/// Why commands were not run.
struct Failed {
    why: String,
    /// The server refused them; the connection is well.
    refused: bool,
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.why
    }
}

/// How long this node waits for others to do what brings records up to date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// After a loss, a user without a record is "unknown" this long: gateways say again whom they have.
    pub(super) settle: Duration,
    /// After a start, a loss or a while away, no session is ended for its silence before gateways had this long to break it.
    pub(super) silence: Duration,
    /// Away longer than this, records may have died of old age.
    pub(super) long: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { settle: Duration::from_secs(5), silence: Duration::from_secs(45), long: Duration::from_secs(20) }
    }
}

/// What a link is made with.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) timeout: Duration,
    pub(super) in_flight: usize,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) meters: Meters,
    pub(super) patience: Patience,
    pub(super) losses: watch::Sender<String>,
}

pub(super) struct Link {
    parts: Parts,
    permits: Semaphore,
    state: Mutex<State>,
    poke: Notify,
}

struct State {
    conn: Option<MultiplexedConnection>,
    /// Which connection that is: an error of an earlier one says nothing about it.
    number: u64,
    why: String,
    /// Monotonic time since when it is away.
    away: Option<Duration>,
    /// The server's clock, and ours at that moment.
    time: (u64, Duration),
    /// Names the present contents; another name means that records may be missing.
    life: Option<Vec<u8>>,
    unsettled_until: Duration,
    silent_until: Duration,
}

impl Link {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let now = parts.clock.mono();
        let state = State {
            conn: None,
            number: 0,
            why: "not connected yet".to_owned(),
            away: Some(now),
            time: (0, now),
            life: None,
            unsettled_until: Duration::ZERO,
            silent_until: now + parts.patience.silence,
        };
        let permits = Semaphore::new(parts.in_flight);
        Arc::new(Self { parts, permits, state: Mutex::new(state), poke: Notify::new() })
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    /// The server's time. Nodes compare their stamps, so all of them go by one clock.
    pub(super) fn now(&self) -> UnixMillis {
        let (server, read) = self.state.lock().time;
        let since = self.parts.clock.mono().saturating_sub(read);
        UnixMillis(server.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether a user without a record may be signed in all the same.
    pub(super) fn is_unsettled(&self) -> bool {
        self.parts.clock.mono() < self.state.lock().unsettled_until
    }

    pub(super) fn was_reached(&self) -> bool {
        self.state.lock().number > 0
    }

    /// Whether gateways had the time to refresh what they have.
    pub(super) fn may_expire(&self) -> bool {
        let state = self.state.lock();
        state.conn.is_some() && self.parts.clock.mono() >= state.silent_until
    }

    /// The name of the present contents, read with every record, is not the one we know: look at once.
    pub(super) fn check_life(&self, found: Option<&[u8]>) -> Result<()> {
        if self.state.lock().life.as_deref() == found && found.is_some() {
            return Ok(());
        }
        self.poke.notify_one();
        Err(Error::Away(format!("{} lost its records", self.parts.name)))
    }

    /// Runs commands in one round trip; one reply each.
    pub(super) async fn run(&self, pipeline: &Pipeline, count: usize) -> Result<Vec<Value>> {
        let (mut conn, number) = {
            let state = self.state.lock();
            let Some(conn) = state.conn.clone() else {
                return Err(Error::Away(format!("{}: {}", self.parts.name, state.why)));
            };
            (conn, state.number)
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(Error::Away(format!("{}: too many calls wait for it", self.parts.name)));
        };
        match self.exchange(&mut conn, pipeline, count).await {
            Ok(replies) => Ok(replies),
            Err(Failed { why, refused }) => {
                if !refused {
                    self.broken(number, &why);
                }
                Err(Error::Away(format!("{}: {why}", self.parts.name)))
            }
        }
    }

    async fn exchange(
        &self,
        conn: &mut MultiplexedConnection,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>, Failed> {
        let broken = |why: String| Failed { why, refused: false };
        let sent = tokio::time::timeout(self.parts.timeout, conn.send_packed_commands(pipeline, 0, count)).await;
        let replies = sent.map_err(|_| broken("no answer in time".to_owned()))?;
        let replies = replies.map_err(|error| broken(error.to_string()))?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                let why = format!("{} {}", error.code(), error.details().unwrap_or_default());
                return Err(Failed { why, refused: !NOT_SERVING.contains(&error.code()) });
            }
        }
        if replies.len() == count { Ok(replies) } else { Err(broken("answers are missing".to_owned())) }
    }

    /// The connection did not do: it is dropped, and made again at once.
    fn broken(&self, number: u64, why: &str) {
        let mut state = self.state.lock();
        if state.number != number || state.conn.take().is_none() {
            return;
        }
        why.clone_into(&mut state.why);
        state.away = Some(self.parts.clock.mono());
        drop(state);
        tracing::warn!(server = self.parts.name, why, "a directory server is away");
        self.parts.meters.away.inc();
        self.poke.notify_one();
    }

    /// Connects, and looks after the connection, until the node ends.
    pub(super) async fn tend(self: Arc<Self>, tasks: Tasks) {
        let draining = tasks.draining();
        loop {
            let well = self.look().await;
            if let Err(why) = &well {
                let mut state = self.state.lock();
                if state.conn.is_none() {
                    why.clone_into(&mut state.why);
                }
            }
            let pause = if well.is_ok() { LOOK } else { TRY };
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.poke.notified(), if well.is_ok() => {}
            }
        }
    }

    /// One look; the first also waits for it.
    pub(super) async fn look(&self) -> Result<(), String> {
        let known = self.state.lock().conn.clone();
        let fresh = known.is_none();
        let number = self.state.lock().number;
        let mut conn = match known {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let looked = self.look_with(&mut conn, fresh).await;
        if let Err(why) = &looked {
            self.broken(number, why);
        }
        looked
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let timeout = Some(self.parts.timeout);
        let config = AsyncConnectionConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
        let connecting = self.parts.client.get_multiplexed_async_connection_with_config(&config);
        let connected = tokio::time::timeout(self.parts.timeout * 3, connecting).await;
        connected.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())
    }

    async fn look_with(&self, conn: &mut MultiplexedConnection, fresh: bool) -> Result<(), String> {
        let began = self.parts.clock.mono();
        let replies = self.exchange(conn, &script::look(&self.parts.keys), script::LOOKS).await?;
        let ended = self.parts.clock.mono();
        let seen = script::read_look(&replies).ok_or_else(|| "an answer of another shape".to_owned())?;
        let away = {
            let mut state = self.state.lock();
            state.time = (seen.time_ms, began + ended.saturating_sub(began) / 2);
            if fresh { state.away.map_or(Duration::ZERO, |since| ended.saturating_sub(since)) } else { Duration::ZERO }
        };
        let life = self.life(conn, &seen, away).await?;
        self.settle(life, seen.life.is_none(), away);
        if fresh {
            self.connected(conn.clone());
        }
        Ok(())
    }

    /// Names the contents anew where they may lack something: the name is gone with everything else; the server was
    /// started again, perhaps from an older copy; or nobody could be refreshed for a while.
    async fn life(
        &self,
        conn: &mut MultiplexedConnection,
        seen: &script::Look,
        away: Duration,
    ) -> Result<Vec<u8>, String> {
        let known = self.state.lock().life.clone();
        let restarted = seen.life.as_ref().is_some_and(|life| !life.ends_with(seen.run_id.as_bytes()));
        let stale = away >= self.parts.patience.long && known.is_some() && known == seen.life;
        match &seen.life {
            Some(life) if !restarted && !stale => Ok(life.clone()),
            old => {
                let new = format!("{}/{}", self.parts.rng.token(8), seen.run_id);
                let command = script::rename(&self.parts.keys, old.as_deref().unwrap_or_default(), &new);
                let replies = self.exchange(conn, &command, 1).await?;
                script::bytes(replies.into_iter().next()).ok_or_else(|| "no name".to_owned())
            }
        }
    }

    fn settle(&self, life: Vec<u8>, was_empty: bool, away: Duration) {
        let mut state = self.state.lock();
        let (now, patience) = (self.parts.clock.mono(), self.parts.patience);
        if away >= LOOK {
            state.silent_until = state.silent_until.max(now + patience.silence);
        }
        if state.life.as_ref() == Some(&life) {
            return;
        }
        let first = state.life.is_none();
        if !first {
            state.unsettled_until = now + patience.settle;
        }
        state.silent_until = now + patience.silence;
        let name = String::from_utf8_lossy(&life).into_owned();
        state.life = Some(life);
        drop(state);
        if !first {
            self.parts.meters.losses.inc();
            tracing::warn!(server = self.parts.name, "records of a directory server may be lost: gateways are asked");
        }
        if !first || was_empty {
            self.parts.losses.send_replace(name);
        }
    }

    fn connected(&self, conn: MultiplexedConnection) {
        let mut state = self.state.lock();
        state.conn = Some(conn);
        state.number += 1;
        state.away = None;
        drop(state);
        self.parts.meters.away.dec();
        tracing::info!(server = self.parts.name, "connected to a directory server");
    }
}
