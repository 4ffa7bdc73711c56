//! What a statement would read, by the server's word: the one estimate of `explain` and of ceilings.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::Side;
use crate::gate::sampling::Sample;
use crate::gate::size::Size;
use crate::gate::{Ask, Evidence};
use crate::pg::Session;
use crate::plan::plan;
use crate::sql::{Relation, Sql};

use super::ask::Asking;
use super::prepare::relations_of;
use super::{catalog, sample_of};

/// What the planner says of a statement.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Planned {
    /// The total cost, in the planner's units.
    pub cost: f64,
    /// How many rows the planner expects it to return.
    pub rows: u64,
    /// The size of every relation that the plan scans: its pages times the size of a block, or the share of them
    /// that a sample takes. An index may spare some of it. A foreign table counts by what its last `ANALYZE` found.
    pub reads: Vec<Read>,
    /// The plan from its last step to its first.
    pub root: Node,
}

impl Planned {
    /// The size of all relations that the plan scans; `None` where that of one is not known.
    pub fn bytes(&self) -> Option<u64> {
        self.reads.iter().map(|read| read.bytes).sum()
    }

    /// A relation whose size is not known.
    fn unmeasured(&self) -> Option<&str> {
        let unknown = self.reads.iter().find(|read| read.bytes.is_none());
        unknown.map(|read| read.relation.as_str())
    }
}

/// A relation that a plan scans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Read {
    /// Its name.
    pub relation: String,
    /// The size of its main fork; null of a foreign table that was never analyzed.
    pub bytes: Option<u64>,
}

/// One node of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Node {
    /// Its type, such as `Seq Scan`.
    pub node: String,
    /// The relation that it scans.
    pub relation: Option<String>,
    /// The index that it uses.
    pub index: Option<String>,
    /// How many rows the planner expects of it.
    pub rows: u64,
    /// The nodes that it reads from.
    pub inputs: Vec<Node>,
}

impl Node {
    /// Whether every node that scans the relation takes a sample of it.
    fn only_samples(&self, relation: &str) -> bool {
        let is_whole = self.relation.as_deref() == Some(relation) && self.node != "Sample Scan";
        !is_whole && self.inputs.iter().all(|input| input.only_samples(relation))
    }
}

/// The plan of a statement, which may take a sample of some relation, and what it would read.
pub(super) async fn planned(
    session: &mut Session,
    statement: &Sql,
    sample: Option<Sample>,
) -> Result<Planned> {
    let plan = session.explain(statement).await;
    let plan = plan.map_err(|failure| failure.error)?;
    let mut relations = BTreeSet::new();
    relations_of(&plan, &mut relations);
    let elsewhere = read_elsewhere(&plan[0]["Plan"]);
    relations.extend(
        elsewhere
            .iter()
            .filter_map(|read| read.as_ref().ok().cloned()),
    );
    let sizes = catalog::sizes(session, &relations).await?;
    let found: BTreeSet<&Relation> = sizes.iter().map(|(relation, _)| relation).collect();
    let lost = relations.iter().filter(|one| !found.contains(one));
    let lost = lost.map(Relation::readable);
    let unknown = elsewhere.into_iter().filter_map(Result::err).chain(lost);
    let unknown: Vec<Read> = unknown
        .map(|relation| Read {
            relation,
            bytes: None,
        })
        .collect();
    let root: PlanJson = catalog::from_json(plan[0]["Plan"].clone())?;
    let (cost, rows, root) = (root.cost, root.rows, Node::from(root));
    let read = |(relation, bytes): (Relation, Option<u64>)| {
        let relation = relation.readable();
        let sample = sample.filter(|_| root.only_samples(&relation));
        Read {
            bytes: bytes.map(|bytes| sample.map_or(bytes, |sample| sample.share.of(bytes))),
            relation,
        }
    };
    let reads = sizes.into_iter().map(read).chain(unknown).collect();
    Ok(Planned {
        cost,
        rows,
        reads,
        root,
    })
}

/// What another server is asked for as a whole, a count or a join: the one relation that it reads, or else what
/// the plan says of several.
fn read_elsewhere(node: &Value) -> Vec<Result<Relation, String>> {
    let text = |key: &str| node.get(key).and_then(Value::as_str);
    let is_foreign = text("Node Type") == Some("Foreign Scan") && text("Relation Name").is_none();
    let own = is_foreign.then(|| {
        let told = text("Relations").unwrap_or("a foreign table");
        let inner = told.strip_prefix("Aggregate on (");
        let inner = inner
            .and_then(|inner| inner.strip_suffix(')'))
            .unwrap_or(told);
        let relation = Relation::parse(inner).ok();
        relation
            .filter(|one| one.schema.is_some())
            .ok_or_else(|| told.to_owned())
    });
    let inputs = node.get("Plans").and_then(Value::as_array);
    let below = inputs.into_iter().flatten().flat_map(read_elsewhere);
    own.into_iter().chain(below).collect()
}

impl Asking<'_> {
    /// What a gate may read at the most, if that is limited.
    pub(super) fn ceiling(&self, gate: usize) -> Option<Size> {
        let both = [self.gates[gate].max_scan, self.options.max_scan];
        both.into_iter().flatten().min()
    }

    /// How much a gate will have read after what it asks, `read` included, where it may not read as much as it likes;
    /// an error where that would be more than it may. What the catalog proves reads no more than it takes to find a
    /// row.
    pub(super) async fn hold_to_ceiling(&self, gate: usize, ask: &Ask, read: u64) -> Result<u64> {
        let Some(ceiling) = self.ceiling(gate).filter(|_| ask.proof.is_none()) else {
            return Ok(read);
        };
        let mut bytes = read;
        for step in plan([(gate, ask)]).steps {
            let runs = step
                .timed
                .map_or(1, |runs| u64::from(runs.warmup) + u64::from(runs.measured));
            if step.is_first_row || runs == 0 {
                continue;
            }
            match self.bytes(&step.side, &step.sql, step.sample).await? {
                Ok(more) => bytes = bytes.saturating_add(more.saturating_mul(runs)),
                Err(unmeasured) => return Err(unknown(&unmeasured, ceiling)),
            }
        }
        within(bytes, ceiling)?;
        Ok(bytes)
    }

    /// Counts the pass that names offending rows, too. In words why they are not named, where that would read more
    /// than the gate may: what it found holds without them.
    pub(super) async fn naming_withheld(
        &self,
        gate: usize,
        evidence: &Evidence,
        statement: &Sql,
        read: &mut u64,
    ) -> Result<Option<String>> {
        let Some(ceiling) = self.ceiling(gate) else {
            return Ok(None);
        };
        let sample = sample_of(&self.gates[gate], self.options);
        Ok(match self.bytes(&evidence.side, statement, sample).await? {
            Ok(more) => {
                *read = read.saturating_add(more);
                (*read > ceiling.0).then(|| {
                    format!(
                        "it would read {} more, and {ceiling} are allowed in all",
                        Size(more)
                    )
                })
            }
            Err(unmeasured) => Some(format!(
                "it would read {unmeasured}, whose size is not known, and {ceiling} are allowed in all"
            )),
        })
    }

    /// What a statement reads in one run, or else what it reads that nobody knows the size of.
    async fn bytes(
        &self,
        side: &Side,
        statement: &Sql,
        sample: Option<Sample>,
    ) -> Result<Result<u64, String>> {
        let planned = self.pool(side).planned(statement, sample).await;
        let planned = planned.map_err(|failure| self.told(failure))?;
        let unmeasured = planned.unmeasured().unwrap_or_default();
        Ok(planned.bytes().ok_or_else(|| unmeasured.to_owned()))
    }
}

/// The error of a gate that would read what nobody knows the size of.
fn unknown(relation: &str, ceiling: Size) -> Error {
    let what = format!(
        "not evaluated: it would read {relation}, whose size is not known, and {ceiling} are allowed"
    );
    Error::new(ErrorKind::Refused, what).help(
        "run ANALYZE on the foreign table: with `max_scan`, it counts by what that found; or name one foreign table \
         in place of a join of several",
    )
}

/// An error where so many bytes are more than the ceiling.
fn within(bytes: u64, ceiling: Size) -> Result<()> {
    if bytes <= ceiling.0 {
        return Ok(());
    }
    let what = format!(
        "not evaluated: it would read {}, more than the {ceiling} allowed",
        Size(bytes)
    );
    Err(Error::new(ErrorKind::Refused, what).help(
        "raise `max_scan` (of the gate, of postern.toml or --max-scan), look at fewer partitions with `where`, \
         or at a share of the rows with `sample`",
    ))
}

/// A node as `EXPLAIN (VERBOSE, FORMAT JSON)` gives it.
#[derive(Deserialize)]
struct PlanJson {
    #[serde(rename = "Node Type")]
    node: String,
    #[serde(rename = "Schema")]
    schema: Option<String>,
    #[serde(rename = "Relation Name")]
    relation: Option<String>,
    #[serde(rename = "Index Name")]
    index: Option<String>,
    #[serde(rename = "Plan Rows")]
    rows: u64,
    #[serde(rename = "Total Cost")]
    cost: f64,
    #[serde(rename = "Plans", default)]
    inputs: Vec<PlanJson>,
}

impl From<PlanJson> for Node {
    fn from(plan: PlanJson) -> Self {
        let name = plan.relation;
        let relation = plan.schema.zip(name);
        Self {
            node: plan.node,
            relation: relation.map(|(schema, name)| Relation::new(schema, name).readable()),
            index: plan.index,
            rows: plan.rows,
            inputs: plan.inputs.into_iter().map(Node::from).collect(),
        }
    }
}
