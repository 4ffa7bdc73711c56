//! Every format: a golden example from one fixed report, and the JSON against its schema.
//!
//! To renew what is in `reports/`: `RENEW=reports cargo test --test it reports::`

pub mod schema;

use std::path::Path;

use postern::gate::baseline::Standing;
use postern::gate::sampling::SampleReport;
use postern::gate::threshold::Bounds;
use postern::gate::{Figure, Finding, Severity};
use postern::pg::Snapshot;
use postern::report::format::{Format, Look};
use postern::report::{AcceptedReport, GateReport, IssueReport, ReadinessReport, Report, Summary};
use postern::run::{OffendingRow, State};
use postern::source::Place;
use rstest::rstest;
use serde_json::Value;

use crate::project::Project;
use crate::support;

/// Compares with a file of `reports/`, or writes it.
#[track_caller]
fn holds(name: &str, text: &str) {
    let file = Path::new("reports").join(name);
    if std::env::var("RENEW").is_ok_and(|what| what == "reports") {
        std::fs::write(&file, text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        golden == text,
        "{} is not what is rendered; see the head of tests/it/reports.rs:\n{text}",
        file.display()
    );
}

fn gate(id: &str, kind: &str, outcome: State, message: &str, line: u32) -> GateReport {
    GateReport {
        id: id.to_owned(),
        kind: kind.to_owned(),
        suite: "bets".to_owned(),
        severity: Severity::Block,
        outcome,
        rows_checked: Some(12_480),
        rows_offending: Some(0),
        measured: Some(Figure::rows(0)),
        threshold: Some(Bounds {
            fail: Some("at most 0 rows".to_owned()),
            warn: None,
        }),
        proof: None,
        sample: None,
        message: message.to_owned(),
        sql: None,
        accepted: None,
        defined_at: Place {
            file: "gates/bets.toml".to_owned(),
            line,
        },
        sqlstate: None,
        help: None,
        why: None,
        owner: None,
        tags: Vec::new(),
        rows: Vec::new(),
        rows_left_out: 0,
        findings: Vec::new(),
        rendered_error: None,
        rows_acceptable: None,
    }
}

/// One gate of each outcome, with texts that try to be more than text.
fn report() -> Report {
    let row = |id: &str| OffendingRow {
        key: vec![
            ("id".to_owned(), Some(id.to_owned())),
            ("note".to_owned(), None),
        ],
        values: vec![
            ("stake".to_owned(), Some("12.50".to_owned())),
            ("email".to_owned(), Some("[masked]".to_owned())),
        ],
        what: Some("orphan".to_owned()),
    };
    let gates = vec![
        gate("bets_unique", "unique", State::Passed, "12,480 rows, no value twice", 4),
        GateReport {
            rows_offending: Some(3),
            measured: Some(Figure::rows(3)),
            sql: Some("select \"id\" from s.bets where note <> '</details>' -- | `x`\n".to_owned()),
            why: Some("a bet on no game cannot be settled".to_owned()),
            owner: Some("data team".to_owned()),
            tags: vec!["keys".to_owned()],
            rows: vec![row("17"), row("::stop::<b>\n%\u{1b}[2J")],
            findings: vec![
                Finding {
                    what: "3 rows without a row to refer to".to_owned(),
                    is_failure: false,
                    repair: Some(
                        "-- Look first at what is referred to and is not in \"s\".\"games\":\n\
                         select \"game_id\", count(*) from \"s\".\"bets\" where …;\n\
                         -- Then insert it there, or take the comment signs off this:\n\
                         -- delete from \"s\".\"bets\" where …;"
                            .to_owned(),
                    ),
                },
                Finding {
                    what: "no foreign key is declared".to_owned(),
                    is_failure: true,
                    repair: Some("alter table s.bets add foreign key (game_id) references s.games".to_owned()),
                },
            ],
            ..gate("bets_have_games", "foreign_key", State::Failed, "3 of 12,480 rows are orphans, over 2 keys", 10)
        },
        GateReport {
            severity: Severity::Warn,
            rows_offending: None,
            measured: Some(Figure {
                value: 93_600.0,
                unit: "seconds",
                display: "26h".to_owned(),
            }),
            ..gate("bets_fresh", "freshness", State::Failed, "the newest row is 26h old", 17)
        },
        GateReport {
            rows_offending: Some(624),
            measured: Some(Figure {
                display: "5% of 12,480 rows in a sample offend".to_owned(),
                ..Figure::percent(624, 12_480)
            }),
            threshold: Some(Bounds {
                fail: Some("at least 90%".to_owned()),
                warn: Some("at least 97%".to_owned()),
            }),
            sample: Some(SampleReport {
                share: "0.5%".to_owned(),
                seed: 7,
                blocks: 416,
                confidence: "95%".to_owned(),
                percent_offending_min: 2.9,
                percent_offending_max: 7.31,
                help: None,
            }),
            ..gate(
                "bets_complete",
                "completeness",
                State::Warned,
                "11,856 of 12,480 rows complete (95%); sampled 0.5% of the table: with 95% confidence 2.9% to 7.31% of all rows offend",
                24,
            )
        },
        GateReport {
            rows_offending: Some(37),
            measured: Some(Figure::rows(37)),
            rows: vec![row("4")],
            accepted: Some(AcceptedReport {
                rows: 37,
                reason: "bets of 2019 lost | their <game>".to_owned(),
                owner: "data team".to_owned(),
                until: Some("2025-12-31".to_owned()),
                standing: Standing::Holds,
                defined_at: Place {
                    file: "postern.baseline.toml".to_owned(),
                    line: 3,
                },
            }),
            ..gate(
                "bets_settled",
                "completeness",
                State::Warned,
                "37 of 12,480 rows incomplete; 37 accepted until 2025-12-31, reason: bets of 2019 lost | their <game>",
                28,
            )
        },
        gate("refunds_unique", "unique", State::Skipped, "nothing to look at: the table is empty", 31),
        GateReport {
            rows_checked: None,
            rows_offending: None,
            measured: None,
            threshold: None,
            sqlstate: Some("42P01".to_owned()),
            help: Some("did you mean `s.bets`?".to_owned()),
            rendered_error: Some(
                "error: relation \"s.betz\" does not exist, 100% | sure (SQLSTATE 42P01)\n  |\n  = help: did you mean `s.bets`?"
                    .to_owned(),
            ),
            ..gate("betz_counted", "row_count", State::Errored, "relation \"s.betz\" does not exist, 100% | sure", 38)
        },
    ];
    Report {
        version: 1,
        summary: Summary {
            exit_code: 3,
            total: 7,
            passed: 1,
            warned: 2,
            accepted: 1,
            failed: 2,
            skipped: 1,
            errored: 1,
            left_out: 2,
        },
        target: "postgres://ann@db.example:5432/shop".to_owned(),
        selection: Some("suite:bets".to_owned()),
        notes: Vec::new(),
        snapshot: Some(Snapshot {
            id: "00000003-0000001B-1".to_owned(),
            taken_at: "2025-07-03T08:30:00.250000Z".to_owned(),
            in_recovery: true,
            server_version: "15.18".to_owned(),
        }),
        readiness: Some(ReadinessReport {
            is_ready: false,
            critical: vec![IssueReport {
                tag: "issue-7".to_owned(),
                gates: 2,
                open: vec!["bets_have_games".to_owned()],
            }],
            metrics_total: 4,
            metrics_met: 3,
            metrics_at_least: "95%".to_owned(),
            metrics_open: vec!["betz_counted".to_owned()],
        }),
        gates,
    }
}

#[rstest]
fn each_format_has_its_golden_example(
    #[values(
        Format::Terminal,
        Format::Json,
        Format::Junit,
        Format::Markdown,
        Format::Github,
        Format::Sarif,
        Format::Openmetrics
    )]
    format: Format,
) {
    let text = format.render(&report(), Look::default());
    assert!(text.ends_with('\n'));
    holds(&format!("example.{}", format.extension()), &text);
}

#[test]
fn every_format_is_among_them() {
    for format in Format::ALL {
        let file = format!("reports/example.{}", format.extension());
        assert!(Path::new(&file).exists(), "{file}");
        assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
    }
    let error = "jnuit".parse::<Format>().unwrap_err();
    assert_eq!(error.help_text(), Some("did you mean `junit`?"));
}

#[test]
fn colour_adds_nothing_but_colour() {
    let render = |is_coloured| {
        Format::Terminal.render(
            &report(),
            Look {
                is_verbose: true,
                is_coloured,
            },
        )
    };
    let (plain, coloured) = (render(false), render(true));
    assert!(!plain.contains('\u{1b}'));
    let mut bare = coloured.clone();
    for code in [
        "\u{1b}[0m",
        "\u{1b}[1;31m",
        "\u{1b}[1;32m",
        "\u{1b}[1;33m",
        "\u{1b}[1;36m",
    ] {
        assert!(coloured.contains(code));
        bare = bare.replace(code, "");
    }
    assert_eq!(bare, plain);
}

#[test]
fn the_schema_is_that_of_the_report() {
    holds(
        "report.v1.schema.json",
        &format!("{:#}\n", postern::report::schema()),
    );
}

#[test]
fn the_schema_of_an_explanation_is_that_of_the_explanation() {
    holds(
        "explain.v1.schema.json",
        &format!("{:#}\n", postern::report::explain::schema()),
    );
}

const REPORT: &str = "reports/report.v1.schema.json";

#[track_caller]
fn assert_valid(definition: &str, report: &Value) {
    let errors = schema::errors(REPORT, &format!("#/$defs/{definition}"), report);
    assert!(errors.is_empty(), "{}\n{report:#}", errors.join("\n"));
}

#[test]
fn the_golden_json_is_valid_and_a_broken_one_is_not() {
    let text = std::fs::read_to_string("reports/example.json").unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    assert_valid("Report", &golden);
    let broken = |change: fn(&mut Value)| {
        let mut report = golden.clone();
        change(&mut report);
        schema::errors(REPORT, "#/$defs/Report", &report)
    };
    let told = |change, expected: &str| assert_eq!(broken(change), [expected]);
    told(
        |report| report["gates"][0]["outcome"] = "great".into(),
        "/gates/0/outcome: none of the choices",
    );
    told(
        |report| report["version"] = "1".into(),
        "/version: not \"integer\"",
    );
    told(
        |report| report["summary"]["failed"] = (-1).into(),
        "/summary/failed: below 0",
    );
    told(
        |report| report["more"] = 1.into(),
        ": `more` is not in the schema",
    );
    let lacking = |report: &mut Value| drop(report.as_object_mut().unwrap().remove("gates"));
    told(lacking, ": `gates` is missing");
    told(
        |report| report["gates"][1]["rows"][0]["key"][0] = "id".into(),
        "/gates/1/rows/0/key/0: not \"array\"",
    );
}

const GATES: &str = "\
[[gate]]\nid='passes'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=1\nwhy='x'\nowner='y'\ntags=['z']\n\
[[gate]]\nid='warns'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=1\nwarn_below=999999\n\
[[gate]]\nid='fails'\nkind='completeness'\ntable='pg_catalog.pg_class'\ncolumns=['reloptions']\n\
[[gate]]\nid='skips'\nkind='unique'\ntable='pg_catalog.pg_class'\ncolumns=['oid']\nwhere='false'\n\
[[gate]]\nid='errs'\nkind='row_count'\ntable='pg_catalog.pg_clazz'\nat_least=1\n";

#[tokio::test]
async fn the_json_of_a_check_is_valid_and_every_format_is_written() {
    let database = support::database().await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let mut arguments = vec!["check", "--url", &url];
    let outputs: Vec<String> = Format::ALL
        .iter()
        .map(|format| format!("{format}=out.{}", format.extension()))
        .collect();
    for output in &outputs {
        arguments.extend(["--format", output]);
    }
    let said = project.run(&arguments);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(3), ""),
        "{}",
        said.all()
    );
    let read = |format: Format| {
        let name = format!("out.{}", format.extension());
        std::fs::read_to_string(project.path().join(name)).unwrap()
    };
    assert_valid(
        "Report",
        &serde_json::from_str(&read(Format::Json)).unwrap(),
    );
    for format in Format::ALL {
        let text = read(format);
        for id in ["warns", "fails", "skips", "errs"] {
            assert!(text.contains(id), "{format}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{format}: {text}");
    }
    let down = project.run(&[
        "check",
        "--url",
        "postgres://127.0.0.1:1/x",
        "--format",
        "json",
    ]);
    assert_valid("Report", &down.json());
}

#[test]
fn the_json_of_a_rehearsal_is_valid() {
    let project = Project::new(&[
        (
            "s/scenario.toml",
            "[scenario]\ndescription='x'\ngates=['../gates']\n[before.expect]\nfails='passed'\n",
        ),
        (
            "s/legacy/010_a.sql",
            "create table a (id int primary key); insert into a values (1)",
        ),
        (
            "s/migrations/001_b.up.sql",
            "create table b as select * from a;",
        ),
        ("s/migrations/001_b.down.sql", "select 1;"),
        ("s/workload/w.sql", "-- budget: 2s\nselect * from a"),
        ("gates/g.toml", GATES),
    ]);
    let said = project.run(&["rehearse", "s", "--engine", "local"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let text = std::fs::read_to_string(project.path().join("reports/latest/report.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_valid("RehearsalReport", &report);
    let is_filled = |part: &Value| part.as_array().is_some_and(|items| !items.is_empty());
    assert!(is_filled(&report["unexpected"]), "{report:#}");
    assert!(is_filled(&report["migrations"]["findings"]), "{report:#}");
    assert!(report["migrations"]["stopped"].is_object(), "{report:#}");
    // A migration that cannot be executed ends it before the workload; a right one does not.
    project.write("s/migrations/001_b.down.sql", "drop table b");
    let said = project.run(&["rehearse", "s", "--engine", "local"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let text = std::fs::read_to_string(project.path().join("reports/latest/report.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_valid("RehearsalReport", &report);
    assert!(is_filled(&report["workloads"]), "{report:#}");
}
