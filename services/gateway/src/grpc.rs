//! What other services and operators ask this gateway.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use linnet_delivery::{LinkCount, Receiver};
use linnet_proto::gateway::{
    LeaveRoomReply, LeaveRoomRequest, LiveMember, LiveMembersReply, LiveMembersRequest, StatsReply, StatsRequest,
    WatchEvent, WatchRequest, gateways_server::Gateways,
};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::hub::Hub;

/// Most members of one answer.
const MEMBERS: u32 = 10_000;

pub(crate) struct Grpc(pub(crate) Arc<Hub>);

pub(crate) fn stats(hub: &Hub) -> StatsReply {
    let totals = hub.ledger.totals();
    let gauge = |value: i64| u64::try_from(value).unwrap_or_default();
    let link = hub.receiver.get().map(Receiver::count);
    let link = |term: fn(&LinkCount) -> u64| link.as_ref().map_or(0, term);
    StatsReply {
        connections: gauge(hub.meters.connections.get()),
        signed_in: gauge(hub.meters.signed_in.get()),
        receivers_at_arrival: totals.receivers_at_arrival,
        written: totals.written,
        collapsed: totals.collapsed,
        dropped: totals.dropped,
        connection_closed: totals.connection_closed,
        pending: totals.pending,
        frames_in: hub.meters.frames_in.get(),
        frames_out: hub.ledger.frames_out(),
        bytes_out: hub.ledger.bytes_out(),
        link_batches: link(|count| count.batches),
        link_frames: link(|count| count.frames),
        link_missing_batches: link(|count| count.missing_batches),
        link_missing_frames: link(|count| count.missing_frames),
    }
}

#[tonic::async_trait]
impl Gateways for Grpc {
    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsReply>, Status> {
        Ok(Response::new(stats(&self.0)))
    }

    async fn live_members(&self, ask: Request<LiveMembersRequest>) -> Result<Response<LiveMembersReply>, Status> {
        let ask = ask.into_inner();
        let local = self.0.rooms.local(ask.conv, ask.limit.min(MEMBERS) as usize).unwrap_or_default();
        let member = |inner: linnet_proto::delivery::LiveMember| LiveMember {
            user: inner.user,
            joined_ms: inner.joined_ms,
            platform: inner.platform,
        };
        let members = local.live_members.into_iter().map(member).collect();
        Ok(Response::new(LiveMembersReply { members, count: local.live_count }))
    }

    async fn leave_room(&self, ask: Request<LeaveRoomRequest>) -> Result<Response<LeaveRoomReply>, Status> {
        self.0.rooms.leave_elsewhere(&self.0, &ask.into_inner()).await;
        Ok(Response::new(LeaveRoomReply {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // A watcher that is too slow misses events.
        let events = BroadcastStream::new(self.0.events.watch()).filter_map(|event| async {
            let json = serde_json::to_vec(&event.ok()?).ok()?;
            Some(Ok(WatchEvent { json: json.into() }))
        });
        Ok(Response::new(Box::pin(events)))
    }
}
