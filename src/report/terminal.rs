//! What a person reads: quiet when all is well, otherwise the worst first.

use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::gate::threshold::{count, rows_of};

use crate::run::State;

use super::format::Look;
use super::{GateReport, Report};

/// The report for a terminal. Gates that passed are named only when the look is verbose.
pub fn render(report: &Report, look: Look) -> String {
    let gates = worst_first(report, look.is_verbose);
    let mut out = String::new();
    if !gates.is_empty() {
        let mut table = Builder::default();
        for gate in &gates {
            table.push_record([
                word(gate.outcome).to_owned(),
                gate.id.clone(),
                one_line(&gate.message),
                gate.defined_at.to_string(),
            ]);
        }
        let mut table = table.build();
        table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
        for (line, gate) in table.to_string().lines().zip(&gates) {
            out.push_str(&coloured(line.trim_end(), gate.outcome, look));
            out.push('\n');
        }
        out.push('\n');
    }
    for gate in &gates {
        let details = match gate.outcome {
            State::Passed | State::Skipped if look.is_verbose => held(gate),
            _ => details(gate),
        };
        if !details.is_empty() {
            let title = format!("{} {}", word(gate.outcome), gate.id);
            out.push_str(&coloured(&title, gate.outcome, look));
            out.push('\n');
            for line in details.lines() {
                out.push_str(format!("  {line}").trim_end());
                out.push('\n');
            }
            out.push('\n');
        }
    }
    out.push_str(&summary(report));
    out.push('\n');
    if let Some(readiness) = &report.readiness {
        out.push_str(&format!("{}\n", readiness.sentence()));
    }
    out
}

/// The gates that did not simply pass (or all of them), the worst first.
pub(super) fn worst_first(report: &Report, with_passed: bool) -> Vec<&GateReport> {
    let all = report.gates.iter();
    let mut gates: Vec<&GateReport> = all
        .filter(|gate| with_passed || gate.outcome != State::Passed)
        .collect();
    gates.sort_by_key(|gate| std::cmp::Reverse(gate.outcome));
    gates
}

/// Text from a database, in which no character moves a cursor, changes a colour or ends a line.
pub(super) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for text that may have several lines, such as SQL.
pub(super) fn lines(text: &str) -> String {
    let lines: Vec<String> = text
        .trim()
        .lines()
        .map(|line| one_line(&line.replace('\t', "    ")))
        .collect();
    lines.join("\n")
}

/// A line that begins with the word of an outcome, that word in its colour.
pub(super) fn coloured(line: &str, state: State, look: Look) -> String {
    let colour = match state {
        State::Passed => 32,
        State::Skipped => 36,
        State::Warned => 33,
        State::Failed | State::Errored => 31,
    };
    match line.strip_prefix(word(state)) {
        Some(rest) if look.is_coloured => {
            format!("\u{1b}[1;{colour}m{}\u{1b}[0m{rest}", word(state))
        }
        _ => line.to_owned(),
    }
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Passed => "pass",
        State::Skipped => "skip",
        State::Warned => "warn",
        State::Failed => "fail",
        State::Errored => "error",
    }
}

/// "3 gates passed", or how many did what, worst first.
pub(super) fn summary(report: &Report) -> String {
    let summary = &report.summary;
    let mut notes = String::new();
    if summary.left_out > 0 {
        notes.push_str(&format!(
            "; {} not selected",
            count(summary.left_out as u64)
        ));
    }
    if report
        .snapshot
        .as_ref()
        .is_some_and(|snapshot| snapshot.in_recovery)
    {
        notes.push_str("; read from a hot standby");
    }
    if summary.passed == summary.total {
        return format!("{} passed{notes}", rows_of(summary.total as u64, "gate"));
    }
    let parts: Vec<String> = [
        (summary.errored, "errored"),
        (summary.failed, "failed"),
        (summary.warned, "warned"),
        (summary.skipped, "skipped"),
        (summary.passed, "passed"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| match *word {
        "warned" if summary.accepted > 0 => {
            let accepted = count(summary.accepted as u64);
            format!("{} warned ({accepted} accepted)", count(*n as u64))
        }
        _ => format!("{} {word}", count(*n as u64)),
    })
    .collect();
    format!(
        "{}: {}{notes}",
        rows_of(summary.total as u64, "gate"),
        parts.join(", ")
    )
}

/// What stands below a gate that passed or had nothing to look at, when the look is verbose: the figure
/// and the levels that it was held against, and what was found.
fn held(gate: &GateReport) -> String {
    let mut out = String::new();
    if let Some(figure) = &gate.measured {
        out.push_str(&format!("measured  {}\n", figure.display));
    }
    if let Some(bounds) = &gate.threshold {
        for (word, level) in [("expected", &bounds.fail), ("to warn", &bounds.warn)] {
            if let Some(level) = level {
                out.push_str(&format!("{word:<10}{level}\n"));
            }
        }
    }
    out.push_str(&findings(gate));
    out
}

fn findings(gate: &GateReport) -> String {
    let mut out = String::new();
    for finding in &gate.findings {
        out.push_str(&format!("found     {}\n", one_line(&finding.what)));
        if let Some(repair) = &finding.repair {
            out.push_str(&format!("repair    {}\n", lines(repair)));
        }
    }
    out
}

/// What stands below a gate that did not simply pass: findings, keys, the SQL, why.
pub(super) fn details(gate: &GateReport) -> String {
    let mut out = String::new();
    if matches!(gate.outcome, State::Passed | State::Skipped) {
        return out;
    }
    if let Some(error) = &gate.rendered_error {
        return format!("{}\n", lines(error));
    }
    let expected = gate.threshold.as_ref().and_then(|bounds| {
        // What was not reached: a gate that only warns has kept its failing level.
        let warn = bounds.warn.as_ref();
        warn.filter(|_| gate.outcome == State::Warned && !gate.is_accepted())
            .or(bounds.fail.as_ref())
    });
    if let Some(threshold) = expected {
        out.push_str(&format!("expected  {threshold}\n"));
    }
    if let Some(why) = &gate.why {
        out.push_str(&format!("why       {}\n", one_line(why)));
    }
    if let Some(accepted) = &gate.accepted {
        out.push_str(&format!("accepted  {}\n", one_line(&accepted.sentence())));
    }
    if let Some(help) = &gate.help {
        out.push_str(&format!("help      {}\n", one_line(help)));
    }
    out.push_str(&findings(gate));
    for row in &gate.rows {
        let columns = |columns: &[(String, Option<String>)]| {
            let columns = columns.iter().map(|(name, value)| {
                let value = value.as_deref().map_or("null".into(), one_line);
                format!("{}={value}", one_line(name))
            });
            columns.collect::<Vec<_>>().join(" ")
        };
        let beside = match (row.key.is_empty(), row.values.is_empty()) {
            (false, false) => ": ",
            _ => "",
        };
        let what = row
            .what
            .as_ref()
            .map_or_else(String::new, |what| format!("  ({what})"));
        out.push_str(&format!(
            "row       {}{beside}{}{what}\n",
            columns(&row.key),
            columns(&row.values)
        ));
    }
    if let Some(offending) = gate
        .rows_offending
        .filter(|n| !gate.rows.is_empty() && *n > gate.rows.len() as u64)
    {
        out.push_str(&format!("          … of {}\n", count(offending)));
    }
    if gate.rows_left_out > 0 {
        out.push_str(&format!(
            "          {} left out, to keep the report small\n",
            rows_of(gate.rows_left_out, "row")
        ));
    }
    if let Some(sql) = &gate.sql {
        let which = match gate.sample {
            Some(_) => "in sample",
            None => "all rows ",
        };
        out.push_str(&format!("{which} {}\n", lines(sql)));
    }
    out
}
