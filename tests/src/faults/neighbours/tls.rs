//! A caller of a service that may have any certificate, or none.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A certificate and its key.
pub(super) struct Papers {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Papers {
    /// `NAME.pem` and `NAME.key` of a folder.
    pub(super) fn of(dir: &Path, name: &str) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.pem")))?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key")))?;
        Ok(Self { chain, key })
    }
}

/// Calls one method with an empty message; the gRPC status. An error: no answer was given at all.
pub(super) async fn call(
    address: String,
    papers: Option<Papers>,
    cluster: String,
    to: &'static str,
    service: &'static str,
    path: &'static str,
) -> Result<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match papers {
        Some(papers) => builder.with_client_auth_cert(papers.chain, papers.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(&address).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("linnet-cluster", cluster)
        .header("linnet-from", "somebody")
        .header("linnet-to", to)
        .header("linnet-service", service)
        // One message of no bytes.
        .body(Full::new(Bytes::from_static(&[0; 5])))?;
    let reply = sender.send_request(request).await?;
    let status =
        |headers: &http::HeaderMap| headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let early = status(reply.headers());
    let body = reply.into_body().collect().await?;
    early.or_else(|| body.trailers().and_then(status)).context("no gRPC status")
}

/// Takes whoever answers for the server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
