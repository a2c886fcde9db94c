//! Versions of the schema: made, gone on with, locked, and refused.

use std::sync::mpsc;

use linnet_runtime::metrics::Metrics;
use linnet_runtime::{Clock, Rng, Tasks};
use linnet_store::cql::migrate::{Contraction, Migration, Plan, Progress, Step, TableLife, Verdict, Work};
use linnet_store::cql::{Config, Cql};
use linnet_store::{Error, Kind, Life, PlainBatch, Rows, Table, Write};
use scylla::client::session_builder::SessionBuilder;

use crate::cql_store;

/// A plan of few tables: what is tested is how it is done.
fn small(steps: &[(&'static str, &'static [Work])]) -> Plan {
    let step = |(at, (title, work)): (usize, &(&'static str, &'static [Work]))| Step {
        version: u32::try_from(at).unwrap() + 1,
        title,
        work,
    };
    Plan { steps: steps.iter().enumerate().map(step).collect(), contractions: Vec::new() }
}

const A: Work = Work::Table { name: "a", kind: Kind::Plain, life: TableLife::Kept };
const B: Work = Work::Table { name: "b", kind: Kind::Guarded, life: TableLife::Expires { hours: 24 } };
const NOTE: Work = Work::Column { table: "a", name: "note", cql: "text" };
const BROKEN: Work = Work::Column { table: "a", name: "broken", cql: "no such type" };

/// A keyspace that goes with its test.
struct Keyspace(Config);

impl Keyspace {
    async fn new() -> Self {
        Self(cql_store::on(format!("t_{:016x}", Rng::system().u64())).await)
    }

    async fn drop(self) {
        let session = SessionBuilder::new().known_node(&self.0.nodes[0]).build().await.unwrap();
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {}", self.0.keyspace), ()).await.unwrap();
    }
}

async fn migration(config: &Config, plan: Plan) -> Migration {
    Migration::connect(config, plan).await.unwrap()
}

async fn open(config: &Config) -> Result<std::sync::Arc<Cql>, String> {
    let metrics = Metrics::new();
    let opened = Cql::connect(config.clone(), Clock::system(), &Tasks::new(&metrics), &metrics).await;
    opened.map_err(|error| match error {
        Error::Open { why, .. } => why,
        other => panic!("{other}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_cut_off_goes_on_where_it_was() {
    let keyspace = Keyspace::new().await;
    let config = keyspace.0.clone();
    let refused = open(&config).await.err().unwrap();
    assert!(refused.contains("linnet migrate run"), "{refused}");
    let broken = migration(&config, small(&[("one", &[A]), ("two", &[NOTE, BROKEN, B])])).await;
    assert_eq!(broken.check().await.unwrap().verdict, Verdict::Absent);
    assert!(broken.run(|_| ()).await.is_err());
    let report = broken.check().await.unwrap();
    assert_eq!((report.found.unwrap().version, report.verdict, report.locked_by), (1, Verdict::Older, None));
    assert_eq!(report.pending, ["2: two"]);
    let refused = open(&config).await.err();
    assert!(refused.is_some(), "half a schema is not run on");
    let whole = migration(&config, small(&[("one", &[A]), ("two", &[NOTE, B])])).await;
    let mut told = Vec::new();
    let report = whole.run(|progress| told.push(format!("{progress:?}"))).await.unwrap();
    assert_eq!(report.verdict, Verdict::Current);
    assert_eq!(told.len(), 3, "the first step is not done again: {told:?}");
    assert!(whole.run(|_| panic!("nothing is left to do")).await.unwrap().pending.is_empty());
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_runs_do_not_collide() {
    let keyspace = Keyspace::new().await;
    let config = keyspace.0.clone();
    let (first, second) =
        (migration(&config, small(&[("one", &[A, B])])).await, migration(&config, small(&[("one", &[A, B])])).await);
    let (begun, has_begun) = mpsc::sync_channel::<()>(1);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(1);
    let running = async move {
        let paused = first.run(move |progress| {
            if let Progress::Step { .. } = progress {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
            }
        });
        paused.await.unwrap()
    };
    let second = &second;
    let other = async move {
        has_begun.recv().unwrap();
        let locked = second.check().await.unwrap().locked_by;
        let refused = second.run(|_| ()).await.unwrap_err().to_string();
        go_on.send(()).unwrap();
        (locked, refused)
    };
    // Each on a thread of its own: one of them blocks.
    let (report, (locked, refused)) = std::thread::scope(|scope| {
        let handle = tokio::runtime::Handle::current();
        let here = handle.clone();
        let running = scope.spawn(move || handle.block_on(running));
        let other = scope.spawn(move || here.block_on(other));
        (running.join().unwrap(), other.join().unwrap())
    });
    assert!(refused.contains(&locked.unwrap()), "{refused}");
    assert_eq!(report.verdict, Verdict::Current);
    assert_eq!(second.run(|_| ()).await.unwrap().verdict, Verdict::Current, "the lock is given back");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_build_before_runs_on_a_larger_schema_until_it_is_contracted() {
    let keyspace = Keyspace::new().await;
    let config = keyspace.0.clone();
    let now = Plan::current();
    migration(&config, now.clone()).await.run(|_| ()).await.unwrap();
    let running = open(&config).await.unwrap();
    let mut next = now.clone();
    let version = now.version() + 1;
    next.steps.push(Step { version, title: "next", work: &[NOTE_ON_APP_INDEX] });
    let oldest_reader = version;
    let number = u32::try_from(now.contractions.len()).unwrap() + 1;
    next.contractions.push(Contraction { number, after: version, oldest_reader, title: "alone", work: &[] });
    let upgrade = migration(&config, next).await;
    assert_eq!(upgrade.check().await.unwrap().verdict, Verdict::Older);
    let report = upgrade.run(|_| ()).await.unwrap();
    assert_eq!(report.verdict, Verdict::Current);
    assert_eq!(report.contractions.len(), usize::try_from(number).unwrap());
    // A node of this build goes on, and another starts in the middle of the upgrade.
    running.ready().await.unwrap();
    write(&running).await;
    write(&open(&config).await.unwrap()).await;
    assert_eq!(migration(&config, now.clone()).await.check().await.unwrap().verdict, Verdict::Newer);
    upgrade.contract(|_| ()).await.unwrap();
    let refused = open(&config).await.err().unwrap();
    assert!(refused.contains("start a newer build"), "{refused}");
    assert!(running.ready().await.is_err());
    assert_eq!(migration(&config, now).await.check().await.unwrap().verdict, Verdict::TooNew);
    keyspace.drop().await;
}

const NOTE_ON_APP_INDEX: Work = Work::Column { table: "app_index", name: "note", cql: "text" };

async fn write(store: &Cql) {
    let table = Table { name: "app_index", kind: Kind::Plain };
    let put = Write::Put { clustering: "k".into(), value: "v".into() };
    store.put(PlainBatch { table, writes: vec![("p".into(), put)], life: Life::Forever }).await.unwrap();
    assert_eq!(store.get(table, b"p", b"k").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_need_as_many_servers() {
    let config = Config { replication: 3, ..Keyspace::new().await.0 };
    let migration = migration(&config, small(&[("one", &[A])])).await;
    let refused = migration.run(|_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("3 copies need as many servers") || servers() >= 3, "{refused}");
}

fn servers() -> usize {
    std::env::var("LINNET_TEST_CQL").map_or(1, |servers| servers.split(',').count())
}
