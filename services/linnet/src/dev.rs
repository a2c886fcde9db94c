//! `linnet dev`: everything in one process, on loopback, with a key of its own and sample people. For trying out.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use linnet_cluster::{RouteKey, Service};
use linnet_proto::account::{self, accounts_client::AccountsClient};
use linnet_runtime::config::{Layers, Secret};
use linnet_runtime::{Clock, Rng, status, telemetry};
use linnet_types::{SdkAppId, code};
use serde_json::json;

use crate::config::Config;
use crate::http;
use crate::node::Node;
use crate::output::{Exit, Failure};
use crate::play::{self, Play, Webhooks};
use crate::roles::Roles;
use crate::target::{Common, DevFile};
use crate::tls;

/// The tenant of a new data folder, unless `--app` names another.
const FIRST_APP: u32 = 1_600_000_001;
const ADMIN: &str = "administrator";
/// The sample people; their names appear in the banner.
pub(crate) const PEOPLE: [&str; 2] = ["alice", "bob"];
const CALL: std::time::Duration = std::time::Duration::from_secs(5);

/// What a new data folder begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seed {
    /// alice and bob, for the playground.
    Demo,
    /// Nobody but the administrator.
    Empty,
}

/// Options of `linnet dev`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  linnet dev --listen 127.0.0.1:0 --json")]
pub(crate) struct DevArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Serve TLS with a private CA that is made once; `tls/ca.pem` in the data folder is what clients trust.
    #[arg(long)]
    tls: bool,
    /// Another host name the certificate is for, for libraries whose vendor host is built in. May be repeated.
    #[arg(long, value_name = "HOST", requires = "tls")]
    tls_name: Vec<String>,
    /// What a new data folder begins with.
    #[arg(long, value_enum, default_value = "demo")]
    seed: Seed,
    /// Allow a listener beyond loopback; the playground then needs the link with its token.
    #[arg(long)]
    public: bool,
}

/// Runs until it is told to stop.
///
/// # Errors
/// When it cannot start; the message says what to do.
pub(crate) async fn run(args: DevArgs, common: &Common) -> Result<Exit> {
    let clock = Clock::system();
    let begun = clock.mono();
    if !args.listen.ip().is_loopback() && !args.public {
        let todo = "listen on 127.0.0.1, or add --public if other machines may reach it";
        return Err(
            Failure::usage(format!("{} is not loopback", args.listen), "dev keeps to this machine", todo).into()
        );
    }
    let config = config(&args, common)?;
    let telemetry = telemetry::init("linnet", &config.log)?;
    let listener = linnet_gateway::listen(args.listen).map_err(|why| {
        let todo = "another server has the port? stop it, or take a free one: --listen 127.0.0.1:0";
        Failure::refused(format!("cannot listen on {}", args.listen), why.to_string(), todo)
    })?;
    let address = listener.local_addr()?;
    let data = absolute(&common.data)?;
    let fresh = !DevFile::path(&data).exists();
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let tls = if args.tls { Some(tls::private(&data, &args.tls_name, clock.now())?) } else { None };
    let file = dev_file(common, &data, address, tls.as_ref().map(|tls| tls.ca.clone()))?;

    let node = Node::start(&config, &Roles::all(), &data, clock).await?;
    tenant(&node, &file).await?;
    if args.seed == Seed::Demo {
        people(&node, file.sdkappid).await?;
    }
    let link_token = (args.public && !address.ip().is_loopback()).then(|| Rng::system().token(16));
    let play = play::router(Play {
        webhooks: Webhooks::Here(node.cluster.clone()),
        clock: node.clock.clone(),
        ws: ["/ws", "/ws"].map(str::to_owned),
        app: SdkAppId(file.sdkappid),
        key: file.key.clone(),
        people: PEOPLE,
        link_token: link_token.clone(),
        hosts: args.tls_name.clone(),
    });
    let site = node.site(Secret::new(file.token.clone()), begun, Some(play), false);
    let ready_ms = site.ready_ms;
    let lines = node.gateway.as_ref().map(linnet_gateway::Gateway::events);
    let http = http::serve(listener, tls.map(|tls| tls.config), site, &node.tasks);
    file.save(&data)?;
    announce(common, &file, &data, fresh, link_token.as_deref(), ready_ms)?;
    if let Some(mut lines) = lines.filter(|_| !common.json && !common.quiet) {
        node.tasks.spawn("dev.lines", async move {
            loop {
                match lines.recv().await {
                    Ok(event) => println!("{} {event}", clock_of_day()),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(n)) => println!("… {n} events not shown"),
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }
    node.run(http, telemetry).await?;
    Ok(Exit::Done)
}

/// The configuration of one machine, under what the environment sets.
fn config(args: &DevArgs, common: &Common) -> Result<Config> {
    let quiet = if common.json || common.quiet { "warn" } else { "warn,linnet=info" };
    let defaults =
        format!("[log]\nfilter = \"{quiet}\"\n[callback]\nallow_private = true\n[push]\nallow_private = true\n");
    let listen = format!("server.listen=\"{}\"", args.listen);
    let loaded = Layers::new().toml("linnet dev", &defaults).env(std::env::vars()).overrides([listen]).load::<Config>();
    Ok(loaded
        .map_err(|problems| {
            Failure::usage("the configuration is not valid", problems.to_string(), "see docs/config.md")
        })?
        .config)
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

fn dev_file(common: &Common, data: &std::path::Path, address: SocketAddr, ca: Option<PathBuf>) -> Result<DevFile> {
    let known = DevFile::load(data)?;
    let scheme = if ca.is_some() { ("https", "wss") } else { ("http", "ws") };
    let host =
        if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() };
    let rng = Rng::system();
    let mut file = known.unwrap_or_else(|| DevFile {
        sdkappid: FIRST_APP,
        key: rng.token(32),
        admin: ADMIN.to_owned(),
        token: rng.token(32),
        ..DevFile::default()
    });
    if let Some(app) = common.app {
        file.sdkappid = app;
    }
    if let Some(key) = &common.key {
        file.key.clone_from(key);
    }
    file.rest = format!("{}://{host}", scheme.0);
    file.ws = format!("{}://{host}/ws", scheme.1);
    file.ca = ca;
    Ok(file)
}

/// Makes the tenant of the folder if it is not there; a folder keeps the key it has.
async fn tenant(node: &Node, file: &DevFile) -> Result<()> {
    let rpc = node.cluster.for_owner(Service::Account, RouteKey::app(SdkAppId(file.sdkappid)))?;
    let mut accounts = AccountsClient::new(rpc);
    let found = accounts.get_app(status::with_deadline(account::GetAppRequest { sdkappid: file.sdkappid }, CALL)).await;
    match found {
        Ok(app) if app.get_ref().key == file.key => return Ok(()),
        Ok(_) => {
            let why = "the data folder has this app with another key";
            let todo = "leave --key out, or use another --data folder";
            return Err(Failure::usage("--key does not fit", why, todo).into());
        }
        Err(why) => {
            let refusal = status::refusal_or(&why, code::ACCOUNT_INTERNAL);
            if refusal.code != code::APP_UNKNOWN {
                return Err(refusal.into());
            }
        }
    }
    let create = account::CreateAppRequest { sdkappid: file.sdkappid, key: file.key.clone(), name: "dev".to_owned() };
    let created = accounts.create_app(status::with_deadline(create, CALL)).await;
    created.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?;
    Ok(())
}

async fn people(node: &Node, app: u32) -> Result<()> {
    let rpc = node.cluster.any(Service::Account)?;
    let accounts = PEOPLE.map(|user| account::ImportAccount { user: user.to_owned(), nick: None, face_url: None });
    let import = account::ImportRequest { app, accounts: accounts.to_vec() };
    let done = AccountsClient::new(rpc).import(status::with_deadline(import, CALL)).await;
    done.map_err(|why| status::refusal_or(&why, code::ACCOUNT_INTERNAL))?;
    Ok(())
}

fn announce(
    common: &Common,
    file: &DevFile,
    data: &std::path::Path,
    fresh: bool,
    link: Option<&str>,
    ready_ms: u64,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if common.json {
        let line = json!({
            "rest": file.rest, "ws": file.ws, "sdkappid": file.sdkappid, "key": file.key, "admin": file.admin,
            "data": data, "ca": file.ca, "pid": std::process::id(), "ready_ms": ready_ms,
        });
        writeln!(out, "{line}")?;
        out.flush()?;
        return Ok(());
    }
    let port = file.rest.rsplit(':').next().unwrap_or_default();
    let browser = file.rest.replace("127.0.0.1", "localhost");
    let page = link.map_or_else(|| format!("{browser}/play"), |token| format!("{browser}/play?link={token}"));
    let kept = if fresh { "new; delete to start over" } else { "kept; delete to start over" };
    let key = format!("{}…{}", &file.key[..4.min(file.key.len())], &file.key[file.key.len().saturating_sub(4)..]);
    writeln!(
        out,
        "linnet {}  one machine, nothing beside it          data: {} ({kept})",
        env!("CARGO_PKG_VERSION"),
        data.display()
    )?;
    writeln!(
        out,
        "app        {}        key {key} (in {})      admin: {}",
        file.sdkappid,
        DevFile::path(data).display(),
        file.admin
    )?;
    writeln!(out, "playground {page}        {} and {} are signed in; say something", PEOPLE[0], PEOPLE[1])?;
    writeln!(out, "REST       {browser}/v4/…        WebSocket {}", file.ws.replace("127.0.0.1", "localhost"))?;
    if let Some(ca) = &file.ca {
        let ca = ca.display();
        writeln!(out, "trust      curl --cacert {ca}")?;
        writeln!(out, "           Python  REQUESTS_CA_BUNDLE={ca} SSL_CERT_FILE={ca}")?;
        writeln!(out, "           Node    NODE_EXTRA_CA_CERTS={ca}")?;
        writeln!(out, "           Go      SSL_CERT_FILE={ca}")?;
        writeln!(
            out,
            "           Java    keytool -importcert -noprompt -file {ca} -alias linnet -keystore linnet.jks -storepass changeit"
        )?;
        writeln!(
            out,
            "           hosts   127.0.0.1 console.tim.qq.com     (with --tls-name console.tim.qq.com --listen 127.0.0.1:443)"
        )?;
    }
    writeln!(
        out,
        "try        linnet call openim/sendmsg '{{\"From_Account\":\"alice\",\"To_Account\":\"bob\",\"MsgRandom\":1,\"MsgBody\":[{{\"MsgType\":\"TIMTextElem\",\"MsgContent\":{{\"Text\":\"hello\"}}}}]}}'"
    )?;
    writeln!(out, "{} ready in {:.2} s (port {port})", clock_of_day(), ready_ms as f64 / 1000.0)?;
    Ok(())
}

/// `hh:mm:ss` in UTC.
fn clock_of_day() -> String {
    let s = Clock::system().now().secs() % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}
