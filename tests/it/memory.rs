//! What `postern check` holds in memory does not grow with the tables that it checks.

use std::io::Read;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use serde_json::Value;

use crate::project::Project;
use crate::support;

/// The most that a run may hold, in kilobytes, its program included, which is larger where it was not
/// optimized; and how much more of it may be for a large table.
const PEAK: u64 = if cfg!(debug_assertions) { 52 } else { 40 } * 1024;
const GROWTH: u64 = 6 * 1024;

const GATES: &str = r#"
[[gate]]
id = "complete"
kind = "completeness"
table = "s.texts"
columns = ["more"]
show = ["body", "kind"]
examples = 1000

[[gate]]
id = "distinct"
kind = "unique"
table = "s.texts"
columns = ["kind"]
examples = 1000

[[gate]]
id = "query"
kind = "sql"
query = "select id, body from s.texts"
key = ["id"]
show = ["body"]
examples = 1000

[[gate]]
id = "hidden"
kind = "pattern"
table = "s.texts"
column = "body"
like = "x"
key = ["body"]
examples = 1000

[[gate]]
id = "time"
kind = "query_budget"
query = "select * from s.texts where id > 2"
budget = "1h"
runs = 1

[[gate]]
id = "groups"
kind = "row_count_parity"
table = "s.texts"
against = "s.none"
group_by = ["body"]
where = "id <= 1000"
"#;

/// The peak of a check of as many rows, as the system has counted it, in kilobytes.
async fn peak(rows: u32) -> u64 {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let seed = format!(
        "create schema s;
        create table s.texts (id int primary key, body text, more text, kind text);
        alter table s.texts alter body set storage external;
        insert into s.texts select n, repeat(md5(n::text), 20), null, 'k' || n / 2 from generate_series(1, {rows}) n;
        update s.texts set body = repeat('long ', 2000000) where id in (1, 2);
        create table s.none (id int, body text);
        comment on column s.texts.more is 'postern:mask'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(seed))
        .execute(&mut connection)
        .await
        .unwrap();
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let (peak, report) = peak_of(&project, &["check", "--url", &url, "--values"]);
    assert!(report.to_string().len() > 128 * 1024);
    peak
}

/// The peak of a check that fails, in kilobytes, and its report.
fn peak_of(project: &Project, arguments: &[&str]) -> (u64, Value) {
    let mut check = project
        .postern(&[arguments, &["--format", "json"]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The report is more than a pipe of one page holds: with its first byte it is made, and the process waits.
    let mut pipe = check.stdout.take().unwrap();
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut report = vec![0];
    pipe.read_exact(&mut report).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", check.id())).unwrap();
    pipe.read_to_end(&mut report).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(1));
    assert!(report.len() > 16 * 1024, "{}", report.len());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    (
        peak.parse().unwrap(),
        serde_json::from_slice(&report).unwrap(),
    )
}

#[tokio::test]
async fn a_large_table_takes_no_more_memory_than_a_small_one() {
    let (small, large) = (peak(2_000).await, peak(200_000).await);
    println!("{small} kB for 2,000 rows, {large} kB for 200,000");
    assert!(large < PEAK, "{large} kB");
    assert!(large < small + GROWTH, "{small} kB, then {large} kB");
}

/// Nearly as many rows as are compared one by one; of ten of `a`, `b` has nine with another value, and one
/// under another key. By an index on a number the rows are found in stretches of keys, by a text by its hash.
const SIDES: &str = "
create schema s;
create table s.a as select 2 * n as id, repeat(md5(n::text), 5) as name, n as v from generate_series(1, 90000) n;
create table s.b as select id + (v % 10 = 0)::int as id, name || repeat('x', (v % 10 = 0)::int) as name, v + 1 as v from s.a;
alter table s.a add primary key (id);
alter table s.b add primary key (id)";

const PARITY: &str = r#"
[[gate]]
id = "stretches"
kind = "content_parity"
table = "s.a"
against = "s.b"

[[gate]]
id = "hashes"
kind = "content_parity"
table = "s.a"
against = "s.b"
key = ["name"]
columns = ["name", "v"]

[[gate]]
id = "mapped"
kind = "content_parity"
mapping = "m.mapping.toml"
"#;

/// Two pairs that differ in every row.
const MAPPING: &str = "[tables]\n\"s.a\" = \"s.b\"\n\"s.b\" = \"s.a\"\n";

#[tokio::test]
async fn a_hundred_thousand_rows_that_differ_are_counted_in_little_memory() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(SIDES).execute(&mut connection).await.unwrap();
    let project = Project::new(&[("gates/g.toml", PARITY), ("gates/m.mapping.toml", MAPPING)]);
    let url = database.address().to_secret_url();
    let (peak, report) = peak_of(&project, &["check", "--url", &url]);
    println!("{peak} kB for 90,000 rows that differ");
    let expected = "99,000 rows differ: 9,000 missing, 9,000 extra, 81,000 changed";
    for gate in [0, 1] {
        assert_eq!(report["gates"][gate]["message"], expected);
        assert_eq!(report["gates"][gate]["rows_offending"], 99_000);
    }
    assert_eq!(report["gates"][2]["rows_offending"], 198_000);
    let named = |gate: usize| {
        let findings = report["gates"][gate]["findings"].as_array().unwrap();
        let named = findings.iter().map(|one| one["what"].as_str().unwrap());
        named.collect::<Vec<_>>()
    };
    // The first by number: of twenty keys, nine pairs that changed, and one that is another.
    let stretches = named(0);
    assert_eq!(stretches.len(), 51);
    assert_eq!(
        stretches[8..12],
        [
            "changed id=18: v",
            "extra id=20",
            "missing id=21",
            "changed id=22: v"
        ]
    );
    assert_eq!(stretches[49..], ["changed id=92: v", "98,950 keys more"]);
    let mut sorted = named(1);
    assert_eq!(sorted.pop(), Some("98,950 keys more"));
    let key = |line: &&str| line.split_once("name=").unwrap().1.to_owned();
    assert!(sorted.is_sorted_by_key(key), "{sorted:?}");
    assert!(key(&sorted[0]).starts_with("0000"), "{sorted:?}");
    assert!(peak < PEAK, "{peak} kB");
}
