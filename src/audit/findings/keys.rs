//! What is broken about references, declared or only named, and where they lead.

use super::implied::{Implied, family};
use super::{Finding, Kind, Known, Severity};
use crate::audit::catalog::{Key, Name, Table};
use crate::audit::zones::Crossing;
use crate::gate::threshold::{count, rows_of};
use crate::sql;
use crate::sql::{Fixed, Ident, Sql};

/// From this many rows on, a missing index is a problem of today.
const MANY_ROWS: u64 = 10_000;

pub(super) fn find(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in &known.catalog.keys {
        declared(known, key, &mut findings);
    }
    for implied in known.implied {
        findings.extend(
            orphans(
                &implied.table,
                &implied.references,
                std::slice::from_ref(&implied.column),
                std::slice::from_ref(&implied.referenced_column),
                implied.orphans,
            )
            .map(|finding| doubtful(finding, implied)),
        );
        if implied.is_target_unique {
            findings.push(undeclared(known, implied));
        }
    }
    findings.extend(not_unique(known));
    findings
}

fn declared(known: &Known<'_>, key: &Key, findings: &mut Vec<Finding>) {
    let object = format!("{} ({})", key.table, key.columns.join(", "));
    let target = format!("{} ({})", key.references, key.referenced_columns.join(", "));
    let finding = |kind, severity, what| {
        let tables = vec![key.table.clone(), key.references.clone()];
        Finding::new(kind, severity, object.clone(), tables, what)
    };
    findings.extend(orphans(
        &key.table,
        &key.references,
        &key.columns,
        &key.referenced_columns,
        key.orphans,
    ));
    if !key.is_enforced {
        let off: Vec<String> = key.disabled_on.iter().map(Name::to_string).collect();
        let repairs = key
            .disabled_on
            .iter()
            .map(|table| sql!("alter table {} enable trigger all", table.relation()));
        let found = if off.is_empty() {
            finding(
                Kind::KeyNotEnforced,
                Severity::Critical,
                format!("`{}` to {target} is declared NOT ENFORCED", key.name),
            )
            .repair(&sql!(
                "alter table {} alter constraint {} enforced",
                key.table.relation(),
                Ident::new(&*key.name)
            ))
        } else {
            let what = format!(
                "`{}` to {target} checks nothing: its triggers are switched off on {}",
                key.name,
                off.join(" and ")
            );
            finding(Kind::KeyNotEnforced, Severity::Critical, what)
                .repair(&Sql::join("; ", repairs))
        };
        findings.push(found);
    }
    if !key.is_valid && key.is_enforced {
        let what = format!("`{}` to {target} is NOT VALID", key.name);
        findings.push(
            finding(Kind::KeyNotValid, Severity::Critical, what).repair(&sql!(
                "alter table {} validate constraint {}",
                key.table.relation(),
                Ident::new(&*key.name)
            )),
        );
    }
    let (Some(own), Some(other)) = (table(known, &key.table), table(known, &key.references)) else {
        return;
    };
    let pairs = key.columns.iter().zip(&key.referenced_columns);
    let differing = pairs.filter_map(|(a, b)| {
        let (a, b) = (own.column(a)?, other.column(b)?);
        (a.type_name != b.type_name).then_some((a, b))
    });
    for (a, b) in differing {
        let severity = if family(&a.type_name) == family(&b.type_name) {
            Severity::Info
        } else {
            Severity::High
        };
        let what = format!(
            "`{}` is {}, {} is {}",
            a.name,
            a.type_name,
            key.references.part(&b.name),
            b.type_name
        );
        findings.push(finding(Kind::KeyTypeMismatch, severity, what));
    }
    if !is_indexed(known, &key.table, &key.columns) {
        findings.push(without_index(own, &key.columns, &key.references));
    }
    let zones = known.zones;
    let crossing = zones.crossing(key);
    let crosses = if zones.is_empty() {
        format!("refers to {target} in another schema")
    } else {
        format!(
            "refers from zone `{}` to {target} in zone `{}`",
            zones.of(&key.table.schema),
            zones.of(&key.references.schema)
        )
    };
    match crossing {
        Crossing::None => {}
        Crossing::Across => findings.push(finding(Kind::CrossSchemaKey, Severity::Info, crosses)),
        Crossing::Against => findings.push(finding(Kind::KeyAgainstFlow, Severity::High, crosses)),
    }
}

/// Rows that refer to nothing, where they were counted and are there.
fn orphans(
    table: &Name,
    references: &Name,
    columns: &[String],
    referenced: &[String],
    orphans: Option<u64>,
) -> Option<Finding> {
    let orphans = orphans.filter(|orphans| *orphans > 0)?;
    let what = format!(
        "{} to nothing in {references} ({})",
        if orphans == 1 {
            "1 row refers".to_owned()
        } else {
            format!("{} rows refer", count(orphans))
        },
        referenced.join(", ")
    );
    let object = format!("{table} ({})", columns.join(", "));
    let tables = vec![table.clone(), references.clone()];
    Some(Finding::new(
        Kind::OrphanedRows,
        Severity::Critical,
        object,
        tables,
        what,
    ))
}

/// Orphans of a reference that the name alone tells: where it fits several tables, the rows may refer
/// to another one and be sound.
fn doubtful(mut finding: Finding, implied: &Implied) -> Finding {
    if !implied.alternatives.is_empty() {
        let others: Vec<String> = implied.alternatives.iter().map(Name::to_string).collect();
        finding.severity = Severity::High;
        finding
            .what
            .push_str(&format!("; its name fits {}, too", others.join(", ")));
    }
    finding
}

/// A reference by name alone, to something that is unique.
fn undeclared(known: &Known<'_>, implied: &Implied) -> Finding {
    let target = implied.references.part(&implied.referenced_column);
    let tables = vec![implied.table.clone(), implied.references.clone()];
    let object = format!("{} ({})", implied.table, implied.column);
    if !implied.is_comparable() {
        let what = format!(
            "it is {}, and {target}, which it refers to by its name, is {}; no key is declared, and none can be",
            implied.type_name, implied.referenced_type
        );
        return Finding::new(Kind::KeyTypeMismatch, Severity::High, object, tables, what);
    }
    let mut what = format!("refers by its name to {target}; no key is declared");
    if !implied.alternatives.is_empty() {
        let names: Vec<String> = implied
            .alternatives
            .iter()
            .take(3)
            .map(Name::to_string)
            .collect();
        let more = implied.alternatives.len().saturating_sub(3);
        what.push_str(&format!("; {} would fit as well", names.join(", ")));
        if more > 0 {
            what.push_str(&format!(", and {} more", count(more as u64)));
        }
    }
    if implied.type_name != implied.referenced_type {
        what.push_str(&format!(
            "; it is {}, the other {}",
            implied.type_name, implied.referenced_type
        ));
    }
    if !is_indexed(known, &implied.table, std::slice::from_ref(&implied.column)) {
        what.push_str("; no index leads with it");
    }
    let finding = Finding::new(Kind::UndeclaredKey, Severity::High, object, tables, what);
    if implied.is_tied {
        return finding;
    }
    let name = Ident::new(constraint_name(&implied.table.name, &implied.column));
    let own = implied.table.relation();
    let is_partitioned = table(known, &implied.table)
        .is_some_and(|table| table.kind == crate::audit::catalog::TableKind::Partitioned);
    let add = sql!(
        "alter table {} add constraint {} foreign key ({}) references {} ({})",
        own,
        name,
        Ident::new(&*implied.column),
        implied.references.relation(),
        Ident::new(&*implied.referenced_column)
    );
    if is_partitioned {
        // Postgres has no NOT VALID keys on partitioned tables before version 18.
        finding.repair(&add)
    } else {
        finding.repair(&sql!(
            "{} not valid; alter table {} validate constraint {}",
            add,
            own,
            name
        ))
    }
}

/// The name Postgres would give, within its 63 bytes.
fn constraint_name(table: &str, column: &str) -> String {
    let whole = format!("{table}_{column}");
    format!("{}_fkey", &whole[..whole.floor_char_boundary(58)])
}

/// References by name to tables whose column nothing keeps unique: one finding per such column.
fn not_unique(known: &Known<'_>) -> Vec<Finding> {
    let mut targets: std::collections::BTreeMap<(&Name, &str), Vec<&Implied>> =
        std::collections::BTreeMap::new();
    for implied in known
        .implied
        .iter()
        .filter(|implied| !implied.is_target_unique)
    {
        let target = (&implied.references, implied.referenced_column.as_str());
        targets.entry(target).or_default().push(implied);
    }
    targets
        .into_iter()
        .map(|((target, column), from)| {
            let named: Vec<String> = from
                .iter()
                .take(3)
                .map(|from| from.table.part(&from.column))
                .collect();
            let more = from.len().saturating_sub(3);
            let is_repeating = from.iter().any(|from| from.is_repeating());
            let known = match from.iter().find_map(|from| from.target_distinct) {
                Some(_) if is_repeating => "its values repeat, so it is no key alone",
                Some(_) => "its values do not repeat, but nothing keeps it so",
                None => "nothing keeps it unique",
            };
            let mut what = format!(
                "{known}; {} to it by name: {}",
                if from.len() == 1 {
                    "1 column refers".to_owned()
                } else {
                    format!("{} columns refer", count(from.len() as u64))
                },
                named.join(", ")
            );
            if more > 0 {
                what.push_str(&format!(" and {} more", count(more as u64)));
            }
            let mut tables = vec![target.clone()];
            tables.extend(from.iter().map(|from| from.table.clone()));
            let object = format!("{target} ({column})");
            let severity = if is_repeating {
                Severity::Info
            } else {
                Severity::High
            };
            let kind = Kind::KeyTargetNotUnique;
            let finding = Finding::new(kind, severity, object, tables, what);
            if is_repeating {
                return finding;
            }
            finding.repair(&sql!(
                "alter table {} add unique ({})",
                target.relation(),
                Ident::new(column)
            ))
        })
        .collect()
}

fn without_index(table: &Table, columns: &[String], references: &Name) -> Finding {
    let severity = if table.rows() >= MANY_ROWS {
        Severity::High
    } else {
        Severity::Info
    };
    let what = format!(
        "no index leads with the columns that refer to {references}; {}",
        rows_of(table.rows(), "row")
    );
    let object = format!("{} ({})", table.name, columns.join(", "));
    let tables = vec![table.name.clone(), references.clone()];
    let finding = Finding::new(Kind::KeyWithoutIndex, severity, object, tables, what);
    // A partitioned table cannot have an index built concurrently.
    let concurrently = Fixed(
        if table.kind == crate::audit::catalog::TableKind::Partitioned {
            ""
        } else {
            "concurrently "
        },
    );
    finding.repair(&sql!(
        "create index {}on {} ({})",
        concurrently,
        table.name.relation(),
        Sql::join(", ", columns.iter().map(|column| Ident::new(&**column)))
    ))
}

/// Whether an index of the table leads with the columns, in any order.
pub(super) fn is_indexed(known: &Known<'_>, table: &Name, columns: &[String]) -> bool {
    let Some(&at) = known.by_name.get(table) else {
        return true;
    };
    known.indexes[at]
        .iter()
        .map(|index| &known.catalog.indexes[*index])
        .any(|index| super::indexes::serves(index, columns))
}

fn table<'a>(known: &Known<'a>, name: &Name) -> Option<&'a Table> {
    known.by_name.get(name).map(|at| &known.catalog.tables[*at])
}
