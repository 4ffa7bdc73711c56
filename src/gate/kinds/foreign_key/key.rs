//! One reference: what to ask of its rows, and what the catalog says of its constraint.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Column, ForeignKey, RelationInfo, RelationKind, ShownColumn, Side};
use crate::gate::fields::SqlText;
use crate::gate::kinds::shared::scope_of;
use crate::gate::sampling::Sample;
use crate::gate::threshold::rows_of;
use crate::gate::{Aggregate, Ask, Evidence, Finding, Measure, Values};
use crate::sql;
use crate::sql::{Ident, Sql};

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

/// That a key has orphans, as a finding; whether the gate fails for them says its threshold.
pub(super) fn orphans(key: &str, n: u64) -> Finding {
    Finding {
        what: format!("{key}: {} without a row to refer to", rows_of(n, "row")),
        is_failure: false,
        repair: None,
    }
}

/// The label under which it is said that a key cannot be declared before its orphans are gone:
/// Postgres knows no NOT VALID key of a partitioned table before version 18.
pub(super) const AFTER_ORPHANS: &str = "after orphans ";

const UNDECLARED: &str = "no foreign key is declared";
const NOT_VALID: &str = "is NOT VALID";

/// Makes of the repair of a constraint one that runs although there are orphans, or takes it out until
/// they are gone.
pub(super) fn with_orphans(finding: &mut Finding, orphans: u64, is_partitioned: bool) {
    let is_undeclared = finding.what.ends_with(UNDECLARED);
    if orphans == 0 || !(is_undeclared || finding.what.ends_with(NOT_VALID)) {
        return;
    }
    let repair = finding.repair.take();
    if is_undeclared && !is_partitioned {
        finding.repair = repair.map(|sql| format!("{sql} not valid"));
    } else {
        finding.what.push_str("; its orphans have to go first");
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

    /// Asks for its rows, beside whose key `values` are shown; `what` names the key where a gate looks at several.
    pub(super) fn ask(
        &self,
        filter: Option<&SqlText>,
        what: Option<&str>,
        values: Values,
        sample: Option<Sample>,
    ) -> Result<Ask> {
        let scope = scope_of(self.table, filter).sampled(sample);
        let nulls = |word: &'static str, test: Sql| {
            let tests = self.columns.iter().map(|name| {
                sql!(
                    "{}.{} {}",
                    self.table.relation,
                    Ident::new(name.clone()),
                    test
                )
            });
            Sql::join(word, tests)
        };
        let present = nulls(" and ", sql!("is not null"));
        let matching = self
            .columns
            .iter()
            .zip(self.referenced)
            .map(|(own, other)| {
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
        let unmatched = sql!(
            "{} and not exists (select from {} p where {})",
            present,
            self.target.relation,
            Sql::join(" and ", matching)
        );
        let is_full = self.is_full && self.columns.len() > 1;
        let partial = sql!(
            "({}) and ({})",
            nulls(" or ", sql!("is null")),
            nulls(" or ", sql!("is not null"))
        );
        let (refers, offending) = if is_full {
            (
                nulls(" or ", sql!("is not null")),
                sql!("(({}) or ({}))", partial, unmatched),
            )
        } else {
            (present, unmatched)
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
        let evidence = Evidence::rows(label("orphans"), &scope, key, &offending);
        let mut evidence = evidence.showing(values);
        evidence.what = what.map(str::to_owned);
        let mut ask = Ask {
            measures,
            evidence: vec![evidence],
            ..Ask::default()
        };
        if self.table.kind == RelationKind::Partitioned {
            ask.known.push((label(AFTER_ORPHANS.trim_end()), 1));
        }
        Ok(ask)
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
    pub(super) fn findings(&self, required: &[Requirement], before: &str) -> Vec<Finding> {
        let table = &self.table.relation;
        let columns = Sql::join(
            ", ",
            self.columns.iter().map(|name| Ident::new(name.clone())),
        );
        let mut findings: Vec<Finding> = Vec::new();
        let mut find = |by: &[Requirement], what: String, repair: Option<Sql>| {
            findings.push(Finding {
                what: format!("{before}{what}"),
                is_failure: by.iter().any(|requirement| required.contains(requirement)),
                repair: repair.map(|sql| sql.as_str().to_owned()),
            });
        };
        match self.declared {
            None => find(
                &[
                    Requirement::Declared,
                    Requirement::Valid,
                    Requirement::Enforced,
                ],
                UNDECLARED.to_owned(),
                self.declare(),
            ),
            Some(declared) => {
                if !declared.is_valid {
                    find(
                        &[Requirement::Valid],
                        format!("the foreign key `{}` {NOT_VALID}", declared.name),
                        Some(sql!(
                            "alter table {} validate constraint {}",
                            table,
                            Ident::new(declared.name.clone())
                        )),
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
                            Sql::join(
                                ", ",
                                self.referenced.iter().map(|name| Ident::new(name.clone()))
                            )
                        )),
                    );
                }
            }
        }
        if !self.is_indexed() {
            find(
                &[Requirement::Indexed],
                "no index leads with the referencing columns".to_owned(),
                Some(sql!("create index on {} ({})", table, columns)),
            );
        }
        if let Some(what) = self.types_differ() {
            find(&[Requirement::SameType], what, None);
        }
        findings
    }

    /// The statement that declares it, where that can be.
    pub(super) fn declare(&self) -> Option<Sql> {
        let can = |info: &RelationInfo| {
            matches!(info.kind, RelationKind::Table | RelationKind::Partitioned)
        };
        (can(self.table) && can(self.target)).then(|| {
            let names = |columns: &[String]| {
                Sql::join(", ", columns.iter().map(|name| Ident::new(name.clone())))
            };
            sql!(
                "alter table {} add foreign key ({}) references {} ({})",
                self.table.relation,
                names(self.columns),
                self.target.relation,
                names(self.referenced)
            )
        })
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

    fn types_differ(&self) -> Option<String> {
        let pairs = self.columns.iter().zip(self.referenced);
        let mut differing = pairs.filter_map(|(own, other)| {
            let (own, other) = (
                self.table.column(own).ok()?,
                self.target.column(other).ok()?,
            );
            (own.type_name != other.type_name).then(|| {
                format!(
                    "the types differ: `{}` is {}, `{}` is {}",
                    own.name, own.type_name, other.name, other.type_name
                )
            })
        });
        differing.next()
    }
}
