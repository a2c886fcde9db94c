//! A private CA with one certificate for the servers and one for their clients, for tests with TLS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// The PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The CA both sides trust.
    pub ca: PathBuf,
    /// The servers' certificate, for `localhost` and the loopback addresses given.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// Makes them in `folder`; `names` are the DNS names and addresses of the servers beside `localhost` and 127.0.0.1.
///
/// # Errors
/// When a name is none, or a file cannot be written.
pub fn make(folder: &Path, names: &[String]) -> Result<Tls> {
    fs::create_dir_all(folder)?;
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "linnet test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_cert = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);

    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    all.extend(names.iter().cloned());
    let tls = Tls {
        ca: folder.join("ca.pem"),
        cert: folder.join("server.pem"),
        key: folder.join("server.key"),
        client_cert: folder.join("client.pem"),
        client_key: folder.join("client.key"),
    };
    fs::write(&tls.ca, ca_cert.pem())?;
    let pairs = [
        ("server", all, ExtendedKeyUsagePurpose::ServerAuth, &tls.cert, &tls.key),
        ("client", vec!["client".to_owned()], ExtendedKeyUsagePurpose::ClientAuth, &tls.client_cert, &tls.client_key),
    ];
    for (name, names, purpose, cert_file, key_file) in pairs {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        if name == "server" {
            // The nodes of one cluster are each other's clients.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        fs::write(cert_file, params.signed_by(&key, &issuer)?.pem())?;
        fs::write(key_file, key.serialize_pem())?;
    }
    Ok(tls)
}
