//! Benchmarks: queries with a budget, their samples, and the verdict.
//!
//! - [`Workload`] is a file: one query, its budget and how often it is run.
//! - [`measure`] runs it; nothing else here knows a clock or a connection.
//! - [`Samples::judge`] says what the samples mean. A query that returned no row has proved
//!   nothing, and fails whatever its speed.

mod measure;
mod samples;
mod workload;

pub use measure::measure;
pub use samples::{Samples, Verdict};
pub use workload::Workload;
