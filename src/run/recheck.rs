//! Compares again what differed, at a later moment, before it is said to differ: two databases are not
//! read at one moment, and what is written to one may arrive at the other later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gate::catalog::Side;
use crate::gate::{Finding, Gate, Measured, Recheck};
use crate::pg::{Address, Limits, Session};
use crate::sql;
use crate::sql::{Literal, Sql};

use super::round::Round;
use super::{Findings, Options, Outcome, State, sides_of};

/// How often a hot standby is asked how far it is.
const POLL: Duration = Duration::from_millis(100);

/// What a run found, and which of it is compared again.
pub(super) struct Rechecks<'a> {
    gates: &'a [Gate],
    options: &'a Options,
    findings: Findings,
    open: BTreeMap<usize, Open>,
    /// The one that is under way, so that it can be ended.
    round: Option<Round<'a>>,
}

/// A gate whose sides differ.
struct Open {
    recheck: Recheck,
    /// What was found first.
    first: String,
    done: u32,
    measured: Measured,
}

impl<'a> Rechecks<'a> {
    pub(super) fn new(
        gates: &'a [Gate],
        options: &'a Options,
        findings: Findings,
        measured: BTreeMap<usize, Measured>,
    ) -> Self {
        let open = measured.into_iter().filter_map(|(gate, measured)| {
            let open = Open {
                recheck: gates[gate].definition.recheck()?,
                first: message(&findings.outcomes[gate])?.to_owned(),
                done: 0,
                measured,
            };
            Some((gate, open))
        });
        Self {
            gates,
            options,
            open: open.collect(),
            findings,
            round: None,
        }
    }

    /// Compares until nothing differs or the patience of every gate is over.
    pub(super) async fn run(&mut self, targets: &BTreeMap<Side, Address>) {
        loop {
            let due: BTreeSet<usize> = self
                .open
                .iter()
                .filter(|(gate, open)| open.done < open.recheck.times && self.differs(**gate))
                .map(|(gate, _)| *gate)
                .collect();
            let waits = due.iter().map(|gate| self.open[gate].recheck.wait);
            let Some(wait) = waits.max_by_key(|wait| wait.0) else {
                return;
            };
            let wait = wait.0.unsigned_abs();
            let others: BTreeSet<Side> = due
                .iter()
                .flat_map(|gate| {
                    let needs = self.gates[*gate].definition.needs();
                    sides_of(&needs).collect::<Vec<_>>()
                })
                .filter(|side| *side != Side::Main)
                .collect();
            let mut addresses = others.iter().filter_map(|side| targets.get(side));
            let main = targets.get(&Side::Main);
            match (main, addresses.next(), addresses.next()) {
                (Some(main), Some(other), None) => {
                    arrival([main, other], &self.options.limits, wait).await;
                }
                _ => tokio::time::sleep(wait).await,
            }
            self.compare(targets, &due).await;
        }
    }

    /// One more comparison of these gates, of the present moment.
    async fn compare(&mut self, targets: &BTreeMap<Side, Address>, due: &BTreeSet<usize>) {
        let settled = (0..self.gates.len()).filter(|gate| !due.contains(gate));
        let settled = settled.map(|gate| (gate, self.findings.outcomes[gate].clone()));
        let mut round = Round::new(self.gates, self.options, 1, false, &BTreeMap::new());
        round.found.outcomes.extend(settled);
        for gate in due {
            let open = self.open.get_mut(gate).expect("only open gates are due");
            open.done += 1;
            round.again.insert(*gate, open.measured.clone());
        }
        let round = self.round.insert(round);
        round.evaluate(targets).await;
        let mut round = self.round.take().expect("it was put there above");
        let (lost, mut measured) = (round.take_lost(), std::mem::take(&mut round.found.measured));
        let again = round.finish(lost);
        for (gate, outcome) in again.outcomes.into_iter().enumerate() {
            self.findings.outcomes[gate] = outcome;
            if let (Some(open), Some(measured)) = (self.open.get_mut(&gate), measured.remove(&gate))
            {
                open.measured = measured;
            }
        }
        for note in again.notes {
            if !self.findings.notes.contains(&note) {
                self.findings.notes.push(note);
            }
        }
    }

    fn differs(&self, gate: usize) -> bool {
        let state = self.findings.outcomes[gate].state();
        matches!(state, State::Failed | State::Warned)
    }

    /// The run ends: what differed when it was last compared, differs.
    pub(super) fn give_up(&mut self, error: &Error) {
        for gate in self.round.iter().flat_map(|round| round.again.keys()) {
            let open = self.open.get_mut(gate);
            open.expect("only open gates are due").done -= 1;
        }
        let reason = error.message();
        let note = format!("what differs was not re-checked as often as wanted: {reason}");
        self.findings.notes.push(note);
    }

    /// What was found, with what was compared again saying so.
    pub(super) async fn finish(mut self) -> Findings {
        if let Some(mut round) = self.round.take() {
            round.close().await;
        }
        for (gate, open) in self.open {
            if open.done == 0 {
                continue;
            }
            if let Outcome::Judged { judgement, .. } = &mut self.findings.outcomes[gate] {
                let times = match open.done {
                    1 => "once".to_owned(),
                    2 => "twice".to_owned(),
                    n => format!("{n} times"),
                };
                judgement.message.push_str(&format!("; re-checked {times}"));
                judgement.findings.push(Finding {
                    what: format!("before it was re-checked {times}: {}", open.first),
                    is_failure: false,
                    repair: None,
                });
            }
        }
        self.findings
    }
}

fn message(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Judged { judgement, .. } => Some(&judgement.message),
        Outcome::Errored(_) => None,
    }
}

/// Waits until what one database has written has arrived at its hot standby; the whole time where
/// neither is a standby of the other, or it cannot be asked.
async fn arrival(both: [&Address; 2], limits: &Limits, wait: Duration) {
    let begun = Instant::now();
    let is_there = tokio::time::timeout(wait, replayed(both, limits)).await;
    if !matches!(is_there, Ok(Ok(true))) {
        tokio::time::sleep(wait.saturating_sub(begun.elapsed())).await;
    }
}

/// Waits until the standby of the two has replayed what the other has written; whether there is one.
async fn replayed(both: [&Address; 2], limits: &Limits) -> Result<bool> {
    let system = sql!("select system_identifier::text from pg_control_system()");
    // Where the last record ends. The position of insertion is where the next one would begin, which at the start of a
    // page of the log is behind the page's head (24 bytes, 40 in the first page of a segment): the standby of an idle
    // primary never gets there.
    let written = sql!(
        "select (case \
           when (at - '0/0') % pg_size_bytes(current_setting('wal_segment_size')) = 40 then at - 40::numeric \
           when (at - '0/0') % current_setting('wal_block_size')::int = 24 then at - 24::numeric \
           else at end)::text from pg_current_wal_insert_lsn() at"
    );
    let mut sessions = Vec::new();
    for address in both {
        sessions.push(Session::open(address, limits, "").await?);
    }
    sessions.sort_by_key(|session| session.snapshot().in_recovery);
    let mut known = Vec::new();
    for session in &mut sessions {
        known.push((
            session.snapshot().in_recovery,
            value(session, &system).await?,
        ));
    }
    let [(false, primary), (true, standby)] = known.as_slice() else {
        close(sessions).await;
        return Ok(false);
    };
    let is_copy = primary == standby;
    let standby = sessions[1].address().clone();
    let written = value(&mut sessions[0], &written).await?;
    // A snapshot that is held on a standby can itself hold up what it replays.
    close(sessions).await;
    let Some(written) = written.filter(|_| is_copy) else {
        return Ok(false);
    };
    let arrived = sql!(
        "select (pg_last_wal_replay_lsn() >= {}::pg_lsn)::text",
        Literal(&written)
    );
    loop {
        let mut session = Session::open(&standby, limits, "").await?;
        let is_there = value(&mut session, &arrived).await?;
        session.close().await;
        if is_there.as_deref() == Some("true") {
            return Ok(true);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn close(sessions: Vec<Session>) {
    for session in sessions {
        session.close().await;
    }
}

async fn value(session: &mut Session, statement: &Sql) -> Result<Option<String>> {
    let rows = session
        .rows(statement, 1)
        .await
        .map_err(|failure| failure.error)?;
    Ok(rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next().flatten()))
}
