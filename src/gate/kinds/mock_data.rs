//! Kind `mock_data`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Catalog, Column, RelationInfo, RelationKind, matches};
use crate::gate::fields::{SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost, count, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty,
    Scope, Verdict,
};
use crate::source::Problem;
use crate::sql;

use super::Definition;

use super::shared::{scope_needs, scope_of};

mod sentinel;
mod text;

use sentinel::Sentinel;

/// Is there test, placeholder or generated data here? Looks at the text, date and number columns of
/// one table, or of every table of `schemas`, whose names are looked at too.
///
/// `low` takes a text that is nothing but a placeholder (`test`, `dummy`, `test_123`, `lorem ipsum …`,
/// `asdf`, …), a mail address of a domain reserved by RFC 2606, and a card number given out for tests.
/// `medium`, the default, also a placeholder word within a text (`mock`, `dummy`, `fake`, …), a
/// generated name (`user1`, `Customer 12`), a telephone number reserved for fiction (555-0100 to
/// 555-0199), and a date or number that stands for none (1970-01-01, 1900-01-01, 9999-12-31, …; 999,
/// 9999, 12345, -1, …) where at least three rows hold it and fewer hold anything near it. `high` also
/// `test`, `sample` and `example` within a text, and such a date or number in a single row.
///
/// Words count as words, not as parts of one. In columns with names of people `Dummy`, `Mock` and
/// `Sample` are names. Numbers in keys, and in columns called after an id, code, number or year, and
/// far dates in columns called after an end, are left out unless `columns` names them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MockData {
    /// The table or view; or else `schemas`.
    table: Option<TableName>,
    /// Every table of the schemas that match, `*` standing for any text; system schemas are left out.
    #[serde(default)]
    schemas: Vec<String>,
    /// The columns of `table` to look at; every text, date and number column where nothing is said.
    #[serde(default)]
    columns: Vec<String>,
    /// Only rows of `table` for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// How much is taken for mock data: `low`, `medium` (the default) or `high`.
    #[serde(default)]
    sensitivity: Sensitivity,
    /// What is not looked at: `schema.table` or `schema.table.column`, `*` standing for any text.
    #[serde(default)]
    allow: Vec<String>,
    /// Fails above this many offending rows, or this share of rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Sensitivity {
    Low,
    #[default]
    Medium,
    High,
}

/// Parts of a table's name that say it is no production table.
const NAMES: &[&str] = &[
    "test",
    "tests",
    "mock",
    "dummy",
    "fake",
    "benchmark",
    "tmp",
    "temp",
];

/// What of one table is looked at.
struct Looked<'a> {
    table: &'a RelationInfo,
    name: String,
    scope: Scope,
    texts: Vec<&'a str>,
    sentinels: Vec<Sentinel>,
}

impl MockData {
    fn is_allowed(&self, name: &str) -> bool {
        self.allow.iter().any(|pattern| matches(pattern, name))
    }

    /// The tables that are looked at, in order of their names.
    fn tables<'a>(&'a self, known: &'a Known<'_>) -> Result<Vec<Looked<'a>>> {
        let catalog = known.catalog();
        if let Some(table) = &self.table {
            let mut looked = self.looked(catalog, catalog.relation(&table.0)?)?;
            looked.scope = looked.scope.sampled(known.sample);
            return Ok(vec![looked]);
        }
        catalog
            .in_schemas(&self.schemas)
            // A view shows rows of tables that are looked at themselves.
            .filter(|table| table.kind != RelationKind::View)
            .filter(|table| !self.is_allowed(&table.relation.readable()))
            .map(|table| self.looked(catalog, table))
            .collect()
    }

    fn looked<'a>(&'a self, catalog: &Catalog, table: &'a RelationInfo) -> Result<Looked<'a>> {
        let name = table.relation.readable();
        let columns: Vec<&Column> = if self.columns.is_empty() {
            let all = table.columns.iter();
            all.filter(|column| text::is_text(column) || sentinel::can_hold(catalog, table, column))
                .filter(|column| !self.is_allowed(&format!("{name}.{}", column.name)))
                .collect()
        } else {
            table.columns_named(&self.columns)?
        };
        let (numbers, texts): (Vec<&Column>, Vec<&Column>) = columns
            .into_iter()
            .partition(|column| column.category == 'N' || sentinel::is_date(column));
        let has_sentinels = sentinel::least(self.sensitivity).is_some();
        Ok(Looked {
            scope: scope_of(table, self.r#where.as_ref()),
            texts: texts.iter().map(|column| column.name.as_str()).collect(),
            sentinels: numbers
                .into_iter()
                .filter(|_| has_sentinels)
                .flat_map(sentinel::of)
                .collect(),
            table,
            name,
        })
    }
}

impl Looked<'_> {
    /// Counts rows, rows with made-up text, and rows with any sentinel.
    fn ask(&self, known: &Known<'_>, sensitivity: Sensitivity, ask: &mut Ask) -> Result<()> {
        let Self { name, scope, .. } = self;
        let count = |what: &str, when| Aggregate::count(format!("{what} {name}"), scope, when);
        ask.measures.push(count("rows", None));
        if let Some(made_up) = text::condition(self.table, &self.texts, sensitivity) {
            let key = self.table.row_key(&[])?;
            let evidence = Evidence::rows(format!("mock {name}"), scope, key, &made_up);
            let texts = self.texts.iter().map(|&column| column.to_owned());
            let values = known.values(self.table, &texts.collect::<Vec<_>>())?;
            ask.evidence
                .push(evidence.showing(values).because(name.clone()));
            ask.measures.push(count("mock", Some(made_up)));
        }
        if let Some(any) = sentinel::any(&self.sentinels) {
            ask.measures.push(count("sentinels", Some(any)));
        }
        Ok(())
    }

    /// Which columns hold made-up text, once some do; how often each sentinel is there.
    fn ask_second(&self, sensitivity: Sensitivity, measured: &Measured, ask: &mut Ask) {
        let Self { name, scope, .. } = self;
        if self.n(measured, "mock") > 0 {
            for column in &self.texts {
                let label = format!("column {name}.{column}");
                let when = text::condition(self.table, &[column], sensitivity);
                ask.measures.push(Aggregate::count(label, scope, when));
            }
        }
        let least = sentinel::least(sensitivity);
        if least.is_some_and(|least| self.n(measured, "sentinels") >= least) {
            let each = self.sentinels.iter();
            ask.measures
                .extend(each.flat_map(|sentinel| sentinel.measures(scope, name)));
        }
    }

    /// The rows that hold a suspicious sentinel and no made-up text, which are counted already.
    fn ask_third(
        &self,
        known: &Known<'_>,
        sensitivity: Sensitivity,
        measured: &Measured,
        ask: &mut Ask,
    ) -> Result<()> {
        let Self { name, scope, .. } = self;
        let least = sentinel::least(sensitivity).unwrap_or(u64::MAX);
        let suspicious: Vec<Sentinel> = self
            .sentinels
            .iter()
            .filter(|sentinel| sentinel.is_answered(measured, name))
            .filter(|sentinel| sentinel.is_suspicious(measured, name, least))
            .cloned()
            .collect();
        let Some(any) = sentinel::any(&suspicious) else {
            return Ok(());
        };
        let only = match text::condition(self.table, &self.texts, sensitivity) {
            Some(made_up) => sql!("{} and not {}", any, made_up),
            None => any,
        };
        let label = format!("sentinel {name}");
        let evidence = Evidence::rows(&label, scope, self.table.row_key(&[])?, &only);
        let mut columns: Vec<String> = suspicious.iter().map(|s| s.column.clone()).collect();
        columns.dedup();
        let values = known.values(self.table, &columns)?;
        ask.evidence
            .push(evidence.showing(values).because(name.clone()));
        ask.measures
            .push(Aggregate::count(label, scope, Some(only)));
        for sentinel in &suspicious {
            let label = format!("column {name}.{}", sentinel.name());
            let when = Some(sentinel.condition());
            ask.measures.push(Aggregate::count(label, scope, when));
        }
        Ok(())
    }

    /// A count, or 0 where it was not asked.
    fn n(&self, measured: &Measured, what: &str) -> u64 {
        let label = format!("{what} {}", self.name);
        if measured.has(&label) {
            measured.count(&label)
        } else {
            0
        }
    }
}

impl Definition for MockData {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for MockData {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.table.is_some() != self.schemas.is_empty() {
            problems.push(Problem::new(
                "schemas",
                "a `mock_data` gate has either `table` or `schemas`",
            ));
        }
        if self.table.is_none() && (!self.columns.is_empty() || self.r#where.is_some()) {
            problems.push(Problem::new(
                "schemas",
                "`columns` and `where` go with `table`, not with `schemas`",
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        match &self.table {
            Some(table) => scope_needs(&table.0, self.r#where.as_ref()),
            None => Needs {
                schemas: self.schemas.clone(),
                ..Needs::default()
            },
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let mut ask = Ask::default();
        for looked in self.tables(known)? {
            let own = looked.table.relation.name.as_str();
            let is_named = text::parts_of(own)
                .iter()
                .any(|part| NAMES.contains(&part.as_str()));
            if is_named && self.table.is_none() {
                ask.findings.push(Finding {
                    what: format!(
                        "the name of the table {} says that it is no production table",
                        looked.name
                    ),
                    is_failure: true,
                    repair: None,
                });
            }
            let has_columns = !looked.texts.is_empty() || !looked.sentinels.is_empty();
            // A table without a column to look at proves nothing; of a schema its name was looked at.
            if has_columns || self.table.is_none() {
                looked.ask(known, self.sensitivity, &mut ask)?;
            }
        }
        Ok(ask)
    }

    fn ask_more(&self, known: &Known<'_>, measured: &Measured) -> Result<Option<Ask>> {
        let mut ask = Ask::default();
        let tables = self.tables(known)?;
        if !measured.has("second") {
            ask.known.push(("second".to_owned(), None));
            for looked in &tables {
                looked.ask_second(self.sensitivity, measured, &mut ask);
            }
            return Ok((!ask.measures.is_empty()).then_some(ask));
        }
        if measured.has("third") {
            return Ok(None);
        }
        for looked in &tables {
            looked.ask_third(known, self.sensitivity, measured, &mut ask)?;
        }
        ask.known.push(("third".to_owned(), None));
        Ok((!ask.measures.is_empty()).then_some(ask))
    }

    fn sampling(&self) -> Result<Rule, Problem> {
        if self.table.is_none() {
            return Err(Problem::new(
                "sample",
                "`sample` goes with `table`, not with `schemas`",
            ));
        }
        if self.sensitivity != Sensitivity::Low {
            let what = "which dates and numbers stand for none shows in how often they are there, which a sample cannot tell";
            return Err(Problem::new("sample", what)
                .help("write sensitivity = \"low\", which looks at texts"));
        }
        let bound = AtMost::new(self.at_most, self.warn_above);
        Ok(Rule::at_most("rows ", bound))
    }

    fn follow_up(&self) -> Option<&'static str> {
        Some(
            "where a column holds what may be made up: the counts around such values, and the rows that hold them",
        )
    }

    fn names_rows(&self) -> bool {
        self.table.is_some()
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let rows = measured.sum("rows ");
        let mock = measured.sum("mock ") + measured.sum("sentinel ");
        let bound = AtMost::new(self.at_most, self.warn_above);
        let tables = measured.findings.len() as u64;
        let verdict = if tables > 0 {
            Verdict::Failed
        } else if rows == 0 {
            Verdict::Empty
        } else {
            bound.level(mock, rows).into()
        };
        let mut message = format!(
            "{} of {} look like mock data",
            count(mock),
            rows_of(rows, "row")
        );
        if tables > 0 {
            message.push_str(&format!("; {} by its name", rows_of(tables, "table")));
        }
        let mut findings = measured.findings.clone();
        findings.extend(
            measured
                .counts("column ")
                .filter(|(_, n)| *n > 0)
                .map(|(column, n)| Finding {
                    what: format!("{column} in {}", rows_of(n, "row")),
                    is_failure: false,
                    repair: None,
                }),
        );
        Judgement {
            verdict,
            rows_checked: Some(rows),
            rows_offending: Some(mock),
            measured: Figure::rows(mock),
            threshold: bound.bounds(),
            message,
            findings,
        }
    }
}
