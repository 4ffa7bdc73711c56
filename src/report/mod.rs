//! Step 5: one [`Report`] value, and renderings that are pure functions of it.

mod accepted;
pub mod audit;
#[cfg(feature = "cli")]
pub mod baseline;
pub mod explain;
#[cfg(feature = "cli")]
pub mod format;
#[cfg(feature = "cli")]
pub mod github;
pub mod json_v1;
#[cfg(feature = "cli")]
pub mod junit;
#[cfg(feature = "cli")]
pub mod markdown;
pub mod openmetrics;
mod readiness;
pub mod rehearsal;
#[cfg(feature = "cli")]
pub mod sarif;
pub mod stored;
#[cfg(feature = "cli")]
pub mod terminal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::baseline::{Baseline, Standing};
use crate::gate::readiness::Readiness;
use crate::gate::threshold::Bounds;
use crate::gate::{Figure, Finding, Gate, Severity};
use crate::pg::{Address, Snapshot};
use crate::run::{Findings, OffendingRow, Outcome, State};
use crate::source::Place;

pub use accepted::AcceptedReport;
pub use readiness::{IssueReport, ReadinessReport};

/// Everything a run has to say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The version of this format: 1.
    pub version: u32,
    /// What the run comes down to.
    pub summary: Summary,
    /// The database that was checked, without its password.
    pub target: String,
    /// The selection that left out other gates of the suites; null when all were taken.
    pub selection: Option<String>,
    /// The one moment that every gate read; null when the target was never reached.
    pub snapshot: Option<Snapshot>,
    /// Whether the whole is ready; null where no suite says what it takes, and where gates were left out.
    pub readiness: Option<ReadinessReport>,
    /// Every gate, in the order of definition.
    pub gates: Vec<GateReport>,
}

/// What a run comes down to.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Summary {
    /// 0 passed, 1 a blocking gate failed, 3 something could not be checked.
    pub exit_code: u8,
    /// How many gates there are.
    pub total: usize,
    /// How many hold.
    pub passed: usize,
    /// How many hold but are beyond their warning level, or failed without blocking.
    pub warned: usize,
    /// How many of the warned ones do not hold, and that is accepted.
    pub accepted: usize,
    /// How many do not hold.
    pub failed: usize,
    /// How many had nothing to look at.
    pub skipped: usize,
    /// How many could not be evaluated.
    pub errored: usize,
    /// How many gates of the suites were not selected, and so are not in the total.
    pub left_out: usize,
}

/// One gate in the report.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GateReport {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The suite it stands in.
    pub suite: String,
    /// Whether a failure blocks.
    pub severity: Severity,
    /// What became of it.
    pub outcome: State,
    /// How many rows it looked at; null where that was not counted.
    pub rows_checked: Option<u64>,
    /// How many of them offend; null where the gate is not about rows.
    pub rows_offending: Option<u64>,
    /// The figure that the threshold is about.
    pub measured: Option<Figure>,
    /// What the figure was held against.
    pub threshold: Option<Bounds>,
    /// The constraint or index that proves it, where no row was looked at; null otherwise.
    pub proof: Option<String>,
    /// One sentence.
    pub message: String,
    /// The SQL that shows every offending row, or that failed.
    pub sql: Option<String>,
    /// The acceptance of its failure in the baseline, whether it holds or not; null where there is none.
    pub accepted: Option<AcceptedReport>,
    /// Where it is defined.
    pub defined_at: Place,
    /// The SQLSTATE of an errored gate, where Postgres gave one.
    pub sqlstate: Option<String>,
    /// What to do next, where anything is known.
    pub help: Option<String>,
    /// Why the rule exists.
    pub why: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Offending rows by key, up to the gate's limit.
    pub rows: Vec<OffendingRow>,
    /// What was found beside rows.
    pub findings: Vec<Finding>,
    /// The error as a person reads it; not part of the JSON.
    #[serde(skip)]
    pub rendered_error: Option<String>,
    /// How many rows its failure comes to, where it comes to nothing else; not part of the JSON.
    #[serde(skip)]
    pub rows_acceptable: Option<u64>,
}

impl GateReport {
    /// Whether it failed, and that is accepted.
    pub fn is_accepted(&self) -> bool {
        let found = self.accepted.as_ref();
        found.is_some_and(|found| found.standing == Standing::Holds)
    }
}

/// Which failures decide the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailOn {
    /// Only failures of blocking gates.
    #[default]
    Block,
    /// Every failure and every warning.
    Warn,
}

/// The JSON schema of what `check` and `rehearse` write as JSON, version 1.
pub fn schema() -> serde_json::Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let any = [
        generator.subschema_for::<Report>(),
        generator.subschema_for::<rehearsal::RehearsalReport>(),
    ];
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A report of Postern, version 1: of `check`, or of `rehearse`",
        "anyOf": any,
        "$defs": generator.take_definitions(true),
    })
}

impl Report {
    /// Folds a run into a report. Every text is masked once more against the target's secrets.
    pub fn new(gates: &[Gate], findings: Findings, target: &Address, fail_on: FailOn) -> Self {
        let mask = |text: &str| target.mask(text);
        let reports: Vec<GateReport> = gates
            .iter()
            .zip(findings.outcomes)
            .map(|(gate, outcome)| gate_report(gate, outcome, &mask))
            .collect();
        Self {
            version: 1,
            summary: summary(&reports, fail_on),
            selection: None,
            target: target.to_string(),
            snapshot: findings.snapshot,
            readiness: None,
            gates: reports,
        }
    }

    /// Holds failures against what is accepted, by the day of the snapshot; to be called before
    /// [`Report::judged`].
    #[must_use]
    pub fn accepting(mut self, baseline: &Baseline, target: &Address, fail_on: FailOn) -> Self {
        let day = self.snapshot.as_ref().and_then(Snapshot::day);
        for gate in &mut self.gates {
            if let Some(acceptance) = baseline.of(&gate.id) {
                accepted::apply(acceptance, day, gate, &|text| target.mask(text));
            }
        }
        self.summary = summary(&self.gates, fail_on);
        self
    }

    /// Adds whether the whole is ready; what is not fails the run.
    #[must_use]
    pub fn judged(mut self, wanted: Option<&Readiness>) -> Self {
        self.readiness = wanted.map(|wanted| readiness::judge(wanted, &self.gates));
        if self.readiness.as_ref().is_some_and(|found| !found.is_ready) {
            self.summary.exit_code = self.summary.exit_code.max(1);
        }
        self
    }
}

fn summary(gates: &[GateReport], fail_on: FailOn) -> Summary {
    let count = |state: State| gates.iter().filter(|gate| gate.outcome == state).count();
    let blocks = |gate: &GateReport| match fail_on {
        FailOn::Block => gate.outcome == State::Failed && gate.severity == Severity::Block,
        FailOn::Warn => {
            matches!(gate.outcome, State::Failed | State::Warned) && !gate.is_accepted()
        }
    };
    let exit_code = if count(State::Errored) > 0 {
        3
    } else {
        u8::from(gates.iter().any(blocks))
    };
    Summary {
        exit_code,
        total: gates.len(),
        passed: count(State::Passed),
        warned: count(State::Warned),
        accepted: gates.iter().filter(|gate| gate.is_accepted()).count(),
        failed: count(State::Failed),
        skipped: count(State::Skipped),
        errored: count(State::Errored),
        left_out: 0,
    }
}

fn gate_report(gate: &Gate, outcome: Outcome, mask: &dyn Fn(&str) -> String) -> GateReport {
    let mut report = GateReport {
        id: gate.id.clone(),
        kind: gate.kind.to_owned(),
        suite: gate.suite.clone(),
        severity: gate.severity,
        outcome: outcome.state(),
        rows_checked: None,
        rows_offending: None,
        measured: None,
        threshold: None,
        proof: None,
        message: String::new(),
        sql: None,
        accepted: None,
        defined_at: gate.place.clone(),
        sqlstate: None,
        help: None,
        why: gate.why.clone(),
        owner: gate.owner.clone(),
        tags: gate.tags.clone(),
        rows: Vec::new(),
        findings: Vec::new(),
        rendered_error: None,
        rows_acceptable: None,
    };
    match outcome {
        Outcome::Errored(error) => {
            report.message = mask(error.message());
            report.sqlstate = error.sqlstate().map(str::to_owned);
            report.sql = error.sql().map(mask);
            report.help = error.help_text().map(mask);
            report.rendered_error = Some(mask(&error.render(false)));
        }
        Outcome::Judged {
            judgement,
            rows,
            sql,
            rows_acceptable,
            proof,
            ..
        } => {
            report.rows_acceptable = rows_acceptable;
            report.proof = proof;
            report.rows_checked = judgement.rows_checked;
            report.rows_offending = judgement.rows_offending;
            report.measured = Some(judgement.measured);
            report.threshold = Some(judgement.threshold);
            report.message = match judgement.verdict {
                crate::gate::Verdict::Empty => format!("nothing to look at: {}", judgement.message),
                _ => judgement.message,
            };
            report.sql = sql.as_deref().map(mask);
            report.rows = rows;
            report.findings = judgement.findings;
        }
    }
    report
}
