//! What is legal in definitions, and suspicious.
//!
//! Pure: a warning is an [`Error`] that was never raised.

use std::collections::BTreeMap;

use crate::error::Error;

use super::threshold::Amount;
use super::{COMMON_FIELDS, DefinitionFile, Gate, OnEmpty};

/// Every suspicion, file by file in the order of `files`, each at its place.
///
/// With some of the gates selected, give only those, and only their files: see [`of`].
pub fn lint(gates: &[Gate], files: &[DefinitionFile]) -> Vec<Error> {
    let mut warnings = Vec::new();
    for file in files {
        if file.is_empty {
            warnings.push(
                file.file
                    .error(0..0, "this suite has no gate", "")
                    .help("write a [[gate]], or remove the file: a suite that asks nothing looks like one that holds"),
            );
        }
        for (name, span) in &file.unused_vars {
            warnings.push(
                file.file
                    .error(
                        span.clone(),
                        format!("the variable `{name}` is never used"),
                        "",
                    )
                    .help(format!(
                        "write ${{{name}}} in a gate of this file, or remove it"
                    )),
            );
        }
    }
    for gate in gates {
        warnings.extend(no_reason(gate));
        warnings.extend(empty_passes(gate));
        warnings.extend(holds_always(gate));
        warnings.extend(never_passes(gate));
    }
    warnings.extend(asked_twice(gates));
    let order: BTreeMap<_, usize> = (0..)
        .zip(files)
        .map(|(index, file)| (file.file.path.as_path(), index))
        .collect();
    warnings.sort_by_key(|warning| {
        warning
            .excerpts()
            .first()
            .map(|at| (order.get(at.file.as_path()).copied(), at.span.start))
    });
    warnings
}

/// The files in which gates stand.
pub fn of(gates: &[Gate], files: Vec<DefinitionFile>) -> Vec<DefinitionFile> {
    let holds = |file: &DefinitionFile| {
        let mut gates = gates.iter();
        gates.any(|gate| gate.origin.file.path == file.file.path)
    };
    files.into_iter().filter(holds).collect()
}

/// A warning at a field of a gate.
fn at(gate: &Gate, field: &str, message: String) -> Error {
    let origin = &gate.origin;
    origin.file.error(origin.fields.span(field), message, "")
}

fn no_reason(gate: &Gate) -> Option<Error> {
    let says = gate
        .why
        .as_deref()
        .is_some_and(|why| !why.trim().is_empty());
    (!says).then(|| {
        at(
            gate,
            "id",
            format!("the gate `{}` does not say why", gate.id),
        )
        .help("add `why`: it is printed when the gate fails, to somebody who did not write it")
    })
}

fn empty_passes(gate: &Gate) -> Option<Error> {
    // A key that must be declared, or the like, is asked of an empty table, too.
    let required = gate.origin.fields.values().get("require");
    let is_held = required
        .and_then(serde_json::Value::as_array)
        .is_some_and(|what| !what.is_empty());
    (gate.on_empty == OnEmpty::Pass && !is_held).then(|| {
        at(
            gate,
            "on_empty",
            format!("the gate `{}` passes when there is nothing to look at", gate.id),
        )
        .note("a load that failed and a `where` that matches nothing leave no rows either, and both would pass")
        .help("write \"skip\", which is told, or \"fail\"; or hold the table to a `row_count` as well")
    })
}

fn holds_always(gate: &Gate) -> Option<Error> {
    let written = gate.origin.fields.values().get("at_least")?;
    let amount: Amount = serde_json::from_value(written.clone()).ok()?;
    // Beside `at_most`, 0 rows say that an empty table is as it should be.
    let means_empty =
        matches!(amount, Amount::Rows(_)) && gate.origin.fields.values().contains_key("at_most");
    (amount.is_nothing() && !means_empty).then(|| {
        at(
            gate,
            "at_least",
            format!(
                "the level of `{}` always holds: nothing is below {amount}",
                gate.id
            ),
        )
        .help("set `at_least` to what the data must reach")
    })
}

/// A sample of a gate that allows no offending row can only fail it.
fn never_passes(gate: &Gate) -> Option<Error> {
    gate.sample?;
    let rule = gate.definition.sampling().ok()?;
    rule.allows_none().then(|| {
        let message = format!("the gate `{}` can never pass: no sample shows that not one row offends", gate.id);
        at(gate, "sample", message)
            .note("what the catalog proves passes without a look at any row, and so without its sample")
            .help("allow a share of offending rows, or remove `sample`")
    })
}

/// Gates of one kind with the same fields but for those that every gate has.
fn asked_twice(gates: &[Gate]) -> Vec<Error> {
    let mut warnings = Vec::new();
    let mut first: BTreeMap<(&str, String), &Gate> = BTreeMap::new();
    for gate in gates {
        let own: BTreeMap<_, _> = gate
            .origin
            .fields
            .values()
            .iter()
            .filter(|(name, _)| *name == "sample" || !COMMON_FIELDS.contains(&name.as_str()))
            .collect();
        let fields = serde_json::json!(own).to_string();
        match first.get(&(gate.kind, fields.clone())) {
            Some(earlier) => warnings.push(
                at(
                    gate,
                    "id",
                    format!("the gate `{}` asks the same as `{}`", gate.id, earlier.id),
                )
                .note(format!("that one is at {}", earlier.place))
                .help("remove one of them, or say what sets them apart"),
            ),
            None => {
                first.insert((gate.kind, fields), gate);
            }
        }
    }
    warnings
}
