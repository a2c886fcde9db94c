//! One process on its own: what `serve` refuses to call, and a disk that is full.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use linnet_local::process::{Guard, Launch, Process};
use linnet_testkit::Hooks;
use serde_json::{Value, json};

use crate::faults::Place;
use crate::faults::api::Api;

/// How long a start, and a condition, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// At least 32 characters.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123";
/// Size of the disk that is filled, and what the store keeps free of it.
const DISK: &str = "256m";
const RESERVE: &str = "16MiB";
/// How much ballast is written at a time.
const CHUNK: usize = 256 << 10;

/// `linnet serve` with everything in one process, in a folder of its own.
struct Serve {
    process: Process,
    guard: Option<Guard>,
    launch: Launch,
    base: String,
    place: Option<Place>,
}

impl Serve {
    /// Starts one on `data`, with `sets` over its configuration.
    async fn start(program: &Path, data: &Path, log: PathBuf, sets: &[&str]) -> Result<Self> {
        // Installed once; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut args = vec!["serve".to_owned()];
        let own = [
            format!("server.listen={port}"),
            format!("server.data={}", data.display()),
            format!("server.operator_token={TOKEN}"),
        ];
        let sets = own.into_iter().chain(sets.iter().map(|set| (*set).to_owned()));
        args.extend(sets.flat_map(|set| ["--set".to_owned(), set]));
        let program = program.to_owned();
        let launch = Launch { program, args, env: Vec::new(), log };
        let (process, guard) = launch.guarded()?;
        let mut serve = Self { process, guard: Some(guard), launch, base: format!("http://{port}"), place: None };
        serve.ready().await?;
        Ok(serve)
    }

    async fn ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let page = reqwest::get(format!("{}/readyz", self.base)).await;
            if page.is_ok_and(|page| page.status().is_success()) {
                return Ok(());
            }
            let log = || std::fs::read_to_string(&self.launch.log).unwrap_or_default();
            ensure!(self.process.alive() && Instant::now() < end, "serve does not become ready:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL and start.
    async fn again(&mut self) -> Result<()> {
        self.process.kill()?;
        drop(self.guard.take());
        let (process, guard) = self.launch.guarded()?;
        (self.process, self.guard) = (process, Some(guard));
        self.ready().await
    }

    /// A caller of a tenant, made at the first call.
    async fn api(&mut self) -> Result<Api> {
        if let Some(place) = &self.place {
            return Ok(Api::new(place));
        }
        let mut place = Place {
            rest: vec![self.base.clone()],
            ws: Vec::new(),
            app: 1,
            key: "none yet".to_owned(),
            admin: "administrator".to_owned(),
            operator: TOKEN.to_owned(),
        };
        let app = Api::new(&place).admin(reqwest::Method::POST, "apps", Some(json!({ "name": "alone" }))).await?;
        place.app = app["sdkappid"].as_u64().and_then(|app| u32::try_from(app).ok()).context("a number")?;
        place.key = app["key"].as_str().context("a key")?.to_owned();
        let api = Api::new(&place);
        self.place = Some(place);
        api.ok("im_open_login_svc/multiaccount_import", json!({ "Accounts": ["alice", "bob"] })).await?;
        Ok(api)
    }
}

fn message(random: u32, size: usize) -> Value {
    let text = format!("{random} {}", "x".repeat(size));
    json!({ "From_Account": "alice", "To_Account": "bob", "MsgSeq": random, "MsgRandom": random,
        "MsgBody": [{ "MsgType": "TIMTextElem", "MsgContent": { "Text": text } }] })
}

/// What became of a webhook to a server on this machine: received, or why not.
async fn told(api: &Api, app: u32, hooks: &Hooks) -> Result<Result<(), String>> {
    let set = api.settings(&[("webhook.url", hooks.url()), ("webhook.events", "C2C.CallbackAfterSendMsg")]).await;
    if let Err(why) = set {
        return Ok(Err(format!("{why:#}")));
    }
    let path = format!("webhooks/{app}/test");
    let body = json!({ "command": "C2C.CallbackAfterSendMsg" });
    let tried = api.admin(reqwest::Method::POST, &path, Some(body)).await?;
    let got = hooks.of("C2C.CallbackAfterSendMsg").len();
    ensure!((tried["ok"] == true) == (got > 0), "{got} were received: {tried}");
    Ok(if got > 0 { Ok(()) } else { Err(tried.to_string()) })
}

/// `serve` calls no server on a private address, unless it is allowed.
pub(crate) async fn private_targets(program: &Path) -> Result<()> {
    for allowed in [false, true] {
        let scratch = tempfile::tempdir()?;
        let set = format!("callback.allow_private={allowed}");
        let log = scratch.path().join("log");
        let mut serve = Serve::start(program, &scratch.path().join("data"), log, &[&set]).await?;
        let api = serve.api().await?;
        let app = serve.place.as_ref().map_or(0, |place| place.app);
        let hooks = Hooks::start().await;
        match told(&api, app, &hooks).await? {
            Ok(()) => ensure!(allowed, "a webhook went to a private address"),
            Err(why) => {
                println!("    not told: {why}");
                ensure!(!allowed, "{why}");
                ensure!(why.contains("unroutable"), "the reason is not said: {why}");
            }
        }
    }
    Ok(())
}

/// The disk under the embedded store fills up: sends are refused with a clear error and nothing that was acknowledged is
/// lost, neither then nor after a kill; with room again they go on.
pub(crate) async fn full_disk(program: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (disk, log) = (scratch.path().join("disk"), scratch.path().join("log"));
    std::fs::create_dir(&disk)?;
    let disk = Disk::mount(&disk)?;
    let reserve = format!("store.reserve={RESERVE}");
    let sets = [reserve.as_str(), "store.memtable=4MiB"];
    let mut serve = Serve::start(program, &disk.0.join("data"), log, &sets).await?;
    let api = serve.api().await?;
    let mut acknowledged = Vec::new();
    let mut random = 0;
    for _ in 0..20 {
        random += 1;
        api.ok("openim/sendmsg", message(random, 100)).await?;
        acknowledged.push(random);
    }
    let ballast = disk.0.join("ballast");
    fill(&ballast)?;
    // Room may be found for some more; then each is refused, and says why.
    let end = Instant::now() + PATIENCE;
    let (mut refused, mut said) = (0, 0);
    while refused < 5 || said == 0 {
        ensure!(
            Instant::now() < end,
            "{refused} refused, {said} by a clear error, {} acknowledged",
            acknowledged.len()
        );
        random += 1;
        let reply = api.attempt("openim/sendmsg", &message(random, 8_000)).await?;
        if reply["ErrorCode"] == 0 {
            acknowledged.push(random);
        } else {
            refused += 1;
            let why = reply["ErrorInfo"].as_str().unwrap_or_default().to_owned();
            println!("    refused: {} {why}", reply["ErrorCode"]);
            // The last of the tries within one call may also end by its deadline.
            said += usize::from(why.contains("the disk of the store is full"));
        }
    }
    readable(&api, &acknowledged).await.context("while the disk is full")?;
    std::fs::remove_file(&ballast)?;
    random += 1;
    api.ok("openim/sendmsg", message(random, 100)).await.context("with room again")?;
    acknowledged.push(random);
    readable(&api, &acknowledged).await.context("with room again")?;
    fill(&ballast)?;
    std::fs::remove_file(&ballast)?;
    serve.again().await?;
    let api = serve.api().await?;
    readable(&api, &acknowledged).await.context("after a kill")
}

/// Writes until nothing goes any more.
fn fill(ballast: &Path) -> Result<()> {
    let mut file = File::create(ballast)?;
    let chunk = vec![1; CHUNK];
    while file.write_all(&chunk).is_ok() {}
    // Also what less than a chunk leaves.
    while file.write_all(&[1]).is_ok() {}
    Ok(())
}

/// Everything that was acknowledged is there, once.
async fn readable(api: &Api, acknowledged: &[u32]) -> Result<()> {
    let conv = crate::faults::record::Conv::pair("alice", "bob");
    let reading = crate::faults::read::by_backend(api, &conv, 0, usize::MAX).await?;
    let mut there: Vec<u32> = reading.entries.iter().map(|entry| entry.random).collect();
    let missing: Vec<&u32> = acknowledged.iter().filter(|random| !there.contains(random)).collect();
    ensure!(missing.is_empty(), "acknowledged and not there: {missing:?}");
    let count = there.len();
    there.sort_unstable();
    there.dedup();
    ensure!(there.len() == count, "{} messages are there twice", count - there.len());
    Ok(())
}

/// A small file system in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Self> {
        let size = format!("size={DISK}");
        let output =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "linnet-test"]).arg(at).output()?;
        if !output.status.success() {
            bail!("a small disk needs root: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that still holds it is about to end.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
