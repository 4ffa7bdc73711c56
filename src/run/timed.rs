//! Runs a statement for its time: the only part of a run that knows a clock.

use crate::gate::Runs;
use crate::pg::{Failure, Session};
use crate::sql::Sql;

/// The times of the measured runs, the rows of the last, and the plan, as a timed measure is answered.
pub async fn measure(
    session: &mut Session,
    statement: &Sql,
    runs: Runs,
) -> Result<Vec<Option<String>>, Failure> {
    session.plan_as_elsewhere(true).await?;
    let measured = samples(session, statement, runs).await?;
    session.plan_as_elsewhere(false).await?;
    Ok(measured)
}

async fn samples(
    session: &mut Session,
    statement: &Sql,
    runs: Runs,
) -> Result<Vec<Option<String>>, Failure> {
    let plan = session.explain(statement).await?;
    for _ in 0..runs.warmup {
        session.timed(statement).await?;
    }
    let (mut samples, mut rows) = (Vec::new(), None);
    for _ in 0..runs.measured {
        let (duration, returned) = session.timed(statement).await?;
        samples.push(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        rows = Some(returned);
    }
    Ok(vec![
        Some(serde_json::json!(samples).to_string()),
        rows.map(|rows| rows.to_string()),
        Some(plan.to_string()),
    ])
}
