//! Kind `content_parity`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Column, RelationInfo, Side};
use crate::gate::fields::{SqlText, TableName};
use crate::gate::mapping::Mapping;
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{
    Ask, AuthorCheck, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty, Recheck, Scope,
};
use crate::source::Problem;
use crate::sql;

use super::Definition;

mod compare;
mod mapped;
mod rows;
mod segments;

use segments::{Compared, Half, is_whole};

/// Do two relations hold the same rows? Here, or one here and one on another configured target.
///
/// Each side sums up the hashes of its rows, in one pass; where the sums differ, once more in 4,096
/// segments, and of segments that differ the hashes of keys and rows are asked for and compared; only
/// of rows that are named the keys themselves. Segments are stretches of keys where the key is one
/// whole number and indexed on both sides, so that their rows are found by the index, and made by the
/// key's hash otherwise. A row is missing when only `against` has it, extra when only `table` has it,
/// and changed when both have its key with other values; the columns that differ are named, never the
/// values. Between servers of one major version rows are hashed by Postgres' own hashes, for which 1.0
/// equals 1.00 and texts are equal only byte by byte, whatever their collation; otherwise, and in
/// columns of types that differ or cannot be hashed, rows are hashed by their text. Where the segments
/// that differ hold more than 100,000 rows a side, not all of them are compared: the gate fails, and
/// the count of offending rows is a lower bound.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentParity {
    /// The table under check.
    table: Option<TableName>,
    /// The table whose rows it must hold.
    against: Option<TableName>,
    /// In place of both, a file that names pairs of tables, or whole schemas, from the folder of the gate
    /// file; among gates it is called `NAME.mapping.toml`. Under `[tables]` stand `"new.games" =
    /// "old.games"` or `"new.*" = "old.*"`, the tables under check first; `exclude = ["old.tmp_*"]` leaves
    /// tables of whole schemas out. Rows are named by primary keys, each pair is held to the bounds of
    /// the gate, and a table that only one side has fails it.
    mapping: Option<Mapping>,
    /// The configured target that the other side is read from; the same database where nothing is said.
    against_target: Option<String>,
    /// The columns that name a row, the same on both sides; the primary key of `table` where nothing is
    /// said.
    #[serde(default)]
    key: Vec<String>,
    /// The columns that are compared; every column of `table` where nothing is said.
    #[serde(default)]
    columns: Vec<String>,
    /// Only rows of both sides for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// For two databases that are not read at one moment, where what is written to one arrives at the
    /// other later: when rows differ, these are compared again, such as
    /// `recheck = { times = 3, wait = "2s" }`. The gate passes when each of them was equal once; the
    /// report says how often it was re-checked, and what differed at first.
    recheck: Option<Recheck>,
    /// Fails above this many offending rows, or this share of the rows of `table`; 0 where nothing is
    /// said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

impl ContentParity {
    fn other_side(&self) -> Side {
        self.against_target.clone().map_or(Side::Main, Side::Other)
    }

    /// The one pair, where there is no mapping.
    fn names(&self) -> Option<(&TableName, &TableName)> {
        self.table.as_ref().zip(self.against.as_ref())
    }

    /// The relations of the one pair.
    fn single<'a>(&self, known: &Known<'a>) -> Result<(&'a RelationInfo, &'a RelationInfo)> {
        let (table, against) = self
            .names()
            .expect("a gate without a mapping names both tables");
        let here = known.relation(&Side::Main, &table.0)?;
        Ok((here, known.relation(&self.other_side(), &against.0)?))
    }

    /// What is compared with what.
    fn compared(
        &self,
        known: &Known<'_>,
        table: &RelationInfo,
        against: &RelationInfo,
    ) -> Result<Compared> {
        let side = self.other_side();
        let (here, there) = (known.catalog(), known.on(&side));
        let key = if self.key.is_empty() {
            &table.primary_key
        } else {
            &self.key
        };
        if key.is_empty() {
            return Err(Error::new(
                ErrorKind::Database,
                format!("`{}` has no primary key", table.relation.readable()),
            )
            .help("name the columns that name a row: key = [\"id\"]"));
        }
        let all: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        let names = if self.columns.is_empty() {
            &all
        } else {
            &self.columns
        };
        let pairs = |names: &[String]| -> Result<Vec<(Column, Column)>> {
            let own = table.columns_named(names)?;
            let other = against.columns_named(names)?;
            Ok(own
                .into_iter()
                .cloned()
                .zip(other.into_iter().cloned())
                .collect())
        };
        let half = |side: Side, info: &RelationInfo| Half {
            scope: Scope {
                side,
                relation: info.relation.clone(),
                filter: self.r#where.as_ref().map(|SqlText(author)| author.clone()),
                sample: None,
            },
        };
        let key = pairs(key)?;
        let more = against
            .columns
            .iter()
            .filter(|column| !names.contains(&column.name));
        let more: Vec<&str> = more.map(|column| column.name.as_str()).collect();
        let told = (!more.is_empty() && self.columns.is_empty()).then(|| Finding {
            what: format!(
                "not compared: {}, which only {} has",
                more.join(", "),
                against.relation.readable()
            ),
            is_failure: false,
            repair: None,
        });
        Ok(Compared {
            told,
            is_native: here.server_major == there.server_major && here.server_major >= 14,
            is_ranged: is_ranged(&key, [table, against]),
            key,
            columns: pairs(names)?,
            table: half(Side::Main, table),
            against: half(side, against),
        })
    }

    fn bound(&self) -> AtMost {
        AtMost::new(self.at_most, self.warn_above)
    }
}

/// Whether a key is one whole number, and every relation has an index that begins with it.
fn is_ranged(key: &[(Column, Column)], relations: [&RelationInfo; 2]) -> bool {
    let [(own, other)] = key else {
        return false;
    };
    let is_indexed = |info: &RelationInfo| {
        let mut indexes = info.indexes.iter();
        indexes.any(|columns| columns.first() == Some(&own.name))
    };
    // The bounds of segments stand in statements, where no masked value belongs.
    is_whole(own) && is_whole(other) && relations.into_iter().all(is_indexed)
}

impl Definition for ContentParity {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for ContentParity {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.bound().problems();
        let fields = [
            ("table", self.table.is_some()),
            ("against", self.against.is_some()),
            ("key", !self.key.is_empty()),
            ("columns", !self.columns.is_empty()),
            ("where", self.r#where.is_some()),
        ];
        problems.extend(match &self.mapping {
            Some(_) => Mapping::problems(fields),
            None if self.names().is_none() => vec![Problem::new(
                "table",
                "a `content_parity` gate has either `table` and `against`, or `mapping`",
            )],
            None => Vec::new(),
        });
        problems.extend(Recheck::problems(
            self.recheck,
            self.against_target.is_some(),
        ));
        problems
    }

    fn needs(&self) -> Needs {
        if let Some(mapping) = &self.mapping {
            return mapping.needs(&self.other_side());
        }
        let (table, against) = self
            .names()
            .expect("a gate without a mapping names both tables");
        let sides = [(Side::Main, table), (self.other_side(), against)];
        Needs {
            checks: self
                .r#where
                .iter()
                .flat_map(|SqlText(author)| {
                    sides.iter().map(move |(side, table)| AuthorCheck {
                        field: "where",
                        side: side.clone(),
                        author: author.clone(),
                        statement: sql!("select from {} where ({})", table.0, author),
                    })
                })
                .collect(),
            relations: sides
                .iter()
                .map(|(side, table)| (side.clone(), table.0.clone()))
                .collect(),
            ..Needs::default()
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        if let Some(mapping) = &self.mapping {
            return Ok(mapped::ask(self, mapping, known));
        }
        let (table, against) = self.single(known)?;
        let compared = self.compared(known, table, against)?;
        Ok(Ask {
            measures: compared.totals(),
            findings: compared.told.into_iter().collect(),
            ..Ask::default()
        })
    }

    fn ask_more(&self, known: &Known<'_>, measured: &Measured) -> Result<Option<Ask>> {
        if let Some(mapping) = &self.mapping {
            return mapped::ask_more(self, mapping, known, measured);
        }
        let (table, against) = self.single(known)?;
        let compared = self.compared(known, table, against)?;
        Ok(compare::next(&compared, measured))
    }

    fn recheck(&self) -> Option<Recheck> {
        self.recheck
    }

    fn ask_again(&self, known: &Known<'_>, measured: &Measured) -> Result<(Ask, Measured)> {
        if !measured.has(compare::COMPARED) || !compare::is_whole(measured) {
            return Ok((self.ask(known)?, Measured::default()));
        }
        // A row that was equal at one moment need not be so at another.
        let segments = compare::differing(measured).segments;
        let (table, against) = self.single(known)?;
        let compared = self.compared(known, table, against)?;
        let ask = Ask::of(compared.rows(measured, &segments));
        Ok((ask, compare::still_open(measured)))
    }

    fn condense(&self, measured: Measured) -> Measured {
        // Pairs of a mapping are compared anew, from the first question on.
        let is_rechecked = self.recheck.is_some() && self.mapping.is_none();
        compare::condense(measured, is_rechecked)
    }

    fn follow_up(&self) -> Option<&'static str> {
        Some(
            "where the sums differ: those of 4,096 segments, the hashes of rows in segments that differ, and the keys of the first of them with the columns that do",
        )
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        if self.mapping.is_some() {
            return mapped::judge(measured, self.bound());
        }
        compare::judge(measured, self.bound())
    }

    fn rows_acceptable(&self, measured: &Measured, judgement: &Judgement) -> Option<u64> {
        // The findings are the rows; of what was not compared, nobody knows how many differ.
        let rows = judgement.rows_offending.filter(|rows| *rows > 0);
        rows.filter(|_| match self.mapping {
            Some(_) => mapped::is_whole(measured),
            None => compare::is_whole(measured),
        })
    }
}
