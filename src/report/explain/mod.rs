//! What a check would ask, as one value: [`ExplainReport`]. Its JSON is the value itself; the text
//! for a terminal is a pure function of it.

#[cfg(feature = "cli")]
pub mod terminal;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::gate::{Gate, OnEmpty, Severity};
use crate::pg::{Address, Snapshot};
use crate::run::{Explanation, GateExplained, Planned, Privilege, Statement};
use crate::source::Place;

/// Everything that `explain` has to say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplainReport {
    /// The version of this format: 1.
    pub version: u32,
    /// What it comes down to.
    pub summary: ExplainSummary,
    /// The database, without its password.
    pub target: String,
    /// The role that would ask; null when the target was never reached.
    pub role: Option<String>,
    /// The moment at which it was looked at; null when the target was never reached.
    pub snapshot: Option<Snapshot>,
    /// What would be asked, each statement once.
    pub statements: Vec<StatementReport>,
    /// Every gate, in the order of definition.
    pub gates: Vec<ExplainedGate>,
}

/// What the explanation comes down to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplainSummary {
    /// 0, or 3 when a gate cannot be evaluated.
    pub exit_code: u8,
    /// How many gates there are.
    pub total: usize,
    /// How many of them cannot be evaluated.
    pub errored: usize,
    /// How many statements would be asked.
    pub statements: usize,
    /// The estimated bytes to read, for all statements of which that is known.
    pub bytes: u64,
}

/// One statement.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StatementReport {
    /// Its number, from 1.
    pub number: usize,
    /// The other target that it reads; null is the target of the run.
    pub on: Option<String>,
    /// The relation that it is about.
    pub about: String,
    /// Its text.
    pub sql: String,
    /// How often it runs, warming up included, where its time is what is asked for; otherwise once.
    pub runs: u32,
    /// The ids of the gates that share it.
    pub gates: Vec<String>,
    /// The estimated bytes to read in one run: the size of every relation that the plan scans. Null
    /// without a plan, and where it reads a foreign table whose size is not known.
    pub bytes: Option<u64>,
    /// What the planner says; null where the server refused the statement.
    pub plan: Option<Planned>,
}

/// One gate.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplainedGate {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The suite it stands in.
    pub suite: String,
    /// Whether a failure blocks.
    pub severity: Severity,
    /// Where it is defined.
    pub defined_at: Place,
    /// What it means when there is nothing to look at.
    pub on_empty: OnEmpty,
    /// The numbers of the statements that it asks; empty where the catalog alone answers.
    pub statements: Vec<usize>,
    /// What it asks after an answer of these, on the same snapshot; null where that is nothing. Its
    /// statements depend on the answer.
    pub then: Option<String>,
    /// The statements that name offending rows, asked only when there are some.
    pub evidence: Vec<String>,
    /// What the role must be allowed to do, and whether it is.
    pub privileges: Vec<Privilege>,
    /// Why it cannot be evaluated; null where nothing stands in its way.
    pub error: Option<ExplainedError>,
}

/// Why a gate cannot be evaluated.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplainedError {
    /// One sentence.
    pub message: String,
    /// The SQLSTATE, where Postgres gave one.
    pub sqlstate: Option<String>,
    /// What to do next, where anything is known.
    pub help: Option<String>,
    /// The error as a person reads it; not part of the JSON.
    #[serde(skip)]
    pub rendered: String,
}

impl ExplainReport {
    /// Folds an explanation into a report. Every text is masked against the target's secrets.
    pub fn new(gates: &[Gate], explanation: Explanation, target: &Address) -> Self {
        let mask = |text: &str| target.mask(text);
        let statements: Vec<StatementReport> = (1..)
            .zip(&explanation.statements)
            .map(|(number, statement)| statement_report(number, statement, gates, &mask))
            .collect();
        let asked_by = |gate: usize| {
            let numbered = (1..).zip(&explanation.statements);
            let asked = numbered.filter(|(_, statement)| statement.gates.contains(&gate));
            asked.map(|(number, _)| number).collect()
        };
        let reports: Vec<ExplainedGate> = gates
            .iter()
            .zip(explanation.gates)
            .enumerate()
            .map(|(index, (gate, found))| gate_report(gate, found, asked_by(index), &mask))
            .collect();
        let errored = reports.iter().filter(|gate| gate.error.is_some()).count();
        Self {
            version: 1,
            summary: ExplainSummary {
                exit_code: if errored > 0 { 3 } else { 0 },
                total: reports.len(),
                errored,
                statements: statements.len(),
                bytes: statements.iter().filter_map(|one| one.bytes).sum(),
            },
            target: target.to_string(),
            role: explanation.role,
            snapshot: explanation.snapshot,
            statements,
            gates: reports,
        }
    }
}

fn statement_report(
    number: usize,
    statement: &Statement,
    gates: &[Gate],
    mask: &dyn Fn(&str) -> String,
) -> StatementReport {
    let asking = statement.gates.iter();
    StatementReport {
        number,
        on: statement.target.clone(),
        about: statement.about.clone(),
        sql: mask(&statement.sql),
        runs: statement.runs.map_or(1, |runs| runs.warmup + runs.measured),
        gates: asking.map(|gate| gates[*gate].id.clone()).collect(),
        bytes: statement.plan.as_ref().and_then(Planned::bytes),
        plan: statement.plan.clone(),
    }
}

fn gate_report(
    gate: &Gate,
    found: GateExplained,
    statements: Vec<usize>,
    mask: &dyn Fn(&str) -> String,
) -> ExplainedGate {
    ExplainedGate {
        id: gate.id.clone(),
        kind: gate.kind.to_owned(),
        suite: gate.suite.clone(),
        severity: gate.severity,
        defined_at: gate.place.clone(),
        on_empty: gate.on_empty,
        statements,
        then: gate.definition.follow_up().map(str::to_owned),
        evidence: found.evidence.iter().map(|sql| mask(sql)).collect(),
        privileges: found.privileges,
        error: found.error.map(|error| error_report(&error, mask)),
    }
}

fn error_report(error: &Error, mask: &dyn Fn(&str) -> String) -> ExplainedError {
    ExplainedError {
        message: mask(error.message()),
        sqlstate: error.sqlstate().map(str::to_owned),
        help: error.help_text().map(mask),
        rendered: mask(&error.render(false)),
    }
}

/// The JSON schema of what `explain` writes as JSON, version 1.
pub fn schema() -> serde_json::Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let report = generator.subschema_for::<ExplainReport>();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `postern explain` writes, version 1",
        "anyOf": [report],
        "$defs": generator.take_definitions(true),
    })
}

/// The explanation as JSON, version 1.
pub fn json(report: &ExplainReport) -> String {
    format!("{:#}\n", serde_json::json!(report))
}
