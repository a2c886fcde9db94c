//! One run after another on one cluster.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::{join_all, try_join_all};
use linnet_runtime::{Metrics, Rng, Tasks};
use serde_json::Value;

use super::Place;
use super::api::Api;
use super::check::{self, Law, Violation};
use super::crowd::Crowd;
use super::door::Door;
use super::load::{Load, Plan};
use super::person::{Habits, Person, Since, World};
use super::read;
use super::record::{Conv, Entry, Fate, History, Hooked, Told};
use super::stall::Stalls;

/// Time in which everybody must have everything after the last send, or after the last fault is over.
pub const CONVERGED: Duration = Duration::from_secs(5);
/// After-webhooks come later: their queue may have been parked.
const TOLD: Duration = Duration::from_secs(150);
/// Counters of what is under way are zero this long after the last send.
const QUIET: Duration = Duration::from_secs(5);
/// Everybody sees a first message of every conversation.
const PRIMED: Duration = Duration::from_secs(60);
/// The after-webhooks that are checked.
pub const HOOKS: [&str; 2] = ["C2C.CallbackAfterSendMsg", "Group.CallbackAfterSendMsg"];

/// Runs on one cluster, one after another.
pub struct Lane {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Where.
    pub place: Place,
    /// Who.
    pub crowd: Crowd,
    /// The backend and the operator.
    pub api: Arc<Api>,
    /// The app's server.
    pub door: Door,
    /// Appends a second.
    pub rate: f64,
    rng: Rng,
    tokens: Arc<AtomicU32>,
    logs: BTreeMap<Conv, BTreeMap<u64, Entry>>,
    /// After-webhooks of the runs before, by command.
    heard: BTreeMap<&'static str, usize>,
}

/// A run that is going on.
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its clock.
    pub since: Since,
    /// The load.
    pub load: Load,
    /// Everybody's first device.
    pub people: Arc<Vec<Person>>,
    /// The app's server.
    pub door: Door,
    world: World,
    watching: Vec<Person>,
    bases: BTreeMap<Conv, u64>,
    schedule: Vec<String>,
    struck_ms: Option<u64>,
    healed_ms: Option<u64>,
    /// Messages of the bus are lost until the run is over.
    pub lossy: bool,
}

/// How a run went.
#[derive(Debug)]
pub struct Report {
    /// The run.
    pub name: String,
    /// What it was drawn from.
    pub seed: u64,
    /// What was done when.
    pub schedule: Vec<String>,
    /// Waiting from the first fault on.
    pub stalls: Stalls,
    /// How long after the last send or fault everybody had everything; `None`: not within [`CONVERGED`].
    pub converged: Option<Duration>,
    /// Sends by outcome.
    pub fates: BTreeMap<&'static str, u64>,
    /// Codes of those that were refused for good.
    pub codes: BTreeSet<u32>,
    /// Messages shown to those who follow.
    pub delivered: u64,
    /// Messages of live rooms that were published, and those of them shown, summed over viewers.
    pub live: (u64, u64),
    /// Dead letters that were sent again.
    pub replayed: u64,
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// Every send, for figures.
    pub sends: Vec<Told>,
}

impl Lane {
    /// Seeds a cluster: users, groups, a community of `size`; the app's after-webhooks come to us.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn open(place: Place, seed: u64, size: usize, rate: f64) -> Result<Self> {
        let rng = Rng::seeded(seed);
        // New names each time: a cluster may have seen the seed before.
        let crowd = Crowd::new(&format!("s{}", Rng::system().below(1_000_000)));
        let api = Arc::new(Api::new(&place));
        crowd.seed(&api, size).await.context("seeding")?;
        let door = Door::open_new().await?;
        let lane = Self {
            seed,
            place,
            crowd,
            api,
            door,
            rate,
            tokens: Arc::new(AtomicU32::new(rng.u32() / 2)),
            rng,
            logs: BTreeMap::new(),
            heard: BTreeMap::new(),
        };
        let (url, events) = (lane.door.url(), HOOKS.join(","));
        lane.api.settings(&[("webhook.url", &url), ("webhook.events", &events)]).await?;
        Ok(lane)
    }

    /// Everybody signs in and has seen a message of every conversation; the load begins.
    ///
    /// # Errors
    /// When somebody cannot.
    pub async fn begin(&mut self, name: &str) -> Result<Running> {
        let rng = self.rng.fork(name);
        let since = Since::now();
        let world =
            World { place: self.place.clone(), tasks: Tasks::new(&Metrics::new()), rng: rng.fork("clients"), since };
        let people = try_join_all(self.crowd.people.iter().enumerate().map(|(n, user)| {
            let room = self.crowd.room.1.contains(&n);
            let (Conv::Group(room_id), Conv::Group(community)) = (&self.crowd.room.0, &self.crowd.community) else {
                unreachable!("both are groups")
            };
            let habits = Habits {
                room: room.then(|| room_id.clone()),
                // Half of the community looks at it.
                open: (n % 4 == 0).then(|| format!("GROUP:{community}")),
                follow: true,
                door: n,
                ..Habits::default()
            };
            let world = &world;
            async move { Person::arrive(world, user, habits).await }
        }))
        .await?;
        let watching = try_join_all(self.crowd.watched.iter().map(|n| {
            let habits = Habits { platform: "Android".to_owned(), door: n + 1, ..Habits::default() };
            let (world, user) = (&world, &self.crowd.people[*n]);
            async move { Person::arrive(world, user, habits).await }
        }))
        .await?;
        let people = Arc::new(people);
        let bases = self.prime(name, &people, since).await?;
        let load = Load::start(Plan {
            label: format!("{name} {}", self.seed),
            rate: self.rate,
            since,
            crowd: &self.crowd,
            people: Arc::clone(&people),
            api: Arc::clone(&self.api),
            rng: rng.fork("load"),
            tokens: Arc::clone(&self.tokens),
        });
        let (schedule, struck_ms, healed_ms) = (Vec::new(), None, None);
        let (name, door) = (name.to_owned(), self.door.clone());
        Ok(Running {
            name,
            door,
            since,
            load,
            people,
            world,
            watching,
            bases,
            schedule,
            struck_ms,
            healed_ms,
            lossy: false,
        })
    }

    /// A client that signs in shows what comes after; so a message of every conversation is sent until everybody in it
    /// was shown one. What follows is the run's.
    async fn prime(&self, name: &str, people: &Arc<Vec<Person>>, since: Since) -> Result<BTreeMap<Conv, u64>> {
        let end = Instant::now() + PRIMED;
        let primed = self.crowd.stored.iter().map(|(conv, members)| async move {
            let mut base = 0;
            for no in 0.. {
                // In turn, since nobody is shown his own.
                let author = &people[*members.iter().nth(no % members.len()).expect("somebody is in it")];
                let told = Told {
                    conv: conv.clone(),
                    from: author.name.clone(),
                    writer: usize::MAX,
                    no: 0,
                    random: self.tokens.fetch_add(1, std::sync::atomic::Ordering::Relaxed).max(1),
                    text: format!("{name} {} first {no}", self.seed),
                    tries: 0,
                    begun_ms: 0,
                    ended_ms: 0,
                    fate: Fate::Unknown,
                    trail: Vec::new(),
                };
                let told = author.insist(since, told, end).await;
                let Fate::Stored(Some(seq)) = told.fate else { bail!("{conv}: the first message was {:?}", told.fate) };
                base = seq;
                let enough = Instant::now() + Duration::from_secs(2);
                let unaware = loop {
                    let aware = |n: &&usize| !people[**n].screen.lock().shown.contains_key(conv);
                    let unaware: Vec<usize> = members.iter().filter(aware).copied().collect();
                    if unaware.is_empty() || Instant::now() > enough {
                        break unaware;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                };
                if unaware.is_empty() {
                    break;
                }
                if Instant::now() > end {
                    let who: Vec<&String> = unaware.iter().map(|n| &people[*n].name).collect();
                    bail!("{conv}: {who:?} were shown nothing of {} messages", no + 1);
                }
            }
            Ok((conv.clone(), base))
        });
        try_join_all(primed).await.map(|bases| bases.into_iter().collect())
    }

    /// The load ends; everybody has everything; what is stored is read and checked.
    ///
    /// # Errors
    /// When something cannot be read any more.
    pub async fn finish(&mut self, running: Running) -> Result<Report> {
        let Running { name, since, load, people, world, watching, bases, schedule, struck_ms, healed_ms, .. } = running;
        let mut sends = load.end().await;
        sends.sort_by_key(|told| (told.writer, told.no));
        let last = sends.iter().map(|told| told.ended_ms).max().unwrap_or(0).max(healed_ms.unwrap_or(0));
        let converged = self.converge(&sends, &people, since, last).await;
        let quiet_at = since.ms();
        let mut history = self.record(&people, &bases, sends).await?;
        // Screens are taken after the logs were read, so that what was read is not said to be missing.
        for person in people.iter().chain(&watching) {
            history.screens.push(person.screen.lock().clone());
        }
        let (hooks, replayed) = self.told(&history).await;
        history.hooks = Some(hooks);
        history.laws = self.laws(since, quiet_at).await;
        let mut violations = check::check(&history);
        if converged.is_none() {
            let what = format!("not everybody had everything {CONVERGED:?} after the last send and fault");
            violations.push(Violation { law: Law::Undelivered, what });
        }
        let mut fates = BTreeMap::new();
        for told in &history.sends {
            let fate = match told.fate {
                Fate::Stored(_) => "stored",
                Fate::Published => "published",
                Fate::Shaped => "shaped",
                Fate::Refused(_) => "refused",
                Fate::Unknown => "unknown",
            };
            *fates.entry(fate).or_default() += 1;
        }
        let refused = |told: &Told| if let Fate::Refused(code) = told.fate { Some(code) } else { None };
        let codes = history.sends.iter().filter_map(refused).collect();
        let stalls = Stalls::of(history.sends.iter(), struck_ms.unwrap_or(0), last);
        let delivered = delivered(&history);
        let live = live(&history);
        for (conv, log) in &history.logs {
            self.logs.entry(conv.clone()).or_default().extend(log.entries.clone());
        }
        let people = Arc::into_inner(people).context("the writers have ended")?;
        join_all(people.into_iter().chain(watching).map(Person::leave)).await;
        world.tasks.shutdown(Duration::from_secs(2)).await;
        let (seed, sends) = (self.seed, history.sends);
        Ok(Report {
            name,
            seed,
            schedule,
            stalls,
            converged,
            fates,
            codes,
            delivered,
            live,
            replayed,
            violations,
            sends,
        })
    }

    /// Waits until everybody was shown every acknowledged message; how long after `last` that was.
    async fn converge(&self, sends: &[Told], people: &[Person], since: Since, last: u64) -> Option<Duration> {
        loop {
            let complete = self.crowd.stored.iter().all(|(conv, members)| {
                let stored: Vec<&Told> =
                    sends.iter().filter(|told| told.conv == *conv && matches!(told.fate, Fate::Stored(_))).collect();
                members.iter().all(|n| {
                    let screen = people[*n].screen.lock();
                    let shown: HashSet<(&str, u32)> =
                        screen.shown.get(conv).into_iter().flatten().map(|e| (e.from.as_str(), e.random)).collect();
                    let mut others = stored.iter().filter(|told| told.from != people[*n].name);
                    others.all(|told| shown.contains(&(told.from.as_str(), told.random)))
                })
            });
            let passed = Duration::from_millis(since.ms().saturating_sub(last));
            if complete {
                return Some(passed);
            }
            if passed > CONVERGED {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads every log by two members and by a backend.
    async fn record(&self, people: &[Person], bases: &BTreeMap<Conv, u64>, sends: Vec<Told>) -> Result<History> {
        let mut history = History { sends, ..History::default() };
        for (conv, members) in &self.crowd.stored {
            let base = bases[conv];
            let mut readers = members.iter().map(|n| &people[*n]);
            let first = readers.next().context("somebody is in it")?;
            let log = read::log(first, conv, base).await.with_context(|| format!("{conv} by {}", first.name))?;
            let last = readers.next_back().context("nobody is alone")?;
            history.readings.push(read::by_member(last, conv, base).await?);
            history.readings.push(read::by_backend(&self.api, conv, base, log.new_entries().count()).await?);
            history.logs.insert(conv.clone(), log);
            history.members.insert(conv.clone(), self.crowd.names(members));
            if let Some(before) = self.logs.get(conv) {
                history.before.insert(conv.clone(), before.clone());
            }
        }
        history.rooms.insert(self.crowd.room.0.clone());
        Ok(history)
    }

    /// Waits for the after-webhooks of the run, sends dead letters again, and says how many those were.
    async fn told(&mut self, history: &History) -> (Vec<Hooked>, u64) {
        let (end, mut replayed) = (Instant::now() + TOLD, 0);
        loop {
            let mut hooks = Vec::new();
            let mut heard = BTreeMap::new();
            for command in HOOKS {
                let all = self.door.hooks().of(command);
                heard.insert(command, all.len());
                let before = self.heard.get(command).copied().unwrap_or(0);
                hooks.extend(all[before..].iter().filter_map(read::hooked));
            }
            // An operator looks at them when the app's server is in order again.
            let dead = self.api.dead_letters().await.unwrap_or(1);
            if (history.untold(&hooks) == 0 && dead == 0) || Instant::now() > end {
                self.heard = heard;
                return (hooks, replayed);
            }
            if dead > 0 {
                replayed += self.api.replay().await.unwrap_or(0);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The accounting laws over the nodes that live: each node's hold by themselves, so what a killed one counted is not
    /// needed. Nothing is under way 5 s after the last send.
    async fn laws(&self, since: Since, quiet_at: u64) -> Vec<String> {
        loop {
            let late = since.ms() > quiet_at + u64::try_from(QUIET.as_millis()).unwrap_or(0);
            let wrong = match self.api.status().await {
                Ok(status) => laws_of(&status),
                Err(why) => vec![format!("{why:#}")],
            };
            if wrong.is_empty() || late {
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What a status says that is not exact.
fn laws_of(status: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if status["unaccounted"] != 0 {
        wrong.push(format!("unaccounted {}: {}", status["unaccounted"], status["laws"]));
    }
    for law in ["owner_c2c", "owner_group", "gateway"] {
        if status["laws"][law]["pending"].as_u64() != Some(0) {
            wrong.push(format!("{law}: still pending: {}", status["laws"][law]));
        }
    }
    if let Some(silent) = status["silent"].as_array().filter(|silent| !silent.is_empty()) {
        wrong.push(format!("did not answer: {silent:?}"));
    }
    wrong
}

fn delivered(history: &History) -> u64 {
    let shown = |(conv, log): (&Conv, &super::record::Log)| {
        let screens = history.screens.iter().filter(|screen| screen.follows);
        screens.flat_map(|s| s.shown.get(conv).into_iter().flatten()).filter(|entry| entry.seq > log.base).count()
            as u64
    };
    history.logs.iter().map(shown).sum()
}

fn live(history: &History) -> (u64, u64) {
    let (mut wanted, mut shown) = (0, 0);
    for conv in &history.rooms {
        let published: BTreeSet<(&str, u32)> = history
            .sends
            .iter()
            .filter(|told| told.conv == *conv && told.fate == Fate::Published)
            .map(|told| (told.from.as_str(), told.random))
            .collect();
        for screen in history.screens.iter().filter(|screen| screen.follows && screen.shown.contains_key(conv)) {
            wanted += published.iter().filter(|(from, _)| *from != screen.user).count() as u64;
            let tokens: BTreeSet<(&str, u32)> = screen.shown[conv]
                .iter()
                .filter(|e| e.from != screen.user)
                .map(|e| (e.from.as_str(), e.random))
                .collect();
            shown += tokens.intersection(&published).count() as u64;
        }
    }
    (wanted, shown)
}

impl Running {
    /// Writes down that something strikes.
    pub fn strike(&mut self, what: &str) {
        let now = self.since.ms();
        self.struck_ms.get_or_insert(now);
        self.note(what);
    }

    /// Writes down that the last fault is over.
    pub fn healed(&mut self, what: &str) {
        self.healed_ms = Some(self.since.ms());
        self.note(what);
    }

    /// Writes down what was done.
    pub fn note(&mut self, what: &str) {
        #[expect(clippy::cast_precision_loss, reason = "a run is short")]
        let at = self.since.ms() as f64 / 1000.0;
        println!("    {at:>7.2} s  {what}");
        self.schedule.push(format!("{at:.2} {what}"));
    }

    /// Whoever signs in now is told at every gateway to come again later.
    ///
    /// # Errors
    /// When somebody may sign in, or is told something else.
    pub async fn newcomers_wait(&self) -> Result<()> {
        for door in 0..self.world.place.ws.len() {
            let told = Person::is_told(&self.world, &self.people[0].name, door).await?;
            println!("    who signs in at gateway {} is told: {told}", door + 1);
        }
        Ok(())
    }

    /// Waits until `count` more sends are answered.
    ///
    /// # Errors
    /// When they are not within `patience`.
    pub async fn traffic(&self, count: u64, patience: Duration) -> Result<()> {
        let (goal, end) = (self.load.answered() + count, Instant::now() + patience);
        while self.load.answered() < goal {
            if Instant::now() > end {
                bail!("{} of {count} sends are missing after {patience:?}", goal - self.load.answered());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until every send that is under way now is answered.
    ///
    /// # Errors
    /// When one is not within `patience`.
    pub async fn caught_up(&self, patience: Duration) -> Result<()> {
        let (now, end) = (self.since.ms(), Instant::now() + patience);
        while let Some(oldest) = self.load.oldest().filter(|oldest| *oldest <= now) {
            if Instant::now() > end {
                bail!("a send of {oldest} ms is not answered {patience:?} after {now} ms");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Report {
    /// Violations of one law.
    #[must_use]
    pub fn count(&self, law: Law) -> usize {
        self.violations.iter().filter(|violation| violation.law == law).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fates: Vec<String> = self.fates.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        writeln!(
            f,
            "    sends: {}; shown {} times; live {} of {}",
            fates.join(", "),
            self.delivered,
            self.live.1,
            self.live.0
        )?;
        if !self.codes.is_empty() || self.replayed > 0 {
            writeln!(f, "    refused with {:?}; {} dead letters sent again", self.codes, self.replayed)?;
        }
        match self.converged {
            Some(after) => writeln!(f, "    everybody had everything {} ms after the end", after.as_millis())?,
            None => writeln!(f, "    not everybody had everything {CONVERGED:?} after the end")?,
        }
        write!(f, "    {}", self.stalls)?;
        if !self.violations.is_empty() {
            write!(f, "\n    seed {}; schedule: {}", self.seed, self.schedule.join("; "))?;
            for violation in self.violations.iter().take(30) {
                write!(f, "\n    VIOLATION {violation}")?;
            }
            if self.violations.len() > 30 {
                write!(f, "\n    and {} more", self.violations.len() - 30)?;
            }
        }
        Ok(())
    }
}
