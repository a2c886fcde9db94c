//! The gRPC face: decode, call, encode. No rules here.

use std::sync::Arc;

use async_trait::async_trait;
use linnet_delivery::Registrar;
use linnet_proto::delivery::{DeregisterRequest, RegisterReply, RegisterRequest};
use linnet_proto::group::groups_server::Groups;
use linnet_proto::group::*;
use linnet_proto::msg::SendReply;
use linnet_runtime::status;
use linnet_types::{GroupId, Refusal, SdkAppId, UserId};
use tonic::{Request, Response, Status};

use crate::error::{Result, bad};
use crate::group::Group;
use crate::hub::Call;
use crate::limits;
use crate::shared::Shared;

/// The services of this node.
#[derive(Clone)]
pub(crate) struct Grpc {
    pub(crate) shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|refusal| status::to_status(&refusal))
}

impl Grpc {
    /// Runs `work` in the group's actor.
    async fn run<T, F>(&self, app: u32, group: &str, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Group) -> Call<'a, T> + Send + 'static,
    {
        answer(async { self.shared.call(SdkAppId(app), &GroupId::parse(group)?, work).await }.await)
    }
}

#[async_trait]
impl Groups for Grpc {
    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateReply> {
        answer(Box::pin(self.shared.create(request.into_inner())).await)
    }

    async fn destroy(&self, request: Request<DestroyRequest>) -> Answer<DestroyReply> {
        let request = request.into_inner();
        let origin = request.origin.unwrap_or_default();
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move { group.destroy(&origin).await.map(|()| DestroyReply {}) })
        })
        .await
    }

    async fn info(&self, request: Request<InfoRequest>) -> Answer<InfoReply> {
        let request = request.into_inner();
        let myself = request.self_;
        let app = SdkAppId(request.app);
        let mut reply = self
            .run(request.app, &request.group_id, move |group| Box::pin(async move { group.info(&myself).await }))
            .await?;
        let InfoReply { group, self_ } = reply.get_mut();
        let conv = group.as_ref().map_or(0, |group| group.conv);
        self.shared.fill_read(app, conv, self_.as_mut_slice()).await;
        Ok(reply)
    }

    async fn modify(&self, request: Request<ModifyRequest>) -> Answer<ModifyReply> {
        let request = request.into_inner();
        let (app, id) = (request.app, request.group_id.clone());
        let origin = request.origin.clone().unwrap_or_default();
        let people = self.shared.names_with(SdkAppId(app), &[], &origin).await;
        self.run(app, &id, move |group| {
            Box::pin(async move { group.modify(request, &people).await.map(|()| ModifyReply {}) })
        })
        .await
    }

    async fn change_owner(&self, request: Request<ChangeOwnerRequest>) -> Answer<ChangeOwnerReply> {
        let request = request.into_inner();
        let origin = request.origin.unwrap_or_default();
        let Ok(to) = UserId::parse(&request.new_owner) else {
            return answer(Err(bad("NewOwner_Account cannot be an account")));
        };
        let people = self.shared.names_with(SdkAppId(request.app), std::slice::from_ref(&to), &origin).await;
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move { group.change_owner(&to, &origin, &people).await.map(|()| ChangeOwnerReply {}) })
        })
        .await
    }

    async fn members(&self, request: Request<MembersRequest>) -> Answer<MembersReply> {
        let request = request.into_inner();
        let (app, id) = (request.app, request.group_id.clone());
        let (conv, mut reply) = self
            .shared
            .call(SdkAppId(app), &GroupId::parse(&id).map_err(|refusal| status::to_status(&refusal))?, move |group| {
                Box::pin(async move { Ok((group.conv(), group.members(&request).await?)) })
            })
            .await
            .map_err(|refusal| status::to_status(&refusal))?;
        self.shared.fill_read(SdkAppId(app), conv, &mut reply.members).await;
        answer(Ok(reply))
    }

    async fn roles(&self, request: Request<RolesRequest>) -> Answer<RolesReply> {
        answer(self.shared.roles(request.into_inner()).await.map(|roles| RolesReply { roles }))
    }

    async fn add_members(&self, request: Request<AddMembersRequest>) -> Answer<AddMembersReply> {
        answer(self.shared.add_members(request.into_inner()).await)
    }

    async fn remove_members(&self, request: Request<RemoveMembersRequest>) -> Answer<RemoveMembersReply> {
        answer(self.shared.remove_members(request.into_inner()).await.map(|()| RemoveMembersReply {}))
    }

    async fn modify_member(&self, request: Request<ModifyMemberRequest>) -> Answer<ModifyMemberReply> {
        answer(self.shared.modify_member(request.into_inner()).await.map(|()| ModifyMemberReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinReply> {
        answer(self.shared.join(request.into_inner()).await)
    }

    async fn quit(&self, request: Request<QuitRequest>) -> Answer<QuitReply> {
        let request = request.into_inner();
        let origin = request.origin.unwrap_or_default();
        let user = UserId::trusted(request.user);
        let people = self.shared.names(SdkAppId(request.app), std::slice::from_ref(&user)).await;
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move { group.quit(&user, &origin, &people).await.map(|()| QuitReply {}) })
        })
        .await
    }

    async fn applications(&self, request: Request<ApplicationsRequest>) -> Answer<ApplicationsReply> {
        let request = request.into_inner();
        let origin = request.origin.unwrap_or_default();
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move {
                let applications = group.applications(&origin).await?;
                Ok(ApplicationsReply { applications })
            })
        })
        .await
    }

    async fn handle_application(&self, request: Request<HandleApplicationRequest>) -> Answer<HandleApplicationReply> {
        answer(self.shared.handle_application(request.into_inner()).await.map(|()| HandleApplicationReply {}))
    }

    async fn mute(&self, request: Request<MuteRequest>) -> Answer<MuteReply> {
        answer(self.shared.mute(request.into_inner()).await.map(|()| MuteReply {}))
    }

    async fn muted(&self, request: Request<MutedRequest>) -> Answer<MutedReply> {
        let request = request.into_inner();
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move { Ok(MutedReply { muted: group.muted().await? }) })
        })
        .await
    }

    async fn ban(&self, request: Request<BanRequest>) -> Answer<BanReply> {
        answer(self.shared.ban(request.into_inner()).await.map(|()| BanReply {}))
    }

    async fn unban(&self, request: Request<UnbanRequest>) -> Answer<BanReply> {
        answer(self.shared.unban(request.into_inner()).await.map(|()| BanReply {}))
    }

    async fn banned(&self, request: Request<BannedRequest>) -> Answer<BannedReply> {
        let request = request.into_inner();
        let limit = if request.limit == 0 { limits::BANNED_PAGE } else { request.limit as usize };
        if limit > limits::BANNED_PAGE {
            return answer(Err(bad("Limit is at most 100")));
        }
        let offset = request.offset as usize;
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move {
                let (banned, next_offset) = group.banned(offset, limit)?;
                Ok(BannedReply { banned, next_offset })
            })
        })
        .await
    }

    async fn send(&self, request: Request<SendRequest>) -> Answer<SendReply> {
        answer(self.shared.send(request.into_inner()).await)
    }

    async fn recall(&self, request: Request<RecallRequest>) -> Answer<RecallReply> {
        let request = request.into_inner();
        if let Err(refusal) = check_recall(&request) {
            return answer(Err(refusal));
        }
        let (app, id) = (request.app, request.group_id.clone());
        self.run(app, &id, move |group| {
            Box::pin(async move { Ok(RecallReply { codes: group.recall(&request).await? }) })
        })
        .await
    }

    async fn notify(&self, request: Request<NotifyRequest>) -> Answer<NotifyReply> {
        let request = request.into_inner();
        let (app, id) = (request.app, request.group_id.clone());
        self.run(app, &id, move |group| {
            Box::pin(async move { group.notice_all(&request).await.map(|()| NotifyReply {}) })
        })
        .await
    }

    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Answer<AuthorizeReply> {
        let request = request.into_inner();
        let (app, id) = (request.app, request.group_id.clone());
        self.run(app, &id, move |group| Box::pin(async move { group.authorize(&request).await })).await
    }

    async fn live_delta(&self, request: Request<LiveDeltaRequest>) -> Answer<LiveDeltaReply> {
        let request = request.into_inner();
        let (app, id) = (request.app, request.group_id.clone());
        self.run(app, &id, move |group| Box::pin(async move { Ok(group.live_delta(&request)) })).await
    }

    async fn online_count(&self, request: Request<OnlineCountRequest>) -> Answer<OnlineCountReply> {
        let request = request.into_inner();
        self.run(request.app, &request.group_id, move |group| {
            Box::pin(async move {
                let live = group.live.as_ref();
                Ok(OnlineCountReply { online: live.map_or(0, |live| live.online()), not_live: live.is_none() })
            })
        })
        .await
    }

    async fn joined(&self, request: Request<JoinedRequest>) -> Answer<JoinedReply> {
        answer(self.shared.joined(request.into_inner()).await)
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListReply> {
        answer(self.shared.list(request.into_inner()).await)
    }

    async fn forget(&self, request: Request<ForgetRequest>) -> Answer<ForgetReply> {
        let request = request.into_inner();
        let user = UserId::trusted(request.user);
        answer(self.shared.forget(SdkAppId(request.app), &user).await.map(|()| ForgetReply {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Answer<StatsReply> {
        let links = self.shared.publisher.links();
        let (link_sent, link_frames) =
            links.iter().fold((0, 0), |sum, link| (sum.0 + link.batches, sum.1 + link.frames));
        let stats = StatsReply { link_sent, link_frames, ..self.shared.law.stats() };
        answer(Ok(stats))
    }
}

fn check_recall(request: &RecallRequest) -> Result<()> {
    limits::text("Reason", &request.reason, limits::RECALL_REASON_BYTES)?;
    if request.seqs.is_empty() || request.seqs.len() > limits::RECALLS {
        return Err(bad("MsgSeqList must hold 1 to 10 messages"));
    }
    Ok(())
}

#[async_trait]
impl Registrar for Grpc {
    async fn on_register(&self, request: &RegisterRequest) -> Result<RegisterReply, Refusal> {
        let id = GroupId::parse(&request.group_id)?;
        let (app, request) = (SdkAppId(request.app), request.clone());
        self.shared.call(app, &id, move |group| Box::pin(async move { group.register(&request).await })).await
    }

    async fn on_deregister(&self, request: &DeregisterRequest) {
        let Ok(id) = GroupId::parse(&request.group_id) else { return };
        let (gateway, incarnation) = (request.gateway.clone(), request.incarnation);
        let left = self.shared.call(SdkAppId(request.app), &id, move |group| {
            Box::pin(async move {
                group.deregister(&gateway, incarnation);
                Ok(())
            })
        });
        if let Err(refusal) = left.await {
            tracing::debug!(%refusal, "a gateway left a group that is not here");
        }
    }
}
