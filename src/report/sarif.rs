//! SARIF 2.1.0 (OASIS), for code scanning: a rule per gate, a result per gate that did not pass.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use crate::gate::Severity;
use crate::run::State;

use super::{GateReport, Report, terminal};

/// What a path segment of a URI may not hold.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The report as indented SARIF with a line break at the end.
///
/// A gate that could not be evaluated is a result, too: code scanning shows nothing else.
pub fn render(report: &Report) -> String {
    let results = report.gates.iter().enumerate();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "Postern",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": report.gates.iter().map(rule).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": report.summary.errored == 0,
                "exitCode": report.summary.exit_code,
            }],
            "results": results
                .filter(|(_, gate)| gate.outcome != State::Passed)
                .map(|(index, gate)| result(index, gate))
                .collect::<Vec<_>>(),
        }],
    });
    let mut text = serde_json::to_string_pretty(&log).expect("SARIF is plain JSON");
    text.push('\n');
    text
}

fn rule(gate: &GateReport) -> Value {
    let mut rule = json!({
        "id": gate.id,
        "name": gate.kind,
        "shortDescription": {"text": gate.why.as_deref().unwrap_or(&gate.id)},
        "defaultConfiguration": {"level": level(gate.severity)},
        "properties": {"tags": gate.tags},
    });
    if let Some(owner) = &gate.owner {
        rule["properties"]["owner"] = json!(owner);
    }
    rule
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Block => "error",
        Severity::Warn => "warning",
    }
}

fn result(index: usize, gate: &GateReport) -> Value {
    let (kind, level) = match gate.outcome {
        State::Errored => ("fail", "error"),
        State::Failed => ("fail", level(gate.severity)),
        State::Warned => ("fail", "warning"),
        State::Skipped => ("notApplicable", "none"),
        State::Passed => ("pass", "none"),
    };
    let uri = utf8_percent_encode(&gate.defined_at.file, PATH).to_string();
    let details = terminal::details(gate);
    let message = format!("{}: {}\n{details}", gate.outcome.as_str(), gate.message);
    let mut result = json!({
        "ruleId": gate.id,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": message.trim_end()},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri},
            "region": {"startLine": gate.defined_at.line},
        }}],
        // One alert per gate, wherever in its file it moves.
        "partialFingerprints": {"gate/v1": gate.id},
    });
    // Not as a suppression: viewers hide those, and what is accepted stays visible.
    if let Some(accepted) = &gate.accepted {
        result["properties"] = json!({"accepted": accepted});
    }
    result
}
