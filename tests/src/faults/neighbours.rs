//! Bad neighbours: whoever comes without the right papers is refused, and nodes whose clock or schema is wrong harm nobody.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use linnet_local::process::Launch;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::fault::{self, Fault};
use super::ground::sum;
use super::rows::Stage;
use super::run::Report;

pub(crate) mod alone;
mod cql;
mod tls;

use tls::Papers;

/// How long a condition may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the store's guard of a log is written by.
const APPEND: &str = "/linnet.messages.v1.Messages/Append";
/// gRPC's "permission denied".
const DENIED: &str = "7";

/// What a process of the cluster is told in its file, and how it runs.
struct Member {
    program: PathBuf,
    config: PathBuf,
    grpc: String,
    log: PathBuf,
}

fn member(stage: &Stage, name: &str) -> Result<Member> {
    let dir = stage.ground.cluster.dir();
    let state: Value = serde_json::from_slice(&std::fs::read(dir.join("cluster.json"))?)?;
    let members = state["members"].as_array().context("members")?;
    let member = members.iter().find(|member| member["node"]["name"] == name).context("a member")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Member {
        program: text(&member["node"]["launch"]["program"]).into(),
        config: dir.join("config").join(format!("{name}.toml")),
        grpc: text(&member["grpc"]),
        log: text(&member["node"]["launch"]["log"]).into(),
    })
}

/// Certificates of a cluster of another name.
fn foreign(program: &Path, dir: &Path) -> Result<()> {
    let run = |args: &[&str]| {
        let output = Command::new(program).arg("certs").args(args).arg("--dir").arg(dir).output()?;
        ensure!(output.status.success(), "certs {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    run(&["init", "--cluster", "another"])?;
    run(&["issue", "group-1", "--role", "group"])?;
    run(&["issue", "stranger", "--role", "gateway"])
}

/// No certificate, one of another cluster, one of another role: each is refused by a running service.
pub(super) async fn certificates(stage: &mut Stage) -> Result<()> {
    let ours = stage.ground.cluster.dir().join("certs");
    let (target, group) = (member(stage, "message-store-1")?, member(stage, "group-1")?);
    let scratch = tempfile::tempdir()?;
    foreign(&group.program, scratch.path())?;
    let cluster = stage.ground.cluster.status()?["cluster"].as_str().context("a name")?.to_owned();
    let call = |papers: Option<Papers>, cluster: &str| {
        tls::call(target.grpc.clone(), papers, cluster.to_owned(), "message-store-1", "message-store", APPEND)
    };
    let refused = |what: &str, outcome: Result<String>| match outcome {
        Ok(status) => bail!("{what} was answered with {status}"),
        Err(why) => {
            println!("    {what}: {why:#}");
            Ok(())
        }
    };
    refused("no certificate", call(None, &cluster).await)?;
    refused("a certificate of another cluster", call(Some(Papers::of(scratch.path(), "group-1")?), &cluster).await)?;
    let gateway = call(Some(Papers::of(&ours, "gateway-1")?), &cluster).await?;
    ensure!(gateway == DENIED, "a gateway that appends is answered with {gateway}");
    let confused = call(Some(Papers::of(&ours, "group-1")?), "another").await?;
    ensure!(confused == DENIED, "a call meant for another cluster is answered with {confused}");
    let right = call(Some(Papers::of(&ours, "group-1")?), &cluster).await?;
    ensure!(right != DENIED, "a group that appends is answered with {right}");
    Ok(())
}

/// Without credentials nobody publishes where frames for users travel, nor does a service whose role has nothing to say there.
pub(super) async fn bus(stage: &mut Stage) -> Result<()> {
    let status = stage.ground.cluster.status()?;
    let processes = status["processes"].as_array().context("processes")?;
    let nats = processes.iter().find(|p| p["name"] == "nats-1").and_then(|p| p["listen"].as_str());
    let address = nats.context("an address")?;
    let cluster = status["cluster"].as_str().context("a name")?;
    let config = std::fs::read_to_string(member(stage, "gateway-2")?.config)?.parse::<toml::Table>()?;
    let password = config["bus"]["password"].as_str().context("a password")?.to_owned();
    let login = |user: &str, pass: &str| format!(r#"{{"verbose":false,"user":"{user}","pass":"{pass}"}}"#);
    let tries = [
        (r#"{"verbose":false}"#.to_owned(), "Authorization"),
        (login("group-1", "guessed"), "Authorization"),
        (login("gateway-2", &password), "Permissions Violation"),
    ];
    for (connect, refusal) in tries {
        let (read, mut write) = TcpStream::connect(address).await?.into_split();
        let hello = format!("CONNECT {connect}\r\nPUB {cluster}.gw.gateway-1 2\r\nhi\r\nPING\r\n");
        write.write_all(hello.as_bytes()).await?;
        let mut lines = BufReader::new(read).lines();
        let refused = loop {
            match tokio::time::timeout(PATIENCE, lines.next_line()).await.context("no answer")?? {
                Some(line) if line.starts_with("-ERR") => break line,
                Some(line) if line.starts_with("PONG") => bail!("{connect} may speak"),
                Some(_) => {}
                None => bail!("{connect}: the server closed without a word"),
            }
        };
        ensure!(refused.contains(refusal), "{refused}");
    }
    Ok(())
}

/// A node of another cluster on the same bus is heard, and counted by nobody.
pub(super) async fn stranger(stage: &mut Stage) -> Result<()> {
    let gateway = member(stage, "gateway-1")?;
    let scratch = tempfile::tempdir()?;
    foreign(&gateway.program, scratch.path())?;
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let status = stage.ground.cluster.status()?;
    let token = status["token"].as_str().context("a token")?;
    let sets = [
        // Allowed everything on the bus: what keeps it out is not that.
        "bus.user=operator".to_owned(),
        format!("bus.password={token}"),
        "cluster.name=another".to_owned(),
        "cluster.node=stranger".to_owned(),
        format!("cluster.tls_ca={}", path("ca.pem")),
        format!("cluster.tls_cert={}", path("stranger.pem")),
        format!("cluster.tls_key={}", path("stranger.key")),
        format!("server.data={}", path("data")),
        format!("server.listen={listen}"),
        "cluster.listen=127.0.0.1:0".to_owned(),
    ];
    let mut args: Vec<String> = ["serve", "--role", "gateway", "--config"].map(str::to_owned).to_vec();
    args.push(gateway.config.display().to_string());
    args.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    let log = scratch.path().join("log");
    let launch = Launch { program: gateway.program, args, env: Vec::new(), log: log.clone() };
    let (process, _guard) = launch.guarded()?;
    let watchers = ["gateway-1", "group-1", "message-store-1"];
    let (end, all) = (Instant::now() + PATIENCE, stage.ground.services().len());
    // It has said often enough that it is there.
    loop {
        for name in watchers {
            let status = stage.ground.cluster.operate(name, "GET", "status", None).await?;
            let nodes = status["nodes"].as_array().context("nodes")?;
            let counted = nodes.iter().any(|node| node["node"] == "stranger");
            ensure!(!counted && nodes.len() == all, "{name} counts a stranger: {}", status["nodes"]);
        }
        if sum(&format!("http://{listen}/metrics"), SENT).await.unwrap_or(0.0) >= 5.0 {
            return Ok(());
        }
        let why = || std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(process.alive(), "the stranger does not run: {}", why());
        ensure!(Instant::now() < end, "the stranger says nothing: {}", why());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Signs of life a node has sent.
const SENT: &str = "linnet_members_beats_sent_total";

/// A node whose schema may be newer than it can read refuses to start, says what to do, and starts when that is done.
pub(super) async fn newer_schema(stage: &mut Stage) -> Result<()> {
    let api = member(stage, "api-2")?;
    let status = stage.ground.cluster.status()?;
    let processes = status["processes"].as_array().context("processes")?;
    let address = processes.iter().find(|p| p["name"] == "cql-1").and_then(|p| p["listen"].as_str());
    let address = address.context("an address")?.to_owned();
    let oldest = |from: u32, to: u32| {
        format!("UPDATE linnet.schema_version SET oldest_reader = {to} WHERE id = 'schema' IF oldest_reader = {from}")
    };
    stage.ground.cluster.stop("api-2").await?;
    let before = std::fs::read_to_string(&api.log)?.len();
    cql::query(&address, &oldest(1, 1_000)).await?;
    let started = stage.ground.cluster.start("api-2").await;
    cql::query(&address, &oldest(1_000, 1)).await?;
    let log = std::fs::read_to_string(&api.log)?;
    let said = &log[before..];
    ensure!(started.is_err(), "it started:\n{said}");
    ensure!(said.contains("start a newer build"), "it says:\n{said}");
    stage.ground.cluster.start("api-2").await?;
    stage.ground.whole().await
}

/// The clock of one owner of each kind and of a gateway is five minutes ahead: nothing that the clients or the log see of
/// it is wrong.
pub(super) async fn clock(stage: &mut Stage) -> Result<Report> {
    let library = faketime()?;
    let env = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", "+300s".to_owned()),
        // What runs by the monotonic clock goes on as it did.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let env: Vec<(String, String)> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let ahead = ["group-1", "message-store-1", "gateway-1"];
    for name in ahead {
        stage.ground.cluster.stop(name).await?;
        stage.ground.cluster.start_with(name, &env).await?;
    }
    stage.ground.whole().await?;
    let mut running = stage.lane.begin("clock_ahead").await?;
    running.note("group-1, message-store-1 and gateway-1 are five minutes ahead");
    let calm = Fault::Calm.inflict(&stage.ground, &mut running, &stage.rng, fault::SPELL).await;
    // What they owned goes to nodes of the right time, with all it holds.
    running.strike("group-1 and message-store-1 leave");
    for name in ahead {
        stage.ground.cluster.stop(name).await?;
        stage.ground.cluster.start_with(name, &[]).await?;
    }
    running.healed("their clocks are right");
    let caught_up = running.caught_up(PATIENCE * 2).await;
    stage.ground.whole().await?;
    let report = stage.lane.finish(running).await?;
    calm.and(caught_up)?;
    Ok(report)
}

/// Debian's library, installed when it is missing.
fn faketime() -> Result<PathBuf> {
    let find = || -> Option<PathBuf> {
        let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let mut files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        files.find(|file| file.is_file())
    };
    if let Some(file) = find() {
        return Ok(file);
    }
    for args in [&["update", "-qq"][..], &["install", "-y", "-qq", "--no-install-recommends", "libfaketime"]] {
        let output = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").output()?;
        ensure!(output.status.success(), "apt-get {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    find().context("libfaketime is installed and not found")
}
