//! Readiness: one verdict over many gates, as a release decision asks for it. Every critical issue is
//! resolved, and enough of the success metrics are met.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Errors, nearest};
use crate::source::{Place, SourceFile, Table};

use super::Gate;
use super::threshold::Amount;

/// The `[readiness]` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadinessFields {
    /// Tags of critical issues: an issue is resolved when every gate with its tag holds. All of them
    /// must be.
    pub critical: Vec<String>,
    /// Tags of success metrics: a gate with one of them that holds is a metric met.
    pub metrics: Vec<String>,
    /// How many of the metrics must be met: a count, or a percentage of them.
    pub at_least: Amount,
}

/// What it takes for the whole to be ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Tags, counts.
    pub fields: ReadinessFields,
    /// Where it is defined.
    pub place: Place,
    file: SourceFile,
    table: Table,
}

impl Readiness {
    pub(super) fn new(file: &SourceFile, table: Table, fields: ReadinessFields) -> Self {
        Self {
            fields,
            place: file.place(table.header.start),
            file: file.clone(),
            table,
        }
    }

    /// That there is a second one.
    pub(super) fn again(&self, first: &Self) -> Error {
        let span = self.table.header.clone();
        self.file
            .error(span, "there are two [readiness] tables", "")
            .note(format!("the first is at {}", first.place))
    }

    /// Tags that no gate has: an issue that nothing looks at is never resolved.
    pub(super) fn check(&self, gates: &[Gate]) -> Result<(), Errors> {
        let tags = || gates.iter().flat_map(|gate| &gate.tags).map(String::as_str);
        let mut errors = Vec::new();
        for (field, wanted) in [
            ("critical", &self.fields.critical),
            ("metrics", &self.fields.metrics),
        ] {
            if wanted.is_empty() {
                let error = self.file.error(
                    self.table.span(field),
                    format!("`{field}` names no tag"),
                    "expected one at least",
                );
                errors.push(error.help("a readiness that looks at nothing proves nothing"));
            }
            for tag in wanted
                .iter()
                .filter(|tag| !tags().any(|known| known == **tag))
            {
                let error = self.file.error(
                    self.table.span(field),
                    format!("no gate has the tag `{tag}`"),
                    "",
                );
                errors.push(match nearest(tag, tags()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                });
            }
        }
        Errors(errors).into_result()
    }
}
