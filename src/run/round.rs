//! One evaluation of all gates on one snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::{Ask, AuthorCheck, Explained, Gate, Known, Measured, Needs};
use crate::pg::{Address, Failure, Session, Snapshot};
use crate::plan::{Plan, plan};
use crate::sql::Relation;

use super::ask::{Answers, Asking, values};
use super::pool::Pool;
use super::{Findings, Options, Outcome, catalog, sides_of};

/// One evaluation on one snapshot.
pub(super) struct Round<'a> {
    gates: &'a [Gate],
    options: &'a Options,
    connections: usize,
    pools: BTreeMap<Side, Pool>,
    /// That of the main session, once there was one.
    snapshot: Option<Snapshot>,
    notes: Vec<String>,
    found: Found<'a>,
}

/// What has become of the gates so far.
struct Found<'a> {
    gates: &'a [Gate],
    outcomes: BTreeMap<usize, Outcome>,
    /// By gate, the place of the step that failed first in the plan, whichever was first in time.
    failed_at: BTreeMap<usize, usize>,
    /// Gates that were being measured when a connection was lost.
    lost: BTreeMap<usize, Error>,
}

/// Something to do on a session.
enum Job {
    /// Ask the step at this place.
    Step(usize),
    /// Judge a gate; without a measurement, ask it alone.
    Judge(usize, Option<Measured>),
}

/// What came of a [`Job`].
enum Done {
    Step(usize, Result<Vec<Option<String>>>),
    Judge(usize, Result<Outcome>),
}

impl Found<'_> {
    fn errored(&mut self, gate: usize, error: Error) {
        if error.kind() == ErrorKind::ConnectionLost {
            self.lost.insert(gate, error);
        } else {
            let error = if error.excerpts().is_empty() {
                let origin = &self.gates[gate].origin;
                error.at(origin.file.excerpt(origin.fields.header.clone(), ""))
            } else {
                error
            };
            self.outcomes.insert(gate, Outcome::Errored(error));
        }
    }

    /// A step failed for a gate; of several, the first in the plan is told.
    fn failed(&mut self, gate: usize, step: usize, error: Error) {
        let is_first = self.failed_at.get(&gate).is_none_or(|other| step < *other);
        if is_first {
            self.failed_at.insert(gate, step);
            self.errored(gate, error);
        }
    }

    /// Whether a gate still waits for its outcome.
    fn is_open(&self, gate: usize) -> bool {
        !self.outcomes.contains_key(&gate)
    }
}

impl<'a> Round<'a> {
    /// A round in which some gates have been given up.
    pub(super) fn new(
        gates: &'a [Gate],
        options: &'a Options,
        connections: usize,
        given_up: &BTreeMap<usize, Error>,
    ) -> Self {
        let outcomes = given_up
            .iter()
            .map(|(gate, error)| (*gate, Outcome::Errored(error.clone())));
        Self {
            gates,
            options,
            connections,
            pools: BTreeMap::new(),
            snapshot: None,
            notes: Vec::new(),
            found: Found {
                gates,
                outcomes: outcomes.collect(),
                failed_at: BTreeMap::new(),
                lost: BTreeMap::new(),
            },
        }
    }

    /// Opens sessions, asks and judges, and ends the sessions.
    pub(super) async fn evaluate(&mut self, targets: &BTreeMap<Side, Address>) {
        let needs: BTreeMap<usize, Needs> = (0..self.gates.len())
            .filter(|gate| self.found.is_open(*gate))
            .map(|gate| (gate, self.gates[gate].definition.needs()))
            .collect();
        let mut catalogs = BTreeMap::new();
        let sides: BTreeSet<Side> = std::iter::once(Side::Main)
            .chain(needs.values().flat_map(sides_of))
            .collect();
        for side in sides {
            let concerned: Vec<usize> = needs
                .iter()
                .filter(|(_, needs)| {
                    side == Side::Main || sides_of(needs).any(|other| other == side)
                })
                .map(|(gate, _)| *gate)
                .collect();
            match self.open(&side, targets, &needs, concerned.len()).await {
                Ok(catalog) => {
                    catalogs.insert(side, catalog);
                }
                Err(error) => {
                    for gate in concerned {
                        let outcomes = self.found.outcomes.entry(gate);
                        outcomes.or_insert_with(|| Outcome::Errored(error.clone()));
                    }
                }
            }
        }
        let mut asks = BTreeMap::new();
        for (gate, needs) in &needs {
            if !self.found.is_open(*gate) || !self.found.lost.is_empty() {
                continue;
            }
            if let Some(explained) = self.explain(*gate, &needs.checks).await {
                let known = Known {
                    catalogs: &catalogs,
                    explained: &explained,
                    proof: self.options.proof,
                };
                match self.gates[*gate].definition.ask(&known) {
                    Ok(ask) => {
                        asks.insert(*gate, ask);
                    }
                    Err(error) => self.found.errored(*gate, error),
                }
            }
        }
        if self.found.lost.is_empty() {
            self.measure(&asks, &catalogs).await;
        }
        self.close().await;
    }

    /// What there is when a run ends early: gates that were not judged are errored, and the
    /// server is told to end what it still does.
    pub(super) async fn abandon(mut self, error: &Error) -> Findings {
        self.close().await;
        let lost = self.take_lost();
        for gate in 0..self.gates.len() {
            if self.found.is_open(gate) && !lost.contains_key(&gate) {
                self.found.errored(gate, error.clone());
            }
        }
        self.finish(lost)
    }

    /// The gates that were being measured when a connection was lost.
    pub(super) fn take_lost(&mut self) -> BTreeMap<usize, Error> {
        std::mem::take(&mut self.found.lost)
    }

    /// What was found; gates whose connection was lost are errored.
    pub(super) fn finish(mut self, lost: BTreeMap<usize, Error>) -> Findings {
        for (gate, error) in lost {
            self.found.outcomes.insert(gate, Outcome::Errored(error));
        }
        Findings {
            snapshot: self.snapshot,
            outcomes: self.found.outcomes.into_values().collect(),
            notes: self.notes,
        }
    }

    async fn close(&mut self) {
        let pools = std::mem::take(&mut self.pools);
        join_all(pools.into_values().map(Pool::close)).await;
    }

    async fn open(
        &mut self,
        side: &Side,
        targets: &BTreeMap<Side, Address>,
        needs: &BTreeMap<usize, Needs>,
        gates: usize,
    ) -> Result<Catalog> {
        let address = targets.get(side).ok_or_else(|| {
            let name = match side {
                Side::Main => "of the run",
                Side::Other(name) => name,
            };
            Error::usage(format!("there is no target `{name}`"))
                .help("define it as [target.NAME] in postern.toml, or give --other NAME=URL")
        })?;
        let limits = &self.options.limits;
        let mut first = Session::open(address, limits).await?;
        let snapshot = first.snapshot().clone();
        if *side == Side::Main {
            self.snapshot = Some(snapshot.clone());
        }
        // More sessions than gates would have nothing to do.
        let wanted = self.connections.min(gates);
        let further = (1..wanted).map(|_| Session::join(address, limits, &snapshot));
        let (catalog, further) = tokio::join!(
            catalog::load(&mut first, side, needs.values()),
            join_all(further)
        );
        let mut joined = Vec::new();
        let mut refused = None;
        for session in further {
            match session {
                Ok(session) => joined.push(session),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(error) = refused {
            self.notes.push(format!(
                "{address}: {} of {wanted} connections could be had: {}",
                joined.len() + 1,
                error.message()
            ));
        }
        let pool = Pool::new(first, joined, limits);
        self.pools.insert(side.clone(), pool);
        catalog
    }

    /// Checks all author-written SQL of a gate; `None` when some of it is wrong.
    async fn explain(&mut self, gate: usize, checks: &[AuthorCheck]) -> Option<Vec<Explained>> {
        let mut explained = Vec::new();
        for check in checks {
            let pool = self.pools.get(&check.side)?;
            match pool.explain(&check.statement).await {
                Ok(plan) => {
                    let mut relations = BTreeSet::new();
                    relations_of(&plan, &mut relations);
                    explained.push(Explained {
                        relations: relations.into_iter().collect(),
                    });
                }
                Err(failure) => {
                    let error = self.blame(gate, check, failure);
                    self.found.errored(gate, error);
                    return None;
                }
            }
        }
        Some(explained)
    }

    /// Points at the author's own text where Postgres saw the mistake.
    fn blame(&self, gate: usize, check: &AuthorCheck, failure: Failure) -> Error {
        let statement = check.statement.as_str();
        let offset = failure.position.and_then(|position| {
            let (byte, _) = statement.char_indices().nth(position.checked_sub(1)?)?;
            let start = statement.rfind(check.author.as_str())?;
            byte.checked_sub(start)
                .filter(|at| *at <= check.author.as_str().len())
        });
        let origin = &self.gates[gate].origin;
        failure
            .error
            .at(origin.author_excerpt(check.field, check.author.as_str(), offset))
    }

    /// Runs the plan of all asks, on all sessions at once, and judges each gate as soon as all of
    /// its steps were answered.
    async fn measure(&mut self, asks: &BTreeMap<usize, Ask>, catalogs: &BTreeMap<Side, Catalog>) {
        let all = plan(asks.iter().map(|(gate, ask)| (*gate, ask)));
        let asking = Asking {
            gates: self.gates,
            options: self.options,
            pools: &self.pools,
            catalogs,
        };
        let found = &mut self.found;
        let width = self.pools.values().map(Pool::size).max().unwrap_or(1);
        let mut queue = Queue::new(&all, asks);
        let mut answers = Answers::new();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < width
                && let Some(job) = queue.next(&all, running.len())
            {
                queue.asked += usize::from(matches!(job, Job::Step(_)));
                running.push(asking.run(job, &all, asks));
            }
            let Some(done) = running.next().await else {
                return;
            };
            queue.asked -= usize::from(matches!(done, Done::Step(..)));
            match done {
                Done::Step(index, Ok(row)) => {
                    answers.insert(index, row);
                    for gate in &all.steps[index].gates {
                        let bindings = all.bindings.get(gate).into_iter().flatten();
                        let mut steps = bindings.map(|binding| &binding.step);
                        if found.is_open(*gate) && steps.all(|step| answers.contains_key(step)) {
                            let measured = values(*gate, &asks[gate], &all, &answers);
                            queue.judge(*gate, measured);
                        }
                    }
                }
                // One gate's expression can bring down a shared scan; each is then asked alone.
                Done::Step(index, Err(error))
                    if all.steps[index].gates.len() > 1 && error.kind() == ErrorKind::Database =>
                {
                    queue.alone.extend(&all.steps[index].gates);
                }
                Done::Step(index, Err(error)) => {
                    for gate in &all.steps[index].gates {
                        found.failed(*gate, queue.places[&index], error.clone());
                    }
                }
                Done::Judge(gate, Ok(outcome)) => {
                    found.outcomes.insert(gate, outcome);
                }
                Done::Judge(gate, Err(error)) => found.errored(gate, error),
            }
            if !found.lost.is_empty() {
                return;
            }
            queue.alone.retain(|gate| found.is_open(*gate));
        }
    }
}

impl Asking<'_> {
    async fn run(&self, job: Job, plan: &Plan, asks: &BTreeMap<usize, Ask>) -> Done {
        match job {
            Job::Step(index) => Done::Step(index, self.answer(&plan.steps[index]).await),
            Job::Judge(gate, measured) => {
                Done::Judge(gate, self.judge(gate, &asks[&gate], measured).await)
            }
        }
    }
}

/// What is to be done, in an order that does not depend on time.
struct Queue {
    /// Gates whose answers are there, so that a run that ends early has judged them.
    answered: VecDeque<(usize, Measured)>,
    /// Steps, in the order of the gates; last those whose time is measured, each on its own.
    steps: VecDeque<usize>,
    /// The places of steps in that order.
    places: BTreeMap<usize, usize>,
    /// Gates whose shared scan failed.
    alone: BTreeSet<usize>,
    /// How many steps are being asked.
    asked: usize,
}

impl Queue {
    fn new(plan: &Plan, asks: &BTreeMap<usize, Ask>) -> Self {
        let mut steps: Vec<usize> = (0..plan.steps.len()).collect();
        steps.sort_by_key(|index| {
            let step = &plan.steps[*index];
            (step.timed.is_some(), step.gates.iter().min().copied())
        });
        let is_unasked = |gate: &usize| plan.bindings.get(gate).is_none_or(Vec::is_empty);
        let unasked = asks.iter().filter(|(gate, _)| is_unasked(gate));
        Self {
            answered: unasked
                .map(|(gate, ask)| (*gate, values(*gate, ask, plan, &Answers::new())))
                .collect(),
            places: (0..)
                .zip(&steps)
                .map(|(place, step)| (*step, place))
                .collect(),
            steps: steps.into(),
            alone: BTreeSet::new(),
            asked: 0,
        }
    }

    fn judge(&mut self, gate: usize, measured: Measured) {
        self.answered.push_back((gate, measured));
    }

    /// What to do next while `running` other things are being done.
    fn next(&mut self, plan: &Plan, running: usize) -> Option<Job> {
        if let Some((gate, measured)) = self.answered.pop_front() {
            return Some(Job::Judge(gate, Some(measured)));
        }
        let is_timed = |step: &usize| plan.steps[*step].timed.is_some();
        match self.steps.front() {
            Some(step) if !is_timed(step) => self.steps.pop_front().map(Job::Step),
            // A step that still runs may decide a gate, or leave more of them to be asked alone.
            _ if self.asked > 0 => None,
            _ if !self.alone.is_empty() => {
                let gate = self.alone.pop_first();
                gate.map(|gate| Job::Judge(gate, None))
            }
            _ if running > 0 => None,
            _ => self.steps.pop_front().map(Job::Step),
        }
    }
}

/// The relations that a plan reads.
fn relations_of(plan: &serde_json::Value, found: &mut BTreeSet<Relation>) {
    match plan {
        serde_json::Value::Array(items) => items.iter().for_each(|item| relations_of(item, found)),
        serde_json::Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(serde_json::Value::as_str);
            if let (Some(schema), Some(name)) = (text("Schema"), text("Relation Name")) {
                found.insert(Relation::new(schema, name));
            }
            fields.values().for_each(|value| relations_of(value, found));
        }
        _ => {}
    }
}
