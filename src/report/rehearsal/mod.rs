//! The report of a rehearsal: gates before and after, what the migrations did, the workloads.

#[cfg(feature = "cli")]
pub mod junit;
#[cfg(feature = "cli")]
pub mod terminal;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::{Samples, Verdict, Workload};
use crate::error::Error;
use crate::migrate::{Finding, Pass, Replay, Step};
use crate::pg::Address;
use crate::run::State;
use crate::scenario::{Rehearsal, Scenario};

use super::{FailOn, Report};

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
    /// The gates on the migrated database, or on what a stopped migration left.
    pub after: Report,
    /// The queries with a budget; empty when a migration was stopped.
    pub workloads: Vec<WorkloadReport>,
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
    /// Whether it returned rows and kept its budget.
    pub is_passed: bool,
    /// One sentence.
    pub message: String,
    /// Which percentile is held to the budget.
    pub percentile: u8,
    /// The budget in milliseconds.
    pub budget_ms: f64,
    /// The percentile in milliseconds; null when it could not be run.
    pub measured_ms: Option<f64>,
    /// Every run in milliseconds, ascending.
    pub runs_ms: Vec<f64>,
    /// How many rows the last run returned.
    pub rows: Option<u64>,
    /// Why it matters.
    pub why: Option<String>,
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
            after,
            workloads,
        } = rehearsal;
        let before = Report::new(
            &scenario.gates_before,
            before,
            &before_address,
            FailOn::Block,
        );
        let after = Report::new(&scenario.gates_after, after, &after_address, FailOn::Block);
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
            after,
            workloads: workloads
                .into_iter()
                .zip(&scenario.workloads)
                .map(|(run, workload)| workload_report(workload, run.samples))
                .collect(),
        };
        report.decide();
        report
    }

    /// Sets exit code and reasons. What could not be executed or checked outranks what failed.
    fn decide(&mut self) {
        let mut reasons: Vec<(u8, String)> = Vec::new();
        if let Some(stopped) = &self.migrations.stopped {
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
            let weight = if workload.error.is_some() { 3 } else { 1 };
            reasons.push((
                weight,
                format!("workload {}: {}", workload.id, workload.message),
            ));
        }
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

fn workload_report(workload: &Workload, samples: Result<Samples, Error>) -> WorkloadReport {
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let mut report = WorkloadReport {
        id: workload.id.clone(),
        is_passed: false,
        message: String::new(),
        percentile: workload.percentile,
        budget_ms: ms(workload.budget),
        measured_ms: None,
        runs_ms: Vec::new(),
        rows: None,
        why: workload.why.clone(),
        error: None,
    };
    match samples {
        Ok(samples) => {
            let verdict: Verdict = samples.judge(workload);
            report.is_passed = verdict.is_passed();
            report.message = verdict.to_string();
            report.measured_ms = Some(ms(samples.percentile(workload.percentile)));
            report.runs_ms = samples.durations().iter().copied().map(ms).collect();
            report.rows = Some(samples.rows);
        }
        Err(error) => {
            report.message = error.message().to_owned();
            report.error = Some(error.render(false));
        }
    }
    report
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
