//! Step 2: typed gates.
//!
//! A gate is a rule with an id; its kind says what must be measured ([`Kind::ask`]) and what the
//! measurement means ([`Kind::judge`]). Knows nothing of connections and of clocks.

pub mod baseline;
mod build;
pub mod catalog;
mod evidence;
pub mod fields;
pub mod kinds;
pub mod lint;
mod load;
pub mod mapping;
pub mod mask;
mod measured;
pub mod readiness;
pub mod sampling;
pub mod schema;
pub mod select;
pub mod size;
pub mod threshold;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Excerpt;
use crate::source::{Place, SourceFile, Table};

pub use evidence::{Evidence, RowsOf, Values};
pub use load::{DefinitionFile, Definitions, LoadOptions, load};
pub use measured::{
    Aggregate, Ask, AuthorCheck, Explained, Figure, Finding, Judgement, Kind, Known, Measure,
    Measured, Needs, Proof, Recheck, Runs, Scope, Verdict,
};

/// A rule with an id.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Unique over all suites of a run.
    pub id: String,
    /// The suite it stands in: the file's stem.
    pub suite: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// Whether a failure blocks.
    pub severity: Severity,
    /// What it means when there was nothing to look at.
    pub on_empty: OnEmpty,
    /// Why the rule exists.
    pub why: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Words to select by.
    pub tags: Vec<String>,
    /// How many offending rows are named at the most.
    pub examples: Option<u32>,
    /// A look at a share of the table in place of all of it.
    pub sample: Option<sampling::Sampled>,
    /// How much it may read.
    pub max_scan: Option<size::Size>,
    /// How long one of its statements may take.
    pub statement_timeout: Option<fields::Age>,
    /// The columns that are shown beside the key of an offending row, where values are asked for.
    pub show: Vec<String>,
    /// Where it is defined.
    pub place: Place,
    /// What to ask and how to judge.
    pub definition: Arc<dyn Kind>,
    /// The file and the spans of its fields, for errors that only the database can see.
    pub origin: Origin,
}

impl Gate {
    /// How long one of its statements may take, where that is not up to the session.
    pub fn limit(&self) -> Option<Duration> {
        self.statement_timeout.map(|limit| limit.0.unsigned_abs())
    }
}

/// Where a gate's text came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub file: SourceFile,
    /// Where its fields stand.
    pub fields: Table,
}

impl Origin {
    /// Points at a byte offset inside the author's text of a field, or at the whole field where the
    /// text in the file is not letter for letter what was run (variables, escapes).
    pub fn author_excerpt(&self, field: &str, author: &str, offset: Option<usize>) -> Excerpt {
        let span = self.fields.span(field);
        let inner = offset.and_then(|offset| {
            let at = span.start + self.file.text.get(span.clone())?.find(author)? + offset;
            let end = self.file.text[at..]
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                .map_or(self.file.text.len(), |length| at + length.max(1));
            Some(at..end.min(span.end.max(at + 1)))
        });
        self.file.excerpt(inner.unwrap_or(span), "")
    }
}

/// Whether a failed gate stops a deploy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A failure is told but does not block.
    Warn,
    /// A failure blocks.
    #[default]
    Block,
}

impl Severity {
    /// As it is written in definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warn => "warn",
            Severity::Block => "block",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What it means that there was nothing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEmpty {
    /// Emptiness is itself the failure.
    Fail,
    /// Not evaluated, visibly.
    Skip,
    /// An empty table is as it should be.
    Pass,
}

/// The fields that every gate has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// The gate's name, unique over all suites of a run: letters, digits and `_`, `-` or `.`.
    pub id: String,
    /// The kind of gate.
    pub kind: String,
    /// Whether a failure blocks (`block`, the default) or is only told (`warn`).
    #[serde(default)]
    pub severity: Severity,
    /// What an empty table means: `fail`, `skip` or `pass`. The default is the kind's.
    pub on_empty: Option<OnEmpty>,
    /// Why the rule exists; printed when it fails.
    pub why: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Words to select gates by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many offending rows are named at the most; 10 where nothing is said.
    #[schemars(range(max = 1000))]
    pub examples: Option<u32>,
    /// Looks at this share of the table's blocks only, such as `"1%"`, in `accepted_values`, `completeness`,
    /// `foreign_key`, `mock_data`, `pattern`, `range` and `relation`, whose level must be a percentage. The report has
    /// the interval in which the share of offending rows lies, whatever their order; the gate passes only if all of
    /// it does, fails only if all of it does, and is errored otherwise, because the sample does not decide.
    /// Reads the same blocks with the same `--seed`.
    pub sample: Option<sampling::Share>,
    /// How often such an interval holds the true share; `95%` where nothing is said.
    pub confidence: Option<sampling::Share>,
    /// How much the gate may read, such as `"10GB"`: each relation counts once for every statement that scans it, a
    /// foreign table as its last `ANALYZE` found it. Where it would be more, or a foreign table was never analyzed, the
    /// gate is errored and not run; where only naming its offending rows would be more, they are not named. The lower
    /// of this and of `--max-scan` holds.
    pub max_scan: Option<size::Size>,
    /// How long one of its statements may take, such as `"30s"`, in place of `--statement-timeout`. Such a gate
    /// shares no scan with others.
    pub statement_timeout: Option<fields::Age>,
    /// The columns whose values are shown beside the key of an offending row, once `postern check
    /// --values` asks for them; the columns that the gate looks at where nothing is said.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub show: Vec<String>,
}

/// The names of the fields that every gate has.
pub const COMMON_FIELDS: &[&str] = &[
    "id",
    "kind",
    "severity",
    "on_empty",
    "why",
    "owner",
    "tags",
    "examples",
    "sample",
    "confidence",
    "max_scan",
    "statement_timeout",
    "show",
];

/// More offending rows than this are not named.
pub const EXAMPLES_MAX: u32 = 1000;
/// More columns than this are not shown beside the key of a row.
pub const SHOWN_MAX: usize = 20;
