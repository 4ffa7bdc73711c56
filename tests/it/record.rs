//! `postern record`: results in a table, over a connection that is named for it.

use sqlx::Row;

use crate::project::Project;
use crate::support;

const GATES: &str = "\
[[gate]]\nid='holds'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=1\n\
[[gate]]\nid='fails'\nkind='row_count'\ntable='pg_catalog.pg_class'\nequals=0\n\
[[gate]]\nid='gone'\nkind='row_count'\ntable='pg_catalog.nothing'\nat_least=1\n";

#[tokio::test]
async fn every_gate_of_a_report_becomes_a_row_once() {
    let database = support::database().await;
    let url = database.address().to_secret_url();
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let said = project.run(&["check", "--url", &url, "--format", "json=report.json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());

    let record = |more: &[&str]| {
        let mut arguments = vec!["record", "report.json", "--into", &url];
        arguments.extend(["--table", "public.\"Quality \"\"of\"\" data\""]);
        arguments.extend(more);
        project.run(&arguments)
    };
    // Where there is no table nothing is made up.
    let said = record(&[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stderr.contains("SQLSTATE 42P01"), "{}", said.stderr);

    let said = record(&["--create"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(
        said.stdout.starts_with("recorded 3 gates of run 2"),
        "{}",
        said.stdout
    );
    let said = record(&[]);
    assert!(
        said.stdout.ends_with(" was recorded already\n"),
        "{}",
        said.all()
    );

    let mut session = database.connect().await.unwrap();
    let rows = sqlx::query(
        "select concat_ws(' ', gate, outcome, severity, kind, suite, unit, rows_checked > 0, measured > 0,
                          measured_at between now() - interval '1 hour' and now())
         from \"Quality \"\"of\"\" data\" order by gate",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            "fails failed block row_count g rows t t t",
            "gone errored block row_count g t",
            "holds passed block row_count g rows t t t",
        ]
    );
}

/// The database is named for it, or nothing is written.
#[test]
fn nothing_is_written_where_it_was_not_asked_for() {
    let project = Project::new(&[("report.json", "{}")]);
    let mut command = project.postern(&["record", "report.json"]);
    let output = command
        .env("DATABASE_URL", "postgres://127.0.0.1:1/none")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--into <URL>"));
}

#[test]
fn what_cannot_be_recorded_is_told_without_secrets() {
    let url = "postgres://me:s3cret@127.0.0.1:1/none";
    let report = r#"{"version": 1, "snapshot": {"id": "1", "taken_at": "2025-07-03T12:00:00Z"}, "gates": []}"#;
    let project = Project::new(&[("report.json", report), ("broken.json", "{")]);
    for (file, table, code, told) in [
        ("broken.json", "a.b", 2, "not a JSON report of Postern"),
        ("missing.json", "a.b", 2, "missing.json"),
        ("report.json", "b", 2, "`b` names no schema"),
        ("report.json", "a.b", 3, "nothing was recorded in a.b"),
    ] {
        let said = project.run(&["record", file, "--into", url, "--table", table]);
        assert!(said.stderr.contains(told), "{told}: {}", said.all());
        assert!(!said.all().contains("s3cret"), "{}", said.all());
        if file != "missing.json" {
            assert_eq!(said.code, Some(code), "{}", said.all());
        }
    }
}
