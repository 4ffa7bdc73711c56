//! Failures that the baseline accepts: told, and they do not block.

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Serialize;

use crate::gate::baseline::{Acceptance, Standing};
use crate::gate::threshold::{count, rows_of};
use crate::run::State;
use crate::source::Place;

use super::GateReport;

/// The acceptance of a gate's failure.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AcceptedReport {
    /// Up to how many offending rows.
    pub rows: u64,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds, as 2026-12-31; null where there is none.
    pub until: Option<String>,
    /// What it comes to.
    pub standing: Standing,
    /// Where it is written.
    pub defined_at: Place,
}

impl AcceptedReport {
    /// `up to 37 rows until 2026-12-31 by the data team: no game yet (postern.baseline.toml:3)`.
    pub fn sentence(&self) -> String {
        let until = until(self.until.as_deref());
        let rows = rows_of(self.rows, "row");
        format!(
            "up to {rows}{until} by {}: {} ({})",
            self.owner, self.reason, self.defined_at
        )
    }
}

fn until(day: Option<&str>) -> String {
    day.map_or_else(String::new, |day| format!(" until {day}"))
}

/// Holds a gate against its acceptance.
pub(super) fn apply(
    acceptance: &Acceptance,
    day: Option<Date>,
    gate: &mut GateReport,
    mask: &dyn Fn(&str) -> String,
) {
    let standing = match gate.outcome {
        State::Passed | State::Warned | State::Skipped => Standing::Unneeded,
        State::Failed => acceptance.standing(gate.rows_acceptable, day),
        State::Errored => Standing::Inapplicable,
    };
    let accepted = AcceptedReport {
        rows: acceptance.rows,
        reason: mask(&acceptance.reason),
        owner: mask(&acceptance.owner),
        until: acceptance.until.map(|day| day.to_string()),
        standing,
        defined_at: acceptance.place.clone(),
    };
    let rows = count(accepted.rows);
    let until = until(accepted.until.as_deref());
    let note = match (standing, gate.outcome) {
        (Standing::Holds, _) => format!("{rows} accepted{until}, reason: {}", accepted.reason),
        (Standing::Exceeded, _) => format!("{rows} accepted{until}"),
        (Standing::Expired, _) => format!("{rows} were accepted{until}, which has expired"),
        (Standing::Inapplicable, State::Failed) => {
            format!("{rows} accepted{until}, but this is more than rows that were counted")
        }
        (Standing::Inapplicable | Standing::Unneeded, _) => String::new(),
    };
    if !note.is_empty() {
        gate.message = format!("{}; {note}", gate.message);
    }
    if standing == Standing::Holds {
        gate.outcome = State::Warned;
    }
    gate.accepted = Some(accepted);
}
