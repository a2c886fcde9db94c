//! `linnet certs`: a private authority for the nodes of a small installation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use linnet_cluster::Service;
use linnet_cluster::certificate::{self, Identity, Validity};
use linnet_runtime::Clock;
use linnet_runtime::config::Period;
use linnet_types::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::output::{Exit, Failure, Output};
use crate::roles::Roles;
use crate::tls::secret_file;

const DAY: Duration = Duration::from_secs(86_400);
/// Life of an authority. Its certificates are renewed long before.
const AUTHORITY: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Certificates of the nodes of a cluster, from a private authority.
///
/// A node shows its certificate on every call to another and is refused without one, with one of another cluster, or with
/// a service in it that may not make the call. Keep `ca.key` where no node runs; nodes need `ca.pem` and their own two
/// files, named in `[cluster]` as `tls_ca`, `tls_cert` and `tls_key`, and notice when these change.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  linnet certs init --dir certs && linnet certs issue gateway-1 --role gateway --dir certs"
)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make the authority: ca.pem, and ca.key that only its owner may read. An authority that is there stays.
    #[command(after_help = "Example:\n  linnet certs init --dir certs --cluster linnet")]
    Init {
        #[command(flatten)]
        place: Place,
        /// Name of the cluster, as `cluster.name` in the configuration.
        #[arg(long, value_name = "NAME", default_value = "linnet")]
        cluster: String,
    },
    /// Make a node's certificate and key: NODE.pem and NODE.key, in place of older ones.
    #[command(
        after_help = "Example:\n  linnet certs init --dir certs && linnet certs issue owner-1 --role group --dir certs"
    )]
    Issue {
        /// Name of the node, and of its files.
        node: String,
        /// Services it runs, separated by commas, or `all`.
        #[arg(long, value_name = "ROLES")]
        role: Roles,
        /// How long it is good.
        #[arg(long, value_name = "SPAN", default_value = "397d")]
        valid: Period,
        #[command(flatten)]
        place: Place,
    },
    /// Issue again what ends soon, for the same services.
    #[command(after_help = "Example:\n  linnet certs init --dir certs && linnet certs renew --dir certs --within 60d")]
    Renew {
        /// Certificates that end within this time.
        #[arg(long, value_name = "SPAN", default_value = "30d")]
        within: Period,
        /// How long the new ones are good.
        #[arg(long, value_name = "SPAN", default_value = "397d")]
        valid: Period,
        #[command(flatten)]
        place: Place,
    },
    /// What the certificates of a folder say and when they end; ends with 1 when one has ended.
    #[command(after_help = "Example:\n  linnet certs init --dir certs && linnet certs show --dir certs")]
    Show {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args, Debug)]
struct Place {
    /// Folder of the authority and of what it issues.
    #[arg(long, value_name = "DIR", default_value = "./linnet-certs")]
    dir: PathBuf,
}

/// # Errors
/// [`Failure`] when the authority is not there, a name cannot be used, or a file cannot be written.
pub(crate) fn run(args: CertsArgs, out: Output) -> Result<Exit> {
    let now = Clock::system().now();
    match args.action {
        Action::Init { place, cluster } => init(&place.dir, &cluster, now, out),
        Action::Issue { node, role, valid, place } => {
            let authority = Authority::open(&place.dir, now)?;
            let services: Vec<_> = role.iter().collect();
            authority.issue(&node, &services, now, valid.get())?;
            told(&place.dir, &node, out)
        }
        Action::Renew { within, valid, place } => renew(&place.dir, now, within.get(), valid.get(), out),
        Action::Show { place } => show(&place.dir, now, out),
    }
}

fn init(dir: &Path, cluster: &str, now: UnixMillis, out: Output) -> Result<Exit> {
    plain(cluster, "cluster")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (pem, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
    if pem.exists() || key_file.exists() {
        let authority = Authority::open(dir, now)?;
        if authority.cluster != cluster {
            let what = format!("{} is the authority of cluster {:?}", pem.display(), authority.cluster);
            let why = "an authority is for one cluster, and nodes trust it for long";
            return Err(Failure::refused(what, why, "choose another --dir, or that name").into());
        }
        out.result(&json!({ "ca": pem, "cluster": cluster, "new": false }), format!("{} stays", pem.display()));
        return Ok(Exit::Done);
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    let key = KeyPair::generate()?;
    let certificate = authority_params(cluster, now)?.self_signed(&key)?;
    secret_file(&key_file, key.serialize_pem().as_bytes())?;
    fs::write(&pem, certificate.pem())?;
    out.result(
        &json!({ "ca": pem, "cluster": cluster, "new": true }),
        format!("{}\n{} (keep it secret, and away from the nodes)", pem.display(), key_file.display()),
    );
    Ok(Exit::Done)
}

fn renew(dir: &Path, now: UnixMillis, within: Duration, valid: Duration, out: Output) -> Result<Exit> {
    let authority = Authority::open(dir, now)?;
    let limit = now.0.saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
    for found in nodes(dir)? {
        if found.validity.until.0 > limit {
            continue;
        }
        authority.issue(&found.node, &found.identity.services, now, valid)?;
        told(dir, &found.node, out)?;
    }
    Ok(Exit::Done)
}

fn show(dir: &Path, now: UnixMillis, out: Output) -> Result<Exit> {
    let mut exit = Exit::Done;
    let ca = dir.join("ca.pem");
    if ca.exists() {
        let der = first(&ca)?;
        let cluster = certificate::cluster(&der).unwrap_or_default();
        let validity = Validity::read(&der).with_context(|| format!("{} has no dates", ca.display()))?;
        line("ca", &cluster, "authority", validity, now, out);
    }
    for found in nodes(dir)? {
        let services: Vec<_> = found.identity.services.iter().map(|service| service.name()).collect();
        line(&found.node, &found.identity.cluster, &services.join(","), found.validity, now, out);
        if found.validity.until <= now {
            exit = Exit::Refused;
        }
    }
    Ok(exit)
}

fn line(node: &str, cluster: &str, services: &str, validity: Validity, now: UnixMillis, out: Output) {
    let left_s = i64::try_from(validity.until.secs()).unwrap_or(i64::MAX).saturating_sub_unsigned(now.secs());
    let object = json!({
        "node": node, "cluster": cluster, "services": services.split(',').collect::<Vec<_>>(),
        "until_ms": validity.until.0, "left_s": left_s, "ended": left_s <= 0,
    });
    let left = if left_s > 0 { format!("{} days left", left_s / 86_400) } else { "ENDED".to_owned() };
    out.result(&object, format!("{node:<20} {cluster:<16} {left:<16} {services}"));
}

fn told(dir: &Path, node: &str, out: Output) -> Result<Exit> {
    let (pem, key) = (dir.join(format!("{node}.pem")), dir.join(format!("{node}.key")));
    let lines = format!("[cluster]\ntls_ca = {:?}\ntls_cert = {:?}\ntls_key = {:?}", dir.join("ca.pem"), pem, key);
    out.result(&json!({ "node": node, "ca": dir.join("ca.pem"), "cert": pem, "key": key }), lines);
    Ok(Exit::Done)
}

/// A certificate of a node, in the folder.
struct Found {
    node: String,
    identity: Identity,
    validity: Validity,
}

/// Every certificate of a node in `dir`, by name.
fn nodes(dir: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let Some(node) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.extension().is_none_or(|extension| extension != "pem") || node == "ca" {
            continue;
        }
        let der = first(&path)?;
        let identity = Identity::read(&der).map_err(|why| {
            Failure::refused(format!("{} is not of a node", path.display()), why, "move it to another folder")
        })?;
        let validity = Validity::read(&der).with_context(|| format!("{} has no dates", path.display()))?;
        found.push(Found { node: node.to_owned(), identity, validity });
    }
    found.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(found)
}

fn first(pem: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(pem).with_context(|| format!("{} is no certificate", pem.display()))
}

struct Authority {
    dir: PathBuf,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open(dir: &Path, now: UnixMillis) -> Result<Self> {
        let (pem, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
        let missing = |path: &Path, why: String| {
            let todo = format!("make one with `linnet certs init --dir {}`, or name its folder", dir.display());
            Failure::refused(format!("there is no authority: {}", path.display()), why, todo)
        };
        let certificate = CertificateDer::from_pem_file(&pem).map_err(|why| missing(&pem, why.to_string()))?;
        let key = fs::read_to_string(&key_file).map_err(|why| missing(&key_file, why.to_string()))?;
        let key = KeyPair::from_pem(&key).with_context(|| format!("{} is damaged", key_file.display()))?;
        let cluster = certificate::cluster(&certificate);
        let cluster = cluster.ok_or_else(|| missing(&pem, "it was not made by `linnet certs init`".to_owned()))?;
        // What a signature needs of the authority's certificate is its name and key; dates are not part of it.
        let issuer = Issuer::new(authority_params(&cluster, now)?, key);
        Ok(Self { dir: dir.to_owned(), cluster, issuer })
    }

    /// Writes the key first: a node that reads in between sees that the two do not fit and waits.
    fn issue(&self, node: &str, services: &[Service], now: UnixMillis, valid: Duration) -> Result<()> {
        plain(node, "node")?;
        if node == "ca" {
            return Err(Failure::usage("a node cannot be called ca", "ca.pem is the authority", "choose a name").into());
        }
        let key = KeyPair::generate()?;
        let certificate = leaf_params(&self.cluster, node, services, now, valid)?.signed_by(&key, &self.issuer)?;
        replace(&self.dir.join(format!("{node}.key")), key.serialize_pem().as_bytes())?;
        replace(&self.dir.join(format!("{node}.pem")), certificate.pem().as_bytes())
    }
}

/// Nobody sees half a file.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    secret_file(Path::new(&next), content)?;
    fs::rename(&next, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Names become file names and parts of URIs.
fn plain(name: &str, what: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= 64 && !name.starts_with('.');
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Ok(());
    }
    let why = "it becomes part of file names and of certificates";
    Err(Failure::usage(format!("{name:?} cannot name a {what}"), why, "use letters, digits and hyphens").into())
}

/// Clocks of nodes may be a little behind.
fn good_for(params: &mut CertificateParams, now: UnixMillis, span: Duration) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.secs());
    params.not_before = now - DAY;
    params.not_after = now + span;
}

fn authority_params(cluster: &str, now: UnixMillis) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Linnet cluster {cluster}"));
    params.subject_alt_names.push(SanType::URI(certificate::authority_uri(cluster).try_into()?));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for(&mut params, now, AUTHORITY);
    Ok(params)
}

fn leaf_params(
    cluster: &str,
    node: &str,
    services: &[Service],
    now: UnixMillis,
    valid: Duration,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node);
    for service in services {
        params.subject_alt_names.push(SanType::URI(certificate::uri(cluster, *service).try_into()?));
    }
    // A node both calls and is called.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    good_for(&mut params, now, valid);
    Ok(params)
}

#[cfg(test)]
mod tests;
