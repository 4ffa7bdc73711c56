//! Whether the whole is ready: every critical issue resolved, enough of the success metrics met.

use schemars::JsonSchema;
use serde::Serialize;

use crate::gate::readiness::Readiness;
use crate::run::State;

use super::GateReport;

/// Whether the whole is ready.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ReadinessReport {
    /// Whether every critical issue is resolved and enough metrics are met.
    pub is_ready: bool,
    /// The critical issues.
    pub critical: Vec<IssueReport>,
    /// How many success metrics there are.
    pub metrics_total: u64,
    /// How many of them are met.
    pub metrics_met: u64,
    /// How many must be, as it is written.
    pub metrics_at_least: String,
    /// The gates of metrics that are not met.
    pub metrics_open: Vec<String>,
}

/// One critical issue.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IssueReport {
    /// Its tag.
    pub tag: String,
    /// How many gates have it.
    pub gates: u64,
    /// Those of them that do not hold; the issue is resolved when there is none.
    pub open: Vec<String>,
}

/// What was skipped looked at nothing, so it holds nothing; a failure that is accepted is still one.
fn holds(gate: &GateReport) -> bool {
    matches!(gate.outcome, State::Passed | State::Warned) && !gate.is_accepted()
}

fn ids<'a>(gates: impl Iterator<Item = &'a GateReport>) -> Vec<String> {
    gates.map(|gate| gate.id.clone()).collect()
}

/// Judges on the gates of a report.
pub(super) fn judge(readiness: &Readiness, gates: &[GateReport]) -> ReadinessReport {
    let fields = &readiness.fields;
    let critical: Vec<IssueReport> = fields
        .critical
        .iter()
        .map(|tag| {
            let of_issue = || gates.iter().filter(|gate| gate.tags.contains(tag));
            IssueReport {
                tag: tag.clone(),
                gates: of_issue().count() as u64,
                open: ids(of_issue().filter(|gate| !holds(gate))),
            }
        })
        .collect();
    let is_metric = |gate: &&GateReport| gate.tags.iter().any(|tag| fields.metrics.contains(tag));
    let metrics_total = gates.iter().filter(is_metric).count() as u64;
    let metrics_open = ids(gates.iter().filter(is_metric).filter(|gate| !holds(gate)));
    let metrics_met = metrics_total - metrics_open.len() as u64;
    let is_resolved = |issue: &IssueReport| issue.gates > 0 && issue.open.is_empty();
    ReadinessReport {
        is_ready: critical.iter().all(is_resolved)
            && fields.at_least.is_reached(metrics_met, metrics_total),
        critical,
        metrics_total,
        metrics_met,
        metrics_at_least: fields.at_least.to_string(),
        metrics_open,
    }
}

impl ReadinessReport {
    /// `ready: 5 of 5 critical issues resolved, 12 of 12 metrics met (95% needed)`.
    pub fn sentence(&self) -> String {
        let resolved = self
            .critical
            .iter()
            .filter(|issue| issue.open.is_empty())
            .count();
        let mut sentence = format!(
            "{}: {resolved} of {} critical issues resolved, {} of {} metrics met ({} needed)",
            if self.is_ready { "ready" } else { "not ready" },
            self.critical.len(),
            self.metrics_met,
            self.metrics_total,
            self.metrics_at_least
        );
        let open: Vec<&str> = self
            .critical
            .iter()
            .filter(|issue| !issue.open.is_empty())
            .map(|issue| issue.tag.as_str())
            .collect();
        if !open.is_empty() {
            sentence.push_str(&format!("; open: {}", open.join(", ")));
        }
        sentence
    }
}
