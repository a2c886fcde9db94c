//! The port: who is signed in where. One record per user, changed atomically.

mod config;
mod memory;
mod record;
mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use linnet_types::{AppSettings, GroupId, NodeId, Platform, SdkAppId, UnixMillis, UserId};

pub use config::Config;
pub use memory::Memory;
pub use redis::{Kit, Redis};
use tokio::sync::watch;

/// An entry that was not refreshed for this long is dead. Gateways refresh every 30 s.
pub const DEAD_AFTER_MS: u64 = 90_000;
/// How long a phone whose connection was lost is `PushOnline` (`spec/rest-accounts.md` §7.1).
pub const PUSH_ONLINE_MS: u64 = 7 * 24 * 3600 * 1000;

/// One signed-in device instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Tenant.
    pub app: SdkAppId,
    /// Who.
    pub user: UserId,
    /// On what.
    pub platform: Platform,
    /// The client's name for this device or page.
    pub instance: String,
    /// Where its socket is.
    pub gateway: NodeId,
    /// Which life of that gateway.
    pub incarnation: u64,
    /// `<gateway>/<n>`.
    pub connection: String,
    /// Since when.
    pub signed_in: UnixMillis,
    /// Address of the client.
    pub ip: String,
}

/// Which sessions of one user an app allows together (`login.mode`, `login.web_instances`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// 1 one; 2 one of phone or desktop, and Web; 3 phone, desktop and Web; 4 one of each platform.
    pub mode: u32,
    /// Web sessions at once, except in mode 1.
    pub web_instances: u32,
}

impl From<&AppSettings> for Policy {
    fn from(settings: &AppSettings) -> Self {
        Self { mode: settings.login_mode, web_instances: settings.web_instances }
    }
}

impl Policy {
    /// Sessions of one class push each other out; the number is how many the class may have.
    pub(crate) fn class(self, platform: Platform) -> (u8, usize) {
        let web = (0, self.web_instances.max(1) as usize);
        match (self.mode, platform) {
            (1, _) => (1, 1),
            (_, Platform::Web) => web,
            (2, _) => (1, 1),
            (3, platform) if platform.is_mobile() => (1, 1),
            (3, _) => (2, 1),
            (_, platform) => (1 + platform as u8, 1),
        }
    }
}

/// What the caller sees of the world: when it is, and which gateways live.
#[derive(Clone, Debug)]
pub struct View {
    /// Now.
    pub now: UnixMillis,
    /// Live gateways and the incarnation each has now. Entries of earlier lives are ignored; those of gateways that are not
    /// heard are nobody's presence, and places still.
    pub gateways: BTreeMap<NodeId, u64>,
}

/// The gateways a user is on, as of `rev`; every change has a higher one. A gateway that is not heard is among them until
/// its sessions expire: cut off for a while, it gets what was sent meanwhile when it is back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Sorted.
    pub gateways: Vec<NodeId>,
    /// Rises with every change.
    pub rev: u64,
}

/// A user's places changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Tenant.
    pub app: SdkAppId,
    /// Who.
    pub user: UserId,
    /// Where he is now.
    pub placed: Placed,
}

/// What a sign-in did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedIn {
    /// Older connections of the same instance: closed silently.
    pub replaced: Vec<Session>,
    /// Sessions the policy no longer allows: told and closed.
    pub kicked: Vec<Session>,
    /// His places changed.
    pub change: Option<Change>,
    /// The same connection was recorded already: a repeated call.
    pub repeated: bool,
}

/// What a refresh found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Connections that are no longer current.
    pub stale: Vec<String>,
    /// Sessions pushed out by one that was recorded again after a loss of the directory.
    pub kicked: Vec<Session>,
    /// Places that changed.
    pub changes: Vec<Change>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The user signed out.
    Out,
    /// The connection was lost; a phone stays `PushOnline`.
    Lost,
}

/// A session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub session: Session,
    /// His places changed.
    pub change: Option<Change>,
}

/// What a look for dead sessions found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Sessions that ended.
    pub sessions: Vec<Session>,
    /// Places that changed, also because a gateway left the cluster.
    pub changes: Vec<Change>,
}

/// Login state of one platform; a platform without a state is offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Reached by push only.
    PushOnline,
    /// Connected.
    Online,
}

impl State {
    /// As `query_online_status` spells it.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::PushOnline => "PushOnline",
            Self::Online => "Online",
        }
    }
}

/// A connection in a live room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomAt {
    /// The room.
    pub group: GroupId,
    /// Where.
    pub gateway: NodeId,
    /// Which.
    pub connection: String,
}

/// Why the directory did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached; nothing is known about the outcome.
    #[error("the directory is away: {0}")]
    Away(String),
}

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file the configuration names.
    #[error("{path} cannot be read")]
    File {
        /// Its path.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A server that cannot be addressed so.
    #[error("{url}: {why}")]
    Address {
        /// As configured.
        url: String,
        /// Cause.
        why: String,
    },
}

/// Opens the directory that `config` names; `cluster` keeps it apart from those of other clusters on the same servers.
///
/// # Errors
/// [`OpenError`]. A server that is away is none: sign-ins are refused until it is there.
pub async fn open(config: &Config, cluster: &str, kit: Kit) -> Result<Arc<dyn Directory>, OpenError> {
    if config.backend == "redis" {
        return Ok(Arc::new(Redis::open(config, cluster, kit).await?));
    }
    kit.check.ready();
    Ok(Arc::new(Memory::default()))
}

/// Result with this port's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Records of signed-in users. Each call is atomic per user; calls for one user take effect in some order.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Records `session`; the newest wins over what `policy` does not allow beside it.
    async fn sign_in(&self, session: Session, policy: Policy, view: &View) -> Result<SignedIn>;

    /// A gateway's connections as it has them. Those recorded live on; those that are no longer current are answered;
    /// those the directory lost are recorded again, the newest winning.
    async fn refresh(&self, sessions: Vec<(Session, Policy)>, view: &View) -> Result<Refreshed>;

    /// Ends one session; `None` when it is not recorded (any more).
    async fn end(&self, app: SdkAppId, user: &UserId, connection: &str, how: End, view: &View)
    -> Result<Option<Ended>>;

    /// Ends all sessions of a user: none of before this moment is refreshed again.
    async fn kick(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<(Vec<Session>, Option<Change>)>;

    /// Where users are, in the order asked.
    async fn places(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Placed>>;

    /// Login states of users, in the order asked, by platform.
    async fn states(&self, app: SdkAppId, users: &[UserId], view: &View) -> Result<Vec<Vec<(Platform, State)>>>;

    /// Notes that a web connection entered a live room (`None`: left). Answers the places of the user in another room.
    async fn enter_room(
        &self,
        app: SdkAppId,
        user: &UserId,
        connection: &str,
        group: Option<GroupId>,
        view: &View,
    ) -> Result<Vec<RoomAt>>;

    /// Live sessions of a user, oldest first.
    async fn list(&self, app: SdkAppId, user: &UserId, view: &View) -> Result<Vec<Session>>;

    /// Sessions recorded here, dead ones that were not expired yet included.
    async fn total(&self) -> Result<u64>;

    /// Ends sessions that were not refreshed for [`DEAD_AFTER_MS`], some at a time; called every second.
    async fn expire(&self, view: &View) -> Result<Expired>;

    /// The time records are stamped with; one clock for all nodes, as far as there is one.
    fn now(&self, view: &View) -> UnixMillis {
        view.now
    }

    /// Shows a new name whenever records may have been lost: gateways are to say at once whom they have. `None`: never.
    fn losses(&self) -> Option<watch::Receiver<String>> {
        None
    }
}
