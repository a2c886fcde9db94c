//! A model of a gateway and its clients around a real receiver.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use linnet_bus::Bus;
use linnet_cluster::Cluster;
use linnet_delivery::{Delivered, Interest, Local, Locals, Receiver, ReceiverDeps, Which};
use linnet_proto::delivery::{Batch, Record, batch, control, record};
use linnet_runtime::{Clock, Metrics, Rng, Tasks};
use linnet_types::{ConvId, NodeId, SdkAppId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::world::{APP, Conv, Truth};

pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) receiver: Receiver,
    tasks: Tasks,
    truth: Arc<Mutex<Truth>>,
    index: Arc<Index>,
}

/// Local users and, of large conversations, local members.
#[derive(Default)]
struct Index {
    users: Mutex<HashSet<String>>,
    convs: Mutex<HashMap<u64, Members>>,
}

#[derive(Default)]
struct Members {
    present: BTreeSet<String>,
    new: BTreeSet<String>,
}

impl Locals for Index {
    fn local(&self, _: SdkAppId, conv: ConvId, which: Which) -> Local {
        let convs = self.convs.lock();
        let Some(members) = convs.get(&conv.0) else { return Local::default() };
        let present = members.present.iter().filter(|_| which == Which::All);
        Local { members: present.chain(&members.new).cloned().collect(), ..Local::default() }
    }

    fn is_here(&self, _: SdkAppId, user: &str) -> bool {
        self.users.lock().contains(user)
    }
}

impl Gateway {
    pub(crate) async fn start(
        node: NodeId,
        cluster: Cluster,
        bus: Bus,
        (clock, rng, tasks): (Clock, Rng, Tasks),
        truth: Arc<Mutex<Truth>>,
    ) -> Arc<Self> {
        let index = Arc::new(Index::default());
        let deps = ReceiverDeps {
            gateway: node.clone(),
            incarnation: 1,
            site: "here".to_owned(),
            bus,
            cluster,
            clock,
            rng,
            tasks: tasks.clone(),
            metrics: Metrics::new(),
            locals: Arc::clone(&index) as Arc<dyn Locals>,
        };
        let (receiver, delivered) = Receiver::new(deps).await.unwrap();
        let gateway = Arc::new(Self { node, receiver, tasks: tasks.clone(), truth, index });
        tasks.spawn("model-gateway", Arc::clone(&gateway).run(delivered));
        gateway
    }

    /// A user's connection is here from now on: he syncs, and the large conversations he is said to be in are asked about.
    pub(crate) fn sign_in(&self, user: &str) {
        self.index.users.lock().insert(user.to_owned());
        self.sync(user);
    }

    pub(crate) fn forget(&self, user: &str) {
        self.index.users.lock().remove(user);
        for members in self.index.convs.lock().values_mut() {
            members.present.remove(user);
            members.new.remove(user);
        }
    }

    fn sync(&self, user: &str) {
        let mut truth = self.truth.lock();
        let convs: Vec<_> = truth.convs.iter().map(|(id, conv)| (*id, conv.head, conv.large)).collect();
        for (id, head, large) in convs {
            truth.fetch(user, id, head);
            if large && truth.convs[&id].is_member(user) {
                self.said_to_be_in(user, id);
            }
        }
    }

    fn said_to_be_in(&self, user: &str, conv: u64) {
        let mut convs = self.index.convs.lock();
        let members = convs.entry(conv).or_default();
        if members.present.contains(user) || !members.new.insert(user.to_owned()) {
            return;
        }
        drop(convs);
        let receiver = self.receiver.clone();
        let interest = Interest { app: APP, conv: ConvId(conv), group_id: Conv::group(conv) };
        self.tasks.spawn("model-register", async move {
            while receiver.register(interest.clone()).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
    }

    async fn run(self: Arc<Self>, mut delivered: mpsc::Receiver<Delivered>) {
        while let Some(delivered) = delivered.recv().await {
            match delivered {
                Delivered::Batch(batch) if batch.users.is_empty() => self.on_stream(&batch),
                Delivered::Batch(batch) => self.on_direct(&batch),
                Delivered::Registered { interest, reply, checked, .. } => {
                    let conv = interest.conv.0;
                    let mut entered = Vec::new();
                    {
                        let mut convs = self.index.convs.lock();
                        let members = convs.entry(conv).or_default();
                        for user in checked {
                            if reply.not_members.contains(&user) {
                                members.present.remove(&user);
                                members.new.remove(&user);
                            } else if members.new.remove(&user) && members.present.insert(user.clone()) {
                                entered.push(user);
                            }
                        }
                    }
                    let mut truth = self.truth.lock();
                    entered.iter().for_each(|user| truth.heard(user, conv, reply.head_seq));
                }
                Delivered::Advanced { interest, head_seq } => {
                    for user in self.members(interest.conv.0) {
                        self.truth.lock().heard(&user, interest.conv.0, head_seq.0);
                    }
                }
                Delivered::Resync { .. } => {
                    let users: Vec<_> = self.index.users.lock().iter().cloned().collect();
                    users.iter().for_each(|user| self.sync(user));
                }
                Delivered::Closed { .. } | Delivered::Kick(_) => {}
            }
        }
    }

    fn members(&self, conv: u64) -> Vec<String> {
        let convs = self.index.convs.lock();
        convs.get(&conv).map(|members| members.present.iter().cloned().collect()).unwrap_or_default()
    }

    fn on_stream(&self, batch: &Batch) {
        for record in &batch.records {
            match kind(record) {
                record::Kind::Message(message) => {
                    for user in self.members(batch.conv) {
                        self.truth.lock().live(&user, batch.conv, message.seq);
                    }
                }
                record::Kind::Control(control) => match control.kind.as_ref().unwrap() {
                    control::Kind::Kicked(kicked) => {
                        let user = &kicked.users[0];
                        let mut convs = self.index.convs.lock();
                        if let Some(members) = convs.get_mut(&batch.conv)
                            && members.present.remove(user)
                        {
                            self.told_of_kick(user, batch);
                        }
                    }
                    control::Kind::Joined(joined) => {
                        let user = &joined.users[0];
                        if self.index.users.lock().contains(user) {
                            let mut convs = self.index.convs.lock();
                            let members = convs.entry(batch.conv).or_default();
                            members.new.remove(user);
                            members.present.insert(user.clone());
                        }
                    }
                    other => panic!("unexpected {other:?}"),
                },
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn on_direct(&self, batch: &Batch) {
        for user in batch.users.iter().filter(|user| self.index.users.lock().contains(*user)) {
            assert!(self.truth.lock().is_at(user, &self.node), "the model forgets users who moved");
            for record in &batch.records {
                match kind(record) {
                    record::Kind::Message(message) => self.truth.lock().live(user, batch.conv, message.seq),
                    record::Kind::Control(control) => {
                        if let Some(control::Kind::Kicked(kicked)) = &control.kind
                            && kicked.users.contains(user)
                        {
                            self.told_of_kick(user, batch);
                        }
                    }
                    record::Kind::Changed(changed) => {
                        let conv = changed.conv.parse().unwrap();
                        if self.truth.lock().convs[&conv].large {
                            self.said_to_be_in(user, conv);
                        }
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            if batch.register {
                self.said_to_be_in(user, batch.conv);
            }
            if !matches!(batch.key, Some(batch::Key::User(_))) && batch.records.is_empty() {
                self.truth.lock().heard(user, batch.conv, batch.head_seq);
            }
        }
    }

    fn told_of_kick(&self, user: &str, batch: &Batch) {
        let mut truth = self.truth.lock();
        let client = truth.clients.entry(user.to_owned()).or_default();
        let kick = client.kicked_at.entry(batch.conv).or_default();
        *kick = (*kick).max(batch.head_seq);
    }
}

fn kind(record: &Record) -> &record::Kind {
    record.kind.as_ref().unwrap()
}
