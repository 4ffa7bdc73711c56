//! Names offending rows: each gate's on its own, or those of several gates with one pass, with the same result.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::gate::{Evidence, Finding, Gate};
use crate::pg::{Room, Taken};
use crate::plan::{Pass, Unnamed, passes};

use super::ask::{Asking, Judged};
use super::{OffendingRow, Outcome};

/// The offending rows of one gate hold no more text than this.
const BYTES_MAX: usize = 64 * 1024;

/// Offending rows, as far as they are named.
#[derive(Default)]
pub(super) struct Named {
    rows: Vec<OffendingRow>,
    /// How many were left out because they are too large.
    left_out: u64,
    /// How much the gate has read, where that is limited.
    read: u64,
    /// Why some are not named at all.
    withheld: Option<String>,
}

impl Named {
    fn add(&mut self, evidence: &Evidence, with_values: bool, taken: Taken) {
        self.left_out += taken.left_out as u64;
        self.rows.extend(taken.rows.into_iter().map(|values| {
            let columns = evidence.columns(with_values);
            let mut columns = columns.map(|column| column.name.clone()).zip(values);
            OffendingRow {
                key: columns.by_ref().take(evidence.key.len()).collect(),
                values: columns.collect(),
                what: evidence.what.clone(),
            }
        }));
    }
}

impl Judged {
    /// What becomes of the gate, now that its rows are named.
    pub(super) fn with(mut self, named: Named) -> Outcome {
        let withheld = named.withheld.map(|why| Finding {
            what: format!("offending rows are not named: {why}"),
            is_failure: false,
            repair: None,
        });
        self.judgement.findings.extend(withheld);
        let statements = self.evidence.iter().map(|evidence| evidence.sql.as_str());
        let statements: Vec<&str> = statements.collect();
        Outcome::Judged {
            judgement: Box::new(self.judgement),
            level: self.level,
            rows: named.rows,
            rows_left_out: named.left_out,
            sql: (!statements.is_empty()).then(|| statements.join(";\n")),
            rows_acceptable: self.rows_acceptable,
            proof: self.proof,
            sample: self.sample.map(Box::new),
        }
    }
}

impl Asking<'_> {
    /// How many rows of a gate are named at the most.
    fn rows_max(&self, gate: &Gate) -> usize {
        gate.examples.unwrap_or(self.options.examples) as usize
    }

    /// The passes that name the offending rows of some of these gates.
    pub(super) fn passes(&self, judged: &BTreeMap<usize, Judged>) -> Vec<Pass> {
        let unnamed = judged.iter().filter_map(|(index, judged)| {
            let gate = &self.gates[*index];
            // A gate with a limit of its own, for time or for what it reads, shares no statement.
            let [evidence] = judged.evidence.as_slice() else {
                return None;
            };
            let is_limited = gate.limit().is_some() || self.ceiling(*index).is_some();
            let rows = evidence.rows.as_ref().filter(|_| !is_limited)?;
            let catalog = self.catalogs.get(&evidence.side)?;
            Some(Unnamed {
                gate: *index,
                evidence,
                table: catalog.relation(&rows.relation).ok()?,
                count: judged.measured.count(&evidence.counted_by),
                limit: self.rows_max(gate),
            })
        });
        passes(&unnamed.collect::<Vec<_>>(), self.options.values)
    }

    /// Names the rows of several gates, in the order of the pass; `None` for a gate of which it has not found all
    /// that are to be named.
    pub(super) async fn name_together(&self, pass: &Pass) -> Result<Vec<Option<Taken>>> {
        let room = |rows| Room {
            rows,
            bytes: BYTES_MAX,
        };
        let parts = pass
            .parts
            .iter()
            .map(|part| (part.columns, room(part.rows)));
        let parts: Vec<(usize, Room)> = parts.collect();
        let found = self.pool(&pass.side).rows_by_part(&pass.sql, &parts).await;
        let found = found.map_err(|failure| unlisted(self.told(failure)))?;
        let found = found.into_iter().zip(&pass.parts);
        Ok(found
            .map(|(taken, part)| {
                let is_all = taken.rows.len() + taken.left_out == part.rows;
                is_all.then_some(taken)
            })
            .collect())
    }

    /// What a pass has found for a gate that it names the rows of.
    pub(super) fn named(&self, judged: &Judged, taken: Taken) -> Named {
        let mut named = Named::default();
        let evidence = judged.evidence.first();
        let evidence = evidence.expect("a pass names what a gate asks to be named");
        named.add(evidence, self.options.values, taken);
        named
    }

    /// Names the rows of one gate, each sort by a statement of its own.
    pub(super) async fn name(&self, gate: usize, judged: &Judged) -> Result<Named> {
        let mut named = Named {
            read: judged.read,
            ..Named::default()
        };
        for evidence in &judged.evidence {
            let found = self.name_sort(gate, evidence, &mut named).await;
            found.map_err(unlisted)?;
        }
        Ok(named)
    }

    /// Adds the first rows of one sort, as many as there may still be, and up to [`BYTES_MAX`] of all sorts together.
    async fn name_sort(&self, gate: usize, evidence: &Evidence, named: &mut Named) -> Result<()> {
        let definition = &self.gates[gate];
        let with_values = self.options.values;
        let limit = self.rows_max(definition).saturating_sub(named.rows.len());
        let Some(statement) = evidence
            .first(limit, with_values)
            .filter(|_| limit > 0 && named.left_out == 0)
        else {
            return Ok(());
        };
        let withheld = self.naming_withheld(gate, evidence, &statement, &mut named.read);
        if let Some(why) = withheld.await? {
            named.withheld.get_or_insert(why);
            return Ok(());
        }
        let taken = named.rows.iter().map(OffendingRow::bytes).sum();
        let room = Room {
            rows: limit,
            bytes: BYTES_MAX.saturating_sub(taken),
        };
        let pool = self.pool(&evidence.side);
        let found = pool.rows_within(&statement, room, definition.limit()).await;
        let found = found.map_err(|failure| self.told(failure))?;
        named.add(evidence, with_values, found);
        Ok(())
    }
}

/// An error that stands between a verdict and the rows it is about.
fn unlisted(error: Error) -> Error {
    error.context("offending rows could not be listed")
}
