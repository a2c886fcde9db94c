//! What any node answers: the groups of a user, the groups of an app, and an account that leaves everything.

use linnet_cluster::{RouteKey, Service};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::{
    InfoReply, InfoRequest, JoinedGroup, JoinedReply, JoinedRequest, ListReply, ListRequest, Member,
    RemoveMembersRequest,
};
use linnet_proto::msg::Origin;
use linnet_runtime::status;
use linnet_store::groups::Joined;
use linnet_types::{ConvId, GroupId, GroupType, SdkAppId, UserId, code};

use crate::error::{Result, bad, from_store};
use crate::shared::Shared;

/// Most ids of one page of an app's groups.
const LIST: u32 = 10_000;
/// Groups looked at concurrently.
const AT_ONCE: usize = 16;
const CALL: std::time::Duration = std::time::Duration::from_secs(2);

impl Shared {
    /// The groups of a user, by conversation.
    pub(crate) async fn joined(&self, request: JoinedRequest) -> Result<JoinedReply> {
        use futures::{StreamExt as _, TryStreamExt as _};
        let app = SdkAppId(request.app);
        let user = UserId::parse(&request.user)?;
        let kind = kind_filter(&request.r#type)?;
        let settings = self.app(app).await?.settings.clone();
        let mut joined = self.groups.joined(app, &user).await.map_err(|error| from_store(&error).0)?;
        joined.retain(|group| kind.is_none_or(|kind| kind == group.kind));
        if settings.work_activation && !request.with_inactive {
            joined = self.only_active(app, joined).await?;
        }
        let total = u32::try_from(joined.len()).unwrap_or(u32::MAX);
        let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
        let page: Vec<Joined> = joined.into_iter().skip(request.offset as usize).take(limit).collect();
        let shown = futures::stream::iter(page)
            .map(|group| self.show(app, &user, group, request.with_info))
            .buffered(AT_ONCE)
            .filter_map(|shown| std::future::ready(shown.transpose()))
            .try_collect()
            .await?;
        Ok(JoinedReply { groups: shown, total })
    }

    /// Leaves out Work groups whose owner has not spoken, unless the user is their owner.
    async fn only_active(&self, app: SdkAppId, joined: Vec<Joined>) -> Result<Vec<Joined>> {
        let mut active = Vec::with_capacity(joined.len());
        for group in joined {
            if group.kind == GroupType::Work && group.role != linnet_types::Role::Owner {
                let record = self.groups.read(app, group.conv).await.map_err(|error| from_store(&error).0)?;
                if !record.is_some_and(|record| record.activated && record.destroyed.is_none()) {
                    continue;
                }
            }
            active.push(group);
        }
        Ok(active)
    }

    /// `None`: not a member any more, or no such group, says the group itself. One that cannot be asked now is not left
    /// out: whoever asks would take it for one the user is not in.
    async fn show(&self, app: SdkAppId, user: &UserId, joined: Joined, with_info: bool) -> Result<Option<JoinedGroup>> {
        let mut shown = JoinedGroup {
            group_id: joined.group.to_string(),
            conv: joined.conv.0,
            r#type: joined.kind.wire().to_owned(),
            floor_seq: joined.visible_from.0.saturating_sub(1),
            join_ord: joined.join_ord,
            join_seq: joined.join_seq.0,
            ..JoinedGroup::default()
        };
        if with_info {
            let info = match self.info_of(app, &joined.group, user).await {
                Ok(info) => info,
                Err(refusal) if refusal.retry_after_ms.is_some() => return Err(refusal),
                Err(_) => return Ok(None),
            };
            shown.group = info.group;
            let Some(member) = info.self_ else { return Ok(None) };
            shown.self_ = Some(member);
        }
        Ok(Some(shown))
    }

    async fn info_of(&self, app: SdkAppId, group: &GroupId, user: &UserId) -> Result<InfoReply> {
        let rpc = self.cluster.for_owner(Service::Group, RouteKey::group(app, group))?;
        let request = InfoRequest { app: app.0, group_id: group.to_string(), self_: user.to_string() };
        let reply = GroupsClient::new(rpc).info(status::with_deadline(request, CALL)).await;
        reply.map(tonic::Response::into_inner).map_err(|why| status::refusal_or(&why, code::GROUP_INTERNAL))
    }

    /// The groups of an app.
    pub(crate) async fn list(&self, request: ListRequest) -> Result<ListReply> {
        let app = SdkAppId(request.app);
        let kind = kind_filter(&request.r#type)?;
        let limit = if request.limit == 0 { LIST } else { request.limit };
        if limit > LIST {
            return Err(bad("Limit is at most 10000"));
        }
        let store = |error| from_store(&error).0;
        let page = self.groups.groups_of_app(app, kind, ConvId(request.next), limit as usize).await.map_err(store)?;
        let total = self.groups.count_of_app(app, kind).await.map_err(store)?;
        let full = page.len() == limit as usize;
        let next = if full { page.last().map_or(0, |last| last.conv.0) } else { 0 };
        Ok(ListReply { group_ids: page.into_iter().map(|group| group.group.to_string()).collect(), next, total })
    }

    /// A deleted account leaves everything.
    pub(crate) async fn forget(&self, app: SdkAppId, user: &UserId) -> Result<()> {
        let joined = self.groups.joined(app, user).await.map_err(|error| from_store(&error).0)?;
        for group in joined {
            let rpc = self.cluster.for_owner(Service::Group, RouteKey::group(app, &group.group))?;
            let request = RemoveMembersRequest {
                app: app.0,
                group_id: group.group.to_string(),
                users: vec![user.to_string()],
                origin: Some(Origin { admin: true, platform: "RESTAPI".to_owned(), ..Origin::default() }),
                ..RemoveMembersRequest::default()
            };
            let removed = GroupsClient::new(rpc).remove_members(status::with_deadline(request, CALL)).await;
            if let Err(why) = removed {
                let refusal = status::refusal_or(&why, code::GROUP_INTERNAL);
                // A group that is gone needs no leaving.
                if refusal.code != code::GROUP_UNKNOWN {
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }
}

/// Read positions are looked up for at most so many members of a page.
const READ: usize = 500;

impl Shared {
    /// Fills in how far members have read, for display.
    pub(crate) async fn fill_read(&self, app: SdkAppId, conv: u64, members: &mut [Member]) {
        use futures::StreamExt as _;
        let read = futures::stream::iter(members.iter_mut().take(READ)).for_each_concurrent(AT_ONCE, |member| async {
            let user = UserId::trusted(member.user.as_str());
            if let Ok(Some(position)) = self.positions.get(app, &user, ConvId(conv)).await {
                member.read_seq = position.read_seq.0;
            }
        });
        read.await;
    }
}

fn kind_filter(text: &str) -> Result<Option<GroupType>> {
    match text {
        "" => Ok(None),
        text => GroupType::parse(text).map(Some).ok_or_else(|| bad("unknown group type")),
    }
}
