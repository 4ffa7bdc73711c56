//! Step 4: execution. Opens read-only sessions, loads what gates need to know, runs the plan,
//! judges, and collects evidence.

mod again;
mod ask;
mod catalog;
mod cost;
mod early;
mod explain;
mod masks;
mod name;
mod pool;
mod prepare;
mod recheck;
mod round;
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::Error;
use crate::gate::catalog::Side;
use crate::gate::mask::Pattern;
use crate::gate::sampling::{Sample, SampleReport};
use crate::gate::size::Size;
use crate::gate::{Gate, Judgement, Needs, Proof};
use crate::pg::{Address, Limits, Snapshot};

use again::Patience;
use round::Round;

pub use again::RETRIES;
pub use cost::{Node, Planned, Read};
pub use early::Interrupt;
pub use explain::{Explanation, GateExplained, Granted, Privilege, Statement, explain};

/// How a run behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long things may take.
    pub limits: Limits,
    /// How many offending rows are named at the most, where a gate does not say.
    pub examples: u32,
    /// Whether values of offending rows are shown beside their keys.
    pub values: bool,
    /// The columns whose values stay in the database, beside those that a comment tags.
    pub masked: Vec<Pattern>,
    /// How many sessions on one database share the work, all on one snapshot; at least 1.
    pub connections: usize,
    /// What may stand for a look at the rows.
    pub proof: Proof,
    /// Which blocks are taken where a gate looks at a sample: the same again with the same seed.
    pub seed: u32,
    /// How much one gate may read; one that would read more is errored and not run, and one that would only by naming
    /// its offending rows does not name them.
    pub max_scan: Option<Size>,
    /// How often the run starts over after a connection was lost.
    pub retries: u32,
    /// How long the whole run may take; gates that were not judged by then are errored.
    pub timeout: Option<Duration>,
    /// Ends the run early, with the same effect.
    pub interrupt: Interrupt,
}

/// How many sessions share the work where nobody says.
pub const CONNECTIONS: usize = 2;

/// Which blocks are taken for a sample where nobody says.
pub const SEED: u32 = 1;

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            examples: 10,
            values: false,
            masked: Vec::new(),
            connections: CONNECTIONS,
            proof: Proof::default(),
            seed: SEED,
            max_scan: None,
            retries: RETRIES,
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
        /// How many of those that were asked for are not among them, because they are too large together.
        rows_left_out: u64,
        /// The SQL that shows every offending row.
        sql: Option<String>,
        /// How many rows its failure comes to, where it comes to nothing else.
        rows_acceptable: Option<u64>,
        /// The constraint or index that proves it, where no row was looked at.
        proof: Option<String>,
        /// What the sample says, where only one was looked at.
        sample: Option<Box<SampleReport>>,
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
                Some(Judged::Undecided) => State::Errored,
            },
        }
    }
}

/// What the verdict on a gate comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It holds.
    Passed,
    /// It holds, beyond the warning level.
    Warned,
    /// It does not hold.
    Failed,
    /// A sample does not tell, so it has not passed.
    Undecided,
}

/// An offending row, named by its key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct OffendingRow {
    /// Key columns and their values as text, in key order.
    pub key: Vec<(String, Option<String>)>,
    /// The values of other columns as text, where they were asked for.
    pub values: Vec<(String, Option<String>)>,
    /// What is wrong with it, where the gate can find several things.
    pub what: Option<String>,
}

impl OffendingRow {
    /// How many bytes of text it holds.
    pub fn bytes(&self) -> usize {
        let columns = self.key.iter().chain(&self.values);
        let value = |value: &Option<String>| value.as_ref().map_or(0, String::len);
        let columns = columns.map(|(name, text)| name.len() + value(text));
        columns.sum::<usize>() + value(&self.what)
    }
}

/// What a run found, gate by gate in the order of their definition.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The moment that every gate read; `None` when the target was never reached.
    pub snapshot: Option<Snapshot>,
    /// One outcome per gate.
    pub outcomes: Vec<Outcome>,
    /// What is worth knowing beside that, such as that a connection could not be had.
    pub notes: Vec<String>,
}

/// Evaluates every gate against `targets`, which holds at least [`Side::Main`].
///
/// Never fails as a whole: a gate that could not be evaluated is an [`Outcome::Errored`]. All
/// judged gates read one moment: when a connection is lost, all gates are evaluated anew on a new snapshot,
/// over one connection, but for those that are given up; see `src/run/again.rs`.
pub async fn check(
    gates: &[Gate],
    targets: &BTreeMap<Side, Address>,
    options: &Options,
) -> Findings {
    let mut patience = Patience::new(options.retries);
    let mut early = std::pin::pin!(options.interrupt.or_after(options.timeout));
    let mut is_again = false;
    let mut findings = loop {
        // A gate that ends connections ends only its own where there is no other.
        let connections = if is_again { 1 } else { options.connections };
        let mut round = Round::new(gates, options, connections, is_again, &patience.given_up);
        // Dropped halfway, an evaluation leaves what was judged by then.
        let ended_early = tokio::select! {
            () = round.evaluate(targets) => None,
            error = &mut early => Some(error),
        };
        if let Some(error) = ended_early {
            break round.abandon(&error).await;
        }
        let lost = round.take_lost();
        if !patience.again(&lost, round.found.is_lost_together) {
            let measured = std::mem::take(&mut round.found.measured);
            let mut again = recheck::Rechecks::new(gates, options, round.finish(lost), measured);
            // Ended early, what differed has differed.
            let ended_early = tokio::select! {
                () = again.run(targets) => None,
                error = &mut early => Some(error),
            };
            if let Some(error) = ended_early {
                again.give_up(&error);
            }
            break again.finish().await;
        }
        is_again = true;
    };
    findings.notes.splice(0..0, patience.notes);
    findings
}

/// The blocks that a gate looks at; all where it does not say.
fn sample_of(gate: &Gate, options: &Options) -> Option<Sample> {
    gate.sample.map(|sampled| Sample {
        share: sampled.share,
        seed: options.seed,
    })
}

/// The databases that gates read, the run's target included.
pub fn sides(gates: &[Gate]) -> BTreeSet<Side> {
    let mut sides = BTreeSet::from([Side::Main]);
    for gate in gates {
        sides.extend(sides_of(&gate.definition.needs()));
    }
    sides
}

fn sides_of(needs: &Needs) -> impl Iterator<Item = Side> + '_ {
    let relations = needs.relations.iter().map(|(side, _)| side.clone());
    let checks = needs.checks.iter().map(|check| check.side.clone());
    relations.chain(checks).chain(needs.whole.iter().cloned())
}
