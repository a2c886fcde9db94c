//! Which programs a cluster runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::plan::Programs;
use super::state::State;

impl Programs {
    /// `linnet` (a file, or a folder it is in; built when none is named) and the tool itself.
    pub(super) fn find(linnet: Option<&Path>, say: &dyn Fn(&str)) -> Result<Self> {
        let linnet = match linnet {
            Some(folder) if folder.is_dir() => folder.join("linnet"),
            Some(file) => file.to_owned(),
            None => built(say)?,
        };
        anyhow::ensure!(linnet.is_file(), "there is no {}", linnet.display());
        let own = std::env::current_exe()?;
        let tool =
            if own.file_stem().is_some_and(|name| name == "linnet-local") { own } else { build("linnet-local", say)? };
        Ok(Self { linnet: std::fs::canonicalize(linnet)?, tool })
    }

    /// Makes keyspace and tables.
    pub(super) fn migrate(&self, config: &Path) -> Result<()> {
        self.linnet(&["migrate".as_ref(), "run".as_ref(), "--config".as_ref(), config.as_os_str()])
    }

    /// Makes an authority of the cluster's own, and a certificate for each service.
    pub(super) fn certify(&self, dir: &Path, state: &State) -> Result<()> {
        let dir = dir.join("certs");
        let dir = dir.as_os_str();
        let init = ["certs", "init", "--cluster", &state.name, "--dir"].map(OsStr::new);
        self.linnet(&[&init, [dir].as_slice()].concat())?;
        for member in state.services() {
            let issue = ["certs", "issue", &member.node.name, "--role", &member.role, "--dir"].map(OsStr::new);
            self.linnet(&[&issue, [dir].as_slice()].concat())?;
        }
        Ok(())
    }

    /// Runs a command of `linnet` to its end.
    fn linnet(&self, args: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.linnet);
        command.args(args).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"LINNET_")) {
            command.env_remove(name);
        }
        let output = command.output()?;
        if !output.status.success() {
            bail!("linnet {}: {}", args.join(OsStr::new(" ")).display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// The `linnet` that is run when none is named: `LINNET_BIN`, or built in the profile we were built in.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<PathBuf> {
    built(&|_| ())
}

/// As [`binary`], built with a feature, under a name of its own.
///
/// # Errors
/// When it cannot be built.
pub fn binary_with(feature: &str) -> Result<PathBuf> {
    let made = build_with("linnet", &["--features", feature], &|_| ())?;
    let kept = made.with_file_name(format!("linnet-{feature}"));
    let _ = std::fs::remove_file(&kept);
    std::fs::rename(&made, &kept)?;
    // What is usually there, for those who look there.
    build("linnet", &|_| ())?;
    Ok(kept)
}

fn built(say: &dyn Fn(&str)) -> Result<PathBuf> {
    match std::env::var_os("LINNET_BIN") {
        Some(file) => Ok(file.into()),
        None => build("linnet", say),
    }
}

/// Builds a package of this workspace in the profile we were built in, beside us.
fn build(package: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
    build_with(package, &[], say)
}

fn build_with(package: &str, args: &[&str], say: &dyn Fn(&str)) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/<profile>/linnet-local, target/<profile>/deps/<test>
    let profile = own.ancestors().skip(1).find(|folder| folder.file_name().is_some_and(|name| name != "deps"));
    let profile = profile.context("a program has a folder")?;
    let target = profile.parent().context("target/<profile>")?;
    say(&format!("building {package}"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--target-dir"]).arg(target).args(args);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).stdin(Stdio::null());
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    if !cargo.status().context("running cargo")?.success() {
        bail!("cargo build --package {package}");
    }
    Ok(profile.join(package))
}
