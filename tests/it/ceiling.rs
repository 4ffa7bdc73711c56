//! What a gate may read at the most.

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
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    for text in TABLES.split(";\n") {
        sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    }
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
