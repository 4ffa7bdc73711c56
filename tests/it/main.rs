//! Tests against the library and the command as their users see them.

// What stands outside a `#[test]` function here is test code too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bench;
mod check;
mod db;
mod engines;
mod migrate;
mod rehearse;
mod replay;
mod support;
mod tidy;
