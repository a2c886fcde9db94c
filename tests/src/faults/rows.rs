//! The table of faults as tests: one warm cluster for most of them, one of three CQL nodes for the store's.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use linnet_local::Options;
use linnet_runtime::Rng;

use super::builds;
use super::fault::{Fault, SPELL};
use super::ground::Ground;
use super::neighbours::{self, alone};
use super::run::{Lane, Report};

/// Members of the community.
const COMMUNITY: usize = 10_000;
/// Appends a second.
const RATE: f64 = 20.0;

/// What a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// One CQL node, three NATS servers.
    Warm,
    /// Three CQL nodes.
    Replicas,
    /// No cluster.
    Nothing,
    /// One whose services are of two builds.
    Builds,
}

/// A cluster with everything on it, for rows.
pub struct Stage {
    /// The cluster.
    pub ground: Ground,
    /// The load on it.
    pub lane: Lane,
    /// Chooses.
    pub rng: Rng,
    /// The cluster was brought up for it.
    own: bool,
}

type Story = for<'a> fn(&'a mut Stage) -> BoxFuture<'a, Result<Option<Report>>>;
type Alone = fn(PathBuf) -> BoxFuture<'static, Result<()>>;

enum Body {
    /// A fault, and how long it may stall the worst sender, in ms.
    Fault(Fault, Option<u64>),
    /// A story of its own, on the cluster, and how long it may stall the worst sender, in ms.
    Story(Story, Option<u64>),
    /// A story of one process, with the binary to run.
    Alone(Alone),
}

struct Row {
    name: &'static str,
    needs: Needs,
    body: Body,
}

const fn row(name: &'static str, needs: Needs, fault: Fault, worst_ms: Option<u64>) -> Row {
    Row { name, needs, body: Body::Fault(fault, worst_ms) }
}

const fn story(name: &'static str, story: Story) -> Row {
    Row { name, needs: Needs::Warm, body: Body::Story(story, None) }
}

const fn alone(name: &'static str, story: Alone) -> Row {
    Row { name, needs: Needs::Nothing, body: Body::Alone(story) }
}

/// Every row, in the order they run.
fn rows() -> Vec<Row> {
    use Needs::{Replicas, Warm};
    vec![
        row("calm", Warm, Fault::Calm, Some(2_000)),
        row("gateway_killed", Warm, Fault::GatewayKilled, Some(5_000)),
        row("owner_killed", Warm, Fault::OwnerKilled, Some(12_000)),
        row("owner_paused", Warm, Fault::OwnerPaused, Some(12_000)),
        row("drain", Warm, Fault::Drained, Some(2_000)),
        row("rolling_restart", Warm, Fault::RollingRestart, Some(2_000)),
        row("two_owners", Warm, Fault::TwoOwners, None),
        row("nats_one_killed", Warm, Fault::NatsOneKilled, Some(2_000)),
        row("nats_all_restarted", Warm, Fault::NatsAllRestarted, Some(2_000)),
        row("nats_loss", Warm, Fault::NatsLoss, Some(2_000)),
        row("nats_cut", Warm, Fault::NatsCut, None),
        row("redis_emptied", Warm, Fault::RedisEmptied, Some(2_000)),
        row("redis_gone", Warm, Fault::RedisGone, Some(2_000)),
        row("webhooks_dead", Warm, Fault::HooksDead, Some(2_000)),
        row("webhooks_slow", Warm, Fault::HooksSlow, Some(2_000)),
        row("webhooks_nonsense", Warm, Fault::HooksNonsense, Some(2_000)),
        story("neighbour_without_papers", |stage| neighbours::certificates(stage).map_ok(|()| None).boxed()),
        story("neighbour_on_the_bus", |stage| neighbours::bus(stage).map_ok(|()| None).boxed()),
        story("neighbour_of_another_cluster", |stage| neighbours::stranger(stage).map_ok(|()| None).boxed()),
        story("newer_schema", |stage| neighbours::newer_schema(stage).map_ok(|()| None).boxed()),
        story("clock_ahead", |stage| neighbours::clock(stage).map_ok(Some).boxed()),
        alone("private_targets", |linnet| async move { alone::private_targets(&linnet).await }.boxed()),
        alone("full_disk", |linnet| async move { alone::full_disk(&linnet).await }.boxed()),
        row("cql_killed", Replicas, Fault::CqlKilled, Some(2_000)),
        row("cql_paused", Replicas, Fault::CqlPaused, Some(10_000)),
        row("cql_slow", Replicas, Fault::CqlSlow, None),
        Row {
            name: "two_builds",
            needs: Needs::Builds,
            body: Body::Story(|stage| builds::both_orders_and_back(stage).map_ok(Some).boxed(), Some(2_000)),
        },
    ]
}

/// The seed: `LINNET_SEED`, or drawn.
fn seed() -> u64 {
    let given = std::env::var("LINNET_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| Rng::system().below(1_000_000))
}

/// What the command line of a test asks for.
#[derive(Debug, Default)]
struct Asked {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
}

impl Asked {
    /// Understands what `cargo test -- ARGS` usually passes; other options are passed over.
    fn of(args: impl Iterator<Item = String>) -> Self {
        let mut asked = Self::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => asked.exact = true,
                "--list" => asked.list = true,
                "--skip" => asked.skip.extend(args.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(args.next()),
                option if option.starts_with('-') => {}
                _ => asked.filters.push(arg),
            }
        }
        asked
    }

    fn wants(&self, row: &str) -> bool {
        let name = &format!("{LANE}{row}");
        let hit = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// In front of the name of every row, so that a run of all tests can skip what needs a cluster.
const LANE: &str = "faults::lane::";

/// Runs the rows that the arguments name, all of them without; prints as other tests do.
#[must_use]
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let asked = Asked::of(args);
    let all = rows();
    let count = all.len();
    let wanted: Vec<Row> = all.into_iter().filter(|row| asked.wants(row.name)).collect();
    if asked.list {
        wanted.iter().for_each(|row| println!("{LANE}{}: test", row.name));
        println!("\n{} tests, 0 benchmarks", wanted.len());
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    println!("\nrunning {} tests", wanted.len());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let failed = runtime.block_on(run(&wanted));
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {LANE}{name}"));
    }
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        wanted.len() - failed.len(),
        failed.len(),
        count - wanted.len(),
        begun.elapsed().as_secs_f64()
    );
    // Processes of a cluster that is still up end with this one.
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of those that failed.
async fn run(wanted: &[Row]) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for needs in [Needs::Nothing, Needs::Warm, Needs::Replicas, Needs::Builds] {
        let rows: Vec<&Row> = wanted.iter().filter(|row| row.needs == needs).collect();
        if rows.is_empty() {
            continue;
        }
        let stage = if needs == Needs::Nothing { Ok(None) } else { Stage::open(needs, seed()).await.map(Some) };
        let mut stage = match stage {
            Ok(stage) => stage,
            Err(why) => {
                println!("the cluster for {needs:?}: {why:#}");
                failed.extend(rows.iter().map(|row| row.name));
                continue;
            }
        };
        for row in rows {
            failed.extend(tell(row, stage.as_mut()).await.err());
        }
        if let Some(stage) = stage.filter(|stage| stage.own)
            && let Err(why) = stage.ground.cluster.down().await
        {
            println!("the cluster cannot be taken down: {why:#}");
        }
    }
    failed
}

/// Plays one row and tells how it went; its name when it failed.
async fn tell(row: &Row, stage: Option<&mut Stage>) -> Result<(), &'static str> {
    println!("test {LANE}{} ...", row.name);
    let begun = Instant::now();
    let outcome = match (&row.body, stage) {
        (Body::Alone(story), _) => match linnet_local::cluster::binary() {
            Ok(linnet) => story(linnet).await,
            Err(why) => Err(why),
        },
        (_, None) => Err(anyhow::anyhow!("no cluster")),
        (_, Some(stage)) => {
            let outcome = stage.play(row).await;
            if outcome.is_err()
                && let Err(why) = stage.ground.mend().await
            {
                println!("    the cluster cannot be mended: {why:#}");
            }
            outcome
        }
    };
    let took = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => println!("test {LANE}{} ... ok ({took:.1} s)", row.name),
        Err(why) => {
            println!("test {LANE}{} ... FAILED ({took:.1} s): {why:#}", row.name);
            return Err(row.name);
        }
    }
    Ok(())
}

impl Stage {
    async fn open(needs: Needs, seed: u64) -> Result<Self> {
        let begun = Instant::now();
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        // One that was brought up by hand stays.
        let given = std::env::var_os("LINNET_FAULTS_CLUSTER");
        let own = given.is_none();
        let ground = match given {
            Some(dir) => {
                let ground = Ground::of(linnet_local::Cluster::open(dir.as_ref())?)?;
                ground.mend().await?;
                ground
            }
            None => {
                if needs == Needs::Builds {
                    // Before the cluster is up: it takes the place of the usual binary for a while.
                    builds::next().await?;
                }
                let dir = std::env::temp_dir().join(format!("linnet-faults-{}-{needs:?}", std::process::id()));
                let cql = if needs == Needs::Replicas { 3 } else { 1 };
                let nats = if needs == Needs::Replicas { 1 } else { 3 };
                Ground::up(Options { cql, nats, ..Options::new(dir) }).await?
            }
        };
        println!("{needs:?} cluster up after {:.1} s", begun.elapsed().as_secs_f64());
        let size = number("LINNET_FAULTS_COMMUNITY").unwrap_or(COMMUNITY);
        let rate = std::env::var("LINNET_FAULTS_RATE").ok().and_then(|text| text.parse().ok()).unwrap_or(RATE);
        let lane = Lane::open(ground.place.clone(), seed, size, rate).await?;
        println!("{needs:?} lane seeded after {:.1} s", begun.elapsed().as_secs_f64());
        Ok(Self { ground, lane, rng: Rng::seeded(seed), own })
    }

    /// A wait over the bound is measured once more, for another program may have had the machine; whatever else does not
    /// hold fails at once.
    async fn play(&mut self, row: &Row) -> Result<()> {
        println!("    seed {}", self.lane.seed);
        let Some(late) = self.once(row).await? else { return Ok(()) };
        println!("    {late}; once more");
        match self.once(row).await? {
            Some(again) => bail!("{late}; and again, {again}"),
            None => Ok(()),
        }
    }

    /// What was over its bound.
    async fn once(&mut self, row: &Row) -> Result<Option<String>> {
        let (report, worst_ms) = match row.body {
            Body::Fault(fault, worst_ms) => (Some(self.inflict(row.name, fault).await?), worst_ms),
            Body::Story(story, worst_ms) => (story(self).await?, worst_ms),
            Body::Alone(_) => bail!("it needs no cluster"),
        };
        let hurt = self.ground.hurt()?;
        if !hurt.is_empty() {
            bail!("the cluster is hurt: {hurt:?}");
        }
        let Some(report) = report else { return Ok(None) };
        println!("{report}");
        if !report.violations.is_empty() {
            bail!("{} violations", report.violations.len());
        }
        let worst = report.stalls.worst_ms();
        let over = worst_ms.filter(|bound| worst > *bound);
        Ok(over.map(|bound| format!("a sender waited {worst} ms, over {bound} ms")))
    }

    /// One run with one fault.
    ///
    /// # Errors
    /// When the run cannot be made; what does not hold is in the report.
    pub async fn inflict(&mut self, name: &str, fault: Fault) -> Result<Report> {
        let mut running = self.lane.begin(name).await?;
        let rng = self.rng.fork(name);
        let inflicted = fault.inflict(&self.ground, &mut running, &rng, SPELL).await;
        if let Err(why) = &inflicted {
            running.note(&format!("failed: {why:#}"));
            self.ground.mend().await?;
        }
        let lossy = running.lossy;
        let report = self.lane.finish(running).await?;
        if lossy {
            super::fault::clear(&self.ground).await?;
        }
        if let Err(why) = inflicted {
            println!("{report}");
            return Err(why);
        }
        // The next one begins with a whole cluster, of which every node may own.
        tokio::time::timeout(Duration::from_secs(120), self.ground.whole()).await??;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> Asked {
        Asked::of(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn a_filter_takes_what_contains_it_and_options_of_libtest_are_no_filters() {
        let asked = asked(&["owner_killed", "--nocapture", "--test-threads", "1", "--skip", "redis"]);
        let names: Vec<_> = rows().iter().map(|row| row.name).filter(|name| asked.wants(name)).collect();
        assert_eq!(names, ["owner_killed"]);
        assert!(!asked.wants("redis_gone"));
        assert!(!self::asked(&["--skip", "faults::lane"]).wants("calm"));
    }

    #[test]
    fn rows_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = rows().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().len());
    }
}
