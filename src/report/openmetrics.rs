//! OpenMetrics 1.0 text, for Prometheus and its like: what a run found, as gauges.

use std::fmt::Write;

use crate::gate::sampling::SampleReport;
use crate::run::State;

use super::{GateReport, Report};

/// The units that names end with.
const UNITS: [&str; 2] = ["ratio", "seconds"];

const STATES: [State; 5] = [
    State::Passed,
    State::Skipped,
    State::Warned,
    State::Failed,
    State::Errored,
];

/// The report as OpenMetrics text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let summary = &report.summary;
    family(
        &mut out,
        "postern_exit_code",
        "What the run comes to: 0 passed, 1 failed, 3 not checked.",
    );
    sample(&mut out, "postern_exit_code", &[], summary.exit_code);
    family(
        &mut out,
        "postern_gates",
        "How many gates had each outcome.",
    );
    for (state, count) in [
        (State::Passed, summary.passed),
        (State::Skipped, summary.skipped),
        (State::Warned, summary.warned),
        (State::Failed, summary.failed),
        (State::Errored, summary.errored),
    ] {
        let labels = [("outcome", state.as_str())];
        sample(&mut out, "postern_gates", &labels, count);
    }
    if let Some(readiness) = &report.readiness {
        family(
            &mut out,
            "postern_ready",
            "1 when every critical issue is resolved and enough metrics are met.",
        );
        sample(&mut out, "postern_ready", &[], u8::from(readiness.is_ready));
    }
    if let Some(taken) = taken_at(report) {
        let name = "postern_snapshot_timestamp_seconds";
        family(&mut out, name, "The moment that every gate read.");
        sample(&mut out, name, &[], taken);
    }
    family(
        &mut out,
        "postern_gate_outcome",
        "1 for the outcome that a gate had, 0 for the others.",
    );
    for gate in &report.gates {
        for state in STATES {
            let mut labels = labels(gate);
            labels.push(("severity", gate.severity.as_str()));
            labels.push(("outcome", state.as_str()));
            let holds = u8::from(state == gate.outcome);
            sample(&mut out, "postern_gate_outcome", &labels, holds);
        }
    }
    per_gate(
        &mut out,
        report,
        "postern_gate_rows_checked",
        "How many rows a gate looked at; of a sample, those in it.",
        |gate| gate.rows_checked,
    );
    per_gate(
        &mut out,
        report,
        "postern_gate_rows_offending",
        "How many rows offend; of a sample, those in it.",
        |gate| gate.rows_offending,
    );
    per_gate(
        &mut out,
        report,
        "postern_gate_rows_accepted",
        "How many offending rows the baseline accepts.",
        |gate| gate.accepted.as_ref().map(|accepted| accepted.rows),
    );
    family(
        &mut out,
        "postern_gate_measured",
        "The figure that a gate's threshold is about.",
    );
    for gate in &report.gates {
        if let Some(figure) = &gate.measured {
            let mut labels = labels(gate);
            labels.push(("unit", figure.unit));
            sample(&mut out, "postern_gate_measured", &labels, figure.value);
        }
    }
    samples(&mut out, report);
    out.push_str("# EOF\n");
    out
}

/// What samples say of all rows, where gates looked at some.
fn samples(out: &mut String, report: &Report) {
    if report.gates.iter().all(|gate| gate.sample.is_none()) {
        return;
    }
    /// A gauge and its help, and where its value comes from.
    type Gauge = (&'static str, &'static str, fn(&SampleReport) -> Option<f64>);
    let gauges: [Gauge; 4] = [
        (
            "postern_gate_sample_ratio",
            "The share of its table's blocks that a gate was to look at.",
            |sample| ratio_of(&sample.share),
        ),
        (
            "postern_gate_sample_confidence_ratio",
            "How often such an interval holds the share of offending rows among all rows.",
            |sample| ratio_of(&sample.confidence),
        ),
        (
            "postern_gate_sample_offending_min_ratio",
            "The lower end of the interval for the share of offending rows among all rows.",
            |sample| Some(ratio(sample.percent_offending_min)),
        ),
        (
            "postern_gate_sample_offending_max_ratio",
            "The upper end of the interval for the share of offending rows among all rows.",
            |sample| Some(ratio(sample.percent_offending_max)),
        ),
    ];
    per_gate(
        out,
        report,
        "postern_gate_sample_offending_ratio",
        "The share of offending rows in the sample.",
        |gate| {
            let seen = gate.measured.as_ref();
            seen.filter(|_| gate.sample.is_some())
                .map(|seen| ratio(seen.value))
        },
    );
    for (name, help, value) in gauges {
        let of = |gate: &GateReport| gate.sample.as_ref().and_then(value);
        per_gate(out, report, name, help, of);
    }
    per_gate(
        out,
        report,
        "postern_gate_sample_blocks",
        "How many blocks of a sample hold a row that the gate looked at.",
        |gate| gate.sample.as_ref().map(|sample| sample.blocks),
    );
}

/// Of `1%`: 0.01.
fn ratio_of(percentage: &str) -> Option<f64> {
    let percent = percentage.strip_suffix('%')?;
    percent.parse().ok().map(ratio)
}

/// A share of a percentage, without the noise of a division.
fn ratio(percent: f64) -> f64 {
    (percent * 1e9).round() / 1e11
}

fn per_gate<T: std::fmt::Display>(
    out: &mut String,
    report: &Report,
    name: &str,
    help: &str,
    value: impl Fn(&GateReport) -> Option<T>,
) {
    family(out, name, help);
    for gate in &report.gates {
        if let Some(value) = value(gate) {
            sample(out, name, &labels(gate), value);
        }
    }
}

fn taken_at(report: &Report) -> Option<f64> {
    let taken: jiff::Timestamp = report.snapshot.as_ref()?.taken_at.parse().ok()?;
    Some(taken.as_duration().as_secs_f64())
}

fn labels(gate: &GateReport) -> Vec<(&str, &str)> {
    vec![
        ("gate", &gate.id),
        ("kind", &gate.kind),
        ("suite", &gate.suite),
    ]
}

fn family(out: &mut String, name: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    // A unit is the end of the name; a number of things has none.
    if let Some(unit) = UNITS
        .iter()
        .find(|unit| name.ends_with(&format!("_{unit}")))
    {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
        .collect();
    let _ = match labels.as_slice() {
        [] => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{}}} {value}", labels.join(",")),
    };
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_a_ratio_without_noise() {
        for (percentage, expected) in [
            ("0.1%", 0.001),
            ("29.3%", 0.293),
            ("99.999999999%", 0.99999999999),
        ] {
            assert_eq!(ratio_of(percentage), Some(expected));
        }
        assert_eq!(ratio_of("12"), None);
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut out = String::new();
        sample(&mut out, "x", &[("a", "b\"c\\d\ne")], 1);
        assert_eq!(out, "x{a=\"b\\\"c\\\\d\\ne\"} 1\n");
    }
}
