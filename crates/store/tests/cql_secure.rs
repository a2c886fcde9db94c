//! Credentials and TLS, against a server that asks for both.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/relay.rs"]
mod relay;

use std::time::Duration;

use linnet_local::certs;
use linnet_local::servers::Cql as Server;
use linnet_runtime::config::Secret;
use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Tasks};
use linnet_store::cql::migrate::{self, Verdict};
use linnet_store::cql::{Config, Cql};
use linnet_store::{Kind, Life, PlainBatch, Rows, Table, Write};
use relay::Relay;

const APPS: Table = Table { name: "app_index", kind: Kind::Plain };

async fn why_not(config: Config) -> String {
    let metrics = Metrics::new();
    let refused = Cql::connect(config, Clock::system(), &Tasks::new(&metrics), &metrics).await;
    refused.err().unwrap().to_string()
}

async fn round_trip(config: Config) {
    let metrics = Metrics::new();
    let store = Cql::connect(config, Clock::system(), &Tasks::new(&metrics), &metrics).await.unwrap();
    let put = Write::Put { clustering: "k".into(), value: vec![7; 100_000].into() };
    store.put(PlainBatch { table: APPS, writes: vec![("p".into(), put)], life: Life::Forever }).await.unwrap();
    assert_eq!(store.get(APPS, b"p", b"k").await.unwrap().unwrap().len(), 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_with_its_ca_and_a_password_and_in_no_other_way() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certs::make(&folder.path().join("right"), &[]).unwrap();
    let other = certs::make(&folder.path().join("other"), &[]).unwrap();
    let server = Server { auth: true, tls: Some(tls.clone()), ..Server::default() }.start().await.unwrap();
    let (user, password) = server.login.clone().unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let config = Config {
        nodes: vec![server.address().to_owned()],
        user,
        password: Secret::new(password),
        tls_ca: path(&tls.ca),
        tls_name: "localhost".to_owned(),
        replication: 1,
        ..Config::default()
    };
    // The server makes its first role a moment after it listens.
    let clock = Clock::system();
    let since = clock.mono();
    let report = loop {
        match migrate::run(&config, |_| ()).await {
            Ok(report) => break report,
            Err(error) => assert!(clock.mono() - since < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(report.verdict, Verdict::Current);
    round_trip(config.clone()).await;
    let own = Config { tls_cert: path(&tls.client_cert), tls_key: path(&tls.client_key), ..config.clone() };
    round_trip(own).await;

    // By way of somewhere else: the certificate is checked against the address that is dialled.
    let relay = Relay::to(server.address()).await;
    let via = vec![format!("{}={}", server.address(), relay.address)];
    round_trip(Config { via, tls_name: String::new(), ..config.clone() }).await;

    let wrong_ca = why_not(Config { tls_ca: path(&other.ca), ..config.clone() }).await;
    assert!(wrong_ca.contains("invalid peer certificate"), "{wrong_ca}");
    let wrong_name = why_not(Config { tls_name: "elsewhere".to_owned(), ..config.clone() }).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let no_file = why_not(Config { tls_ca: "/nowhere/ca.pem".to_owned(), ..config.clone() }).await;
    assert!(no_file.contains("/nowhere/ca.pem"), "{no_file}");
    let wrong_password = why_not(Config { password: Secret::new("wrong"), ..config.clone() }).await;
    assert!(
        wrong_password.to_lowercase().contains("credentials") || wrong_password.contains("uthenticat"),
        "{wrong_password}"
    );
    assert!(!wrong_password.contains("wrong\""), "no password in an error");
    let nobody = why_not(Config { user: String::new(), password: Secret::default(), ..config.clone() }).await;
    assert!(nobody.contains("uthenticat"), "{nobody}");
    why_not(Config { tls_ca: String::new(), ..config }).await;
}
