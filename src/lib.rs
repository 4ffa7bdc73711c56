//! Postern: a test-and-validation harness for PostgreSQL with data-quality gates.

pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod db;
pub mod error;
pub mod gate;
pub mod migrate;
pub mod pg;
pub mod plan;
pub mod report;
pub mod run;
pub mod scenario;
pub mod source;
pub mod sql;

pub use db::{Migrations, TestDb};
pub use error::{Error, ErrorKind, Result};
