//! The shape of the configuration file: one for every role, each service's section beside the ports'.

use std::path::PathBuf;

use linnet_cluster::{ClusterConfig, HeartbeatConfig, RpcConfig};
use linnet_runtime::config::{Problem, Secret};
use linnet_runtime::telemetry::LogConfig;

linnet_runtime::config! {
    /// The process: where it listens and what it keeps.
    pub struct Server {
        /// Address of REST, WebSocket and the operators' surface.
        pub listen: String = "127.0.0.1:8080".to_owned(), "", restart;
        /// Folder of everything that is kept. One process at a time.
        pub data: PathBuf = PathBuf::from("./linnet-data"), "", restart;
        /// Name of this site; part of bus subjects.
        pub site: String = "home".to_owned(), "", restart;
        /// Token of `/admin/v1` and of the operator commands, at least 32 characters; empty = the surface is off.
        pub operator_token: Secret = Secret::default(), "", restart;
        /// Operators may come from other machines. Otherwise `/admin/v1`, `/metrics` and the probes answer loopback only.
        pub operators_anywhere: bool = false, "", restart;
        /// PEM file of the certificate chain; with `tls_key` the listener speaks TLS only.
        pub tls_cert: PathBuf = PathBuf::new(), "", restart;
        /// PEM file of the private key.
        pub tls_key: PathBuf = PathBuf::new(), "", restart;
    }
    check server_problems;
}

fn server_problems(server: &Server) -> Vec<Problem> {
    let mut problems = Vec::new();
    if server.listen.parse::<std::net::SocketAddr>().is_err() {
        problems.push(Problem::new("listen", "must be an address and a port, such as 0.0.0.0:8080"));
    }
    let token = server.operator_token.expose();
    if !token.is_empty() && token.len() < 32 {
        problems.push(Problem::new(
            "operator_token",
            "must be at least 32 characters, for example of `openssl rand -hex 32`",
        ));
    }
    if server.tls_cert.as_os_str().is_empty() != server.tls_key.as_os_str().is_empty() {
        problems.push(Problem::new("tls_key", "tls_cert and tls_key go together"));
    }
    if server.site.is_empty() || !server.site.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        problems.push(Problem::new("site", "must be letters, digits and hyphens"));
    }
    problems
}

linnet_runtime::config! {
    /// Where everything is kept.
    pub struct Storage {
        /// `embedded`: in the data folder of the one process that runs everything; `cql`: in ScyllaDB, shared by many (`[cql]`).
        pub backend: String = "embedded".to_owned(), "", restart;
        /// Memory for blocks read from table files. Higher makes cold history faster.
        pub cache: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(64), "", restart;
        /// Recent writes held in memory until they become a table file; a start replays up to about this much.
        pub memtable: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(32), "", restart;
        /// Free disk space below which writes are refused with a clear error.
        pub reserve: linnet_runtime::config::ByteSize = linnet_runtime::config::ByteSize::mib(128), "", restart;
    }
    check storage_problems;
}

fn storage_problems(storage: &Storage) -> Vec<Problem> {
    match storage.backend.as_str() {
        "embedded" | "cql" => Vec::new(),
        _ => vec![Problem::new("backend", "must be embedded or cql")],
    }
}

linnet_runtime::sections! {
    /// Everything `linnet serve` reads.
    pub struct Config {
        /// The process.
        pub server: Server,
        /// Logs and traces.
        pub log: LogConfig,
        /// Where everything is kept.
        pub store: Storage,
        /// The CQL store.
        pub cql: linnet_store::cql::Config,
        /// The bus between nodes.
        pub bus: linnet_bus::Config,
        /// Records of who is signed in where.
        pub directory: linnet_session::directory::Config,
        /// This process as a node of a cluster.
        pub cluster: ClusterConfig,
        /// How nodes know of each other.
        pub members: HeartbeatConfig,
        /// Calls between services.
        pub rpc: RpcConfig,
        /// Client sockets.
        pub gateway: linnet_gateway::Config,
        /// The public REST surface.
        pub api: linnet_api::Config,
        /// Groups.
        pub group: linnet_group::Config,
        /// Conversation logs.
        pub message_store: linnet_message_store::Config,
        /// Webhooks.
        pub callback: linnet_callback::Config,
        /// Offline push.
        pub push: linnet_push::Config,
    }
}
