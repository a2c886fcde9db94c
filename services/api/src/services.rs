//! The inner calls this surface makes: service, method, where each goes, and whether it may be sent twice.

use linnet_cluster::{RouteKey, Rpc, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_proto::group::{self, groups_client::GroupsClient};
use linnet_proto::messages::{self, messages_client::MessagesClient};
use linnet_proto::msg::SendReply;
use linnet_proto::push::{self, pushes_client::PushesClient};
use linnet_proto::session::{self, sessions_client::SessionsClient};
use linnet_types::{ConvId, GroupId, SdkAppId, UserId};
use tonic::{Request, Response, Status};

use crate::call::{Ask, Route};

fn user(app: u32, user: &str) -> Route {
    Route::Owner(RouteKey::user(SdkAppId(app), &UserId::trusted(user)))
}

/// The owner of the first; callers put together users of one owner ([`crate::call::Call::by_owner`]).
fn users(app: u32, users: &[String]) -> Route {
    users.first().map_or(Route::Any, |first| user(app, first))
}

fn pair(app: u32, one: &str, other: &str) -> Route {
    Route::Owner(RouteKey::pair(SdkAppId(app), &UserId::trusted(one), &UserId::trusted(other)))
}

fn of_group(app: u32, id: &str) -> Route {
    if id.is_empty() { Route::Any } else { Route::Owner(RouteKey::group(SdkAppId(app), &GroupId::trusted(id))) }
}

/// A pair by its users, a group by its conversation.
fn conversation(app: u32, one: &str, other: &str, conv: u64) -> Route {
    if one.is_empty() { Route::Owner(RouteKey::conv(ConvId(conv))) } else { pair(app, one, other) }
}

macro_rules! asks {
    ($service:ident by $client:ident: $($request:ty => $reply:ty, $method:ident, $twice:ident, |$it:ident| $route:expr;)*) => {
        $(impl Ask for $request {
            type Reply = $reply;
            const SERVICE: Service = Service::$service;
            const IDEMPOTENT: bool = asks!(@ $twice);
            fn route(&self) -> Route {
                let $it = self;
                $route
            }
            async fn send(rpc: Rpc, request: Request<Self>) -> Result<Response<Self::Reply>, Status> {
                $client::new(rpc).$method(request).await
            }
        })*
    };
    (@ twice) => { true };
    (@ once) => { false };
}

asks! { Account by AccountsClient:
    account::ImportRequest => account::ImportReply, import, twice,
        |it| it.accounts.first().map_or(Route::Any, |first| user(it.app, &first.user));
    account::DeleteRequest => account::DeleteReply, delete, once, |it| users(it.app, &it.users);
    account::LookupRequest => account::LookupReply, lookup, twice, |it| users(it.app, &it.users);
    account::KickRequest => account::KickReply, kick, twice, |it| user(it.app, &it.user);
    account::SetProfileRequest => account::SetProfileReply, set_profile, twice, |it| user(it.app, &it.user);
}

asks! { Push by PushesClient:
    push::SetDeviceRequest => push::SetDeviceReply, set_device, twice, |it| user(it.app, &it.user);
    push::RemoveDevicesRequest => push::RemoveDevicesReply, remove_devices, twice, |it| user(it.app, &it.user);
    push::DevicesRequest => push::DevicesReply, devices, twice, |it| user(it.app, &it.user);
    push::SetBadgeRequest => push::SetBadgeReply, set_badge, twice, |it| user(it.app, &it.user);
    push::SetOptionsRequest => push::SetOptionsReply, set_options, twice, |it| user(it.app, &it.user);
    push::OptionsRequest => push::OptionsReply, options, twice, |it| user(it.app, &it.user);
    push::SetQuietRequest => push::SetQuietReply, set_quiet, twice, |it| user(it.app, &it.user);
    push::QuietRequest => push::QuietReply, quiet, twice, |it| user(it.app, &it.user);
}

asks! { Session by SessionsClient:
    session::KickRequest => session::KickReply, kick, twice, |it| user(it.app, &it.user);
    session::StatusRequest => session::StatusReply, status, twice, |it| users(it.app, &it.users);
}

asks! { MessageStore by MessagesClient:
    messages::SendC2cRequest => SendReply, send_c2c, twice,
        |it| pair(it.app, it.message.as_ref().map_or("", |message| &message.from), &it.to);
    messages::ReadC2cRequest => messages::ReadC2cReply, read_c2c, twice, |it| pair(it.app, &it.reader, &it.peer);
    messages::HistoryRequest => messages::HistoryReply, history, twice,
        |it| conversation(it.app, &it.peer_a, &it.peer_b, it.conv);
    messages::RevokeRequest => messages::RevokeReply, revoke, once,
        |it| conversation(it.app, &it.peer_a, &it.peer_b, it.conv);
    messages::SyncRequest => messages::SyncReply, sync, twice, |it| user(it.app, &it.user);
    messages::SetUnreadRequest => messages::SetUnreadReply, set_unread, twice, |it| user(it.app, &it.user);
    messages::UnreadC2cRequest => messages::UnreadC2cReply, unread_c2c, twice, |it| user(it.app, &it.user);
    messages::DeleteConversationRequest => messages::DeleteConversationReply, delete_conversation, twice,
        |it| user(it.app, &it.user);
}

asks! { Group by GroupsClient:
    group::CreateRequest => group::CreateReply, create, once, |it| of_group(it.app, &it.group_id);
    group::DestroyRequest => group::DestroyReply, destroy, once, |it| of_group(it.app, &it.group_id);
    group::InfoRequest => group::InfoReply, info, twice, |it| of_group(it.app, &it.group_id);
    group::ModifyRequest => group::ModifyReply, modify, once, |it| of_group(it.app, &it.group_id);
    group::ChangeOwnerRequest => group::ChangeOwnerReply, change_owner, once, |it| of_group(it.app, &it.group_id);
    group::MembersRequest => group::MembersReply, members, twice, |it| of_group(it.app, &it.group_id);
    group::RolesRequest => group::RolesReply, roles, twice, |it| of_group(it.app, &it.group_id);
    group::AddMembersRequest => group::AddMembersReply, add_members, once, |it| of_group(it.app, &it.group_id);
    group::RemoveMembersRequest => group::RemoveMembersReply, remove_members, twice,
        |it| of_group(it.app, &it.group_id);
    group::ModifyMemberRequest => group::ModifyMemberReply, modify_member, once, |it| of_group(it.app, &it.group_id);
    group::MuteRequest => group::MuteReply, mute, twice, |it| of_group(it.app, &it.group_id);
    group::MutedRequest => group::MutedReply, muted, twice, |it| of_group(it.app, &it.group_id);
    group::BanRequest => group::BanReply, ban, twice, |it| of_group(it.app, &it.group_id);
    group::UnbanRequest => group::BanReply, unban, twice, |it| of_group(it.app, &it.group_id);
    group::BannedRequest => group::BannedReply, banned, twice, |it| of_group(it.app, &it.group_id);
    group::SendRequest => SendReply, send, twice, |it| of_group(it.app, &it.group_id);
    group::RecallRequest => group::RecallReply, recall, once, |it| of_group(it.app, &it.group_id);
    group::NotifyRequest => group::NotifyReply, notify, once, |it| of_group(it.app, &it.group_id);
    group::AuthorizeRequest => group::AuthorizeReply, authorize, twice, |it| of_group(it.app, &it.group_id);
    group::OnlineCountRequest => group::OnlineCountReply, online_count, twice, |it| of_group(it.app, &it.group_id);
    group::JoinedRequest => group::JoinedReply, joined, twice, |it| user(it.app, &it.user);
    group::ListRequest => group::ListReply, list, twice, |_it| Route::Any;
}
