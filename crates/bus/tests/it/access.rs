//! Who may speak on the bus, and how servers and nodes know each other, with real servers.

use std::path::Path;

use linnet_bus::{Config, Permissions, subject};
use linnet_local::certs::{self, Tls};
use linnet_local::servers::{Nats, NatsUser, Server};
use linnet_runtime::config::Secret;
use linnet_types::NodeId;

use crate::nats::{Node, config, eventually};
use crate::suite::{publish, suite, text};

const CLUSTER: &str = "linnet";
/// A pair made for these tests.
const NKEY_SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const NKEY_PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
/// Well formed, and nobody's.
const NKEY_OTHER: &str = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU";

fn signed_in(server: &Server, user: &str, password: &str) -> Config {
    Config { user: user.to_owned(), password: Secret::new(password), ..config(server.addresses()) }
}

/// A node that comes to be connected.
async fn connects(config: Config) -> Node {
    let node = Node::start(CLUSTER, config).await;
    node.connected(true).await;
    node
}

/// A node that does not, and says why.
async fn is_refused(config: Config) -> String {
    let config = Config { connect_timeout: "500ms".parse().expect("a span"), ..config };
    let node = Node::start(CLUSTER, config).await;
    assert!(!*node.nats.connected().borrow());
    assert!(node.bus.publish(subject::members(), "x".into()).await.is_err(), "it cannot publish");
    node.nats.trouble().expect("a reason")
}

/// Users with the permissions of one role each.
fn users(roles: &[(&str, &str)]) -> Vec<NatsUser> {
    let user = |&(name, role): &(&str, &str)| {
        let Permissions { publish, subscribe } = Permissions::of(CLUSTER, "site", &NodeId::trusted(name), &[role]);
        NatsUser {
            user: name.to_owned(),
            password: format!("secret of {name}"),
            publish,
            subscribe,
            ..NatsUser::default()
        }
    };
    roles.iter().map(user).collect()
}

#[tokio::test]
async fn without_credentials_or_with_wrong_ones_nobody_speaks() {
    let all = NatsUser { user: "linnet".to_owned(), password: "right".to_owned(), ..NatsUser::default() };
    let server = Nats { users: vec![all], ..Nats::default() }.start().await.expect("a server");
    let why = is_refused(config(server.addresses())).await;
    assert!(why.to_lowercase().contains("authorization"), "{why}");
    let why = is_refused(signed_in(&server, "linnet", "wrong")).await;
    assert!(why.to_lowercase().contains("authorization") && !why.contains("wrong"), "{why}");
    suite(connects(signed_in(&server, "linnet", "right")).await.bus).await;
}

#[tokio::test]
async fn roles_are_held_to_their_subjects() {
    let roles = [("group-1", "group"), ("gateway-1", "gateway"), ("gateway-2", "gateway"), ("callback-1", "callback")];
    let server = Nats { users: users(&roles), ..Nats::default() }.start().await.expect("a server");
    let node = async |name: &str| connects(signed_in(&server, name, &format!("secret of {name}"))).await;
    let (group, gateway) = (node("group-1").await, node("gateway-1").await);
    let (spy, callback) = (node("gateway-2").await, node("callback-1").await);
    let frames = subject::gw(&NodeId::trusted("gateway-1"));
    let mut at_gateway = gateway.bus.subscribe(frames.clone()).await.expect("subscribed");
    let mut at_spy = spy.bus.subscribe(frames.clone()).await.expect("noted");
    gateway.bus.flush().await.expect("flushed");
    spy.bus.flush().await.expect("flushed");

    for forger in [&spy, &callback] {
        publish(&forger.bus, &frames, "forged").await;
        forger.bus.flush().await.expect("flushed");
        eventually("the server refuses", || forger.metrics.value("linnet_bus_server_errors_total") >= Some(1.0)).await;
    }
    publish(&group.bus, &frames, "true").await;
    assert_eq!(text(&mut at_gateway).await, "true", "nothing forged came before");
    spy.bus.flush().await.expect("flushed");
    assert_eq!(at_spy.try_recv(), None, "frames of another gateway are not overheard");
}

#[tokio::test]
async fn every_role_may_do_what_it_needs() {
    let roles = ["gateway", "api", "session", "account", "group", "message-store", "push", "callback"];
    let named: Vec<_> = roles.iter().map(|role| (*role, *role)).collect();
    let server = Nats { users: users(&named), ..Nats::default() }.start().await.expect("a server");
    for role in roles {
        let node = connects(signed_in(&server, role, &format!("secret of {role}"))).await;
        let mut beats = node.bus.subscribe(subject::members()).await.expect("subscribed");
        node.bus.flush().await.expect("a flush goes by the bus itself");
        publish(&node.bus, &subject::members(), role).await;
        assert_eq!(text(&mut beats).await, role);
        assert_eq!(node.metrics.value("linnet_bus_server_errors_total"), Some(0.0));
    }
}

#[tokio::test]
async fn an_nkey_signs_in() {
    let user = NatsUser { nkey: NKEY_PUBLIC.to_owned(), ..NatsUser::default() };
    let server = Nats { users: vec![user], ..Nats::default() }.start().await.expect("a server");
    let with = |seed: &str| Config { nkey: Secret::new(seed), ..config(server.addresses()) };
    suite(connects(with(NKEY_SEED)).await.bus).await;
    let why = is_refused(with(NKEY_OTHER)).await;
    assert!(!why.contains(NKEY_OTHER), "{why}");
    is_refused(with("not a seed")).await;
}

fn shown(path: &Path) -> String {
    path.to_str().expect("plain paths").to_owned()
}

fn over_tls(server: &Server, tls: &Tls) -> Config {
    Config { tls_ca: shown(&tls.ca), ..config(server.addresses()) }
}

#[tokio::test]
async fn the_server_shows_a_certificate_of_our_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = certs::make(&folder.path().join("ours"), &[]).expect("certificates");
    let other = certs::make(&folder.path().join("other"), &[]).expect("certificates");
    let server = Nats { tls: Some(ours.clone()), ..Nats::default() }.start().await.expect("a server");
    suite(connects(over_tls(&server, &ours)).await.bus).await;
    let why = is_refused(over_tls(&server, &other)).await;
    assert!(why.contains("certificate"), "{why}");
    let why = is_refused(config(server.addresses())).await;
    assert!(why.contains("certificate") || why.contains("TLS"), "the system's authorities do not know it: {why}");

    // A server that does not speak TLS is not spoken to in the clear.
    let plain = Nats::default().start().await.expect("a server");
    is_refused(over_tls(&plain, &ours)).await;
}

#[tokio::test]
async fn a_server_may_insist_on_the_nodes_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certs::make(folder.path(), &[]).expect("certificates");
    let server = Nats { tls: Some(tls.clone()), verify_clients: true, ..Nats::default() };
    let server = server.start().await.expect("a server");
    let with =
        |cert: &Path, key: &Path| Config { tls_cert: shown(cert), tls_key: shown(key), ..over_tls(&server, &tls) };
    is_refused(over_tls(&server, &tls)).await;
    let node = connects(with(&tls.client_cert, &tls.client_key)).await;
    node.bus.flush().await.expect("flushed");
}

#[tokio::test]
async fn certificates_are_read_again_at_each_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = certs::make(&folder.path().join("old"), &[]).expect("certificates");
    let new = certs::make(&folder.path().join("new"), &[]).expect("certificates");
    let server = Nats { tls: Some(new.clone()), ..Nats::default() }.start().await.expect("a server");
    let node = Node::start(CLUSTER, over_tls(&server, &old)).await;
    assert!(!*node.nats.connected().borrow());
    std::fs::copy(&new.ca, &old.ca).expect("replaced");
    node.connected(true).await;
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    let server = Nats::default().start().await.expect("a server");
    let why = is_refused(Config { creds: "/nowhere/linnet.creds".to_owned(), ..config(server.addresses()) }).await;
    assert!(why.contains("/nowhere/linnet.creds"), "{why}");
}
