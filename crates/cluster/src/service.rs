//! The services a node can run.

use std::fmt;

/// A service other nodes can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Client sockets and the last hop of fan-out.
    Gateway,
    /// The public REST surface.
    Api,
    /// Who is signed in where.
    Session,
    /// Apps, accounts and relations.
    Account,
    /// Groups, their members and their fan-out.
    Group,
    /// Conversation logs and lists.
    MessageStore,
    /// Offline push.
    Push,
    /// Webhooks and bots.
    Callback,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Api,
        Self::Session,
        Self::Account,
        Self::Group,
        Self::MessageStore,
        Self::Push,
        Self::Callback,
    ];

    /// The name in configuration, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Api => "api",
            Self::Session => "session",
            Self::Account => "account",
            Self::Group => "group",
            Self::MessageStore => "message-store",
            Self::Push => "push",
            Self::Callback => "callback",
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
