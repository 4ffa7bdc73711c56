//! What `postern check` holds in memory does not grow with the tables that it checks.

use std::io::Read;
use std::process::Stdio;

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
    let mut check = project
        .postern(&["check", "--url", &url, "--values", "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The report is more than a pipe holds: with its first byte it is made, and the process waits.
    let mut pipe = check.stdout.take().unwrap();
    let mut report = vec![0];
    pipe.read_exact(&mut report).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", check.id())).unwrap();
    pipe.read_to_end(&mut report).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(1));
    assert!(report.len() > 128 * 1024, "{}", report.len());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}

#[tokio::test]
async fn a_large_table_takes_no_more_memory_than_a_small_one() {
    let (small, large) = (peak(2_000).await, peak(200_000).await);
    println!("{small} kB for 2,000 rows, {large} kB for 200,000");
    assert!(large < PEAK, "{large} kB");
    assert!(large < small + GROWTH, "{small} kB, then {large} kB");
}
