//! Step 4: execution. Opens read-only sessions, loads what gates need to know, runs the plan,
//! judges, and collects evidence.

mod ask;
mod catalog;
mod early;
mod explain;
mod pool;
mod prepare;
mod round;
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::Error;
use crate::gate::catalog::Side;
use crate::gate::{Gate, Judgement, Needs, Proof};
use crate::pg::{Address, Limits, Snapshot};

use round::Round;

pub use early::Interrupt;
pub use explain::{
    Explanation, GateExplained, Granted, Node, Planned, Privilege, Read, Statement, explain,
};

/// How a run behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long things may take.
    pub limits: Limits,
    /// How many offending rows are named at the most, where a gate does not say.
    pub examples: u32,
    /// How many sessions on one database share the work, all on one snapshot; at least 1.
    pub connections: usize,
    /// What may stand for a look at the rows.
    pub proof: Proof,
    /// How long the whole run may take; gates that were not judged by then are errored.
    pub timeout: Option<Duration>,
    /// Ends the run early, with the same effect.
    pub interrupt: Interrupt,
}

/// How many sessions share the work where nobody says.
pub const CONNECTIONS: usize = 2;

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            examples: 10,
            connections: CONNECTIONS,
            proof: Proof::default(),
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
        /// How many rows its failure comes to, where it comes to nothing else.
        rows_acceptable: Option<u64>,
        /// The constraint or index that proves it, where no row was looked at.
        proof: Option<String>,
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
    /// What is worth knowing beside that, such as that a connection could not be had.
    pub notes: Vec<String>,
}

/// How often a run starts over on a new snapshot after its connection was lost.
const RESTARTS: usize = 3;

/// Evaluates every gate against `targets`, which holds at least [`Side::Main`].
///
/// Never fails as a whole: a gate that could not be evaluated is an [`Outcome::Errored`]. All
/// judged gates read one moment: when a connection is lost, the gates that were being measured on it
/// are errored and all others are evaluated anew on a new snapshot, over one connection.
pub async fn check(
    gates: &[Gate],
    targets: &BTreeMap<Side, Address>,
    options: &Options,
) -> Findings {
    let mut given_up: BTreeMap<usize, Error> = BTreeMap::new();
    let mut early = std::pin::pin!(options.interrupt.or_after(options.timeout));
    for attempt in 0.. {
        // A gate that ends connections ends only its own where there is no other.
        let connections = if attempt == 0 { options.connections } else { 1 };
        let mut round = Round::new(gates, options, connections, &given_up);
        // Dropped halfway, an evaluation leaves what was judged by then.
        let ended_early = tokio::select! {
            () = round.evaluate(targets) => None,
            error = &mut early => Some(error),
        };
        if let Some(error) = ended_early {
            return round.abandon(&error).await;
        }
        let lost = round.take_lost();
        if lost.is_empty() || attempt == RESTARTS {
            return round.finish(lost);
        }
        given_up.extend(lost);
    }
    unreachable!("the last attempt returns")
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
    relations.chain(needs.checks.iter().map(|check| check.side.clone()))
}
