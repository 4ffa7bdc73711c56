//! Migrations: what a folder holds, applying it, and the proof that it can be taken back.
//!
//! ```text
//! folder ──> History ──> Replay ──> findings
//!            (Script)    (Shape and Contents before and after every step)
//! ```
//!
//! - [`Script`] splits any SQL file into statements, the way `psql` would; it knows no connection.
//! - [`History`] is a checked folder: every mistake in it is reported, not the first.
//! - [`Replayer`] applies migrations; [`Replayer::prove`] runs them up, down and up again and
//!   compares what the database looks like ([`Shape`]) and what it holds ([`Contents`]) with what
//!   was there before that very migration.
//!
//! A wrong down is a [`Finding`], a value; only what could not be executed is an error.
//! Nothing here creates or drops databases: the caller hands over a connection to a database that
//! may be written to.

mod catalog;
mod contents;
mod history;
mod prove;
mod replay;
mod script;
mod shape;

pub use contents::{Contents, ContentsDifference, SequenceState, TableContents};
pub(crate) use history::ups_of;
pub use history::{History, Migration};
pub use prove::{Finding, Problem, Replay};
pub use replay::{Direction, LockMode, Options, Pass, Progress, Replayer, Step, TableLock};
pub(crate) use script::sql_files;
pub use script::{Script, Statement};
pub use shape::{Change, Difference, Object, Shape};
