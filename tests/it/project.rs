//! A folder with files in which the command is run.

use std::path::Path;
use std::process::{Command, Output};

/// A project of one's own; gone when dropped.
pub struct Project(tempfile::TempDir);

impl Project {
    /// Files by their path, with their text.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let file = self.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// The command, in this folder and without settings from outside.
    pub fn postern(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.current_dir(self.path()).args(arguments);
        for (name, _) in std::env::vars() {
            let is_setting = name.starts_with("POSTERN_") && !name.ends_with("_IMAGE");
            if is_setting || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs the command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&self.postern(arguments).output().unwrap())
    }
}

/// What a run of the command came to.
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {}", self.all()))
    }

    /// Outcome and SQLSTATE by gate, from a JSON report: `orders failed`, `gone errored 42P01`.
    #[track_caller]
    pub fn told(&self) -> Vec<String> {
        let report = self.json();
        let gates = report["gates"].as_array().unwrap().iter();
        gates
            .map(|gate| {
                let text = |key: &str| gate[key].as_str().unwrap_or_default();
                let line = format!("{} {} {}", text("id"), text("outcome"), text("sqlstate"));
                line.trim_end().to_owned()
            })
            .collect()
    }
}
