//! What tests speak to: the real binary as a process of its own, or a tenant of its own of a running cluster.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use linnet_local::Cluster;
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
    /// A process of its own even where there is a cluster: to be killed, or to have its files looked at.
    pub own: bool,
}

impl Options {
    /// Whether a tenant of a cluster will do.
    fn shares(&self) -> bool {
        !self.own && self.args.is_empty() && self.env.is_empty()
    }
}

/// One running `linnet dev`, killed when dropped, its folder removed; or, with `LINNET_CLUSTER` set to the folder of a
/// cluster (`deploy/local/cluster up`), a new tenant there, deleted when dropped.
pub struct Server {
    ready: Ready,
    on: On,
    folder: TempDir,
    options: Options,
}

enum On {
    Own(Child),
    Shared(Shared),
}

/// The ways into a cluster, taken in turn, so that two clients of a test are at different gateways.
struct Shared {
    cluster: Cluster,
    rest: Vec<String>,
    ws: Vec<String>,
    turn: AtomicUsize,
    /// The playground beside it, with sample people.
    play: Option<Play>,
}

impl Shared {
    fn next<'a>(&self, of: &'a [String]) -> &'a str {
        &of[self.turn.fetch_add(1, Ordering::Relaxed) % of.len()]
    }
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
    /// Starts one without sample people, on a free port; or takes a tenant of the cluster.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn start() -> Result<Self> {
        Self::with(Options::default())
    }

    /// Starts one that is killed and started again by its test.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn own() -> Result<Self> {
        Self::with(Options { own: true, ..Options::default() })
    }

    /// Starts one with more arguments.
    ///
    /// # Errors
    /// When it does not become ready within 30 s.
    pub fn with(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cluster = std::env::var_os("LINNET_CLUSTER").filter(|dir| !dir.is_empty() && options.shares());
        let (on, ready) = match cluster {
            Some(dir) => join(folder.path(), Path::new(&dir), options.demo)?,
            None => {
                let (child, ready) = spawn(folder.path(), &options, "127.0.0.1:0")?;
                (On::Own(child), ready)
            }
        };
        Ok(Self { ready, on, folder, options })
    }

    fn child(&mut self) -> Result<&mut Child> {
        match &mut self.on {
            On::Own(child) => Ok(child),
            On::Shared(_) => bail!("the cluster is others' too: start this one with Server::own"),
        }
    }

    /// SIGKILL, as `kill -9` does.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        let child = self.child()?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, as an operator's tool sends it; waits for the end and gives how long it took.
    ///
    /// # Errors
    /// When it does not end within 30 s, or not with success.
    pub fn stop(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let child = self.child()?;
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "kill -TERM");
        loop {
            if let Some(status) = child.try_wait()? {
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
        self.child()?;
        let _ = self.kill();
        let listen = self.ready.rest.split("//").nth(1).context("an address")?.to_owned();
        let (child, ready) = spawn(self.folder.path(), &self.options, &listen)?;
        self.on = On::Own(child);
        self.ready = ready;
        Ok(())
    }

    /// The data folder; of a cluster's tenant, a folder that only says where it is.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What a server of one's own logged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// `ws://…/ws`; the next gateway of a cluster.
    #[must_use]
    pub fn ws(&self) -> &str {
        match &self.on {
            On::Own(_) => &self.ready.ws,
            On::Shared(shared) => shared.next(&shared.ws),
        }
    }

    /// `http://…`; the next REST process of a cluster, or its playground when there are sample people.
    #[must_use]
    pub fn base(&self) -> &str {
        match &self.on {
            On::Own(_) => &self.ready.rest,
            On::Shared(Shared { play: Some(play), .. }) => &play.base,
            On::Shared(shared) => shared.next(&shared.rest),
        }
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
        Rest::new(self.base(), self.app(), &self.ready.admin, &self.sig(&self.ready.admin))
    }

    /// The REST surface, as somebody else.
    #[must_use]
    pub fn rest_as(&self, user: &str) -> Rest {
        Rest::new(self.base(), self.app(), user, &self.sig(user))
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
        match &mut self.on {
            // Already gone is fine.
            On::Own(_) => drop(self.kill()),
            // Its webhooks would be repeated to nobody.
            On::Shared(shared) => drop(shared.cluster.forget_blocking(self.ready.sdkappid)),
        }
    }
}

fn sign(app: SdkAppId, key: &str, user: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = Claims { app, identifier: user.to_owned(), time_s: now, expire_s: 86_400, userbuf: None };
    linnet_usersig::sign(&claims, key)
}

/// A new tenant of the cluster in `dir`, for commands described in `folder` as `linnet dev` would.
fn join(folder: &Path, dir: &Path, demo: bool) -> Result<(On, Ready)> {
    let cluster = Cluster::open(dir)?;
    let status = cluster.status()?;
    let urls = |name: &str| -> Result<Vec<String>> { Ok(serde_json::from_value(status[name].clone())?) };
    let (sdkappid, key) = cluster.tenant_blocking("test")?;
    let (rest, ws) = (urls("rest")?, urls("ws")?);
    let mut shared = Shared { cluster, rest, ws, turn: AtomicUsize::new(0), play: None };
    let admin = status["admin"].as_str().context("an administrator")?.to_owned();
    let (rest, ws) = (shared.rest[0].clone(), shared.ws[0].clone());
    let data = folder.join("data");
    std::fs::create_dir(&data)?;
    let token = status["token"].as_str().context("a token")?;
    let text = format!(
        "sdkappid = {sdkappid}\nkey = {key:?}\nadmin = {admin:?}\ntoken = {token:?}\nrest = {rest:?}\nws = {ws:?}\ngateways = {:?}\n",
        shared.ws
    );
    std::fs::write(data.join("dev.toml"), text)?;
    if demo {
        shared.play = Some(Play::start(folder, &data)?);
    }
    Ok((On::Shared(shared), Ready { rest, ws, sdkappid, key, admin, ca: None }))
}

/// A running `linnet play`.
struct Play {
    child: Child,
    base: String,
}

impl Play {
    fn start(folder: &Path, data: &Path) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(["play", "--json", "--data"]).arg(data).stderr(std::fs::File::create(folder.join("log"))?);
        let (child, line) = first_line(command, &folder.join("ready"), &folder.join("log"))?;
        let url: serde_json::Value = serde_json::from_str(&line)?;
        let base = url["url"].as_str().and_then(|url| url.strip_suffix("/play"));
        Ok(Self { child, base: base.with_context(|| format!("not a ready line: {line}"))?.to_owned() })
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, options: &Options, listen: &str) -> Result<(Child, Ready)> {
    let log = folder.join("log");
    let mut command = Command::new(binary());
    let seed = if options.demo { "demo" } else { "empty" };
    command.args(["dev", "--json", "--seed", seed, "--listen", listen, "--data"]).arg(folder.join("data"));
    command.args(&options.args).envs(options.env.iter().cloned());
    command.stderr(std::fs::OpenOptions::new().create(true).append(true).open(&log)?);
    let (child, line) = first_line(command, &folder.join("ready"), &log)?;
    Ok((child, serde_json::from_str(&line).with_context(|| format!("not a ready line: {line}"))?))
}

/// Starts a process and waits for the first line of its output.
fn first_line(mut command: Command, out: &Path, log: &Path) -> Result<(Child, String)> {
    let _ = std::fs::remove_file(out);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(out)?);
    let mut child = command.spawn().context("starting linnet")?;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let text = std::fs::read_to_string(out)?;
        if let Some(line) = text.lines().next().filter(|_| text.contains('\n')) {
            return Ok((child, line.to_owned()));
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > end {
            let _ = child.kill();
            bail!("linnet did not become ready ({ended:?}):\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
