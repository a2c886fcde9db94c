//! The same over TLS: the stream under the upgrade is found, read and flushed.

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use linnet_gateway::Config;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::fakes::{Node, router};

#[tokio::test]
async fn clients_over_tls_send_and_receive_large_messages() {
    let node = Node::start(Config::default()).await;
    let key = KeyPair::generate().expect("generates");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("signs");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = linnet_gateway::listen(([127, 0, 0, 1], 0).into()).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let (tasks, service) = (node.tasks.clone(), router(node.running.gateway.clone()));
    node.tasks.spawn("test.tls", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(service.clone()));
            tasks.spawn("test.tls.connection", async move {
                let stream = acceptor.accept(stream).await.expect("handshake");
                let builder = Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    let options = |user: &str| {
        let mut options = node.options(user);
        options.url = format!("wss://localhost:{port}/ws");
        options.ca_pem = Some(certificate.pem().into_bytes());
        options
    };
    let (alice, _a) = node.connect(options("alice")).await;
    let (_bob, mut bob) = node.connect(options("bob").json()).await;
    let text = "x".repeat(10_000);
    for n in 1..=20 {
        assert_eq!(alice.text("C2C:bob", &format!("{n}{text}")).await.expect("stored").seq, n);
    }
    for n in 1..=20 {
        assert_eq!(bob.message().await.expect("pushed").1.seq, n);
    }
    node.accounts_add_up().await;
}
