//! The gRPC surface: decode, call, encode; no rules here.

use std::time::Duration;

use async_trait::async_trait;
use linnet_delivery::Registrar;
use linnet_proto::delivery::{RegisterReply, RegisterRequest};
use linnet_proto::messages::messages_server::Messages;
use linnet_proto::messages::{
    AppendReply, AppendRequest, DeleteConversationReply, DeleteConversationRequest, DeleteForUserReply,
    DeleteForUserRequest, FenceReply, FenceRequest, HeadsReply, HeadsRequest, HistoryReply, HistoryRequest, PinReply,
    PinRequest, ReadC2cReply, ReadC2cRequest, ReadGroupReply, ReadGroupRequest, RevokeReply, RevokeRequest,
    SendC2cRequest, SetUnreadReply, SetUnreadRequest, StatsReply, StatsRequest, SyncReply, SyncRequest, TouchReply,
    TouchRequest, UnreadC2cReply, UnreadC2cRequest,
};
use linnet_proto::msg::SendReply;
use linnet_runtime::status;
use linnet_types::{Refusal, code};
use tonic::{Request, Response, Status};

use crate::service::Service;

/// Time given to a caller that names none.
const PATIENCE: Duration = Duration::from_secs(3);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Messages for Service {
    async fn append(&self, request: Request<AppendRequest>) -> Answer<AppendReply> {
        let patience = status::time_left(&request).unwrap_or(PATIENCE);
        Ok(Response::new(self.append_group(request.into_inner(), patience).await?))
    }

    async fn fence(&self, request: Request<FenceRequest>) -> Answer<FenceReply> {
        Ok(Response::new(self.fence_group(request.into_inner()).await?))
    }

    async fn send_c2c(&self, request: Request<SendC2cRequest>) -> Answer<SendReply> {
        Ok(Response::new(Service::send_c2c(self, request.into_inner()).await?))
    }

    async fn read_c2c(&self, request: Request<ReadC2cRequest>) -> Answer<ReadC2cReply> {
        Ok(Response::new(Service::read_c2c(self, request.into_inner()).await?))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Answer<HistoryReply> {
        Ok(Response::new(Service::history(self, request.into_inner()).await?))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Answer<HeadsReply> {
        Ok(Response::new(Service::heads(self, request.into_inner()).await?))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Answer<RevokeReply> {
        Ok(Response::new(Service::revoke(self, request.into_inner()).await?))
    }

    async fn delete_for_user(&self, request: Request<DeleteForUserRequest>) -> Answer<DeleteForUserReply> {
        Ok(Response::new(Service::delete_for_user(self, request.into_inner()).await?))
    }

    async fn sync(&self, request: Request<SyncRequest>) -> Answer<SyncReply> {
        Ok(Response::new(Service::sync(self, request.into_inner()).await?))
    }

    async fn read_group(&self, request: Request<ReadGroupRequest>) -> Answer<ReadGroupReply> {
        Ok(Response::new(Service::read_group(self, request.into_inner()).await?))
    }

    async fn set_unread(&self, request: Request<SetUnreadRequest>) -> Answer<SetUnreadReply> {
        Service::set_unread(self, request.into_inner()).await?;
        Ok(Response::new(SetUnreadReply {}))
    }

    async fn unread_c2c(&self, request: Request<UnreadC2cRequest>) -> Answer<UnreadC2cReply> {
        Ok(Response::new(Service::unread_c2c(self, request.into_inner()).await?))
    }

    async fn pin(&self, request: Request<PinRequest>) -> Answer<PinReply> {
        Service::pin(self, request.into_inner()).await?;
        Ok(Response::new(PinReply {}))
    }

    async fn delete_conversation(
        &self,
        request: Request<DeleteConversationRequest>,
    ) -> Answer<DeleteConversationReply> {
        Service::delete_conversation(self, request.into_inner()).await?;
        Ok(Response::new(DeleteConversationReply {}))
    }

    async fn touch(&self, request: Request<TouchRequest>) -> Answer<TouchReply> {
        Ok(Response::new(Service::touch(self, request.into_inner()).await?))
    }

    async fn stats(&self, _request: Request<StatsRequest>) -> Answer<StatsReply> {
        let links = self.ctx.publisher.links();
        let (link_sent, link_frames) =
            links.iter().fold((0, 0), |sum, link| (sum.0 + link.batches, sum.1 + link.frames));
        Ok(Response::new(StatsReply { link_sent, link_frames, ..self.ctx.meters.stats() }))
    }
}

/// Pairs are delivered to users by name: no gateway registers here.
pub(crate) struct NoRegistration;

#[async_trait]
impl Registrar for NoRegistration {
    async fn on_register(&self, _request: &RegisterRequest) -> Result<RegisterReply, Refusal> {
        Err(Refusal::new(code::MSG_BAD_PARAM, "conversations of two users take no registration"))
    }
}
