//! What a person reads of an audit: the numbers, the schemas, then what is wrong, worst first.

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use crate::audit::Audit;
use crate::gate::threshold::count;

use super::{
    Group, SCHEMA_COLUMNS, Shown, TABLE_COLUMNS, groups, largest, numbers, one_line, or_none,
    origin, schema_rows, table_row, verdict,
};

/// The audit for a terminal.
pub fn render(audit: &Audit, shown: Shown) -> String {
    let mut out = format!("{}\n\n", origin(audit));
    let mut table = Builder::default();
    for (label, number) in numbers(audit) {
        table.push_record([label.to_owned(), number]);
    }
    let mut table = table.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    out.push_str(&trimmed(&table.to_string()));
    out.push('\n');
    schemas(&mut out, audit, shown);
    tables(&mut out, audit, shown);
    if shown.most == usize::MAX {
        keys(&mut out, audit);
    }
    for group in groups(audit) {
        findings(&mut out, &group, shown);
    }
    for note in &audit.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    if !audit.notes.is_empty() {
        out.push('\n');
    }
    out.push_str(&verdict(audit));
    out.push('\n');
    out
}

fn schemas(out: &mut String, audit: &Audit, shown: Shown) {
    let rows = schema_rows(audit);
    if rows.is_empty() {
        return;
    }
    let most = shown.most.max(20);
    let mut table = Builder::default();
    table.push_record(SCHEMA_COLUMNS);
    for row in rows.iter().take(most) {
        table.push_record(row.clone());
    }
    out.push_str(&drawn(table, 2..4));
    more(out, rows.len(), most);
    out.push('\n');
}

fn tables(out: &mut String, audit: &Audit, shown: Shown) {
    let tables = largest(audit);
    if tables.is_empty() {
        return;
    }
    let mut table = Builder::default();
    table.push_record(TABLE_COLUMNS);
    for row in tables.iter().take(shown.most) {
        table.push_record(table_row(row));
    }
    out.push_str(&drawn(table, 1..4));
    more(out, tables.len(), shown.most);
    out.push('\n');
}

fn keys(out: &mut String, audit: &Audit) {
    if audit.keys.is_empty() {
        return;
    }
    let mut table = Builder::default();
    table.push_record(["foreign key", "from", "to", "state"]);
    for key in &audit.keys {
        let mut state = Vec::new();
        if !key.is_valid {
            state.push("not valid".to_owned());
        }
        if !key.is_enforced {
            state.push("not enforced".to_owned());
        }
        if let Some(orphans) = key.orphans.filter(|orphans| *orphans > 0) {
            state.push(format!("{} orphans", count(orphans)));
        }
        table.push_record([
            one_line(&key.name),
            one_line(&format!("{} ({})", key.table, key.columns.join(", "))),
            one_line(&format!(
                "{} ({})",
                key.references,
                key.referenced_columns.join(", ")
            )),
            or_none(state.join(", ")),
        ]);
    }
    out.push_str(&drawn(table, 0..0));
    out.push('\n');
}

fn findings(out: &mut String, group: &Group<'_>, shown: Shown) {
    out.push_str(&format!(
        "{}: {} ({})\n  {}\n",
        group.severity.as_str(),
        group.kind.title(),
        count(group.findings.len() as u64),
        group.kind.why()
    ));
    for finding in group.findings.iter().take(shown.most) {
        out.push_str(&format!("  - {}\n", one_line(&finding.object)));
        out.push_str(&format!("      {}\n", one_line(&finding.what)));
        if let Some(repair) = &finding.repair {
            out.push_str(&format!("      repair: {}\n", one_line(repair)));
        }
    }
    if group.findings.len() > shown.most {
        out.push_str("  ");
        more(out, group.findings.len(), shown.most);
    }
    out.push('\n');
}

/// "and 9,980 more", where a list is cut.
fn more(out: &mut String, all: usize, most: usize) {
    if all > most {
        let rest = (all - most) as u64;
        out.push_str(&format!("and {} more; --all shows them\n", count(rest)));
    }
}

/// A table with a line under its head; `numbers` are the columns aligned to the right.
fn drawn(table: Builder, numbers: std::ops::Range<usize>) -> String {
    let mut table = table.build();
    table.with(Style::psql());
    for column in numbers {
        table.modify(Columns::one(column), Alignment::right());
    }
    trimmed(&table.to_string())
}

fn trimmed(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
