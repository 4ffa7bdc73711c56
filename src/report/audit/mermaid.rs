//! The picture of schemas and keys as a Mermaid flowchart, which many viewers of Markdown draw.

use std::collections::BTreeSet;

use crate::audit::words::plural;
use crate::audit::{Audit, Severity};

use super::picture::{Class, Picture, picture};

/// The picture as a Mermaid flowchart. Of the tables, only those with keys or with findings are drawn.
pub fn render(audit: &Audit) -> String {
    let picture = picture(audit);
    let mut out = String::from("flowchart LR\n");
    for note in &picture.notes {
        out.push_str(&format!("  %% {note}\n"));
    }
    if picture.is_detailed {
        tables(&mut out, &picture);
    } else {
        for (at, schema) in picture.boxes.iter().enumerate() {
            out.push_str(&format!(
                "  s{at}[\"{}<br/>{}\"]\n",
                label(&schema.title),
                label(&schema.subtitle)
            ));
        }
    }
    let node = |(schema, row): (usize, Option<usize>)| match row {
        Some(row) => format!("t{schema}_{row}"),
        None => format!("s{schema}"),
    };
    for line in &picture.lines {
        let arrow = match line.class {
            Class::Within | Class::Across | Class::Against => "-->",
            Class::Undeclared | Class::Broken => "-.->",
        };
        let (from, to) = (node(line.from), node(line.to));
        out.push_str(&format!(
            "  {from} {arrow}|\"{}\"| {to}\n",
            label(&line.label)
        ));
    }
    for (class, colour) in [
        (Class::Across, "#b45309"),
        (Class::Against, "#c2410c"),
        (Class::Undeclared, "#dc2626"),
        (Class::Broken, "#dc2626"),
    ] {
        let numbers: Vec<String> = picture
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.class == class)
            .map(|(at, _)| at.to_string())
            .collect();
        if !numbers.is_empty() {
            out.push_str(&format!(
                "  linkStyle {} stroke:{colour}\n",
                numbers.join(",")
            ));
        }
    }
    out
}

fn tables(out: &mut String, picture: &Picture) {
    let joined: BTreeSet<(usize, Option<usize>)> = picture
        .lines
        .iter()
        .flat_map(|line| [line.from, line.to])
        .collect();
    let mut critical = Vec::new();
    for (at, schema) in picture.boxes.iter().enumerate() {
        // A subgraph without a node is not drawn everywhere.
        if schema.rows.is_empty() {
            out.push_str(&format!("  s{at}[\"{}\"]\n", label(&schema.title)));
            continue;
        }
        out.push_str(&format!("  subgraph s{at}[\"{}\"]\n", label(&schema.title)));
        let mut left_out = 0;
        for (row, table) in schema.rows.iter().enumerate() {
            if table.worst.is_none() && !joined.contains(&(at, Some(row))) {
                left_out += 1;
                continue;
            }
            out.push_str(&format!("    t{at}_{row}[\"{}\"]\n", label(&table.name)));
            if table.worst == Some(Severity::Critical) {
                critical.push(format!("t{at}_{row}"));
            }
        }
        if left_out > 0 {
            let more = plural(left_out, "more table", "more tables");
            out.push_str(&format!("    m{at}[\"{more}\"]\n"));
        }
        out.push_str("  end\n");
    }
    if !critical.is_empty() {
        out.push_str("  classDef critical stroke:#dc2626,stroke-width:2px\n");
        out.push_str(&format!("  class {} critical\n", critical.join(",")));
    }
}

/// Text inside a quoted label: everything that Mermaid or HTML could read as its own is an entity.
fn label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || " .,:/()_-+".contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("#{};", u32::from(c)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_itself() {
        assert_eq!(label("we\"]ird `Ünï`"), "we#34;#93;ird #96;Ünï#96;");
    }
}
