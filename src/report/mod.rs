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
use crate::gate::sampling::SampleReport;
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
    /// What is worth knowing beside the gates: that the run started over, that a connection could not be had.
    pub notes: Vec<String>,
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
    /// The constraint or index that proves it, or all that do, where no row was looked at; null otherwise.
    pub proof: Option<String>,
    /// What the sample says, where the gate looked at no more; null otherwise. Its `rows_checked` and
    /// `rows_offending` are those of the sample then.
    pub sample: Option<SampleReport>,
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
    /// How many of those up to the limit are left out, because the report would be too large.
    pub rows_left_out: u64,
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
        let mut reports: Vec<GateReport> = gates
            .iter()
            .zip(findings.outcomes)
            .map(|(gate, outcome)| gate_report(gate, outcome, &mask))
            .collect();
        keep_within(&mut reports, ROWS_BYTES_MAX);
        Self {
            version: 1,
            summary: summary(&reports, fail_on),
            selection: None,
            target: target.to_string(),
            snapshot: findings.snapshot,
            readiness: None,
            notes: findings.notes.iter().map(|note| mask(note)).collect(),
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

/// The offending rows of all gates of a report hold no more text than this.
const ROWS_BYTES_MAX: usize = 1024 * 1024;

/// Leaves out what is more than `bytes` of offending rows, the last gates first.
fn keep_within(gates: &mut [GateReport], mut bytes: usize) {
    for gate in gates {
        let sizes = gate.rows.iter().map(OffendingRow::bytes);
        let kept = sizes
            .scan(bytes, |room, size| {
                *room = room.checked_sub(size)?;
                Some(*room)
            })
            .collect::<Vec<_>>();
        gate.rows_left_out += (gate.rows.len() - kept.len()) as u64;
        // What is full stays full: a later row that is small would stand before a larger one.
        bytes = match (gate.rows.len() > kept.len(), kept.last()) {
            (true, _) => 0,
            (false, last) => last.copied().unwrap_or(bytes),
        };
        gate.rows.truncate(kept.len());
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
        sample: None,
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
        rows_left_out: 0,
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
            rows_left_out,
            rows_acceptable,
            proof,
            sample,
            ..
        } => {
            report.help = sample.as_ref().and_then(|sample| sample.help.clone());
            report.sample = sample.map(|sample| *sample);
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
            report.rows_left_out = rows_left_out;
            report.findings = judgement.findings;
            for repair in report
                .findings
                .iter_mut()
                .filter_map(|one| one.repair.as_mut())
            {
                *repair = mask(repair);
            }
        }
    }
    report
}
