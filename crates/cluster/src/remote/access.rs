//! Who may call what.

use std::fmt;
use std::sync::Arc;

use crate::service::Service;

/// The other end of a connection, by its certificate.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// Without TLS: whoever reaches the loopback port.
    Anyone,
    /// A node of this cluster that runs these services.
    Node(Arc<[Service]>),
}

impl Peer {
    /// Whether it has any business with `service`.
    pub(super) fn may_reach(&self, _service: Service) -> bool {
        true
    }

    pub(super) fn may_call(&self, _service: Service, _path: &str) -> bool {
        true
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
