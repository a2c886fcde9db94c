//! Which services a process runs.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use linnet_cluster::Service;

/// The services of one process, as `--role` names them: `all`, or some separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roles(BTreeSet<Service>);

impl Roles {
    /// Every service.
    pub(crate) fn all() -> Self {
        Self(Service::ALL.into())
    }

    /// One service.
    pub(crate) fn one(service: Service) -> Self {
        Self(BTreeSet::from([service]))
    }

    pub(crate) fn has(&self, service: Service) -> bool {
        self.0.contains(&service)
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0.len() == Service::ALL.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Service> {
        self.0.iter().copied()
    }

    /// Whether one of them keeps something in the store. `api` only shows rows to operators.
    pub(crate) fn store(&self) -> bool {
        self.iter().any(|service| !matches!(service, Service::Gateway | Service::Session))
    }
}

impl FromStr for Roles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::all());
        }
        let roles = text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
            let known = || Service::ALL.map(Service::name).join(", ");
            Service::parse(name).ok_or_else(|| format!("{name:?} is no service; there are {}, and all", known()))
        });
        let roles = roles.collect::<Result<BTreeSet<_>, _>>()?;
        if roles.is_empty() { Err("name at least one service, or all".to_owned()) } else { Ok(Self(roles)) }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        f.write_str(&self.iter().map(Service::name).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_names_or_all_and_nothing_else() {
        let gateway_and_api: Roles = "api, gateway".parse().expect("two names");
        assert_eq!(gateway_and_api.to_string(), "gateway,api");
        assert!(gateway_and_api.has(Service::Api) && !gateway_and_api.has(Service::Group));
        assert!("all".parse::<Roles>().expect("a word").is_all());
        assert!("gate".parse::<Roles>().expect_err("no service").contains("message-store"));
        assert!(" , ".parse::<Roles>().is_err());
    }

    #[test]
    fn sockets_and_sessions_need_no_store() {
        assert!(!"gateway,session".parse::<Roles>().expect("names").store());
        assert!("session,group".parse::<Roles>().expect("names").store());
    }
}
