//! `--select`: what a run takes, what it says of the rest.

use crate::project::Project;
use crate::support;

const GATES: &str = "\
[[gate]]\nid='classes'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=1\ntags=['core']\n\
[[gate]]\nid='names'\nkind='unique'\ntable='pg_catalog.pg_database'\ncolumns=['datname']\n\
[[gate]]\nid='gone'\nkind='row_count'\ntable='pg_catalog.nothing'\nat_least=1\n";

#[test]
fn list_shows_what_a_selection_takes() {
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let said = project.run(&["list", "--select", "kind:row_count and not tag:core"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.stdout, "gone  row_count  block  gates/g.toml:12\n");
}

#[test]
fn a_selection_of_nothing_runs_nothing() {
    let project = Project::new(&[("gates/g.toml", GATES)]);
    for command in ["list", "check"] {
        let mut arguments = vec![command, "--select", "kind:uniq or tag:cor"];
        if command == "check" {
            arguments.extend(["--url", "postgres://127.0.0.1:1/none"]);
        }
        let said = project.run(&arguments);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (Some(2), ""),
            "{}",
            said.all()
        );
        for told in ["did you mean `unique`?", "did you mean `core`?"] {
            assert!(said.stderr.contains(told), "{}", said.stderr);
        }
    }
}

#[tokio::test]
async fn a_report_says_how_many_gates_were_not_selected() {
    let database = support::database().await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--url", &url, "--select", "classes or names"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.stdout, "2 gates passed; 1 not selected\n");
    let said = project.run(&["check", "--url", &url, "--select", "*s", "--format", "json"]);
    let report = said.json();
    assert_eq!(report["selection"], "*s");
    assert_eq!(report["summary"]["left_out"], 1);
    assert_eq!(report["summary"]["total"], 2);
}
