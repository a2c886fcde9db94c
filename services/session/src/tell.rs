//! What other nodes are told over the bus: places to owners of conversations, kicks to gateways, and losses of records. The
//! bus may lose it, so it is repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use linnet_bus::{Bus, Subject, subject};
use linnet_proto::delivery::{Envelope, Kick, envelope};
use linnet_proto::session::{Places, PlacesChanged, SayAgain, UserPlaces};
use linnet_runtime::{Clock, Tasks};
use linnet_types::NodeId;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::directory::Change;

/// Time since the first telling at which it is repeated: at 10 % loss, one in a million is not heard. A stale place costs
/// its user's messages until the next telling or for a minute.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Tellings that wait to be sent for the first time; more make the caller wait.
const WAITING: usize = 8192;
/// Users told of in one message.
const TOGETHER: usize = 500;
/// Messages kept for repeating; of more, only the first telling is sent.
const REPEATING: usize = 50_000;

enum Told {
    Places(Change),
    Kick(NodeId, Kick),
    Loss(String),
}

/// Sends, merged and repeated. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Teller {
    told: mpsc::Sender<Told>,
}

struct Repeat {
    subject: Subject,
    payload: Bytes,
    first: Duration,
    step: usize,
}

impl Teller {
    pub(crate) fn start(bus: Bus, clock: &Clock, tasks: &Tasks) -> Self {
        let (told, waiting) = mpsc::channel(WAITING);
        let sender = Sender { bus, clock: clock.clone(), repeats: BTreeMap::new(), count: 0 };
        tasks.spawn("session.tell", sender.run(waiting, tasks.clone()));
        Self { told }
    }

    /// Tells owners of conversations where a user is.
    pub(crate) async fn places(&self, change: Option<Change>) {
        if let Some(change) = change {
            let _ = self.told.send(Told::Places(change)).await;
        }
    }

    /// Tells a gateway to close connections.
    pub(crate) async fn kick(&self, gateway: NodeId, kick: Kick) {
        let _ = self.told.send(Told::Kick(gateway, kick)).await;
    }

    /// Asks gateways to say again whom they have.
    pub(crate) async fn loss(&self, loss: String) {
        let _ = self.told.send(Told::Loss(loss)).await;
    }
}

struct Sender {
    bus: Bus,
    clock: Clock,
    /// By the time they are due.
    repeats: BTreeMap<(Duration, u64), Repeat>,
    count: u64,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Told>, tasks: Tasks) {
        let draining = tasks.draining();
        let mut told = Vec::new();
        loop {
            let due = self.repeats.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                biased;
                count = waiting.recv_many(&mut told, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    self.tell(std::mem::take(&mut told)).await;
                }
                () = draining.cancelled() => return,
                () = at(due, self.clock.mono()) => self.repeat().await,
            }
        }
    }

    async fn tell(&mut self, told: Vec<Told>) {
        let mut hint = PlacesChanged::default();
        for one in told {
            match one {
                Told::Places(change) => hint.users.push(wire(change)),
                Told::Kick(gateway, kick) => {
                    let envelope = Envelope { kind: Some(envelope::Kind::Kick(kick)), service: "session".to_owned() };
                    self.first(subject::gw(&gateway), envelope.encode_to_vec().into()).await;
                }
                Told::Loss(loss) => self.first(subject::directory(), SayAgain { loss }.encode_to_vec().into()).await,
            }
        }
        if !hint.users.is_empty() {
            self.first(subject::places(), hint.encode_to_vec().into()).await;
        }
    }

    async fn first(&mut self, subject: Subject, payload: Bytes) {
        self.publish(&subject, &payload).await;
        if self.repeats.len() < REPEATING {
            self.later(Repeat { subject, payload, first: self.clock.mono(), step: 0 });
        }
    }

    fn later(&mut self, repeat: Repeat) {
        let Some(pause) = REPEATS.get(repeat.step) else { return };
        self.count += 1;
        self.repeats.insert((repeat.first + *pause, self.count), repeat);
    }

    async fn repeat(&mut self) {
        let now = self.clock.mono();
        while let Some(entry) = self.repeats.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let mut repeat = entry.remove();
            self.publish(&repeat.subject, &repeat.payload).await;
            repeat.step += 1;
            self.later(repeat);
        }
    }

    async fn publish(&self, subject: &Subject, payload: &Bytes) {
        if let Err(error) = self.bus.publish(subject.clone(), payload.clone()).await {
            tracing::debug!(%error, %subject, "not told");
        }
    }
}

fn wire(change: Change) -> UserPlaces {
    let gateways = change.placed.gateways.into_iter().map(String::from).collect();
    let places = Some(Places { gateways, rev: change.placed.rev });
    UserPlaces { app: change.app.0, user: change.user.into(), places }
}

/// Waits until `due`; for ever without.
async fn at(due: Option<Duration>, now: Duration) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}
