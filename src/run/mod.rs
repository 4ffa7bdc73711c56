//! Step 4: execution. Opens read-only sessions, loads what gates need to know, runs the plan,
//! judges, and collects evidence.

mod catalog;
mod early;
mod explain;
mod prepare;
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::{Ask, Evidence, Gate, Judgement, Known, Measured, OnEmpty, Verdict};
use crate::pg::{Address, Limits, Session, Snapshot};
use crate::plan::{Plan, Step, plan};
use crate::sql;
use crate::sql::Sql;

pub use early::Interrupt;
pub use explain::{
    Explanation, GateExplained, Granted, Node, Planned, Privilege, Read, Statement, explain,
};
use prepare::{Prepared, sides_of};

/// How a run behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long things may take.
    pub limits: Limits,
    /// How many offending rows are named at the most, where a gate does not say.
    pub examples: u32,
    /// How long the whole run may take; gates that were not judged by then are errored.
    pub timeout: Option<Duration>,
    /// Ends the run early, with the same effect.
    pub interrupt: Interrupt,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            examples: 10,
            timeout: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// What became of one gate.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was evaluated.
    Judged {
        /// What the measurement means.
        judgement: Box<Judgement>,
        /// The verdict with `on_empty` applied; `None` is skipped.
        level: Option<Judged>,
        /// Offending rows, by key.
        rows: Vec<OffendingRow>,
        /// The SQL that shows every offending row.
        sql: Option<String>,
    },
    /// It could not be evaluated, so it has not passed.
    Errored(Error),
}

/// What became of a gate, worst last.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds.
    Passed,
    /// There was nothing to look at.
    Skipped,
    /// It holds, beyond the warning level.
    Warned,
    /// It does not hold.
    Failed,
    /// It could not be evaluated.
    Errored,
}

impl State {
    /// The word that every format uses.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Passed => "passed",
            State::Skipped => "skipped",
            State::Warned => "warned",
            State::Failed => "failed",
            State::Errored => "errored",
        }
    }
}

impl Outcome {
    /// What became of the gate, in one word.
    pub fn state(&self) -> State {
        match self {
            Outcome::Errored(_) => State::Errored,
            Outcome::Judged { level, .. } => match level {
                None => State::Skipped,
                Some(Judged::Passed) => State::Passed,
                Some(Judged::Warned) => State::Warned,
                Some(Judged::Failed) => State::Failed,
            },
        }
    }
}

/// Passed, warned or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It holds.
    Passed,
    /// It holds, beyond the warning level.
    Warned,
    /// It does not hold.
    Failed,
}

/// An offending row, named by its key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct OffendingRow {
    /// Key columns and their values as text, in key order.
    pub key: Vec<(String, Option<String>)>,
    /// What is wrong with it, where the gate can find several things.
    pub what: Option<String>,
}

/// What a run found, gate by gate in the order of their definition.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The moment that every gate read; `None` when the target was never reached.
    pub snapshot: Option<Snapshot>,
    /// One outcome per gate.
    pub outcomes: Vec<Outcome>,
}

/// How often a run starts over on a new snapshot after its connection was lost.
const RESTARTS: usize = 3;

/// Evaluates every gate against `targets`, which holds at least [`Side::Main`].
///
/// Never fails as a whole: a gate that could not be evaluated is an [`Outcome::Errored`]. All
/// judged gates read one moment: when a connection is lost, the gates that were being measured are
/// errored and all others are evaluated anew on a new snapshot.
pub async fn check(
    gates: &[Gate],
    targets: &BTreeMap<Side, Address>,
    options: &Options,
) -> Findings {
    let mut given_up: BTreeMap<usize, Error> = BTreeMap::new();
    let mut early = std::pin::pin!(options.interrupt.or_after(options.timeout));
    for attempt in 0.. {
        let mut round = Round::new(gates, options, &given_up);
        // Dropped halfway, an evaluation leaves what was judged by then.
        let ended_early = tokio::select! {
            () = round.evaluate(targets) => None,
            error = &mut early => Some(error),
        };
        if let Some(error) = ended_early {
            return round.abandon(&error).await;
        }
        let lost = std::mem::take(&mut round.lost);
        if lost.is_empty() || attempt == RESTARTS {
            for (gate, error) in lost {
                round.outcomes.insert(gate, Outcome::Errored(error));
            }
            return Findings {
                snapshot: round.snapshot,
                outcomes: round.outcomes.into_values().collect(),
            };
        }
        given_up.extend(lost);
    }
    unreachable!("the last attempt returns")
}

/// One evaluation on one snapshot.
struct Round<'a> {
    gates: &'a [Gate],
    options: &'a Options,
    sessions: BTreeMap<Side, Session>,
    /// That of the main session, once there was one.
    snapshot: Option<Snapshot>,
    outcomes: BTreeMap<usize, Outcome>,
    /// Gates that were being measured when a connection was lost.
    lost: BTreeMap<usize, Error>,
}

impl<'a> Round<'a> {
    /// A round without the gates that are given up.
    fn new(gates: &'a [Gate], options: &'a Options, given_up: &BTreeMap<usize, Error>) -> Self {
        let given_up = given_up.iter();
        Self {
            gates,
            options,
            sessions: BTreeMap::new(),
            snapshot: None,
            outcomes: given_up
                .map(|(gate, error)| (*gate, Outcome::Errored(error.clone())))
                .collect(),
            lost: BTreeMap::new(),
        }
    }

    async fn evaluate(&mut self, targets: &BTreeMap<Side, Address>) {
        let Prepared { catalogs, asks, .. } = self.prepare(targets).await;
        self.measure(&asks, &catalogs).await;
        self.close().await;
    }

    async fn close(&mut self) {
        for (_, session) in std::mem::take(&mut self.sessions) {
            session.close().await;
        }
    }

    /// What there is when a run ends early: gates that were not judged are errored, and the
    /// server is told to end what it still does.
    async fn abandon(mut self, error: &Error) -> Findings {
        for (_, session) in std::mem::take(&mut self.sessions) {
            session.terminate().await;
        }
        for (gate, error) in std::mem::take(&mut self.lost) {
            self.outcomes.insert(gate, Outcome::Errored(error));
        }
        for gate in 0..self.gates.len() {
            if !self.outcomes.contains_key(&gate) {
                self.errored(gate, error.clone());
            }
        }
        Findings {
            snapshot: self.snapshot,
            outcomes: self.outcomes.into_values().collect(),
        }
    }

    /// Runs the plan of all asks and judges each gate as soon as all of its steps were answered.
    async fn measure(&mut self, asks: &BTreeMap<usize, Ask>, catalogs: &BTreeMap<Side, Catalog>) {
        let all = plan(asks.iter().map(|(gate, ask)| (*gate, ask)));
        let mut answers: BTreeMap<usize, Vec<Option<String>>> = BTreeMap::new();
        let mut alone = BTreeSet::new();
        // In the order of the gates, so that a run that ends early has judged the first of them.
        let mut steps: Vec<(usize, &Step)> = all.steps.iter().enumerate().collect();
        steps.sort_by_key(|(_, step)| step.gates.iter().min().copied());
        for (index, step) in steps {
            match self.answer(step).await {
                Ok(row) => {
                    answers.insert(index, row);
                }
                // One gate's expression can bring down a shared scan; each is then asked alone.
                Err(error) if step.gates.len() > 1 && error.kind() == ErrorKind::Database => {
                    alone.extend(step.gates.iter().copied());
                }
                Err(error) => {
                    for gate in &step.gates {
                        self.errored(*gate, error.clone());
                    }
                }
            }
            for gate in &step.gates {
                let bindings = all.bindings.get(gate).into_iter().flatten();
                let mut steps = bindings.map(|binding| &binding.step);
                if self.is_open(*gate) && steps.all(|step| answers.contains_key(step)) {
                    let ask = &asks[gate];
                    let measured = values(*gate, ask, &all, &answers);
                    self.judge(*gate, ask, measured, catalogs).await;
                }
            }
            if !self.lost.is_empty() {
                return;
            }
        }
        for (gate, ask) in asks {
            if !self.is_open(*gate) {
                continue;
            }
            // The others asked nothing.
            let measured = if alone.contains(gate) {
                self.measure_alone(*gate, ask).await
            } else {
                Some(values(*gate, ask, &all, &answers))
            };
            if let Some(measured) = measured {
                self.judge(*gate, ask, measured, catalogs).await;
            }
        }
    }

    /// Whether a gate still waits for its outcome and can get one.
    fn is_open(&self, gate: usize) -> bool {
        !self.outcomes.contains_key(&gate) && self.lost.is_empty()
    }

    /// What one gate asks, in statements of its own; `None` when one of them failed.
    async fn measure_alone(&mut self, gate: usize, ask: &Ask) -> Option<Measured> {
        let own = plan([(gate, ask)]);
        let mut answers = BTreeMap::new();
        for (index, step) in own.steps.iter().enumerate() {
            match self.answer(step).await {
                Ok(row) => {
                    answers.insert(index, row);
                }
                Err(error) => {
                    self.errored(gate, error);
                    return None;
                }
            }
        }
        Some(values(gate, ask, &own, &answers))
    }

    async fn answer(&mut self, step: &Step) -> Result<Vec<Option<String>>> {
        let session = self
            .sessions
            .get_mut(&step.side)
            .expect("a gate asks only where a session was opened");
        if let Some(runs) = step.timed {
            let timed = timed::measure(session, &step.sql, runs).await;
            return timed.map_err(|failure| failure.error);
        }
        let rows = session
            .rows(&step.sql, 2)
            .await
            .map_err(|failure| failure.error)?;
        rows.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Database, "the statement returned no row")
                .with_sql(step.sql.as_str())
        })
    }

    async fn judge(
        &mut self,
        gate: usize,
        ask: &Ask,
        mut measured: Measured,
        catalogs: &BTreeMap<Side, Catalog>,
    ) {
        let definition = &self.gates[gate];
        let known = Known {
            catalogs,
            explained: &[],
        };
        let mut evidences = ask.evidence.clone();
        loop {
            match definition.definition.ask_more(&known, &measured) {
                Ok(None) => break,
                Ok(Some(more)) => {
                    let Some(answers) = self.measure_alone(gate, &more).await else {
                        return;
                    };
                    measured = measured.and(answers);
                    evidences.extend(more.evidence);
                }
                Err(error) => return self.errored(gate, error),
            }
        }
        let judgement = definition.definition.judge(&measured);
        let level = match (judgement.verdict, definition.on_empty) {
            (Verdict::Passed, _) | (Verdict::Empty, OnEmpty::Pass) => Some(Judged::Passed),
            (Verdict::Warned, _) => Some(Judged::Warned),
            (Verdict::Failed, _) | (Verdict::Empty, OnEmpty::Fail) => Some(Judged::Failed),
            (Verdict::Empty, OnEmpty::Skip) => None,
        };
        let limit = definition.examples.unwrap_or(self.options.examples) as usize;
        let (mut rows, mut shown) = (Vec::new(), None);
        let is_bad = matches!(level, Some(Judged::Failed | Judged::Warned));
        for evidence in evidences.iter().filter(|_| is_bad) {
            if measured.count(&evidence.counted_by) == 0 {
                continue;
            }
            shown.get_or_insert_with(|| evidence.sql.as_str().to_owned());
            let room = limit - rows.len();
            match self.name_rows(evidence, room).await {
                Ok(found) => rows.extend(found),
                Err(error) => {
                    return self.errored(gate, error.context("offending rows could not be listed"));
                }
            }
        }
        self.outcomes.insert(
            gate,
            Outcome::Judged {
                judgement: Box::new(judgement),
                level,
                rows,
                sql: shown,
            },
        );
    }

    async fn name_rows(&mut self, evidence: &Evidence, limit: usize) -> Result<Vec<OffendingRow>> {
        if evidence.columns.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let session = self
            .sessions
            .get_mut(&evidence.side)
            .expect("a gate asks only where a session was opened");
        let limited: Sql = sql!("select * from ({}) e limit {}", evidence.sql, limit);
        let rows = session
            .rows(&limited, limit)
            .await
            .map_err(|failure| failure.error)?;
        Ok(rows
            .into_iter()
            .map(|values| OffendingRow {
                key: evidence.columns.iter().cloned().zip(values).collect(),
                what: evidence.what.clone(),
            })
            .collect())
    }
}

/// The databases that gates read, the run's target included.
pub fn sides(gates: &[Gate]) -> BTreeSet<Side> {
    let mut sides = BTreeSet::from([Side::Main]);
    for gate in gates {
        sides.extend(sides_of(&gate.definition.needs()));
    }
    sides
}

/// The values of one gate out of the answers to a plan.
fn values(
    gate: usize,
    ask: &Ask,
    plan: &Plan,
    answers: &BTreeMap<usize, Vec<Option<String>>>,
) -> Measured {
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
    Measured::new(asked.chain(known), ask.findings.clone())
}
