//! The audit as Markdown: for an issue, a wiki, a comment. With a picture in Mermaid.

use crate::audit::Audit;
use crate::gate::threshold::count;

use super::{
    SCHEMA_COLUMNS, Shown, TABLE_COLUMNS, groups, largest, mermaid, numbers, one_line, origin,
    schema_rows, table_row, verdict,
};

/// The audit as Markdown.
pub fn render(audit: &Audit, shown: Shown) -> String {
    let mut out = format!(
        "# Database audit\n\n{}\n\n**{}**\n\n",
        text(&origin(audit)),
        verdict(audit)
    );
    out.push_str("| | |\n|---|---|\n");
    for (label, number) in numbers(audit) {
        out.push_str(&format!("| {label} | {number} |\n"));
    }
    for note in &audit.notes {
        out.push_str(&format!("\n> {}\n", text(note)));
    }
    let schemas = schema_rows(audit);
    if !schemas.is_empty() {
        out.push_str("\n## Schemas\n\n");
        head(&mut out, &SCHEMA_COLUMNS);
        let most = shown.most.max(20);
        for row in schemas.iter().take(most) {
            line(&mut out, row);
        }
        more(&mut out, schemas.len(), most);
        out.push_str(&format!("\n```mermaid\n{}```\n", mermaid::render(audit)));
    }
    let tables = largest(audit);
    if !tables.is_empty() {
        out.push_str("\n## Largest tables\n\n");
        head(&mut out, &TABLE_COLUMNS);
        for table in tables.iter().take(shown.most) {
            line(&mut out, &table_row(table));
        }
        more(&mut out, tables.len(), shown.most);
    }
    if !audit.findings.is_empty() {
        out.push_str("\n## Findings\n");
    }
    for group in groups(audit) {
        let title = group.kind.title();
        out.push_str(&format!(
            "\n### {}: {title} ({})\n\n{}.\n\n",
            group.severity.as_str(),
            count(group.findings.len() as u64),
            capital(group.kind.why())
        ));
        for finding in group.findings.iter().take(shown.most) {
            out.push_str(&format!(
                "- {}: {}\n",
                code(&finding.object),
                text(&finding.what)
            ));
            if let Some(repair) = &finding.repair {
                out.push_str(&format!("  - repair: {}\n", code(repair)));
            }
        }
        more(&mut out, group.findings.len(), shown.most);
    }
    out
}

fn head(out: &mut String, columns: &[&str]) {
    out.push_str(&format!(
        "| {} |\n|{}\n",
        columns.join(" | "),
        "---|".repeat(columns.len())
    ));
}

fn line(out: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| text(cell)).collect();
    out.push_str(&format!("| {} |\n", cells.join(" | ")));
}

fn more(out: &mut String, all: usize, most: usize) {
    if all > most {
        out.push_str(&format!("\nand {} more\n", count((all - most) as u64)));
    }
}

fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + chars.as_str()
    })
}

/// Text that Markdown leaves as it is; what stands in backticks stays code.
fn text(plain: &str) -> String {
    let plain = one_line(plain);
    // An even number of backticks is pairs of them; otherwise a name holds one, and none is code.
    let is_paired = plain.matches('`').count().is_multiple_of(2);
    let mut out = String::with_capacity(plain.len());
    let mut is_code = false;
    for c in plain.chars() {
        match c {
            '`' if is_paired => is_code = !is_code,
            '|' => out.push('\\'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '~' if !is_code => {
                out.push('\\');
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Text as code, with more backticks around it than are in it.
fn code(plain: &str) -> String {
    let plain = one_line(plain);
    let longest = plain
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    if longest == 0 {
        format!("{fence}{plain}{fence}")
    } else {
        format!("{fence} {plain} {fence}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a_b `c_d` e", "a\\_b `c_d` e")]
    #[case("a`b_c", "a\\`b\\_c")]
    #[case("a|b\nc", "a\\|b c")]
    #[case("<script>", "\\<script\\>")]
    fn text_stays_text(#[case] plain: &str, #[case] expected: &str) {
        assert_eq!(text(plain), expected);
    }

    #[rstest]
    #[case("a_b", "`a_b`")]
    #[case("a`b", "`` a`b ``")]
    fn code_stays_code(#[case] plain: &str, #[case] expected: &str) {
        assert_eq!(code(plain), expected);
    }
}
