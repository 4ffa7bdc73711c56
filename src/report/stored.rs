//! A report that was written to a file, read back as far as its results are needed.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The results of one run.
#[derive(Clone, Debug)]
pub struct StoredReport {
    /// The moment that was read and the snapshot's name: the same for every reading of one report.
    pub run_id: String,
    /// The moment that every gate read, as RFC 3339.
    pub measured_at: String,
    /// One row per gate, in the order of definition.
    pub rows: Vec<GateRow>,
}

/// One gate's result.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRow {
    /// Its id.
    pub gate: String,
    /// The suite it stands in.
    pub suite: String,
    /// Its kind.
    pub kind: String,
    /// `block` or `warn`.
    pub severity: String,
    /// `passed`, `warned`, `failed`, `skipped` or `errored`.
    pub outcome: String,
    /// The figure that the threshold is about.
    pub measured: Option<f64>,
    /// What the figure counts.
    pub unit: Option<String>,
    /// How many rows were looked at.
    pub rows_checked: Option<i64>,
    /// How many of them offend.
    pub rows_offending: Option<i64>,
    /// One sentence.
    pub message: String,
}

#[derive(Deserialize)]
struct File {
    version: u32,
    snapshot: Option<Snapshot>,
    gates: Option<Vec<Gate>>,
    /// A rehearsal holds two reports; what counts is the migrated database.
    after: Option<Box<File>>,
}

#[derive(Deserialize)]
struct Snapshot {
    id: String,
    taken_at: String,
}

#[derive(Deserialize)]
struct Gate {
    id: String,
    suite: String,
    kind: String,
    severity: String,
    outcome: String,
    measured: Option<Figure>,
    rows_checked: Option<i64>,
    rows_offending: Option<i64>,
    message: String,
}

#[derive(Deserialize)]
struct Figure {
    value: f64,
    unit: String,
}

impl StoredReport {
    /// Reads the JSON report of a check, or of a rehearsal: then that of the migrated database.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
        Self::parse(&text).map_err(|error| error.context(format!("`{}`", path.display())))
    }

    fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Definition, message);
        let file: File = serde_json::from_str(text)
            .map_err(|error| wrong(format!("not a JSON report of Postern: {error}")))?;
        let file = file.after.map_or_else(
            || (file.version, file.snapshot, file.gates),
            |after| (after.version, after.snapshot, after.gates),
        );
        let (version, snapshot, Some(gates)) = file else {
            return Err(wrong(
                "not a JSON report of Postern: it has no gates".to_owned(),
            ));
        };
        if version != 1 {
            return Err(wrong(format!("version {version} of a report is not known"))
                .help("this Postern reads version 1"));
        }
        let Some(Snapshot { id, taken_at }) = snapshot else {
            return Err(wrong("its target was never reached".to_owned())
                .help("a run that read nothing has no moment to be recorded at"));
        };
        Ok(Self {
            run_id: format!("{taken_at}/{id}"),
            measured_at: taken_at,
            rows: gates.into_iter().map(row).collect(),
        })
    }
}

fn row(gate: Gate) -> GateRow {
    let (measured, unit) = match gate.measured {
        Some(figure) => (Some(figure.value), Some(figure.unit)),
        None => (None, None),
    };
    GateRow {
        gate: gate.id,
        suite: gate.suite,
        kind: gate.kind,
        severity: gate.severity,
        outcome: gate.outcome,
        measured,
        unit,
        rows_checked: gate.rows_checked,
        rows_offending: gate.rows_offending,
        message: gate.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("nothing", "not a JSON report of Postern")]
    #[case(r#"{"version": 1}"#, "it has no gates")]
    #[case(r#"{"version": 2, "gates": []}"#, "version 2 of a report is not known")]
    #[case(r#"{"version": 1, "gates": []}"#, "its target was never reached")]
    fn what_is_no_report_is_refused(#[case] text: &str, #[case] expected: &str) {
        let error = StoredReport::parse(text).expect_err("it is wrong");
        assert!(error.message().contains(expected), "{error}");
    }

    #[test]
    fn of_a_rehearsal_the_migrated_database_is_taken() {
        let gate = |id: &str| {
            format!(
                r#"{{"id": "{id}", "suite": "s", "kind": "sql", "severity": "block", "outcome": "failed",
                    "measured": {{"value": 2.0, "unit": "rows", "display": "2 rows"}},
                    "rows_checked": 9, "rows_offending": 2, "message": "m"}}"#
            )
        };
        let report = |id: &str| {
            format!(
                r#"{{"version": 1, "snapshot": {{"id": "7-1", "taken_at": "2025-07-03T12:00:00Z"}}, "gates": [{}]}}"#,
                gate(id)
            )
        };
        let text = format!(
            r#"{{"version": 1, "before": {}, "after": {}}}"#,
            report("was"),
            report("is")
        );
        let stored = StoredReport::parse(&text).expect("it is a rehearsal");
        assert_eq!(stored.run_id, "2025-07-03T12:00:00Z/7-1");
        assert_eq!(stored.rows.len(), 1);
        assert_eq!(stored.rows[0].gate, "is");
        assert_eq!(stored.rows[0].measured, Some(2.0));
    }
}
