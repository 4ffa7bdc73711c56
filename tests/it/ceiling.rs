//! What a gate may read at the most.

use postern::pg::Database;
use rstest::rstest;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};
use crate::support;

/// `big` and its copy `other` have some 3 MB each, a partition of `parts` a third of it.
const TABLES: &str = "
create schema s;
create table s.small (id int primary key);
insert into s.small values (1);
create table s.big (id int primary key, n int not null, filler text);
alter table s.big alter filler set storage plain;
insert into s.big select g, 1, repeat('x', 500) from generate_series(1, 6000) g;
create table s.other as table s.big;
create view s.seen as select b.id, b.n from s.big b join s.other o using (id);
create table s.parts (id int, n int, filler text) partition by range (id);
create table s.parts_a partition of s.parts for values from (0) to (2000);
create table s.parts_b partition of s.parts for values from (2000) to (10000);
insert into s.parts table s.big;
vacuum analyze";

/// Fields of a gate, and what becomes of it below 4 MB.
const CASES: &[(&str, &str)] = &[
    ("kind='range'; table='s.big'; column='n'; min=1", "passed"),
    // Its own is lower, and then higher.
    (
        "kind='range'; table='s.big'; column='n'; min=1; max_scan='1MB'",
        "refused",
    ),
    (
        "kind='range'; table='s.seen'; column='n'; min=1; max_scan='1TB'",
        "refused",
    ),
    // Refused before it could divide by zero, and no burden on whom it would share a scan with.
    (
        "kind='row_count'; table='s.big'; where='1 / (id - 3) < 9'; at_least=1; max_scan='8kB'",
        "refused",
    ),
    (
        "kind='unique'; table='s.big'; columns=['id']; max_scan='1B'",
        "passed",
    ),
    (
        "kind='completeness'; table='s.big'; columns=['n']; max_scan='1B'",
        "passed",
    ),
    // A scan for each of what its steps read.
    (
        "kind='foreign_key'; table='s.big'; columns=['id']; references='s.other(id)'",
        "refused",
    ),
    (
        "kind='foreign_key'; table='s.small'; columns=['id']; references='s.small'",
        "passed",
    ),
    (
        "kind='sql'; query='select id from s.big where n < 1'",
        "passed",
    ),
    (
        "kind='sql'; query='select id from s.seen where n < 1'",
        "refused",
    ),
    // Partitions that are left out are not read.
    (
        "kind='range'; table='s.parts'; column='n'; min=1; max_scan='2MB'",
        "refused",
    ),
    (
        "kind='range'; table='s.parts'; column='n'; min=1; where='id < 1000'; max_scan='2MB'",
        "passed",
    ),
    // Of a sample only the share counts.
    (
        "kind='range'; table='s.big'; column='n'; min=1; at_most='60%'; sample='20%'; max_scan='1MB'",
        "passed",
    ),
    (
        "kind='range'; table='s.big'; column='n'; min=1; at_most='60%'; sample='50%'; max_scan='1MB'",
        "refused",
    ),
    // Each run of a query reads; its plan alone does not.
    (
        "kind='query_budget'; query='select count(*) from s.big'; budget='1h'",
        "refused",
    ),
    (
        "kind='query_budget'; query='select count(*) from s.big'; plan={max_rows=99999}",
        "passed",
    ),
    (
        "kind='schema_layout'; schemas=['s']; forbid_tables=['*_old']",
        "passed",
    ),
];

fn suite() -> String {
    let numbered = CASES.iter().enumerate();
    numbered
        .map(|(index, (fields, _))| {
            format!(
                "[[gate]]\nid='g{index:02}'\n{}\n",
                fields.replace("; ", "\n")
            )
        })
        .collect()
}

/// Outcome by gate, `refused` for what was errored because of its ceiling.
fn outcomes(said: &Said) -> Vec<String> {
    let report = said.json();
    let gates = report["gates"].as_array().unwrap().iter();
    gates
        .map(|gate| {
            let message = gate["message"].as_str().unwrap();
            match message.starts_with("not evaluated: it would read ") {
                true => {
                    assert_eq!(gate["outcome"], "errored", "{gate}");
                    assert!(
                        gate["help"].as_str().unwrap().contains("max_scan"),
                        "{gate}"
                    );
                    "refused".to_owned()
                }
                false => gate["outcome"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

#[tokio::test]
async fn a_gate_that_would_read_more_than_it_may_is_refused_and_not_run() {
    let (database, _session) = filled("select 1").await;
    let url = database.address().to_secret_url();
    let project = Project::new(&[("gates/g.toml", &suite())]);
    let check = ["check", "--format", "json", "--url", &url];
    let run = |more: &[&str]| project.run(&[&check, more].concat());
    let said = run(&["--max-scan", "4MB"]);
    let expected: Vec<_> = CASES.iter().map(|case| case.1).collect();
    assert_eq!(outcomes(&said), expected, "{}", said.all());
    assert_eq!(said.code, Some(3));
    let message = said.json()["gates"][1]["message"].to_string();
    assert!(
        message.contains(", more than the 1 MB allowed"),
        "{message}"
    );
    assert_eq!(
        outcomes(&run(&["--max-scan", "4 mb", "--connections", "1"])),
        expected
    );
    // Without a ceiling for all, each has its own.
    let own = outcomes(&run(&[]));
    assert_eq!(own[2], "passed");
    assert_eq!(own[1], "refused");
    // The file says it for all, a target for itself.
    project.write(
        "postern.toml",
        &format!("max_scan = '1B'\ndefault_target = 'here'\n[target.here]\nurl = '{url}'\nmax_scan = '4MB'\n"),
    );
    let of_target = project.run(&["check", "--format", "json"]);
    assert_eq!(outcomes(&of_target), expected, "{}", of_target.all());
    let of_file = outcomes(&run(&["--select", "g00"]));
    assert_eq!(of_file, ["refused"]);
}

/// A database with tables, further statements run on it, and its address.
async fn filled(more: &str) -> (Database, PgConnection) {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    for text in TABLES.split(";\n").chain(more.split(";\n")) {
        let text = AssertSqlSafe(text.to_owned());
        sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    }
    (database, session)
}

#[rstest]
#[case::of_one_scan_and_a_half("4MB", false)]
#[case::of_two_scans("8MB", true)]
#[tokio::test]
async fn rows_are_named_where_one_more_scan_may_be_read(
    #[case] ceiling: &str,
    #[case] is_named: bool,
) {
    let (database, _session) = filled("select 1").await;
    let gate = format!(
        "[[gate]]\nid='g'\nkind='range'\ntable='s.big'\ncolumn='n'\nmin=2\nmax_scan='{ceiling}'\n"
    );
    let project = Project::new(&[("gates/g.toml", &gate)]);
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--format", "json", "--url", &url]);
    let gate = &said.json()["gates"][0];
    assert_eq!(gate["outcome"], "failed", "{}", said.all());
    assert_eq!(gate["rows_offending"], 6000, "{}", said.all());
    let rows = gate["rows"].as_array().unwrap();
    assert_eq!(rows.is_empty(), !is_named, "{}", said.all());
    let told = gate["findings"].to_string();
    let withheld = "offending rows are not named: it would read ";
    assert_eq!(told.contains(withheld), !is_named, "{told}");
    let allowed = told.contains(" MB more, and 4 MB are allowed in all");
    assert_eq!(allowed, !is_named, "{told}");
    assert!(gate["sql"].as_str().unwrap().contains("order by"), "{gate}");
}

#[rstest]
#[case::of_the_first_pass("8MB", "errored")]
#[case::of_all_passes("1GB", "failed")]
#[tokio::test]
async fn what_an_answer_makes_a_gate_ask_is_added_to_what_it_has_read(
    #[case] ceiling: &str,
    #[case] expected: &str,
) {
    let (database, _session) = filled("update s.other set n = 2 where id = 7").await;
    let gate = format!(
        "[[gate]]\nid='g'\nkind='content_parity'\ntable='s.big'\nagainst='s.other'\nmax_scan='{ceiling}'\n"
    );
    let project = Project::new(&[("gates/g.toml", &gate)]);
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--format", "json", "--url", &url]);
    let gate = &said.json()["gates"][0];
    assert_eq!(gate["outcome"], expected, "{}", said.all());
    let message = gate["message"].as_str().unwrap();
    let is_refused = message.contains("more than the 8 MB allowed");
    assert_eq!(is_refused, expected == "errored", "{message}");
}

#[tokio::test]
async fn a_foreign_table_counts_by_its_last_analyze_and_without_one_is_refused() {
    let (database, mut session) = filled("create extension postgres_fdw").await;
    let options = database.address().options();
    let far = format!(
        "create server self foreign data wrapper postgres_fdw options (host '{}', port '{}', dbname '{}'); \
         create user mapping for current_user server self; \
         create foreign table s.far (id int, n int, filler text) server self options (schema_name 's', table_name 'big'); \
         create foreign table s.other_far (id int, n int, filler text) server self options (schema_name 's', table_name 'other')",
        options.get_socket().unwrap().display(),
        options.get_port(),
        database.name()
    );
    let far = AssertSqlSafe(far);
    sqlx::raw_sql(far).execute(&mut session).await.unwrap();
    let gates = "
        [[gate]]
        id = 'counted_there'
        kind = 'row_count'
        table = 's.far'
        at_least = 1

        [[gate]]
        id = 'read_from_there'
        kind = 'pattern'
        table = 's.far'
        column = 'filler'
        regex = '^(?:x|y)+$'

        [[gate]]
        id = 'joined_there'
        kind = 'sql'
        query = 'select f.id from s.far f join s.other_far o on o.id = f.id where f.n < 1'
    ";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let url = database.address().to_secret_url();
    let run = |more: &[&str]| {
        let said = project.run(&[&["check", "--format", "json", "--url", &url], more].concat());
        let told = outcomes(&said);
        (told, said)
    };
    assert_eq!(run(&[]).0, ["passed"; 3]);
    let (told, said) = run(&["--max-scan", "1TB"]);
    assert_eq!(told, ["refused"; 3], "{}", said.all());
    let message = said.json()["gates"][0]["message"].to_string();
    assert!(
        message.contains("s.far, whose size is not known"),
        "{message}"
    );
    let explained = project.run(&["explain", "--format", "json", "--url", &url]);
    assert!(
        explained.json()["statements"][0]["bytes"].is_null(),
        "{}",
        explained.all()
    );
    let analyze = "analyze s.far; analyze s.other_far";
    sqlx::raw_sql(analyze).execute(&mut session).await.unwrap();
    // What is joined there reads two tables, of which the plan does not tell one by one.
    let (told, said) = run(&["--max-scan", "4MB"]);
    assert_eq!(told, ["passed", "passed", "refused"], "{}", said.all());
    let (told, said) = run(&["--max-scan", "1MB"]);
    assert_eq!(told, ["refused"; 3], "{}", said.all());
    let message = said.json()["gates"][0]["message"].to_string();
    assert!(message.contains("more than the 1 MB allowed"), "{message}");
}

#[tokio::test]
async fn a_ceiling_that_is_no_size_is_a_mistake() {
    let project = Project::new(&[("gates/g.toml", &suite())]);
    let flag = project.run(&["check", "--max-scan", "much"]);
    assert_eq!(flag.code, Some(2));
    assert!(
        flag.stderr.contains("no amount of bytes"),
        "{}",
        flag.stderr
    );
    project.write(
        "gates/g.toml",
        "[[gate]]\nid='g'\nkind='row_count'\ntable='t'\nat_least=1\nmax_scan=10\n",
    );
    let field = project.run(&["lint"]);
    assert_eq!(field.code, Some(2));
    assert!(field.all().contains("g.toml:6:"), "{}", field.all());
}
