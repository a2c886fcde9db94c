//! A cluster of real processes: brought up, broken on purpose, taken down.
//!
//! A folder holds all of it: `cluster.json` (what runs), `config/`, `logs/`, `servers/` and `data/`. Any number of tools
//! and tests may act on one cluster; a lock in the folder orders them. [`Cluster::up`] with `keep` leaves the processes
//! running; without, they end with the calling process in whatever way that ends.

mod admin;
mod plan;
mod programs;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::process::{self, Guard};
use crate::relay::{Control, LinkState, Mode};
use crate::servers::{self, Node};
use plan::Programs;
pub use programs::{binary, binary_with};
use state::State;

/// How long a cluster may take until every node is known to every other: new nodes attract nothing at first.
const RING: Duration = Duration::from_secs(60);
/// How long a probe message may be refused while owners settle.
const PROBE: Duration = Duration::from_secs(30);

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Options {
    /// CQL nodes, 1 or 3.
    pub cql: u8,
    /// NATS nodes, 1 or 3.
    pub nats: u8,
    /// Gateways.
    pub gateways: u8,
    /// Group nodes, and as many message-store nodes.
    pub owners: u8,
    /// Nodes of each other service.
    pub replicas: u8,
    /// Where; must be new or empty.
    pub dir: PathBuf,
    /// The `linnet` to run; built when absent.
    pub binary: Option<PathBuf>,
    /// Configuration of every service over its file, `key=value`.
    pub set: Vec<String>,
    /// The processes outlive us.
    pub keep: bool,
}

impl Options {
    /// The usual cluster, in `dir`: one node of each server, two of each service.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { cql: 1, nats: 1, gateways: 2, owners: 2, replicas: 2, dir, binary: None, set: Vec::new(), keep: false }
    }
}

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    /// Of processes that end with us.
    held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    guards: Mutex<BTreeMap<String, Guard>>,
    _sweep: Guard,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the folder goes.
        self.guards.get_mut().clear();
    }
}

impl Cluster {
    /// Brings a cluster up: ready when every process is, all know each other, and a message passes. When that fails
    /// nothing is left.
    ///
    /// # Errors
    /// With what failed and the end of its log.
    pub async fn up(options: Options) -> Result<Self> {
        tokio::task::spawn_blocking(move || Self::up_blocking(&options, &|_| ())).await?
    }

    /// As [`Cluster::up`], for callers that may block; tells `say` how far it is.
    ///
    /// # Errors
    /// With what failed and the end of its log.
    pub fn up_blocking(options: &Options, say: &dyn Fn(&str)) -> Result<Self> {
        check(options)?;
        let programs = Programs::find(options.binary.as_deref(), say)?;
        fs::create_dir_all(&options.dir).with_context(|| format!("creating {}", options.dir.display()))?;
        let dir = fs::canonicalize(&options.dir)?;
        let _lock = state::lock(&dir)?;
        if State::file(&dir).exists() {
            bail!("there is a cluster in {} already: `cluster status` or `cluster down`", dir.display());
        }
        if fs::read_dir(&dir)?.filter_map(Result::ok).any(|entry| entry.file_name() != "lock") {
            bail!("{} is not empty; name a new folder with --dir", dir.display());
        }
        let sweep = process::sweep(&dir)?;
        let mut guards = BTreeMap::new();
        let state = start_all(&dir, options, &programs, &mut guards, say);
        let state = match state {
            Ok(state) => state,
            Err(why) => {
                drop(guards);
                let _ = fs::remove_file(plan::socket(&dir));
                return Err(why);
            }
        };
        dev_file(&dir, &state)?;
        if options.keep {
            guards.into_values().try_for_each(Guard::release)?;
            sweep.release()?;
            return Ok(Self { dir, held: None });
        }
        Ok(Self { dir, held: Some(Arc::new(Held { guards: Mutex::new(guards), _sweep: sweep })) })
    }

    /// The cluster in `dir`, brought up by somebody else.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("no cluster in {}", dir.display()))?;
        State::load(&dir)?;
        Ok(Self { dir, held: None })
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is: addresses, tenant, processes and how they are.
    ///
    /// # Errors
    /// When it is gone.
    pub fn status(&self) -> Result<Value> {
        Ok(State::load(&self.dir)?.shown(&self.dir))
    }

    /// A new tenant; its number and key.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn tenant(&self, name: &str) -> Result<(u32, String)> {
        let name = name.to_owned();
        self.blocking(move |cluster| cluster.tenant_blocking(&name)).await
    }

    /// As [`Cluster::tenant`], for callers that may block.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn tenant_blocking(&self, name: &str) -> Result<(u32, String)> {
        State::load(&self.dir)?.tenant(name)
    }

    /// Deletes a tenant; for callers that may block.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn forget_blocking(&self, sdkappid: u32) -> Result<()> {
        State::load(&self.dir)?.forget(sdkappid)
    }

    /// SIGKILL of a process; it is not started again.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |cluster| cluster.end(&name, Ending::Kill)).await
    }

    /// SIGTERM of a process: it drains and ends; waits for that.
    ///
    /// # Errors
    /// When it does not run, or not end within a minute.
    pub async fn stop(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |cluster| cluster.end(&name, Ending::Term)).await
    }

    /// Starts a process that was killed, with the same name, data and addresses, and waits until it is ready.
    ///
    /// # Errors
    /// When it runs, or does not become ready.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.start_of(name, None).await
    }

    /// As [`Cluster::start`], from now on with another binary of Linnet.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_of(&self, name: &str, binary: Option<&Path>) -> Result<()> {
        let (name, binary) = (name.to_owned(), binary.map(Path::to_owned));
        self.blocking(move |cluster| cluster.begin(&name, binary.as_deref(), None)).await
    }

    /// As [`Cluster::start`], from now on with these variables beside ours.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(&self, name: &str, env: &[(String, String)]) -> Result<()> {
        let (name, env) = (name.to_owned(), env.to_vec());
        self.blocking(move |cluster| cluster.begin(&name, None, Some(env))).await
    }

    /// SIGSTOP of a process.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.process(name)?.pause()
    }

    /// SIGCONT of a process.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.process(name)?.resume()
    }

    /// Cuts the links between two, both ways: what is sent is swallowed, new connections are never answered. A name is a
    /// process, a role for all of it, or `*`.
    ///
    /// # Errors
    /// When there is no link between them.
    pub async fn cut(&self, a: &str, b: &str) -> Result<usize> {
        self.relay().set(a, b, Mode::Cut).await
    }

    /// As [`Cluster::cut`], but what is sent arrives when the link is mended.
    ///
    /// # Errors
    /// When there is no link between them.
    pub async fn hold(&self, a: &str, b: &str) -> Result<usize> {
        self.relay().set(a, b, Mode::Held).await
    }

    /// Mends what [`Cluster::cut`] and [`Cluster::hold`] broke.
    ///
    /// # Errors
    /// When there is no link between them.
    pub async fn heal(&self, a: &str, b: &str) -> Result<usize> {
        self.relay().set(a, b, Mode::Open).await
    }

    /// Makes the links between two slow, both ways; 0 is prompt again.
    ///
    /// # Errors
    /// When there is no link between them.
    pub async fn delay(&self, a: &str, b: &str, ms: u64) -> Result<usize> {
        self.relay().delay(a, b, ms).await
    }

    /// Every link and what it does.
    ///
    /// # Errors
    /// When the relay does not run.
    pub async fn links(&self) -> Result<Vec<LinkState>> {
        self.relay().list().await
    }

    /// Makes a service lose this share of the bus messages it sends and receives; 0 ends it.
    ///
    /// # Errors
    /// When it is no service, or does not answer.
    pub async fn loss(&self, name: &str, percent: u8) -> Result<()> {
        let body = json!({ "percent": percent });
        self.operate(name, "POST", "faults/loss", Some(body)).await.map(drop)
    }

    /// Makes a service leave: it hands over what it owns, and takes no more until it is started again.
    ///
    /// # Errors
    /// When it is no service, or does not answer.
    pub async fn drain(&self, name: &str) -> Result<()> {
        self.operate(name, "POST", "drain", None).await.map(drop)
    }

    /// A request to `/admin/v1/PATH` of one service.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn operate(&self, name: &str, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (name, method, path) = (name.to_owned(), method.to_owned(), path.to_owned());
        self.blocking(move |cluster| State::load(&cluster.dir)?.operate(&name, &method, &path, body.as_ref())).await
    }

    /// Ends every process and removes the folder.
    ///
    /// # Errors
    /// When something cannot be ended or removed.
    pub async fn down(self) -> Result<()> {
        self.blocking(|cluster| {
            let lock = state::lock(&cluster.dir)?;
            let state = State::load(&cluster.dir)?;
            // Services first, so that none of them sees its servers go.
            for member in state.members.iter().filter_map(|member| member.process) {
                member.kill()?;
            }
            let _ = fs::remove_file(plan::socket(&cluster.dir));
            drop(lock);
            fs::remove_dir_all(&cluster.dir).with_context(|| format!("removing {}", cluster.dir.display()))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let cluster = self.clone();
        tokio::task::spawn_blocking(move || work(&cluster)).await?
    }

    fn relay(&self) -> Control {
        Control::new(plan::socket(&self.dir))
    }

    fn process(&self, name: &str) -> Result<process::Process> {
        let process = State::load(&self.dir)?.member(name)?.process;
        process.with_context(|| format!("{name} is not running"))
    }

    fn end(&self, name: &str, ending: Ending) -> Result<()> {
        let _lock = state::lock(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        let process = state.member(name)?.process.take().filter(process::Process::alive);
        let process = process.with_context(|| format!("{name} is not running"))?;
        match ending {
            Ending::Kill => process.kill()?,
            Ending::Term => process.stop(Duration::from_secs(60))?,
        }
        if let Some(held) = &self.held {
            drop(held.guards.lock().remove(name));
        }
        state.save(&self.dir)
    }

    fn begin(&self, name: &str, binary: Option<&Path>, env: Option<Vec<(String, String)>>) -> Result<()> {
        let node = {
            let _lock = state::lock(&self.dir)?;
            let mut state = State::load(&self.dir)?;
            let member = state.member(name)?;
            if member.process.is_some_and(|process| process.alive()) {
                bail!("{name} is running");
            }
            if let Some(binary) = binary {
                anyhow::ensure!(member.is_service(), "{name} is no service of Linnet");
                member.node.launch.program = fs::canonicalize(binary)?;
            }
            if let Some(env) = env {
                member.node.launch.env = env;
            }
            member.node.clone()
        };
        // Without the lock: others may be started or killed meanwhile.
        let (process, guard) = node.run()?;
        let _lock = state::lock(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        let member = state.member(name)?;
        member.node = node;
        member.process = Some(process);
        state.save(&self.dir)?;
        match &self.held {
            Some(held) => drop(held.guards.lock().insert(name.to_owned(), guard)),
            None => guard.release()?,
        }
        Ok(())
    }
}

enum Ending {
    Kill,
    Term,
}

fn check(options: &Options) -> Result<()> {
    for (name, count) in [("--cql", options.cql), ("--nats", options.nats)] {
        anyhow::ensure!(matches!(count, 1 | 3), "{name} is 1 or 3");
    }
    for (name, count) in
        [("--gateways", options.gateways), ("--owners", options.owners), ("--replicas", options.replicas)]
    {
        anyhow::ensure!((1..=9).contains(&count), "{name} is 1 to 9");
    }
    Ok(())
}

/// Starts everything in order. What was started is in `guards`, whether it succeeds or not.
fn start_all(
    dir: &Path,
    options: &Options,
    programs: &Programs,
    guards: &mut BTreeMap<String, Guard>,
    say: &dyn Fn(&str),
) -> Result<State> {
    for folder in ["config", "logs", "servers", "data"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let mut state = plan::plan(dir, options, programs)?;
    programs.certify(dir, &state)?;
    let count = |state: &State, role| state.of_role(role).count();
    say(&format!("servers: {} NATS, 1 Redis, {} CQL", count(&state, "nats"), count(&state, "cql")));
    run(&mut state, guards, |member| !member.is_service())?;
    say("schema");
    programs.migrate(&plan::config_file(dir, "api-1"))?;
    say(&format!("services: {}", state.services().count()));
    run(&mut state, guards, state::Member::is_service)?;
    say("waiting until every node is known");
    state.wait_for_ring(RING)?;
    say("a probe message");
    retry(PROBE, || state.probe())?;
    (state.sdkappid, state.key) = state.tenant("local cluster")?;
    retry(PROBE, || state.people())?;
    state.save(dir)?;
    Ok(state)
}

fn run(state: &mut State, guards: &mut BTreeMap<String, Guard>, which: impl Fn(&state::Member) -> bool) -> Result<()> {
    let nodes: Vec<Node> =
        state.members.iter().filter(|member| which(member)).map(|member| member.node.clone()).collect();
    let started = servers::run_all(&nodes.iter().collect::<Vec<_>>())?;
    for (node, (process, guard)) in nodes.iter().zip(started) {
        state.member(&node.name)?.process = Some(process);
        guards.insert(node.name.clone(), guard);
    }
    Ok(())
}

/// Owners of a new cluster settle while they are asked.
fn retry(patience: Duration, work: impl Fn() -> Result<()>) -> Result<()> {
    let end = std::time::Instant::now() + patience;
    loop {
        match work() {
            Err(_) if std::time::Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            done => return done,
        }
    }
}

/// What `linnet … --data DIR` reads; only its owner can.
fn dev_file(dir: &Path, state: &State) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let first = |role, scheme, path| {
        let address = state.of_role(role).next().map(|member| member.node.address.clone()).unwrap_or_default();
        format!("{scheme}://{address}{path}")
    };
    let mut file = toml::Table::new();
    file.insert("sdkappid".to_owned(), i64::from(state.sdkappid).into());
    let texts = [
        ("key", state.key.clone()),
        ("admin", state::ADMIN.to_owned()),
        ("token", state.token.clone()),
        ("rest", first("api", "http", "")),
        ("ws", first("gateway", "ws", "/ws")),
    ];
    let gateways = state.of_role("gateway").map(|gateway| format!("ws://{}/ws", gateway.node.address));
    file.insert("gateways".to_owned(), gateways.collect::<Vec<_>>().into());
    file.extend(texts.map(|(name, text)| (name.to_owned(), text.into())));
    let mut options = fs::OpenOptions::new();
    let mut to = options.write(true).create(true).truncate(true).mode(0o600).open(dir.join("dev.toml"))?;
    Ok(to.write_all(file.to_string().as_bytes())?)
}

fn random_hex(bytes: usize) -> String {
    let mut random = rand::rng();
    (0..bytes).map(|_| format!("{:02x}", random.random::<u8>())).collect()
}
