//! What happens on this gateway, for people who watch: the console of `dev` and the playground.
//!
//! Best effort and bounded: a watcher that is too slow misses events. Nothing is built while nobody watches. No message
//! text is ever in an event.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use linnet_proto::delivery::record;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::session::{Ended, Session};
use crate::view::Prepared;

/// Events a slow watcher may lag behind.
const BACKLOG: usize = 1024;
/// Messages on their way that are remembered.
const ON_THE_WAY: usize = 4096;

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A device signed in.
    SignedIn {
        /// App.
        app: u32,
        /// User.
        user: String,
        /// Platform name.
        platform: String,
        /// `<gateway>/<n>`.
        connection: String,
    },
    /// A device is gone.
    SignedOut {
        /// App.
        app: u32,
        /// User.
        user: String,
        /// Platform name.
        platform: String,
        /// `Unregister`, `LinkClose` or `TimeOut`.
        reason: String,
    },
    /// A message of a client got its outcome and, if anybody of its receivers is here, was handed to their sockets.
    Message {
        /// App.
        app: u32,
        /// Sender.
        from: String,
        /// Peer or group.
        to: String,
        /// Position; 0 when not stored.
        seq: u64,
        /// `stored`, `published`, `shaped`, or the code of the refusal.
        outcome: String,
        /// From the frame to its reply.
        answered_ms: f64,
        /// Connections of this gateway it was delivered to.
        devices: usize,
        /// From the frame to the last hand-over.
        delivered_ms: f64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignedIn { user, platform, .. } => write!(f, "{user} signed in ({platform})"),
            Self::SignedOut { user, platform, reason, .. } => write!(f, "{user} left ({platform}, {reason})"),
            Self::Message { from, to, seq, outcome, answered_ms, devices, delivered_ms, .. } => {
                write!(f, "{from} -> {to}")?;
                if *seq > 0 {
                    write!(f, " seq {seq}")?;
                }
                write!(f, " {outcome} {answered_ms:.1} ms")?;
                match devices {
                    0 => f.write_str(" nobody else online here"),
                    1 => write!(f, " delivered to 1 device {delivered_ms:.1} ms"),
                    n => write!(f, " delivered to {n} devices {delivered_ms:.1} ms"),
                }
            }
        }
    }
}

/// (app, sender, random): what a message on its way is found by.
type Token = (u32, String, u32);

#[derive(Debug)]
struct OnTheWay {
    begun: Duration,
    devices: usize,
    delivered: Duration,
}

#[derive(Debug)]
pub(crate) struct Events {
    out: broadcast::Sender<Event>,
    on_the_way: Mutex<HashMap<Token, OnTheWay>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { out: broadcast::channel(BACKLOG).0, on_the_way: Mutex::default() }
    }
}

impl Events {
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.out.subscribe()
    }

    pub(crate) fn watched(&self) -> bool {
        self.out.receiver_count() > 0
    }

    pub(crate) fn session(&self, session: &Session, ended: Option<Ended>) {
        if !self.watched() {
            return;
        }
        let (app, user) = (session.app.0, session.user.as_str().to_owned());
        let platform = session.platform.wire().to_owned();
        let event = match ended {
            None => Event::SignedIn { app, user, platform, connection: session.connection.clone() },
            Some(ended) => Event::SignedOut { app, user, platform, reason: ended.wire().to_owned() },
        };
        let _ = self.out.send(event);
    }

    /// A send frame came in.
    pub(crate) fn begin(&self, app: u32, from: &str, random: u32, now: Duration) {
        if !self.watched() {
            return;
        }
        let mut all = self.on_the_way.lock();
        if all.len() >= ON_THE_WAY {
            all.clear();
        }
        all.insert((app, from.to_owned(), random), OnTheWay { begun: now, devices: 0, delivered: now });
    }

    /// A batch was handed to connections.
    pub(crate) fn delivered(&self, batch: &Arc<Prepared>, devices: usize, now: Duration) {
        let mut all = self.on_the_way.lock();
        if all.is_empty() {
            return;
        }
        for entry in &batch.entries {
            let Some(record::Kind::Message(message)) = &entry.record.kind else { continue };
            if let Some(found) = all.get_mut(&(batch.app, message.from.clone(), message.random)) {
                found.devices += devices;
                found.delivered = now;
            }
        }
    }

    /// Says what became of a message; called a moment after its reply, so that deliveries are counted.
    pub(crate) fn finish(&self, told: Told) {
        let Some(found) = self.on_the_way.lock().remove(&(told.app, told.from.clone(), told.random)) else { return };
        let ms = |at: Duration| at.saturating_sub(found.begun).as_secs_f64() * 1000.0;
        let event = Event::Message {
            app: told.app,
            from: told.from,
            to: told.to,
            seq: told.seq,
            outcome: told.outcome,
            answered_ms: ms(told.answered),
            devices: found.devices,
            delivered_ms: ms(found.delivered),
        };
        let _ = self.out.send(event);
    }
}

/// The reply to a send, for [`Events::finish`].
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) app: u32,
    pub(crate) from: String,
    pub(crate) random: u32,
    pub(crate) to: String,
    pub(crate) seq: u64,
    pub(crate) outcome: String,
    pub(crate) answered: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let event = Event::Message {
            app: 1,
            from: "alice".into(),
            to: "bob".into(),
            seq: 1,
            outcome: "stored".into(),
            answered_ms: 0.61,
            devices: 1,
            delivered_ms: 0.94,
        };
        assert_eq!(event.to_string(), "alice -> bob seq 1 stored 0.6 ms delivered to 1 device 0.9 ms");
    }
}
