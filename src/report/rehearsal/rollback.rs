//! Whether the migrated database would have to be given up again.
//!
//! Four criteria, each met, not met, or not measured: performance degraded, a workload failed, data
//! corrupted, the system unstable. One that is met suffices.

use schemars::JsonSchema;
use serde::Serialize;

use crate::gate::threshold::rows_of;
use crate::run::State;

use super::RehearsalReport;

/// Whether the migrated database would have to be given up again.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RollbackReport {
    /// `keep`, or `roll back` when any criterion is met.
    pub verdict: &'static str,
    /// The criteria.
    pub criteria: Vec<Criterion>,
}

/// One reason for giving the migrated database up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Criterion {
    /// What it is about.
    pub name: &'static str,
    /// Whether it is met, which is bad; null when nothing was measured.
    pub is_met: Option<bool>,
    /// One sentence.
    pub detail: String,
}

impl Criterion {
    fn new(name: &'static str, met: &[String], otherwise: String) -> Self {
        Self {
            name,
            is_met: Some(!met.is_empty()),
            detail: if met.is_empty() {
                otherwise
            } else {
                met.join("; ")
            },
        }
    }
}

/// The name of the criterion that workloads decide by their baselines.
pub(super) const DEGRADED: &str = "performance degraded";

/// Judges the criteria on what the report holds already.
pub(super) fn judge(report: &RehearsalReport) -> RollbackReport {
    let criteria = vec![
        degradation(report),
        failing_workloads(report),
        corruption(report),
        instability(report),
    ];
    let is_met = criteria.iter().any(|one| one.is_met == Some(true));
    RollbackReport {
        verdict: if is_met { "roll back" } else { "keep" },
        criteria,
    }
}

fn degradation(report: &RehearsalReport) -> Criterion {
    let most = report.slower_than_percent;
    let compared: Vec<(&str, f64)> = report
        .workloads
        .iter()
        .filter_map(|workload| {
            let faster = workload.baseline.as_ref()?.faster_by_percent?;
            Some((workload.id.as_str(), faster))
        })
        .collect();
    let name = DEGRADED;
    if compared.is_empty() {
        return Criterion {
            name,
            is_met: None,
            detail: "no workload has a baseline that could be measured".to_owned(),
        };
    }
    let slower: Vec<String> = compared
        .iter()
        .filter(|(_, faster)| -faster > most)
        .map(|(id, faster)| format!("{id} is {:.1}% slower", -faster))
        .collect();
    let held = compared
        .iter()
        .map(|(id, faster)| format!("{id} is {}", pace(*faster)));
    let held: Vec<String> = held.collect();
    Criterion::new(name, &slower, held.join("; "))
}

/// `72.1% faster`, `3.0% slower`.
pub(super) fn pace(faster_by_percent: f64) -> String {
    if faster_by_percent < 0.0 {
        format!("{:.1}% slower", -faster_by_percent)
    } else {
        format!("{faster_by_percent:.1}% faster")
    }
}

fn failing_workloads(report: &RehearsalReport) -> Criterion {
    let name = "a workload failed";
    if report.workloads.is_empty() {
        return Criterion {
            name,
            is_met: None,
            detail: "no workload was run".to_owned(),
        };
    }
    let failing: Vec<String> = report
        .workloads
        .iter()
        .filter(|workload| !workload.is_within)
        .map(|workload| format!("{}: {}", workload.id, workload.message))
        .collect();
    let all = format!(
        "{} within budget",
        rows_of(report.workloads.len() as u64, "workload")
    );
    Criterion::new(name, &failing, all)
}

fn corruption(report: &RehearsalReport) -> Criterion {
    let mut met: Vec<String> = report
        .migrations
        .findings
        .iter()
        .map(|finding| {
            finding
                .message
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    for (before, after) in report.before.gates.iter().zip(&report.after.gates) {
        let held = matches!(before.outcome, State::Passed | State::Warned);
        if held && after.outcome == State::Failed {
            met.push(format!("gate {} held before and fails after", after.id));
        }
    }
    let held = "no gate that held before fails after; what was taken back was restored";
    Criterion::new("data corrupted", &met, held.to_owned())
}

fn instability(report: &RehearsalReport) -> Criterion {
    let mut met = report.unstable.clone();
    if let Some(stopped) = &report.migrations.stopped {
        met.push(stopped.message.clone());
    }
    if let Some(stopped) = &report.operation_stopped {
        met.push(stopped.message.clone());
    }
    met.extend(
        report
            .after
            .gates
            .iter()
            .filter(|gate| gate.outcome == State::Errored)
            .map(|gate| format!("gate {} could not be checked", gate.id)),
    );
    let held = "every script ran, and every gate said the same when it was asked again";
    Criterion::new("unstable", &met, held.to_owned())
}
