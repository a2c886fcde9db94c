//! Mutual TLS: both ends show a certificate of the private authority that names the cluster and the services.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use linnet_types::UnixMillis;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_util::sync::CancellationToken;

use super::metrics::LinkMetrics;
use crate::certificate::{Identity, Validity};
use crate::config::ClusterConfig;
use crate::error::{Error, Result};
use crate::service::Service;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The certificates of this node, as its files have them now.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    current: ArcSwap<Loaded>,
}

#[derive(Clone, Debug)]
struct Files {
    cluster: String,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    until: UnixMillis,
}

impl Tls {
    /// Reads the files of `config`.
    pub(super) fn load(config: &ClusterConfig) -> Result<Self> {
        let files = Files {
            cluster: config.name.clone(),
            ca: config.tls_ca.clone(),
            cert: config.tls_cert.clone(),
            key: config.tls_key.clone(),
        };
        let current = ArcSwap::from_pointee(files.load()?);
        Ok(Self { files, current })
    }

    /// For accepting a connection now.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// For making a connection now.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().client)
    }

    /// End of this node's certificate.
    pub(super) fn until(&self) -> UnixMillis {
        self.current.load().until
    }

    /// Reads the files again when one has changed. What cannot be used is left alone: the certificates in use stay.
    pub(super) async fn watch(&self, metrics: &LinkMetrics, closing: CancellationToken) {
        let mut seen = self.files.stamps().await;
        while closing.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let stamps = self.files.stamps().await;
            if stamps == seen {
                continue;
            }
            seen = stamps;
            let loaded = self.files.load();
            metrics.reloaded(loaded.is_ok());
            match loaded {
                Ok(loaded) => {
                    tracing::info!(until_ms = loaded.until.0, "certificates read again");
                    metrics.expiry.set(i64::try_from(loaded.until.secs()).unwrap_or(i64::MAX));
                    self.current.store(Arc::new(loaded));
                }
                Err(why) => tracing::warn!(%why, "changed certificates cannot be used; the old ones stay"),
            }
        }
    }
}

/// The name under which a client asks for a node that runs `service`.
pub(super) fn name_of(service: Service) -> ServerName<'static> {
    ServerName::try_from(service.name()).expect("names of services are letters and hyphens")
}

/// Who the other end is, by the certificate that was verified.
pub(super) fn identity(certificates: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    Identity::read(certificates?.first()?).ok()
}

type Stamp = Option<(SystemTime, u64)>;

impl Files {
    async fn stamps(&self) -> [Stamp; 3] {
        let mut stamps = [None; 3];
        for (stamp, path) in stamps.iter_mut().zip([&self.ca, &self.cert, &self.key]) {
            let found = tokio::fs::metadata(path).await.ok();
            *stamp = found.and_then(|found| Some((found.modified().ok()?, found.len())));
        }
        stamps
    }

    fn load(&self) -> Result<Loaded> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots()?);
        let chain = self.chain()?;
        let own = chain.first().ok_or_else(|| wrong(&self.cert, "holds no certificate"))?;
        let identity = Identity::read(own).map_err(|why| wrong(&self.cert, why))?;
        if identity.cluster != self.cluster {
            let what = format!("is for cluster {:?}, and cluster.name is {:?}", identity.cluster, self.cluster);
            return Err(wrong(&self.cert, what));
        }
        let until = Validity::read(own).ok_or_else(|| wrong(&self.cert, "has no dates"))?.until;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|why| wrong(&self.key, why))?;
        let names = Names { cluster: self.cluster.clone() };

        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|why| wrong(&self.ca, why))?;
        let servers = Servers { roots, algorithms: provider.signature_verification_algorithms, names: names.clone() };
        servers.chain(own, &chain[1..], UnixTime::now()).map_err(|why| {
            wrong(&self.cert, format!("{why}: issue it again with `linnet certs issue` from {}", self.ca.display()))
        })?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| wrong(&self.cert, why))?
            .with_client_cert_verifier(Arc::new(Clients { chain: clients, names }))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|why| wrong(&self.key, why))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not show its certificate again.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| wrong(&self.cert, why))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_auth_cert(chain, key)
            .map_err(|why| wrong(&self.key, why))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.enable_sni = false;
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Loaded { server: Arc::new(server), client: Arc::new(client), until })
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|why| wrong(&self.ca, why))?;
        }
        if roots.is_empty() { Err(wrong(&self.ca, "holds no certificate")) } else { Ok(roots) }
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        certificates(&self.cert)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).map_err(|why| wrong(path, why))?;
    read.collect::<Result<_, _>>().map_err(|why| wrong(path, why))
}

fn wrong(path: &Path, what: impl ToString) -> Error {
    Error::Certificate { path: path.to_owned(), what: what.to_string() }
}

/// What the names of a certificate must say.
#[derive(Clone, Debug)]
struct Names {
    cluster: String,
}

impl Names {
    /// `service` is what the other end is to be, when this end chose it.
    fn check(&self, certificate: &[u8], service: Option<Service>) -> Result<(), rustls::Error> {
        let identity = Identity::read(certificate).map_err(refused)?;
        if identity.cluster != self.cluster {
            return Err(refused(format!("a node of cluster {:?}, not {:?}", identity.cluster, self.cluster)));
        }
        match service {
            Some(service) if !identity.services.contains(&service) => {
                Err(refused(format!("its certificate does not name {service}")))
            }
            _ => Ok(()),
        }
    }
}

fn refused(why: String) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(io::Error::other(why)))))
}

/// Callers: a chain to the authority, and our cluster's name.
#[derive(Debug)]
struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    names: Names,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        self.names.check(certificate, None)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Targets: a chain to the authority, our cluster's name, and the service that is dialled.
#[derive(Debug)]
struct Servers {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    names: Names,
}

impl Servers {
    fn chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let all = self.algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, all)
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chain(certificate, intermediates, now)?;
        let service = Service::parse(&server_name.to_str());
        let service = service.ok_or_else(|| refused("no service was asked for".to_owned()))?;
        self.names.check(certificate, Some(service))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
