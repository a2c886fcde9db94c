//! Requests other than sends: each is translated to the service that owns the matter and its reply back.

mod conversations;
pub(crate) mod groups;
mod people;
mod push;

use std::sync::Arc;

use linnet_proto::client::{self, frame};
use linnet_proto::msg::Origin;
use linnet_types::{Refusal, code};

use crate::hub::Hub;
use crate::session::{ConnRef, Session};
use crate::wire::Wire;

/// A request in progress.
pub(crate) struct Ctx {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<Session>,
    pub(crate) at: ConnRef,
}

impl Ctx {
    pub(crate) fn origin(&self) -> Option<Origin> {
        Some(self.session.origin(self.hub.request_id()))
    }

    pub(crate) fn app(&self) -> u32 {
        self.session.app.0
    }

    pub(crate) fn user(&self) -> String {
        self.session.user.as_str().to_owned()
    }
}

impl Hub {
    /// Carries out a request beside the connection's others.
    pub(crate) fn serve(self: &Arc<Self>, at: ConnRef, wire: Wire, session: Arc<Session>, id: u64, body: frame::Body) {
        let hub = Arc::clone(self);
        self.tasks.spawn("gateway.request", async move {
            let began = hub.clock.mono();
            let ctx = Ctx { hub: Arc::clone(&hub), session, at };
            let outcome = Box::pin(dispatch(&ctx, body)).await;
            hub.meters.request_seconds.observe((hub.clock.mono() - began).as_secs_f64());
            hub.reply(at, wire, id, outcome, false).await;
        });
    }
}

fn done<T>(_: T) -> frame::Body {
    frame::Body::Ok(client::Ok {})
}

async fn dispatch(ctx: &Ctx, body: frame::Body) -> Result<frame::Body, Refusal> {
    use frame::Body as B;
    Ok(match body {
        B::Sync(ask) => B::Synced(conversations::sync(ctx, ask).await?),
        B::History(ask) => B::Page(conversations::history(ctx, ask).await?),
        B::Read(ask) => B::ReadDone(conversations::read(ctx, ask).await?),
        // Every connection is on the fast lane until passive digests exist; what is open changes nothing yet.
        B::Open(_) => done(()),
        B::Pin(ask) => done(conversations::pin(ctx, ask).await?),
        B::DeleteConversation(ask) => done(conversations::delete(ctx, ask).await?),
        B::Revoke(ask) => B::Revoked(conversations::revoke(ctx, ask).await?),
        B::DeleteMessages(ask) => done(conversations::delete_messages(ctx, ask).await?),
        B::GroupCreate(ask) => B::GroupCreated(groups::create(ctx, ask).await?),
        B::GroupInfo(ask) => B::Group(groups::info(ctx, ask).await?),
        B::GroupUpdate(ask) => done(groups::update(ctx, ask).await?),
        B::GroupDismiss(ask) => done(groups::dismiss(ctx, ask).await?),
        B::GroupJoin(ask) => B::GroupJoined(groups::join(ctx, ask).await?),
        B::GroupQuit(ask) => done(groups::quit(ctx, ask).await?),
        B::GroupInvite(ask) => B::GroupResults(groups::invite(ctx, ask).await?),
        B::GroupKick(ask) => done(groups::kick(ctx, ask).await?),
        B::GroupMute(ask) => done(groups::mute(ctx, ask).await?),
        B::GroupRole(ask) => done(groups::role(ctx, ask).await?),
        B::GroupMembers(ask) => B::Members(groups::members(ctx, ask).await?),
        B::GroupList(ask) => B::Groups(groups::list(ctx, ask).await?),
        B::GroupApplications(ask) => B::Applications(groups::applications(ctx, ask).await?),
        B::GroupHandle(ask) => done(groups::handle(ctx, ask).await?),
        B::GroupTransfer(ask) => done(groups::transfer(ctx, ask).await?),
        B::OnlineCount(ask) => B::Online(groups::online(ctx, ask).await?),
        B::GroupMemberUpdate(ask) => done(groups::update_member(ctx, ask).await?),
        B::ProfileGet(ask) => B::Profiles(people::profiles(ctx, ask).await?),
        B::ProfileSet(ask) => done(people::set_profile(ctx, ask).await?),
        B::Status(ask) => B::Statuses(people::status(ctx, ask).await?),
        B::Block(ask) => done(people::block(ctx, ask).await?),
        B::DeviceSet(ask) => done(push::set_device(ctx, ask).await?),
        B::DeviceRemove(_) => done(push::remove_device(ctx).await?),
        B::Badge(ask) => done(push::badge(ctx, ask).await?),
        B::ReceiveSet(ask) => done(push::set_options(ctx, ask).await?),
        B::ReceiveGet(ask) => B::Receives(push::options(ctx, ask).await?),
        B::QuietSet(ask) => done(push::set_quiet(ctx, ask).await?),
        B::QuietGet(_) => B::Quiet(push::quiet(ctx).await?),
        // Handled by the shard, or not requests at all.
        _ => return Err(Refusal::new(code::FRAME_BAD, "not a request")),
    })
}
