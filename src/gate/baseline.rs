//! Baselines: failures that a project accepts for now, each up to a number of rows, with a reason, an
//! owner and perhaps a last day.
//!
//! Knows no clock: whoever judges says which day it is.

use std::collections::HashMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Errors, nearest};
use crate::source::{Place, Problem, SourceFile, Table, parse_document, read};

/// The `[[accept]]` table of a baseline.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AcceptanceFields {
    /// The gate whose failure is accepted.
    gate: String,
    /// Up to how many offending rows.
    rows: u64,
    /// Why.
    reason: String,
    /// Who answers for it.
    owner: String,
    /// The last day on which it holds, as 2026-12-31.
    until: Option<String>,
}

/// A failure that is accepted for now.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// The gate.
    pub gate: String,
    /// Up to how many offending rows.
    pub rows: u64,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds.
    pub until: Option<Date>,
    /// Where it is written.
    pub place: Place,
    table: Table,
}

/// What an acceptance comes to in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The gate failed with no more rows than are accepted: it is told and does not block.
    Holds,
    /// The gate failed with more rows than are accepted.
    Exceeded,
    /// The gate failed, and the last day is over.
    Expired,
    /// The gate did not fail.
    Unneeded,
    /// The gate errored, or failed for more than rows that can be counted: that cannot be accepted.
    Inapplicable,
}

impl Acceptance {
    /// What it comes to for a failure of so many rows, on a day; a day that is not known is too late.
    pub fn standing(&self, rows: Option<u64>, day: Option<Date>) -> Standing {
        let is_over = self
            .until
            .is_some_and(|until| day.is_none_or(|day| day > until));
        match rows {
            None => Standing::Inapplicable,
            Some(_) if is_over => Standing::Expired,
            Some(rows) if rows > self.rows => Standing::Exceeded,
            Some(_) => Standing::Holds,
        }
    }
}

/// All acceptances of a run; none where there is no file.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    /// In the order of the file, one per gate at the most.
    pub acceptances: Vec<Acceptance>,
    file: Option<SourceFile>,
}

impl Baseline {
    /// Reads a baseline, or says every mistake in it.
    pub fn parse(file: &SourceFile) -> Result<Self, Errors> {
        let root = parse_document(file).map_err(Errors)?.into_inner();
        let mut errors = Vec::new();
        let mut acceptances: Vec<Acceptance> = Vec::new();
        for (key, value) in root {
            if key.get_ref() != "accept" {
                let message = format!("unknown table `{}` in a baseline", key.get_ref());
                errors.push(file.error(key.span(), message, "expected [[accept]]"));
                continue;
            }
            let span = value.span();
            let DeValue::Array(items) = value.into_inner() else {
                let label = "expected [[accept]] with two brackets";
                errors.push(file.error(span, "`accept` is not a list of tables", label));
                continue;
            };
            for item in items {
                match acceptance(file, item) {
                    Ok(found) => acceptances.push(found),
                    Err(found) => errors.extend(found),
                }
            }
        }
        let mut first: HashMap<&str, &Acceptance> = HashMap::new();
        for found in &acceptances {
            if let Some(earlier) = first.get(found.gate.as_str()) {
                let message = format!("the gate `{}` is accepted twice", found.gate);
                let error = file.error(found.table.span("gate"), message, "");
                errors.push(error.note(format!("the first time at {}", earlier.place)));
            }
            first.entry(&found.gate).or_insert(found);
        }
        Errors(errors).into_result()?;
        Ok(Self {
            acceptances,
            file: Some(file.clone()),
        })
    }

    /// Acceptances of gates that no definition has: a gate that was renamed is not accepted, and nobody
    /// would notice.
    pub fn check(&self, gates: &[String]) -> Result<(), Errors> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let unknown = self
            .acceptances
            .iter()
            .filter(|found| !gates.contains(&found.gate));
        let errors = unknown.map(|found| {
            let message = format!("there is no gate `{}`", found.gate);
            let error = file.error(found.table.span("gate"), message, "");
            match nearest(&found.gate, gates.iter().map(String::as_str)) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("remove the acceptance, or name the gate that it is for"),
            }
        });
        Errors(errors.collect()).into_result()
    }

    /// The acceptance of a gate.
    pub fn of(&self, gate: &str) -> Option<&Acceptance> {
        self.acceptances.iter().find(|found| found.gate == gate)
    }
}

/// A day as it is written: 2026-12-31, and nothing more.
pub fn day(text: &str) -> Option<Date> {
    let day: Date = text.parse().ok()?;
    (day.to_string() == text).then_some(day)
}

/// One `[[accept]]`.
fn acceptance(file: &SourceFile, item: Spanned<DeValue<'_>>) -> Result<Acceptance, Vec<Error>> {
    let header = item.span();
    let DeValue::Table(mut table) = item.into_inner() else {
        return Err(vec![file.error(
            header,
            "an acceptance is not a table",
            "expected [[accept]]",
        )]);
    };
    as_text(&mut table, "until");
    let place = file.place(header.start);
    let fields = Table::new("an acceptance", header, &table);
    let found: AcceptanceFields = read(file, &fields, table, &[])?;
    let mut problems = Vec::new();
    if found.rows == 0 {
        let problem = Problem::new("rows", "an acceptance of no row accepts nothing");
        problems.push(problem.help("write how many rows may offend, or remove the acceptance"));
    }
    for (field, text) in [("reason", &found.reason), ("owner", &found.owner)] {
        if text.trim().is_empty() {
            problems.push(Problem::new(field, format!("`{field}` is empty")));
        }
    }
    let until = found.until.as_deref().map(|text| {
        day(text).ok_or_else(|| Problem::new("until", format!("`{text}` is not a day")))
    });
    let until = until.transpose().unwrap_or_else(|problem| {
        problems.push(problem.help("write it as 2026-12-31"));
        None
    });
    if !problems.is_empty() {
        let errors = problems.iter().map(|problem| fields.error(file, problem));
        return Err(errors.collect());
    }
    Ok(Acceptance {
        gate: found.gate,
        rows: found.rows,
        reason: found.reason,
        owner: found.owner,
        until,
        place,
        table: fields,
    })
}

/// TOML has days of its own; they read like those in quotes.
fn as_text(table: &mut DeTable<'_>, field: &str) {
    if let Some(value) = table.get_mut(field)
        && let DeValue::Datetime(day) = value.get_ref()
    {
        *value = Spanned::new(value.span(), DeValue::String(day.to_string().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<Baseline, Errors> {
        Baseline::parse(&SourceFile {
            path: "postern.baseline.toml".into(),
            text: text.into(),
        })
    }

    #[rstest]
    #[case(Some(37), "2026-12-31", Standing::Holds)]
    #[case(Some(36), "2026-12-30", Standing::Holds)]
    #[case(Some(38), "2026-12-31", Standing::Exceeded)]
    #[case(Some(37), "2027-01-01", Standing::Expired)]
    #[case(Some(37), "no day", Standing::Expired)]
    #[case(None, "2026-12-31", Standing::Inapplicable)]
    fn an_acceptance_holds_up_to_its_rows_and_its_last_day(
        #[case] rows: Option<u64>,
        #[case] today: &str,
        #[case] expected: Standing,
    ) {
        for until in ["\"2026-12-31\"", "2026-12-31"] {
            let text =
                format!("[[accept]]\ngate='g'\nrows=37\nreason='r'\nowner='o'\nuntil={until}");
            let baseline = parse(&text).expect("it is right");
            let found = baseline.of("g").expect("it is there");
            assert_eq!(found.standing(rows, day(today)), expected, "{until}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "[[accept]]\ngate='g'\nrows=0\nreason=' '\nowner='o'\nuntil='2026-13-01'\n\
                    [[accept]]\ngate='h'\nrows=-1\nraeson='r'\nowner='o'\nuntil=2026-12-31T10:00:00\n\
                    [[accept]]\ngate='i'\nrows=1\nreason='r'\nowner='o'\n\
                    [[accept]]\ngate='i'\nrows=1\nreason='r'\nowner='o'\n\
                    [acept]\n";
        let errors = parse(text).expect_err("it is wrong");
        let told: Vec<String> = errors.0.iter().map(Error::one_line).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
