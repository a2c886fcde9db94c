//! Who is on a connection.

use linnet_proto::msg;
use linnet_proto::session as wire_session;
use linnet_types::{Platform, SdkAppId, UnixMillis, UserId};

use crate::lane::Lane;
use crate::wire::Wire;

/// Where a connection is: its shard, its slot there, and the number that tells it from earlier users of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnRef {
    pub(crate) shard: u16,
    pub(crate) slot: u32,
    pub(crate) number: u64,
}

/// One signed-in device instance on one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) app: SdkAppId,
    pub(crate) user: UserId,
    pub(crate) platform: Platform,
    pub(crate) instance: String,
    pub(crate) gateway: String,
    pub(crate) incarnation: u64,
    /// `<gateway>/<n>`.
    pub(crate) connection: String,
    pub(crate) number: u64,
    pub(crate) wire: Wire,
    pub(crate) ip: String,
    pub(crate) signed_in: UnixMillis,
    /// When the UserSig ends, and the session with it.
    pub(crate) until: UnixMillis,
    /// For the next reconnect.
    pub(crate) resume: String,
    /// Messages on their way, in order.
    pub(crate) lane: Lane,
}

impl Session {
    /// Where a request of this session comes from.
    pub(crate) fn origin(&self, request_id: String) -> msg::Origin {
        msg::Origin {
            operator: self.user.as_str().to_owned(),
            platform: webhook_platform(self.platform).to_owned(),
            client_ip: self.ip.clone(),
            request_id,
            admin: false,
            connection: self.connection.clone(),
        }
    }

    /// As the session service records it.
    pub(crate) fn record(&self) -> wire_session::Session {
        wire_session::Session {
            app: self.app.0,
            user: self.user.as_str().to_owned(),
            platform: self.platform.wire().to_owned(),
            instance: self.instance.clone(),
            gateway: self.gateway.clone(),
            gateway_incarnation: self.incarnation,
            connection: self.connection.clone(),
            signed_in_ms: self.signed_in.0,
            client_ip: self.ip.clone(),
        }
    }
}

/// Why a session ended, as `State.StateChange` spells it (`spec/webhooks.md` §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Signed out, or told to go.
    Unregister,
    /// The connection was closed or reset.
    LinkClose,
    /// Silent for two ping periods, or too slow.
    TimeOut,
}

impl Ended {
    pub(crate) fn wire(self) -> &'static str {
        match self {
            Self::Unregister => "Unregister",
            Self::LinkClose => "LinkClose",
            Self::TimeOut => "TimeOut",
        }
    }
}

/// The platform as webhooks spell it (`spec/webhooks.md` §1.2).
fn webhook_platform(platform: Platform) -> &'static str {
    match platform {
        Platform::IPhone => "iOS",
        Platform::Linux => "Unknown",
        other => other.wire(),
    }
}
