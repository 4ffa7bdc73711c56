//! One reference: what to ask of its rows, and what the catalog says of its constraint.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Column, ForeignKey, RelationInfo, RelationKind, ShownColumn, Side};
use crate::gate::fields::SqlText;
use crate::gate::kinds::shared::scope_of;
use crate::gate::sampling::Sample;
use crate::gate::threshold::rows_of;
use crate::gate::{Aggregate, Ask, Evidence, Finding, Measure, Measured, Values};
use crate::sql;
use crate::sql::{Ident, Sql};

use super::repair;

/// Something a foreign key can be required to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Requirement {
    /// There is a constraint.
    Declared,
    /// Its existing rows were checked.
    Valid,
    /// Its triggers fire.
    Enforced,
    /// An index leads with the referencing columns.
    Indexed,
    /// Both sides have the same types.
    SameType,
}

impl Requirement {
    pub(super) const ALL: &'static [Self] = &[
        Self::Declared,
        Self::Valid,
        Self::Enforced,
        Self::Indexed,
        Self::SameType,
    ];
}

/// Columns that refer to columns, declared or not.
pub(super) struct Key<'a> {
    pub(super) table: &'a RelationInfo,
    pub(super) columns: &'a [String],
    pub(super) target: &'a RelationInfo,
    pub(super) referenced: &'a [String],
    pub(super) declared: Option<&'a ForeignKey>,
    pub(super) is_full: bool,
}

/// The label of the SQL that says what can be done about the orphans of a key.
const ABOUT_ORPHANS: &str = "about orphans ";
/// The label of what mends a finding, by its text, where its key has orphans; null where nothing does.
const WITH_ORPHANS: &str = "with orphans ";

/// That a key has orphans, as a finding; whether the gate fails for them says its threshold. Of a
/// sample it says no number, which would be none of the table.
pub(super) fn orphans(measured: &Measured, key: &str, n: u64) -> Finding {
    let is_sample = !measured.has(&format!("keys {key}"));
    let rows = match is_sample {
        true => "rows".to_owned(),
        false => rows_of(n, "row"),
    };
    let before = match key {
        "" => String::new(),
        key => format!("{key}: "),
    };
    Finding {
        what: format!("{before}{rows} without a row to refer to"),
        is_failure: false,
        repair: measured
            .text(&format!("{ABOUT_ORPHANS}{key}"))
            .map(str::to_owned),
    }
}

/// Something found, and what mends it while there are orphans, where that is something else.
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) with_orphans: Option<Option<Sql>>,
}

impl Found {
    /// Has it found and known.
    pub(super) fn add_to(self, ask: &mut Ask) {
        if let Some(repair) = self.with_orphans {
            let label = format!("{WITH_ORPHANS}{}", self.finding.what);
            let repair = repair.map(|sql| sql.as_str().to_owned());
            ask.known.push((label, repair));
        }
        ask.findings.push(self.finding);
    }
}

/// Makes of the repair of a finding about a key with orphans one that runs although they are there, or takes
/// it out until they are gone. Says how many they would be, where no key is declared yet.
pub(super) fn with_orphans(measured: &Measured, finding: &mut Finding, would_be: Option<u64>) {
    let label = format!("{WITH_ORPHANS}{}", finding.what);
    if let Some(rows) = would_be {
        let noun = if rows == 1 { "an orphan" } else { "orphans" };
        let would = format!("; {} would be {noun}", rows_of(rows, "row"));
        finding.what.push_str(&would);
    }
    if measured.has(&label) {
        finding.repair = measured.text(&label).map(str::to_owned);
        if finding.repair.is_none() {
            finding.what.push_str("; its orphans have to go first");
        }
    }
}

/// That a key refers to a table that is gone.
pub(super) fn missing_target(key: &ForeignKey) -> Finding {
    Finding {
        what: format!(
            "{}({}): the table that the foreign key `{}` refers to is gone",
            key.table.readable(),
            key.columns.join(", "),
            key.name
        ),
        is_failure: true,
        repair: Some(
            sql!(
                "alter table {} drop constraint {}",
                key.table,
                Ident::new(key.name.clone())
            )
            .as_str()
            .to_owned(),
        ),
    }
}

/// Whether Postgres can hold the values of two columns against each other as they are.
pub(super) fn are_comparable(one: &Column, other: &Column) -> bool {
    one.type_name == other.type_name
        || (one.category == other.category && matches!(one.category, 'N' | 'S'))
}

impl Key<'_> {
    /// `s.bets(game_id) → s.games(id)`.
    pub(super) fn name(&self) -> String {
        format!(
            "{}({}) → {}({})",
            self.table.relation.readable(),
            self.columns.join(", "),
            self.target.relation.readable(),
            self.referenced.join(", ")
        )
    }

    /// Its columns as a report shows them: they hold what the referenced ones hold, and where those are
    /// masked, so are they.
    fn shown(&self) -> Result<Vec<ShownColumn>> {
        let mut shown = self.table.shown(self.columns)?;
        for (own, other) in shown.iter_mut().zip(self.target.shown(self.referenced)?) {
            own.is_masked |= other.is_masked;
        }
        Ok(shown)
    }

    /// One test of every referencing column.
    fn each(&self, word: &'static str, test: &Sql) -> Sql {
        let tests = self.columns.iter().map(|name| {
            let name = Ident::new(name.clone());
            sql!("{}.{} {}", self.table.relation, name, test)
        });
        Sql::join(word, tests)
    }

    /// The rows that refer to something.
    pub(super) fn present(&self) -> Sql {
        self.each(" and ", &sql!("is not null"))
    }

    /// The rows that refer to something that is not there.
    pub(super) fn unmatched(&self) -> Sql {
        let columns = self.columns.iter().zip(self.referenced);
        let matching = columns.map(|(own, other)| {
            // Postgres has no equality between, say, text and integer; as texts they may be equal.
            let types = (self.table.column(own), self.target.column(other));
            let cast = match types {
                (Ok(own), Ok(other)) if !are_comparable(own, other) => sql!("::text"),
                _ => sql!(""),
            };
            sql!(
                "p.{}{} = {}.{}{}",
                Ident::new(other.clone()),
                cast,
                self.table.relation,
                Ident::new(own.clone()),
                cast
            )
        });
        sql!(
            "{} and not exists (select from {} p where {})",
            self.present(),
            self.target.relation,
            Sql::join(" and ", matching)
        )
    }

    /// Asks for its rows, beside whose key `values` are shown; `what` names the key where a gate looks at several.
    pub(super) fn ask(
        &self,
        filter: Option<&SqlText>,
        what: Option<&str>,
        values: Values,
        sample: Option<Sample>,
    ) -> Result<Ask> {
        let scope = scope_of(self.table, filter).sampled(sample);
        let (null, there) = (sql!("is null"), sql!("is not null"));
        let (present, unmatched) = (self.present(), self.unmatched());
        let is_full = self.is_full && self.columns.len() > 1;
        let partial = sql!(
            "({}) and ({})",
            self.each(" or ", &null),
            self.each(" or ", &there)
        );
        let (refers, offending) = if is_full {
            (
                self.each(" or ", &there),
                sql!("(({}) or ({}))", partial, unmatched),
            )
        } else {
            (present, unmatched.clone())
        };
        let columns = Sql::join(
            ", ",
            self.columns.iter().map(|name| Ident::new(name.clone())),
        );
        let mut key = self.table.row_key(&[])?;
        key.retain(|column| !self.columns.contains(&column.name));
        key.extend(self.shown()?);
        let label = |value: &str| format!("{value} {}", what.unwrap_or_default());
        let orphans = match sample {
            // Of a sample, only a scan by block tells what it is worth.
            Some(_) => Aggregate::count(label("orphans"), &scope, Some(offending.clone())),
            None => Measure::Statement {
                labels: vec![label("orphans"), label("keys")],
                side: Side::Main,
                about: self.table.relation.clone(),
                // Grouped, because count(distinct) forbids a parallel plan.
                sql: sql!(
                    "select coalesce(sum(n), 0)::text, count(*)::text \
                     from (select count(*) n from {} where {} group by {}) d",
                    scope.relation,
                    scope.condition(Some(&offending)),
                    columns
                ),
            },
        };
        let referencing = Aggregate::count(label("referencing"), &scope, Some(refers));
        let mut measures = vec![referencing, orphans];
        if is_full {
            measures.push(Aggregate::count(label("partial"), &scope, Some(partial)));
        }
        let about = repair::of_orphans(
            self,
            &scope.condition(Some(&unmatched)),
            &scope.condition(Some(&offending)),
        );
        let about = Some(about.as_str().to_owned());
        let evidence = Evidence::rows(label("orphans"), &scope, key, &offending);
        let mut evidence = evidence.showing(values);
        evidence.what = what.map(str::to_owned);
        Ok(Ask {
            measures,
            evidence: vec![evidence],
            known: vec![(label(ABOUT_ORPHANS.trim_end()), about)],
            ..Ask::default()
        })
    }

    /// The constraint that says there is no orphan, if its word is taken: triggers that are off now,
    /// or rows that it never saw, are none.
    pub(super) fn trusted(&self) -> Option<&str> {
        let is_plain = |info: &RelationInfo| info.kind == RelationKind::Table && info.is_enforced;
        let declared = self.declared?;
        let is_same = self.is_full == declared.is_match_full || self.columns.len() == 1;
        let holds = declared.is_valid && declared.disabled_on.is_empty() && is_same;
        (holds && is_plain(self.table) && is_plain(self.target)).then_some(declared.name.as_str())
    }

    /// What the catalog says of the constraint; what is not required is told, not failed.
    pub(super) fn findings(&self, required: &[Requirement], before: &str) -> Vec<Found> {
        let table = &self.table.relation;
        let mut findings: Vec<Found> = Vec::new();
        let mut find = |by: &[Requirement], what: String, repair: Option<Sql>, with_orphans| {
            findings.push(Found {
                finding: Finding {
                    what: format!("{before}{what}"),
                    is_failure: by.iter().any(|requirement| required.contains(requirement)),
                    repair: repair.map(|sql| sql.as_str().to_owned()),
                },
                with_orphans,
            });
        };
        match self.declared {
            None => {
                let repair = self.declare();
                let with_orphans = repair.is_some().then(|| self.declare_unseen());
                let why = self.cannot_refer();
                let why = why.map_or_else(String::new, |why| format!("; {why}"));
                find(
                    &[
                        Requirement::Declared,
                        Requirement::Valid,
                        Requirement::Enforced,
                    ],
                    format!("no foreign key is declared{why}"),
                    repair,
                    with_orphans,
                );
            }
            Some(declared) => {
                if !declared.is_valid {
                    find(
                        &[Requirement::Valid],
                        format!("the foreign key `{}` is NOT VALID", declared.name),
                        Some(sql!(
                            "alter table {} validate constraint {}",
                            table,
                            Ident::new(declared.name.clone())
                        )),
                        Some(None),
                    );
                }
                for relation in &declared.disabled_on {
                    find(
                        &[Requirement::Enforced],
                        format!(
                            "the triggers of the foreign key `{}` are disabled on {}",
                            declared.name,
                            relation.readable()
                        ),
                        Some(sql!("alter table {} enable trigger all", relation)),
                        None,
                    );
                }
                if !self.target_is_unique() {
                    find(
                        &[Requirement::Valid],
                        format!(
                            "no valid unique index holds {}({})",
                            self.target.relation.readable(),
                            self.referenced.join(", ")
                        ),
                        Some(sql!(
                            "create unique index on {} ({})",
                            self.target.relation,
                            names(self.referenced)
                        )),
                        None,
                    );
                }
            }
        }
        if !self.is_indexed() {
            find(
                &[Requirement::Indexed],
                "no index leads with the referencing columns".to_owned(),
                Some(sql!("create index on {} ({})", table, names(self.columns))),
                None,
            );
        }
        for (own, other) in self.pairs().filter(|(a, b)| a.type_name != b.type_name) {
            let retyped = repair::of_type(self, own, other);
            let is_after = retyped.as_ref().is_some_and(|one| one.is_after_orphans);
            find(
                &[Requirement::SameType],
                format!(
                    "the types differ: `{}` is {}, `{}` is {}",
                    own.name, own.type_name, other.name, other.type_name
                ),
                retyped.map(|one| one.sql),
                is_after.then_some(None),
            );
        }
        findings
    }

    /// The statement that declares it, where that can be.
    pub(super) fn declare(&self) -> Option<Sql> {
        let can = |info: &RelationInfo| {
            matches!(info.kind, RelationKind::Table | RelationKind::Partitioned)
        };
        (can(self.table) && can(self.target) && self.cannot_refer().is_none()).then(|| {
            sql!(
                "alter table {} add foreign key ({}) references {} ({})",
                self.table.relation,
                names(self.columns),
                self.target.relation,
                names(self.referenced)
            )
        })
    }

    /// The same without a look at the rows that are there; Postgres knows no NOT VALID key of a
    /// partitioned table before version 18.
    pub(super) fn declare_unseen(&self) -> Option<Sql> {
        let declare = self.declare()?;
        let is_partitioned = self.table.kind == RelationKind::Partitioned;
        (!is_partitioned).then(|| sql!("{} not valid", declare))
    }

    /// The columns, and what each refers to.
    fn pairs(&self) -> impl Iterator<Item = (&Column, &Column)> {
        let pairs = self.columns.iter().zip(self.referenced);
        pairs.filter_map(|(own, other)| {
            let own = self.table.column(own).ok()?;
            Some((own, self.target.column(other).ok()?))
        })
    }

    /// Why Postgres would not take a foreign key of these types.
    fn cannot_refer(&self) -> Option<String> {
        let mut wrong = self.pairs().filter(|(a, b)| !repair::can_refer(a, b));
        let (own, other) = wrong.next()?;
        Some(format!(
            "{} cannot refer to {}",
            own.type_name, other.type_name
        ))
    }

    fn is_indexed(&self) -> bool {
        self.table.indexes.iter().any(|index| {
            index.len() >= self.columns.len()
                && self
                    .columns
                    .iter()
                    .all(|column| index[..self.columns.len()].contains(column))
        })
    }

    fn target_is_unique(&self) -> bool {
        self.target.unique_keys.iter().any(|key| {
            key.len() == self.referenced.len()
                && self.referenced.iter().all(|column| key.contains(column))
        })
    }
}

fn names(columns: &[String]) -> Sql {
    Sql::join(", ", columns.iter().map(|name| Ident::new(name.clone())))
}
