//! What must hold for any data: a kind counts exactly what offends, and sharing a scan changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use postern::gate::catalog::Side;
use postern::gate::{Gate, LoadOptions, Proof};
use postern::pg::{Address, Database};
use postern::report::{FailOn, GateReport, Report};
use postern::run::{Options, State};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support;

const TABLES: &str = r#"
create schema s;
create table s.parents (id int primary key);
create table s.copies (id int, n numeric, note text);
create table s.originals (id int primary key, n int, note text);
create table s."Rows" (id int primary key, n int, code text, parent int, l int, r int, note text);
create table s.plain (id int, n int, code text, parent int, l int, r int, note text);
create table s.named (like s.plain, name text primary key);
create table s.parted (like s.plain) partition by hash (id);
create table s.parted_b partition of s.parted for values with (modulus 2, remainder 0);
create table s.parted_a partition of s.parted for values with (modulus 2, remainder 1);
"#;

/// One row of the table; its id is its place in the list.
#[derive(Clone, Debug)]
struct Row {
    n: Option<i32>,
    code: Option<&'static str>,
    parent: Option<i32>,
    l: Option<i32>,
    r: Option<i32>,
    note: Option<&'static str>,
}

fn row() -> impl Strategy<Value = Row> {
    let small = || proptest::option::weighted(0.8, -2..8_i32);
    let code = prop::sample::select(vec!["A", "B", "b", "C", "", "A B", "Ü"]);
    let note = prop::sample::select(vec!["fine", "test", "Contest", "dummy", "Mets 7", "a test"]);
    (
        small(),
        proptest::option::weighted(0.8, code),
        proptest::option::weighted(0.8, 0..6_i32),
        small(),
        small(),
        proptest::option::weighted(0.8, note),
    )
        .prop_map(|(n, code, parent, l, r, note)| Row {
            n,
            code,
            parent,
            l,
            r,
            note,
        })
}

/// Rows, and the parents that are there.
fn data() -> impl Strategy<Value = (Vec<Row>, BTreeSet<i32>)> {
    (
        prop::collection::vec(row(), 0..25),
        prop::collection::btree_set(0..6_i32, 0..5),
    )
}

fn literal(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| format!("'{text}'"))
}

fn number(n: Option<i32>) -> String {
    n.map_or_else(|| "null".to_owned(), |n| n.to_string())
}

async fn fill(database: &Database, rows: &[Row], parents: &BTreeSet<i32>) {
    let mut text = "truncate s.\"Rows\", s.parents;".to_owned();
    for id in parents {
        text.push_str(&format!("insert into s.parents values ({id});"));
    }
    for (id, row) in rows.iter().enumerate() {
        text.push_str(&format!(
            "insert into s.\"Rows\" values ({id}, {}, {}, {}, {}, {}, {});",
            number(row.n),
            literal(row.code),
            number(row.parent),
            number(row.l),
            number(row.r),
            literal(row.note)
        ));
    }
    let mut connection = database.connect().await.unwrap();
    let text = sqlx::AssertSqlSafe(text);
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
}

fn gates(text: &str) -> Vec<Gate> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suite.toml");
    std::fs::write(&path, text).unwrap();
    postern::gate::load(&[path], &LoadOptions::default())
        .unwrap()
        .gates
}

async fn check(gates: &[Gate], address: &Address) -> Vec<GateReport> {
    check_with(gates, address, &Options::default()).await
}

async fn check_with(gates: &[Gate], address: &Address, options: &Options) -> Vec<GateReport> {
    let targets = BTreeMap::from([(Side::Main, address.clone())]);
    let findings = postern::run::check(gates, &targets, options).await;
    Report::new(gates, findings, address, FailOn::Block).gates
}

/// Runs a property over random input, on one database.
fn for_all<S: Strategy>(
    cases: u32,
    input: &S,
    property: impl Fn(&tokio::runtime::Runtime, &Database, S::Value) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(async {
        let database = support::database().await;
        let mut connection = database.connect().await.unwrap();
        sqlx::raw_sql(TABLES)
            .execute(&mut connection)
            .await
            .unwrap();
        database
    });
    let config = Config {
        cases,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(input, |value| property(&runtime, &database, value))
        .unwrap_or_else(|error| panic!("{error}"));
}

const SUITE: &str = r#"
[[gate]]
id = "completeness"
kind = "completeness"
table = "s.Rows"
columns = ["n", "code"]
missing = [""]
[[gate]]
id = "unique"
kind = "unique"
table = "s.Rows"
columns = ["code", "parent"]
[[gate]]
id = "unique_n"
kind = "unique"
table = "s.Rows"
columns = ["n"]
[[gate]]
id = "accepted_values"
kind = "accepted_values"
table = "s.Rows"
column = "code"
values = ["A", "B", "Ü"]
[[gate]]
id = "accepted_from"
kind = "accepted_values"
table = "s.Rows"
column = "n"
from = "s.parents.id"
nulls = "offend"
[[gate]]
id = "range"
kind = "range"
table = "s.Rows"
column = "n"
min = 0
max = 5
max_exclusive = true
[[gate]]
id = "pattern"
kind = "pattern"
table = "s.Rows"
column = "code"
regex = "^[A-Z]$"
nulls = "offend"
[[gate]]
id = "relation"
kind = "relation"
table = "s.Rows"
left = "l + r"
right = "n"
tolerance = 1
[[gate]]
id = "foreign_key"
kind = "foreign_key"
table = "s.Rows"
columns = ["parent"]
references = "s.parents"
[[gate]]
id = "mock_data"
kind = "mock_data"
table = "s.Rows"
columns = ["note"]
[[gate]]
id = "parity"
kind = "row_count_parity"
table = "s.Rows"
against = "s.parents"
[[gate]]
id = "groups"
kind = "row_count_parity"
table = "s.Rows"
against = "s.Rows"
group_by = ["code"]
[[gate]]
id = "sql"
kind = "sql"
query = 'select id from s."Rows" where n > l'
"#;

/// How many rows offend each gate of the suite, by the plain meaning of the words.
fn expected(rows: &[Row], parents: &BTreeSet<i32>) -> BTreeMap<&'static str, u64> {
    let count =
        |offends: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| offends(row)).count() as u64;
    let repeats = |row: &Row| {
        let same = |other: &&Row| other.code == row.code && other.parent == row.parent;
        row.code.is_some() && row.parent.is_some() && rows.iter().filter(same).count() > 1
    };
    BTreeMap::from([
        (
            "completeness",
            count(&|row| row.n.is_none() || row.code.is_none_or(str::is_empty)),
        ),
        ("unique", count(&repeats)),
        (
            "unique_n",
            count(&|row| {
                let same = |other: &&Row| other.n == row.n;
                row.n.is_some() && rows.iter().filter(same).count() > 1
            }),
        ),
        (
            "accepted_values",
            count(&|row| {
                row.code
                    .is_some_and(|code| !["A", "B", "Ü"].contains(&code))
            }),
        ),
        (
            "accepted_from",
            count(&|row| row.n.is_none_or(|n| !parents.contains(&n))),
        ),
        (
            "range",
            count(&|row| row.n.is_some_and(|n| !(0..5).contains(&n))),
        ),
        (
            "pattern",
            count(&|row| row.code.is_none_or(|code| !["A", "B", "C"].contains(&code))),
        ),
        (
            "relation",
            count(&|row| match (row.l, row.r, row.n) {
                (Some(l), Some(r), Some(n)) => (l + r - n).abs() > 1,
                _ => false,
            }),
        ),
        (
            "foreign_key",
            count(&|row| row.parent.is_some_and(|parent| !parents.contains(&parent))),
        ),
        (
            "mock_data",
            count(&|row| matches!(row.note, Some("test" | "dummy"))),
        ),
        ("parity", rows.len().abs_diff(parents.len()) as u64),
        ("groups", 0),
        (
            "sql",
            count(&|row| matches!((row.n, row.l), (Some(n), Some(l)) if n > l)),
        ),
    ])
}

#[test]
fn each_kind_counts_exactly_the_rows_that_offend() {
    let suite = gates(SUITE);
    for_all(16, &data(), |runtime, database, (rows, parents)| {
        let reports = runtime.block_on(async {
            fill(database, &rows, &parents).await;
            check(&suite, database.address()).await
        });
        let expected = expected(&rows, &parents);
        for report in &reports {
            let offending = expected.get(report.id.as_str()).copied();
            prop_assert_eq!(report.rows_offending, offending, "{}", report.id);
            // What offends fails; what passes looked at something and found nothing.
            let state = report.outcome;
            if offending > Some(0) {
                prop_assert_eq!(state, State::Failed, "{}: {}", report.id, report.message);
            } else if state == State::Passed && report.rows_checked.is_some() {
                prop_assert!(report.rows_checked > Some(0), "{}", report.id);
            }
        }
        Ok(())
    });
}

/// Rows by their key, for both sides of a copy.
type Keyed = BTreeMap<i32, (Option<i32>, &'static str)>;

fn side() -> impl Strategy<Value = Keyed> {
    let note = prop::sample::select(vec!["", "null", "a", "it''s"]);
    let row = (proptest::option::weighted(0.8, 0..3_i32), note);
    prop::collection::btree_map(0..30_i32, row, 0..30)
}

#[test]
fn content_parity_counts_exactly_the_rows_that_differ() {
    let suite = gates(
        "[[gate]]\nid = 'same'\nkind = 'content_parity'\ntable = 's.copies'\nagainst = 's.originals'\nkey = ['id']\n",
    );
    for_all(
        12,
        &(side(), side()),
        |runtime, database, (copies, originals)| {
            let report = runtime.block_on(async {
                let mut text = "truncate s.copies, s.originals;".to_owned();
                for (table, rows) in [("copies", &copies), ("originals", &originals)] {
                    for (id, (n, note)) in rows {
                        let n = number(*n);
                        text.push_str(&format!(
                            "insert into s.{table} values ({id}, {n}, '{note}');"
                        ));
                    }
                }
                let mut connection = database.connect().await.unwrap();
                let text = sqlx::AssertSqlSafe(text);
                sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
                check(&suite, database.address()).await.remove(0)
            });
            let missing = originals
                .keys()
                .filter(|id| !copies.contains_key(id))
                .count();
            let extra = copies
                .keys()
                .filter(|id| !originals.contains_key(id))
                .count();
            let is_changed = |id: &&i32| originals.get(id).is_some_and(|row| row != &copies[*id]);
            let changed = copies.keys().filter(is_changed).count();
            let offending = (missing + extra + changed) as u64;
            prop_assert_eq!(report.rows_offending, Some(offending));
            if offending > 0 {
                let counted = format!("{missing} missing, {extra} extra, {changed} changed");
                prop_assert!(report.message.ends_with(&counted), "{}", report.message);
            }
            Ok(())
        },
    );
}

/// One gate of a random suite, without its id.
fn gate() -> impl Strategy<Value = String> {
    let column = || prop::sample::select(vec!["n", "code", "parent", "l", "note"]);
    let number = || prop::sample::select(vec!["n", "l", "r", "parent"]);
    let filter = prop::sample::select(vec![
        "",
        "where = 'n > 2'\n",
        "where = 'code is null -- or not'\n",
        "where = '1 / (n - 3) > 0'\n",
        "where = 'id % 2 = 0 or l = 1'\n",
    ]);
    let bound = prop::sample::select(vec![
        "",
        "at_most = 3\n",
        "at_most = '40%'\nwarn_above = '10%'\n",
    ]);
    let rule = prop_oneof![
        column().prop_map(|c| format!("kind = 'unique'\ncolumns = ['{c}']\n")),
        (column(), column())
            .prop_map(|(a, b)| format!("kind = 'unique'\ncolumns = ['{a}', '{b}']\n")),
        (number(), -2..5_i32)
            .prop_map(|(c, min)| format!("kind = 'range'\ncolumn = '{c}'\nmin = {min}\n")),
        column().prop_map(|c| format!(
            "kind = 'pattern'\ncolumn = '{c}'\nregex = '[a-z1-3]'\nnulls = 'offend'\n"
        )),
        (number(), number()).prop_map(|(a, b)| {
            format!("kind = 'relation'\nleft = '{a}'\nop = '<='\nright = '{b} + 1'\n")
        }),
        column().prop_map(|c| format!(
            "kind = 'accepted_values'\ncolumn = '{c}'\nvalues = [1, 2, 3]\n"
        )),
        number().prop_map(|c| {
            format!("kind = 'foreign_key'\ncolumns = ['{c}']\nreferences = 's.parents(id)'\n")
        }),
        Just("kind = 'mock_data'\nsensitivity = 'high'\n".to_owned()),
    ];
    (rule, filter, bound)
        .prop_map(|(rule, filter, bound)| format!("table = 's.Rows'\n{rule}{filter}{bound}"))
}

/// A suite of random gates.
fn suite(rules: &[String]) -> String {
    let numbered = rules.iter().enumerate();
    let gates: Vec<String> = numbered
        .map(|(index, rule)| format!("[[gate]]\nid = 'g{index}'\n{rule}"))
        .collect();
    gates.join("\n")
}

#[test]
fn many_connections_report_what_one_reports() {
    let input = (data(), prop::collection::vec(gate(), 2..12));
    for_all(12, &input, |runtime, database, ((rows, parents), rules)| {
        let suite = gates(&suite(&rules));
        let (one, many) = runtime.block_on(async {
            fill(database, &rows, &parents).await;
            let on = |connections| Options {
                connections,
                ..Options::default()
            };
            let one = check_with(&suite, database.address(), &on(1)).await;
            let many = check_with(&suite, database.address(), &on(4)).await;
            (one, many)
        });
        prop_assert_eq!(
            serde_json::to_value(one).unwrap(),
            serde_json::to_value(many).unwrap()
        );
        Ok(())
    });
}

#[test]
fn what_the_catalog_proves_a_scan_finds() {
    let rule = prop::sample::select(vec![
        "kind = 'unique'\ncolumns = ['id']\n",
        "kind = 'unique'\ncolumns = ['n', 'id']\n",
        "kind = 'unique'\ncolumns = ['n']\n",
        "kind = 'completeness'\ncolumns = ['id']\nat_least = '50%'\n",
        "kind = 'completeness'\ncolumns = ['id', 'n']\n",
        "kind = 'completeness'\ncolumns = ['id']\nmissing = ['3']\n",
        "kind = 'row_count'\nat_least = 3\n",
    ]);
    let filter = prop::sample::select(vec![
        "",
        "where = 'n > 2'\n",
        "where = 'id % 2 = 1'\n",
        "where = 'false'\n",
    ]);
    let gate =
        (rule, filter).prop_map(|(rule, filter)| format!("table = 's.Rows'\n{rule}{filter}"));
    let input = (data(), prop::collection::vec(gate, 1..8));
    for_all(16, &input, |runtime, database, ((rows, parents), rules)| {
        let suite = gates(&suite(&rules));
        let mut found = Vec::new();
        for proof in [Proof::Scan, Proof::Enforced, Proof::Declared] {
            let options = Options {
                proof,
                ..Options::default()
            };
            let reports = runtime.block_on(async {
                fill(database, &rows, &parents).await;
                check_with(&suite, database.address(), &options).await
            });
            let told = |gate: &GateReport| (gate.outcome, gate.rows_offending);
            found.push(reports.iter().map(told).collect::<Vec<_>>());
        }
        prop_assert_eq!(&found[0], &found[1]);
        prop_assert_eq!(&found[0], &found[2]);
        Ok(())
    });
}

#[test]
fn fused_results_equal_those_of_each_gate_alone() {
    let input = (data(), prop::collection::vec(gate(), 2..9));
    for_all(12, &input, |runtime, database, ((rows, parents), rules)| {
        let suite = gates(&suite(&rules));
        let (fused, alone) = runtime.block_on(async {
            fill(database, &rows, &parents).await;
            let fused = check(&suite, database.address()).await;
            let mut alone = Vec::new();
            for gate in &suite {
                alone.extend(check(std::slice::from_ref(gate), database.address()).await);
            }
            (fused, alone)
        });
        for (index, (fused, alone)) in fused.iter().zip(&alone).enumerate() {
            let (mut fused, mut alone) = (fused.clone(), alone.clone());
            if fused.outcome == State::Errored {
                // Of several statements that fail, the one asked first is shown.
                (fused.sql, alone.sql) = (None, None);
                (fused.sqlstate, alone.sqlstate) = (None, None);
                (fused.message, alone.message) = (String::new(), String::new());
            }
            let fused = serde_json::to_value(fused).unwrap();
            let alone = serde_json::to_value(alone).unwrap();
            prop_assert_eq!(fused, alone, "{}", rules[index]);
        }
        Ok(())
    });
}

/// One gate that names rows of one of several tables with the same columns: by a primary key, by where they lie, by
/// partition.
fn naming() -> impl Strategy<Value = String> {
    let number = || prop::sample::select(vec!["n", "l", "r", "parent"]);
    let text = || prop::sample::select(vec!["code", "note"]);
    let table = prop::sample::select(vec!["Rows", "plain", "named", "parted"]);
    let rule = prop_oneof![
        (number(), -2..5_i32)
            .prop_map(|(c, min)| format!("kind = 'range'\ncolumn = '{c}'\nmin = {min}\n")),
        text().prop_map(|c| format!(
            "kind = 'pattern'\ncolumn = '{c}'\nregex = '[a-z1-3]'\nnulls = 'offend'\n"
        )),
        (number(), text())
            .prop_map(|(a, b)| format!("kind = 'completeness'\ncolumns = ['{a}', '{b}']\n")),
        (number(), number()).prop_map(|(a, b)| {
            format!("kind = 'relation'\nleft = '{a}'\nop = '<='\nright = '{b} + 1'\n")
        }),
        number().prop_map(|c| format!(
            "kind = 'accepted_values'\ncolumn = '{c}'\nfrom = 's.parents.id'\n"
        )),
    ];
    let filter = prop::sample::select(vec![
        "",
        "",
        "where = 'code is null -- or not'\n",
        "where = '1 / (n - 3) > 0'\n",
        "where = 'id % 2 = 0 or l = 1'\n",
    ]);
    let named = prop::sample::select(vec![
        "",
        "key = ['note', 'id']\n",
        "show = ['code', 'n', 'id']\n",
        "statement_timeout = '60s'\n",
    ]);
    (table, rule, filter, named, 1..6_u32).prop_map(|(table, rule, filter, named, examples)| {
        format!("table = 's.{table}'\nexamples = {examples}\n{rule}{filter}{named}")
    })
}

#[test]
fn rows_named_together_are_those_named_one_by_one() {
    const COPIES: &str = "truncate s.plain, s.named, s.parted; \
        insert into s.plain select * from s.\"Rows\" order by note, id desc; \
        insert into s.parted table s.plain; \
        insert into s.named select *, coalesce(code, 'x') || id from s.plain";
    let input = (data(), prop::collection::vec(naming(), 4..20));
    for_all(16, &input, |runtime, database, ((rows, parents), rules)| {
        let suite = gates(&suite(&rules));
        let options = |connections| Options {
            values: true,
            connections,
            ..Options::default()
        };
        let (together, alone) = runtime.block_on(async {
            fill(database, &rows, &parents).await;
            let mut connection = database.connect().await.unwrap();
            sqlx::raw_sql(COPIES)
                .execute(&mut connection)
                .await
                .unwrap();
            let together = check_with(&suite, database.address(), &options(2)).await;
            let mut alone = Vec::new();
            for gate in &suite {
                let gate = std::slice::from_ref(gate);
                alone.extend(check_with(gate, database.address(), &options(1)).await);
            }
            (together, alone)
        });
        for (index, (together, alone)) in together.iter().zip(&alone).enumerate() {
            let told = |gate: &GateReport| {
                let rows = serde_json::to_value(&gate.rows).unwrap();
                (gate.outcome, rows, gate.rows_left_out)
            };
            prop_assert_eq!(told(together), told(alone), "{}", rules[index]);
            if together.outcome != State::Errored {
                prop_assert_eq!(&together.sql, &alone.sql, "{}", rules[index]);
            }
        }
        Ok(())
    });
}
