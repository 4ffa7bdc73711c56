//! Running a workload: the only part of a benchmark that knows a clock and a connection.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::{Executor, PgConnection};

use super::samples::Samples;
use super::workload::Workload;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::sql;
use crate::sql::Sql;

/// Runs a workload in a read-only transaction: EXPLAIN, so that a wrong query is known before it
/// takes its time; the warm-up; the measured runs; once more for its plan.
///
/// A run is measured until its last row has arrived. The connection must not be in a transaction,
/// and is in none afterwards.
pub async fn measure(
    connection: &mut PgConnection,
    address: &Address,
    workload: &Workload,
) -> Result<Samples> {
    let begin = sql!("begin transaction read only");
    connection
        .execute(sqlx::raw_sql(begin))
        .await
        .map_err(|error| address.error(&error))?;
    let samples = run(connection, address, workload).await;
    // It only read: taking it back loses nothing, and works after an error too.
    let ended = connection.execute(sqlx::raw_sql(sql!("rollback"))).await;
    let samples = samples?;
    ended.map_err(|error| address.error(&error))?;
    Ok(samples)
}

async fn run(
    connection: &mut PgConnection,
    address: &Address,
    workload: &Workload,
) -> Result<Samples> {
    let query = workload.query().to_sql();
    let failed = |error: sqlx::Error| describe(&error, address, workload);
    connection
        .execute(sqlx::raw_sql(sql!("explain {}", workload.query())))
        .await
        .map_err(|error| describe_shifted(&error, address, workload, "explain ".len()))?;
    for _ in 0..workload.warmup {
        timed(connection, &query).await.map_err(failed)?;
    }
    let mut durations = Vec::new();
    let mut rows = 0;
    for _ in 0..workload.runs {
        let (duration, returned) = timed(connection, &query).await.map_err(failed)?;
        durations.push(duration);
        rows = returned;
    }
    let plan = plan(connection, workload).await.map_err(failed)?;
    let mut samples = Samples::new(durations, rows).ok_or_else(|| {
        let message = format!("workload {} measures no run", workload.id);
        Error::new(ErrorKind::Definition, message)
    })?;
    samples.plan = Some(plan);
    Ok(samples)
}

/// One run: how long until the last row arrived, and how many there were.
async fn timed(connection: &mut PgConnection, query: &Sql) -> Result<(Duration, u64), sqlx::Error> {
    let mut rows = 0;
    let begun = Instant::now();
    let mut stream = sqlx::raw_sql(query).fetch(connection);
    while stream.try_next().await?.is_some() {
        rows += 1;
    }
    Ok((begun.elapsed(), rows))
}

async fn plan(
    connection: &mut PgConnection,
    workload: &Workload,
) -> Result<serde_json::Value, sqlx::Error> {
    let explain = sql!(
        "explain (analyze, buffers, format json) {}",
        workload.query()
    );
    // As text, because the driver's own JSON support is not built in.
    let row = sqlx::raw_sql(explain).fetch_one(connection).await?;
    let text: &str = sqlx::Row::try_get_raw(&row, 0)?
        .as_str()
        .map_err(sqlx::Error::Decode)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn describe(error: &sqlx::Error, address: &Address, workload: &Workload) -> Error {
    describe_shifted(error, address, workload, 0)
}

/// The error with its place in the workload's file; `shift` characters stood before the query.
fn describe_shifted(
    error: &sqlx::Error,
    address: &Address,
    workload: &Workload,
    shift: usize,
) -> Error {
    let position = crate::pg::error_position(error).and_then(|at| at.checked_sub(shift));
    let (span, label) = workload.script().place(workload.statement(), position);
    address
        .error(error)
        .context(format!("workload {} cannot be run", workload.id))
        .at(workload.script().excerpt(span, label))
        .with_sql(address.mask(workload.query().as_str()))
}
