//! What each role has to say and to hear on the bus, for the server's own permissions.

use linnet_types::NodeId;

use crate::subject::token;

/// Subjects in the server's spelling, `*` standing for one token.
///
/// A NATS server given these refuses everybody else a place on `gw.<id>`, where frames for users travel:
///
/// ```text
/// authorization {
///   users = [
///     { user: gateway-1, password: $GATEWAY_1, permissions: {
///         publish:   ["linnet.members", "linnet.echo.*"]
///         subscribe: ["linnet.members", "linnet.echo.*", "linnet.apps", "linnet.fan.eu-1.*", "linnet.directory", "linnet.gw.gateway-1", "linnet.presence.*"]
///     } }
///     { user: group-1, password: $GROUP_1, permissions: {
///         publish:   ["linnet.members", "linnet.echo.*", "linnet.fan.eu-1.*", "linnet.gw.*"]
///         subscribe: ["linnet.members", "linnet.echo.*", "linnet.apps", "linnet.places"]
///     } }
///   ]
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What it publishes.
    pub publish: Vec<String>,
    /// What it subscribes to.
    pub subscribe: Vec<String>,
}

impl Permissions {
    /// What `node` of `cluster` needs at `site` to run the services named `roles`. A name that is not a service adds nothing.
    #[must_use]
    pub fn of(cluster: &str, site: &str, node: &NodeId, roles: &[&str]) -> Self {
        let (fan, own) = (format!("fan.{}.*", token(site)), format!("gw.{}", token(node.as_str())));
        let mut publish = vec!["members", "echo.*"];
        let mut subscribe = vec!["members", "echo.*", "apps"];
        for role in roles {
            let (says, hears): (&[&str], &[&str]) = match *role {
                "gateway" => (&[], &[&fan, &own, "presence.*", "directory"]),
                "group" | "message-store" => (&[&fan, "gw.*"], &["places"]),
                "session" => (&["gw.*", "places", "presence.*", "directory"], &[]),
                "account" => (&["apps"], &[]),
                "callback" | "push" => (&["work.*"], &["work.*"]),
                _ => (&[], &[]),
            };
            publish.extend(says);
            subscribe.extend(hears);
        }
        Self { publish: spelled(cluster, publish), subscribe: spelled(cluster, subscribe) }
    }
}

fn spelled(cluster: &str, mut subjects: Vec<&str>) -> Vec<String> {
    subjects.sort_unstable();
    subjects.dedup();
    subjects.into_iter().map(|subject| format!("{}.{subject}", token(cluster))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_and_sessions_speak_to_gateways() {
        let node = NodeId::trusted("n.1");
        for role in ["gateway", "api", "account", "callback", "push"] {
            let allowed = Permissions::of("c", "s", &node, &[role]);
            assert!(
                !allowed.publish.iter().any(|subject| subject.contains(".gw.") || subject.contains(".fan.")),
                "{role}"
            );
        }
        let both = Permissions::of("c", "s", &node, &["gateway", "group"]);
        assert_eq!(both.publish, ["c.echo.*", "c.fan.s.*", "c.gw.*", "c.members"]);
        assert_eq!(
            both.subscribe,
            ["c.apps", "c.directory", "c.echo.*", "c.fan.s.*", "c.gw.n~2e1", "c.members", "c.places", "c.presence.*"]
        );
    }
}
