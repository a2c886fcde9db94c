//! Health at one glance: every node asked, counters summed, laws checked.

use std::future::Future;

use axum::Json;
use axum::extract::State;
use linnet_cluster::{Cluster, Rpc, Service};
use linnet_proto::gateway::{self, gateways_client::GatewaysClient};
use linnet_proto::group::{self, groups_client::GroupsClient};
use linnet_proto::messages::{self, messages_client::MessagesClient};
use linnet_runtime::status;
use serde_json::{Value, json};
use tonic::Status;

use super::{Admin, Answer, CALL, Shared, webhook_counts};

/// Nodes that did not answer, by `service node`.
#[derive(Default)]
struct Silent(Vec<String>);

impl Silent {
    /// Asks every node of a service and adds what they say.
    async fn sum<T, F>(&mut self, admin: &Admin, service: Service, ask: fn(Rpc) -> F, add: fn(&mut T, &T)) -> T
    where
        T: Default,
        F: Future<Output = Result<T, Status>>,
    {
        let asked = admin.cluster.nodes(service).into_iter().map(|node| async move {
            let rpc = admin.cluster.for_node(service, &node).map_err(|why| status::to_status(&why));
            let reply = match rpc {
                Ok(rpc) => ask(rpc).await,
                Err(why) => Err(why),
            };
            (node, reply)
        });
        let mut total = T::default();
        for (node, reply) in futures::future::join_all(asked).await {
            match reply {
                Ok(reply) => add(&mut total, &reply),
                Err(_) => self.0.push(format!("{service} {node}")),
            }
        }
        total
    }
}

async fn message_owner(rpc: Rpc) -> Result<messages::StatsReply, Status> {
    let request = status::with_deadline(messages::StatsRequest {}, CALL);
    Ok(MessagesClient::new(rpc).stats(request).await?.into_inner())
}

async fn group_owner(rpc: Rpc) -> Result<group::StatsReply, Status> {
    let request = status::with_deadline(group::StatsRequest {}, CALL);
    Ok(GroupsClient::new(rpc).stats(request).await?.into_inner())
}

async fn gateway_node(rpc: Rpc) -> Result<gateway::StatsReply, Status> {
    let request = status::with_deadline(gateway::StatsRequest {}, CALL);
    Ok(GatewaysClient::new(rpc).stats(request).await?.into_inner())
}

/// Adds each named field of the second to the first.
macro_rules! add {
    ($total:ident, $one:ident: $($field:ident),+ $(,)?) => { $( $total.$field += $one.$field; )+ };
}

fn add_messages(total: &mut messages::StatsReply, one: &messages::StatsReply) {
    add!(total, one: arrived, stored, published_only, shaped, refused, dropped_by_webhook, duplicate, unknown_outcome,
        pending, open_logs, link_sent, link_frames);
}

fn add_group(total: &mut group::StatsReply, one: &group::StatsReply) {
    add!(total, one: arrived, stored, published_only, shaped, refused, dropped_by_webhook, duplicate, unknown_outcome,
        pending, active_groups, link_sent, link_frames);
}

fn add_gateway(total: &mut gateway::StatsReply, one: &gateway::StatsReply) {
    add!(total, one: connections, signed_in, receivers_at_arrival, written, collapsed, dropped, connection_closed,
        pending, frames_in, frames_out, bytes_out, link_batches, link_frames, link_missing_batches, link_missing_frames);
}

/// The live nodes as this one sees them.
fn nodes(cluster: &Cluster) -> Vec<Value> {
    let snapshot = cluster.snapshot();
    let shown = |node: &linnet_cluster::Node| {
        let services: Vec<_> = node.services.iter().map(|service| service.name()).collect();
        json!({
            "node": node.id.as_str(), "services": services, "address": node.address, "incarnation": node.incarnation,
            "capabilities": node.capabilities,
        })
    };
    snapshot.nodes().map(shown).collect()
}

/// Everything at one glance, over all nodes, with the accounting laws term by term. A node that does not answer is left
/// out and named.
pub(super) async fn overview(State(admin): Shared) -> Answer {
    let mut silent = Silent::default();
    let owner = silent.sum(&admin, Service::MessageStore, message_owner, add_messages).await;
    let group = silent.sum(&admin, Service::Group, group_owner, add_group).await;
    let gateway = silent.sum(&admin, Service::Gateway, gateway_node, add_gateway).await;
    let c2c = Law::of([
        ("arrived", owner.arrived),
        ("stored", owner.stored),
        ("published_only", owner.published_only),
        ("shaped", owner.shaped),
        ("refused", owner.refused),
        ("dropped_by_webhook", owner.dropped_by_webhook),
        ("duplicate", owner.duplicate),
        ("unknown_outcome", owner.unknown_outcome),
        ("pending", owner.pending),
    ]);
    let groups = Law::of([
        ("arrived", group.arrived),
        ("stored", group.stored),
        ("published_only", group.published_only),
        ("shaped", group.shaped),
        ("refused", group.refused),
        ("dropped_by_webhook", group.dropped_by_webhook),
        ("duplicate", group.duplicate),
        ("unknown_outcome", group.unknown_outcome),
        ("pending", group.pending),
    ]);
    let delivered = Law::of([
        ("receivers_at_arrival", gateway.receivers_at_arrival),
        ("written", gateway.written),
        ("collapsed", gateway.collapsed),
        ("dropped", gateway.dropped),
        ("connection_closed", gateway.connection_closed),
        ("pending", gateway.pending),
    ]);
    let link = Links::of(&group, &owner, &gateway);
    let unaccounted = c2c.gap() + groups.gap() + delivered.gap();
    let webhooks = webhook_counts(&admin, 0).await?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": admin.cluster.me().as_str(),
        "nodes": nodes(&admin.cluster),
        "silent": silent.0,
        "uptime_s": admin.clock.now().since(admin.started) / 1000,
        "ready_ms": admin.ready_ms,
        "recovered": admin.recovered,
        "connections": gateway.connections,
        "online": gateway.signed_in,
        "frames_in": gateway.frames_in,
        "frames_out": gateway.frames_out,
        "bytes_out": gateway.bytes_out,
        "open_logs": owner.open_logs,
        "active_groups": group.active_groups,
        "laws": {
            "owner_c2c": c2c.shown(), "owner_group": groups.shown(), "gateway": delivered.shown(),
            "link_batches": link.batches, "link_frames": link.frames,
        },
        "unaccounted": unaccounted,
        "webhooks": webhooks,
    })))
}

/// One accounting law: the first term equals the sum of the others.
struct Law<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Law<N> {
    fn of(terms: [(&'static str, u64); N]) -> Self {
        Self(terms)
    }
    /// How far it is from exact.
    fn gap(&self) -> u64 {
        let sum: u64 = self.0[1..].iter().map(|(_, value)| value).sum();
        self.0[0].1.abs_diff(sum)
    }
    fn shown(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
    }
}

/// The link law: sent = received + reported missing, plus what is on its way at this moment, which is why a gap here is
/// no loss until the streams are quiet. In one process no gateway dies alone.
struct Links {
    batches: Value,
    frames: Value,
}

impl Links {
    fn of(group: &group::StatsReply, owner: &messages::StatsReply, gateway: &gateway::StatsReply) -> Self {
        let terms = |sent: u64, received: u64, missing: u64| json!({ "sent": sent, "received": received, "reported_missing": missing });
        Self {
            batches: terms(group.link_sent + owner.link_sent, gateway.link_batches, gateway.link_missing_batches),
            frames: terms(group.link_frames + owner.link_frames, gateway.link_frames, gateway.link_missing_frames),
        }
    }
}
