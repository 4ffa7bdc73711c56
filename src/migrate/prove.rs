//! The proof that migrations can be taken back: up, down, up again, comparing all the way.
//!
//! A history is cut at its irreversible migrations. Of every stretch between them, each up is
//! applied, recording what the database was before it; then each is taken back, comparing with
//! what was recorded before that very migration; then each is applied again, comparing with how
//! the first time left it. Irreversible ones are applied once.
//!
//! A difference that an earlier finding already told is not told again, so that the migration
//! named is the one whose down is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::contents::{Contents, ContentsDifference, Known, SequenceState, Traced};
use super::history::{History, Migration};
use super::replay::{LockMode, Pass, Replayer, Step, TableLock};
use super::shape::{Difference, Object, Shape};
use crate::error::{Error, ErrorKind, Result};

/// What a proof did and found.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Every migration run, in the order they were.
    pub steps: Vec<Step>,
    /// What is wrong, in the order it was found.
    pub findings: Vec<Finding>,
    /// Why it ended early: a migration that could not be executed. What was found before stands,
    /// and may be the reason: a table that a wrong down left behind cannot be created again.
    pub stopped: Option<Error>,
}

impl Replay {
    /// Whether every migration was executed and nothing is wrong.
    pub fn is_proven(&self) -> bool {
        self.stopped.is_none() && self.findings.is_empty() && !self.steps.is_empty()
    }
}

/// Something wrong that a proof found, and with which migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The migration's version.
    pub version: u64,
    /// Its number and name: `003_outcome_sync`.
    pub id: String,
    /// [`Pass::Back`]: its down is wrong; [`Pass::Again`]: its second up differs from the first.
    pub pass: Pass,
    /// The file to look into.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: Problem,
    /// The migration of an earlier finding about the same objects, of which this may be a
    /// consequence.
    pub may_follow_from: Option<String>,
}

/// What is wrong with a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The database does not look as it did; never empty.
    Shape(Vec<Difference>),
    /// Tables do not hold what they did; never empty.
    Contents(Vec<ContentsDifference>),
    /// A sequence would give values out again that it had given out.
    SequenceBehind {
        /// The sequence's qualified name.
        sequence: String,
        /// Where it stood.
        before: SequenceState,
        /// Where it stands.
        after: SequenceState,
    },
}

/// How many differences a finding shows.
const SHOWN: usize = 10;

impl fmt::Display for Finding {
    /// A sentence, then a line per difference, at most ten.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        let file = self.file.display();
        match (self.pass, &self.problem) {
            (Pass::Back, Problem::Shape(_)) => {
                write!(f, "the down of {id} does not restore the schema ({file})")?;
            }
            (Pass::Back, Problem::Contents(_)) => {
                write!(f, "the down of {id} does not restore the rows ({file})")?;
            }
            (Pass::Back, Problem::SequenceBehind { .. }) => {
                write!(f, "the down of {id} sets a sequence back ({file})")?;
            }
            (Pass::First | Pass::Again, Problem::Shape(_)) => {
                write!(
                    f,
                    "the second up of {id} makes another schema than the first ({file})"
                )?;
            }
            (Pass::First | Pass::Again, Problem::Contents(_)) => {
                write!(
                    f,
                    "the second up of {id} leaves other rows than the first ({file})"
                )?;
            }
            (Pass::First | Pass::Again, Problem::SequenceBehind { .. }) => {
                write!(f, "the second up of {id} sets a sequence back ({file})")?;
            }
        }
        if let Some(earlier) = &self.may_follow_from {
            write!(f, "; it may follow from what is wrong with {earlier}")?;
        }
        match &self.problem {
            Problem::Shape(differences) => list(f, differences),
            Problem::Contents(differences) => list(f, differences),
            Problem::SequenceBehind {
                sequence,
                before,
                after,
            } => {
                let last = |state: &SequenceState| {
                    state
                        .last
                        .map_or_else(|| "not yet used".to_owned(), |last| last.to_string())
                };
                write!(
                    f,
                    "\n  {sequence}: was {}, is {}",
                    last(before),
                    last(after)
                )
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, lines: &[impl fmt::Display]) -> fmt::Result {
    for line in lines.iter().take(SHOWN) {
        write!(f, "\n  {line}")?;
    }
    match lines.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, "\n  and {more} more"),
    }
}

/// What a database was at some moment.
#[derive(Clone, Debug, Default)]
struct State {
    shape: Shape,
    held: Traced,
}

/// What earlier findings have told, and of which migration.
#[derive(Default)]
struct Told {
    shape: BTreeSet<Difference>,
    contents: BTreeSet<ContentsDifference>,
    sequences: BTreeSet<String>,
    objects: BTreeMap<Object, String>,
    tables: BTreeMap<String, String>,
}

impl Told {
    /// The findings in which `now` differs from `expected`, without what was told before.
    ///
    /// Of a second up only the number of rows is compared, not their values: defaults such as
    /// `now()` make new ones.
    fn compare(
        &mut self,
        migration: &Migration,
        pass: Pass,
        expected: &State,
        now: &State,
    ) -> Vec<Finding> {
        let mut problems: Vec<(Problem, Option<String>)> = Vec::new();

        let mut shape = expected.shape.diff(&now.shape);
        shape.retain(|difference| !self.shape.contains(difference));
        if !shape.is_empty() {
            let follows = follows(shape.iter().map(|d| &d.object), &self.objects);
            for difference in &shape {
                self.shape.insert(difference.clone());
                self.objects
                    .entry(difference.object.clone())
                    .or_insert_with(|| migration.id.clone());
            }
            problems.push((Problem::Shape(shape), follows));
        }

        let mut contents = expected.held.contents.diff(&now.held.contents);
        contents.retain(|difference| {
            let is_counted =
                pass == Pass::Back || rows(&difference.before) != rows(&difference.after);
            // A table that is missing or extra is the shape's to tell, unless rows went with it.
            let is_empty = rows(&difference.before).unwrap_or(0) == 0
                && rows(&difference.after).unwrap_or(0) == 0;
            is_counted && !is_empty && !self.contents.contains(difference)
        });
        if !contents.is_empty() {
            let follows = follows(contents.iter().map(|d| &d.table), &self.tables);
            for difference in &contents {
                self.contents.insert(difference.clone());
                self.tables
                    .entry(difference.table.clone())
                    .or_insert_with(|| migration.id.clone());
            }
            problems.push((Problem::Contents(contents), follows));
        }

        for (sequence, before) in &expected.held.contents.sequences {
            let Some(after) = now.held.contents.sequences.get(sequence) else {
                continue;
            };
            if pass == Pass::Back
                && after.is_behind(before)
                && self.sequences.insert(sequence.clone())
            {
                let problem = Problem::SequenceBehind {
                    sequence: sequence.clone(),
                    before: *before,
                    after: *after,
                };
                problems.push((problem, None));
            }
        }

        let script = match (pass, &migration.down) {
            (Pass::Back, Some(down)) => down,
            _ => &migration.up,
        };
        let finding = |(problem, may_follow_from)| Finding {
            version: migration.version,
            id: migration.id.clone(),
            pass,
            file: script.file().to_owned(),
            problem,
            may_follow_from,
        };
        problems.into_iter().map(finding).collect()
    }
}

fn rows(contents: &Option<super::TableContents>) -> Option<u64> {
    contents.as_ref().map(|contents| contents.rows)
}

/// The migration that was told of everything listed here, if each was told of before.
fn follows<'a, T: Ord + 'a>(
    mut things: impl Iterator<Item = &'a T>,
    told: &BTreeMap<T, String>,
) -> Option<String> {
    let first = told.get(things.next()?)?;
    things
        .all(|thing| told.contains_key(thing))
        .then(|| first.clone())
}

impl Replayer<'_> {
    /// Proves that the reversible migrations of a history can be taken back and applied again.
    ///
    /// Leaves the database fully migrated, unless the proof was [stopped](Replay::stopped).
    /// An error is what kept the database from being read; a migration that cannot be executed
    /// ends the proof, and stands in its result beside what was found before.
    pub async fn prove(&mut self, history: &History) -> Result<Replay> {
        let mut replay = Replay::default();
        let mut state = self.state(&Known::default()).await?;
        for segment in segments(history.migrations()) {
            let ended = self.prove_segment(segment, state, &mut replay).await;
            match ended {
                Ok(after) => state = after,
                Err(error) if error.kind() == ErrorKind::Migration => {
                    replay.stopped = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(replay)
    }

    async fn prove_segment(
        &mut self,
        segment: &[Migration],
        before: State,
        replay: &mut Replay,
    ) -> Result<State> {
        let mut told = Told::default();
        // states[n] is what was there before the nth migration, the last what was there after all.
        let mut states = vec![before];
        for migration in segment {
            let (step, after) = self.step(migration, Pass::First, states.last()).await?;
            replay.steps.push(step);
            states.push(after);
        }
        let is_reversible = segment.iter().all(|migration| migration.down.is_some());
        let last = states.last().cloned().unwrap_or_default();
        if !is_reversible {
            return Ok(last);
        }
        let mut now = last;
        for (migration, expected) in segment.iter().zip(&states).rev() {
            let (step, after) = self.step(migration, Pass::Back, Some(&now)).await?;
            replay.steps.push(step);
            let found = told.compare(migration, Pass::Back, expected, &after);
            replay.findings.extend(found);
            now = after;
        }
        for (migration, expected) in segment.iter().zip(states.iter().skip(1)) {
            let (step, after) = self.step(migration, Pass::Again, Some(&now)).await?;
            replay.steps.push(step);
            let found = told.compare(migration, Pass::Again, expected, &after);
            replay.findings.extend(found);
            now = after;
        }
        Ok(now)
    }

    async fn step(
        &mut self,
        migration: &Migration,
        pass: Pass,
        before: Option<&State>,
    ) -> Result<(Step, State)> {
        let mut step = self.apply(migration, pass).await?;
        self.progress.comparing(migration, pass);
        // A transaction keeps its locks to its end: what it held no writer's lock on, it did not
        // write to. Without a transaction nothing is known of that.
        let written: Option<BTreeSet<u32>> = step.locks.as_ref().map(|locks| {
            let writing = |lock: &&TableLock| lock.mode >= LockMode::RowExclusive;
            locks.iter().filter(writing).map(|lock| lock.oid).collect()
        });
        let known = Known {
            earlier: before
                .zip(written.as_ref())
                .map(|(before, written)| (&before.held, written)),
        };
        let after = self.state(&known).await?;
        step.rows_delta = before.map(|before| delta(&before.held.contents, &after.held.contents));
        Ok((step, after))
    }

    async fn state(&mut self, known: &Known<'_>) -> Result<State> {
        Ok(State {
            shape: Shape::capture(self.connection, self.address).await?,
            held: Traced::capture(self.connection, self.address, known).await?,
        })
    }
}

/// Stretches of reversible migrations, and each irreversible one alone.
fn segments(migrations: &[Migration]) -> impl Iterator<Item = &[Migration]> {
    migrations.chunk_by(|a, b| a.down.is_some() && b.down.is_some())
}

/// By how many rows each table grew or shrank.
fn delta(before: &Contents, after: &Contents) -> BTreeMap<String, i64> {
    let signed = |count: Option<u64>| i64::try_from(count.unwrap_or(0)).unwrap_or(i64::MAX);
    let change = |difference: ContentsDifference| {
        let by = signed(rows(&difference.after)) - signed(rows(&difference.before));
        (by != 0).then_some((difference.table, by))
    };
    before.diff(after).into_iter().filter_map(change).collect()
}
