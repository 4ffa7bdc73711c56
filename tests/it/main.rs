//! Tests against the library and the command as their users see them.

// What stands outside a `#[test]` function here is test code too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod audit;
mod baseline;
mod bench;
mod ceiling;
mod check;
mod db;
mod definitions;
mod engine;
mod engines;
mod evidence;
mod exit_codes;
mod explain;
mod fragmentation;
mod kinds;
mod limit;
mod lint;
#[cfg(target_os = "linux")]
mod memory;
mod migrate;
mod naming;
mod parity;
mod platform;
mod project;
mod properties;
mod readiness;
mod record;
mod rehearse;
mod relations;
mod repairs;
mod replay;
mod reports;
mod sampling;
mod scenario_copy;
mod select;
mod settings;
mod stop;
mod support;
mod targets;
mod tidy;
