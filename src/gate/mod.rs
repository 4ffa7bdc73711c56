//! Step 2: typed gates.
//!
//! A gate is a rule with an id; its kind says what must be measured ([`Kind::ask`]) and what the
//! measurement means ([`Kind::judge`]). Knows nothing of connections and of clocks.

pub mod baseline;
mod build;
pub mod catalog;
pub mod fields;
pub mod kinds;
pub mod lint;
mod measured;
pub mod readiness;
pub mod schema;
pub mod select;
pub mod threshold;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Excerpt;
use crate::source::{Place, SourceFile, Table};

pub use build::{DefinitionFile, Definitions, LoadOptions, load};
pub use measured::{
    Aggregate, Ask, AuthorCheck, Evidence, Explained, Figure, Finding, Judgement, Kind, Known,
    Measure, Measured, Needs, Proof, Runs, Scope, Verdict,
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
    /// Where it is defined.
    pub place: Place,
    /// What to ask and how to judge.
    pub definition: Arc<dyn Kind>,
    /// The file and the spans of its fields, for errors that only the database can see.
    pub origin: Origin,
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
}

/// The names of the fields that every gate has.
pub const COMMON_FIELDS: &[&str] = &[
    "id", "kind", "severity", "on_empty", "why", "owner", "tags", "examples",
];
