//! Who is refused: without a certificate, of another authority, cluster or role; and how certificates are exchanged.

use std::sync::Arc;
use std::time::Duration;

use linnet_cluster::{ClusterConfig, LocalNet, RemoteDeps, RemoteNet, RpcConfig, Service};
use linnet_runtime::config::Documented;
use linnet_runtime::status::outcome_unknown;
use linnet_runtime::{Metrics, Rng, Tasks};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::echo::{Echo, EchoClient};
use crate::process::certs::Authority;
use crate::process::{Process, eventually, id, open};

async fn owner(ca: &Authority) -> Process {
    let owner = Process::start("owner", ca.config("owner", &[Service::Group]), RpcConfig::default()).await;
    owner.serve(Service::Group, Echo::routes("owner"));
    owner
}

/// What a node of that configuration gets from `owner`.
async fn ask(owner: &Process, config: ClusterConfig) -> Result<String, Status> {
    let caller = Process::start("caller", config, RpcConfig::default()).await;
    caller.script.set([owner.node(&[Service::Group])]);
    EchoClient::new(caller.to("owner", Service::Group)).call("x").await
}

fn refused(owner: &Process, reason: &str) -> f64 {
    owner.metrics.value(&format!("linnet_rpc_peers_refused_total{{reason=\"{reason}\"}}")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn node_of_the_cluster_is_served() {
    let ca = Authority::new();
    let owner = owner(&ca).await;
    assert_eq!(ask(&owner, ca.config("gateway", &[Service::Gateway])).await.expect("answered"), "owner: x");
    let expiry = owner.metrics.value("linnet_rpc_certificate_expiry_timestamp_seconds").expect("shown");
    let now = linnet_runtime::Clock::system().now().secs() as f64;
    assert!((expiry - now - 30.0 * 86_400.0).abs() < 60.0, "{expiry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_without_a_certificate_is_refused() {
    let ca = Authority::new();
    let owner = owner(&ca).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(owner.remote.address()).await.expect("connected");
    let name = ServerName::try_from("group").expect("a name");
    let answer = async {
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        tls.read_u8().await
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("an end");
    assert!(answer.is_err(), "a byte of HTTP without a certificate");
    eventually("it is counted", || refused(&owner, "certificate") == 1.0).await;
    // Nor does anyone get through without TLS.
    let status = ask(&owner, open("caller")).await.expect_err("refused");
    assert!(!outcome_unknown(&status), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_authority_other_cluster_and_ended_certificates_are_refused() {
    let (ca, other) = (Authority::new(), Authority::new());
    let owner = owner(&ca).await;
    let foreign = other.config("caller", &[Service::Gateway]);
    // It trusts the owner; the owner does not trust it.
    let trusting = ClusterConfig { tls_ca: both(&ca, &other), ..foreign.clone() };
    for (n, config) in [foreign, trusting].into_iter().enumerate() {
        let status = ask(&owner, config).await.expect_err("refused");
        assert!(!outcome_unknown(&status), "{n} {status:?}");
    }
    eventually("counted", || refused(&owner, "certificate") >= 2.0).await;
    let before = refused(&owner, "certificate");
    let (tls_cert, tls_key) = ca.issue("elsewhere", "elsewhere", &[Service::Gateway], 30);
    let elsewhere = ClusterConfig { name: "elsewhere".to_owned(), tls_cert, tls_key, ..ca.config("caller", &[]) };
    assert!(ask(&owner, elsewhere).await.is_err());
    eventually("the owner refused it, or it the owner", || refused(&owner, "certificate") > before).await;
}

/// A file with the certificates of both.
fn both(one: &Authority, other: &Authority) -> std::path::PathBuf {
    let read = |ca: &Authority| std::fs::read_to_string(ca.ca()).expect("read");
    let path = one.ca().with_file_name("both.pem");
    std::fs::write(&path, read(one) + &read(other)).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn role_without_business_is_refused_call_by_call() {
    let ca = Authority::new();
    let owner = owner(&ca).await;
    let status = ask(&owner, ca.config("session", &[Service::Session])).await.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(refused(&owner, "role"), 1.0);
    // With a role more it may.
    let config = ca.config("both", &[Service::Session, Service::MessageStore]);
    assert_eq!(ask(&owner, config).await.expect("answered"), "owner: x");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_does_not_run_the_service_is_not_called() {
    let ca = Authority::new();
    let config = ca.config("owner", &[Service::Account]);
    let impostor = Process::start("owner", config, RpcConfig::default()).await;
    impostor.serve(Service::Group, Echo::routes("impostor"));
    let status = ask(&impostor, ca.config("gateway", &[Service::Gateway])).await.expect_err("refused");
    assert!(!outcome_unknown(&status), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_certificates_are_used_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let owner = owner(&old).await;
    let stranger = || new.config("gateway", &[Service::Gateway]);
    assert!(ask(&owner, stranger()).await.is_err());
    // Half of a change is not used.
    let (cert, key) = old.files("owner");
    let (new_cert, new_key) = new.issue("owner", "linnet", &[Service::Group], 60);
    let reloads = |outcome: &str| {
        let series = format!("linnet_rpc_certificate_reloads_total{{outcome=\"{outcome}\"}}");
        owner.metrics.value(&series).unwrap_or_default()
    };
    std::fs::copy(&new_key, &key).expect("written");
    eventually("the odd key is seen", || reloads("failed") >= 1.0).await;
    assert_eq!(ask(&owner, old.config("gateway", &[Service::Gateway])).await.expect("as before"), "owner: x");
    std::fs::copy(new.ca(), old.ca()).expect("written");
    std::fs::copy(&new_cert, &cert).expect("written");
    eventually("all three are used", || reloads("ok") >= 1.0).await;
    assert_eq!(ask(&owner, stranger()).await.expect("answered"), "owner: x");
    let expiry = owner.metrics.value("linnet_rpc_certificate_expiry_timestamp_seconds").expect("shown");
    let now = linnet_runtime::Clock::system().now().secs() as f64;
    assert!(expiry - now > 59.0 * 86_400.0, "{expiry}");
}

async fn listen(config: ClusterConfig) -> String {
    let metrics = Metrics::new();
    let local = LocalNet::new(RpcConfig::default(), &metrics);
    let deps = RemoteDeps { me: id("one"), local, tasks: Tasks::new(&metrics), rng: Rng::seeded(1), metrics };
    RemoteNet::listen(&config, deps).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn calls_are_never_open_to_a_network_by_accident() {
    for (listen_at, insecure) in [("127.0.0.1:0", false), ("0.0.0.0:0", true), ("0.0.0.0:0", false)] {
        let config = ClusterConfig { listen: listen_at.to_owned(), insecure, ..open("one") };
        assert_eq!(config.problems().len(), 1, "{listen_at} {insecure}");
        let what = listen(config).await;
        assert!(what.contains("linnet certs init") && what.contains("loopback"), "{what}");
    }
    assert!(open("one").problems().is_empty());
}

#[tokio::test]
async fn certificates_that_cannot_work_are_refused_at_the_start() {
    let (ca, other) = (Authority::new(), Authority::new());
    let good = ca.config("one", &[Service::Group]);
    let wrong = |name: &str, cluster: &str, days: i64| {
        let (tls_cert, tls_key) = ca.issue(name, cluster, &[Service::Group], days);
        ClusterConfig { tls_cert, tls_key, ..good.clone() }
    };
    assert!(listen(wrong("elsewhere", "elsewhere", 30)).await.contains("is for cluster \"elsewhere\""));
    assert!(listen(wrong("ended", "linnet", -1)).await.contains("linnet certs issue"));
    let foreign = ClusterConfig { tls_ca: other.ca(), ..good.clone() };
    assert!(listen(foreign).await.contains("linnet certs issue"));
    let (_, tls_key) = ca.issue("two", "linnet", &[Service::Group], 30);
    assert!(listen(ClusterConfig { tls_key, ..good.clone() }).await.contains("two.key"));
    let missing = ClusterConfig { tls_key: "/nowhere/key.pem".into(), ..good };
    assert!(listen(missing).await.contains("/nowhere/key.pem"));
}

/// Trusts whoever answers: an attacker would.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
