//! Tests against the library and the command as their users see them.

// What stands outside a `#[test]` function here is test code too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod audit;
mod baseline;
mod bench;
mod check;
mod db;
mod engine;
mod engines;
mod exit_codes;
mod explain;
mod fragmentation;
mod kinds;
mod lint;
mod migrate;
mod platform;
mod project;
mod properties;
mod readiness;
mod record;
mod rehearse;
mod replay;
mod reports;
mod scenario_copy;
mod select;
mod settings;
mod stop;
mod support;
mod targets;
mod tidy;
