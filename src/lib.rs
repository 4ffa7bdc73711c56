//! Postern: a test-and-validation harness for PostgreSQL with data-quality gates.
//!
//! ```text
//! gates/*.toml, *.sql ──> source ──> gate ──> plan ──> run ──> report
//!  (text with spans)      parse      typed    SQL,     sessions, renderings
//!                                    ask/judge fused   outcomes
//!                  pg: throwaway servers, read-only sessions
//!                  scenario: legacy + migrations + operation + gates + workload, rehearsed
//! ```

pub mod audit;
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

/// The Rust of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
