//! `postern explain`: the SQL, its plan, its size and the privileges, without asking anything.

use postern::pg::Database;

use crate::project::{Project, Said};
use crate::reports::schema;
use crate::support;

const SEED: &str = r#"
create schema s;
create table s.games (id int primary key, day date, home int);
insert into s.games select n, date '2026-01-01' + n, n from generate_series(1, 500) n;
create table s.bets (id int primary key, game_id int);
insert into s.bets select n, n from generate_series(1, 100) n;
create schema "Ünï s";
create table "Ünï s"."we""ird.t" ("select" int, "A.b" text);
insert into "Ünï s"."we""ird.t" values (1, 'x');
create view s.late as select * from s.games where day > '2026-06-01';
create table s.parts (id int, kind text) partition by list (kind);
create table s.parts_a partition of s.parts for values in ('a');
create table s.parts_b partition of s.parts for values in ('b');
insert into s.parts values (1, 'a'), (2, 'b');
vacuum analyze;
"#;

async fn seeded() -> Database {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    for statement in SEED.split_inclusive(";\n") {
        sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    database
}

fn explain(project: &Project, url: &str, more: &[&str]) -> Said {
    let mut arguments = vec!["explain", "--url", url];
    arguments.extend(more);
    project.run(&arguments)
}

/// An explanation as JSON, held to its schema.
#[track_caller]
fn valid(said: &Said) -> serde_json::Value {
    let report = said.json();
    let errors = schema::errors("reports/explain.v1.schema.json", "#", &report);
    assert!(errors.is_empty(), "{}\n{report:#}", errors.join("\n"));
    report
}

/// The gate of that id in a JSON explanation.
fn gate<'a>(report: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    let mut gates = report["gates"].as_array().unwrap().iter();
    gates.find(|gate| gate["id"] == id).unwrap()
}

/// `SELECT s.games yes`, in their order.
fn privileges(gate: &serde_json::Value) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all = gate["privileges"].as_array().unwrap().iter();
    all.map(|one| {
        format!(
            "{} {} {}",
            text(&one["privilege"]),
            text(&one["on"]),
            text(&one["granted"])
        )
    })
    .collect()
}

const GATES: &str = r#"
[[gate]]
id = "days_there"
kind = "completeness"
table = "s.games"
columns = ["day"]

[[gate]]
id = "homes_there"
kind = "completeness"
table = "s.games"
columns = ["home"]
where = "day > '2026-01-10'"

[[gate]]
id = "bets_have_games"
kind = "foreign_key"
table = "s.bets"
columns = ["game_id"]
references = "s.games(id)"

[[gate]]
id = "odd_names"
kind = "unique"
table = '"Ünï s"."we""ird.t"'
columns = ["select", "A.b"]
on_empty = "pass"

[[gate]]
id = "layout"
kind = "schema_layout"
schemas = ["s"]
forbid_tables = ["tmp_*"]
"#;

#[tokio::test]
async fn every_statement_is_shown_once_with_its_plan_and_its_gates() {
    let database = seeded().await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let said = explain(&project, &url, &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    // Costs and the shape of a join are the planner's, from version to version.
    insta::with_settings!({filters => vec![
        (r"cost [0-9.]+", "cost [cost]"),
        (r"(?m)^  plan      (Aggregate|Result|Hash|Nested|Merge|Finalize)[^\n]*\n(            [^\n]*\n)*", "  plan      [plan]\n"),
        (r"as \S+\n", "as [role]\n"),
    ]}, { insta::assert_snapshot!(said.stdout) });
}

#[tokio::test]
async fn a_shared_scan_counts_its_pages_once() {
    let database = seeded().await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let said = explain(&project, &url, &["*_there", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let report = valid(&said);
    let statements = report["statements"].as_array().unwrap();
    assert_eq!(statements.len(), 1, "{report:#}");
    let scan = &statements[0];
    assert_eq!(
        scan["gates"],
        serde_json::json!(["days_there", "homes_there"])
    );
    let mut connection = database.connect().await.unwrap();
    let (pages,): (i64,) =
        sqlx::query_as("select relpages::int8 from pg_class where oid = 's.games'::regclass")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(scan["bytes"], pages * 8192);
    assert_eq!(report["summary"]["bytes"], scan["bytes"]);
    assert_eq!(scan["plan"]["root"]["node"], "Aggregate");
    let input = &scan["plan"]["root"]["inputs"][0];
    assert_eq!(
        (&input["node"], &input["relation"], &input["rows"]),
        (&"Seq Scan".into(), &"s.games".into(), &500.into())
    );
    assert!(scan["plan"]["cost"].as_f64().unwrap() > 5.0);
    for id in ["days_there", "homes_there"] {
        let gate = gate(&report, id);
        assert_eq!(gate["statements"], serde_json::json!([1]));
        assert_eq!(gate["on_empty"], "fail");
        assert_eq!(privileges(gate), ["USAGE s yes", "SELECT s.games yes"]);
    }
}

#[tokio::test]
async fn what_a_view_and_a_partitioned_table_stand_for_is_read_and_needs_no_privilege() {
    let database = seeded().await;
    let gates = "[[gate]]\nid='late'\nkind='row_count'\ntable='s.late'\nat_least=1\nwhere='home > 0'\n\
                 [[gate]]\nid='parts'\nkind='row_count'\ntable='s.parts'\nat_least=1\nwhere='id > 0'\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let url = database.address().to_secret_url();
    let report = valid(&explain(&project, &url, &["--format", "json"]));
    assert_eq!(
        report["statements"][0]["plan"]["reads"][0]["relation"],
        "s.games"
    );
    let parts = report["statements"][1]["plan"]["reads"].as_array().unwrap();
    let parts: Vec<_> = parts.iter().map(|read| &read["relation"]).collect();
    assert_eq!(parts, ["s.parts_a", "s.parts_b"]);
    assert_eq!(
        privileges(gate(&report, "late")),
        ["USAGE s yes", "SELECT s.late yes"]
    );
    assert_eq!(
        privileges(gate(&report, "parts")),
        ["USAGE s yes", "SELECT s.parts yes"]
    );
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_and_the_rest_is_explained() {
    let database = seeded().await;
    let gates = "[[gate]]\nid='gone'\nkind='row_count'\ntable='s.gmaes'\nat_least=1\n\
                 [[gate]]\nid='typo'\nkind='row_count'\ntable='s.games'\nat_least=1\nwhere='hoem = 1'\n\
                 [[gate]]\nid='fine'\nkind='row_count'\ntable='s.games'\nat_least=1\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let url = database.address().to_secret_url();
    let said = explain(&project, &url, &["--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let report = valid(&said);
    assert_eq!(gate(&report, "gone")["error"]["sqlstate"], "42P01");
    assert_eq!(
        gate(&report, "gone")["error"]["help"],
        "did you mean `s.games`?"
    );
    assert_eq!(gate(&report, "typo")["error"]["sqlstate"], "42703");
    assert!(gate(&report, "fine")["error"].is_null());
    assert_eq!(report["statements"].as_array().unwrap().len(), 1);
    assert_eq!(report["summary"]["errored"], 2);
    let said = explain(&project, &url, &[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    for told in [
        "error gone  row_count  gates/g.toml:1",
        "the table `s.gmaes` does not exist (SQLSTATE 42P01)",
        "3 gates, 2 of them cannot be evaluated; 1 statement",
    ] {
        assert!(said.stdout.contains(told), "{told}: {}", said.stdout);
    }
}

#[tokio::test]
async fn a_role_is_told_what_it_may_not_read() {
    let database = seeded().await;
    let role = format!("explain_{}", std::process::id());
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "drop role if exists {role}; create role {role} login password 'explained-3';
         grant usage on schema s to {role}; grant select on s.bets, s.late to {role};
         grant select (id, day) on s.games to {role}"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    let gates = "[[gate]]\nid='bets'\nkind='row_count'\ntable='s.bets'\nat_least=1\n\
                 [[gate]]\nid='late'\nkind='row_count'\ntable='s.late'\nat_least=1\n\
                 [[gate]]\nid='days'\nkind='completeness'\ntable='s.games'\ncolumns=['day']\n\
                 [[gate]]\nid='homes'\nkind='completeness'\ntable='s.games'\ncolumns=['home']\n\
                 [[gate]]\nid='parts'\nkind='row_count'\ntable='s.parts'\nat_least=1\n\
                 [[gate]]\nid='schema'\nkind='unique'\ntable='\"Ünï s\".\"we\"\"ird.t\"'\ncolumns=['select']\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let mut url = database.address().to_secret_url();
    let user = url.find("postgres@").map(|at| at..at + 8);
    url.replace_range(user.unwrap(), &role);
    let said = explain(&project, &url, &["--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let report = valid(&said);
    assert_eq!(report["role"], role.as_str());
    let expected: [(&str, Option<&str>, [&str; 2]); 6] = [
        ("bets", None, ["USAGE s yes", "SELECT s.bets yes"]),
        ("late", None, ["USAGE s yes", "SELECT s.late yes"]),
        ("days", None, ["USAGE s yes", "SELECT s.games some_columns"]),
        (
            "homes",
            Some("42501"),
            ["USAGE s yes", "SELECT s.games some_columns"],
        ),
        ("parts", Some("42501"), ["USAGE s yes", "SELECT s.parts no"]),
        (
            "schema",
            Some("42501"),
            ["USAGE Ünï s no", r#"SELECT "Ünï s"."we""ird.t" no"#],
        ),
    ];
    for (id, sqlstate, needed) in expected {
        let gate = gate(&report, id);
        assert_eq!(
            gate["error"]["sqlstate"].as_str(),
            sqlstate,
            "{id}: {gate:#}"
        );
        assert_eq!(privileges(gate), needed, "{id}");
    }
    let said = explain(&project, &url, &["parts"]);
    assert!(
        said.stdout
            .contains("needs     SELECT on s.parts: not granted"),
        "{}",
        said.stdout
    );
}

#[tokio::test]
async fn what_another_target_is_asked_stands_under_its_name() {
    let (database, other) = (seeded().await, seeded().await);
    let gates = "[[gate]]\nid='same'\nkind='row_count_parity'\ntable='s.games'\n\
                 against='s.games'\nagainst_target='before'\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let url = database.address().to_secret_url();
    let before = format!("before={}", other.address().to_secret_url());
    let said = explain(&project, &url, &["--other", &before, "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let report = valid(&said);
    let statements = report["statements"].as_array().unwrap().iter();
    let sides: Vec<_> = statements.map(|one| one["on"].as_str()).collect();
    assert_eq!(sides, [None, Some("before")]);
    let needed = gate(&report, "same")["privileges"].as_array().unwrap();
    let needed: Vec<_> = needed.iter().map(|one| one["target"].as_str()).collect();
    assert_eq!(needed, [None, None, Some("before"), Some("before")]);
    let said = explain(&project, &url, &["--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        gate(&said.json(), "same")["error"]["message"],
        "there is no target `before`"
    );
}

#[tokio::test]
async fn nothing_but_explain_is_run() {
    let database = seeded().await;
    let gates = "[[gate]]\nid='slow'\nkind='sql'\nquery='select 1/(id - id) from s.games'\n\
                 [[gate]]\nid='budget'\nkind='query_budget'\nquery='select 1/(id - id) from s.games'\nbudget='1s'\nruns=7\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let said = explain(
        &project,
        &database.address().to_secret_url(),
        &["--format", "json"],
    );
    assert_eq!(said.code, Some(0), "{}", said.all());
    let report = valid(&said);
    let runs = report["statements"].as_array().unwrap().iter();
    assert_eq!(runs.map(|one| &one["runs"]).collect::<Vec<_>>(), [1, 8]);
    assert_eq!(
        privileges(gate(&report, "budget")),
        ["USAGE s yes", "SELECT s.games yes"]
    );
}

#[test]
fn without_a_database_there_is_nothing_to_explain() {
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let said = project.run(&["explain", "odd_names"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(said.stderr, @r"
    error: no target database is named
     |
     = note: what a gate asks depends on the columns, keys and types of the database
     = help: give --url URL, set DATABASE_URL, or define [target.NAME] in postern.toml
    ");
    let said = project.run(&[
        "explain",
        "odd_name",
        "--url",
        "postgres://127.0.0.1:1/none",
    ]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("did you mean `odd_names`?"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_database_out_of_reach_is_told_at_each_gate() {
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let said = explain(
        &project,
        "postgres://127.0.0.1:1/none",
        &["--format", "json"],
    );
    assert_eq!(said.code, Some(3), "{}", said.all());
    let report = valid(&said);
    assert_eq!(report["summary"]["errored"], 5);
    assert_eq!(gate(&report, "layout")["error"]["sqlstate"], "08001");
    assert!(report["snapshot"].is_null());
}

#[tokio::test]
async fn what_is_asked_only_after_an_answer_is_told_in_words() {
    let database = seeded().await;
    let gates = "[[gate]]\nid='same'\nkind='content_parity'\ntable='s.games'\nagainst='s.games'\n\
        [[gate]]\nid='each'\nkind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='1d'\ngroup_by=['home']\n\
        calendar={weekdays=['sat']}\n\
        [[gate]]\nid='all'\nkind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='1d'\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let url = database.address().to_secret_url();
    let report = valid(&explain(&project, &url, &["--format", "json"]));
    let then = |id| {
        gate(&report, id)["then"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(then("same").starts_with("where the sums differ"));
    assert!(then("each").contains("which groups are older"));
    assert_eq!(gate(&report, "all")["then"], serde_json::Value::Null);
    let said = explain(&project, &url, &["same"]);
    assert!(
        said.stdout.contains("\n  then      where the sums differ"),
        "{}",
        said.stdout
    );
}
