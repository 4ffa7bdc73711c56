//! What a person reads of a rehearsal: one table "gate | before | after", then the rest.

use tabled::builder::Builder;
use tabled::settings::Style;

use crate::gate::threshold::{count, rows_of};
use crate::report::GateReport;
use crate::report::terminal::{details, word};
use crate::run::State;

use super::rollback::pace;
use super::{BaselineReport, MigrationsReport, RehearsalReport, RollbackReport, WorkloadReport};

/// The report for a terminal.
pub fn render(report: &RehearsalReport) -> String {
    let mut out = format!(
        "{}: {}\non {}\n\n",
        report.scenario, report.description, report.server
    );
    out.push_str(&gates(report));
    for (when, side) in [("before", &report.before), ("after", &report.after)] {
        if let Some(readiness) = &side.readiness {
            out.push_str(&format!("{when}: {}\n", readiness.sentence()));
        }
    }
    out.push('\n');
    out.push_str(&found_before(report));
    out.push_str(&migrations(&report.migrations));
    if !report.workloads.is_empty() {
        out.push('\n');
        out.push_str(&workloads(&report.workloads));
    }
    for gate in &report.after.gates {
        let details = details(gate);
        if !details.is_empty() {
            out.push_str(&format!("\n{} {} (after)\n", word(gate.outcome), gate.id));
            indent(&mut out, &details);
        }
    }
    for finding in &report.migrations.findings {
        out.push_str(&format!("\n{}\n", finding.message));
    }
    let stopped = [&report.migrations.stopped, &report.operation_stopped];
    for stopped in stopped.into_iter().flatten() {
        out.push_str(&format!("\n{}\n", stopped.rendered));
    }
    for workload in &report.workloads {
        let baseline = workload.baseline.as_ref();
        let errors = [
            workload.error.as_ref(),
            baseline.and_then(|known| known.error.as_ref()),
        ];
        for error in errors.into_iter().flatten() {
            out.push_str(&format!("\n{error}\n"));
        }
    }
    out.push('\n');
    out.push_str(&rollback(&report.rollback));
    out.push('\n');
    out.push_str(&verdict(report));
    out
}

fn gates(report: &RehearsalReport) -> String {
    let mut table = Builder::default();
    table.push_record(["gate", "before", "after"]);
    for (before, after) in report.before.gates.iter().zip(&report.after.gates) {
        let odd = report.unexpected.iter().find(|odd| odd.gate == before.id);
        let note = odd.map_or_else(String::new, |odd| {
            format!(" (expected: {})", odd.expected.as_str())
        });
        table.push_record([
            before.id.clone(),
            format!("{}{note}", cell(before)),
            cell(after),
        ]);
    }
    drawn(table)
}

/// What gates found in the legacy database beside rows: a figure alone would not tell a constraint that
/// was never validated from one that was never declared.
fn found_before(report: &RehearsalReport) -> String {
    let mut out = String::new();
    for gate in &report.before.gates {
        if gate.outcome != State::Failed {
            continue;
        }
        let failures: Vec<&str> = gate
            .findings
            .iter()
            .filter(|found| found.is_failure)
            .map(|found| found.what.as_str())
            .collect();
        for what in failures.iter().take(FINDINGS) {
            out.push_str(&format!(" {} before: {what}\n", gate.id));
        }
        if failures.len() > FINDINGS {
            let more = failures.len() - FINDINGS;
            out.push_str(&format!(" {} before: and {more} more\n", gate.id));
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// How many findings of a gate are told of the legacy database.
const FINDINGS: usize = 3;

/// The outcome and the figure that it rests on.
fn cell(gate: &GateReport) -> String {
    let figure = match (&gate.outcome, &gate.measured) {
        (State::Errored, _) => gate.sqlstate.as_ref().map_or_else(
            || "not checked".to_owned(),
            |code| format!("not checked, SQLSTATE {code}"),
        ),
        (_, Some(figure)) => match (gate.rows_offending, gate.rows_checked) {
            (_, Some(0)) if gate.outcome != State::Passed => "nothing to look at".to_owned(),
            // A count of offending rows says little without what it is out of.
            (Some(bad), Some(all)) if figure.unit == "rows" && all >= bad && all > 0 => {
                format!("{} of {}", count(bad), rows_of(all, "row"))
            }
            _ => figure.display.clone(),
        },
        (_, None) => String::new(),
    };
    format!("{:<5} {figure}", word(gate.outcome))
        .trim_end()
        .to_owned()
}

fn migrations(migrations: &MigrationsReport) -> String {
    let mut table = Builder::default();
    table.push_record([
        "migration",
        "up",
        "down",
        "up again",
        "rows",
        "strongest lock on what was there",
    ]);
    for step in migrations.steps.iter().filter(|step| step.pass == "up") {
        let of = |pass: &str| {
            migrations
                .steps
                .iter()
                .find(|other| other.migration == step.migration && other.pass == pass)
                .map_or_else(String::new, |step| {
                    format!("{} ms", count(step.duration_ms))
                })
        };
        let mut rows = Vec::new();
        if step.rows_added > 0 {
            rows.push(format!("+{}", count(step.rows_added)));
        }
        if step.rows_removed > 0 {
            rows.push(format!("-{}", count(step.rows_removed)));
        }
        table.push_record([
            step.migration.clone(),
            of("up"),
            of("down"),
            of("up again"),
            rows.join(" "),
            step.strongest_lock.clone().unwrap_or_default(),
        ]);
    }
    drawn(table)
}

fn workloads(workloads: &[WorkloadReport]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "workload",
        "measured",
        "budget",
        "rows",
        "before and after, median",
        "verdict",
    ]);
    for workload in workloads {
        let measured = workload.measured_ms.map_or_else(String::new, |ms| {
            format!(
                "p{} {ms:.1} ms of {} runs",
                workload.percentile,
                workload.runs_ms.len()
            )
        });
        table.push_record([
            workload.id.clone(),
            measured,
            format!("{} ms", workload.budget_ms),
            workload.rows.map_or_else(String::new, count),
            workload
                .baseline
                .as_ref()
                .map_or_else(String::new, |known| compared(workload, known)),
            if workload.is_passed { "pass" } else { "fail" }.to_owned(),
        ]);
    }
    drawn(table)
}

/// `31.0 ms before 014_speed, 9.1 ms after: 70.6% faster`.
fn compared(workload: &WorkloadReport, baseline: &BaselineReport) -> String {
    let BaselineReport {
        before,
        median_ms: Some(then),
        faster_by_percent: Some(faster),
        ..
    } = baseline
    else {
        return format!("not measured before {}", baseline.before);
    };
    let now = workload.median_ms.unwrap_or_default();
    format!(
        "{then:.1} ms before {before}, {now:.1} ms after: {}",
        pace(*faster)
    )
}

/// The criteria for giving the migrated database up again.
fn rollback(rollback: &RollbackReport) -> String {
    let mut table = Builder::default();
    table.push_record(["roll back if", "", "because"]);
    for one in &rollback.criteria {
        let word = match one.is_met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        };
        table.push_record([one.name, word, &one.detail]);
    }
    format!("{}verdict: {}\n", drawn(table), rollback.verdict)
}

/// How many reasons are told; the first ones weigh most.
const REASONS: usize = 12;

fn verdict(report: &RehearsalReport) -> String {
    if report.reasons.is_empty() {
        let held = report
            .before
            .gates
            .iter()
            .filter(|gate| gate.outcome != State::Passed)
            .count();
        let mut said = vec![format!(
            "{} of {} held the legacy database back, none the migrated one",
            count(held as u64),
            rows_of(report.before.gates.len() as u64, "gate")
        )];
        let ups: Vec<_> = report
            .migrations
            .steps
            .iter()
            .filter(|step| step.pass == "up")
            .collect();
        let downs = report
            .migrations
            .steps
            .iter()
            .filter(|step| step.pass == "down")
            .count();
        said.push(format!(
            "{} of {} taken back and applied again, with schema and rows as they were",
            count(downs as u64),
            rows_of(ups.len() as u64, "migration")
        ));
        said.push("passed".to_owned());
        return said.join("\n") + "\n";
    }
    let mut out = String::new();
    for reason in report.reasons.iter().take(REASONS) {
        out.push_str(&format!("- {reason}\n"));
    }
    // What a stopped migration did not do, many gates miss.
    if let Some(more) = report.reasons.len().checked_sub(REASONS).filter(|n| *n > 0) {
        out.push_str(&format!(
            "- and {more} more, all of them in the JSON report\n"
        ));
    }
    out.push_str(if report.exit_code == 3 {
        "not everything could be executed or checked\n"
    } else {
        "failed\n"
    });
    out
}

fn drawn(table: Builder) -> String {
    let mut table = table.build();
    table.with(Style::psql());
    let mut out = String::new();
    for line in table.to_string().lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn indent(out: &mut String, text: &str) {
    for line in text.lines() {
        out.push_str(format!("  {line}").trim_end());
        out.push('\n');
    }
}
