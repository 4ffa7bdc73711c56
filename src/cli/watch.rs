//! Progress on stderr: a line that moves on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::migrate::{Migration, Pass, Progress, Statement};
use crate::scenario::{Phase, Watch};

/// Shows what is being done; gone when dropped.
pub(super) struct Watched {
    bar: ProgressBar,
    phase: String,
}

impl Watched {
    /// indicatif draws on stderr, and only where it is a terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}");
        bar.set_style(style.expect("the template is one of indicatif's own examples"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            phase: String::new(),
        }
    }
}

impl Progress for Watched {
    fn started(&mut self, migration: &Migration, pass: Pass) {
        self.phase = format!("{} {}", direction(pass), migration.id);
        self.bar.set_message(self.phase.clone());
    }

    fn statement(&mut self, _statement: &Statement, number: usize, of: usize) {
        self.bar
            .set_message(format!("{}: statement {number} of {of}", self.phase));
    }

    fn comparing(&mut self, migration: &Migration, pass: Pass) {
        let message = format!("{} {}: comparing", direction(pass), migration.id);
        self.bar.set_message(message);
    }
}

impl Watch for Watched {
    fn phase(&mut self, phase: &Phase) {
        self.phase = phase.to_string();
        self.bar.set_message(self.phase.clone());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The word for a pass.
pub(super) fn direction(pass: Pass) -> &'static str {
    match pass {
        Pass::First => "up",
        Pass::Back => "down",
        Pass::Again => "up again",
    }
}
