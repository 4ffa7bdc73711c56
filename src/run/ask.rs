//! Asks what gates want measured and judges the answers. Changes nothing: it may be done for many
//! gates at once, and what comes of one does not depend on the others. Their offending rows are named by
//! `src/run/name.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::sampling::{self, SampleReport};
use crate::gate::{
    Aggregate, Ask, Evidence, Gate, Judgement, Known, Measure, Measured, OnEmpty, Verdict,
};
use crate::pg::Failure;
use crate::plan::{Plan, Step, plan};

use super::pool::Pool;
use super::{Judged as Level, Options, sample_of};

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

/// A verdict on a gate, before its offending rows are named.
pub(super) struct Judged {
    pub(super) measured: Measured,
    pub(super) judgement: Judgement,
    /// The verdict with `on_empty` applied; `None` is skipped.
    pub(super) level: Option<Level>,
    pub(super) rows_acceptable: Option<u64>,
    pub(super) proof: Option<String>,
    pub(super) sample: Option<SampleReport>,
    /// How to name its offending rows, where there are any.
    pub(super) evidence: Vec<Evidence>,
    /// How much it has read, where that is limited.
    pub(super) read: u64,
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

    /// The verdict on one gate; without a measurement, it is asked alone.
    pub(super) async fn judge(
        &self,
        gate: usize,
        ask: &Ask,
        measured: Option<Measured>,
    ) -> Result<Judged> {
        let mut read = self.hold_to_ceiling(gate, ask, 0).await?;
        let measured = match measured {
            Some(measured) => measured,
            None => self.measure_alone(gate, ask).await?,
        };
        let definition = &self.gates[gate].definition;
        let mut measured = definition.condense(self.with_kept(gate, measured));
        let mut evidence = ask.evidence.clone();
        while let Some(more) = self.ask_more(gate, &measured)? {
            read = self.hold_to_ceiling(gate, &more, read).await?;
            let answered = self.measure_alone(gate, &more).await?;
            measured = definition.condense(measured.and(answered));
            evidence.extend(more.evidence);
        }
        let mut judgement = definition.judge(&measured);
        let sample = self
            .judge_sample(gate, ask, &measured, &mut judgement)
            .await?;
        let judged = self.judged(gate, ask, measured, judgement, sample, evidence);
        Ok(Judged { read, ..judged })
    }

    /// The same where it takes no further question, and nothing is held to what it reads; `None` where it is not so.
    pub(super) fn judge_at_once(
        &self,
        gate: usize,
        ask: &Ask,
        measured: &Measured,
    ) -> Result<Option<Judged>> {
        let definition = &self.gates[gate];
        if self.ceiling(gate).is_some() {
            return Ok(None);
        }
        let measured = self.with_kept(gate, measured.clone());
        let measured = definition.definition.condense(measured);
        if definition.sample.is_some() || self.ask_more(gate, &measured)?.is_some() {
            return Ok(None);
        }
        let judgement = definition.definition.judge(&measured);
        let evidence = ask.evidence.clone();
        let judged = self.judged(gate, ask, measured, judgement, None, evidence);
        Ok(Some(judged))
    }

    /// What a gate has measured, with the answers of an earlier moment that still count.
    fn with_kept(&self, gate: usize, measured: Measured) -> Measured {
        match self.kept.get(&gate) {
            Some(kept) => kept.clone().and(measured),
            None => measured,
        }
    }

    /// What the answers make a gate ask next.
    fn ask_more(&self, gate: usize, measured: &Measured) -> Result<Option<Ask>> {
        let definition = &self.gates[gate];
        let known = Known {
            catalogs: self.catalogs,
            explained: &[],
            proof: self.options.proof,
            sample: sample_of(definition, self.options),
            show: &definition.show,
        };
        let more = definition.definition.ask_more(&known, measured)?;
        let limit = definition.limit();
        Ok(more.map(|more| Ask { limit, ..more }))
    }

    /// What a judgement comes to.
    fn judged(
        &self,
        gate: usize,
        ask: &Ask,
        measured: Measured,
        judgement: Judgement,
        sample: Option<SampleReport>,
        mut evidence: Vec<Evidence>,
    ) -> Judged {
        let definition = &self.gates[gate];
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
        evidence.retain(|evidence| is_bad && measured.count(&evidence.counted_by) > 0);
        Judged {
            measured,
            judgement,
            level,
            rows_acceptable,
            proof: ask.proof.clone(),
            sample,
            evidence,
            read: 0,
        }
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
    let known = known.map(|(label, value)| (label.clone(), value.as_deref().map(Arc::from)));
    Measured::new(asked.chain(known), ask.findings.clone()).proved(ask.proof.clone())
}
