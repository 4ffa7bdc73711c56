//! What a check would ask of a database, without asking it: statements, their plans, and the
//! privileges that they need. Runs nothing but `EXPLAIN` and questions to `pg_catalog`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, RelationKind, Side};
use crate::gate::{Ask, Gate, Measure, Runs};
use crate::pg::{Address, Session, Snapshot};
use crate::plan::{Step, plan};
use crate::sql::Relation;

use super::cost::{self, Planned};
use super::pool::Pool;
use super::prepare::Prepared;
use super::round::Round;
use super::{Options, Outcome, catalog};

/// What a check of some gates would ask.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The moment at which it was looked at; `None` when the target was never reached.
    pub snapshot: Option<Snapshot>,
    /// The role that asks on the target of the run.
    pub role: Option<String>,
    /// What would be asked, each statement once.
    pub statements: Vec<Statement>,
    /// One per gate, in the order of their definition.
    pub gates: Vec<GateExplained>,
}

/// What one gate comes to.
#[derive(Clone, Debug, Default)]
pub struct GateExplained {
    /// What the role must be allowed to do.
    pub privileges: Vec<Privilege>,
    /// The statements that name offending rows, asked only when there are some.
    pub evidence: Vec<String>,
    /// Why it cannot be evaluated.
    pub error: Option<Error>,
}

/// One statement of a check.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The other target that it reads; `None` is the target of the run.
    pub target: Option<String>,
    /// The relation that it is about.
    pub about: String,
    /// Its text.
    pub sql: String,
    /// How often it runs, where its time is what is asked for.
    pub runs: Option<Runs>,
    /// The gates that need its answer, by their index.
    pub gates: Vec<usize>,
    /// Its plan; `None` where the server refused it, which then stands at its gates.
    pub plan: Option<Planned>,
}

/// Something that the role must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Privilege {
    /// The other target that it is needed on; null is the target of the run.
    pub target: Option<String>,
    /// `USAGE` of a schema or `SELECT` on a relation.
    pub privilege: &'static str,
    /// The schema or the relation.
    pub on: String,
    /// Whether the role has it.
    pub granted: Granted,
}

/// Whether a role has a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granted {
    /// It has it.
    Yes,
    /// It has it on some columns of the relation and not on all.
    SomeColumns,
    /// It does not.
    No,
}

/// Says what [`super::check`] would ask of `targets`, and what stands in its way.
///
/// Never fails as a whole: a gate that could not be evaluated has its error.
pub async fn explain(
    gates: &[Gate],
    targets: &BTreeMap<Side, Address>,
    options: &Options,
) -> Explanation {
    let mut explaining = Explaining {
        round: Round::new(gates, options, 1, false, &BTreeMap::new()),
        role: None,
        statements: Vec::new(),
        gates: vec![GateExplained::default(); gates.len()],
    };
    let mut early = std::pin::pin!(options.interrupt.or_after(options.timeout));
    let ended_early = tokio::select! {
        () = explaining.explain(targets) => None,
        error = &mut early => Some(error),
    };
    let Explaining {
        mut round,
        role,
        statements,
        gates: mut explained,
    } = explaining;
    if let Some(error) = ended_early {
        let findings = round.abandon(&error).await;
        for (gate, outcome) in explained.iter_mut().zip(findings.outcomes) {
            gate.error = error_of(outcome);
        }
        return Explanation {
            snapshot: findings.snapshot,
            role,
            statements,
            gates: explained,
        };
    }
    round.close().await;
    for (index, error) in round.found.lost {
        explained[index].error = Some(error);
    }
    for (index, outcome) in round.found.outcomes {
        explained[index].error = error_of(outcome);
    }
    Explanation {
        snapshot: round.snapshot,
        role,
        statements,
        gates: explained,
    }
}

fn error_of(outcome: Outcome) -> Option<Error> {
    match outcome {
        Outcome::Errored(error) => Some(error),
        Outcome::Judged { .. } => None,
    }
}

/// A round that asks for plans in place of answers, and what it has learned so far.
struct Explaining<'a> {
    round: Round<'a>,
    role: Option<String>,
    statements: Vec<Statement>,
    gates: Vec<GateExplained>,
}

impl Explaining<'_> {
    async fn explain(&mut self, targets: &BTreeMap<Side, Address>) {
        let prepared = self.round.prepare(targets).await;
        self.role = self.ask_role().await;
        for (gate, ask) in &prepared.asks {
            let evidence = ask.evidence.iter();
            self.gates[*gate].evidence = evidence.map(|one| one.sql.as_str().to_owned()).collect();
        }
        for step in plan(prepared.asks.iter().map(|(gate, ask)| (*gate, ask))).steps {
            match self.plan_of(&step).await {
                Ok(planned) => self.keep(step, Some(planned)),
                // As in a check: each is then asked alone, and only the guilty one is errored.
                Err(error) if step.gates.len() > 1 && error.kind() == ErrorKind::Database => {
                    for gate in &step.gates {
                        self.explain_alone(*gate, &prepared.asks[gate], &step).await;
                    }
                }
                Err(error) => self.refused(step, &error),
            }
        }
        for (side, relations) in self.needed(&prepared) {
            match self.privileges(&side, &relations).await {
                Ok(()) => {}
                Err(error) => {
                    for gate in relations.into_values().flatten() {
                        self.round.found.errored(gate, error.clone());
                    }
                }
            }
        }
        // A lost connection leaves gates behind that were not yet asked anything.
        if let Some(error) = self.round.found.lost.values().next().cloned() {
            for gate in 0..self.gates.len() {
                if !prepared.asks.contains_key(&gate)
                    && !self.round.found.outcomes.contains_key(&gate)
                {
                    self.round.found.lost.insert(gate, error.clone());
                }
            }
        }
    }

    /// What one gate asks of a scan that it shares with others.
    async fn explain_alone(&mut self, gate: usize, ask: &Ask, shared: &Step) {
        let is_of_scan = |measure: &&Measure| match measure {
            Measure::Aggregate(one) | Measure::Presence(one) => {
                one.side == shared.side && one.relation == shared.about
            }
            Measure::Statement { .. } | Measure::Timed { .. } => false,
        };
        let own = Ask {
            measures: ask.measures.iter().filter(is_of_scan).cloned().collect(),
            ..Ask::default()
        };
        for step in plan([(gate, &own)]).steps {
            match self.plan_of(&step).await {
                Ok(planned) => self.keep(step, Some(planned)),
                Err(error) => self.refused(step, &error),
            }
        }
    }

    fn refused(&mut self, step: Step, error: &Error) {
        for gate in &step.gates {
            self.round.found.errored(*gate, error.clone());
        }
        self.keep(step, None);
    }

    fn keep(&mut self, step: Step, plan: Option<Planned>) {
        self.statements.push(Statement {
            target: name_of(&step.side),
            about: step.about.readable(),
            sql: step.sql.as_str().to_owned(),
            runs: step.timed,
            gates: step.gates,
            plan,
        });
    }

    async fn plan_of(&mut self, step: &Step) -> Result<Planned> {
        cost::planned(self.session(&step.side), &step.sql, step.sample).await
    }

    fn session(&mut self, side: &Side) -> &mut Session {
        let session = self.round.pools.get_mut(side).and_then(Pool::only);
        session.expect("a gate asks only where a session was opened")
    }

    /// `None` where the target was not reached, which its gates say.
    async fn ask_role(&mut self) -> Option<String> {
        let session = self.round.pools.get_mut(&Side::Main)?.only()?;
        let rows = session.ask_catalog("select current_user::text", &[]).await;
        rows.ok()?.first()?.try_get(0).ok()
    }

    /// The relations that gates must be allowed to read, where a session was opened, with the gates.
    ///
    /// Those that a gate names or asks; beside them those of its author's SQL, for which the planner
    /// has put what is behind a view in its place.
    fn needed(&self, prepared: &Prepared) -> BTreeMap<Side, BTreeMap<Relation, BTreeSet<usize>>> {
        let mut needed: BTreeMap<Side, BTreeMap<Relation, BTreeSet<usize>>> = BTreeMap::new();
        for (index, gate) in self.round.gates.iter().enumerate() {
            let mut add = |side: &Side, relation: &Relation| {
                if self.round.pools.contains_key(side) {
                    let of_side = needed.entry(side.clone()).or_default();
                    of_side.entry(relation.clone()).or_default().insert(index);
                }
            };
            let needs = gate.definition.needs();
            let mut names_view = false;
            for (side, name) in &needs.relations {
                let held = prepared.catalogs.get(side);
                if let Some(info) = held.and_then(|held: &Catalog| held.relation(name).ok()) {
                    names_view |= info.kind == RelationKind::View;
                    add(side, &info.relation);
                }
            }
            let measures = prepared.asks.get(&index).map(|ask| &ask.measures);
            for measure in measures.into_iter().flatten() {
                match measure {
                    Measure::Aggregate(one) | Measure::Presence(one) => {
                        add(&one.side, &one.relation);
                    }
                    Measure::Statement { side, about, .. } if !needs.schemas.is_empty() => {
                        add(side, about);
                    }
                    Measure::Statement { .. } | Measure::Timed { .. } => {}
                }
            }
            let explained = prepared
                .explained
                .get(&index)
                .map_or(&[][..], Vec::as_slice);
            for (check, explained) in needs.checks.iter().zip(explained) {
                for relation in explained.relations.iter().filter(|_| !names_view) {
                    add(&check.side, relation);
                }
            }
        }
        needed
    }

    /// Asks which privileges the role has, and tells the gates that need them.
    async fn privileges(
        &mut self,
        side: &Side,
        relations: &BTreeMap<Relation, BTreeSet<usize>>,
    ) -> Result<()> {
        let session = self.session(side);
        for access in catalog::access(session, relations.keys()).await? {
            let Some(gates) = relations.get(&access.relation) else {
                continue;
            };
            for gate in gates {
                let definition = &self.round.gates[*gate].definition;
                let names = definition.needs().relations.iter().any(|(_, name)| {
                    name.name == access.relation.name
                        && (name.schema.is_none() || name.schema == access.relation.schema)
                });
                let is_readable = access.select == Granted::Yes && access.has_usage;
                // Behind a view or a partitioned table the role needs nothing.
                if !names && (access.is_partition || !is_readable) && !self.asks_by_pattern(*gate) {
                    continue;
                }
                let schema = access.relation.schema.as_ref();
                let schema = schema.map_or("", |schema| schema.as_str());
                let needed = [
                    Privilege {
                        target: name_of(side),
                        privilege: "USAGE",
                        on: schema.to_owned(),
                        granted: if access.has_usage {
                            Granted::Yes
                        } else {
                            Granted::No
                        },
                    },
                    Privilege {
                        target: name_of(side),
                        privilege: "SELECT",
                        on: access.relation.readable(),
                        granted: access.select,
                    },
                ];
                let told = &mut self.gates[*gate].privileges;
                for privilege in needed {
                    if !told.contains(&privilege) {
                        told.push(privilege);
                    }
                }
            }
        }
        Ok(())
    }

    fn asks_by_pattern(&self, gate: usize) -> bool {
        let definition = &self.round.gates[gate].definition;
        !definition.needs().schemas.is_empty()
    }
}

fn name_of(side: &Side) -> Option<String> {
    match side {
        Side::Main => None,
        Side::Other(name) => Some(name.clone()),
    }
}
