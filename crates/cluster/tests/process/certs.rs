//! A private authority for tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linnet_cluster::{ClusterConfig, Service, certificate};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a folder");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes `name.pem` and `name.key`, good for `days` from now (before, when negative).
    pub(crate) fn issue(&self, name: &str, cluster: &str, services: &[Service], days: i64) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for service in services {
            let uri = certificate::uri(cluster, *service).try_into().expect("a URI");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(linnet_runtime::Clock::system().now().secs());
        let day = Duration::from_secs(86_400);
        params.not_before = now - day * 100;
        let span = day * u32::try_from(days.unsigned_abs()).expect("few");
        params.not_after = if days < 0 { now - span } else { now + span };
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (pem, key_file) = self.files(name);
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        std::fs::write(&pem, certificate.pem()).expect("written");
        (pem, key_file)
    }

    pub(crate) fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.dir.path(), name)
    }

    /// Settings of a node with a certificate of this authority for these services.
    pub(crate) fn config(&self, name: &str, services: &[Service]) -> ClusterConfig {
        let (tls_cert, tls_key) = self.issue(name, "linnet", services, 30);
        ClusterConfig {
            node: name.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            tls_ca: self.ca(),
            tls_cert,
            tls_key,
            ..ClusterConfig::default()
        }
    }
}
