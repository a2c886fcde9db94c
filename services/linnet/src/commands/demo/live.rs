//! `linnet demo live`: a room full of viewers, gifts, likes and text, and an account that adds up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use linnet_client::{Client, Error, proto};
use linnet_runtime::{Metrics, Rng, Tasks, drain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::account::{Account, Closed, Kind, Outcome, Totals};
use super::person;
use super::viewers::{self, Door};
use crate::commands::admin::Admin;
use crate::commands::rest::Rest;
use crate::commands::text;
use crate::output::{Exit, Failure, Output};
use crate::target::{Common, Target};

/// Sends waiting for their answer; beyond it the scene is slower than asked, and says so.
const IN_FLIGHT: usize = 2048;
/// Files beside the sockets.
const OTHER_FILES: u64 = 64;
/// The scene has settled when nothing more arrived for this long.
const SETTLED: Duration = Duration::from_millis(1500);
const SETTLE_MOST: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

/// A live room: viewers, gifts, likes and text, and an account of every message that adds up.
///
/// Each viewer is a real client with a socket of its own; all are in this process. A room publishes 40 messages a second
/// (`live.msg_rate`): above that likes give way first, and the account shows how many.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet demo live --viewers 20 --rate 60 --seconds 2")]
pub(crate) struct LiveArgs {
    /// Viewers.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    viewers: u32,
    /// Messages a second.
    #[arg(long, value_name = "R", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

/// # Errors
/// [`Failure`] when the server cannot be reached, refuses, or the account does not add up.
pub(super) async fn run(args: LiveArgs, common: &Common, out: Output) -> Result<Exit> {
    files_for(args.viewers.into())?;
    let target = common.target()?;
    let rest = Rest::new(&target, None)?;
    let admin = Admin::new(&target)?;
    let room = open_room(&rest).await?;
    let scene = Scene { args, target, admin, room, rest, out, rng: Rng::system(), tasks: Tasks::new(&Metrics::new()) };
    let stop = drain::signalled();
    tokio::pin!(stop);
    let outcome = tokio::select! {
        _ = &mut stop => Err(Failure::refused("the scene was ended", "by a signal", "let it run to get its account").into()),
        outcome = scene.play() => outcome,
    };
    let gone = scene.rest.call("group_open_http_svc/destroy_group", json!({ "GroupId": scene.room }).to_string()).await;
    if let Err(why) = gone {
        scene.out.note(format!("the room {} is still there: {why:#}", scene.room));
    }
    outcome
}

async fn open_room(rest: &Rest) -> Result<String> {
    let ask = json!({ "Type": "AVChatRoom", "Name": "linnet demo live" }).to_string();
    let reply = rest.call("group_open_http_svc/create_group", ask).await?;
    let reply: Value = serde_json::from_str(&reply.text)?;
    Ok(reply["GroupId"].as_str().unwrap_or_default().to_owned())
}

/// Takes as many open files as the hard limit gives.
fn files_for(viewers: u64) -> Result<()> {
    let needed = viewers + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.maximum.is_none_or(|hard| hard >= needed) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let why = format!("each takes an open file, and the limit is {}", limit.maximum.unwrap_or(0));
    let todo = "ulimit -n 1048576 (as root, or in limits.conf), or fewer --viewers; the server needs as many";
    Err(Failure::refused(format!("{viewers} viewers are too many here"), why, todo).into())
}

struct Scene {
    args: LiveArgs,
    target: Target,
    admin: Admin,
    room: String,
    rest: Rest,
    out: Output,
    rng: Rng,
    tasks: Tasks,
}

impl Scene {
    async fn play(&self) -> Result<Exit> {
        let account = Arc::new(Account::new());
        let bar = self.bar(self.args.viewers.into(), "viewers in the room");
        let users = person::register(&self.rest, "viewer", self.args.viewers as usize).await?;
        let door = Door { target: &self.target, room: &self.room, tasks: &self.tasks, rng: &self.rng };
        let clients = viewers::enter(&door, &users, &account, &bar).await?;
        bar.finish_and_clear();
        self.out.note(format!("{} viewers are in {}", text::number(clients.len() as u64), self.room));

        let before = self.left_out().await?;
        self.perform(&clients, &account).await;
        self.settle(&account).await;
        let dropped = self.left_out().await?.saturating_sub(before);
        let closed = Closed { totals: account.totals(), others: clients.len() as u64 - 1, dropped };
        // Leaving is no loss.
        let lost = closed.totals.lost;
        viewers::leave(clients).await;
        self.conclude(&closed, lost)
    }

    fn conclude(&self, closed: &Closed, lost: u64) -> Result<Exit> {
        if self.out.json {
            self.out.result(&closed.object(), "");
        } else {
            closed.lines().iter().for_each(|line| self.out.text(line));
        }
        if closed.adds_up() {
            return Ok(Exit::Done);
        }
        let why = match lost {
            0 => "the terms above do not add up".to_owned(),
            lost => format!("{} lost their connection on the way", text::count(lost, "viewer")),
        };
        let todo = "`linnet status` shows the server's account; fewer --viewers if this machine is too small";
        Err(Failure::refused("the account does not add up", why, todo).into())
    }

    /// Sends at the rate, from any viewer, and prints the totals each second.
    async fn perform(&self, clients: &[Client], account: &Account) {
        let bar = self.bar(self.args.seconds.into(), "s");
        let gap = SECOND / self.args.rate;
        let mut beat = interval(gap);
        beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut second = interval(SECOND);
        second.tick().await;
        let (mut left, mut seconds) = (u64::from(self.args.rate) * u64::from(self.args.seconds), 0);
        let mut sending = FuturesUnordered::new();
        while left > 0 || !sending.is_empty() {
            tokio::select! {
                _ = beat.tick(), if left > 0 && sending.len() < IN_FLIGHT => {
                    left -= 1;
                    sending.push(self.send(clients, account));
                }
                Some(()) = sending.next(), if !sending.is_empty() => {}
                _ = second.tick() => {
                    seconds += 1;
                    bar.inc(1);
                    self.total(&bar, &account.totals(), seconds);
                }
            }
        }
        bar.finish_and_clear();
        if sending.len() >= IN_FLIGHT {
            self.out.note("answers came too slowly for this rate");
        }
    }

    fn total(&self, bar: &ProgressBar, totals: &Totals, second: u64) {
        if self.out.json {
            let mut object = totals.object();
            object["event"] = json!("totals");
            object["second"] = json!(second);
            self.out.result(&object, "");
        } else if !self.out.quiet {
            bar.suspend(|| self.out.text(totals.running(second)));
        }
    }

    async fn send(&self, clients: &[Client], account: &Account) {
        let kind = match self.rng.below(10) {
            0 => Kind::Gift,
            1..4 => Kind::Text,
            _ => Kind::Like,
        };
        let client = &clients[usize::try_from(self.rng.below(clients.len() as u64)).unwrap_or(0)];
        account.sent(kind);
        let message = proto::Send {
            conv: format!("GROUP:{}", self.room),
            body: body(kind).into(),
            priority: kind.priority().to_owned(),
            ..proto::Send::default()
        };
        let outcome = match client.send(message).await {
            Ok(sent) if sent.outcome == "shaped" => Outcome::Shaped,
            Ok(_) => Outcome::Published,
            Err(Error::Refused(_)) => Outcome::Refused,
            Err(_) => Outcome::Unanswered,
        };
        account.ended(kind, outcome);
    }

    /// Waits until nothing more arrives.
    async fn settle(&self, account: &Account) {
        let (end, mut last, mut since) = (Instant::now() + SETTLE_MOST, account.totals(), Instant::now());
        let mut look = interval(Duration::from_millis(50));
        while Instant::now() < end && since.elapsed() < SETTLED {
            look.tick().await;
            let now = account.totals();
            if now.received != last.received || now.pending() > 0 {
                since = Instant::now();
            }
            last = now;
        }
    }

    /// Deliveries the gateways have left out so far, by the server's own count.
    async fn left_out(&self) -> Result<u64> {
        let status: Value = self.admin.get(&["status"], &[]).await?;
        let gateway = &status["laws"]["gateway"];
        Ok(["dropped", "collapsed", "connection_closed"].iter().filter_map(|term| gateway[*term].as_u64()).sum())
    }

    fn bar(&self, length: u64, unit: &str) -> ProgressBar {
        let silent = self.out.json || self.out.quiet;
        let target = if silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = format!("{{bar:40}} {{pos}}/{{len}} {unit}");
        let bar = ProgressBar::with_draw_target(Some(length), target);
        bar.with_style(ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

fn body(kind: Kind) -> String {
    let element = match kind {
        Kind::Text => json!({ "MsgType": "TIMTextElem", "MsgContent": { "Text": "what a goal!" } }),
        Kind::Gift | Kind::Like => json!({
            "MsgType": "TIMCustomElem",
            "MsgContent": { "Data": format!("{{\"{}\":1}}", kind.name()), "Desc": kind.name(), "Ext": "", "Sound": "" },
        }),
    };
    json!([element]).to_string()
}
