//! The real binary as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use linnet_types::SdkAppId;
use linnet_usersig::Claims;
use serde::Deserialize;
use tempfile::TempDir;

use crate::rest::Rest;

/// What `linnet dev --json` prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
struct Ready {
    rest: String,
    ws: String,
    sdkappid: u32,
    key: String,
    admin: String,
    ca: Option<PathBuf>,
}

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Begin with the sample people.
    pub demo: bool,
    /// Extra arguments of `linnet dev`.
    pub args: Vec<String>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
}

/// One running `linnet dev`; killed when dropped, its folder removed.
pub struct Server {
    ready: Ready,
    child: Child,
    folder: TempDir,
    options: Options,
}

/// The binary under test: `LINNET_BIN`, or built once in the profile of this test.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("LINNET_BIN") {
            return path.into();
        }
        let exe = std::env::current_exe().expect("a test knows its path");
        let profile = exe.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
        let target = profile.parent().expect("target/<profile>");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "linnet", "--target-dir"]).arg(target);
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        if profile.file_name().is_some_and(|name| name == "release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "cargo build -p linnet");
        profile.join("linnet")
    })
}

impl Server {
    /// Starts one without sample people, on a free port.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn start() -> Result<Self> {
        Self::with(Options::default())
    }

    /// Starts one with more arguments.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn with(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (child, ready) = spawn(folder.path(), &options, "127.0.0.1:0")?;
        Ok(Self { ready, child, folder, options })
    }

    /// SIGKILL, as `kill -9` does.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, as an operator's tool sends it; waits for the end and gives how long it took.
    ///
    /// # Errors
    /// When it does not end within 30 s, or not with success.
    pub fn stop(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "kill -TERM");
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "ended with {status}");
                return Ok(begun.elapsed());
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "still running 30 s after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts again on the same data and the same port.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn restart(&mut self) -> Result<()> {
        let _ = self.kill();
        let listen = self.ready.rest.split("//").nth(1).context("an address")?.to_owned();
        let (child, ready) = spawn(self.folder.path(), &self.options, &listen)?;
        self.child = child;
        self.ready = ready;
        Ok(())
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the server logged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// `ws://…/ws`.
    #[must_use]
    pub fn ws(&self) -> &str {
        &self.ready.ws
    }

    /// `http://…`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.ready.rest
    }

    /// The tenant.
    #[must_use]
    pub fn app(&self) -> SdkAppId {
        SdkAppId(self.ready.sdkappid)
    }

    /// The tenant's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.ready.key
    }

    /// CA file, with `--tls`.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ready.ca.as_deref()
    }

    /// A UserSig of a day.
    #[must_use]
    pub fn sig(&self, user: &str) -> String {
        sign(self.app(), &self.ready.key, user)
    }

    /// The REST surface, as the administrator.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(&self.ready.rest, self.app(), &self.ready.admin, &self.sig(&self.ready.admin))
    }

    /// The REST surface, as somebody else.
    #[must_use]
    pub fn rest_as(&self, user: &str) -> Rest {
        Rest::new(&self.ready.rest, self.app(), user, &self.sig(user))
    }

    /// Runs a command of the binary on this server's data folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<std::process::Output> {
        let data = self.data();
        Ok(Command::new(binary()).args(args).arg("--data").arg(data).stdin(Stdio::null()).output()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.kill();
    }
}

fn sign(app: SdkAppId, key: &str, user: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = Claims { app, identifier: user.to_owned(), time_s: now, expire_s: 86_400, userbuf: None };
    linnet_usersig::sign(&claims, key)
}

fn spawn(folder: &Path, options: &Options, listen: &str) -> Result<(Child, Ready)> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let out = folder.join("ready");
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new(binary());
    let seed = if options.demo { "demo" } else { "empty" };
    command.args(["dev", "--json", "--seed", seed, "--listen", listen, "--data"]).arg(folder.join("data"));
    command.args(&options.args).envs(options.env.iter().cloned());
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&out)?).stderr(log);
    let mut child = command.spawn().context("starting linnet")?;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let text = std::fs::read_to_string(&out)?;
        if let Some(line) = text.lines().next().filter(|_| text.contains('\n')) {
            return Ok((child, serde_json::from_str(line).with_context(|| format!("not a ready line: {line}"))?));
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > end {
            let _ = child.kill();
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            bail!("linnet dev did not become ready ({ended:?}):\n{log}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
