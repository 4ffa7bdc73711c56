//! Scenarios: fixture folders that can be rehearsed end to end.
//!
//! ```text
//! scenario.toml      what it is, which gates, settings, what the legacy database must fail
//! legacy/*.sql       the database as it was, schema and data, in the order of the names
//! migrations/        NNN_name.up.sql, NNN_name.down.sql
//! operation/*.sql    what the running system does then: pipelines, health checks
//! workload/*.sql     queries with a budget, run on the migrated database
//! ```
//!
//! - [`Scenario::load`] reads a folder and reports every mistake in it.
//! - [`rehearse`] makes a throwaway server and does it all: legacy, gates, migrations up, down and
//!   up, operation, gates again, workload. What it found is a value, [`Rehearsal`].

mod load;
mod rehearse;

pub use load::{RollbackCriteria, Scenario};
pub use rehearse::{BEFORE, Baseline, Options, Phase, Rehearsal, Watch, WorkloadRun, rehearse};
