//! Asks what gates want measured and judges the answers. Changes nothing: it may be done for many
//! gates at once, and what comes of one does not depend on the others.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::{Ask, Evidence, Gate, Known, Measured, OnEmpty, Verdict};
use crate::plan::{Plan, Step, plan};
use crate::sql;
use crate::sql::Sql;

use super::pool::Pool;
use super::{Judged, OffendingRow, Options, Outcome};

/// The answers to the steps of a plan, by their index.
pub(super) type Answers = BTreeMap<usize, Vec<Option<String>>>;

/// What it takes to ask.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) gates: &'a [Gate],
    pub(super) options: &'a Options,
    pub(super) pools: &'a BTreeMap<Side, Pool>,
    pub(super) catalogs: &'a BTreeMap<Side, Catalog>,
}

impl Asking<'_> {
    fn pool(&self, side: &Side) -> &Pool {
        self.pools
            .get(side)
            .expect("a gate asks only where a session was opened")
    }

    /// The row of one step.
    pub(super) async fn answer(&self, step: &Step) -> Result<Vec<Option<String>>> {
        let pool = self.pool(&step.side);
        if let Some(runs) = step.timed {
            let timed = pool.timed(&step.sql, runs).await;
            return timed.map_err(|failure| failure.error);
        }
        let rows = pool.rows(&step.sql, 2).await;
        let rows = rows.map_err(|failure| failure.error)?;
        rows.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Database, "the statement returned no row")
                .with_sql(step.sql.as_str())
        })
    }

    /// What one gate asks, in statements of its own.
    async fn measure_alone(&self, gate: usize, ask: &Ask) -> Result<Measured> {
        let own = plan([(gate, ask)]);
        let asked = own.steps.iter().map(|step| self.answer(step));
        let mut answers = Answers::new();
        for (index, row) in join_all(asked).await.into_iter().enumerate() {
            answers.insert(index, row?);
        }
        Ok(values(gate, ask, &own, &answers))
    }

    /// The outcome of one gate; without a measurement, it is asked alone.
    pub(super) async fn judge(
        &self,
        gate: usize,
        ask: &Ask,
        measured: Option<Measured>,
    ) -> Result<Outcome> {
        let mut measured = match measured {
            Some(measured) => measured,
            None => self.measure_alone(gate, ask).await?,
        };
        let definition = &self.gates[gate];
        let known = Known {
            catalogs: self.catalogs,
            explained: &[],
            proof: self.options.proof,
        };
        let mut evidences = ask.evidence.clone();
        while let Some(more) = definition.definition.ask_more(&known, &measured)? {
            measured = measured.and(self.measure_alone(gate, &more).await?);
            evidences.extend(more.evidence);
        }
        let judgement = definition.definition.judge(&measured);
        let level = match (judgement.verdict, definition.on_empty) {
            (Verdict::Passed, _) | (Verdict::Empty, OnEmpty::Pass) => Some(Judged::Passed),
            (Verdict::Warned, _) => Some(Judged::Warned),
            (Verdict::Failed, _) | (Verdict::Empty, OnEmpty::Fail) => Some(Judged::Failed),
            (Verdict::Empty, OnEmpty::Skip) => None,
        };
        let is_failed = judgement.verdict == Verdict::Failed;
        let rows_acceptable = is_failed
            .then(|| definition.definition.rows_acceptable(&measured, &judgement))
            .flatten();
        let limit = definition.examples.unwrap_or(self.options.examples) as usize;
        let (mut rows, mut shown) = (Vec::new(), None);
        let is_bad = matches!(level, Some(Judged::Failed | Judged::Warned));
        for evidence in evidences.iter().filter(|_| is_bad) {
            if measured.count(&evidence.counted_by) == 0 {
                continue;
            }
            shown.get_or_insert_with(|| evidence.sql.as_str().to_owned());
            let room = limit - rows.len();
            let found = self.name_rows(evidence, room).await;
            rows.extend(
                found.map_err(|error| error.context("offending rows could not be listed"))?,
            );
        }
        Ok(Outcome::Judged {
            judgement: Box::new(judgement),
            level,
            rows,
            sql: shown,
            rows_acceptable,
            proof: ask.proof.clone(),
        })
    }

    async fn name_rows(&self, evidence: &Evidence, limit: usize) -> Result<Vec<OffendingRow>> {
        if evidence.columns.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let limited: Sql = sql!("select * from ({}) e limit {}", evidence.sql, limit);
        let rows = self.pool(&evidence.side).rows(&limited, limit).await;
        let rows = rows.map_err(|failure| failure.error)?;
        Ok(rows
            .into_iter()
            .map(|values| OffendingRow {
                key: evidence.columns.iter().cloned().zip(values).collect(),
                what: evidence.what.clone(),
            })
            .collect())
    }
}

/// The values of one gate out of the answers to a plan.
pub(super) fn values(gate: usize, ask: &Ask, plan: &Plan, answers: &Answers) -> Measured {
    let bindings = plan.bindings.get(&gate).map_or(&[][..], Vec::as_slice);
    let asked = bindings.iter().map(|binding| {
        let value = answers
            .get(&binding.step)
            .and_then(|row| row.get(binding.column))
            .expect("a gate is judged only when all its steps were answered");
        (binding.label.clone(), value.clone())
    });
    let known = ask.known.iter();
    let known = known.map(|(label, n)| (label.clone(), Some(n.to_string())));
    Measured::new(asked.chain(known), ask.findings.clone()).proved(ask.proof.clone())
}
