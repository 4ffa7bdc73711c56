//! Every kind that reads rows, on every sort of relation: the same rows mean the same everywhere.

use std::collections::BTreeMap;

use postern::pg::Database;

use crate::project::Project;
use crate::support;

/// Ten rows in a table, and the same ten through every other sort of relation; none in `s.empty`.
const RELATIONS: &str = r#"
create schema s;
create table s.parents (id int primary key);
insert into s.parents values (1), (2), (3);
create table s.plain (id int primary key, n int, code text, at timestamptz, old timestamptz, parent int, orphan int,
  note text, dummy text, nothing int, no_text text);
insert into s.plain select g, g, case g % 2 when 0 then 'A' else 'B' end, now(), now() - interval '9 days', 1 + g % 3,
    case g when 4 then 99 else 1 end, 'fine', case g when 5 then 'dummy' else 'fine' end
  from generate_series(1, 10) g;
create table s.longer as select * from s.plain union all select 11, 11, 'A', now(), now(), 1, 1, 'fine', 'fine', null, null;
create view s.seen as select * from s.plain;
create materialized view s.kept as select * from s.plain;
create table s.parts (like s.plain) partition by list (code);
create table s.parts_a partition of s.parts for values in ('A');
create table s.parts_rest partition of s.parts default partition by range (id);
create table s.parts_low partition of s.parts_rest for values from (0) to (6);
create table s.parts_high partition of s.parts_rest default;
insert into s.parts select * from s.plain;
create table s.heirs (like s.plain);
create table s.heir () inherits (s.heirs);
insert into s.heirs select * from s.plain where id < 4;
insert into s.heir select * from s.plain where id >= 4;
create unlogged table s."odd "" Ünïcode.select" as select * from s.plain;
create table s.empty (like s.plain);
create view s.none as select * from s.empty;
create extension postgres_fdw;
"#;

/// Fields of a gate on the relation `{}`, its outcome on ten rows and on none.
const GATES: &[(&str, &str, &str)] = &[
    (
        "kind='accepted_values'; {}; column='code'; values=['A', 'B']",
        "passed",
        "skipped",
    ),
    (
        "kind='accepted_values'; {}; column='code'; values=['A']",
        "failed",
        "skipped",
    ),
    (
        "kind='accepted_values'; {}; column='parent'; from='s.parents.id'",
        "passed",
        "skipped",
    ),
    (
        "kind='accepted_values'; {}; column='nothing'; values=[1]",
        "skipped",
        "skipped",
    ),
    (
        "kind='completeness'; {}; columns=['id', 'code']",
        "passed",
        "failed",
    ),
    (
        "kind='completeness'; {}; columns=['nothing']",
        "failed",
        "failed",
    ),
    (
        "kind='content_parity'; {}; against='s.plain'; key=['id']",
        "passed",
        "failed",
    ),
    (
        "kind='content_parity'; {}; against='s.longer'; key=['id']",
        "failed",
        "failed",
    ),
    (
        "kind='foreign_key'; {}; columns=['parent']; references='s.parents(id)'",
        "passed",
        "skipped",
    ),
    (
        "kind='foreign_key'; {}; columns=['orphan']; references='s.parents(id)'",
        "failed",
        "skipped",
    ),
    (
        "kind='foreign_key'; {}; columns=['nothing']; references='s.parents(id)'",
        "skipped",
        "skipped",
    ),
    (
        "kind='foreign_key'; {}; columns=['parent', 'nothing']; references='s.plain(id, n)'; match='full'",
        "failed",
        "skipped",
    ),
    (
        "kind='freshness'; {}; column='at'; max_age='1d'",
        "passed",
        "failed",
    ),
    (
        "kind='freshness'; {}; column='old'; max_age='1d'",
        "failed",
        "failed",
    ),
    (
        "kind='mock_data'; {}; columns=['note']",
        "passed",
        "skipped",
    ),
    (
        "kind='mock_data'; {}; columns=['dummy']",
        "failed",
        "skipped",
    ),
    (
        "kind='mock_data'; {}; columns=['no_text']",
        "passed",
        "skipped",
    ),
    (
        "kind='pattern'; {}; column='code'; regex='^[AB]$'",
        "passed",
        "skipped",
    ),
    (
        "kind='pattern'; {}; column='code'; regex='^A$'",
        "failed",
        "skipped",
    ),
    (
        "kind='pattern'; {}; column='no_text'; regex='^A$'",
        "skipped",
        "skipped",
    ),
    (
        "kind='query_budget'; query='select * from {table} where id = 3'; budget='1h'",
        "passed",
        "failed",
    ),
    (
        "kind='query_budget'; query='select * from {table}'; plan={max_cost=0}",
        "failed",
        "failed",
    ),
    (
        "kind='range'; {}; column='n'; min=1; max=10",
        "passed",
        "skipped",
    ),
    ("kind='range'; {}; column='n'; max=9", "failed", "skipped"),
    (
        "kind='range'; {}; column='nothing'; max=9",
        "skipped",
        "skipped",
    ),
    (
        "kind='range'; {}; column='n'; max=9; where='id < 10'",
        "passed",
        "skipped",
    ),
    (
        "kind='relation'; {}; left='n'; right='id'",
        "passed",
        "skipped",
    ),
    (
        "kind='relation'; {}; left='n'; op='<'; right='id'",
        "failed",
        "skipped",
    ),
    (
        "kind='relation'; {}; left='n'; right='nothing'",
        "skipped",
        "skipped",
    ),
    ("kind='row_count'; {}; equals=10", "passed", "failed"),
    ("kind='row_count'; {}; at_least=11", "failed", "failed"),
    (
        "kind='row_count_parity'; {}; against='s.plain'",
        "passed",
        "failed",
    ),
    (
        "kind='row_count_parity'; {}; against='s.longer'",
        "failed",
        "failed",
    ),
    (
        "kind='row_count_parity'; {}; against='s.plain'; group_by=['code']",
        "passed",
        "failed",
    ),
    (
        "kind='sql'; query='select id from {table} where id < 0'",
        "passed",
        "skipped",
    ),
    (
        "kind='sql'; query='select id from {table} where id = 1'",
        "failed",
        "skipped",
    ),
    ("kind='unique'; {}; columns=['id']", "passed", "skipped"),
    ("kind='unique'; {}; columns=['code']", "failed", "skipped"),
    (
        "kind='unique'; {}; columns=['nothing']",
        "skipped",
        "skipped",
    ),
];

fn suite(table: &str) -> String {
    let named = format!("table='{table}'");
    let quoted: Vec<String> = postern::sql::Relation::parse(table)
        .map(|relation| postern::sql!("{}", relation).as_str().to_owned())
        .into_iter()
        .collect();
    let gates = GATES.iter().enumerate().map(|(index, (fields, ..))| {
        let fields = fields.replace("{table}", &quoted[0]).replace("{}", &named);
        format!(
            "[[gate]]\nid='g{index:02}'\n{}\n",
            fields.replace("; ", "\n")
        )
    });
    gates.collect()
}

/// The database with all relations, a foreign table over a connection to itself among them.
async fn filled() -> Database {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    sqlx::raw_sql(RELATIONS)
        .execute(&mut session)
        .await
        .unwrap();
    let options = database.address().options();
    let text = format!(
        "create server loop foreign data wrapper postgres_fdw options (host '{}', port '{}', dbname '{}'); \
         create user mapping for current_user server loop options (user 'postgres'); \
         create schema f; import foreign schema s limit to (plain, empty) from server loop into f; \
         alter foreign table f.plain rename to far; alter foreign table f.empty rename to far_empty; \
         alter foreign table f.far options (set table_name 'plain'); \
         alter foreign table f.far_empty options (set table_name 'empty')",
        options.get_socket().unwrap().display(),
        options.get_port(),
        database.name()
    );
    let text = sqlx::AssertSqlSafe(text);
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    database
}

#[tokio::test]
async fn the_same_rows_mean_the_same_in_every_sort_of_relation() {
    let database = filled().await;
    let url = database.address().to_secret_url();
    let mut wrong = BTreeMap::new();
    let odd = "s.\"odd \"\" Ünïcode.select\"";
    let relations = [
        ("s.plain", true),
        ("s.seen", true),
        ("s.kept", true),
        ("s.parts", true),
        ("s.heirs", true),
        (odd, true),
        ("f.far", true),
        ("s.empty", false),
        ("s.none", false),
        ("f.far_empty", false),
    ];
    for (table, has_rows) in relations {
        let project = Project::new(&[("gates/g.toml", &suite(table))]);
        for scan in [&[][..], &["--scan"][..]] {
            let check = ["check", "--format", "json", "--url", &url];
            let said = project.run(&[&check, scan].concat());
            let report = said.json();
            for (gate, found) in GATES.iter().zip(report["gates"].as_array().unwrap()) {
                let expected = if has_rows { gate.1 } else { gate.2 };
                if found["outcome"] != expected {
                    let message =
                        format!("{} not {expected}: {}", found["outcome"], found["message"]);
                    wrong.insert((table, gate.0), message);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
