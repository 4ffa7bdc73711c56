//! What a person reads of an explanation: first each statement, then each gate.

use crate::audit::words::{bytes, plural};
use crate::gate::OnEmpty;
use crate::gate::threshold::{count, rows_of};
use crate::report::format::Look;
use crate::report::terminal::{coloured, lines, one_line, word};
use crate::run::{Granted, Node, Planned, Privilege, State};

use super::{ExplainReport, ExplainedGate, StatementReport};

/// How many nodes that one node reads from are shown; a partitioned table may have hundreds.
const INPUTS: usize = 4;

/// The explanation for a terminal.
pub fn render(report: &ExplainReport, look: Look) -> String {
    let mut out = String::new();
    for statement in &report.statements {
        out.push_str(&title(statement));
        for gate in statement.gates.chunks(6) {
            field(&mut out, "gates", &gate.join(", "));
        }
        field(&mut out, "sql", &statement.sql);
        match &statement.plan {
            Some(plan) => field(&mut out, "plan", &tree(&plan.root)),
            None => field(
                &mut out,
                "plan",
                "none: the server refuses it, see its gates",
            ),
        }
        out.push('\n');
    }
    for gate in &report.gates {
        out.push_str(&of_gate(gate, look));
        out.push('\n');
    }
    out.push_str(&summary(report));
    out
}

/// `1  s.games  cost 1.25, 1 row returned, 8 kB to read`
fn title(statement: &StatementReport) -> String {
    let mut out = format!("{}  {}", statement.number, one_line(&statement.about));
    if let Some(name) = &statement.on {
        out.push_str(&format!(" on {}", one_line(name)));
    }
    if let Some(plan) = &statement.plan {
        out.push_str(&format!("  {}", estimates(plan)));
    }
    if statement.runs != 1 {
        let times = plural(statement.runs as usize, "time", "times");
        out.push_str(&format!(", runs {times}"));
    }
    if statement.gates.len() > 1 {
        let shared = rows_of(statement.gates.len() as u64, "gate");
        out.push_str(&format!(", shared by {shared}"));
    }
    out.push('\n');
    out
}

fn estimates(plan: &Planned) -> String {
    format!(
        "cost {:.2}, {} returned, {} to read",
        plan.cost,
        rows_of(plan.rows, "row"),
        plan.bytes()
            .map_or_else(|| "an unknown size".to_owned(), bytes)
    )
}

fn of_gate(gate: &ExplainedGate, look: Look) -> String {
    let head = format!("{}  {}  {}", gate.id, gate.kind, gate.defined_at);
    let Some(error) = &gate.error else {
        return format!("{head}\n{}", facts(gate));
    };
    let head = format!("{} {head}", word(State::Errored));
    let mut out = format!("{}\n", coloured(&head, State::Errored, look));
    for line in lines(&error.rendered).lines() {
        out.push_str(format!("  {line}").trim_end());
        out.push('\n');
    }
    out.push_str(&facts(gate));
    out
}

fn facts(gate: &ExplainedGate) -> String {
    let mut out = String::new();
    let numbers: Vec<String> = gate.statements.iter().map(ToString::to_string).collect();
    match numbers.as_slice() {
        [] if gate.error.is_some() => {}
        [] => field(&mut out, "asks", "no table: the catalog alone answers"),
        [one] => field(&mut out, "asks", &format!("statement {one}")),
        many => field(&mut out, "asks", &format!("statements {}", many.join(", "))),
    }
    if let Some(then) = &gate.then {
        field(&mut out, "then", then);
    }
    for sql in &gate.evidence {
        field(&mut out, "evidence", sql);
    }
    for privilege in &gate.privileges {
        field(&mut out, "needs", &needed(privilege));
    }
    let empty = match gate.on_empty {
        OnEmpty::Fail => "fails: nothing to look at is itself the failure",
        OnEmpty::Skip => "is skipped, visibly: nothing is proved by nothing",
        OnEmpty::Pass => {
            "passes: on_empty = \"pass\" says that nothing to look at is as it should be"
        }
    };
    field(&mut out, "empty", empty);
    out
}

fn needed(privilege: &Privilege) -> String {
    let granted = match privilege.granted {
        Granted::Yes => "granted",
        Granted::SomeColumns => "granted on some columns",
        Granted::No => "not granted",
    };
    let target = privilege.target.iter();
    let target: String = target.map(|name| format!(" ({name})")).collect();
    format!(
        "{} on {}{target}: {granted}",
        privilege.privilege, privilege.on
    )
}

/// A name and what stands beside it, further lines below the first.
fn field(out: &mut String, name: &str, text: &str) {
    for (index, line) in lines(text).lines().enumerate() {
        let name = if index == 0 { name } else { "" };
        out.push_str(format!("  {name:<10}{line}").trim_end());
        out.push('\n');
    }
}

/// A plan, one node a line, each below the one that reads from it.
fn tree(root: &Node) -> String {
    let mut out = String::new();
    branch(root, 0, &mut out);
    out
}

fn branch(node: &Node, depth: usize, out: &mut String) {
    let index = node.index.iter().map(|name| format!(" using {name}"));
    let relation = node.relation.iter().map(|name| format!(" on {name}"));
    let of: String = index.chain(relation).collect();
    out.push_str(&format!(
        "{:indent$}{}{of} ({})\n",
        "",
        node.node,
        rows_of(node.rows, "row"),
        indent = depth * 2
    ));
    for input in node.inputs.iter().take(INPUTS) {
        branch(input, depth + 1, out);
    }
    if let Some(more) = node.inputs.len().checked_sub(INPUTS).filter(|n| *n > 0) {
        out.push_str(&format!(
            "{:indent$}… {} more\n",
            "",
            count(more as u64),
            indent = depth * 2 + 2
        ));
    }
}

fn summary(report: &ExplainReport) -> String {
    let mut out = rows_of(report.summary.total as u64, "gate");
    if report.summary.errored > 0 {
        let errored = count(report.summary.errored as u64);
        out.push_str(&format!(", {errored} of them cannot be evaluated"));
    }
    out.push_str(&format!(
        "; {}, {} to read",
        rows_of(report.summary.statements as u64, "statement"),
        bytes(report.summary.bytes)
    ));
    if let Some(role) = &report.role {
        out.push_str(&format!(", as {}", one_line(role)));
    }
    out.push('\n');
    out
}
