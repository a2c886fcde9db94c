//! What a conversation asks of its owner: a place in the stream, missed batches, who is a member.

use std::time::Duration;

use linnet_proto::delivery::{DeregisterRequest, MissingReply, MissingRequest, RegisterRequest};
use linnet_types::Refusal;

use super::{Conversation, Flow, Job, Phase};
use crate::receiver::Which;
use crate::receiver::link::{GIVE_UP, LOOK_AFTER, backoff};

/// Questions about new members are at least this far apart.
const CHECK_GAP: Duration = Duration::from_millis(100);

impl Conversation {
    /// Sees to a hole, or to new members, unless something is being seen to.
    pub(super) fn look(&mut self) {
        if self.phase != Phase::Live || self.job.is_some() {
            return;
        }
        let now = self.inner.clock.mono();
        if self.line.hole().is_some() {
            (self.tries, self.hole_since) = (0, now);
            self.pause(LOOK_AFTER);
        } else if !self.waiting.is_empty() && self.verdict.is_none() {
            self.pause((self.checked_at + CHECK_GAP).saturating_sub(now));
        }
    }

    pub(super) fn pause(&mut self, pause: Duration) {
        self.job = Some(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Job::Look
        }));
    }

    pub(super) fn ask(&mut self) {
        let Some((from_no, to_no)) = self.line.hole() else { return };
        let request = MissingRequest {
            app: self.interest.app.0,
            conv: self.interest.conv.0,
            group_id: self.interest.group_id.as_str().to_owned(),
            tenure: self.tenure,
            from_no,
            to_no,
            gateway: self.inner.gateway.as_str().to_owned(),
        };
        self.inner.metrics.asked.inc();
        let owners = self.inner.owners.clone();
        self.job = Some(Box::pin(async move { Job::Missing(owners.missing(request).await) }));
    }

    pub(super) async fn on_missing(&mut self, answer: Result<MissingReply, Refusal>) -> Flow {
        match answer {
            // With what is gone went the knowledge who is a member.
            Ok(reply) if reply.tenure != self.tenure || reply.incomplete => self.register(),
            Ok(reply) => {
                self.line.answered(reply.no);
                for batch in reply.batches {
                    self.line.take(batch.no, batch);
                }
                return self.drain().await;
            }
            Err(_) if self.hole_since + GIVE_UP <= self.inner.clock.mono() => self.register(),
            Err(_) => {
                self.tries += 1;
                self.pause(backoff(&self.inner, self.tries));
            }
        }
        Flow::On
    }

    /// From now on nothing of the stream is handed on until the owner has said where it stands.
    pub(super) fn register(&mut self) {
        self.phase = Phase::Registering;
        self.verdict = None;
        self.tries = 0;
        self.registration = self.inner.rng.u64();
        self.send_register();
    }

    pub(super) fn send_register(&mut self) {
        // Whoever asked until now has put his new members where they are read.
        self.asking.append(&mut self.waiting);
        self.checked_at = self.inner.clock.mono();
        let which = if self.phase == Phase::Checking { Which::New } else { Which::All };
        let local = self.inner.locals.local(self.interest.app, self.interest.conv, which);
        let request = RegisterRequest {
            app: self.interest.app.0,
            conv: self.interest.conv.0,
            gateway: self.inner.gateway.as_str().to_owned(),
            incarnation: self.inner.incarnation,
            group_id: self.interest.group_id.as_str().to_owned(),
            live_members: local.live_members,
            live_count: local.live_count,
            members: local.members,
            registration: self.registration,
        };
        self.inner.metrics.registers.inc();
        let owners = self.inner.owners.clone();
        self.job = Some(Box::pin(async move {
            let checked = request.members.clone();
            Job::Register(Box::new(owners.register(request).await), checked)
        }));
    }

    /// Ends the registration. What was sent until the owner knew counts as missing: nobody here wanted it.
    pub(super) async fn deregister(mut self) {
        let request = DeregisterRequest {
            app: self.interest.app.0,
            conv: self.interest.conv.0,
            gateway: self.inner.gateway.as_str().to_owned(),
            incarnation: self.inner.incarnation,
            group_id: self.interest.group_id.as_str().to_owned(),
        };
        for tries in 0..5 {
            if let Ok(reply) = self.inner.owners.deregister(request.clone()).await {
                if reply.tenure == self.tenure {
                    self.inner.lost_batches(self.line.skip_to(reply.no + 1));
                }
                return;
            }
            tokio::time::sleep(backoff(&self.inner, tries)).await;
        }
    }
}
