//! One conversation as its owner publishes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use linnet_bus::subject;
use linnet_proto::delivery::{Batch, LastNumber, MissingReply, Pair, Record, RegisterReply, RegisterRequest, batch};
use linnet_types::{ConvId, Epoch, NodeId, SdkAppId, Seq};
use parking_lot::Mutex;
use prost::Message as _;

use super::Inner;
use super::repeat::Which;
use crate::keep::Keep;
use crate::places::Direct;
use crate::quiet::Quiet;
use crate::receiver::LinkCount;
use crate::{Audience, ConvName, PublishOptions, wire};

/// A batch is cut at this size, so that one slow conversation does not hold up a link.
const BATCH_BYTES: usize = 256 << 10;
/// For this long after its opening the last numbers of a group also go to its subject, where gateways listen that still
/// believe in an owner before.
const ANNOUNCE_FOR: Duration = Duration::from_secs(20);

/// Publishes one conversation. Dropping it ends the tenure here; what was sent can still be asked for a few seconds.
pub struct Stream {
    inner: Arc<Inner>,
    state: Arc<StreamState>,
}

pub(crate) struct StreamState {
    pub(super) app: SdkAppId,
    pub(super) conv: ConvId,
    name: ConvName,
    epoch: Epoch,
    opened: Duration,
    closed: AtomicBool,
    fan: Mutex<Fan>,
}

/// The numbered stream to registered gateways.
struct Fan {
    no: u64,
    head: u64,
    keep: Keep,
    quiet: Quiet,
    registered: HashMap<NodeId, Registered>,
}

#[derive(Debug)]
struct Registered {
    incarnation: u64,
    registration: u64,
    first_no: u64,
    count: LinkCount,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("conv", &self.state.conv)
            .field("epoch", &self.state.epoch)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn open(
        inner: Arc<Inner>,
        app: SdkAppId,
        conv: ConvId,
        name: ConvName,
        epoch: Epoch,
        head: Seq,
    ) -> Self {
        let now = inner.clock.mono();
        let group = matches!(name, ConvName::Group(_));
        let fan = Fan {
            no: 0,
            head: head.0,
            keep: Keep::new(Arc::clone(&inner.kept)),
            quiet: Quiet::default(),
            registered: HashMap::new(),
        };
        let state = Arc::new(StreamState {
            app,
            conv,
            name,
            epoch,
            opened: now,
            closed: AtomicBool::new(false),
            fan: Mutex::new(fan),
        });
        // What is still sent by the stream before counts until that is closed and quiet.
        let old = inner.streams.lock().insert((app, conv), Arc::clone(&state));
        inner.replaced.lock().extend(old);
        if group {
            inner.announce(&state);
            let due = state.fan.lock().quiet.touched(now);
            inner.repeats.add(due, || Which::Stream(Arc::clone(&state)));
        }
        Self { inner, state }
    }

    /// Sends what happened since the last call, with `head_seq` the last stored position after it. Never blocks: places
    /// and the bus are waited for elsewhere. Calls for one conversation come from its actor, one after another.
    pub fn publish(&self, records: Vec<Record>, head_seq: Seq, audience: &Audience, options: PublishOptions) {
        let parts = split(records);
        let last = parts.len() - 1;
        for (index, records) in parts.into_iter().enumerate() {
            let first = index == 0;
            let batch = Batch {
                records,
                shaped: if first && options.shaped != [0; 4] { options.shaped.to_vec() } else { Vec::new() },
                live: options.live,
                register: options.register && index == last,
                ..self.batch(head_seq)
            };
            self.publish_one(batch, audience);
        }
    }

    /// Says how far the conversation is, without any record: receivers that are behind fetch from the log. After a
    /// take-over this makes good what the owner before had stored and could not deliver.
    pub fn announce(&self, head_seq: Seq, audience: &Audience) {
        self.publish_one(self.batch(head_seq), audience);
    }

    /// Notes that a gateway has members of this conversation; delivery to it starts after the number in the reply. For
    /// [`super::Registrar::on_register`], called in the conversation's actor.
    #[must_use]
    pub fn register(&self, request: &RegisterRequest) -> RegisterReply {
        self.state.register(request)
    }

    /// Gateways registered now.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.state.fan.lock().registered.len()
    }

    /// The gateways registered now, for questions to each of them.
    #[must_use]
    pub fn gateways(&self) -> Vec<NodeId> {
        self.state.registered()
    }

    /// Number of the last batch to registered gateways in this tenure.
    #[must_use]
    pub fn last_no(&self) -> u64 {
        self.state.fan.lock().no
    }

    fn batch(&self, head: Seq) -> Batch {
        let key = match &self.state.name {
            ConvName::Group(group) => batch::Key::GroupId(group.as_str().to_owned()),
            ConvName::Pair(a, b) => batch::Key::Pair(Pair { a: a.as_str().to_owned(), b: b.as_str().to_owned() }),
        };
        Batch {
            app: self.state.app.0,
            conv: self.state.conv.0,
            tenure: self.state.tenure(),
            epoch: self.state.epoch.0,
            key: Some(key),
            head_seq: head.0,
            published_ms: self.inner.clock.now().0,
            ..Batch::default()
        }
    }

    fn publish_one(&self, mut batch: Batch, audience: &Audience) {
        let head = batch.head_seq;
        let encoded = if audience.is_registered() {
            self.to_registered(&mut batch)
        } else {
            self.state.fan.lock().head = head;
            Bytes::from(batch.encode_to_vec())
        };
        if let Some(users) = audience.named() {
            (batch.records, batch.shaped) = (Vec::new(), Vec::new());
            (batch.no, batch.prev) = (0, 0);
            let announce = Bytes::from(batch.encode_to_vec());
            let direct = Direct { conv: self.state.conv.0, epoch: self.state.epoch.0, batch: encoded, announce };
            self.inner.send_direct(self.state.app, users, direct);
        }
    }

    fn to_registered(&self, batch: &mut Batch) -> Bytes {
        let inner = &self.inner;
        let now = inner.clock.mono();
        let mut fan = self.state.fan.lock();
        fan.no += 1;
        fan.head = batch.head_seq;
        (batch.no, batch.prev) = (fan.no, fan.no - 1);
        let encoded = Bytes::from(batch.encode_to_vec());
        let no = fan.no;
        fan.keep.push(no, now, encoded.clone());
        for registered in fan.registered.values_mut() {
            registered.count.batches += 1;
        }
        inner.metrics.sent.inc_by(fan.registered.len() as u64);
        let envelope = wire::batch_envelope(&encoded, inner.service.name());
        inner.send(subject::fan(&inner.site, self.state.conv), envelope);
        let due = fan.quiet.touched(now);
        drop(fan);
        inner.repeats.add(due, || Which::Stream(Arc::clone(&self.state)));
        encoded
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        let now = self.inner.clock.mono();
        // The queue of repeats removes it once nothing of it can be asked for.
        let due = self.state.fan.lock().quiet.touched(now);
        self.inner.repeats.add(due, || Which::Stream(Arc::clone(&self.state)));
    }
}

impl StreamState {
    /// The tenure is the epoch: it rises whenever the owner changes or restarts, because every activation claims.
    pub(super) fn tenure(&self) -> u64 {
        self.epoch.0
    }

    pub(super) fn group_id(&self) -> String {
        match &self.name {
            ConvName::Group(group) => group.as_str().to_owned(),
            ConvName::Pair(..) => String::new(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn is_group(&self) -> bool {
        matches!(self.name, ConvName::Group(_))
    }

    /// Whether gateways of an owner before may still have to hear of this tenure.
    pub(super) fn is_new(&self, now: Duration) -> bool {
        self.is_group() && now <= self.opened + ANNOUNCE_FOR
    }

    pub(super) fn register(&self, request: &RegisterRequest) -> RegisterReply {
        let gateway = NodeId::trusted(request.gateway.as_str());
        let mut fan = self.fan.lock();
        let (no, head_seq) = (fan.no, fan.head);
        let registered = fan.registered.entry(gateway.clone()).or_insert_with(|| Registered {
            incarnation: request.incarnation,
            registration: request.registration,
            first_no: no,
            count: LinkCount::new(gateway),
        });
        registered.incarnation = registered.incarnation.max(request.incarnation);
        if registered.registration != request.registration {
            (registered.registration, registered.first_no) = (request.registration, no);
        }
        let first_no = registered.first_no;
        RegisterReply { tenure: self.tenure(), no, head_seq, first_no, ..RegisterReply::default() }
    }

    /// Removes a registration; answers where the stream stands and what that gateway was sent.
    pub(super) fn deregister(&self, gateway: &NodeId, incarnation: u64) -> (u64, Option<LinkCount>) {
        let mut fan = self.fan.lock();
        let gone = match fan.registered.get(gateway) {
            Some(registered) if registered.incarnation <= incarnation => fan.registered.remove(gateway),
            _ => None,
        };
        (fan.no, gone.map(|gone| gone.count))
    }

    pub(super) fn missing(&self, from: u64, to: u64, cap: usize) -> MissingReply {
        let fan = self.fan.lock();
        let (found, gone) = fan.keep.range(from, to, cap);
        let batches = found.into_iter().filter_map(|bytes| Batch::decode(bytes).ok()).collect();
        let incomplete = gone && from <= fan.no;
        MissingReply { tenure: self.tenure(), no: fan.no, head_seq: fan.head, batches, incomplete }
    }

    pub(super) fn last_number(&self) -> LastNumber {
        let fan = self.fan.lock();
        LastNumber {
            app: self.app.0,
            conv: self.conv.0,
            group_id: self.group_id(),
            tenure: self.tenure(),
            no: fan.no,
            head_seq: fan.head,
        }
    }

    pub(super) fn on_quiet<T>(&self, act: impl FnOnce(&mut Quiet) -> T) -> T {
        act(&mut self.fan.lock().quiet)
    }

    /// Gateways to repeat the last number to.
    pub(super) fn registered(&self) -> Vec<NodeId> {
        self.fan.lock().registered.keys().cloned().collect()
    }

    pub(super) fn trim(&self, now: Duration) {
        self.fan.lock().keep.trim(now);
    }

    pub(super) fn add_counts(&self, counts: &mut HashMap<NodeId, LinkCount>) {
        for (gateway, registered) in &self.fan.lock().registered {
            let count = counts.entry(gateway.clone()).or_insert_with(|| LinkCount::new(gateway.clone()));
            count.add(&registered.count);
        }
    }
}

/// Cuts records into batches; at least one, which may be empty.
fn split(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for record in records {
        let len = record.encoded_len();
        if size + len > BATCH_BYTES && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += len;
        parts.last_mut().expect("begins with one part").push(record);
    }
    parts
}
