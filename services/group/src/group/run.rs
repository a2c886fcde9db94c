//! The loop of one group: take everything that waits, do it in order, publish, repeat.

use std::time::Duration;

use linnet_store::groups::{Change, Edit, UserEdit};
use linnet_types::UnixMillis;
use tokio::sync::mpsc;

use super::{Group, control, control_record};
use crate::error::{busy, unknown};
use crate::hub::Command;

/// Commands taken at once.
const TAKE: usize = 256;
/// Rounds of commands that were accepted before the mailbox closed.
const LAST_WORDS: usize = 64;
/// A group whose last message is not older may have had an owner who could not deliver it.
const RECENT_MS: u64 = 60_000;
/// How often an idle group that somebody watches is looked at.
const WATCHED: Duration = Duration::from_secs(1);

impl Group {
    /// Runs until the group is idle, dismissed, taken by another node, or the node drains.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.shared.law.active.inc();
        self.outbox.look();
        self.announce();
        let draining = self.shared.tasks.draining();
        let mut idle_since = self.shared.clock.mono();
        let mut taken = Vec::with_capacity(TAKE);
        loop {
            let nap = self.nap(idle_since);
            tokio::select! {
                biased;
                n = commands.recv_many(&mut taken, TAKE) => {
                    if n == 0 {
                        break;
                    }
                    idle_since = self.shared.clock.mono();
                }
                () = draining.cancelled() => break,
                () = tokio::time::sleep(nap) => {}
            }
            self.round(&mut taken).await;
            if self.yielding {
                let (app, group) = (self.held.app(), self.record().group.clone());
                self.yielding = self.shared.hub.is_to_yield(&self.shared, app, &group);
            }
            if self.lost || self.dismissed || self.yielding || self.is_idle(idle_since) {
                break;
            }
        }
        self.end(commands, taken).await;
    }

    /// What an owner before had stored and could not deliver any more is told as "so far"; receivers read it.
    fn announce(&mut self) {
        if self.head.0 == 0 || self.now().0.saturating_sub(self.last_ms) > RECENT_MS {
            return;
        }
        let (audience, _) = self.audience(&[]);
        self.stream.announce(self.head, &audience);
    }

    async fn round(&mut self, taken: &mut Vec<Command>) {
        if let Ok(app) = self.shared.app(self.held.app()).await {
            let rate = app.settings.live_rate;
            let changed = self.live.is_some() && self.app.settings.live_rate != rate;
            self.app = app;
            if changed {
                self.publish(vec![control_record(control(control::Kind::RatePerS(rate)))], &[]);
            }
        }
        if !taken.is_empty() {
            self.doubted = !self.confirm().await;
        }
        for command in taken.drain(..) {
            if self.lost || self.doubted {
                refuse(command);
                continue;
            }
            match command {
                Command::Yield => self.yielding = true,
                Command::Send(sending) => self.waiting.push_back(sending),
                Command::Job(job) => {
                    // What was sent before it is stored before it.
                    Box::pin(self.flush()).await;
                    job(self).await;
                }
            }
        }
        Box::pin(self.flush()).await;
        if !self.lost && !self.dismissed {
            Box::pin(self.tick_live()).await;
            self.tick_outbox().await;
            if let Err(refusal) = self.keep_epoch().await {
                tracing::debug!(%refusal, "a group lost its log");
            }
        }
    }

    /// Time until something is due.
    fn nap(&self, idle_since: Duration) -> Duration {
        let now = self.now();
        let live = self.live.as_ref().and_then(super::Live::next_tick);
        let next = [live, self.outbox.next_tick(now)].into_iter().flatten().min();
        let idle = (idle_since + self.shared.config.idle.get()).saturating_sub(self.shared.clock.mono());
        // A group that is idle and still watched is looked at now and then.
        let idle = idle.max(WATCHED);
        let due = next.map(|at: UnixMillis| Duration::from_millis(at.since(now)));
        due.map_or(idle, |due| due.min(idle))
    }

    fn is_idle(&self, idle_since: Duration) -> bool {
        let idle = self.shared.clock.mono() >= idle_since + self.shared.config.idle.get();
        let watched = self.stream.registered() > 0 || self.live.as_ref().is_some_and(super::Live::is_busy);
        idle && !watched && self.outbox.is_quiet()
    }

    /// Finishes what was accepted and lets go of the group.
    async fn end(mut self, mut commands: mpsc::Receiver<Command>, mut taken: Vec<Command>) {
        let (app, group, conv) = (self.held.app(), self.record().group.clone(), self.held.conv());
        self.shared.hub.forget(app, &group, conv);
        commands.close();
        for _ in 0..LAST_WORDS {
            if commands.recv_many(&mut taken, TAKE).await == 0 {
                break;
            }
            if self.dismissed || self.lost {
                taken.drain(..).for_each(refuse);
            } else {
                self.round(&mut taken).await;
            }
        }
        let answer = if self.dismissed { unknown() } else { busy("the group is moving") };
        for sending in self.live.as_mut().map(super::Live::drain).unwrap_or_default() {
            sending.answer((Err(answer.clone()), false));
        }
        self.shared.law.active.dec();
        if self.lost {
            self.shared.hub.deposed(app, &group, self.now().0);
            return;
        }
        self.let_go().await;
    }

    /// When members last sent is written once, when the group leaves memory.
    async fn note_speakers(&mut self) {
        let mut change = Change::at(self.now());
        for user in std::mem::take(&mut self.spoke) {
            if let Some(member) = self.index.members().get(&user) {
                let role = self.record().role(&user);
                let member = linnet_store::groups::Member { role, ..member.clone() };
                let edit = UserEdit { member: Edit::Put(member), ..UserEdit::new(user) };
                change = change.user(edit);
            }
        }
        if !change.users.is_empty()
            && let Err(refusal) = self.apply(change).await
        {
            tracing::debug!(%refusal, "when members last sent is not written");
        }
    }

    async fn let_go(mut self) {
        if !self.dismissed {
            self.note_speakers().await;
        }
        self.flush_outbox().await;
        if self.dismissed {
            let groups = self.shared.groups.clone();
            let resumed = groups.resume(&mut self.held).await;
            if self.store(resumed).is_err() {
                // Still open: the next start goes on.
                return;
            }
        }
        let groups = self.shared.groups.clone();
        // Somebody watches: left open, it is taken over by the node it belongs to, which they hear of.
        let watched = self.stream.registered() > 0 || self.live.as_ref().is_some_and(super::Live::is_busy);
        if self.yielding && watched && !self.dismissed {
            return;
        }
        if !self.lost
            && let Err(error) = groups.close(self.held).await
        {
            tracing::debug!(%error, "a group stays open");
        }
    }
}

/// Answers a command that comes too late; jobs answer by going away.
fn refuse(command: Command) {
    if let Command::Send(sending) = command {
        sending.answer((Err(busy("the group is moving")), false));
    }
}
