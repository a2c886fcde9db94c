//! `linnet demo social`: friends in pairs and small groups, over every gateway, and an account of every message.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use linnet_client::{Client, Error, Event, Events};
use linnet_runtime::{Clock, Metrics, Rng, Tasks, drain};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::person;
use crate::commands::rest::Rest;
use crate::commands::text;
use crate::output::{Exit, Failure, Output};
use crate::target::{Common, Target};

/// Members of one of the small groups.
const GROUP: usize = 5;
/// Wait for what is on its way when the last message was sent.
const SETTLE: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

/// Friends: pairs and small groups, over every gateway, and an account of every message that adds up.
///
/// Each person is a real client that reconnects and closes gaps by itself: kill a node in the middle and the account must
/// still add up.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet demo social --people 10 --rate 20 --seconds 2")]
pub(crate) struct SocialArgs {
    /// People.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=2_000))]
    people: u32,
    /// Messages a second.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// How long.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

/// # Errors
/// [`Failure`] when the server cannot be reached, refuses, or the account does not add up.
pub(super) async fn run(args: SocialArgs, common: &Common, out: Output) -> Result<Exit> {
    let target = common.target()?;
    let scene = Scene {
        args,
        rest: Rest::new(&target, None)?,
        target,
        out,
        rng: Rng::system(),
        tasks: Tasks::new(&Metrics::new()),
    };
    let stop = drain::signalled();
    tokio::pin!(stop);
    tokio::select! {
        _ = &mut stop => Err(Failure::refused("the scene was ended", "by a signal", "let it run to get its account").into()),
        outcome = scene.play() => outcome,
    }
}

struct Scene {
    args: SocialArgs,
    target: Target,
    rest: Rest,
    out: Output,
    rng: Rng,
    tasks: Tasks,
}

/// Everybody, and the groups they are in.
struct Cast {
    people: Vec<(String, Client)>,
    /// Group and which people are in it.
    groups: Vec<(String, Vec<usize>)>,
}

/// What became of the messages.
#[derive(Default)]
struct Account {
    sent: u64,
    stored: u64,
    refused: u64,
    unanswered: u64,
    /// Receivers that a stored message waits for, by its token.
    waiting: HashMap<String, BTreeSet<String>>,
    /// (token, receiver) seen before the answer to the sender came.
    early: BTreeSet<(String, String)>,
    received: u64,
    twice: u64,
    /// (token, receiver) that were counted.
    seen: BTreeSet<(String, String)>,
}

impl Account {
    fn received(&mut self, token: &str, by: &str) {
        if !self.seen.insert((token.to_owned(), by.to_owned())) {
            self.twice += 1;
            return;
        }
        self.received += 1;
        match self.waiting.get_mut(token) {
            Some(waiting) => drop(waiting.remove(by)),
            None => drop(self.early.insert((token.to_owned(), by.to_owned()))),
        }
    }

    fn stored(&mut self, token: &str, receivers: Vec<String>) {
        self.stored += 1;
        let missing = receivers.into_iter().filter(|by| !self.early.remove(&(token.to_owned(), by.clone())));
        self.waiting.insert(token.to_owned(), missing.collect());
    }

    fn missing(&self) -> u64 {
        self.waiting.values().map(|waiting| waiting.len() as u64).sum()
    }

    fn adds_up(&self) -> bool {
        self.sent == self.stored + self.refused + self.unanswered && self.missing() == 0 && self.twice == 0
    }

    fn object(&self) -> Value {
        json!({
            "sent": self.sent, "stored": self.stored, "refused": self.refused, "unanswered": self.unanswered,
            "received": self.received, "missing": self.missing(), "twice": self.twice, "adds_up": self.adds_up(),
        })
    }

    fn line(&self) -> String {
        format!(
            "sent {} = stored {} + refused {} + unanswered {}   received {}  missing {}  twice {}",
            text::number(self.sent),
            text::number(self.stored),
            text::number(self.refused),
            text::number(self.unanswered),
            text::number(self.received),
            text::number(self.missing()),
            text::number(self.twice)
        )
    }
}

type Shared = Arc<Mutex<Account>>;

impl Scene {
    async fn play(&self) -> Result<Exit> {
        let account = Shared::default();
        let cast = self.cast(&account).await?;
        let gateways = self.target.gateways.len();
        let groups = text::count(cast.groups.len() as u64, "group");
        self.out.note(format!(
            "{} people in {groups}, through {}",
            text::number(cast.people.len() as u64),
            text::count(gateways as u64, "gateway")
        ));
        self.perform(&cast, &account).await;
        self.settle(&account).await;
        for (group, _) in &cast.groups {
            let gone =
                self.rest.call("group_open_http_svc/destroy_group", json!({ "GroupId": group }).to_string()).await;
            if let Err(why) = gone {
                self.out.note(format!("the group {group} is still there: {why:#}"));
            }
        }
        for (_, client) in &cast.people {
            let _ = tokio::time::timeout(SECOND, client.close()).await;
        }
        let account = account.lock();
        self.out.result(&account.object(), account.line());
        if account.adds_up() {
            return Ok(Exit::Done);
        }
        let todo = "`linnet status` shows the server's account";
        Err(Failure::refused("the account does not add up", account.line(), todo).into())
    }

    /// Registers, signs in and groups everybody.
    async fn cast(&self, account: &Shared) -> Result<Cast> {
        let users = person::register(&self.rest, "friend", self.args.people as usize).await?;
        let mut groups = Vec::new();
        for members in (0..users.len()).collect::<Vec<_>>().chunks(GROUP).filter(|members| members.len() > 1) {
            let list: Vec<_> = members.iter().map(|one| json!({ "Member_Account": users[*one] })).collect();
            let ask = json!({ "Type": "Public", "Name": "linnet demo social", "MemberList": list }).to_string();
            let reply: Value =
                serde_json::from_str(&self.rest.call("group_open_http_svc/create_group", ask).await?.text)?;
            groups.push((reply["GroupId"].as_str().unwrap_or_default().to_owned(), members.to_vec()));
        }
        let mut people = Vec::with_capacity(users.len());
        for (index, user) in users.into_iter().enumerate() {
            let ws = &self.target.gateways[index % self.target.gateways.len()];
            let way = person::Way { target: &self.target, ws, tasks: &self.tasks, rng: &self.rng, lasting: true };
            let (client, events) = person::connect(&way, &user).await?;
            self.tasks.spawn("demo.friend", watch(events, user.clone(), Arc::clone(account)));
            people.push((user, client));
        }
        Ok(Cast { people, groups })
    }

    /// Sends at the rate, from anybody to a friend or a group, and prints the totals each second.
    async fn perform(&self, cast: &Cast, account: &Shared) {
        let mut beat = interval(SECOND / self.args.rate);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = interval(SECOND);
        second.tick().await;
        let end = Instant::now() + SECOND * self.args.seconds;
        let mut sending = FuturesUnordered::new();
        let mut number = 0;
        while Instant::now() < end || !sending.is_empty() {
            tokio::select! {
                _ = beat.tick(), if Instant::now() < end => {
                    number += 1;
                    sending.push(self.send(cast, account, number));
                }
                Some(()) = sending.next(), if !sending.is_empty() => {}
                _ = second.tick() => {
                    if self.out.json {
                        let mut object = account.lock().object();
                        object["event"] = json!("totals");
                        self.out.result(&object, "");
                    } else if !self.out.quiet {
                        self.out.text(account.lock().line());
                    }
                }
            }
        }
    }

    async fn send(&self, cast: &Cast, account: &Shared, number: u64) {
        let from = self.rng.below(cast.people.len() as u64) as usize;
        let (name, client) = &cast.people[from];
        let group = cast.groups.iter().find(|(_, members)| members.contains(&from)).filter(|_| self.rng.chance(50));
        let (conv, receivers) = match group {
            Some((group, members)) => {
                let others = members.iter().filter(|one| **one != from).map(|one| cast.people[*one].0.clone());
                (format!("GROUP:{group}"), others.collect())
            }
            None => {
                // Pairs sit beside each other; the last of an odd number writes to the first.
                let friend = if from ^ 1 < cast.people.len() { from ^ 1 } else { 0 };
                let friend = &cast.people[friend].0;
                (format!("C2C:{friend}"), vec![friend.clone()])
            }
        };
        let token = format!("{name} {number} {}", Clock::system().now().0);
        account.lock().sent += 1;
        let sent = client.text(&conv, &token).await;
        let mut account = account.lock();
        match sent {
            Ok(_) => account.stored(&token, receivers),
            Err(Error::Refused(_)) => account.refused += 1,
            Err(_) => account.unanswered += 1,
        }
    }

    /// Waits until everybody has everything.
    async fn settle(&self, account: &Shared) {
        let end = Instant::now() + SETTLE;
        let mut look = interval(Duration::from_millis(50));
        while Instant::now() < end && account.lock().missing() > 0 {
            look.tick().await;
        }
    }
}

/// Counts what one person gets from others.
async fn watch(mut events: Events, me: String, account: Shared) {
    while let Some(event) = events.next().await {
        let Event::Message { message, .. } = event else { continue };
        if !message.kind.is_empty() || message.from == me {
            continue;
        }
        let body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        if let Some(token) = body[0]["MsgContent"]["Text"].as_str() {
            account.lock().received(token, &me);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_accounted_for_when_each_receiver_has_it_once() {
        let mut account = Account { sent: 2, ..Account::default() };
        account.received("a", "bob");
        account.stored("a", vec!["bob".to_owned(), "carol".to_owned()]);
        account.refused += 1;
        assert_eq!((account.missing(), account.adds_up()), (1, false));
        account.received("a", "carol");
        assert!(account.adds_up());
        account.received("a", "carol");
        assert!(!account.adds_up(), "twice");
    }
}
