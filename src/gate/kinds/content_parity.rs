//! Kind `content_parity`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Column, RelationInfo, Side};
use crate::gate::fields::{SqlText, TableName};
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{
    Ask, AuthorCheck, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty, Scope,
};
use crate::source::Problem;
use crate::sql;

use super::Definition;

mod compare;
mod segments;

use segments::{Compared, Half};

/// Do two relations hold the same rows? Here, or one here and one on another configured target.
///
/// Each side sums up the hashes of its rows, in one pass; where the sums differ, once more in 4,096
/// segments, and of segments that differ the rows are asked for and compared by their key. A row is missing when only `against` has it, extra when
/// only `table` has it, and changed when both have its key with other values; the columns that differ
/// are named, never the values. Between servers of one major version rows are hashed by Postgres' own
/// hashes, for which 1.0 equals 1.00; otherwise, and in columns of types that differ or cannot be
/// hashed, by their text. Where the segments that differ hold more than 100,000 rows a side, not all
/// of them are compared: the gate fails, and the count of offending rows is a lower bound.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentParity {
    /// The table under check.
    table: TableName,
    /// The table whose rows it must hold.
    against: TableName,
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

    /// What is compared with what, once both catalogs are known.
    fn compared(&self, known: &Known<'_>) -> Result<Compared> {
        let side = self.other_side();
        let (here, there) = (known.catalog(), known.on(&side));
        let (table, against) = (
            here.relation(&self.table.0)?,
            there.relation(&self.against.0)?,
        );
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
            },
        };
        Ok(Compared {
            is_native: here.server_major == there.server_major && here.server_major >= 14,
            key: pairs(key)?.into_iter().map(|(own, _)| own.name).collect(),
            columns: pairs(names)?,
            table: half(Side::Main, table),
            against: half(side, against),
        })
    }

    fn bound(&self) -> AtMost {
        AtMost::new(self.at_most, self.warn_above)
    }
}

impl Definition for ContentParity {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for ContentParity {
    fn problems(&self) -> Vec<Problem> {
        self.bound().problems()
    }

    fn needs(&self) -> Needs {
        let sides = [
            (Side::Main, &self.table),
            (self.other_side(), &self.against),
        ];
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
            schemas: Vec::new(),
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let compared = self.compared(known)?;
        let other = known.on(&self.other_side()).relation(&self.against.0)?;
        let is_compared = |column: &&Column| {
            let mut own = compared.columns.iter();
            own.any(|(_, theirs)| theirs.name == column.name)
        };
        let more = other.columns.iter().filter(|column| !is_compared(column));
        let more: Vec<&str> = more.map(|column| column.name.as_str()).collect();
        let mut findings = Vec::new();
        if !more.is_empty() && self.columns.is_empty() {
            findings.push(Finding {
                what: format!(
                    "not compared: {}, which only {} has",
                    more.join(", "),
                    other.relation.readable()
                ),
                is_failure: false,
                repair: None,
            });
        }
        Ok(Ask {
            measures: compared.totals(),
            findings,
            ..Ask::default()
        })
    }

    fn ask_more(&self, known: &Known<'_>, measured: &Measured) -> Result<Option<Ask>> {
        let compared = self.compared(known)?;
        let measures = if !measured.has(segments::SEGMENTS_TABLE) {
            if compare::is_equal(measured) {
                return Ok(None);
            }
            compared.segments()
        } else if !measured.has(segments::ROWS_TABLE) {
            let drill = compare::differing(measured);
            if drill.segments.is_empty() {
                return Ok(None);
            }
            compared.rows(&drill.segments)
        } else if !measured.has(segments::COLUMNS_TABLE) {
            let changed = compare::changed(measured);
            if changed.is_empty() {
                return Ok(None);
            }
            compared.values(&changed)
        } else {
            return Ok(None);
        };
        Ok(Some(Ask {
            measures,
            ..Ask::default()
        }))
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        compare::judge(measured, self.bound())
    }

    fn rows_acceptable(&self, measured: &Measured, judgement: &Judgement) -> Option<u64> {
        // The findings are the rows; of what was not compared, nobody knows how many differ.
        let rows = judgement.rows_offending.filter(|rows| *rows > 0);
        rows.filter(|_| compare::is_whole(measured))
    }
}
