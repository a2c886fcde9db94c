//! Frames of owners to this gateway: one numbered line per owner, all read by one task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use linnet_bus::{Event, Subscription};
use linnet_cluster::Service;
use linnet_proto::delivery::{
    Batch, Envelope, Frame, LastNumbers, MissingFramesReply, MissingFramesRequest, MovedRequest, envelope,
};
use linnet_types::{NodeId, Refusal, SdkAppId};
use prost::Message as _;

use super::conversation::Mail;
use super::line::Line;
use super::{Delivered, Inner};

/// A hole is looked at again after this, before anybody is asked: it may only be a late frame.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(5);
/// A hole is given up after this: the log has what is in it.
pub(super) const GIVE_UP: Duration = Duration::from_secs(5);
/// Questions without progress before a hole is given up all the same.
const IN_VAIN: u32 = 20;
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// An owner is told of users who are not here at most this often; its answer to that is a look-up.
const TELL_EVERY: Duration = Duration::from_millis(100);
const MOVED_MAX: usize = 500;

type Key = (Service, NodeId);

struct Link {
    incarnation: u64,
    line: Line<Frame>,
    /// A look or a question is on its way.
    busy: bool,
    tries: u32,
    hole_since: Duration,
    /// When the owner was last told of users who are not here.
    told_at: Option<Duration>,
}

enum Asked {
    Look(Key),
    Answer(Key, u64, Result<MissingFramesReply, Refusal>),
    Told,
}

struct Links {
    inner: Arc<Inner>,
    links: HashMap<Key, Link>,
    asked: FuturesUnordered<BoxFuture<'static, Asked>>,
}

/// The pause before try `n + 1`, with jitter.
pub(super) fn backoff(inner: &Inner, tries: u32) -> Duration {
    let base = BACKOFF.saturating_mul(2u32.saturating_pow(tries.min(6))).min(BACKOFF_MAX);
    base / 2 + base.mul_f64(inner.rng.below(50) as f64 / 100.0)
}

pub(super) async fn run(inner: Arc<Inner>, mut frames: Subscription) {
    let draining = inner.tasks.draining();
    let mut links = Links { inner, links: HashMap::new(), asked: FuturesUnordered::new() };
    loop {
        let going_on = tokio::select! {
            biased;
            () = draining.cancelled() => return,
            Some(asked) = links.asked.next() => links.on_asked(asked).await,
            event = frames.recv() => match event {
                Some(Event::Message { payload, .. }) => links.on_payload(payload).await,
                Some(Event::Lagged { .. }) => {
                    links.on_lagged();
                    true
                }
                None => return,
            },
        };
        if !going_on {
            return;
        }
    }
}

impl Links {
    async fn on_payload(&mut self, payload: bytes::Bytes) -> bool {
        let Ok(envelope) = Envelope::decode(payload) else {
            self.inner.metrics.malformed.inc();
            return true;
        };
        let service = Service::parse(&envelope.service);
        match (envelope.kind, service) {
            (Some(envelope::Kind::Frame(frame)), Some(service)) => self.on_frame(service, frame).await,
            (Some(envelope::Kind::Last(last)), Some(service)) => self.on_last(service, last).await,
            (Some(envelope::Kind::Kick(kick)), _) => self.inner.deliver(Delivered::Kick(kick)).await,
            (Some(envelope::Kind::Batch(_) | envelope::Kind::Frame(_) | envelope::Kind::Last(_)) | None, _) => {
                self.inner.metrics.malformed.inc();
                true
            }
        }
    }

    async fn on_frame(&mut self, service: Service, frame: Frame) -> bool {
        let key = (service, NodeId::trusted(frame.owner.as_str()));
        let Some(link) = self.link(&key, frame.incarnation) else {
            self.inner.metrics.stale.inc();
            return true;
        };
        if !link.line.take(frame.no, frame) {
            self.inner.metrics.doubles.inc();
            return true;
        }
        self.drain(&key).await
    }

    async fn on_last(&mut self, service: Service, last: LastNumbers) -> bool {
        for stream in last.streams {
            let Some(mail) = self.inner.mail(stream.app, stream.conv) else { continue };
            // Its task may just have ended; then the number is of no use.
            let _ = mail.send(Mail::Last(stream)).await;
        }
        if last.frame_no > 0 {
            let key = (service, NodeId::trusted(last.owner.as_str()));
            if let Some(link) = self.link(&key, last.incarnation) {
                link.line.heard(last.frame_no);
                self.look_at(&key);
            }
        }
        true
    }

    fn on_lagged(&mut self) {
        for link in self.links.values_mut() {
            link.line.suspect();
        }
        let keys: Vec<_> = self.links.keys().cloned().collect();
        keys.iter().for_each(|key| self.look_at(key));
    }

    /// The line of an owner; `None` when it has started again since.
    fn link(&mut self, key: &Key, incarnation: u64) -> Option<&mut Link> {
        let fresh = || Link {
            incarnation,
            line: Line::new(1),
            busy: false,
            tries: 0,
            hole_since: Duration::ZERO,
            told_at: None,
        };
        let link = self.links.entry(key.clone()).or_insert_with(fresh);
        if link.incarnation < incarnation {
            // What the process before still had for us died with it; its conversations' new owners announce their heads.
            let lost = link.line.outstanding();
            *link = fresh();
            self.inner.lost_frames(lost);
        }
        let link = self.links.get_mut(key)?;
        (link.incarnation == incarnation).then_some(link)
    }

    /// Hands on what is in order, then sees to what is missing.
    async fn drain(&mut self, key: &Key) -> bool {
        while let Some(frame) = self.links.get_mut(key).and_then(|link| link.line.pop()) {
            self.inner.received(|count| count.frames += 1);
            for batch in frame.batches {
                self.tell_moved(key, &batch);
                if !self.direct(batch).await {
                    return false;
                }
            }
        }
        self.look_at(key);
        true
    }

    /// Tells the owner about users of `batch` who are not here, unless it was told a moment ago.
    fn tell_moved(&mut self, key: &Key, batch: &Batch) {
        let app = SdkAppId(batch.app);
        let now = self.inner.clock.mono();
        let Some(link) = self.links.get_mut(key) else { return };
        if link.told_at.is_some_and(|at| at + TELL_EVERY > now) {
            return;
        }
        let absent = batch.users.iter().filter(|user| !self.inner.locals.is_here(app, user));
        let users: Vec<_> = absent.take(MOVED_MAX).cloned().collect();
        if users.is_empty() {
            return;
        }
        link.told_at = Some(now);
        let request = MovedRequest { gateway: self.inner.gateway.as_str().to_owned(), app: batch.app, users };
        let (owners, (service, owner)) = (self.inner.owners.clone(), key.clone());
        self.asked.push(Box::pin(async move {
            owners.moved(service, &owner, request).await;
            Asked::Told
        }));
    }

    async fn direct(&mut self, batch: Batch) -> bool {
        if batch.conv != 0 {
            if !self.inner.is_current(batch.app, batch.conv, batch.epoch) {
                self.inner.metrics.stale.inc();
                return true;
            }
            if let Some(mail) = self.inner.mail(batch.app, batch.conv) {
                match mail.send(Mail::Direct(batch)).await {
                    Ok(()) => return true,
                    Err(returned) => {
                        let Mail::Direct(batch) = returned.0 else { return true };
                        return self.inner.deliver(Delivered::Batch(Arc::new(batch))).await;
                    }
                }
            }
        }
        self.inner.deliver(Delivered::Batch(Arc::new(batch))).await
    }

    fn look_at(&mut self, key: &Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.busy || link.line.hole().is_none() {
            return;
        }
        (link.busy, link.tries, link.hole_since) = (true, 0, self.inner.clock.mono());
        self.look_after(key.clone(), LOOK_AFTER);
    }

    fn look_after(&mut self, key: Key, pause: Duration) {
        self.asked.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Asked::Look(key)
        }));
    }

    async fn on_asked(&mut self, asked: Asked) -> bool {
        match asked {
            Asked::Told => true,
            Asked::Look(key) => {
                self.ask(key);
                true
            }
            Asked::Answer(key, incarnation, answer) => self.on_answer(key, incarnation, answer).await,
        }
    }

    /// Asks for what is still missing.
    fn ask(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let Some((from_no, to_no)) = link.line.hole() else {
            link.busy = false;
            return;
        };
        let incarnation = link.incarnation;
        let gateway = self.inner.gateway.as_str().to_owned();
        let request = MissingFramesRequest { gateway, incarnation, from_no, to_no };
        self.inner.metrics.asked.inc();
        let owners = self.inner.owners.clone();
        self.asked.push(Box::pin(async move {
            let answer = owners.missing_frames(key.0, &key.1, request).await;
            Asked::Answer(key, incarnation, answer)
        }));
    }

    async fn on_answer(&mut self, key: Key, incarnation: u64, answer: Result<MissingFramesReply, Refusal>) -> bool {
        let now = self.inner.clock.mono();
        let owner_lives = self.inner.owners.lives(&key.1);
        let Some(link) = self.links.get_mut(&key) else { return true };
        if link.incarnation != incarnation {
            link.busy = false;
            self.look_at(&key);
            return true;
        }
        link.tries += 1;
        let mut lost = None;
        match answer {
            Ok(reply) if reply.incarnation == incarnation => {
                link.line.answered(reply.no);
                let first = reply.frames.first().map(|frame| frame.no);
                for frame in reply.frames {
                    link.tries = 0;
                    link.line.take(frame.no, frame);
                }
                if reply.incomplete || link.tries > IN_VAIN {
                    lost = Some(match first {
                        Some(first) => link.line.skip_to(first),
                        None => link.line.skip_hole(),
                    });
                }
            }
            // The owner started again: nothing of the time before can be had.
            Ok(_) => lost = Some(link.line.skip_hole()),
            Err(_) if !owner_lives || link.hole_since + GIVE_UP <= now => lost = Some(link.line.skip_hole()),
            Err(_) => {
                let pause = backoff(&self.inner, link.tries);
                self.look_after(key, pause);
                return true;
            }
        }
        link.busy = false;
        if let Some(lost) = lost {
            self.inner.lost_frames(lost);
            if !self.inner.deliver(Delivered::Resync { owner: key.1.clone() }).await {
                return false;
            }
        }
        self.drain(&key).await
    }
}
