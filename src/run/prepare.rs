//! What comes before the first question to a table, for `check` and for `explain` alike: sessions,
//! catalogs, the check of author-written SQL, and what each gate asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::{Aggregate, Ask, AuthorCheck, Explained, Gate, Known, Measure, Measured, Needs};
use crate::pg::{Address, Failure, Session};
use crate::sql::Relation;

use futures_util::future::join_all;

use super::pool::Pool;
use super::round::Round;
use super::{Outcome, catalog, masks, sample_of, sides_of};

/// What each gate asks, and what it had to know for that.
pub(super) struct Prepared {
    /// What each database holds.
    pub(super) catalogs: BTreeMap<Side, Catalog>,
    /// By the gate's index; a gate that is errored or lost is not there.
    pub(super) asks: BTreeMap<usize, Ask>,
    /// By gate, the answers of an earlier moment that still count.
    pub(super) kept: BTreeMap<usize, Measured>,
    /// What EXPLAIN told of a gate's author-written SQL.
    pub(super) explained: BTreeMap<usize, Vec<Explained>>,
}

impl Round<'_> {
    /// Opens the sessions that gates need, loads what these must know, checks author-written SQL, and
    /// has each gate ask. A gate for which any of it fails is errored, or lost with its connection.
    pub(super) async fn prepare(&mut self, targets: &BTreeMap<Side, Address>) -> Prepared {
        let needs: BTreeMap<usize, Needs> = (0..self.gates.len())
            .filter(|gate| self.found.is_open(*gate))
            .map(|gate| (gate, self.gates[gate].definition.needs()))
            .collect();
        let mut catalogs = BTreeMap::new();
        let sides: BTreeSet<Side> = std::iter::once(Side::Main)
            .chain(needs.values().flat_map(sides_of))
            .collect();
        let wanted = sides.len();
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
        // In a database that was not reached there may be what a pattern matches.
        if catalogs.len() == wanted {
            self.notes
                .extend(masks::unmatched(&self.options.masked, &catalogs));
        }
        let mut asks = BTreeMap::new();
        let mut kept = BTreeMap::new();
        let mut all_explained = BTreeMap::new();
        for (gate, needs) in &needs {
            if !self.found.is_open(*gate) || !self.found.lost.is_empty() {
                continue;
            }
            if let Some(explained) = self.check_author_sql(*gate, &needs.checks).await {
                let known = Known {
                    catalogs: &catalogs,
                    explained: &explained,
                    proof: self.options.proof,
                    sample: sample_of(&self.gates[*gate], self.options),
                    show: &self.gates[*gate].show,
                };
                let gate_asked = &self.gates[*gate];
                let asked = match self.again.get(gate) {
                    Some(measured) => {
                        let asked = gate_asked.definition.ask_again(&known, measured);
                        let limit = gate_asked.limit();
                        asked.map(|(ask, still)| (Ask { limit, ..ask }, still))
                    }
                    None => ask(gate_asked, &known).map(|ask| (ask, Measured::default())),
                };
                match asked {
                    Ok((ask, still)) => {
                        asks.insert(*gate, ask);
                        kept.insert(*gate, still);
                    }
                    Err(error) => self.found.errored(*gate, error),
                }
                all_explained.insert(*gate, explained);
            }
        }
        Prepared {
            catalogs,
            asks,
            kept,
            explained: all_explained,
        }
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
        let mut first = match self.is_again {
            true => Session::open_again(address, limits, &self.salt).await?,
            false => Session::open(address, limits, &self.salt).await?,
        };
        let snapshot = first.snapshot().clone();
        if *side == Side::Main {
            self.snapshot = Some(snapshot.clone());
        }
        // More sessions than gates would have nothing to do.
        let wanted = self.connections.min(gates);
        let further = (1..wanted).map(|_| Session::join(address, limits, &self.salt, &snapshot));
        let (catalog, further) = tokio::join!(
            catalog::load(&mut first, side, needs.values(), &self.options.masked),
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
    async fn check_author_sql(
        &mut self,
        gate: usize,
        checks: &[AuthorCheck],
    ) -> Option<Vec<Explained>> {
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
}

/// What a gate asks, of a table of which a sample can be taken where it looks at one.
fn ask(gate: &Gate, known: &Known<'_>) -> Result<Ask> {
    let mut ask = gate.definition.ask(known)?;
    ask.limit = gate.limit();
    for measure in &ask.measures {
        if let Measure::Aggregate(Aggregate {
            sample: Some(sample),
            side,
            relation,
            ..
        }) = measure
        {
            sample.check(known.on(side).relation(relation)?)?;
        }
    }
    Ok(ask)
}

/// The relations that a plan reads.
pub(super) fn relations_of(plan: &serde_json::Value, found: &mut BTreeSet<Relation>) {
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
