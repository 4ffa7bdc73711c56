//! What a statement would read, by the server's word: the one estimate of `explain` and of ceilings.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::Ask;
use crate::gate::size::Size;
use crate::pg::Session;
use crate::plan::{Step, plan};
use crate::sql::Relation;

use super::ask::Asking;
use super::catalog;
use super::prepare::relations_of;

/// What the planner says of a statement.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Planned {
    /// The total cost, in the planner's units.
    pub cost: f64,
    /// How many rows the planner expects it to return.
    pub rows: u64,
    /// The size of every relation that the plan scans: its pages times the size of a block, or the share of them
    /// that a sample takes. An index may spare some of it.
    pub reads: Vec<Read>,
    /// The plan from its last step to its first.
    pub root: Node,
}

impl Planned {
    /// The size of all relations that the plan scans.
    pub fn bytes(&self) -> u64 {
        self.reads.iter().map(|read| read.bytes).sum()
    }
}

/// A relation that a plan scans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Read {
    /// Its name.
    pub relation: String,
    /// The size of its main fork.
    pub bytes: u64,
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

/// The plan of a step, and what it would read.
pub(super) async fn planned(session: &mut Session, step: &Step) -> Result<Planned> {
    let plan = session.explain(&step.sql).await;
    let plan = plan.map_err(|failure| failure.error)?;
    let mut relations = BTreeSet::new();
    relations_of(&plan, &mut relations);
    let sizes = catalog::sizes(session, &relations).await?;
    let root: PlanJson = catalog::from_json(plan[0]["Plan"].clone())?;
    let (cost, rows, root) = (root.cost, root.rows, Node::from(root));
    let read = |(relation, bytes): (Relation, u64)| {
        let relation = relation.readable();
        let sample = step.sample.filter(|_| root.only_samples(&relation));
        Read {
            bytes: sample.map_or(bytes, |sample| sample.share.of(bytes)),
            relation,
        }
    };
    let reads = sizes.into_iter().map(read).collect();
    Ok(Planned {
        cost,
        rows,
        reads,
        root,
    })
}

impl Asking<'_> {
    /// What a gate may read at the most, if that is limited.
    fn ceiling(&self, gate: usize) -> Option<Size> {
        let both = [self.gates[gate].max_scan, self.options.max_scan];
        both.into_iter().flatten().min()
    }

    /// An error where what a gate asks would read more than it may. What the catalog proves reads no more than it
    /// takes to find a row.
    pub(super) async fn hold_to_ceiling(&self, gate: usize, ask: &Ask) -> Result<()> {
        let Some(ceiling) = self.ceiling(gate).filter(|_| ask.proof.is_none()) else {
            return Ok(());
        };
        let mut bytes = 0_u64;
        for step in plan([(gate, ask)]).steps {
            bytes = bytes.saturating_add(self.bytes(&step).await?);
        }
        within(bytes, ceiling)
    }

    /// What a step reads in all its runs.
    async fn bytes(&self, step: &Step) -> Result<u64> {
        let runs = step
            .timed
            .map_or(1, |runs| u64::from(runs.warmup) + u64::from(runs.measured));
        if step.is_first_row || runs == 0 {
            return Ok(0);
        }
        let planned = self.pool(&step.side).planned(step).await;
        let planned = planned.map_err(|failure| self.told(failure))?;
        Ok(planned.bytes().saturating_mul(runs))
    }
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
