//! The exit code, as a truth table.

use postern::pg::Database;
use rstest::rstest;

use crate::project::Project;
use crate::support;

async fn target() -> Database {
    support::database().await
}

/// A gate for each outcome, by its word.
fn gate(word: &str) -> String {
    let fields = match word {
        "pass" => "kind='row_count'\nat_least=1",
        "warn" => "kind='row_count'\nat_least=1\nwarn_below=999999",
        // Fails, but is only told.
        "told" => "kind='row_count'\nequals=0\nseverity='warn'",
        "fail" => "kind='row_count'\nequals=0",
        "skip" => "kind='unique'\ncolumns=['oid']\nwhere='false'",
        // An empty table where that is itself the failure.
        "empty" => "kind='completeness'\ncolumns=['oid']\nwhere='false'",
        "error" => "kind='row_count'\nequals=0\nwhere='nothing = 1'",
        // An error where a failure would only be told: still not checked.
        "error_told" => "kind='row_count'\nequals=0\nwhere='nothing = 1'\nseverity='warn'",
        other => panic!("there is no gate for {other}"),
    };
    format!("[[gate]]\nid='{word}'\ntable='pg_catalog.pg_class'\n{fields}\n")
}

/// Gates, the exit code, and the exit code with `--fail-on warn`.
#[rstest]
#[case("pass", 0, 0)]
#[case("skip", 0, 0)]
#[case("warn", 0, 1)]
#[case("told", 0, 1)]
#[case("fail", 1, 1)]
#[case("empty", 1, 1)]
#[case("error", 3, 3)]
#[case("error_told", 3, 3)]
#[case("pass skip", 0, 0)]
#[case("pass warn", 0, 1)]
#[case("pass told", 0, 1)]
#[case("pass fail", 1, 1)]
#[case("pass error", 3, 3)]
#[case("skip warn", 0, 1)]
#[case("skip fail", 1, 1)]
#[case("skip error", 3, 3)]
#[case("warn told", 0, 1)]
#[case("warn fail", 1, 1)]
#[case("warn error", 3, 3)]
#[case("told fail", 1, 1)]
#[case("fail empty", 1, 1)]
#[case("fail error", 3, 3)]
#[case("error fail", 3, 3)]
#[case("fail error_told", 3, 3)]
#[case("pass skip warn told", 0, 1)]
#[case("pass skip warn told fail empty", 1, 1)]
#[case("pass skip warn told fail empty error error_told", 3, 3)]
#[tokio::test]
async fn the_worst_outcome_decides(
    #[case] words: &str,
    #[case] code: i32,
    #[case] code_on_warn: i32,
) {
    let database = target().await;
    let gates: String = words.split(' ').map(gate).collect();
    let project = Project::new(&[("gates/g.toml", &gates)]);
    let url = database.address().to_secret_url();
    for (fail_on, expected) in [("block", code), ("warn", code_on_warn)] {
        let said = project.run(&[
            "check",
            "--url",
            &url,
            "--fail-on",
            fail_on,
            "--format",
            "json",
        ]);
        assert_eq!(said.code, Some(expected), "{fail_on}: {}", said.all());
        assert_eq!(said.json()["summary"]["exit_code"], expected, "{fail_on}");
    }
}

/// What is wrong before anything is run.
#[rstest]
#[case::definition("[[gate]]\nid='x'\nkind='row_count'\n", &[], 2)]
#[case::no_gate("", &[], 2)]
#[case::format("", &["--format", "jsn"], 2)]
#[case::flag("", &["--formt", "json"], 2)]
#[case::timeout("", &["--timeout", "soon"], 2)]
#[case::fail_on("", &["--fail-on", "error"], 2)]
#[case::url("", &["--url", "mysql://x"], 2)]
fn a_mistake_is_exit_code_2(#[case] more: &str, #[case] flags: &[&str], #[case] code: i32) {
    let gates = if flags.is_empty() {
        more.to_owned()
    } else {
        gate("pass")
    };
    let project = Project::new(&[("gates/g.toml", &gates)]);
    let mut arguments = vec!["check"];
    if !flags.contains(&"--url") {
        arguments.extend(["--url", "postgres://127.0.0.1:1/none"]);
    }
    arguments.extend(flags);
    let said = project.run(&arguments);
    assert_eq!(said.code, Some(code), "{}", said.all());
    assert_eq!(said.stdout, "", "nothing was run");
}
