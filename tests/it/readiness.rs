//! `[readiness]`: one verdict over many gates.

use rstest::rstest;

use crate::project::Project;
use crate::support;

fn gate(id: &str, holds: bool, tags: &str) -> String {
    let query = if holds { "where false" } else { "" };
    format!(
        "[[gate]]\nid = '{id}'\nkind = 'sql'\nseverity = 'warn'\ntags = [{tags}]\n\
         query = \"select 1 as n {query}\"\npopulation = 'select 1'\n"
    )
}

const READINESS: &str =
    "[readiness]\ncritical = ['leak']\nmetrics = ['metric']\nat_least = '66%'\n";

#[rstest]
#[case::all([true, true, true, true], 0, "ready: 1 of 1 critical issues resolved, 3 of 3 metrics met (66% needed)")]
#[case::enough([true, true, true, false], 0, "ready: 1 of 1 critical issues resolved, 2 of 3 metrics met (66% needed)")]
#[case::too_few([true, true, false, false], 1, "not ready: 1 of 1 critical issues resolved, 1 of 3 metrics met (66% needed)")]
#[case::an_open_issue([false, true, true, true], 1, "not ready: 0 of 1 critical issues resolved, 3 of 3 metrics met (66% needed); open: leak")]
#[tokio::test]
async fn it_is_ready_when_issues_are_resolved_and_metrics_met(
    #[case] holds: [bool; 4],
    #[case] code: i32,
    #[case] sentence: &str,
) {
    let [leak, a, b, c] = holds;
    let gates = [
        gate("no_leak", leak, "'leak'"),
        gate("a", a, "'metric'"),
        gate("b", b, "'metric'"),
        gate("c", c, "'metric'"),
    ];
    let project = Project::new(&[
        ("gates/all.toml", &gates.concat()),
        ("gates/readiness.toml", READINESS),
    ]);
    let database = support::database().await;
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--url", &url]);
    assert_eq!(said.code, Some(code), "{}", said.all());
    assert_eq!(said.stdout.lines().last(), Some(sentence));
    let report = project
        .run(&["check", "--url", &url, "--format", "json"])
        .json();
    assert_eq!(report["readiness"]["is_ready"], code == 0);
    // Where gates are left out nothing can be said of the whole.
    let said = project.run(&["check", "--url", &url, "--select", "a"]);
    assert!(!said.stdout.contains("ready:"), "{}", said.all());
}

/// A gate that had nothing to look at, or could not be evaluated, holds nothing.
#[tokio::test]
async fn what_was_not_looked_at_is_not_resolved() {
    let skipped = "[[gate]]\nid = 'no_leak'\nkind = 'sql'\ntags = ['leak']\nquery = 'select 1 as n where false'\n\
                   population = 'select 0'\non_empty = 'skip'\n";
    let project = Project::new(&[
        ("gates/skipped.toml", skipped),
        ("gates/a.toml", &gate("a", true, "'metric'")),
        ("gates/readiness.toml", READINESS),
    ]);
    let database = support::database().await;
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--url", &url]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.stdout.ends_with("open: leak\n"), "{}", said.all());
}

#[test]
fn mistakes_are_told_with_their_place() {
    let project = Project::new(&[
        ("gates/a.toml", &gate("a", true, "'metric', 'leak'")),
        (
            "gates/readiness.toml",
            "[readiness]\ncritical = ['leek']\nmetrics = []\nat_least = '95%'\n",
        ),
    ]);
    let said = project.run(&["check", "--url", "postgres://127.0.0.1:1/none"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!(said.stderr);
    project.write("gates/readiness.toml", READINESS);
    project.write("gates/second.toml", READINESS);
    let said = project.run(&["check", "--url", "postgres://127.0.0.1:1/none"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("there are two [readiness] tables"),
        "{}",
        said.stderr
    );
}
