//! The schema and its versions: `linnet migrate check|run|contract`.
//!
//! The keyspace carries (version, oldest reader allowed). [`run`] enlarges it step by step, while builds of the version
//! before go on working: so nodes are upgraded one by one, a node of the previous version restarts in the middle of it,
//! and an upgrade can be taken back. [`contract`] takes away what only older builds use, and locks those out first; it is
//! a later command of its own.
//!
//! ```text
//! run --lease--> schema_version 'lock' (conditional, 120 s, renewed)          held by another -> refuses, names it
//!      per part: CREATE ... IF NOT EXISTS on one server, agreed by all        cut off -> the next run goes on there
//!      per step: version = n IF version = n - 1
//! ```

mod ddl;
mod lock;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use super::lanes::Unsent;
use super::nearest::nearest;
use super::{Config, session};
use crate::rows::{Error, Result};
use linnet_runtime::Rng;
use lock::Lock;
pub use plan::{Contraction, Plan, Step, TableLife, Work};
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};

/// Time one change of the schema may take until all servers agree.
const DDL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the keyspace says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Steps done.
    pub version: u32,
    /// Contractions done.
    pub contracted: u32,
    /// The oldest build that may read it.
    pub oldest_reader: u32,
}

/// How the schema and this build go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is there yet.
    Absent,
    /// Steps are missing; this build does not run.
    Older,
    /// As this build makes it.
    Current,
    /// A later build made it; this one may run.
    Newer,
    /// A later build made it, and this one may not read it.
    TooNew,
}

/// What [`check`] found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the keyspace says; `None`: there is no schema.
    pub found: Option<Found>,
    /// The version of this build.
    pub build: u32,
    /// What that comes to.
    pub verdict: Verdict,
    /// What `run` would do.
    pub pending: Vec<String>,
    /// What `contract` would do.
    pub contractions: Vec<String>,
    /// Who is changing the schema now.
    pub locked_by: Option<String>,
}

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A step begins.
    Step {
        /// Its version, or the contraction's number.
        number: u32,
        /// Its title.
        title: &'static str,
    },
    /// One part of it is done.
    Part {
        /// Which of how many.
        done: usize,
        /// Parts of the step.
        of: usize,
    },
}

/// Compares the schema with this build; changes nothing.
///
/// # Errors
/// [`Error::Open`] when no server answers.
pub async fn check(config: &Config) -> Result<Report> {
    Migration::connect(config, Plan::current()).await?.check().await
}

/// Makes the keyspace if there is none, and does the steps that are missing.
///
/// # Errors
/// [`Error::Open`]: another run holds the lock, too few servers for the copies wanted, or the servers refuse. What was
/// done stays done; run it again.
pub async fn run(config: &Config, progress: impl FnMut(Progress) + Send) -> Result<Report> {
    Migration::connect(config, Plan::current()).await?.run(progress).await
}

/// Takes away what only older builds use, after locking them out. Run it when none of them will be started again.
///
/// # Errors
/// As [`run`]; also when the schema lacks the steps it needs.
pub async fn contract(config: &Config, progress: impl FnMut(Progress) + Send) -> Result<Report> {
    Migration::connect(config, Plan::current()).await?.contract(progress).await
}

/// A connection for changing the schema by `plan`.
pub struct Migration {
    session: Session,
    config: Config,
    plan: Plan,
    ddl: ExecutionProfileHandle,
    data: ExecutionProfileHandle,
    datacenter: String,
}

impl Migration {
    /// Connects. [`check`], [`run`] and [`contract`] do it with the plan of this build; tests bring others.
    ///
    /// # Errors
    /// [`Error::Open`] when no server answers.
    pub async fn connect(config: &Config, plan: Plan) -> Result<Self> {
        let session = session::connect(config).await?;
        let datacenter = session::datacenter(&session, config)?;
        Ok(Self {
            ddl: one_server(&session, config)?,
            data: data_profile(&datacenter),
            session,
            config: config.clone(),
            plan,
            datacenter,
        })
    }

    /// As [`check`].
    ///
    /// # Errors
    /// As [`check`].
    pub async fn check(&self) -> Result<Report> {
        let found = self.found().await?;
        let locked_by = if found.is_some() { self.lock().holder().await? } else { None };
        Ok(self.report(found, locked_by))
    }

    /// As [`run`].
    ///
    /// # Errors
    /// As [`run`].
    pub async fn run(&self, mut progress: impl FnMut(Progress) + Send) -> Result<Report> {
        self.begin().await?;
        let lock = self.lock();
        lock.take().await?;
        let result = self.steps(&lock, &mut progress).await;
        lock.release().await;
        result?;
        self.check().await
    }

    /// As [`contract`].
    ///
    /// # Errors
    /// As [`contract`].
    pub async fn contract(&self, mut progress: impl FnMut(Progress) + Send) -> Result<Report> {
        let Some(found) = self.found().await? else {
            return Err(self.fail("there is no schema; run `linnet migrate run`"));
        };
        let lock = self.lock();
        lock.take().await?;
        let result = self.contractions(found, &lock, &mut progress).await;
        lock.release().await;
        result?;
        self.check().await
    }

    async fn found(&self) -> Result<Option<Found>> {
        found(&self.session, &self.config, &self.data).await
    }

    fn report(&self, found: Option<Found>, locked_by: Option<String>) -> Report {
        let (version, contracted) = found.map_or((0, 0), |found| (found.version, found.contracted));
        let steps = self.plan.steps.iter().filter(|step| step.version > version);
        let contractions = self.plan.contractions.iter().filter(|contraction| contraction.number > contracted);
        Report {
            found,
            build: self.plan.version(),
            verdict: verdict(found, self.plan.version()),
            pending: steps.map(|step| format!("{}: {}", step.version, step.title)).collect(),
            contractions: contractions.map(|c| format!("{}: {}", c.number, c.title)).collect(),
            locked_by,
        }
    }

    /// The keyspace and the table of versions: all that is needed for a lock.
    async fn begin(&self) -> Result<()> {
        if self.found().await?.is_none() {
            self.keyspace().await?;
            self.change(&ddl::versions(&self.config.keyspace)).await?;
        }
        let row = format!(
            "INSERT INTO {}.schema_version (id, version, contracted, oldest_reader) VALUES ('schema', 0, 0, 1) IF NOT EXISTS",
            self.config.keyspace
        );
        self.data(&row, ()).await.map(drop)
    }

    async fn keyspace(&self) -> Result<()> {
        let exists = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        if self.rows(exists, (&self.config.keyspace,)).await? > 0 {
            return Ok(());
        }
        let state = self.session.get_cluster_state();
        let here = |node: &&Arc<scylla::cluster::Node>| node.datacenter.as_deref() == Some(self.datacenter.as_str());
        let servers = state.get_nodes_info().iter().filter(here).count();
        if servers < self.config.replication as usize {
            return Err(self.fail(&format!(
                "{} copies need as many servers, and data centre {} has {servers}: add servers, or lower cql.replication",
                self.config.replication, self.datacenter
            )));
        }
        let scylla = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = ?";
        let may_have_tablets = self.rows(scylla, ("scylla_local",)).await? > 0;
        let cql = |tablets| ddl::keyspace(&self.config.keyspace, &self.datacenter, self.config.replication, tablets);
        match self.send(&cql(may_have_tablets), (), &self.ddl).await {
            // A version of before there were tablets.
            Err(error) if may_have_tablets && is_refusal(&error) => self.change(&cql(false)).await,
            answer => answer.map(drop).map_err(|error| self.fail(&error.to_string())),
        }
    }

    async fn steps(&self, lock: &Lock<'_>, progress: &mut (impl FnMut(Progress) + Send)) -> Result<()> {
        let Some(Found { mut version, .. }) = self.found().await? else {
            return Err(self.fail("the schema is gone"));
        };
        for step in &self.plan.steps {
            if step.version <= version {
                continue;
            }
            progress(Progress::Step { number: step.version, title: step.title });
            self.parts(step.work, lock, progress).await?;
            self.note("version", version, step.version).await?;
            version = step.version;
        }
        Ok(())
    }

    async fn contractions(
        &self,
        mut found: Found,
        lock: &Lock<'_>,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<()> {
        for contraction in &self.plan.contractions {
            if contraction.number <= found.contracted {
                continue;
            }
            if found.version < contraction.after {
                return Err(self.fail("steps are missing; run `linnet migrate run` first"));
            }
            progress(Progress::Step { number: contraction.number, title: contraction.title });
            // Those who would miss it are locked out before it goes.
            if found.oldest_reader < contraction.oldest_reader {
                self.note("oldest_reader", found.oldest_reader, contraction.oldest_reader).await?;
                found.oldest_reader = contraction.oldest_reader;
            }
            self.parts(contraction.work, lock, progress).await?;
            self.note("contracted", found.contracted, contraction.number).await?;
            found.contracted = contraction.number;
        }
        Ok(())
    }

    async fn parts(&self, parts: &[Work], lock: &Lock<'_>, progress: &mut (impl FnMut(Progress) + Send)) -> Result<()> {
        for (done, work) in (1..).zip(parts) {
            lock.renew().await?;
            if self.is_missing(work).await? {
                self.change(&ddl::statement(&self.config.keyspace, work)).await?;
            }
            progress(Progress::Part { done, of: parts.len() });
        }
        Ok(())
    }

    /// Whether a part is still to be done: not every server knows "if not exists" for columns.
    async fn is_missing(&self, work: &Work) -> Result<bool> {
        let column = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ? AND column_name = ?";
        match work {
            Work::Table { name, .. } => {
                let table = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
                Ok(self.rows(table, (&self.config.keyspace, name)).await? == 0)
            }
            Work::Column { table, name, .. } => Ok(self.rows(column, (&self.config.keyspace, table, name)).await? == 0),
            Work::DropColumn { table, name } => Ok(self.rows(column, (&self.config.keyspace, table, name)).await? > 0),
            Work::DropTable { .. } => Ok(true),
        }
    }

    /// Sets one number of the version row, if it is still as it was.
    async fn note(&self, column: &str, from: u32, to: u32) -> Result<()> {
        let cql = format!(
            "UPDATE {}.schema_version SET {column} = ? WHERE id = 'schema' IF {column} = ?",
            self.config.keyspace
        );
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        if self.applied(&cql, (number(to), number(from))).await? {
            Ok(())
        } else {
            Err(self.fail("the schema was changed by another run meanwhile; run `linnet migrate check`"))
        }
    }

    fn lock(&self) -> Lock<'_> {
        Lock::new(self, Rng::system().token(9))
    }

    async fn change(&self, cql: &str) -> Result<()> {
        self.send(cql, (), &self.ddl).await.map(drop).map_err(|error| self.fail(&error.to_string()))
    }

    async fn rows(&self, cql: &str, values: impl SerializeRow) -> Result<usize> {
        let answer = self.data(cql, values).await?;
        let rows = answer.into_rows_result().map_err(|error| self.fail(&error.to_string()))?;
        Ok(rows.rows_num())
    }

    /// Whether a conditional statement was applied.
    async fn applied(&self, cql: &str, values: impl SerializeRow) -> Result<bool> {
        let answer = self.data(cql, values).await?;
        super::write::applied(answer).map(|(applied, _)| applied).map_err(|why| self.fail(&why))
    }

    async fn data(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult> {
        self.send(cql, values, &self.data).await.map_err(|error| self.fail(&error.to_string()))
    }

    /// A read that sees what was decided.
    async fn serial(&self, cql: &str) -> Result<QueryResult> {
        let mut statement = Statement::new(cql);
        statement.set_execution_profile_handle(Some(self.data.clone()));
        statement.set_consistency(Consistency::LocalSerial);
        self.session.query_unpaged(statement, ()).await.map_err(|error| self.fail(&error.to_string()))
    }

    async fn send(
        &self,
        cql: &str,
        values: impl SerializeRow,
        profile: &ExecutionProfileHandle,
    ) -> std::result::Result<QueryResult, ExecutionError> {
        let mut statement = Statement::new(cql);
        statement.set_execution_profile_handle(Some(profile.clone()));
        self.session.query_unpaged(statement, values).await
    }

    fn fail(&self, why: &str) -> Error {
        Error::Open { path: self.config.place(), why: why.to_owned() }
    }
}

/// Refuses, with what to do, when this build must not use the schema.
pub(super) async fn may_run(session: &Session, config: &Config, profile: &ExecutionProfileHandle) -> Result<()> {
    let found = found(session, config, profile).await?;
    let build = Plan::current().version();
    let why = match verdict(found, build) {
        Verdict::Current | Verdict::Newer => return Ok(()),
        Verdict::Absent => "there is no schema: run `linnet migrate run`".to_owned(),
        Verdict::Older => format!(
            "the schema is version {}, this build needs {build}: run `linnet migrate run` (older nodes go on working)",
            found.map_or(0, |found| found.version)
        ),
        Verdict::TooNew => format!(
            "the schema may be read by builds of schema {} or newer, and this one is of {build}: start a newer build, or \
             restore a backup of before `linnet migrate contract`",
            found.map_or(0, |found| found.oldest_reader)
        ),
    };
    Err(Error::Open { path: config.place(), why })
}

fn verdict(found: Option<Found>, build: u32) -> Verdict {
    match found {
        None => Verdict::Absent,
        Some(found) if found.oldest_reader > build => Verdict::TooNew,
        Some(found) if found.version < build => Verdict::Older,
        Some(found) if found.version == build => Verdict::Current,
        Some(_) => Verdict::Newer,
    }
}

/// Reads the version row at the quorum of the data centre.
async fn found(session: &Session, config: &Config, profile: &ExecutionProfileHandle) -> Result<Option<Found>> {
    let fail = |why: String| Error::Open { path: config.place(), why };
    let cql = format!(
        "SELECT version, contracted, oldest_reader FROM {}.schema_version WHERE id = 'schema'",
        config.keyspace
    );
    let mut statement = Statement::new(cql);
    statement.set_execution_profile_handle(Some(profile.clone()));
    statement.set_is_idempotent(true);
    let answer = match session.query_unpaged(statement, ()).await {
        Ok(answer) => answer,
        // The server knows no such keyspace or table.
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    };
    let rows = answer.into_rows_result().map_err(|error| fail(error.to_string()))?;
    let row = rows.maybe_first_row::<(i32, i32, i32)>().map_err(|error| fail(error.to_string()))?;
    let number = |number: i32| u32::try_from(number).unwrap_or_default();
    Ok(row.map(|(version, contracted, oldest)| Found {
        version: number(version),
        contracted: number(contracted),
        oldest_reader: number(oldest),
    }))
}

fn is_refusal(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::SyntaxError | DbError::Invalid | DbError::ConfigError,
            _
        ))
    )
}

/// The same server for every run there is: two runs that make one table on two servers at once make it twice.
fn one_server(session: &Session, config: &Config) -> Result<ExecutionProfileHandle> {
    let state = session.get_cluster_state();
    let Some(node) = state.get_nodes_info().iter().filter(|node| node.is_connected()).min_by_key(|node| node.host_id)
    else {
        return Err(Error::Open { path: config.place(), why: "no server is connected".to_owned() });
    };
    let only = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::HostId(node.host_id), None);
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .request_timeout(Some(DDL_TIMEOUT))
        .load_balancing_policy(only)
        .retry_policy(Arc::new(Unsent));
    Ok(profile.build().into_handle())
}

fn data_profile(datacenter: &str) -> ExecutionProfileHandle {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(Duration::from_secs(10)))
        .load_balancing_policy(nearest(datacenter))
        .retry_policy(Arc::new(Unsent));
    profile.build().into_handle()
}
