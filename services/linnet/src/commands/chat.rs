//! `linnet chat`: a terminal client, for people and scripts.

mod keyboard;
mod lines;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use linnet_client::proto::frame::Body;
use linnet_client::{Client, Event, Events, Options, proto};
use linnet_runtime::config::Period;
use linnet_runtime::{Clock, Metrics, Rng, Tasks, drain};
use linnet_types::SdkAppId;
use linnet_usersig::{Claims, sign};
use tokio::time::Instant;

use self::keyboard::Typed;
use self::lines::{Line, gap, kicked, left, message, ready, recalled, refused, sent};
use super::rest::advice;
use crate::output::{Exit, Failure, Output};
use crate::target::{Common, Target};

const SIG_S: u64 = 7 * 86_400;
/// Messages of history shown to a person.
const LOOK_BACK: u32 = 20;
/// Messages of history in which `--expect` looks.
const LOOK_BACK_EXPECT: u32 = 100;

/// A terminal client: a line an event.
///
/// With --send or --expect it ends when all are done, with 1 at the time-out. Otherwise it reads lines to send from the
/// keyboard or a pipe. With --json the events are ready, sent, message, revoked, kicked and gap.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:
  linnet chat alice --with bob --send 'hello bob'
  linnet chat bob --with alice --expect 'hello bob' --json")]
pub(crate) struct ChatArgs {
    /// Who you are.
    user: String,
    /// Talk to this user.
    #[arg(long, value_name = "USER", conflicts_with_all = ["group", "room"])]
    with: Option<String>,
    /// Talk in this group.
    #[arg(long, value_name = "ID", conflicts_with = "room")]
    group: Option<String>,
    /// Enter this live room and talk in it.
    #[arg(long, value_name = "ID")]
    room: Option<String>,
    /// Send this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    send: Vec<String>,
    /// Wait for a message that contains this, history included. May be repeated; they are matched in order.
    #[arg(long, value_name = "TEXT")]
    expect: Vec<String>,
    /// How long to wait for all of it.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    timeout: Period,
    /// Platform to sign in as: Web, Android, iPhone, iPad, Windows, Mac or Linux.
    #[arg(long, value_name = "P", default_value = "Web")]
    platform: String,
}

impl ChatArgs {
    fn conv(&self) -> Option<String> {
        let group = self.group.as_ref().or(self.room.as_ref()).map(|group| format!("GROUP:{group}"));
        group.or_else(|| self.with.as_ref().map(|user| format!("C2C:{user}")))
    }

    fn scripted(&self) -> bool {
        !self.send.is_empty() || !self.expect.is_empty()
    }
}

/// # Errors
/// [`Failure`] when the server cannot be reached, refuses, or what was expected does not come.
pub(crate) async fn run(args: ChatArgs, common: &Common, out: Output) -> Result<Exit> {
    if !args.send.is_empty() && args.conv().is_none() {
        return Err(
            Failure::usage("send to whom?", "--send needs a conversation", "add --with, --group or --room").into()
        );
    }
    let target = common.target()?;
    let tasks = Tasks::new(&Metrics::new());
    let (client, events) = connect(&target, &args, &tasks).await?;
    let chat = Chat {
        conv: args.conv(),
        shown: HashMap::new(),
        expected: args.expect.iter().cloned().collect(),
        refused: None,
        clock: Clock::system(),
        args,
        client,
        out,
        tasks,
    };
    chat.run(events).await
}

async fn connect(target: &Target, args: &ChatArgs, tasks: &Tasks) -> Result<(Client, Events)> {
    let claims = Claims {
        app: SdkAppId(target.app()?),
        identifier: args.user.clone(),
        time_s: Clock::system().now().secs(),
        expire_s: SIG_S,
        userbuf: None,
    };
    let mut options = Options::new(&target.ws, claims.app.0, &args.user, sign(&claims, target.key()?));
    options.platform.clone_from(&args.platform);
    options.ca_pem = target.ca.as_ref().map(std::fs::read).transpose()?;
    Client::connect(options, tasks, Rng::system()).await.map_err(|why| failed(&target.ws, "the sign-in", &why))
}

/// A failure of the client protocol, for people.
pub(super) fn failed(server: &str, what: &str, why: &linnet_client::Error) -> anyhow::Error {
    use linnet_client::Error;
    match why {
        Error::Refused(error) => {
            let why = format!("{}: {}", error.code, error.info);
            let todo = advice(error.code).unwrap_or("docs/protocol.md has the codes");
            Failure::refused(format!("{what} was refused"), why, todo).into()
        }
        Error::Connect { .. } | Error::Disconnected | Error::TimedOut | Error::Ended | Error::Unexpected => {
            Failure::unreachable(server, why).into()
        }
    }
}

struct Chat {
    args: ChatArgs,
    client: Client,
    conv: Option<String>,
    /// Last position shown of each conversation, so that history and what is pushed meanwhile are shown once.
    shown: HashMap<String, u64>,
    expected: VecDeque<String>,
    /// The first refusal of a send.
    refused: Option<proto::Error>,
    out: Output,
    clock: Clock,
    tasks: Tasks,
}

impl Chat {
    async fn run(mut self, mut events: Events) -> Result<Exit> {
        let stop = drain::signalled();
        tokio::pin!(stop);
        let deadline = Instant::now() + self.args.timeout.get();
        let done = tokio::select! {
            _ = &mut stop => Ok(Exit::Done),
            done = self.talk(&mut events, deadline) => done,
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.close()).await;
        done
    }

    async fn talk(&mut self, events: &mut Events, deadline: Instant) -> Result<Exit> {
        let scripted = self.args.scripted();
        let open = self.open();
        if scripted {
            tokio::time::timeout_at(deadline, open).await.map_err(|_| anyhow::Error::from(self.late()))??;
            self.script(events, deadline).await
        } else {
            open.await?;
            self.converse(events).await
        }
    }

    /// Enters the conversation and shows what is there.
    async fn open(&mut self) -> Result<()> {
        if let Some(room) = &self.args.room {
            let joined = self.client.join(room).await.map_err(|why| failed("the server", "entering the room", &why))?;
            if joined.status == "waiting" {
                let todo = "its owner lets you in, or choose another";
                return Err(
                    Failure::refused(format!("{room} is not open to all"), "the application waits", todo).into()
                );
            }
        }
        if let Some(conv) = &self.conv {
            let open = Body::Open(proto::Open { conv: conv.clone() });
            self.client.done(open).await.map_err(|why| failed("the server", "opening the conversation", &why))?;
        }
        self.print(&ready(&self.args.user, self.conv.as_deref(), self.clock.now()));
        let wanted = if self.args.expect.is_empty() { LOOK_BACK } else { LOOK_BACK_EXPECT };
        // Who only sends is not interested in the past.
        if self.args.expect.is_empty() && self.args.scripted() || self.args.room.is_some() {
            return Ok(());
        }
        let convs = match &self.conv {
            Some(conv) => vec![conv.clone()],
            None if self.args.scripted() => self.conversations().await?,
            None => Vec::new(),
        };
        for conv in convs {
            self.history(&conv, wanted).await?;
        }
        Ok(())
    }

    async fn conversations(&self) -> Result<Vec<String>> {
        let synced = self.client.sync(0).await.map_err(|why| failed("the server", "the conversation list", &why))?;
        Ok(synced.conversations.into_iter().filter(|conv| !conv.deleted).map(|conv| conv.conv).collect())
    }

    async fn history(&mut self, conv: &str, limit: u32) -> Result<()> {
        let ask = proto::History { conv: conv.to_owned(), limit, ..proto::History::default() };
        let page = match self.client.history(ask).await {
            Ok(page) => page,
            // A pair that never talked, or a group without history: nothing to show is no failure.
            Err(linnet_client::Error::Refused(_)) => return Ok(()),
            Err(why) => return Err(failed("the server", "history", &why)),
        };
        let mut messages = page.messages;
        messages.sort_by_key(|message| message.seq);
        for one in messages {
            self.show(conv, &one, true);
        }
        Ok(())
    }

    /// Sends what is to be sent, one after the other, while what comes is matched.
    async fn script(&mut self, events: &mut Events, deadline: Instant) -> Result<Exit> {
        let mut to_send: VecDeque<String> = self.args.send.iter().cloned().collect();
        while let Some(text) = to_send.pop_front() {
            let sending = self.client.clone();
            let conv = self.conv.clone().unwrap_or_default();
            let begun = self.clock.mono();
            let answer = async { sending.text(&conv, &text).await };
            tokio::pin!(answer);
            loop {
                tokio::select! {
                    answer = &mut answer => {
                        let delay = self.clock.mono().saturating_sub(begun);
                        self.answered(&conv, &text, answer, delay)?;
                        break;
                    }
                    event = events.next() => self.happened(event)?,
                    () = tokio::time::sleep_until(deadline) => return Err(self.late().into()),
                }
            }
        }
        while !self.expected.is_empty() {
            tokio::select! {
                event = events.next() => self.happened(event)?,
                () = tokio::time::sleep_until(deadline) => return Err(self.late().into()),
            }
        }
        match &self.refused {
            None => Ok(Exit::Done),
            Some(why) => {
                let todo = advice(why.code).unwrap_or("docs/protocol.md has the codes");
                let why = format!("{}: {}", why.code, why.info);
                Err(Failure::refused("not everything was sent", why, todo).into())
            }
        }
    }

    /// Lines of the keyboard or a pipe are sent until they end or Ctrl-C.
    async fn converse(&mut self, events: &mut Events) -> Result<Exit> {
        if self.conv.is_some() {
            self.out.note("type a line to send it; Ctrl-D or Ctrl-C ends");
        }
        let mut keyboard = keyboard::start(&self.tasks);
        loop {
            let text = tokio::select! {
                event = events.next() => {
                    self.happened(event)?;
                    continue;
                }
                typed = keyboard.recv() => match typed {
                    Some(Typed::Line(text)) => text,
                    Some(Typed::End) | None => return Ok(Exit::Done),
                },
            };
            let Some(conv) = self.conv.clone() else {
                self.out.note("to whom? start with --with, --group or --room");
                continue;
            };
            if text.trim().is_empty() {
                continue;
            }
            let begun = self.clock.mono();
            let answer = self.client.text(&conv, &text).await;
            let delay = self.clock.mono().saturating_sub(begun);
            self.answered(&conv, &text, answer, delay)?;
        }
    }

    fn answered(
        &mut self,
        conv: &str,
        text: &str,
        answer: linnet_client::Result<proto::Sent>,
        delay: Duration,
    ) -> Result<()> {
        match answer {
            Ok(done) => self.print(&sent(conv, &self.args.user, text, &done, delay)),
            Err(linnet_client::Error::Refused(why)) => {
                self.print(&refused(conv, &self.args.user, text, &why, delay));
                self.refused.get_or_insert(why);
            }
            Err(why) => return Err(failed("the server", "sending", &why)),
        }
        Ok(())
    }

    fn happened(&mut self, event: Option<Event>) -> Result<()> {
        match event {
            Some(Event::Message { conv, message }) => self.show(&conv, &message, false),
            Some(Event::Item(item)) => self.item(item)?,
            Some(Event::Disconnected) => self.print(&gap("", 0, "the connection was lost; coming back")),
            Some(Event::SignedIn(_)) => {}
            Some(Event::Kicked(why)) => {
                self.print(&kicked(&why));
                let why = format!("{} {}", why.reason, why.by_platform);
                let todo = "sign in again; `login.mode` and `login.web_instances` of the app say how many may be";
                return Err(Failure::refused("the session is over", why.trim(), todo).into());
            }
            Some(Event::Refused(why)) => {
                let why = linnet_client::Error::Refused(why);
                return Err(failed("the server", "signing in again", &why));
            }
            None => return Err(Failure::unreachable("the server", "the client has ended").into()),
        }
        Ok(())
    }

    fn item(&self, item: proto::Item) -> Result<()> {
        use proto::item::What;
        match item.what {
            Some(What::Recall(recall)) if self.about(&item.conv) => {
                recalled(&item.conv, &recall).iter().for_each(|line| self.print(line));
            }
            Some(What::Advanced(advanced)) => self.print(&gap(&item.conv, advanced.head, "left out; history has it")),
            Some(What::Room(state)) if state.left && self.about(&item.conv) => {
                self.print(&left(&item.conv, &state.why));
                let todo = "an operator of the room decides; enter another";
                return Err(Failure::refused("you are no longer in the room", state.why, todo).into());
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    fn about(&self, conv: &str) -> bool {
        self.conv.as_deref().is_none_or(|ours| ours == conv)
    }

    /// Shows a message once, and matches it.
    fn show(&mut self, conv: &str, one: &proto::Message, history: bool) {
        if !self.about(conv) {
            return;
        }
        if one.seq > 0 && !one.replayed {
            let last = self.shown.entry(conv.to_owned()).or_default();
            if one.seq <= *last {
                return;
            }
            *last = one.seq;
        }
        let line = message(conv, one, history, self.clock.now());
        if self.expected.front().is_some_and(|wanted| line.text.contains(wanted.as_str())) {
            self.expected.pop_front();
        }
        self.print(&line);
    }

    fn print(&self, line: &Line) {
        self.out.result(&line.object, &line.shown);
    }

    fn late(&self) -> Failure {
        let waited = self.args.timeout;
        let why = match self.expected.front() {
            Some(wanted) => format!("no message with {wanted:?} within {waited}"),
            None => format!("not everything was answered within {waited}"),
        };
        Failure::refused("the time is up", why, "`linnet tail` shows what arrives; --timeout waits longer")
    }
}
