//! The load: writers that send at a pace, each waiting for his answer, sometimes three one behind the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use linnet_runtime::Rng;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{AGAIN, Api};
use super::crowd::Crowd;
use super::person::{Person, Since};
use super::record::{Conv, Fate, Told};

/// A send is given up within the time in which a pair knows a retry (120 s), less what a last try may take.
const GIVE_UP: Duration = Duration::from_secs(100);
/// Of a hundred, how often a writer sends three at once.
const BURSTS: u32 = 10;

/// Who writes where, and by which way.
#[derive(Clone, Debug)]
struct Writer {
    id: usize,
    author: usize,
    conv: Conv,
    rest: bool,
}

/// A running load.
pub struct Load {
    stop: CancellationToken,
    writers: JoinSet<()>,
    sends: Arc<Mutex<Vec<Told>>>,
    answered: Arc<AtomicU64>,
    under_way: Arc<Mutex<BTreeSet<(u64, String)>>>,
}

#[derive(Clone)]
struct Desk {
    since: Since,
    stop: CancellationToken,
    people: Arc<Vec<Person>>,
    api: Arc<Api>,
    sends: Arc<Mutex<Vec<Told>>>,
    answered: Arc<AtomicU64>,
    under_way: Arc<Mutex<BTreeSet<(u64, String)>>>,
    tokens: Arc<AtomicU32>,
    label: String,
    /// Between two sends of one writer.
    pause: Duration,
}

/// What a load is made of.
pub struct Plan<'a> {
    /// Name in the texts.
    pub label: String,
    /// Appends a second, of all writers.
    pub rate: f64,
    /// The run's clock.
    pub since: Since,
    /// Who is there.
    pub crowd: &'a Crowd,
    /// Their clients.
    pub people: Arc<Vec<Person>>,
    /// The backend's way.
    pub api: Arc<Api>,
    /// Chooses pauses.
    pub rng: Rng,
    /// Tokens, new for every send of a lane.
    pub tokens: Arc<AtomicU32>,
}

impl Load {
    /// Begins.
    #[must_use]
    pub fn start(plan: Plan<'_>) -> Self {
        let stop = CancellationToken::new();
        let who = writers(plan.crowd);
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        // A burst makes three of one.
        let pause = Duration::from_secs_f64(who.len() as f64 * (1.0 + f64::from(BURSTS) / 50.0) / plan.rate);
        let desk = Desk {
            since: plan.since,
            stop: stop.clone(),
            people: plan.people,
            api: plan.api,
            sends: Arc::default(),
            answered: Arc::default(),
            under_way: Arc::default(),
            tokens: plan.tokens,
            label: plan.label,
            pause,
        };
        let mut tasks = JoinSet::new();
        for writer in who {
            tasks.spawn(write(desk.clone(), writer.clone(), plan.rng.fork(&format!("writer {}", writer.id))));
        }
        Self { stop, writers: tasks, sends: desk.sends, answered: desk.answered, under_way: desk.under_way }
    }

    /// Sends answered for good so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// When the oldest send that waits for its answer began, in ms of the run.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.under_way.lock().first().map(|(begun, _)| *begun)
    }

    /// The sends finished so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Told> {
        self.sends.lock().clone()
    }

    /// Begins no more, waits for the answers to what is under way, and gives every send.
    pub async fn end(mut self) -> Vec<Told> {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            if let Err(why) = ended
                && let Ok(panic) = why.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        std::mem::take(&mut self.sends.lock())
    }
}

/// Both sides of each pair, three of each small group, four of the community and the room, and a backend that writes in
/// the name of some.
fn writers(crowd: &Crowd) -> Vec<Writer> {
    let mut all = Vec::new();
    let mut add = |author: usize, conv: &Conv, rest| all.push(Writer { id: 0, author, conv: conv.clone(), rest });
    let mut backend = [2, 2];
    for (conv, members) in &crowd.stored {
        let some = match conv {
            Conv::Pair(..) => 2,
            Conv::Group(_) if *conv == crowd.community => 4,
            Conv::Group(_) => 3,
        };
        members.iter().take(some).for_each(|author| add(*author, conv, false));
        let left = &mut backend[usize::from(matches!(conv, Conv::Pair(..)))];
        if *left > 0 {
            *left -= 1;
            add(*members.last().expect("nobody is alone"), conv, true);
        }
    }
    crowd.room.1.iter().take(4).for_each(|author| add(*author, &crowd.room.0, false));
    all.iter_mut().enumerate().for_each(|(id, writer)| writer.id = id);
    all
}

async fn write(desk: Desk, writer: Writer, rng: Rng) {
    let mut no = 0;
    // Not all at once.
    let mut pause = rng.jitter(desk.pause);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = desk.stop.cancelled() => return,
        }
        pause = desk.pause / 2 + rng.jitter(desk.pause);
        let burst = if !writer.rest && rng.chance(BURSTS) { 3 } else { 1 };
        let give_up = Instant::now() + GIVE_UP;
        let sends: Vec<_> = (0..burst)
            .map(|_| {
                no += 1;
                desk.draft(&writer, no)
            })
            .map(|told| desk.send(&writer, told, give_up))
            .collect();
        // Polled in this order, so they go out in this order.
        let told = futures::future::join_all(sends).await;
        let mut all = desk.sends.lock();
        for told in told {
            all.push(told);
            desk.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Desk {
    fn draft(&self, writer: &Writer, no: u32) -> Told {
        let from = self.people[writer.author].name.clone();
        Told {
            conv: writer.conv.clone(),
            text: format!("{} w{} {no}", self.label, writer.id),
            from,
            writer: writer.id,
            no,
            random: self.tokens.fetch_add(1, Ordering::Relaxed).max(1),
            tries: 0,
            begun_ms: self.since.ms(),
            ended_ms: 0,
            fate: Fate::Unknown,
            trail: Vec::new(),
        }
    }

    async fn send(&self, writer: &Writer, told: Told, give_up: Instant) -> Told {
        let waiting = (told.begun_ms, told.text.clone());
        self.under_way.lock().insert(waiting.clone());
        let told = if writer.rest {
            self.post(told, give_up).await
        } else {
            self.people[writer.author].insist(self.since, told, give_up).await
        };
        self.under_way.lock().remove(&waiting);
        told
    }

    /// A backend's send: at every try another node, the token the same.
    async fn post(&self, mut told: Told, give_up: Instant) -> Told {
        let body = json!([{ "MsgType": "TIMTextElem", "MsgContent": { "Text": told.text } }]);
        let (command, body) = match &told.conv {
            Conv::Pair(a, b) => {
                let to = if *a == told.from { b } else { a };
                let body = json!({ "SyncOtherMachine": 1, "From_Account": told.from, "To_Account": to,
                    "MsgSeq": told.random, "MsgRandom": told.random, "MsgBody": body });
                ("openim/sendmsg", body)
            }
            Conv::Group(id) => {
                let body = json!({ "GroupId": id, "From_Account": told.from, "Random": told.random, "MsgBody": body });
                ("group_open_http_svc/send_group_msg", body)
            }
        };
        let mut unanswered = false;
        while Instant::now() < give_up {
            told.tries += 1;
            let reply = self.api.attempt(command, &body).await;
            told.ended_ms = self.since.ms();
            let why = match reply.as_ref().map(|reply| (reply["ErrorCode"].as_u64().unwrap_or(0), reply)) {
                Ok((0, reply)) => {
                    let seq = reply["MsgSeq"].as_u64().filter(|_| command.starts_with("group"));
                    told.fate = if seq == Some(0) { Fate::Shaped } else { Fate::Stored(seq) };
                    return told;
                }
                Ok((code, _)) if !AGAIN.contains(&code) => {
                    let code = u32::try_from(code).unwrap_or(u32::MAX);
                    told.fate = if unanswered { Fate::Unknown } else { Fate::Refused(code) };
                    return told;
                }
                Ok((_, reply)) => reply.to_string(),
                Err(why) => format!("{why:#}"),
            };
            unanswered = true;
            told.trail.push(format!("{} ms: {why}", told.ended_ms));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        told
    }
}
