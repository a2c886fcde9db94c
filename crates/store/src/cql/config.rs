//! Settings of the CQL store.

use std::collections::HashMap;

use linnet_runtime::config::{ByteSize, Period, Problem, Secret};

linnet_runtime::config! {
    /// The CQL store: ScyllaDB, or any server that speaks its language.
    pub struct Config {
        /// Contact points, `host:port`; the rest of the cluster is learned from them.
        pub nodes: Vec<String> = vec!["127.0.0.1:9042".to_owned()], "", restart;
        /// Keyspace; `linnet migrate run` makes it.
        pub keyspace: String = "linnet".to_owned(), "", restart;
        /// Role to sign in as; empty = none is asked for.
        pub user: String = String::new(), "", restart;
        /// Its password.
        pub password: Secret = Secret::default(), "", restart;
        /// CA that signed the servers' certificates, a PEM file; empty = no TLS.
        pub tls_ca: String = String::new(), "", restart;
        /// Our own certificate, a PEM file, where servers ask for one.
        pub tls_cert: String = String::new(), "", restart;
        /// Its key, a PEM file.
        pub tls_key: String = String::new(), "", restart;
        /// Name the servers' certificates carry, where it is not the address they are reached at.
        pub tls_name: String = String::new(), "", restart;
        /// The data centre to stay in, whose quorum decides; empty = the only one there is.
        pub datacenter: String = String::new(), "", restart;
        /// Copies of every row in the data centre: how `linnet migrate run` makes the keyspace. 3 outlives one server.
        pub replication: u32 = 3, "copies", restart;
        /// Servers dialled elsewhere than where they say they are, `host:port=host:port` (port forwards, test networks). One
        /// server a host: servers tell each other's hosts only.
        pub via: Vec<String> = Vec::new(), "", restart;
        /// Time a connection may take to be made.
        pub connect_timeout: Period = Period::secs(2), "", restart;
        /// Time a write may take. A write not answered by then has an unknown outcome, which costs a claim: lower finds a
        /// paused server sooner, higher bears a slower one.
        pub write_timeout: Period = Period::secs(2), "", restart;
        /// Time a read may take, with what was asked of a second server.
        pub read_timeout: Period = Period::secs(2), "", restart;
        /// Time one page of a scan over a whole table may take.
        pub scan_timeout: Period = Period::secs(10), "", restart;
        /// Wait before a read is asked of a second server as well. Lower costs reads, higher the wait for a paused server.
        pub second_read_after: Period = Period::ms(250), "", restart;
        /// A connection on which nothing came for this long is asked for a sign of life, and given up when there is none for
        /// as long again.
        pub keepalive: Period = Period::ms(1500), "", restart;
        /// Conditional writes under way at a time; more wait `busy_after` and are then refused as busy, before anything
        /// is sent.
        pub guarded_writes: usize = 256, "requests", restart;
        /// Serial reads of guards under way at a time.
        pub serial_reads: usize = 256, "requests", restart;
        /// Plain writes under way at a time.
        pub plain_writes: usize = 256, "requests", restart;
        /// Reads of rows under way at a time.
        pub page_reads: usize = 512, "requests", restart;
        /// Scans over whole tables under way at a time.
        pub scans: usize = 4, "requests", restart;
        /// Wait for a place among the requests under way.
        pub busy_after: Period = Period::ms(250), "", restart;
        /// Largest conditional batch; a larger one is refused before it is sent, never cut in two. Servers have a limit of
        /// their own (`batch_size_fail_threshold`: 1 MiB in ScyllaDB; Cassandra's 50 KiB are not applied to conditional
        /// batches, seen in 5.0). What Linnet stores stays below 50 KiB; raise it with the size of messages.
        pub batch_limit: ByteSize = ByteSize::kib(50), "", restart;
    }
    check problems;
}

impl Config {
    /// Where the servers of each host are dialled.
    pub(super) fn hosts_via(&self) -> HashMap<String, String> {
        let host = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
        self.translations().into_iter().map(|(from, to)| (host(&from), to)).collect()
    }

    /// Where each server is dialled: what it calls itself -> where to go.
    fn translations(&self) -> HashMap<String, String> {
        let pairs = self.via.iter().filter_map(|entry| entry.split_once('='));
        pairs.map(|(from, to)| (from.trim().to_owned(), to.trim().to_owned())).collect()
    }

    /// The contact points as they are dialled.
    pub(super) fn contact_points(&self) -> Vec<String> {
        let via = self.translations();
        self.nodes.iter().map(|node| via.get(node).unwrap_or(node).clone()).collect()
    }

    /// For errors: what was tried.
    pub(super) fn place(&self) -> String {
        format!("keyspace {} on {}", self.keyspace, self.nodes.join(", "))
    }
}

/// Whether `text` is `host:port`.
fn is_address(text: &str) -> bool {
    text.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut require = |key: &str, holds: bool, what: &str| {
        if !holds {
            problems.push(Problem::new(key, what));
        }
    };
    require("nodes", !config.nodes.is_empty(), "must name at least one server");
    require("nodes", config.nodes.iter().all(|node| is_address(node)), "must be host:port each");
    let pair = |entry: &String| entry.split_once('=').is_some_and(|(from, to)| is_address(from) && is_address(to));
    require("via", config.via.iter().all(pair), "must be host:port=host:port each");
    let name = config.keyspace.as_bytes();
    let plain = name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_');
    let begins = name.first().is_some_and(u8::is_ascii_lowercase);
    require("keyspace", plain && begins && name.len() <= 48, "must be 1 to 48 of a-z, 0-9 and _, a letter first");
    require("replication", (1..=9).contains(&config.replication), "must be 1 to 9");
    require("tls_key", config.tls_key.is_empty() == config.tls_cert.is_empty(), "goes with tls_cert");
    require("tls_cert", config.tls_cert.is_empty() || !config.tls_ca.is_empty(), "needs tls_ca");
    require("user", !config.user.is_empty() || config.password.is_empty(), "must be set when password is");
    for (key, period) in [
        ("connect_timeout", config.connect_timeout),
        ("write_timeout", config.write_timeout),
        ("read_timeout", config.read_timeout),
        ("scan_timeout", config.scan_timeout),
        ("second_read_after", config.second_read_after),
        ("keepalive", config.keepalive),
    ] {
        require(key, !period.is_zero(), "must be more than 0");
    }
    for (key, bound) in [
        ("guarded_writes", config.guarded_writes),
        ("serial_reads", config.serial_reads),
        ("plain_writes", config.plain_writes),
        ("page_reads", config.page_reads),
        ("scans", config.scans),
    ] {
        require(key, bound > 0, "must be at least 1");
    }
    require("batch_limit", config.batch_limit.0 >= 1024, "must be at least 1KiB");
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_mistake_is_named() {
        assert!(problems(&Config::default()).is_empty());
        let wrong = Config {
            nodes: vec!["nowhere".to_owned()],
            keyspace: "Linnet".to_owned(),
            via: vec!["a:1".to_owned()],
            replication: 0,
            tls_key: "key.pem".to_owned(),
            scans: 0,
            ..Config::default()
        };
        let keys: Vec<String> = problems(&wrong).into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["nodes", "via", "keyspace", "replication", "tls_key", "scans"]);
    }

    #[test]
    fn contact_points_are_dialled_where_via_says() {
        let config = Config {
            nodes: vec!["10.0.0.1:9042".to_owned(), "10.0.0.2:9042".to_owned()],
            via: vec!["10.0.0.2:9042=127.0.0.1:7002".to_owned()],
            ..Config::default()
        };
        assert_eq!(config.contact_points(), ["10.0.0.1:9042", "127.0.0.1:7002"]);
    }
}
