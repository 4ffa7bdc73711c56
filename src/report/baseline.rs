//! The ratchet: a baseline brought up to a report, as text to text.
//!
//! Comments and order stay; a number only ever falls, unless the gate is named.

use jiff::civil::Date;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value, value};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::baseline::Baseline;
use crate::gate::threshold::rows_of;
use crate::run::State;

use super::{GateReport, Report};

/// What stands at the top of a new file.
const HEAD: &str =
    "# Failures that are accepted for now; `postern check --update-baseline` keeps this file.\n";

/// Why failures are accepted, for those that are taken up.
#[derive(Clone, Debug)]
pub struct Grounds {
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds.
    pub until: Option<Date>,
}

/// A baseline after a report.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The whole file.
    pub text: String,
    /// What was changed, a sentence each.
    pub changes: Vec<String>,
    /// What was not, and why.
    pub remarks: Vec<String>,
}

/// Brings a baseline, which is the text, up to a report that no baseline was applied to.
///
/// Lowers what offends in fewer rows, removes what passed, and, where there are grounds, takes up
/// failures that are new and writes those of `anew` as they are, higher or not. What was skipped,
/// errored or left out stays as it is.
pub fn update(
    text: &str,
    baseline: &Baseline,
    report: &Report,
    grounds: Option<&Grounds>,
    anew: &[String],
) -> Result<Updated> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let message = format!("the baseline cannot be edited: {}", error.message());
        Error::new(ErrorKind::Definition, message)
    })?;
    let mut entries = match document.remove("accept").map(Item::into_array_of_tables) {
        Some(Ok(entries)) => entries,
        _ => ArrayOfTables::new(),
    };
    let mut updated = Updated {
        text: String::new(),
        changes: Vec::new(),
        remarks: Vec::new(),
    };
    for gate in &report.gates {
        let at = entries
            .iter()
            .position(|entry| entry.get("gate").and_then(Item::as_str) == Some(&gate.id));
        let is_named = anew.contains(&gate.id);
        let accepted = baseline.of(&gate.id).map(|found| found.rows);
        let step = step(gate, accepted, grounds, is_named, &mut updated.remarks);
        match (step, at) {
            (Step::Keep, _) | (Step::Remove, None) => {}
            (Step::Remove, Some(at)) => {
                remove(&mut entries, at, &mut document);
                updated
                    .changes
                    .push(format!("{} removed: it holds", gate.id));
            }
            (Step::Write(rows, grounds), Some(at)) => {
                if let Some(entry) = entries.get_mut(at) {
                    write(entry, rows, grounds);
                    let was = accepted.unwrap_or_default();
                    let change = format!("{}: {was} accepted, now {rows}", gate.id);
                    updated.changes.push(change);
                }
            }
            (Step::Write(rows, grounds), None) => {
                let mut entry = Table::new();
                // The first goes below what stands in a file without entries.
                let head = match document.trailing().as_str() {
                    _ if !entries.is_empty() => String::new(),
                    Some(head) if !head.trim().is_empty() => head.to_owned(),
                    _ => HEAD.to_owned(),
                };
                if !head.is_empty() {
                    document.set_trailing("");
                }
                entry.decor_mut().set_prefix(format!("{head}\n"));
                entry.insert("gate", value(&gate.id));
                write(&mut entry, rows, grounds);
                entries.push(entry);
                let rows = rows_of(rows, "row");
                updated
                    .changes
                    .push(format!("{} accepted: {rows}", gate.id));
            }
        }
    }
    for name in anew {
        if !report.gates.iter().any(|gate| gate.id == *name) {
            let remark = format!("`{name}` was not selected, its acceptance stays as it is");
            updated.remarks.push(remark);
        }
    }
    if !entries.is_empty() {
        document.insert("accept", Item::ArrayOfTables(entries));
    }
    updated.text = if updated.changes.is_empty() {
        text.to_owned()
    } else {
        document.to_string()
    };
    Ok(updated)
}

/// What becomes of one acceptance.
enum Step<'a> {
    Keep,
    Remove,
    /// The number, and grounds where they are new.
    Write(u64, Option<&'a Grounds>),
}

fn step<'a>(
    gate: &GateReport,
    accepted: Option<u64>,
    grounds: Option<&'a Grounds>,
    is_named: bool,
    remarks: &mut Vec<String>,
) -> Step<'a> {
    let id = &gate.id;
    match (gate.outcome, gate.rows_acceptable, accepted, grounds) {
        (State::Passed | State::Warned, ..) => {
            if is_named {
                remarks.push(format!("`{id}` did not fail, there is nothing to accept"));
            }
            Step::Remove
        }
        (State::Skipped | State::Errored, ..) => {
            if is_named {
                remarks.push(format!(
                    "`{id}` was {}, which cannot be accepted",
                    gate.outcome.as_str()
                ));
            }
            Step::Keep
        }
        (State::Failed, None, ..) => {
            if is_named || (accepted.is_none() && grounds.is_some()) {
                remarks.push(format!(
                    "`{id}` failed for more than rows that were counted, which cannot be accepted"
                ));
            }
            Step::Keep
        }
        (State::Failed, Some(rows), Some(_), Some(grounds)) if is_named => {
            Step::Write(rows, Some(grounds))
        }
        (State::Failed, Some(rows), None, Some(grounds)) => Step::Write(rows, Some(grounds)),
        (State::Failed, Some(_), None, None) => {
            remarks.push(format!(
                "`{id}` fails and is not accepted; --reason and --owner take it up"
            ));
            Step::Keep
        }
        (State::Failed, Some(rows), Some(most), _) if rows < most => Step::Write(rows, None),
        (State::Failed, Some(rows), Some(most), _) => {
            if rows > most {
                remarks.push(format!(
                    "`{id}` fails with {}, more than the {most} accepted; --accept {id} raises that",
                    rows_of(rows, "row")
                ));
            }
            Step::Keep
        }
    }
}

/// Writes the number, and the grounds where they are new; comments beside values stay.
fn write(entry: &mut Table, rows: u64, grounds: Option<&Grounds>) {
    let mut set = |key: &str, new: Value| match entry.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => {
            entry.insert(key, Item::Value(new));
        }
    };
    set("rows", i64::try_from(rows).unwrap_or(i64::MAX).into());
    let Some(grounds) = grounds else { return };
    set("reason", grounds.reason.as_str().into());
    set("owner", grounds.owner.as_str().into());
    match grounds.until {
        Some(day) => set("until", day.to_string().into()),
        None => {
            entry.remove("until");
        }
    }
}

/// Removes an entry with the comment right above it; what stands further up, such as the head of the
/// file, is not about it.
fn remove(entries: &mut ArrayOfTables, at: usize, document: &mut DocumentMut) {
    let above = entries.get(at).and_then(|entry| entry.decor().prefix());
    let above = above.and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let kept = above
        .rfind("\n\n")
        .map_or("", |end| &above[..=end])
        .to_owned();
    entries.remove(at);
    if kept.trim().is_empty() {
        return;
    }
    if let Some(next) = entries.get_mut(at) {
        let own = next.decor().prefix().and_then(|prefix| prefix.as_str());
        let own = own.unwrap_or_default();
        let prefix = format!(
            "{kept}{}{own}",
            if own.starts_with('\n') { "" } else { "\n" }
        );
        next.decor_mut().set_prefix(prefix);
    } else {
        let end = document.trailing().as_str().unwrap_or_default();
        document.set_trailing(format!("{kept}{end}"));
    }
}
