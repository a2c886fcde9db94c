use linnet_cluster::{ClusterConfig, LocalNet, RemoteDeps, RemoteNet, RpcConfig};
use linnet_runtime::{Metrics, Rng, Tasks};
use linnet_types::NodeId;

use super::*;

const QUIET: Output = Output { json: false, quiet: true };

fn now() -> UnixMillis {
    Clock::system().now()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Starts a node with the files of `node` in `dir`.
async fn listen(dir: &Path, node: &str) -> linnet_cluster::Result<RemoteNet> {
    let metrics = Metrics::new();
    let config = ClusterConfig {
        name: "chat".to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        tls_ca: dir.join("ca.pem"),
        tls_cert: dir.join(format!("{node}.pem")),
        tls_key: dir.join(format!("{node}.key")),
        ..ClusterConfig::default()
    };
    let local = LocalNet::new(RpcConfig::default(), &metrics);
    let me = NodeId::trusted(node);
    let deps = RemoteDeps { me, local, tasks: Tasks::new(&metrics), rng: Rng::seeded(1), metrics };
    RemoteNet::listen(&config, deps).await
}

#[tokio::test]
async fn what_is_issued_starts_a_node_and_its_keys_are_secret() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    init(&dir, "chat", now(), QUIET).unwrap();
    let authority = Authority::open(&dir, now()).unwrap();
    authority.issue("owner-1", &[Service::Group, Service::MessageStore], now(), DAY).unwrap();
    let found = nodes(&dir).unwrap();
    assert_eq!((found.len(), found[0].node.as_str()), (1, "owner-1"));
    let services = vec![Service::Group, Service::MessageStore];
    assert_eq!(found[0].identity, Identity { cluster: "chat".to_owned(), services });
    for key in ["ca.key", "owner-1.key"] {
        assert_eq!(mode(&dir.join(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&dir), 0o700);
    listen(&dir, "owner-1").await.unwrap().stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn authority_stays_and_is_for_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "chat", now(), QUIET).unwrap();
    let before = fs::read(folder.path().join("ca.pem")).unwrap();
    init(folder.path(), "chat", now(), QUIET).unwrap();
    assert!(init(folder.path(), "other", now(), QUIET).is_err());
    assert_eq!(fs::read(folder.path().join("ca.pem")).unwrap(), before);
    assert!(Authority::open(&folder.path().join("none"), now()).is_err());
}

#[tokio::test]
async fn only_what_ends_soon_is_renewed_for_the_same_services() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    init(dir, "chat", now(), QUIET).unwrap();
    let authority = Authority::open(dir, now()).unwrap();
    authority.issue("soon", &[Service::Api], now(), DAY * 10).unwrap();
    authority.issue("later", &[Service::Push], now(), DAY * 100).unwrap();
    let until = |name: &str| nodes(dir).unwrap().into_iter().find(|found| found.node == name).unwrap();
    let (soon, later) = (until("soon"), until("later"));
    renew(dir, now(), DAY * 30, DAY * 397, QUIET).unwrap();
    assert_eq!(until("soon").identity, soon.identity);
    assert!(until("soon").validity.until.0 > soon.validity.until.0 + 300 * 86_400_000);
    assert_eq!(until("later").validity, later.validity);
    listen(dir, "soon").await.unwrap().stop(Duration::from_secs(1)).await;
}

#[test]
fn ended_certificates_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    init(dir, "chat", now(), QUIET).unwrap();
    let authority = Authority::open(dir, now()).unwrap();
    authority.issue("one", &[Service::Api], now(), DAY).unwrap();
    assert_eq!(show(dir, now(), QUIET).unwrap(), Exit::Done);
    let later = UnixMillis(now().0 + 2 * 86_400_000);
    assert_eq!(show(dir, later, QUIET).unwrap(), Exit::Refused);
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "chat", now(), QUIET).unwrap();
    let authority = Authority::open(folder.path(), now()).unwrap();
    for name in ["../x", "a/b", "", ".x", "ca", "näme"] {
        assert!(authority.issue(name, &[Service::Api], now(), DAY).is_err(), "{name}");
    }
}
