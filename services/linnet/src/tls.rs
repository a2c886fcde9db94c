//! A private certificate authority for one machine: made once, kept in the data folder, trusted by hand.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linnet_types::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const DAY: Duration = Duration::from_secs(86_400);
const CA_NAME: &str = "Linnet private CA";

/// What a listener with TLS needs, and what its clients must trust.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) ca: PathBuf,
}

/// Loads or makes the authority under `folder` and issues a certificate for localhost and `names`. The authority stays
/// the same for the life of the folder, so trusting it once is enough; the leaf is new at each start.
///
/// # Errors
/// When files cannot be read or written, or a name cannot be in a certificate.
pub(crate) fn private(folder: &Path, names: &[String], now: UnixMillis) -> Result<Tls> {
    let folder = folder.join("tls");
    fs::create_dir_all(&folder)?;
    let (ca, key) = authority(&folder)?;
    let params = authority_params();
    let issuer = Issuer::from_params(&params, &key);
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf_params(names, now)?.signed_by(&leaf_key, &issuer)?;
    let authority = CertificateDer::from_pem_file(&ca).with_context(|| format!("{} is damaged", ca.display()))?;
    let chain = vec![leaf.der().clone(), authority];
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), ca })
}

fn authority(folder: &Path) -> Result<(PathBuf, KeyPair)> {
    let (ca, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    if ca.exists() && key_file.exists() {
        let key = KeyPair::from_pem(&fs::read_to_string(&key_file)?);
        return Ok((
            ca,
            key.with_context(|| format!("{} is damaged; delete tls/ to make a new CA", key_file.display()))?,
        ));
    }
    let key = KeyPair::generate()?;
    let certificate = authority_params().self_signed(&key)?;
    secret_file(&key_file, key.serialize_pem().as_bytes())?;
    fs::write(&ca, certificate.pem())?;
    Ok((ca, key))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    params
}

fn leaf_params(names: &[String], now: UnixMillis) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
    params.subject_alt_names.push(SanType::IpAddress("::1".parse()?));
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into().with_context(|| format!("--tls-name {name}"))?),
        });
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Linnet");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // Some client libraries refuse server certificates that live longer than 398 days.
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.secs());
    params.not_before = now - DAY;
    params.not_after = now + DAY * 397;
    Ok(params)
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn secret_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(())
}
