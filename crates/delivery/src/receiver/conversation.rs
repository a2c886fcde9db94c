//! One registered conversation on a gateway: a task that owns its subscription, its registration and its place in the
//! numbered stream.

mod asking;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use linnet_bus::{Event, Subscription, subject};
use linnet_proto::delivery::{Batch, Envelope, LastNumber, MissingReply, RegisterReply, envelope};
use linnet_types::{Refusal, Seq, code};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::line::Line;
use super::link::backoff;
use super::{Delivered, Inner, Interest};
use crate::error::{Error, Result};

/// A registration outlives the last local member by this.
const KEEP_FOR: Duration = Duration::from_secs(30);
/// Batches kept while the registration they belong to is not answered.
const EARLY_MAX: usize = 1024;
/// Earlier owners whose last numbers still count.
const BEFORE_MAX: usize = 8;
/// Batches by name held back until it is known whether the stream brings them too.
const DIRECT_MAX: usize = 256;

pub(super) type Asker = oneshot::Sender<Result<RegisterReply>>;

pub(super) enum Mail {
    /// A batch by name of this conversation.
    Direct(Batch),
    /// A repeated last number.
    Last(LastNumber),
    /// There are new local members, and somebody waits until they were asked about.
    Check(Asker),
    /// No local member is left.
    Released,
}

enum Job {
    Look,
    Register(Box<Result<RegisterReply, Refusal>>, Vec<String>),
    Missing(Result<MissingReply, Refusal>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The owner is asked where the stream stands; nothing of it is handed on.
    Registering,
    /// In the stream.
    Live,
    /// The owner is asked about new members; the stream waits, so that the answer finds its place in it.
    Checking,
}

/// An answer about members that is for a place in the stream not reached yet.
struct Verdict {
    reply: RegisterReply,
    checked: Vec<String>,
}

/// Why the task goes on or ends.
enum Flow {
    On,
    End,
}

pub(super) struct Conversation {
    inner: Arc<Inner>,
    interest: Interest,
    mailbox: mpsc::Receiver<Mail>,
    /// Who waits for a question not sent yet, and for the one on its way.
    waiting: Vec<Asker>,
    asking: Vec<Asker>,
    checked_at: Duration,
    verdict: Option<Verdict>,
    /// What is awaited beside the bus: a pause, a registration or missed batches.
    job: Option<BoxFuture<'static, Job>>,
    tries: u32,
    /// Names the registration over its tries.
    registration: u64,
    hole_since: Duration,
    phase: Phase,
    registered_once: bool,
    tenure: u64,
    /// Highest tenure heard of. An owner that answers a lower one was replaced and does not know it yet.
    heard: u64,
    /// First number of this tenure that the stream brings.
    from: u64,
    line: Line<Batch>,
    /// Of a tenure not registered yet.
    early: Vec<Batch>,
    direct: VecDeque<Batch>,
    /// Tenure and first number not received of owners before, for the link law.
    before: VecDeque<(u64, u64)>,
}

impl Conversation {
    pub(super) fn new(inner: Arc<Inner>, interest: Interest, mailbox: mpsc::Receiver<Mail>, asker: Asker) -> Self {
        Self {
            inner,
            interest,
            mailbox,
            waiting: vec![asker],
            asking: Vec::new(),
            checked_at: Duration::ZERO,
            verdict: None,
            job: None,
            tries: 0,
            registration: 0,
            hole_since: Duration::ZERO,
            phase: Phase::Registering,
            registered_once: false,
            tenure: 0,
            heard: 0,
            from: 1,
            line: Line::new(1),
            early: Vec::new(),
            direct: VecDeque::new(),
            before: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let draining = self.inner.tasks.draining();
        let subscribed = tokio::select! {
            () = draining.cancelled() => None,
            subscribed = self.subscribe() => subscribed,
        };
        let Some(mut batches) = subscribed else { return self.leave() };
        self.register();
        loop {
            let release = self.released().map(|at| at + KEEP_FOR);
            let flow = tokio::select! {
                biased;
                () = draining.cancelled() => Flow::End,
                job = next(&mut self.job) => self.on_job(job).await,
                mail = self.mailbox.recv() => match mail {
                    Some(mail) => self.on_mail(mail).await,
                    None => Flow::End,
                },
                event = batches.recv() => match event {
                    Some(event) => self.on_event(event).await,
                    None => Flow::End,
                },
                () = until(release) => {
                    if self.end_if_released() {
                        self.deregister().await;
                        return;
                    }
                    Flow::On
                }
            };
            if matches!(flow, Flow::End) {
                return self.leave();
            }
        }
    }

    /// Subscribes and waits until that is in force, for as long as the bus needs; `None` when it is closed for good.
    async fn subscribe(&mut self) -> Option<Subscription> {
        let subject = subject::fan(&self.inner.site, self.interest.conv);
        for tries in 0.. {
            match self.inner.bus.subscribe(subject.clone()).await {
                Ok(subscription) if self.inner.bus.flush().await.is_ok() => return Some(subscription),
                Err(linnet_bus::Error::Closed) => return None,
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(backoff(&self.inner, tries)).await;
        }
        None
    }

    fn released(&self) -> Option<Instant> {
        let conversations = self.inner.conversations.lock();
        conversations.get(&(self.interest.app, self.interest.conv)).and_then(|handle| handle.released)
    }

    /// Takes the conversation off the map unless somebody wants it again. Under the lock, so that nobody can in between.
    fn end_if_released(&self) -> bool {
        let key = (self.interest.app, self.interest.conv);
        let mut conversations = self.inner.conversations.lock();
        let due = |since: Instant| since + KEEP_FOR <= Instant::now();
        let ends = conversations.get(&key).is_some_and(|handle| handle.released.is_some_and(due));
        if ends {
            conversations.remove(&key);
        }
        ends
    }

    fn leave(self) {
        self.inner.conversations.lock().remove(&(self.interest.app, self.interest.conv));
    }

    async fn on_mail(&mut self, mail: Mail) -> Flow {
        match mail {
            Mail::Direct(batch) => self.on_direct(batch).await,
            Mail::Last(last) => {
                self.on_last(&last);
                Flow::On
            }
            Mail::Check(asker) => {
                self.waiting.push(asker);
                self.look();
                Flow::On
            }
            // The loop reads the time of release.
            Mail::Released => Flow::On,
        }
    }

    async fn on_event(&mut self, event: Event) -> Flow {
        let Event::Message { payload, .. } = event else {
            self.line.suspect();
            self.look();
            return Flow::On;
        };
        match Envelope::decode(payload).ok().and_then(|envelope| envelope.kind) {
            Some(envelope::Kind::Batch(batch)) => self.on_batch(batch).await,
            Some(envelope::Kind::Last(last)) => {
                let conv = self.interest.conv.0;
                last.streams.iter().filter(|last| last.conv == conv).for_each(|last| self.on_last(last));
                Flow::On
            }
            Some(envelope::Kind::Frame(_) | envelope::Kind::Kick(_)) | None => {
                self.inner.metrics.malformed.inc();
                Flow::On
            }
        }
    }

    async fn on_batch(&mut self, batch: Batch) -> Flow {
        self.hear(batch.tenure);
        if batch.tenure < self.tenure {
            self.inner.metrics.stale.inc();
            return Flow::On;
        }
        if self.phase == Phase::Registering || batch.tenure > self.tenure {
            // Full: what is dropped here is missed by its number once the registration is answered.
            if self.early.len() < EARLY_MAX {
                self.early.push(batch);
            }
            if self.phase != Phase::Registering {
                self.register();
            }
            return Flow::On;
        }
        if !self.line.take(batch.no, batch) {
            self.inner.metrics.doubles.inc();
        }
        self.drain().await
    }

    /// An owner is heard of; its tenure is its epoch.
    fn hear(&mut self, tenure: u64) {
        if tenure > self.heard {
            self.heard = tenure;
            self.inner.is_current(self.interest.app.0, self.interest.conv.0, tenure);
        }
    }

    async fn drain(&mut self) -> Flow {
        while self.phase == Phase::Live {
            if self.verdict.as_ref().is_some_and(|verdict| verdict.reply.no < self.line.next())
                && let Some(Verdict { reply, checked }) = self.verdict.take()
                && !self.tell(reply, checked, true).await
            {
                return Flow::End;
            }
            let Some(batch) = self.line.pop() else { break };
            self.inner.received(|count| count.batches += 1);
            if !self.inner.deliver(Delivered::Batch(Arc::new(batch))).await {
                return Flow::End;
            }
        }
        self.look();
        Flow::On
    }

    async fn tell(&mut self, reply: RegisterReply, checked: Vec<String>, again: bool) -> bool {
        let interest = self.interest.clone();
        self.inner.deliver(Delivered::Registered { interest, reply, checked, again }).await
    }

    /// A batch by name. While the group crosses the limit the same batch comes over the stream, and one of the two is
    /// handed on; which one is only known when the registration is answered.
    async fn on_direct(&mut self, batch: Batch) -> Flow {
        self.hear(batch.tenure);
        if batch.tenure < self.tenure {
            self.inner.metrics.stale.inc();
            return Flow::On;
        }
        if self.phase != Phase::Registering && batch.tenure > self.tenure {
            self.register();
        }
        if self.phase == Phase::Live {
            return self.hand_on_direct(batch).await;
        }
        self.direct.push_back(batch);
        match self.direct.len() > DIRECT_MAX {
            true => match self.direct.pop_front() {
                Some(oldest) => self.hand_on_direct(oldest).await,
                None => Flow::On,
            },
            false => Flow::On,
        }
    }

    async fn hand_on_direct(&mut self, batch: Batch) -> Flow {
        let mut batch = batch;
        if batch.no >= self.from && batch.tenure == self.tenure && self.registered_once {
            // The stream brings it to members the gateway knows; the names may be news to it.
            self.inner.metrics.doubles.inc();
            (batch.records, batch.shaped) = (Vec::new(), Vec::new());
            (batch.head_seq, batch.register) = (0, true);
        }
        match self.inner.deliver(Delivered::Batch(Arc::new(batch))).await {
            true => Flow::On,
            false => Flow::End,
        }
    }

    fn on_last(&mut self, last: &LastNumber) {
        self.hear(last.tenure);
        if let Some(before) = self.before.iter_mut().find(|(tenure, _)| *tenure == last.tenure)
            && last.no >= before.1
        {
            self.inner.lost_batches(last.no + 1 - before.1);
            before.1 = last.no + 1;
        }
        if self.phase == Phase::Registering || last.tenure < self.tenure {
            return;
        }
        if last.tenure > self.tenure {
            return self.register();
        }
        self.line.heard(last.no);
        self.look();
    }

    async fn on_job(&mut self, job: Job) -> Flow {
        match job {
            Job::Look => {
                match self.phase {
                    Phase::Registering | Phase::Checking => self.send_register(),
                    Phase::Live if self.line.hole().is_some() => self.ask(),
                    Phase::Live if !self.waiting.is_empty() => {
                        self.phase = Phase::Checking;
                        self.send_register();
                    }
                    Phase::Live => {}
                }
                Flow::On
            }
            Job::Register(answer, checked) => self.on_register_answer(*answer, checked).await,
            Job::Missing(answer) => self.on_missing(answer).await,
        }
    }

    async fn on_register_answer(&mut self, answer: Result<RegisterReply, Refusal>, checked: Vec<String>) -> Flow {
        match answer {
            Ok(reply) if reply.tenure >= self.tenure.max(self.heard) => self.on_registered(reply, checked).await,
            Err(refusal) if refusal.retry_after_ms.is_none() && refusal.code != code::BUSY => {
                for asker in self.asking.drain(..).chain(self.waiting.drain(..)) {
                    let _ = asker.send(Err(Error::Refused(refusal.clone())));
                }
                let interest = self.interest.clone();
                self.inner.deliver(Delivered::Closed { interest, refusal }).await;
                Flow::End
            }
            // Nobody answered, or one who does not know yet that he was replaced.
            Ok(_) | Err(_) => {
                self.tries += 1;
                self.pause(backoff(&self.inner, self.tries));
                Flow::On
            }
        }
    }

    async fn on_registered(&mut self, reply: RegisterReply, checked: Vec<String>) -> Flow {
        if self.phase == Phase::Checking {
            if reply.tenure != self.tenure {
                // A new owner has to be asked about everybody.
                self.register();
                return Flow::On;
            }
            self.answer(&reply);
            self.phase = Phase::Live;
            self.line.heard(reply.no);
            self.verdict = Some(Verdict { reply, checked });
            return self.catch_up().await;
        }
        let again = self.registered_once;
        if again && reply.tenure == self.tenure {
            self.inner.lost_batches(self.line.skip_to(reply.no + 1));
            self.line.answered(reply.no);
        } else {
            if again {
                self.before.push_back((self.tenure, self.line.next()));
                self.before.drain(..self.before.len().saturating_sub(BEFORE_MAX));
            }
            // An earlier try arrived, and its answer did not.
            self.inner.lost_batches(reply.no.saturating_sub(reply.first_no));
            let suspect = self.line.is_suspect();
            self.line = Line::new(reply.no + 1);
            if suspect {
                self.line.suspect();
            }
            self.from = reply.no + 1;
        }
        (self.phase, self.registered_once, self.tenure) = (Phase::Live, true, reply.tenure);
        self.hear(reply.tenure);
        self.answer(&reply);
        let head_seq = Seq(reply.head_seq);
        let mut listening = self.tell(reply, checked, again).await;
        if again {
            let interest = self.interest.clone();
            listening = self.inner.deliver(Delivered::Advanced { interest, head_seq }).await;
        }
        if !listening {
            return Flow::End;
        }
        self.catch_up().await
    }

    fn answer(&mut self, reply: &RegisterReply) {
        for asker in self.asking.drain(..) {
            let _ = asker.send(Ok(reply.clone()));
        }
    }

    /// What came while the registration was on its way.
    async fn catch_up(&mut self) -> Flow {
        for batch in std::mem::take(&mut self.direct) {
            if matches!(self.on_direct(batch).await, Flow::End) {
                return Flow::End;
            }
        }
        for batch in std::mem::take(&mut self.early) {
            if matches!(self.on_batch(batch).await, Flow::End) {
                return Flow::End;
            }
        }
        self.drain().await
    }
}

/// The job's outcome; never, when there is none. Cancel-safe: the job stays until it is done.
async fn next(job: &mut Option<BoxFuture<'static, Job>>) -> Job {
    let Some(running) = job else { return pending().await };
    let outcome = running.await;
    *job = None;
    outcome
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
