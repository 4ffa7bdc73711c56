//! The rehearsal: what would happen if the migrations ran on such a database today.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use super::Scenario;
use crate::bench::{Samples, Workload, measure};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Gate;
use crate::gate::catalog::Side;
use crate::migrate::{Pass, Progress, Replay, Replayer};
use crate::pg::{Address, Database, Server, ServerOptions};
use crate::run::{self, Findings};
use crate::sql;

/// What gates call the legacy database: `against_target = "before"`.
pub const BEFORE: &str = "before";

/// How a rehearsal is done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the throwaway server comes from.
    pub server: ServerOptions,
    /// How gates are run.
    pub run: run::Options,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A throwaway server is started.
    Starting,
    /// A script of the legacy database is run.
    Legacy(String),
    /// Gates are asked of the legacy database.
    Before,
    /// Migrations are run up, down and up.
    Migrating,
    /// A script of what the running system does is run.
    Operating(String),
    /// Gates are asked of the migrated database.
    After,
    /// A database is made as it was before a migration, to compare workloads with.
    Baseline(String),
    /// A workload is run.
    Workload(String),
    /// The same gates are asked of the same database once more.
    AfterAgain,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting a throwaway Postgres"),
            Self::Legacy(script) => write!(f, "legacy: {script}"),
            Self::Before => f.write_str("gates on the legacy database"),
            Self::Migrating => f.write_str("migrations: up, down, up"),
            Self::Operating(script) => write!(f, "operation: {script}"),
            Self::After => f.write_str("gates on the migrated database"),
            Self::Baseline(migration) => write!(f, "baseline: as it was before {migration}"),
            Self::AfterAgain => f.write_str("gates on the migrated database, once more"),
            Self::Workload(id) => write!(f, "workload: {id}"),
        }
    }
}

/// Is told what happens while it happens.
pub trait Watch: Progress {
    /// A phase begins.
    fn phase(&mut self, _phase: &Phase) {}
}

/// Tells no one.
impl Watch for () {}

/// What a rehearsal found.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The server that it was done on.
    pub server: String,
    /// How long the legacy database took to make.
    pub legacy_duration: Duration,
    /// Where the legacy database was.
    pub before_address: Address,
    /// What became of the gates on it.
    pub before: Findings,
    /// What became of the migrations.
    pub replay: Replay,
    /// Where the migrated database was.
    pub after_address: Address,
    /// What kept the scripts of the running system from being run; the first that failed.
    pub operation_stopped: Option<Error>,
    /// What became of the gates on it, or on what a stopped migration left.
    pub after: Findings,
    /// The workloads, in their order; none when a migration was stopped.
    pub workloads: Vec<WorkloadRun>,
    /// What became of the same gates on the same database, asked again at the end.
    pub after_again: Findings,
}

/// One workload and what was measured of it.
#[derive(Clone, Debug)]
pub struct WorkloadRun {
    /// Its id.
    pub id: String,
    /// Its samples, or why there are none.
    pub samples: Result<Samples>,
    /// What it is compared with.
    pub baseline: Option<Baseline>,
}

/// A workload on the database as it was before a migration.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The migration.
    pub before: String,
    /// The samples, or why there are none.
    pub samples: Result<Samples>,
}

/// Rehearses a scenario on a throwaway server, which is gone afterwards, whatever happens.
///
/// An error is what kept it from being done at all: no server, a legacy script that fails. What the
/// gates and the migrations come to is in the result, a migration that cannot be executed included.
pub async fn rehearse(
    scenario: &Scenario,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Rehearsal> {
    watch.phase(&Phase::Starting);
    let server = Server::start(&options.server).await?;
    let rehearsed = on(&server, scenario, options, watch).await;
    let stopped = server.stop().await;
    let rehearsal = rehearsed?;
    stopped?;
    Ok(rehearsal)
}

async fn on(
    server: &Server,
    scenario: &Scenario,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Rehearsal> {
    let begun = Instant::now();
    let legacy = server.create_database("legacy").await?;
    legacy.configure(&scenario.settings).await?;
    make_legacy(&legacy, scenario, watch).await?;
    let legacy_duration = begun.elapsed();

    let migrated = server.clone_database(&legacy, "migrated").await?;
    migrated.configure(&scenario.settings).await?;

    watch.phase(&Phase::Before);
    let before = ask(&scenario.gates_before, &legacy, &legacy, options).await;

    watch.phase(&Phase::Migrating);
    let mut session = migrated.connect().await?;
    let replay = Replayer::new(&mut session, migrated.address(), watch)
        .prove(&scenario.history)
        .await?;
    let operation_stopped = match &replay.stopped {
        Some(_) => None,
        None => operate(&mut session, &migrated, scenario, watch)
            .await
            .err(),
    };
    analyze(&mut session, &migrated).await?;
    close(session).await;

    watch.phase(&Phase::After);
    let after = ask(&scenario.gates_after, &migrated, &legacy, options).await;

    let mut workloads = Vec::new();
    if replay.stopped.is_none() {
        for workload in &scenario.workloads {
            let baseline = baseline(server, &legacy, scenario, workload, watch).await?;
            watch.phase(&Phase::Workload(workload.id.clone()));
            workloads.push(WorkloadRun {
                id: workload.id.clone(),
                samples: time(&migrated, workload).await?,
                baseline,
            });
        }
    }
    watch.phase(&Phase::AfterAgain);
    let after_again = ask(&scenario.gates_after, &migrated, &legacy, options).await;
    Ok(Rehearsal {
        server: server.describe().to_owned(),
        legacy_duration,
        before_address: legacy.address().clone(),
        before,
        replay,
        after_address: migrated.address().clone(),
        operation_stopped,
        after,
        workloads,
        after_again,
    })
}

/// Measures in a session of its own: one that was lost fails one workload, not all.
async fn time(database: &Database, workload: &Workload) -> Result<Result<Samples>> {
    let mut session = database.connect().await?;
    let samples = measure(&mut session, database.address(), workload).await;
    close(session).await;
    Ok(samples)
}

/// Measures a workload on a database as it was before the migration that it is compared with.
async fn baseline(
    server: &Server,
    legacy: &Database,
    scenario: &Scenario,
    workload: &Workload,
    watch: &mut dyn Watch,
) -> Result<Option<Baseline>> {
    let Some(named) = &workload.baseline else {
        return Ok(None);
    };
    let until = scenario
        .history
        .position(named)
        .expect("a scenario is loaded only with baselines that are in its history");
    let migrations = scenario.history.migrations();
    let before = migrations[until].id.clone();
    watch.phase(&Phase::Baseline(before.clone()));
    let database = server.clone_database(legacy, "baseline").await?;
    database.configure(&scenario.settings).await?;
    let mut session = database.connect().await?;
    for migration in &migrations[..until] {
        Replayer::new(&mut session, database.address(), &mut ())
            .apply(migration, Pass::First)
            .await?;
    }
    analyze(&mut session, &database).await?;
    close(session).await;
    let samples = time(&database, workload).await?;
    database.remove().await?;
    Ok(Some(Baseline { before, samples }))
}

/// Runs what the running system does: its pipelines, its checks of itself.
async fn operate(
    session: &mut PgConnection,
    database: &Database,
    scenario: &Scenario,
    watch: &mut dyn Watch,
) -> Result<()> {
    for script in &scenario.operation {
        watch.phase(&Phase::Operating(script.file().display().to_string()));
        Replayer::new(session, database.address(), watch)
            .apply_script(script)
            .await?;
    }
    Ok(())
}

async fn make_legacy(
    database: &Database,
    scenario: &Scenario,
    watch: &mut dyn Watch,
) -> Result<()> {
    let mut session = database.connect().await?;
    for script in &scenario.legacy {
        watch.phase(&Phase::Legacy(script.file().display().to_string()));
        Replayer::new(&mut session, database.address(), watch)
            .apply_script(script)
            .await?;
    }
    analyze(&mut session, database).await?;
    close(session).await;
    Ok(())
}

async fn ask(
    gates: &[Gate],
    database: &Database,
    legacy: &Database,
    options: &Options,
) -> Findings {
    let targets = BTreeMap::from([
        (Side::Main, database.address().clone()),
        (Side::Other(BEFORE.to_owned()), legacy.address().clone()),
    ]);
    run::check(gates, &targets, &options.run).await
}

/// A throwaway server has no autovacuum: plans would rest on guesses.
async fn analyze(session: &mut PgConnection, database: &Database) -> Result<()> {
    let done = session.execute(sqlx::raw_sql(sql!("analyze"))).await;
    done.map(drop).map_err(|error| {
        let error = database.address().error(&error);
        error
            .with_kind(ErrorKind::Database)
            .context("the tables could not be analyzed")
    })
}

async fn close(session: PgConnection) {
    // The server ends with the rehearsal; a session that cannot say goodbye harms nothing.
    let _ = session.close().await;
}
