//! What a run costs before and after the database: 1,000 gates over 200 tables are parsed, planned,
//! judged and reported, without a connection.
//!
//! `cargo bench`; one part by its name: `cargo bench -- plan`.

// Nothing here is seen by a user of the library.
#![allow(missing_docs, clippy::unwrap_used)]

mod judge;
mod parse;
mod plan;
mod render;
mod suite;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Enough to see a change of a tenth, and over in seconds.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = pipeline;
    config = quick();
    targets = parse::bench, plan::bench, judge::bench, render::bench
}
criterion_main!(pipeline);
