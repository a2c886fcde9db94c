//! Where sign-in records are kept.

use linnet_runtime::config::{Period, Problem, Secret};

linnet_runtime::config! {
    /// Records of who is signed in where.
    pub struct Config {
        /// `memory`: in the one process that runs the session service; `redis`: shared by many.
        pub backend: String = "memory".to_owned(), "", restart;
        /// Redis servers, `redis://host:port` or, with TLS, `rediss://host:port`; users spread over them. Their order
        /// counts: add new ones at the end. Set `maxmemory-policy noeviction` there.
        pub urls: Vec<String> = Vec::new(), "", restart;
        /// ACL user; empty = the default user.
        pub user: String = String::new(), "", restart;
        /// Password; empty = none.
        pub password: Secret = Secret::default(), "", restart;
        /// PEM file with the authorities that sign the servers' certificates; empty = those of the machine.
        pub tls_ca: String = String::new(), "", restart;
        /// PEM file with this node's certificate, for servers that ask for one.
        pub tls_cert: String = String::new(), "", restart;
        /// PEM file with the key of `tls_cert`.
        pub tls_key: String = String::new(), "", restart;
        /// Time a server may take to answer. Longer, and it counts as away: sign-ins are refused with a time to come back.
        pub timeout: Period = Period::ms(500), "", restart;
        /// Calls to one server at once; more are refused like when it is away.
        pub in_flight: u32 = 2048, "calls", restart;
        /// First part of every key; empty = the name of the cluster. Lets clusters share servers.
        pub prefix: String = String::new(), "", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut check = |bad: bool, key: &str, what: &str| {
        if bad {
            found.push(Problem::new(key, what));
        }
    };
    let redis = config.backend == "redis";
    check(!redis && config.backend != "memory", "backend", "must be memory or redis");
    check(redis && config.urls.is_empty(), "urls", "must name at least one Redis server");
    let is_url = |url: &String| url.starts_with("redis://") || url.starts_with("rediss://");
    check(!config.urls.iter().all(is_url), "urls", "must begin with redis:// or rediss://");
    check(config.urls.iter().any(|url| url.contains('@')), "urls", "credentials belong in user and password");
    check(config.tls_cert.is_empty() != config.tls_key.is_empty(), "tls_cert", "needs tls_key, and the reverse");
    check(!config.user.is_empty() && config.password.is_empty(), "password", "a user needs one");
    let bounds = 10..=5_000;
    check(!bounds.contains(&config.timeout.get().as_millis()), "timeout", "must be between 10ms and 5s");
    check(config.in_flight == 0, "in_flight", "must be at least 1");
    found
}
