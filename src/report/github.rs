//! Annotations of a GitHub workflow run: one `::error`, `::warning` or `::notice` per gate that did
//! not simply pass, on the line of its definition.
//!
//! Everything that is not ours stands inside such a line, escaped: no text of a database can become
//! a command to the runner.

use crate::gate::Severity;
use crate::run::State;

use super::{GateReport, Report, terminal};

/// The report as workflow commands, worst first, and a line that sums up.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    for gate in terminal::worst_first(report, false) {
        let command = match (gate.outcome, gate.severity) {
            (State::Failed, Severity::Block) | (State::Errored, _) => "error",
            (State::Failed | State::Warned, _) => "warning",
            (State::Skipped | State::Passed, _) => "notice",
        };
        out.push_str(&format!(
            "::{command} file={},line={},title={}::{}\n",
            property(&gate.defined_at.file),
            gate.defined_at.line,
            property(&format!("{} {}", terminal::word(gate.outcome), gate.id)),
            data(&text(gate)),
        ));
    }
    if let Some(readiness) = report.readiness.as_ref().filter(|found| !found.is_ready) {
        let sentence = data(&readiness.sentence());
        out.push_str(&format!("::error title=readiness::{sentence}\n"));
    }
    out.push_str(&terminal::summary(report));
    out.push('\n');
    out
}

fn text(gate: &GateReport) -> String {
    format!("{}\n{}", gate.message, terminal::details(gate))
        .trim_end()
        .to_owned()
}

/// Escapes what stands after the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes the value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_end_its_command() {
        assert_eq!(data("50%\n::stop::x\r"), "50%25%0A::stop::x%0D");
        assert_eq!(property("a,line=9::b\n"), "a%2Cline=9%3A%3Ab%0A");
    }
}
