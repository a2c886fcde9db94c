//! Settings of calls between services and of the node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use linnet_runtime::config::{Period, Problem};

linnet_runtime::config! {
    /// Calls between services.
    pub struct RpcConfig {
        /// Calls one service of one node works on at a time; more are refused with a retryable code. Higher costs memory
        /// under overload, lower refuses sooner.
        pub concurrency: usize = 4096, "calls", restart;
        /// Deadline of a call whose caller names none.
        pub default_timeout: Period = Period::secs(3), "", restart;
        /// Wait told to a caller whose call was refused for load.
        pub shed_retry: Period = Period::ms(200), "", restart;
    }
    check problems;
}

linnet_runtime::config! {
    /// This process as a node of a cluster.
    pub struct ClusterConfig {
        /// Name of the cluster; nodes of another name are refused. Part of every certificate.
        pub name: String = "linnet".to_owned(), "", restart;
        /// Name of this node, unique in the cluster and the same after a restart; empty = the name of the machine.
        pub node: String = String::new(), "", restart;
        /// Address of calls from other nodes, such as `10.0.0.5:7400`; empty = one process is everything.
        pub listen: String = String::new(), "", restart;
        /// Address other nodes are told, `host:port`; empty = the one it listens on.
        pub advertise: String = String::new(), "", restart;
        /// PEM file of the authority that signs the certificates of all nodes (`linnet certs init`).
        pub tls_ca: PathBuf = PathBuf::new(), "", restart;
        /// PEM file of this node's certificate chain (`linnet certs issue`). Read again when it changes.
        pub tls_cert: PathBuf = PathBuf::new(), "", restart;
        /// PEM file of its private key.
        pub tls_key: PathBuf = PathBuf::new(), "", restart;
        /// Calls without TLS: for trying out on one machine; `listen` must then be a loopback address.
        pub insecure: bool = false, "", restart;
        /// Address translation, `advertised=dialled`: for port forwards and test networks.
        pub via: Vec<String> = Vec::new(), "", restart;
    }
    check cluster_problems;
}

impl ClusterConfig {
    /// Whether other processes call this one.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        !self.listen.is_empty()
    }

    /// Whether calls are authenticated and encrypted.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.tls_ca.as_os_str().is_empty()
    }

    /// The address translation of `via`.
    pub(crate) fn routes(&self) -> Result<HashMap<String, String>, String> {
        let pair = |line: &String| match line.split_once('=') {
            Some((told, dialled)) if told.contains(':') && dialled.contains(':') => {
                Ok((told.trim().to_owned(), dialled.trim().to_owned()))
            }
            _ => Err(format!("{line:?} must be host:port=host:port")),
        };
        self.via.iter().map(pair).collect()
    }
}

fn cluster_problems(config: &ClusterConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    for (key, name) in [("name", &config.name), ("node", &config.node)] {
        let by_machine = key == "node" && name.is_empty();
        if !by_machine && (!is_name(name) || name.len() > 64) {
            problems.push(Problem::new(key, "must be 1 to 64 letters, digits, hyphens, dots and underscores"));
        }
    }
    if let Err(what) = config.routes() {
        problems.push(Problem::new("via", what));
    }
    if !config.advertise.is_empty() && !config.advertise.contains(':') {
        problems.push(Problem::new("advertise", "must be host:port"));
    }
    let files = [&config.tls_ca, &config.tls_cert, &config.tls_key].map(|path| !path.as_os_str().is_empty());
    if files.contains(&true) && files.contains(&false) {
        problems.push(Problem::new("tls_ca", "tls_ca, tls_cert and tls_key go together"));
    }
    if !config.is_joined() {
        return problems;
    }
    let Ok(listen) = config.listen.parse::<SocketAddr>() else {
        problems.push(Problem::new("listen", "must be an address and a port, such as 10.0.0.5:7400"));
        return problems;
    };
    if files == [false; 3] && !(config.insecure && listen.ip().is_loopback()) {
        problems.push(Problem::new(
            "tls_ca",
            "calls between nodes need certificates: make them with `linnet certs init` and `linnet certs issue`; \
             without, set insecure = true and listen on a loopback address",
        ));
    }
    problems
}

fn problems(config: &RpcConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.concurrency == 0 {
        problems.push(Problem::new("concurrency", "must be at least 1"));
    }
    if config.default_timeout.is_zero() {
        problems.push(Problem::new("default_timeout", "must be more than 0"));
    }
    problems
}
