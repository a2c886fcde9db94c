//! What gateways ask an owner.

use std::sync::Arc;

use linnet_proto::delivery::delivery_server::Delivery;
use linnet_proto::delivery::{
    DeregisterReply, DeregisterRequest, MissingFramesReply, MissingFramesRequest, MissingReply, MissingRequest,
    MovedReply, MovedRequest, RegisterReply, RegisterRequest,
};
use linnet_runtime::status::to_status;
use linnet_types::{NodeId, Refusal, code};
use tonic::{Request, Response, Status};

use super::{Inner, Registrar};
use crate::remote;

/// Bytes of batches in one answer; the rest is asked for again. Below the 4 MB a gRPC message may have.
const REPLY_BYTES: usize = 1 << 20;

/// Users named in one `Moved`.
const MOVED_MAX: usize = 500;

/// The `Delivery` service of one publisher.
pub struct Grpc {
    inner: Arc<Inner>,
    registrar: Arc<dyn Registrar>,
}

impl Grpc {
    pub(super) fn new(inner: Arc<Inner>, registrar: Arc<dyn Registrar>) -> Self {
        Self { inner, registrar }
    }
}

#[tonic::async_trait]
impl Delivery for Grpc {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let request = request.into_inner();
        let mut reply = self.registrar.on_register(&request).await.map_err(|refusal| to_status(&refusal))?;
        if reply.tenure == 0 {
            // The registrar only gave its consent.
            let Some(stream) = self.inner.stream(request.app, request.conv) else {
                return Err(to_status(&Refusal::retry(code::BUSY, "the conversation is not open here", 100)));
            };
            let place = stream.register(&request);
            reply = RegisterReply {
                tenure: place.tenure,
                no: place.no,
                head_seq: place.head_seq,
                first_no: place.first_no,
                ..reply
            };
        }
        Ok(Response::new(reply))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterReply>, Status> {
        let request = request.into_inner();
        let gateway = NodeId::trusted(request.gateway.as_str());
        let mut reply = DeregisterReply::default();
        if let Some(stream) = self.inner.stream(request.app, request.conv) {
            let (no, count) = stream.deregister(&gateway, request.incarnation);
            if let Some(count) = count {
                self.inner.count_closed(count);
            }
            reply = DeregisterReply { tenure: stream.tenure(), no };
        }
        self.registrar.on_deregister(&request).await;
        Ok(Response::new(reply))
    }

    async fn missing(&self, request: Request<MissingRequest>) -> Result<Response<MissingReply>, Status> {
        let request = request.into_inner();
        let reply = match self.inner.stream(request.app, request.conv) {
            Some(stream) if stream.tenure() == request.tenure => {
                stream.missing(request.from_no, request.to_no, REPLY_BYTES)
            }
            // Another tenure, or none: its numbers are no use to the gateway, which registers again.
            Some(stream) => MissingReply { incomplete: true, batches: Vec::new(), ..stream.missing(1, 0, 0) },
            None => MissingReply { incomplete: true, ..MissingReply::default() },
        };
        self.inner.metrics.resent.inc_by(reply.batches.len() as u64);
        Ok(Response::new(reply))
    }

    async fn missing_frames(
        &self,
        request: Request<MissingFramesRequest>,
    ) -> Result<Response<MissingFramesReply>, Status> {
        let request = request.into_inner();
        if request.incarnation != self.inner.incarnation {
            let reply =
                MissingFramesReply { incarnation: self.inner.incarnation, incomplete: true, ..Default::default() };
            return Ok(Response::new(reply));
        }
        let gateway = NodeId::trusted(request.gateway.as_str());
        let mut reply = self.inner.direct.missing(&gateway, request.from_no, request.to_no, REPLY_BYTES);
        reply.incarnation = self.inner.incarnation;
        self.inner.metrics.resent.inc_by(reply.frames.len() as u64);
        Ok(Response::new(reply))
    }

    async fn moved(&self, request: Request<MovedRequest>) -> Result<Response<MovedReply>, Status> {
        let request = request.into_inner();
        let gateway = NodeId::trusted(request.gateway);
        let users = request.users.iter().take(MOVED_MAX).map(|user| remote::key(request.app, user));
        self.inner.moved(&gateway, users);
        Ok(Response::new(MovedReply {}))
    }
}
