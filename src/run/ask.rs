//! Asks what gates want measured and judges the answers. Changes nothing: it may be done for many
//! gates at once, and what comes of one does not depend on the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::sampling::{self, SampleReport};
use crate::gate::{
    Aggregate, Ask, Evidence, Finding, Gate, Judgement, Known, Measure, Measured, OnEmpty, Verdict,
};
use crate::pg::Failure;
use crate::plan::{Plan, Step, plan};

use super::pool::Pool;
use super::{Judged as Level, OffendingRow, Options, Outcome, sample_of};

/// The answers to the steps of a plan, by their index.
pub(super) type Answers = BTreeMap<usize, Answer>;

/// The row of a step. Several gates may rest on it, and its texts may be long.
pub(super) type Answer = Vec<Option<Arc<str>>>;

/// What it takes to ask.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) gates: &'a [Gate],
    pub(super) options: &'a Options,
    pub(super) pools: &'a BTreeMap<Side, Pool>,
    pub(super) catalogs: &'a BTreeMap<Side, Catalog>,
    /// By gate, the answers of an earlier moment that still count.
    pub(super) kept: &'a BTreeMap<usize, Measured>,
}

/// A gate's outcome and the answers it rests on.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    pub(super) measured: Measured,
}

impl Asking<'_> {
    pub(super) fn pool(&self, side: &Side) -> &Pool {
        self.pools
            .get(side)
            .expect("a gate asks only where a session was opened")
    }

    /// The row of one step.
    pub(super) async fn answer(&self, step: &Step) -> Result<Answer> {
        let pool = self.pool(&step.side);
        let found = match step.timed {
            Some(runs) => pool.timed(&step.sql, runs, step.limit).await.map(Some),
            None => pool.row(&step.sql, step.limit).await,
        };
        let row = found.map_err(|failure| self.told(failure))?;
        let row = row.ok_or_else(|| {
            Error::new(ErrorKind::Database, "the statement returned no row")
                .with_sql(step.sql.as_str())
        })?;
        Ok(row.into_iter().map(|text| text.map(Arc::from)).collect())
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
    ) -> Result<Judged> {
        let mut read = self.hold_to_ceiling(gate, ask, 0).await?;
        let mut measured = match measured {
            Some(measured) => measured,
            None => self.measure_alone(gate, ask).await?,
        };
        if let Some(kept) = self.kept.get(&gate) {
            measured = kept.clone().and(measured);
        }
        let definition = &self.gates[gate];
        measured = definition.definition.condense(measured);
        let known = Known {
            catalogs: self.catalogs,
            explained: &[],
            proof: self.options.proof,
            sample: sample_of(definition, self.options),
            show: &definition.show,
        };
        let mut evidences = ask.evidence.clone();
        while let Some(more) = definition.definition.ask_more(&known, &measured)? {
            let more = Ask {
                limit: definition.limit(),
                ..more
            };
            read = self.hold_to_ceiling(gate, &more, read).await?;
            let answered = self.measure_alone(gate, &more).await?;
            measured = definition.definition.condense(measured.and(answered));
            evidences.extend(more.evidence);
        }
        let mut judgement = definition.definition.judge(&measured);
        let sample = self
            .judge_sample(gate, ask, &measured, &mut judgement)
            .await?;
        let level = match (judgement.verdict, definition.on_empty) {
            (Verdict::Passed, _) | (Verdict::Empty, OnEmpty::Pass) => Some(Level::Passed),
            (Verdict::Warned, _) => Some(Level::Warned),
            (Verdict::Failed, _) | (Verdict::Empty, OnEmpty::Fail) => Some(Level::Failed),
            (Verdict::Undecided, _) => Some(Level::Undecided),
            (Verdict::Empty, OnEmpty::Skip) => None,
        };
        // The rows of a sample are not all the rows that a failure comes to.
        let is_failed = judgement.verdict == Verdict::Failed && sample.is_none();
        let rows_acceptable = is_failed
            .then(|| definition.definition.rows_acceptable(&measured, &judgement))
            .flatten();
        let is_bad = matches!(
            level,
            Some(Level::Failed | Level::Warned | Level::Undecided)
        );
        let mut named = Named {
            read,
            ..Named::default()
        };
        let mut statements = Vec::new();
        for evidence in evidences.iter().filter(|_| is_bad) {
            if measured.count(&evidence.counted_by) == 0 {
                continue;
            }
            statements.push(evidence.sql.as_str());
            let found = self.name_rows(gate, evidence, &mut named).await;
            found.map_err(|error| error.context("offending rows could not be listed"))?;
        }
        judgement.findings.extend(named.withheld.map(|why| Finding {
            what: format!("offending rows are not named: {why}"),
            is_failure: false,
            repair: None,
        }));
        let outcome = Outcome::Judged {
            judgement: Box::new(judgement),
            level,
            rows: named.rows,
            rows_left_out: named.left_out,
            sql: (!statements.is_empty()).then(|| statements.join(";\n")),
            rows_acceptable,
            proof: ask.proof.clone(),
            sample: sample.map(Box::new),
        };
        Ok(Judged { outcome, measured })
    }

    /// What a sample says of a gate, if it looked at one.
    async fn judge_sample(
        &self,
        gate: usize,
        ask: &Ask,
        measured: &Measured,
        judgement: &mut Judgement,
    ) -> Result<Option<SampleReport>> {
        let definition = &self.gates[gate];
        let sampled = ask.measures.iter().find_map(|measure| match measure {
            Measure::Aggregate(one) if one.sample.is_some() => Some(one),
            _ => None,
        });
        let (Some(sampled), Some(asked)) = (sampled, definition.sample) else {
            return Ok(None);
        };
        let rule = definition.definition.sampling().map_err(|problem| {
            let fields = &definition.origin.fields;
            fields.error(&definition.origin.file, &problem)
        })?;
        let is_empty = judgement.rows_checked == Some(0) && !self.has_rows(gate, sampled).await?;
        let seed = self.options.seed;
        Ok(Some(sampling::judge(
            &rule, asked, seed, measured, is_empty, judgement,
        )))
    }

    /// Whether the table of a sample without rows has any.
    async fn has_rows(&self, gate: usize, sampled: &Aggregate) -> Result<bool> {
        let any = Aggregate {
            sample: None,
            filter: None,
            when: None,
            ..sampled.clone()
        };
        let label = Measure::any(&any.label);
        let ask = Ask {
            measures: vec![Measure::Presence(any)],
            ..Ask::default()
        };
        Ok(self.measure_alone(gate, &ask).await?.count(&label) > 0)
    }

    /// Adds the first rows of one sort, up to `limit` and to [`BYTES_MAX`] of all sorts together.
    async fn name_rows(&self, gate: usize, evidence: &Evidence, named: &mut Named) -> Result<()> {
        let definition = &self.gates[gate];
        let limit = definition.examples.unwrap_or(self.options.examples) as usize;
        let limit = limit.saturating_sub(named.rows.len());
        let Some(statement) = evidence
            .first(limit, self.options.values)
            .filter(|_| limit > 0 && named.left_out == 0)
        else {
            return Ok(());
        };
        let withheld = self.naming_withheld(gate, evidence, &statement, &mut named.read);
        if let Some(why) = withheld.await? {
            named.withheld.get_or_insert(why);
            return Ok(());
        }
        let room = BYTES_MAX.saturating_sub(named.rows.iter().map(OffendingRow::bytes).sum());
        let pool = self.pool(&evidence.side);
        let found = pool
            .rows_within(&statement, limit, room, definition.limit())
            .await;
        let (rows, left_out) = found.map_err(|failure| self.told(failure))?;
        named.left_out += left_out;
        named.rows.extend(rows.into_iter().map(|values| {
            let columns = evidence.columns(self.options.values);
            let mut columns = columns.map(|column| column.name.clone()).zip(values);
            OffendingRow {
                key: columns.by_ref().take(evidence.key.len()).collect(),
                values: columns.collect(),
                what: evidence.what.clone(),
            }
        }));
        Ok(())
    }

    /// What is told of a failure: the server's own words may quote a value that it could not take, and
    /// are withheld where a column is masked, whichever it was.
    pub(super) fn told(&self, failure: Failure) -> Error {
        let is_masked = self.catalogs.values().any(|one| !one.masks.is_empty());
        match is_masked {
            true => failure.error.without_data(),
            false => failure.error,
        }
    }
}

/// Offending rows, as far as they are named.
#[derive(Default)]
struct Named {
    rows: Vec<OffendingRow>,
    /// How many were left out because they are too large.
    left_out: u64,
    /// How much the gate has read, where that is limited.
    read: u64,
    /// Why some are not named at all.
    withheld: Option<String>,
}

/// The offending rows of one gate hold no more text than this.
const BYTES_MAX: usize = 64 * 1024;

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
    let known = known.map(|(label, n)| (label.clone(), Some(Arc::from(n.to_string()))));
    Measured::new(asked.chain(known), ask.findings.clone()).proved(ask.proof.clone())
}
