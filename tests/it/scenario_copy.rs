//! Scenarios of this repository, copied to where they may be broken, and what a rehearsal of them says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A scenario with its gates in a folder of one's own.
pub struct Copy {
    folder: TempDir,
    scenario: String,
}

impl Copy {
    pub fn of(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for parent in ["fixtures", "gates"] {
            let part = Path::new(parent).join(scenario);
            copy(&part, &folder.path().join(&part));
        }
        Self {
            folder,
            scenario: scenario.to_owned(),
        }
    }

    /// The folder in which `fixtures/` and `gates/` are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces text that must be there in every file whose name begins with `stem`.
    #[track_caller]
    pub fn edit(&self, folder: &str, stem: &str, from: &str, to: &str) {
        let folder = self
            .path()
            .join("fixtures")
            .join(&self.scenario)
            .join(folder);
        let mut edits = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with(stem) && text.contains(from) {
                std::fs::write(&path, text.replace(from, to)).unwrap();
                edits += 1;
            }
        }
        assert!(edits > 0, "`{from}` is in no file {stem}*");
    }

    pub fn rehearse(&self, more: &[&str]) -> Rehearsed {
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .current_dir(self.path())
            .args(["rehearse", &format!("fixtures/{}", self.scenario)])
            .args(["--engine", "local"])
            .args(more)
            .output()
            .unwrap();
        let report = std::fs::read_to_string(self.path().join("reports/latest/report.json"));
        Rehearsed {
            report: report.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap()),
            code: output.status.code(),
            output,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What became of a rehearsal.
pub struct Rehearsed {
    pub report: Value,
    pub code: Option<i32>,
    pub output: Output,
}

impl Rehearsed {
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
            + &String::from_utf8_lossy(&self.output.stderr)
    }

    pub fn reasons(&self) -> Vec<&str> {
        let reasons = self.report["reasons"].as_array();
        reasons
            .unwrap()
            .iter()
            .map(|reason| reason.as_str().unwrap())
            .collect()
    }

    #[track_caller]
    pub fn gate(&self, phase: &str, id: &str) -> &Value {
        let gates = self.report[phase]["gates"].as_array().unwrap();
        let found = gates.iter().find(|gate| gate["id"] == id);
        found.unwrap_or_else(|| panic!("there is no gate {id}"))
    }

    #[track_caller]
    pub fn message(&self, phase: &str, id: &str) -> String {
        self.gate(phase, id)["message"].as_str().unwrap().to_owned()
    }

    pub fn outcomes(&self, phase: &str) -> BTreeMap<String, String> {
        let gates = self.report[phase]["gates"].as_array().unwrap();
        gates
            .iter()
            .map(|gate| {
                let text = |key: &str| gate[key].as_str().unwrap().to_owned();
                (text("id"), text("outcome"))
            })
            .collect()
    }

    /// Gates whose outcome before is another one than `scenario.toml` says, or after not a pass.
    pub fn unexpected(&self, scenario: &str) -> Vec<String> {
        let file = toml(&format!("fixtures/{scenario}/scenario.toml"));
        let expected = file["before"]["expect"].as_table().unwrap();
        let documented = |gate: &str| {
            let outcome = expected.get(gate).map(|value| value.as_str().unwrap());
            outcome.unwrap_or("passed").to_owned()
        };
        let before = self.outcomes("before").into_iter();
        let before = before.filter(|(gate, outcome)| *outcome != documented(gate));
        let after = self.outcomes("after").into_iter();
        let after = after.filter(|(_, outcome)| outcome != "passed");
        before
            .map(|(gate, outcome)| format!("{gate} {outcome} before"))
            .chain(after.map(|(gate, outcome)| format!("{gate} {outcome} after")))
            .collect()
    }
}

/// A table of a TOML file.
pub fn toml(path: &str) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Offending rows by phase and gate.
pub type Defects = BTreeMap<(String, String), i64>;

/// The defects of a scenario's manifest, without those that have no rows to count.
pub fn planted(scenario: &str) -> Defects {
    let mut planted = Defects::new();
    let manifest = toml(&format!("fixtures/{scenario}/manifest.toml"));
    for defect in manifest["planted"].as_array().unwrap() {
        let text = |key: &str| {
            let value = defect.get(key);
            value.map(|value| value.as_str().unwrap().to_owned())
        };
        let phase = text("phase").unwrap_or_else(|| "before".to_owned());
        *planted.entry((phase, text("gate").unwrap())).or_default() +=
            defect["rows"].as_integer().unwrap();
    }
    planted.retain(|_, rows| *rows > 0);
    planted
}

/// The offending rows that the gates report, or the findings of those that are not about rows.
pub fn found(rehearsed: &Rehearsed) -> Defects {
    let mut found = Defects::new();
    for phase in ["before", "after"] {
        for gate in rehearsed.report[phase]["gates"].as_array().unwrap() {
            let figure = &gate["measured"];
            let findings = figure["value"]
                .as_f64()
                .filter(|_| figure["unit"] == "findings");
            let rows = gate["rows_offending"].as_i64();
            #[expect(clippy::cast_possible_truncation, reason = "a small whole number")]
            let rows = rows.or(findings.map(|findings| findings as i64));
            if let Some(rows) = rows.filter(|rows| *rows > 0) {
                let id = gate["id"].as_str().unwrap().to_owned();
                found.insert((phase.to_owned(), id), rows);
            }
        }
    }
    found
}
