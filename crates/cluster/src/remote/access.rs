//! Who may call what. A certificate names the services its node runs; each service is open to those that need it.

use std::fmt;
use std::sync::Arc;

use crate::service::Service::{self, Account, Api, Callback, Gateway, Group, MessageStore, Push, Session};

/// Who calls a service, for what no line of [`METHODS`] is about.
fn callers(service: Service) -> &'static [Service] {
    match service {
        Gateway => &[Gateway, Api],
        Api => &[],
        Session => &[Gateway, Api, Session, Account, Group, MessageStore, Push],
        Account => &[Gateway, Api, Account, Group, MessageStore, Push],
        Group => &[Gateway, Api, Account, Group, MessageStore, Push],
        MessageStore => &[Gateway, Api, Group, MessageStore, Push],
        Push => &[Gateway, Api, Session, Account, Group, MessageStore, Push],
        Callback => &[Gateway, Api, Session, Account, Group, MessageStore, Push, Callback],
    }
}

/// Methods that are open to fewer: what writes a log, and what operators do.
const METHODS: &[(&str, &[Service])] = &[
    ("/linnet.messages.v1.Messages/Append", &[Group]),
    ("/linnet.messages.v1.Messages/Fence", &[Group]),
    ("/linnet.messages.v1.Messages/Touch", &[Group, MessageStore]),
    ("/linnet.group.v1.Groups/Send", &[Gateway, Api]),
    ("/linnet.account.v1.Accounts/ListApps", &[Api]),
    ("/linnet.account.v1.Accounts/CreateApp", &[Api]),
    ("/linnet.account.v1.Accounts/UpdateApp", &[Api]),
    ("/linnet.account.v1.Accounts/DeleteApp", &[Api]),
    ("/linnet.callback.v1.Callbacks/Failed", &[Api]),
    ("/linnet.callback.v1.Callbacks/Replay", &[Api]),
    ("/linnet.callback.v1.Callbacks/Test", &[Api]),
    ("/linnet.callback.v1.Callbacks/Watch", &[Api]),
    ("/linnet.gateway.v1.Gateways/Watch", &[Api]),
    ("/linnet.push.v1.Pushes/Failed", &[Api]),
    ("/linnet.push.v1.Pushes/Replay", &[Api]),
];

/// Methods every node of the cluster may call: the settings of an app, and counts.
const OPEN: &[&str] = &["/linnet.account.v1.Accounts/GetApp"];
const STATS: &str = "/Stats";

/// The other end of a connection, by its certificate.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// Without TLS: whoever reaches the loopback port.
    Anyone,
    /// A node of this cluster that runs these services.
    Node(Arc<[Service]>),
}

impl Peer {
    /// Whether it may call the method of that HTTP path of `service`.
    pub(super) fn may_call(&self, service: Service, path: &str) -> bool {
        let Self::Node(roles) = self else { return true };
        if OPEN.contains(&path) || path.ends_with(STATS) {
            return true;
        }
        let narrowed = METHODS.iter().find(|(method, _)| *method == path);
        let allowed = narrowed.map_or_else(|| callers(service), |(_, allowed)| allowed);
        roles.iter().any(|role| allowed.contains(role))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Node(roles) => f.write_str(&roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(roles: &[Service]) -> Peer {
        Peer::Node(roles.into())
    }

    #[test]
    fn only_a_group_appends_and_only_the_edge_sends() {
        let append = "/linnet.messages.v1.Messages/Append";
        let may = |roles: &[Service]| node(roles).may_call(MessageStore, append);
        assert!(may(&[Group]) && may(&[Push, Group]) && !may(&[Gateway]) && !may(&[Api, MessageStore]));
        let send = |role| node(&[role]).may_call(Group, "/linnet.group.v1.Groups/Send");
        assert!(send(Gateway) && send(Api) && !send(Push) && !send(Session));
        assert!(Peer::Anyone.may_call(MessageStore, append));
    }

    #[test]
    fn nobody_calls_the_rest_surface_and_everyone_reads_settings() {
        for role in Service::ALL {
            assert!(!node(&[role]).may_call(Api, "/linnet.api.v1.Any/Thing"));
            assert!(node(&[role]).may_call(Account, "/linnet.account.v1.Accounts/GetApp"));
        }
        assert!(!node(&[Callback]).may_call(Account, "/linnet.account.v1.Accounts/Delete"));
        assert!(!node(&[Gateway]).may_call(Account, "/linnet.account.v1.Accounts/UpdateApp"));
    }
}
