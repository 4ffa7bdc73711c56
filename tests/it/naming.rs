//! Offending rows of several gates, named by one pass over their table.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postern::pg::Database;
use rstest::rstest;
use serde_json::Value;

use crate::project::{Project, Said};
use crate::support;

async fn filled(text: &'static str) -> Database {
    let database = support::database().await;
    run(&database, text).await;
    database
}

async fn run(database: &Database, text: &'static str) {
    let mut session = database.connect().await.unwrap();
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
}

fn check(project: &Project, database: &Database, more: &[&str]) -> Said {
    let url = database.address().to_secret_url();
    let check = ["check", "--url", &url, "--format", "json"];
    project.run(&[&check, more].concat())
}

/// A gate by its id, with its fields.
fn gate(id: &str, fields: &str) -> String {
    let fields = fields.replace("; ", "\n");
    format!("[[gate]]\nid='{id}'\ntable='s.t'\n{fields}\n")
}

fn project(gates: &[(&str, &str)]) -> Project {
    let gates: String = gates.iter().map(|(id, fields)| gate(id, fields)).collect();
    Project::new(&[("gates/g.toml", &gates)])
}

/// What a report says of a gate's rows.
fn rows<'a>(report: &'a Value, id: &str) -> [&'a Value; 3] {
    let mut gates = report["gates"].as_array().unwrap().iter();
    let gate = gates.find(|gate| gate["id"] == id).unwrap();
    [&gate["rows"], &gate["rows_left_out"], &gate["sql"]]
}

/// Holds what a check of all gates names against what checks of each alone name.
#[track_caller]
fn assert_named_as_alone(project: &Project, database: &Database, more: &[&str]) -> Value {
    let all = check(project, database, more).json();
    for gate in all["gates"].as_array().unwrap() {
        let id = gate["id"].as_str().unwrap();
        let alone = check(project, database, &[more, &["--select", id]].concat()).json();
        assert_eq!(rows(&all, id), rows(&alone, id), "{id}");
        assert_ne!(gate["rows"], Value::Array(Vec::new()), "{id}");
    }
    all
}

/// Waits until so many scans of the table have been told by the sessions that did them, the one of a new index
/// included.
async fn assert_scanned(database: &Database, times: i64) {
    let mut session = database.connect().await.unwrap();
    let begun = Instant::now();
    loop {
        let query = "select seq_scan, (select count(*) from pg_stat_activity \
             where datname = current_database() and application_name = 'postern' and pid <> pg_backend_pid()) \
             from pg_stat_user_tables where schemaname = 's' and relname = 't'";
        let (scans, sessions): (i64, i64) =
            sqlx::query_as(query).fetch_one(&mut session).await.unwrap();
        if (scans, sessions) == (times, 0) {
            return;
        }
        let is_late = begun.elapsed() > Duration::from_secs(60);
        assert!(!is_late, "{scans} scans, not {times}; {sessions} sessions");
    }
}

/// No key: a row is named by where it lies, and no index gives that order.
const LOOSE: &str = "create schema s; create table s.t (n int, m int, note text); \
    insert into s.t select g % 20, g % 30, 'note ' || g % 25 from generate_series(1, 100) g";

const FOUR: &[(&str, &str)] = &[
    ("n", "kind='range'; column='n'; min=1"),
    ("m", "kind='range'; column='m'; max=28; show=['note']"),
    (
        "note",
        "kind='pattern'; column='note'; like='note _'; where='n <> 7'",
    ),
    (
        "both",
        "kind='relation'; left='n'; op='<'; right='m + 9'; examples=2",
    ),
];

#[rstest]
// One scan that counts, and one that names.
#[case::four(&FOUR[..2], &[], 2)]
#[case::nothing_is_named(&FOUR[..3], &["--examples", "0"], 1)]
// What has its own time has its own statements.
#[case::a_limit(
    &[FOUR[0], ("own", "kind='range'; column='m'; max=28; statement_timeout='60s'"), FOUR[1]],
    &[],
    4
)]
#[tokio::test]
async fn rows_of_several_gates_are_named_in_one_scan(
    #[case] gates: &[(&str, &str)],
    #[case] more: &[&str],
    #[case] scans: i64,
) {
    let database = filled(LOOSE).await;
    let said = check(&project(gates), &database, more);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert_scanned(&database, scans).await;
}

#[rstest]
#[case::by_place(LOOSE)]
#[case::by_key(
    "create schema s; create table s.t (n int, m int, note text, a text, b numeric, primary key (b, a)); \
     insert into s.t select g % 20, g % 30, 'note ' || g % 25, chr(200 - g % 7), 1000.0 / g from generate_series(1, 100) g"
)]
#[case::by_partition(
    "create schema s; create table s.t (n int, m int, note text) partition by hash (m); \
     create table s.t_b partition of s.t for values with (modulus 2, remainder 0); \
     create table s.t_a partition of s.t for values with (modulus 2, remainder 1); \
     insert into s.t select g % 20, g % 30, 'note ' || g % 25 from generate_series(1, 100) g"
)]
#[tokio::test]
async fn the_same_rows_are_named_in_the_same_order(#[case] tables: &'static str) {
    let database = filled(tables).await;
    let project = project(FOUR);
    assert_named_as_alone(&project, &database, &[]);
    assert_named_as_alone(&project, &database, &["--values", "--examples", "3"]);
}

/// Too many to take them all; one gate's lie behind the blocks that are read.
const MANY: &str = "create schema s; create table s.t (n int, m int, note text); \
    insert into s.t select g, g % 2, 'x' from generate_series(1, 40000) g; analyze s.t";

#[tokio::test]
async fn many_rows_are_named_from_the_first_blocks_and_those_behind_them_in_a_scan() {
    let database = filled(MANY).await;
    let dense = [
        ("even", "kind='range'; column='m'; min=1"),
        ("any", "kind='accepted_values'; column='note'; values=['y']"),
    ];
    let late = ("late", "kind='range'; column='n'; max=28000");
    assert_eq!(
        check(&project(&dense), &database, &[]).told(),
        ["even failed", "any failed"]
    );
    // The one that counts.
    assert_scanned(&database, 1).await;
    run(&database, "select pg_stat_reset()").await;
    let with_late = project(&[dense[0], late]);
    check(&with_late, &database, &[]);
    assert_scanned(&database, 2).await;
    assert_named_as_alone(&with_late, &database, &[]);
    assert_named_as_alone(&project(&dense), &database, &["--values"]);
}

/// Functions that mind by which statement they are called.
const MINDFUL: &str = "create schema s; create table s.t (id int primary key, n int, m int); \
    insert into s.t select g, g % 9, g % 8 from generate_series(1, 50) g; \
    create function s.not_together() returns boolean language plpgsql as $$ begin \
      if current_query() like '%materialized%' then raise exception 'not together'; end if; return true; end $$; \
    create function s.not_named() returns boolean language plpgsql as $$ begin \
      if current_query() like '%limit%' then raise exception 'not named'; end if; return true; end $$; \
    create function s.ends() returns boolean language plpgsql as $$ begin \
      if current_query() like '%limit%' then perform pg_terminate_backend(pg_backend_pid()); end if; return true; end $$";

const GUARDED: &[(&str, &str)] = &[
    ("n", "kind='range'; column='n'; min=1"),
    ("m", "kind='range'; column='m'; min=1"),
    (
        "alone",
        "kind='range'; column='m'; max=6; where='s.not_together()'",
    ),
];

#[tokio::test]
async fn a_pass_that_fails_costs_no_gate_its_rows_but_the_guilty_one() {
    let database = filled(MINDFUL).await;
    // Nobody is guilty who can be named alone.
    assert_named_as_alone(&project(GUARDED), &database, &["--examples", "50"]);
    let unnamed = (
        "unnamed",
        "kind='range'; column='n'; max=7; where='s.not_named()'",
    );
    let said = check(&project(&[GUARDED, &[unnamed]].concat()), &database, &[]);
    let expected = [
        "n failed",
        "m failed",
        "alone failed",
        "unnamed errored P0001",
    ];
    assert_eq!(said.told(), expected, "{}", said.all());
    let report = said.json();
    let message = report["gates"][3]["message"].as_str().unwrap();
    assert_eq!(
        message, "offending rows could not be listed: not named",
        "{report:#}"
    );
    let [named, ..] = rows(&report, "n");
    assert_eq!(named.as_array().unwrap().len(), 5);
}

#[rstest]
#[case("1")]
#[case("3")]
#[tokio::test]
async fn a_gate_that_ends_the_connection_of_a_pass_ends_only_its_own(#[case] connections: &str) {
    let database = filled(MINDFUL).await;
    let ends = ("ends", "kind='range'; column='n'; max=7; where='s.ends()'");
    let project = project(&[&GUARDED[..2], &[ends]].concat());
    let said = check(&project, &database, &["--connections", connections]);
    let expected = ["n failed", "m failed", "ends errored 57P01"];
    assert_eq!(said.told(), expected, "{}", said.all());
    let [named, ..] = rows(&said.json(), "m").map(Clone::clone);
    assert_eq!(named.as_array().unwrap().len(), 6);
    // Once for all of the pass, and once for the one that did it.
    let anew = said.stderr.matches("all gates were evaluated anew").count();
    assert_eq!(anew, 2, "{}", said.stderr);
}

#[tokio::test]
async fn what_is_masked_alone_is_masked_together() {
    let database = filled(
        "create schema s; create table s.t (mail text primary key, n int, m int, note text); \
         insert into s.t select 'S3CR3T' || g, g % 9, g % 6, 'S3CR3T' || g from generate_series(1, 50) g; \
         comment on column s.t.mail is 'postern:mask'; comment on column s.t.note is 'postern:mask'",
    )
    .await;
    let shown = "kind='range'; min=1; show=['n', 'note', 'm']";
    let project = project(&[
        ("n", &format!("{shown}; column='n'")),
        ("m", &format!("{shown}; column='m'; examples=4")),
    ]);
    let said = check(&project, &database, &["--values"]);
    assert!(!said.stdout.contains("S3CR3T"), "{}", said.stdout);
    assert_scanned(&database, 3).await;
    let together = said.json();
    for id in ["n", "m"] {
        let alone = check(&project, &database, &["--values", "--select", id]).json();
        let values = |report: &Value| -> Vec<Value> {
            let [named, ..] = rows(report, id);
            let named = named.as_array().unwrap().iter();
            named.map(|row| row["values"].clone()).collect()
        };
        assert_eq!(values(&together), values(&alone), "{id}");
        assert_eq!(values(&together)[0][1][1], "[masked]");
        assert_eq!(rows(&together, id)[1..], rows(&alone, id)[1..], "{id}");
    }
    // A row that offends both has one stand-in.
    let stand_ins = |id: &str| -> BTreeSet<String> {
        let [named, ..] = rows(&together, id);
        let named = named.as_array().unwrap().iter();
        let key = |row: &Value| row["key"][0][1].as_str().unwrap().to_owned();
        named.map(key).collect()
    };
    let [n, m] = ["n", "m"].map(stand_ins);
    assert_eq!((n.len(), m.len(), n.intersection(&m).count()), (5, 4, 1));
    assert!(n.iter().all(|text| text.starts_with("[masked ")), "{n:?}");
}

#[tokio::test]
async fn large_rows_are_left_out_of_a_pass_as_they_are_alone() {
    let database = filled(
        "create schema s; create table s.t (id int primary key, n int, m int, note text); \
         insert into s.t select g, 0, 0, repeat('ü', 300) from generate_series(1, 300) g",
    )
    .await;
    let shown = "kind='range'; min=1; examples=300; show=['note']";
    let project = project(&[
        ("n", &format!("{shown}; column='n'")),
        ("m", &format!("{shown}; column='m'; where='id > 100'")),
    ]);
    let report = assert_named_as_alone(&project, &database, &["--values"]);
    let [_, left_out, _] = rows(&report, "m");
    assert!(
        (20..190).contains(&left_out.as_u64().unwrap()),
        "{left_out}"
    );
}
