//! Tests against the library and the command as their users see them.

// What stands outside a `#[test]` function here is test code too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bench;
mod check;
mod engines;
mod exit_codes;
mod kinds;
mod fragmentation;
mod migrate;
mod platform;
mod project;
mod readiness;
mod record;
mod properties;
mod rehearse;
mod replay;
mod reports;
mod select;
mod settings;
mod stop;
mod scenario_copy;
mod support;
mod targets;
mod tidy;
