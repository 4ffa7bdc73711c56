//! What comes before the first question to a table, for `check` and for `explain` alike: sessions,
//! catalogs, the check of author-written SQL, and what each gate asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Catalog, Side};
use crate::gate::{Ask, AuthorCheck, Explained, Known, Needs};
use crate::pg::{Address, Failure, Session};
use crate::sql::Relation;

use super::{Outcome, Round, catalog};

/// What each gate asks, and what it had to know for that.
pub(super) struct Prepared {
    /// What each database holds.
    pub(super) catalogs: BTreeMap<Side, Catalog>,
    /// By the gate's index; a gate that is errored or lost is not there.
    pub(super) asks: BTreeMap<usize, Ask>,
    /// What EXPLAIN told of a gate's author-written SQL.
    pub(super) explained: BTreeMap<usize, Vec<Explained>>,
}

impl Round<'_> {
    /// Opens the sessions that gates need, loads what these must know, checks author-written SQL, and
    /// has each gate ask. A gate for which any of it fails is errored, or lost with its connection.
    pub(super) async fn prepare(&mut self, targets: &BTreeMap<Side, Address>) -> Prepared {
        let needs: BTreeMap<usize, Needs> = (0..self.gates.len())
            .filter(|gate| !self.outcomes.contains_key(gate))
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
            match self.open(&side, targets, &needs).await {
                Ok(catalog) => {
                    catalogs.insert(side, catalog);
                }
                Err(error) => {
                    for gate in concerned {
                        self.outcomes
                            .entry(gate)
                            .or_insert_with(|| Outcome::Errored(error.clone()));
                    }
                }
            }
        }
        let mut asks = BTreeMap::new();
        let mut all_explained = BTreeMap::new();
        for (gate, needs) in &needs {
            if self.outcomes.contains_key(gate) || !self.lost.is_empty() {
                continue;
            }
            if let Some(explained) = self.check_author_sql(*gate, &needs.checks).await {
                let known = Known {
                    catalogs: &catalogs,
                    explained: &explained,
                };
                match self.gates[*gate].definition.ask(&known) {
                    Ok(ask) => {
                        asks.insert(*gate, ask);
                    }
                    Err(error) => self.errored(*gate, error),
                }
                all_explained.insert(*gate, explained);
            }
        }
        Prepared {
            catalogs,
            asks,
            explained: all_explained,
        }
    }

    async fn open(
        &mut self,
        side: &Side,
        targets: &BTreeMap<Side, Address>,
        needs: &BTreeMap<usize, Needs>,
    ) -> Result<Catalog> {
        let address = targets.get(side).ok_or_else(|| {
            let name = match side {
                Side::Main => "of the run",
                Side::Other(name) => name,
            };
            Error::usage(format!("there is no target `{name}`"))
                .help("define it as [target.NAME] in postern.toml, or give --other NAME=URL")
        })?;
        let session = Session::open(address, &self.options.limits).await?;
        if *side == Side::Main {
            self.snapshot = Some(session.snapshot().clone());
        }
        let session = self.sessions.entry(side.clone()).insert_entry(session);
        catalog::load(session.into_mut(), side, needs.values()).await
    }

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

    /// Checks all author-written SQL of a gate; `None` when some of it is wrong.
    async fn check_author_sql(
        &mut self,
        gate: usize,
        checks: &[AuthorCheck],
    ) -> Option<Vec<Explained>> {
        let mut explained = Vec::new();
        for check in checks {
            let session = self.sessions.get_mut(&check.side)?;
            match session.explain(&check.statement).await {
                Ok(plan) => {
                    let mut relations = BTreeSet::new();
                    relations_of(&plan, &mut relations);
                    explained.push(Explained {
                        relations: relations.into_iter().collect(),
                    });
                }
                Err(failure) => {
                    let error = self.blame(gate, check, failure);
                    self.errored(gate, error);
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

pub(super) fn sides_of(needs: &Needs) -> impl Iterator<Item = Side> + '_ {
    let relations = needs.relations.iter().map(|(side, _)| side.clone());
    relations.chain(needs.checks.iter().map(|check| check.side.clone()))
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
