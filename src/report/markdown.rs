//! Markdown, as GitHub, GitLab and the like show it: for a comment or a summary page.

use crate::run::State;

use super::{GateReport, Report, terminal};

/// The report as Markdown: what it comes to, a table of the gates that did not simply pass, worst
/// first, and the details of each, folded up.
pub fn render(report: &Report) -> String {
    let mut out = format!("### {}\n", text(&terminal::summary(report)));
    out.push_str(&format!("\n{}", code(&report.target)));
    if let Some(snapshot) = &report.snapshot {
        out.push_str(&format!(" as of {}", text(&snapshot.taken_at)));
    }
    out.push('\n');
    if let Some(readiness) = &report.readiness {
        out.push_str(&format!("\n**{}**\n", text(&readiness.sentence())));
    }
    let gates = terminal::worst_first(report, false);
    if !gates.is_empty() {
        out.push_str("\n| | gate | what | defined at |\n|---|---|---|---|\n");
    }
    for gate in &gates {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            word(gate.outcome),
            cell(&code(&gate.id)),
            cell(&text(&gate.message)),
            cell(&code(&gate.defined_at.to_string())),
        ));
    }
    for gate in &gates {
        details(&mut out, gate);
    }
    out
}

fn details(out: &mut String, gate: &GateReport) {
    let details = terminal::details(gate);
    if details.is_empty() {
        return;
    }
    let fence = "`".repeat((longest_run(&details) + 1).max(3));
    out.push_str(&format!(
        "\n<details><summary>{} {}</summary>\n\n{fence}text\n{}\n{fence}\n\n</details>\n",
        terminal::word(gate.outcome),
        text(&gate.id),
        details.trim_end(),
    ));
}

fn word(state: State) -> String {
    match state {
        State::Failed | State::Errored => format!("**{}**", terminal::word(state)),
        State::Passed | State::Skipped | State::Warned => terminal::word(state).to_owned(),
    }
}

/// Text as it is: nothing in it is markup, and it stays on one line.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\n' | '\r' => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '@' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// A code span, whatever backticks the text holds.
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let ticks = "`".repeat(longest_run(&text) + 1);
    let space = if text.starts_with('`') || text.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{ticks}{space}{text}{space}{ticks}")
}

/// A table cell: a `|` would end it even inside a code span.
fn cell(markdown: &str) -> String {
    markdown.replace('|', "\\|")
}

/// The longest run of backticks.
fn longest_run(text: &str) -> usize {
    let runs = text.split(|c| c != '`').map(str::len);
    runs.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        assert_eq!(text("a_b *c* <i>\n@x"), "a\\_b \\*c\\* &lt;i&gt; \\@x");
        assert_eq!(code("x"), "`x`");
        assert_eq!(code("`a``b"), "``` `a``b ```");
        assert_eq!(cell(&code("a|b")), "`a\\|b`");
    }
}
