//! One evaluation of all gates on one snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::Side;
use crate::gate::{Ask, Gate, Measured};
use crate::pg::{Address, Snapshot, Taken, random_hex};
use crate::plan::{Pass, Plan, plan};

use super::ask::{Answer, Answers, Asking, Judged, values};
use super::name::Named;
use super::pool::Pool;
use super::prepare::Prepared;
use super::{Findings, Options, Outcome};

/// One evaluation on one snapshot.
pub(super) struct Round<'a> {
    pub(super) gates: &'a [Gate],
    pub(super) options: &'a Options,
    pub(super) connections: usize,
    /// Whether a connection was lost before: the server may be on its way back.
    pub(super) is_again: bool,
    /// What makes the stand-ins of masked values this round's own.
    pub(super) salt: String,
    pub(super) pools: BTreeMap<Side, Pool>,
    /// That of the main session, once there was one.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) notes: Vec<String>,
    /// Gates that are asked again, by the answers of an earlier moment.
    pub(super) again: BTreeMap<usize, Measured>,
    pub(super) found: Found<'a>,
}

/// What has become of the gates so far.
pub(super) struct Found<'a> {
    gates: &'a [Gate],
    pub(super) outcomes: BTreeMap<usize, Outcome>,
    /// By gate, the place of the step that failed first in the plan, whichever was first in time.
    failed_at: BTreeMap<usize, usize>,
    /// What gates rest on that may be asked again.
    pub(super) measured: BTreeMap<usize, Measured>,
    /// Gates that were being measured when a connection was lost.
    pub(super) lost: BTreeMap<usize, Error>,
    /// Whether that was while a pass named their rows: alone, most of them would not have lost it.
    pub(super) is_lost_together: bool,
}

/// Something to do on a session.
enum Job {
    /// Ask the step at this place.
    Step(usize),
    /// Judge a gate; without a measurement, ask it alone.
    Judge(usize, Option<Measured>),
    /// Name the offending rows of a gate.
    Name(usize, Box<Judged>),
    /// Name those of several.
    NameTogether(Pass),
}

/// What came of a [`Job`].
enum Done {
    Step(usize, Result<Answer>),
    Judge(usize, Result<Box<Judged>>),
    Name(usize, Result<(Box<Judged>, Named)>),
    NameTogether(Pass, Result<Vec<Option<Taken>>>),
}

impl Found<'_> {
    pub(super) fn errored(&mut self, gate: usize, error: Error) {
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

    /// The outcome of a gate whose rows are named.
    fn finished(&mut self, gate: usize, judged: Judged, named: Named) {
        if self.gates[gate].definition.recheck().is_some() {
            self.measured.insert(gate, judged.measured.clone());
        }
        self.outcomes.insert(gate, judged.with(named));
    }

    /// Whether a gate still waits for its outcome.
    pub(super) fn is_open(&self, gate: usize) -> bool {
        !self.outcomes.contains_key(&gate)
    }
}

impl<'a> Round<'a> {
    /// A round in which some gates have been given up.
    pub(super) fn new(
        gates: &'a [Gate],
        options: &'a Options,
        connections: usize,
        is_again: bool,
        given_up: &BTreeMap<usize, Error>,
    ) -> Self {
        let outcomes = given_up
            .iter()
            .map(|(gate, error)| (*gate, Outcome::Errored(error.clone())));
        Self {
            gates,
            options,
            connections,
            is_again,
            salt: random_hex() + &random_hex(),
            pools: BTreeMap::new(),
            snapshot: None,
            notes: Vec::new(),
            again: BTreeMap::new(),
            found: Found {
                gates,
                outcomes: outcomes.collect(),
                failed_at: BTreeMap::new(),
                measured: BTreeMap::new(),
                lost: BTreeMap::new(),
                is_lost_together: false,
            },
        }
    }

    /// Opens sessions, asks and judges, and ends the sessions.
    pub(super) async fn evaluate(&mut self, targets: &BTreeMap<Side, Address>) {
        let prepared = self.prepare(targets).await;
        if self.found.lost.is_empty() {
            self.measure(prepared).await;
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

    /// What was found; gates whose connection was lost are errored, and so are those that were not asked before that.
    pub(super) fn finish(mut self, lost: BTreeMap<usize, Error>) -> Findings {
        if let Some(first) = lost.values().next() {
            let what = format!("not evaluated: a connection was lost: {}", first.message());
            let mut unasked = Error::new(ErrorKind::ConnectionLost, what);
            if let Some(sqlstate) = first.sqlstate() {
                unasked = unasked.with_sqlstate(sqlstate);
            }
            for gate in 0..self.gates.len() {
                let outcomes = self.found.outcomes.entry(gate);
                outcomes.or_insert_with(|| Outcome::Errored(unasked.clone()));
            }
        }
        for (gate, error) in lost {
            self.found.outcomes.insert(gate, Outcome::Errored(error));
        }
        Findings {
            snapshot: self.snapshot,
            outcomes: self.found.outcomes.into_values().collect(),
            notes: self.notes,
        }
    }

    pub(super) async fn close(&mut self) {
        let pools = std::mem::take(&mut self.pools);
        join_all(pools.into_values().map(Pool::close)).await;
    }

    /// Runs the plan of all asks, on all sessions at once, and judges each gate as soon as all of
    /// its steps were answered. Gates whose last answer comes with the same step have their offending rows named
    /// together, where that is worth it.
    async fn measure(&mut self, prepared: Prepared) {
        let Prepared {
            catalogs,
            mut asks,
            kept,
            ..
        } = prepared;
        let asking = Asking {
            gates: self.gates,
            options: self.options,
            pools: &self.pools,
            catalogs: &catalogs,
            kept: &kept,
        };
        let found = &mut self.found;
        asking.refuse(&asks, found).await;
        if !found.lost.is_empty() {
            return;
        }
        asks.retain(|gate, _| found.is_open(*gate));
        let asks = &asks;
        let all = plan(asks.iter().map(|(gate, ask)| (*gate, ask)));
        // A statement that waits for a session of its own database holds up none of another.
        let width = self.pools.values().map(Pool::size).sum::<usize>().max(1);
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
                    let mut judged = BTreeMap::new();
                    for gate in &all.steps[index].gates {
                        let bindings = all.bindings.get(gate).into_iter().flatten();
                        let mut steps = bindings.map(|binding| &binding.step);
                        if found.is_open(*gate) && steps.all(|step| answers.contains_key(step)) {
                            let measured = values(*gate, &asks[gate], &all, &answers);
                            match asking.judge_at_once(*gate, &asks[gate], &measured) {
                                Ok(Some(one)) => {
                                    judged.insert(*gate, one);
                                }
                                Ok(None) => queue.judge(*gate, measured),
                                Err(error) => found.errored(*gate, error),
                            }
                        }
                    }
                    asking.name_all(judged, self.is_again, found, &mut queue);
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
                Done::Judge(gate, Ok(judged)) => {
                    let judged = BTreeMap::from([(gate, *judged)]);
                    asking.name_all(judged, self.is_again, found, &mut queue);
                }
                Done::Judge(gate, Err(error)) => found.errored(gate, error),
                Done::Name(gate, Ok((judged, named))) => found.finished(gate, *judged, named),
                Done::Name(gate, Err(error)) => found.errored(gate, error),
                Done::NameTogether(pass, Ok(parts)) => {
                    for (part, taken) in pass.parts.iter().zip(parts) {
                        let judged = queue.unnamed(part.gate);
                        match taken {
                            Some(taken) => {
                                let named = asking.named(&judged, taken);
                                found.finished(part.gate, judged, named);
                            }
                            None => queue.name_alone(part.gate, judged),
                        }
                    }
                }
                Done::NameTogether(pass, Err(error))
                    if error.kind() == ErrorKind::ConnectionLost =>
                {
                    found.is_lost_together = pass.parts.len() > 1;
                    for part in &pass.parts {
                        found.errored(part.gate, error.clone());
                    }
                }
                // One gate's key or value can bring down a pass; each is then named alone.
                Done::NameTogether(pass, Err(_)) => {
                    for part in &pass.parts {
                        let judged = queue.unnamed(part.gate);
                        queue.name_alone(part.gate, judged);
                    }
                }
            }
            if !found.lost.is_empty() {
                return;
            }
            queue.alone.retain(|gate| found.is_open(*gate));
        }
    }
}

impl Asking<'_> {
    /// Gives up the gates that would read more than they may, each on its own; a scan that several share is then
    /// asked without them.
    async fn refuse(&self, asks: &BTreeMap<usize, Ask>, found: &mut Found<'_>) {
        for (gate, ask) in asks {
            if let Err(error) = self.hold_to_ceiling(*gate, ask, 0).await {
                found.errored(*gate, error);
            }
        }
    }

    /// Has the offending rows of gates named that were judged at once; those without any are finished. Once a
    /// connection was lost, each is named alone, so that it loses only its own.
    fn name_all(
        &self,
        mut judged: BTreeMap<usize, Judged>,
        is_again: bool,
        found: &mut Found<'_>,
        queue: &mut Queue,
    ) {
        for (gate, finished) in judged.extract_if(.., |_, one| one.evidence.is_empty()) {
            found.finished(gate, finished, Named::default());
        }
        let passes = match is_again {
            true => Vec::new(),
            false => self.passes(&judged),
        };
        queue.name(judged, passes);
    }

    async fn run(&self, job: Job, plan: &Plan, asks: &BTreeMap<usize, Ask>) -> Done {
        match job {
            Job::Step(index) => Done::Step(index, self.answer(&plan.steps[index]).await),
            Job::Judge(gate, measured) => {
                let judged = self.judge(gate, &asks[&gate], measured).await;
                Done::Judge(gate, judged.map(Box::new))
            }
            Job::Name(gate, judged) => {
                let named = self.name(gate, &judged).await;
                Done::Name(gate, named.map(|named| (judged, named)))
            }
            Job::NameTogether(pass) => {
                let found = self.name_together(&pass).await;
                Done::NameTogether(pass, found)
            }
        }
    }
}

/// What is to be done, in an order that does not depend on time.
struct Queue {
    /// What names offending rows.
    naming: VecDeque<Job>,
    /// Gates whose rows a pass names.
    named_together: BTreeMap<usize, Judged>,
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
            naming: VecDeque::new(),
            named_together: BTreeMap::new(),
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

    /// Has the offending rows of gates named, by passes and, of gates that are in none, alone.
    fn name(&mut self, mut judged: BTreeMap<usize, Judged>, passes: Vec<Pass>) {
        for pass in passes {
            let gates = pass.parts.iter().map(|part| part.gate);
            let gates = gates.filter_map(|gate| judged.remove_entry(&gate));
            self.named_together.extend(gates);
            self.naming.push_back(Job::NameTogether(pass));
        }
        for (gate, judged) in judged {
            self.name_alone(gate, judged);
        }
    }

    fn name_alone(&mut self, gate: usize, judged: Judged) {
        self.naming.push_back(Job::Name(gate, Box::new(judged)));
    }

    /// A gate whose rows a pass was to name.
    fn unnamed(&mut self, gate: usize) -> Judged {
        let judged = self.named_together.remove(&gate);
        judged.expect("each gate is in one pass")
    }

    /// What to do next while `running` other things are being done.
    fn next(&mut self, plan: &Plan, running: usize) -> Option<Job> {
        if let Some(job) = self.naming.pop_front() {
            return Some(job);
        }
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
