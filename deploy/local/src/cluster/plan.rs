//! Laying a cluster out: ports, servers, links, and a configuration file for each process.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use linnet_bus::Permissions;
use linnet_types::NodeId;
use toml::{Table, Value};

use super::state::{Member, State};
use super::{Options, random_hex};
use crate::ports::{self, Holder};
use crate::process::Launch;
use crate::relay::LinkSpec;
use crate::servers::{Cql, Nats, NatsUser, Node, Peers, Ready, Redis};

/// The site's name, part of bus subjects.
const SITE: &str = "home";
/// The services, in the order they are listed in.
const ROLES: [&str; 8] = ["gateway", "api", "session", "account", "group", "message-store", "push", "callback"];

/// The programs.
pub(super) struct Programs {
    pub(super) linnet: PathBuf,
    pub(super) tool: PathBuf,
}

/// Everything of the servers that a configuration file names.
struct Servers {
    members: Vec<Member>,
    /// Of each service, which may say and hear on the bus what its role needs and no more.
    bus_passwords: BTreeMap<String, String>,
    directory_password: String,
    copies: u8,
}

/// Lays `dir` out and says what is to run there; nothing runs yet.
pub(super) fn plan(dir: &Path, options: &Options, programs: &Programs) -> Result<State> {
    let holder = Holder::Folder(dir.to_owned());
    let mut state = State {
        name: format!("local-{}", random_hex(3)),
        sdkappid: 0,
        key: String::new(),
        token: random_hex(32),
        members: services(dir, options, programs, &holder)?,
    };
    let servers = servers(dir, options, &state, &holder)?;
    let links = links(&state.members, &servers.members, &holder)?;
    for member in &state.members {
        let config = config(dir, &state, &servers, member, &links)?;
        fs::write(config_file(dir, &member.node.name), config.to_string())?;
    }
    fs::write(dir.join("links.json"), serde_json::to_vec_pretty(&links)?)?;
    state.members.extend(servers.members);
    state.members.push(relay(dir, programs));
    Ok(state)
}

pub(super) fn config_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("config").join(format!("{name}.toml"))
}

/// The relay's control socket. Not in the cluster's folder: a socket's path has at most 107 bytes.
pub(super) fn socket(dir: &Path) -> PathBuf {
    let near = dir.join("relay.sock");
    if near.as_os_str().len() < 100 {
        return near;
    }
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    std::env::temp_dir().join(format!("linnet-relay-{:016x}", hasher.finish()))
}

fn servers(dir: &Path, options: &Options, state: &State, holder: &Holder) -> Result<Servers> {
    let folder = dir.join("servers");
    let directory_password = random_hex(12);
    let mut users: Vec<_> = state.members.iter().map(|member| bus_user(&state.name, member)).collect();
    let bus_passwords = users.iter().map(|user| (user.user.clone(), user.password.clone())).collect();
    // Who operates the cluster may look at everything, with the token he has for its nodes.
    users.push(NatsUser { user: "operator".to_owned(), password: state.token.clone(), ..NatsUser::default() });
    let nats = Nats { nodes: options.nats.into(), users, ..Nats::default() };
    let redis = Redis { password: Some(directory_password.clone()), persistent: true, ..Redis::default() };
    // A lone server is killed too, and what it acknowledged must be there afterwards; three hold a copy each.
    let cql = Cql { nodes: options.cql, durable: options.cql == 1, ..Cql::default() };
    let planned = [
        ("nats", nats.plan(&folder, holder)?),
        ("redis", redis.plan(&folder, holder)?),
        ("cql", cql.plan(&folder, holder)?),
    ];
    let member = |role: &str, node| Member { role: role.to_owned(), node, grpc: None, process: None };
    let members = planned.into_iter().flat_map(|(role, nodes)| nodes.into_iter().map(move |node| member(role, node)));
    Ok(Servers { members: members.collect(), bus_passwords, directory_password, copies: options.cql })
}

/// What the bus lets a service do.
fn bus_user(cluster: &str, member: &Member) -> NatsUser {
    let name = &member.node.name;
    let node = NodeId::trusted(name.as_str());
    let Permissions { publish, subscribe } = Permissions::of(cluster, SITE, &node, &[member.role.as_str()]);
    NatsUser { user: name.clone(), password: random_hex(12), publish, subscribe, ..NatsUser::default() }
}

fn services(dir: &Path, options: &Options, programs: &Programs, holder: &Holder) -> Result<Vec<Member>> {
    let count = |role| match role {
        "gateway" => options.gateways,
        "group" | "message-store" => options.owners,
        _ => options.replicas,
    };
    let names: Vec<_> =
        ROLES.iter().flat_map(|role| (1..=count(role)).map(move |n| (*role, format!("{role}-{n}")))).collect();
    let ports = ports::take(2 * names.len(), holder)?;
    let member = |((role, name), ports): ((&str, String), &[u16])| {
        let mut args = vec!["serve".to_owned(), "--role".to_owned(), role.to_owned(), "--config".to_owned()];
        args.push(config_file(dir, &name).display().to_string());
        args.extend(options.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        let log = dir.join("logs").join(format!("{name}.log"));
        Member {
            role: role.to_owned(),
            grpc: Some(format!("127.0.0.1:{}", ports[1])),
            process: None,
            node: Node {
                address: format!("127.0.0.1:{}", ports[0]),
                launch: Launch { program: programs.linnet.clone(), args, env: Vec::new(), log },
                ready: Ready::Page("/readyz".to_owned()),
                patience: Duration::from_secs(90),
                peers: Peers::None,
                name,
            },
        }
    };
    Ok(names.into_iter().zip(ports.chunks(2)).map(member).collect())
}

/// A link from each service to each other service and to each server. The relay listens for each connecting process on an
/// address of its own, and for each target on a port of its own.
fn links(services: &[Member], servers: &[Member], holder: &Holder) -> Result<Vec<LinkSpec>> {
    let calls = services.iter().filter_map(|to| Some((to.node.name.clone(), to.grpc.clone()?)));
    let targets: Vec<_> =
        calls.chain(servers.iter().map(|to| (to.node.name.clone(), to.node.address.clone()))).collect();
    let (addresses, ports) = ports::network(services.len(), targets.len(), holder)?;
    let mut links = Vec::new();
    for (from, address) in services.iter().zip(addresses) {
        for ((to, target), port) in targets.iter().zip(&ports).filter(|((to, _), _)| *to != from.node.name) {
            let listen = SocketAddr::from((address, *port));
            links.push(LinkSpec { from: from.node.name.clone(), to: to.clone(), listen, target: target.parse()? });
        }
    }
    Ok(links)
}

fn relay(dir: &Path, programs: &Programs) -> Member {
    let socket = socket(dir);
    let args = ["relay".to_owned(), dir.join("links.json").display().to_string(), socket.display().to_string()];
    Member {
        role: "relay".to_owned(),
        grpc: None,
        process: None,
        node: Node {
            name: "relay-1".to_owned(),
            address: format!("unix:{}", socket.display()),
            launch: Launch {
                program: programs.tool.clone(),
                args: args.to_vec(),
                env: Vec::new(),
                log: dir.join("logs/relay-1.log"),
            },
            ready: Ready::File(socket),
            patience: Duration::from_secs(20),
            peers: Peers::None,
        },
    }
}

/// The configuration of one process: every address it dials is a relay's.
fn config(dir: &Path, state: &State, servers: &Servers, member: &Member, links: &[LinkSpec]) -> Result<Table> {
    let name = &member.node.name;
    let mine: BTreeMap<&str, &LinkSpec> =
        links.iter().filter(|link| link.from == *name).map(|link| (link.to.as_str(), link)).collect();
    let to = |role: &str| -> Vec<&LinkSpec> {
        let nodes = servers.members.iter().filter(|server| server.role == role);
        nodes.filter_map(|server| mine.get(server.node.name.as_str()).copied()).collect()
    };
    let urls = |scheme: &str, role: &str| -> Value {
        to(role).iter().map(|link| format!("{scheme}://{}", link.listen)).collect::<Vec<_>>().into()
    };
    let via = |links: Vec<&LinkSpec>| -> Value {
        links.iter().map(|link| format!("{}={}", link.target, link.listen)).collect::<Vec<_>>().into()
    };
    let peers = state.members.iter().filter_map(|peer| mine.get(peer.node.name.as_str()).copied()).collect();
    let path = |path: PathBuf| Value::from(path.display().to_string());
    let sections: [(&str, Vec<(&str, Value)>); 8] = [
        (
            "server",
            vec![
                ("listen", member.node.address.clone().into()),
                ("site", SITE.into()),
                ("data", path(dir.join("data").join(name))),
                ("operator_token", state.token.clone().into()),
            ],
        ),
        (
            "cluster",
            vec![
                ("name", state.name.clone().into()),
                ("node", name.clone().into()),
                ("listen", member.grpc.clone().unwrap_or_default().into()),
                ("tls_ca", path(dir.join("certs/ca.pem"))),
                ("tls_cert", path(dir.join("certs").join(format!("{name}.pem")))),
                ("tls_key", path(dir.join("certs").join(format!("{name}.key")))),
                ("via", via(peers)),
            ],
        ),
        ("store", vec![("backend", "cql".into())]),
        (
            "cql",
            vec![
                ("nodes", to("cql").iter().map(|link| link.target.to_string()).collect::<Vec<_>>().into()),
                ("via", via(to("cql"))),
                ("replication", i64::from(servers.copies).into()),
            ],
        ),
        (
            "bus",
            vec![
                ("backend", "nats".into()),
                ("urls", urls("nats", "nats")),
                ("user", name.clone().into()),
                ("password", servers.bus_passwords.get(name).cloned().unwrap_or_default().into()),
                ("ignore_discovered", true.into()),
                ("faults", true.into()),
            ],
        ),
        (
            "directory",
            vec![
                ("backend", "redis".into()),
                ("urls", urls("redis", "redis")),
                ("user", "linnet".into()),
                ("password", servers.directory_password.clone().into()),
            ],
        ),
        // The app's servers of a test are on this machine.
        ("callback", vec![("allow_private", true.into())]),
        ("push", vec![("allow_private", true.into())]),
    ];
    let section = |(name, keys): (&str, Vec<(&str, Value)>)| {
        let keys: Table = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        (name.to_owned(), Value::Table(keys))
    };
    Ok(sections.into_iter().map(section).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_folder_has_a_short_socket() {
        assert_eq!(socket(Path::new("/tmp/c")), Path::new("/tmp/c/relay.sock"));
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        assert!(socket(&long).as_os_str().len() < 100);
        assert_eq!(socket(&long), socket(&long));
    }

    #[test]
    fn every_link_has_an_address_of_its_own() {
        let member = |name: &str, grpc: Option<&str>| Member {
            role: "group".to_owned(),
            grpc: grpc.map(str::to_owned),
            process: None,
            node: Node {
                name: name.to_owned(),
                address: "127.0.0.1:4222".to_owned(),
                launch: Launch { program: PathBuf::new(), args: Vec::new(), env: Vec::new(), log: PathBuf::new() },
                ready: Ready::Page(String::new()),
                patience: Duration::ZERO,
                peers: Peers::None,
            },
        };
        let services = [member("group-1", Some("127.0.0.1:1")), member("group-2", Some("127.0.0.1:2"))];
        let links = links(&services, &[member("nats-1", None)], &Holder::own()).unwrap();
        let pairs: Vec<_> = links.iter().map(|link| (link.from.as_str(), link.to.as_str())).collect();
        assert_eq!(
            pairs,
            [("group-1", "group-2"), ("group-1", "nats-1"), ("group-2", "group-1"), ("group-2", "nats-1")]
        );
        let listens: std::collections::BTreeSet<_> = links.iter().map(|link| link.listen).collect();
        assert_eq!(listens.len(), links.len());
        assert_eq!(links[1].listen.ip(), links[0].listen.ip(), "one address for each that connects");
    }
}
