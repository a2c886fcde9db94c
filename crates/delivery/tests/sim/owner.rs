//! A model of an owner: what it stores is in the world's truth, what it publishes goes through a real publisher.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use linnet_bus::Bus;
use linnet_cluster::{Cluster, RouteKey, Service};
use linnet_delivery::{Audience, ConvName, PublishOptions, Publisher, PublisherDeps, Registrar, Stream};
use linnet_proto::delivery::{Changed, Control, Membership, Record, RegisterReply, RegisterRequest, control, record};
use linnet_proto::msg::Message;
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{ConvId, Epoch, NodeId, Refusal, Seq, UserId, code};
use parking_lot::Mutex;

use crate::world::{APP, Conv, Truth, note};

pub(crate) struct Owner {
    pub(crate) node: NodeId,
    pub(crate) publisher: Publisher,
    cluster: Cluster,
    truth: Arc<Mutex<Truth>>,
    open: Mutex<HashMap<u64, (u64, Arc<Stream>)>>,
}

fn message(seq: u64) -> Record {
    record(record::Kind::Message(Message { seq, body: "[]".into(), ..Message::default() }))
}

fn control(kind: control::Kind) -> Record {
    record(record::Kind::Control(Control { kind: Some(kind) }))
}

fn record(kind: record::Kind) -> Record {
    Record { kind: Some(kind), ..Record::default() }
}

fn only(user: &str) -> Membership {
    Membership { users: vec![user.to_owned()] }
}

impl Owner {
    pub(crate) fn start(
        node: NodeId,
        cluster: Cluster,
        bus: Bus,
        (clock, rng, tasks): (Clock, Rng, Tasks),
        truth: Arc<Mutex<Truth>>,
    ) -> Arc<Self> {
        let publisher = Publisher::new(PublisherDeps {
            node: node.clone(),
            incarnation: 1,
            service: Service::Group,
            site: "here".to_owned(),
            bus,
            cluster: cluster.clone(),
            clock,
            rng,
            tasks,
            metrics: Metrics::new(),
        });
        Arc::new(Self { node, publisher, cluster, truth, open: Mutex::default() })
    }

    pub(crate) fn routes(self: &Arc<Self>) -> tonic::service::Routes {
        self.publisher.routes(Arc::new(Hook(Arc::clone(self))))
    }

    /// Claims the conversation unless this node holds its newest epoch.
    pub(crate) fn activate(&self, conv: u64) {
        self.stream(&mut self.truth.lock(), conv);
    }

    fn stream(&self, truth: &mut Truth, conv: u64) -> Arc<Stream> {
        let mut open = self.open.lock();
        let held = truth.convs.get_mut(&conv).unwrap();
        if let Some((epoch, stream)) = open.get(&conv)
            && *epoch == held.epoch
        {
            return Arc::clone(stream);
        }
        held.epoch += 1;
        note(conv, || format!("{} claims {} at {} for {:?}", self.node, held.epoch, held.head, held.members()));
        let name = ConvName::Group(Conv::group(conv));
        let stream = self.publisher.open(APP, ConvId(conv), name, Epoch(held.epoch), Seq(held.head));
        if !held.large || held.crossing {
            stream.announce(Seq(held.head), &Audience::users(held.members()));
        }
        let stream = Arc::new(stream);
        open.insert(conv, (held.epoch, Arc::clone(&stream)));
        stream
    }

    fn publish(id: u64, conv: &Conv, stream: &Stream, records: Vec<Record>, users: Vec<UserId>) {
        note(id, || format!("published at {}: {records:?}", conv.head));
        let options = PublishOptions { register: conv.crossing, ..PublishOptions::default() };
        stream.publish(records, Seq(conv.head), &conv.audience(users), options);
    }

    pub(crate) fn send(&self, id: u64) {
        let mut truth = self.truth.lock();
        let stream = self.stream(&mut truth, id);
        let conv = truth.convs.get_mut(&id).unwrap();
        conv.head += 1;
        Self::publish(id, conv, &stream, vec![message(conv.head)], conv.members());
    }

    pub(crate) fn kick(&self, id: u64, user: &UserId) {
        let mut truth = self.truth.lock();
        truth.kicks += 1;
        let stream = self.stream(&mut truth, id);
        let conv = truth.convs.get_mut(&id).unwrap();
        let users = conv.members();
        let head = conv.head;
        conv.spans.get_mut(user.as_str()).unwrap().last_mut().unwrap().1 = Some(head);
        let record = control(control::Kind::Kicked(only(user.as_str())));
        Self::publish(id, conv, &stream, vec![record], users);
    }

    pub(crate) fn join(&self, id: u64, user: &str) {
        let mut truth = self.truth.lock();
        let stream = self.stream(&mut truth, id);
        let conv = truth.convs.get_mut(&id).unwrap();
        let head = conv.head;
        conv.spans.entry(user.to_owned()).or_default().push((head, None));
        Self::publish(id, conv, &stream, vec![control(control::Kind::Joined(only(user)))], conv.members());
        let changed = Changed { what: "joined".into(), conv: id.to_string(), seq: head };
        self.publisher.notify_user(APP, &UserId::trusted(user), vec![record(record::Kind::Changed(changed))]);
    }

    pub(crate) fn store_unpublished(&self, id: u64) {
        let mut truth = self.truth.lock();
        let stream = self.stream(&mut truth, id);
        let conv = truth.convs.get_mut(&id).unwrap();
        if conv.unpublished.is_some() {
            return;
        }
        conv.head += 1;
        note(id, || format!("{} stores {}", self.node, conv.head));
        let seq = conv.head;
        conv.unpublished = Some((stream, seq, conv.members()));
        // Somebody else claims before it can publish.
        conv.epoch += 1;
    }

    pub(crate) fn publish_late(&self, id: u64) {
        let mut truth = self.truth.lock();
        let conv = truth.convs.get_mut(&id).unwrap();
        let Some((stream, seq, users)) = conv.unpublished.take() else { return };
        stream.publish(vec![message(seq)], Seq(seq), &conv.audience(users), PublishOptions::default());
        note(id, || format!("{} publishes {seq} late", self.node));
        truth.late += 1;
        drop(truth);
        self.activate(id);
    }

    fn on_register(&self, request: &RegisterRequest) -> Result<RegisterReply, Refusal> {
        if !self.cluster.owns(Service::Group, RouteKey::group(APP, &Conv::group(request.conv))) {
            return Err(Refusal::retry(code::BUSY, "not the owner", 50));
        }
        let mut truth = self.truth.lock();
        let stream = self.stream(&mut truth, request.conv);
        let conv = &truth.convs[&request.conv];
        let gone = request.members.iter().filter(|user| !conv.is_member(user));
        let not_members = gone.cloned().collect();
        Ok(RegisterReply { not_members, ..stream.register(request) })
    }
}

struct Hook(Arc<Owner>);

#[async_trait]
impl Registrar for Hook {
    async fn on_register(&self, request: &RegisterRequest) -> Result<RegisterReply, Refusal> {
        self.0.on_register(request)
    }
}
