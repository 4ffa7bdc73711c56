//! JSON, version 1: the report as it is.

use super::Report;

/// The report as indented JSON with a line break at the end.
pub fn render(report: &Report) -> String {
    let mut text =
        serde_json::to_string_pretty(report).expect("a report holds only what JSON can hold");
    text.push('\n');
    text
}
