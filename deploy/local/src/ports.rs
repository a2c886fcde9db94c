//! Ports and loopback networks that stay ours between runs of a process, also when several clusters start at once.
//!
//! A port that is merely free now may be given away before its owner binds it, or while its owner is down. So each one
//! is a file in the cache folder that names its holder; the file counts until the holder (a process, or a cluster's
//! folder) is gone. Ports come from below the range the kernel takes outgoing ports from.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;

use crate::process::Process;

const LOWEST: u16 = 20_000;
const HIGHEST: u16 = 32_000;

/// Whose they are.
#[derive(Clone, Debug)]
pub enum Holder {
    /// Until this process ends.
    Process(Process),
    /// Until this folder is removed.
    Folder(PathBuf),
}

impl Holder {
    /// The process asking.
    #[must_use]
    pub fn own() -> Self {
        Self::Process(Process::own())
    }

    fn text(&self) -> String {
        match self {
            Self::Process(process) => format!("process {} {}", process.pid, process.started),
            Self::Folder(folder) => format!("folder {}", folder.display()),
        }
    }
}

/// Takes `count` ports on 127.0.0.1.
///
/// # Errors
/// When none are free, or the cache folder cannot be written.
pub fn take(count: usize, holder: &Holder) -> Result<Vec<u16>> {
    let folder = folder()?;
    let _lock = lock(&folder)?;
    (0..count).map(|_| one(&folder, &[Ipv4Addr::LOCALHOST], holder)).collect()
}

/// Takes a network of `addresses` loopback addresses and `count` ports free on all of them.
///
/// # Errors
/// As [`take`].
pub fn network(addresses: usize, count: usize, holder: &Holder) -> Result<(Vec<Ipv4Addr>, Vec<u16>)> {
    let folder = folder()?;
    let _lock = lock(&folder)?;
    let third = (1..250_u8)
        .find(|third| !held(&folder.join(format!("net-{third}"))))
        .context("no free loopback network: remove old clusters with `cluster down`")?;
    fs::write(folder.join(format!("net-{third}")), holder.text())?;
    let lasts = 1..=u8::try_from(addresses).context("a network has 255 addresses")?;
    let addresses: Vec<_> = lasts.map(|last| Ipv4Addr::new(127, 77, third, last)).collect();
    let ports = (0..count).map(|_| one(&folder, &addresses, holder)).collect::<Result<_>>()?;
    Ok((addresses, ports))
}

fn one(folder: &Path, addresses: &[Ipv4Addr], holder: &Holder) -> Result<u16> {
    for _ in 0..2_000 {
        let port = rand::rng().random_range(LOWEST..HIGHEST);
        let file = folder.join(port.to_string());
        if held(&file) || !addresses.iter().all(|address| TcpListener::bind((IpAddr::V4(*address), port)).is_ok()) {
            continue;
        }
        fs::write(file, holder.text())?;
        return Ok(port);
    }
    bail!("no free port between {LOWEST} and {HIGHEST}")
}

fn held(file: &Path) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    if let Some(folder) = text.strip_prefix("folder ") {
        return Path::new(folder).exists();
    }
    let mut fields = text.split(' ').skip(1).filter_map(|field| field.parse::<u64>().ok());
    match (fields.next().and_then(|pid| u32::try_from(pid).ok()), fields.next()) {
        (Some(pid), Some(started)) => Process { pid, started }.alive(),
        _ => false,
    }
}

fn folder() -> Result<PathBuf> {
    let folder = crate::servers::cache()?.join("ports");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn lock(folder: &Path) -> Result<File> {
    let file = File::create(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_given_twice_while_its_holder_lives() {
        let folder = tempfile::tempdir().unwrap();
        let ports = folder.path().join("ports");
        fs::create_dir(&ports).unwrap();
        let holder = Holder::Folder(folder.path().join("cluster"));
        fs::create_dir(folder.path().join("cluster")).unwrap();
        let port = one(&ports, &[Ipv4Addr::LOCALHOST], &holder).unwrap();
        assert!(held(&ports.join(port.to_string())));
        fs::remove_dir(folder.path().join("cluster")).unwrap();
        assert!(!held(&ports.join(port.to_string())));
        let port = one(&ports, &[Ipv4Addr::LOCALHOST], &Holder::own()).unwrap();
        assert!(held(&ports.join(port.to_string())));
    }
}
