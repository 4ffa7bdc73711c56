//! The report of a rehearsal: gates before and after, what the migrations did, the workloads.

#[cfg(feature = "cli")]
pub mod junit;
mod rollback;
#[cfg(feature = "cli")]
pub mod terminal;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::{Verdict, Workload};
use crate::error::Error;
use crate::migrate::{Finding, Pass, Replay, Step};
use crate::pg::Address;
use crate::run::{Findings, Outcome, State};
use crate::scenario::{Baseline, Rehearsal, Scenario, WorkloadRun};

use super::{FailOn, Report};

pub use rollback::{Criterion, RollbackReport};

/// Everything a rehearsal has to say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RehearsalReport {
    /// The version of this format: 1.
    pub version: u32,
    /// 0: all is well. 1: a gate failed on the migrated database, a down does not restore, a budget
    /// was not kept, or the legacy database is not what the scenario says. 3: something could not
    /// be executed or checked.
    pub exit_code: u8,
    /// Why the exit code is not 0, a sentence each; empty when all is well.
    pub reasons: Vec<String>,
    /// The scenario's name.
    pub scenario: String,
    /// What it is.
    pub description: String,
    /// The throwaway server.
    pub server: String,
    /// How long the legacy database took to make, in milliseconds.
    pub legacy_ms: u64,
    /// The gates on the legacy database.
    pub before: Report,
    /// Gates that the legacy database did not answer as the scenario says.
    pub unexpected: Vec<Unexpected>,
    /// The migrations.
    pub migrations: MigrationsReport,
    /// Why the scripts of the running system were not all run.
    pub operation_stopped: Option<Stopped>,
    /// The gates on the migrated database, or on what a stopped migration left.
    pub after: Report,
    /// The queries with a budget; empty when a migration was stopped.
    pub workloads: Vec<WorkloadReport>,
    /// Gates that said something else when they were asked of the same database again, a sentence each.
    pub unstable: Vec<String>,
    /// By how many percent a workload may be slower than its baseline.
    pub slower_than_percent: f64,
    /// Whether the migrated database would have to be given up again.
    pub rollback: RollbackReport,
}

/// A gate that the legacy database did not answer as the scenario says.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Unexpected {
    /// The gate's id.
    pub gate: String,
    /// What the scenario says.
    pub expected: State,
    /// What became of it.
    pub outcome: State,
}

/// What became of the migrations.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationsReport {
    /// Whether every one was executed, and every down restored what was there before its up.
    pub is_proven: bool,
    /// Every migration run, in the order they were.
    pub steps: Vec<StepReport>,
    /// What is wrong with downs and second ups.
    pub findings: Vec<FindingReport>,
    /// Why the proof ended early.
    pub stopped: Option<Stopped>,
}

/// One migration, brought about or taken back.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StepReport {
    /// Its number and name.
    pub migration: String,
    /// `up`, `down` or `up again`.
    pub pass: &'static str,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How many statements it has.
    pub statements: usize,
    /// By how many rows tables grew, those that shrank not counted.
    pub rows_added: u64,
    /// By how many rows tables shrank.
    pub rows_removed: u64,
    /// The strongest lock that it held on a table that was there before, and on which.
    pub strongest_lock: Option<String>,
}

/// Something wrong with a migration.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FindingReport {
    /// Its number and name.
    pub migration: String,
    /// The file to look into.
    pub file: String,
    /// What is wrong, a line per difference.
    pub message: String,
}

/// A migration that could not be executed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Stopped {
    /// One sentence.
    pub message: String,
    /// Where Postgres gave one.
    pub sqlstate: Option<String>,
    /// File and line.
    pub at: Option<String>,
    /// The error as a person reads it.
    pub rendered: String,
}

/// One query with a budget.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WorkloadReport {
    /// Its id.
    pub id: String,
    /// Whether it returned rows, kept its budget, and is as much faster than its baseline as it must be.
    pub is_passed: bool,
    /// Whether it returned rows and kept its budget.
    pub is_within: bool,
    /// One sentence.
    pub message: String,
    /// Which percentile is held to the budget.
    pub percentile: u8,
    /// The budget in milliseconds.
    pub budget_ms: f64,
    /// The percentile in milliseconds; null when it could not be run.
    pub measured_ms: Option<f64>,
    /// The median in milliseconds; null when it could not be run.
    pub median_ms: Option<f64>,
    /// What it is compared with.
    pub baseline: Option<BaselineReport>,
    /// Every run in milliseconds, ascending.
    pub runs_ms: Vec<f64>,
    /// How many rows the last run returned.
    pub rows: Option<u64>,
    /// Why it matters.
    pub why: Option<String>,
    /// Why it could not be run, as a person reads it.
    pub error: Option<String>,
}

/// A query on the database as it was before a migration, measured in the same run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BaselineReport {
    /// The migration.
    pub before: String,
    /// The median in milliseconds; null when it could not be run.
    pub median_ms: Option<f64>,
    /// By how many percent the median is shorter afterwards; below 0, longer. Null when either could
    /// not be run.
    pub faster_by_percent: Option<f64>,
    /// By how many percent it must be.
    pub required_percent: Option<f64>,
    /// Why it could not be run, as a person reads it.
    pub error: Option<String>,
}

impl RehearsalReport {
    /// Folds a rehearsal into a report.
    pub fn new(scenario: &Scenario, rehearsal: Rehearsal) -> Self {
        let Rehearsal {
            server,
            legacy_duration,
            before_address,
            before,
            replay,
            after_address,
            operation_stopped,
            after,
            workloads,
            after_again,
        } = rehearsal;
        let readiness = scenario.readiness.as_ref();
        let before = Report::new(
            &scenario.gates_before,
            before,
            &before_address,
            FailOn::Block,
        )
        .judged(readiness);
        let unstable = unstable(scenario, &after, &after_again);
        let after = Report::new(&scenario.gates_after, after, &after_address, FailOn::Block)
            .judged(readiness);
        let mut report = Self {
            version: 1,
            exit_code: 0,
            reasons: Vec::new(),
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            server,
            legacy_ms: milliseconds(legacy_duration),
            unexpected: unexpected(scenario, &before),
            before,
            migrations: migrations(&replay, &after_address),
            operation_stopped: operation_stopped.map(|error| stopped(&error, &after_address)),
            after,
            workloads: workloads
                .into_iter()
                .zip(&scenario.workloads)
                .map(|(run, workload)| workload_report(workload, run))
                .collect(),
            unstable,
            slower_than_percent: scenario.rollback.slower_than,
            rollback: RollbackReport {
                verdict: "keep",
                criteria: Vec::new(),
            },
        };
        report.rollback = rollback::judge(&report);
        report.decide();
        report
    }

    /// Sets exit code and reasons. What could not be executed or checked outranks what failed.
    fn decide(&mut self) {
        let mut reasons: Vec<(u8, String)> = Vec::new();
        if let Some(stopped) = &self.migrations.stopped {
            reasons.push((3, stopped.message.clone()));
        }
        if let Some(stopped) = &self.operation_stopped {
            reasons.push((3, stopped.message.clone()));
        }
        for finding in &self.migrations.findings {
            let line = finding.message.lines().next().unwrap_or_default();
            reasons.push((1, line.to_owned()));
        }
        for gate in &self.after.gates {
            let weight = match gate.outcome {
                State::Errored => 3,
                State::Failed if gate.severity == crate::gate::Severity::Block => 1,
                _ => continue,
            };
            let word = gate.outcome.as_str();
            reasons.push((
                weight,
                format!("gate {} {word} after: {}", gate.id, gate.message),
            ));
        }
        if let Some(readiness) = self
            .after
            .readiness
            .as_ref()
            .filter(|found| !found.is_ready)
        {
            reasons.push((1, readiness.sentence()));
        }
        for odd in &self.unexpected {
            let weight = if odd.outcome == State::Errored { 3 } else { 1 };
            let Unexpected {
                gate,
                expected,
                outcome,
            } = odd;
            reasons.push((
                weight,
                format!(
                    "gate {gate} {} before, the scenario says {}",
                    outcome.as_str(),
                    expected.as_str()
                ),
            ));
        }
        for workload in self.workloads.iter().filter(|workload| !workload.is_passed) {
            let baseline = workload.baseline.as_ref();
            let is_unmeasured =
                workload.error.is_some() || baseline.is_some_and(|known| known.error.is_some());
            reasons.push((
                if is_unmeasured { 3 } else { 1 },
                format!("workload {}: {}", workload.id, workload.message),
            ));
        }
        for degraded in self
            .rollback
            .criteria
            .iter()
            .filter(|one| one.name == rollback::DEGRADED && one.is_met == Some(true))
        {
            reasons.push((1, format!("{}: {}", degraded.name, degraded.detail)));
        }
        reasons.extend(self.unstable.iter().map(|said| (1, said.clone())));
        self.exit_code = reasons.iter().map(|(weight, _)| *weight).max().unwrap_or(0);
        self.reasons = reasons.into_iter().map(|(_, reason)| reason).collect();
    }
}

/// The report as indented JSON with a line break at the end.
pub fn json(report: &RehearsalReport) -> String {
    let mut text =
        serde_json::to_string_pretty(report).expect("a report holds only what JSON can hold");
    text.push('\n');
    text
}

fn unexpected(scenario: &Scenario, before: &Report) -> Vec<Unexpected> {
    let Some(expected) = &scenario.expected_before else {
        return Vec::new();
    };
    let differing = before.gates.iter().filter_map(|gate| {
        let expected = *expected.get(&gate.id).unwrap_or(&State::Passed);
        (gate.outcome != expected).then(|| Unexpected {
            gate: gate.id.clone(),
            expected,
            outcome: gate.outcome,
        })
    });
    differing.collect()
}

fn migrations(replay: &Replay, address: &Address) -> MigrationsReport {
    MigrationsReport {
        is_proven: replay.is_proven(),
        steps: replay.steps.iter().map(step).collect(),
        findings: replay.findings.iter().map(finding).collect(),
        stopped: replay.stopped.as_ref().map(|error| stopped(error, address)),
    }
}

fn step(step: &Step) -> StepReport {
    let by: Vec<i64> = step
        .rows_delta
        .iter()
        .flat_map(|delta| delta.values().copied())
        .collect();
    let total = |keep: fn(&i64) -> bool| {
        by.iter()
            .filter(|n| keep(n))
            .map(|n| n.unsigned_abs())
            .sum()
    };
    let strongest = step
        .locks
        .iter()
        .flatten()
        .filter(|lock| lock.is_preexisting)
        .max_by_key(|lock| lock.mode);
    StepReport {
        migration: step.id.clone(),
        pass: match step.pass {
            Pass::First => "up",
            Pass::Back => "down",
            Pass::Again => "up again",
        },
        duration_ms: milliseconds(step.duration),
        statements: step.statements,
        rows_added: total(|n| *n > 0),
        rows_removed: total(|n| *n < 0),
        strongest_lock: strongest.map(|lock| format!("{} on {}", lock.mode, lock.table)),
    }
}

fn finding(finding: &Finding) -> FindingReport {
    FindingReport {
        migration: finding.id.clone(),
        file: finding.file.display().to_string(),
        message: finding.to_string(),
    }
}

fn stopped(error: &Error, address: &Address) -> Stopped {
    Stopped {
        message: address.mask(error.message()),
        sqlstate: error.sqlstate().map(str::to_owned),
        at: error
            .excerpts()
            .first()
            .map(|excerpt| format!("{}:{}", excerpt.file.display(), excerpt.line_column().0)),
        rendered: address.mask(&error.render(false)),
    }
}

/// Gates that were asked twice and did not say the same: outcome and number of offending rows.
fn unstable(scenario: &Scenario, first: &Findings, again: &Findings) -> Vec<String> {
    let said = |findings: &Findings, at: usize| {
        findings.outcomes.get(at).map(|outcome| {
            let rows = match outcome {
                Outcome::Judged { judgement, .. } => judgement.rows_offending,
                Outcome::Errored(_) => None,
            };
            (outcome.state(), rows)
        })
    };
    let gates = scenario.gates_after.iter().enumerate();
    gates
        .filter(|(at, _)| said(first, *at) != said(again, *at))
        .map(|(_, gate)| {
            format!(
                "gate {} said something else when it was asked again",
                gate.id
            )
        })
        .collect()
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn workload_report(workload: &Workload, run: WorkloadRun) -> WorkloadReport {
    let mut report = WorkloadReport {
        id: workload.id.clone(),
        is_passed: false,
        is_within: false,
        message: String::new(),
        percentile: workload.percentile,
        budget_ms: ms(workload.budget),
        measured_ms: None,
        median_ms: None,
        baseline: None,
        runs_ms: Vec::new(),
        rows: None,
        why: workload.why.clone(),
        error: None,
    };
    match run.samples {
        Ok(samples) => {
            let verdict: Verdict = samples.judge(workload);
            report.is_within = verdict.is_passed();
            report.message = verdict.to_string();
            report.measured_ms = Some(ms(samples.percentile(workload.percentile)));
            report.median_ms = Some(ms(samples.median()));
            report.runs_ms = samples.durations().iter().copied().map(ms).collect();
            report.rows = Some(samples.rows);
        }
        Err(error) => {
            report.message = error.message().to_owned();
            report.error = Some(error.render(false));
        }
    }
    report.is_passed = report.is_within;
    if let Some(baseline) = run.baseline {
        compare(&mut report, workload, baseline);
    }
    report
}

/// Adds what the baseline says. A baseline that could not be run proves nothing, so it fails.
fn compare(report: &mut WorkloadReport, workload: &Workload, baseline: Baseline) {
    let mut known = BaselineReport {
        before: baseline.before,
        median_ms: None,
        faster_by_percent: None,
        required_percent: workload.faster_by,
        error: None,
    };
    match baseline.samples {
        Ok(samples) => {
            let then = ms(samples.median());
            known.median_ms = Some(then);
            if let Some(now) = report.median_ms.filter(|_| then > 0.0) {
                let faster = (1.0 - now / then) * 100.0;
                known.faster_by_percent = Some((faster * 10.0).round() / 10.0);
                report.message.push_str(&format!(
                    "; {} than before {} (median {now:.1} ms, was {then:.1} ms)",
                    rollback::pace(faster),
                    known.before
                ));
                if let Some(required) = workload.faster_by.filter(|required| faster < *required) {
                    report.is_passed = false;
                    report
                        .message
                        .push_str(&format!(", {required}% faster is required"));
                }
            }
        }
        Err(error) => {
            report.is_passed = false;
            report.message.push_str(&format!(
                "; before {} it could not be run: {}",
                known.before,
                error.message()
            ));
            known.error = Some(error.render(false));
        }
    }
    report.baseline = Some(known);
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
