//! Which bus a node uses, and how it is reached.

use std::path::Path;

use linnet_runtime::config::{ByteSize, Period, Problem, Secret};

linnet_runtime::config! {
    /// The bus between nodes.
    pub struct Config {
        /// `local`: within this process, for a site of one process. `nats`: a NATS server or cluster, 2.10 or later.
        pub backend: String = "local".to_owned(), "", restart;
        /// Servers of the bus, `nats://host:port`, or `tls://host:port` to insist on TLS. One is drawn; the others are tried
        /// in turn when it fails.
        pub urls: Vec<String> = Vec::new(), "", restart;
        /// User name, with `password`.
        pub user: String = String::new(), "", restart;
        /// Password of `user`.
        pub password: Secret = Secret::default(), "", restart;
        /// Token, instead of user and password.
        pub token: Secret = Secret::default(), "", restart;
        /// NKey seed (`SU…`), instead of user and password. The server never sees it.
        pub nkey: Secret = Secret::default(), "", restart;
        /// Path of a `.creds` file (JWT and seed), instead of the others. Read again at each connection.
        pub creds: String = String::new(), "", restart;
        /// Path of a PEM file with the authorities that the server's certificate must come from; TLS is then insisted on.
        /// Without it, a server that asks for TLS is checked against the system's authorities. Read again at each connection,
        /// like the next two.
        pub tls_ca: String = String::new(), "", restart;
        /// Path of this node's certificate chain in PEM, for servers that check it.
        pub tls_cert: String = String::new(), "", restart;
        /// Path of the key of `tls_cert` in PEM.
        pub tls_key: String = String::new(), "", restart;
        /// Longest wait for one server to be reached, with TLS and sign-in.
        pub connect_timeout: Period = Period::secs(2), "", restart;
        /// A silent connection is probed this often and given up after three probes without an answer. Lower finds a cut
        /// sooner and takes a busy moment for one.
        pub ping_interval: Period = Period::ms(1500), "", restart;
        /// Longest pause between two tries to connect; each is drawn between half of it and all of it.
        pub reconnect_pause: Period = Period::secs(1), "", restart;
        /// Longest wait for the answer to a flush.
        pub flush_timeout: Period = Period::secs(2), "", restart;
        /// Longest wait of a message for room towards the server; then it is dropped and counted.
        pub publish_wait: Period = Period::ms(100), "", restart;
        /// What may wait towards the server, in bytes; more is dropped and counted.
        pub pending: ByteSize = ByteSize::mib(16), "", restart;
        /// Keep to `urls`: servers the bus names by itself are not used. Set it where nodes reach the bus through relays or
        /// translated addresses.
        pub ignore_discovered: bool = false, "", restart;
        /// Lets operators make this node lose messages, to try what happens. Never in production.
        pub faults: bool = false, "", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, what: &str| problems.push(Problem::new(key, what));
    match config.backend.as_str() {
        "local" => {}
        "nats" if config.urls.is_empty() => wrong("urls", "name at least one server, like nats://127.0.0.1:4222"),
        "nats" => {}
        _ => wrong("backend", "must be local or nats"),
    }
    for url in &config.urls {
        match url.parse::<async_nats::ServerAddr>() {
            Ok(server) if server.has_user_pass() => wrong("urls", "credentials belong in bus.user and bus.password"),
            Ok(server) if !matches!(server.scheme(), "nats" | "tls") => wrong("urls", "must be nats:// or tls://"),
            Ok(_) => {}
            Err(_) => wrong("urls", "must be like nats://host:port"),
        }
    }
    let ways = [!config.user.is_empty(), !config.token.is_empty(), !config.nkey.is_empty(), !config.creds.is_empty()];
    if ways.iter().filter(|set| **set).count() > 1 {
        wrong("user", "use one of user, token, nkey and creds");
    }
    if config.user.is_empty() != config.password.is_empty() {
        wrong("password", "user and password go together");
    }
    if config.tls_cert.is_empty() != config.tls_key.is_empty() {
        wrong("tls_key", "tls_cert and tls_key go together");
    }
    for (key, path) in [
        ("creds", &config.creds),
        ("tls_ca", &config.tls_ca),
        ("tls_cert", &config.tls_cert),
        ("tls_key", &config.tls_key),
    ] {
        if config.backend == "nats" && !path.is_empty() && !Path::new(path).is_file() {
            wrong(key, "no such file");
        }
    }
    for (key, span) in [
        ("connect_timeout", config.connect_timeout),
        ("ping_interval", config.ping_interval),
        ("reconnect_pause", config.reconnect_pause),
        ("flush_timeout", config.flush_timeout),
    ] {
        if span.is_zero() {
            wrong(key, "must be more than 0");
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use linnet_runtime::config::Documented;

    use super::*;

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config =
            Config { backend: "nats".to_owned(), urls: vec!["nats://a:1".to_owned()], ..Config::default() };
        change(&mut config);
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn every_contradiction_is_named() {
        assert!(Config::default().problems().is_empty());
        assert!(keys(|_| ()).is_empty());
        assert_eq!(keys(|config| config.backend = "kafka".to_owned()), ["backend"]);
        assert_eq!(keys(|config| config.urls.clear()), ["urls"]);
        assert_eq!(keys(|config| config.urls = vec!["nats://me:secret@a:1".to_owned()]), ["urls"]);
        assert_eq!(keys(|config| config.urls = vec!["http://a:1".to_owned()]), ["urls"]);
        assert_eq!(keys(|config| config.user = "me".to_owned()), ["password"]);
        assert_eq!(keys(|config| config.tls_cert = "/nowhere".to_owned()), ["tls_key", "tls_cert"]);
        assert_eq!(
            keys(|config| (config.token, config.nkey) = (Secret::new("a"), Secret::new("b"))),
            ["user"],
            "two ways to sign in"
        );
    }
}
