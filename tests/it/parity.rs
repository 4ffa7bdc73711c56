//! Parity of rows, for every sort of key, type and relation, while somebody writes, and across two
//! databases that are not read at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postern::gate::catalog::Side;
use postern::gate::{Gate, LoadOptions};
use postern::pg::{Database, Limits};
use postern::report::{FailOn, GateReport, Report};
use postern::run::{Options, State};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::project::Project;
use crate::support;

async fn run(session: &mut PgConnection, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    if let Err(error) = sqlx::raw_sql(text).execute(session).await {
        panic!("{error}");
    }
}

async fn filled(text: &str) -> (Database, PgConnection) {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    run(&mut session, text).await;
    (database, session)
}

fn gates(text: &str) -> Vec<Gate> {
    let project = Project::new(&[("gates/g.toml", text)]);
    let paths = [project.path().join("gates")];
    let loaded = postern::gate::load(&paths, &LoadOptions::default());
    loaded.unwrap_or_else(|errors| panic!("{errors:?}")).gates
}

async fn check(gates: &[Gate], sides: &[&Database]) -> Vec<GateReport> {
    let limits = Limits {
        lock: Duration::from_secs(120),
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::default()
    };
    let names = [Side::Main, Side::Other("other".to_owned())];
    let addresses = sides.iter().map(|database| database.address().clone());
    let targets: BTreeMap<Side, _> = names.into_iter().zip(addresses).collect();
    let findings = postern::run::check(gates, &targets, &options).await;
    Report::new(gates, findings, sides[0].address(), FailOn::Block).gates
}

fn findings(gate: &GateReport) -> Vec<&str> {
    let all = gate.findings.iter();
    all.map(|finding| finding.what.as_str()).collect()
}

/// A key's name in messages, its type, and its value for a number.
const KEYS: &[(&str, &str, &str)] = &[
    ("small", "smallint", "g"),
    ("whole", "integer", "g - 20"),
    ("big", "bigint", "g::bigint * 1000000007"),
    (
        "ends",
        "bigint",
        "case g % 2 when 0 then 9223372036854775807 - g else -9223372036854775808 + g end",
    ),
    ("numeric", "numeric", "g + 0.10"),
    ("uuid", "uuid", "md5(g::text)::uuid"),
    ("text", "text", "'k''' || g || '\\'"),
    ("c_text", "text collate \"C\"", "'Ä' || g"),
    ("icu", "text collate \"de-x-icu\"", "'Ä' || g"),
    (
        "folded",
        "text collate s.folded",
        "case g % 2 when 0 then 'K' else 'k' end || g / 2",
    ),
    ("short", "varchar(6)", "'k' || g"),
    ("padded", "char(6)", "'k' || g"),
    ("day", "date", "date '2025-01-01' + g"),
    (
        "moment",
        "timestamptz",
        "timestamptz '2025-01-01 12:00Z' + g * interval '1 hour'",
    ),
    ("bytes", "bytea", "decode(lpad(to_hex(g), 4, '0'), 'hex')"),
    ("float", "float8", "g / 3.0"),
    ("inet", "inet", "inet '10.0.0.0' + g"),
    ("span", "interval", "g * interval '36 hours'"),
    ("doc", "jsonb", "jsonb_build_object('g', g)"),
    ("json", "json", "json_build_object('g', g)"),
    ("point", "point", "point(g, 1)"),
    ("list", "int[]", "array[g, 1]"),
    ("domain", "s.name", "'k' || g"),
    ("Odd \"key\"", "integer", "g"),
];

/// Two tables of 40 rows: one has no 7, the other no 41, and 3 and 30 were changed.
fn pair(name: &str, own: &str, other: &str, key: &str, index: &str) -> String {
    let column = name.replace('"', "\"\"");
    let table = |table: &str, type_name: &str, but: &str, value: &str| {
        format!(
            "create table s.\"{column}{table}\" (v text, w int, \"{column}\" {type_name});\
             insert into s.\"{column}{table}\" select case when g in (3, 30) then '{value}' end, g, {key} \
             from generate_series(1, 41) g where g <> {but}; {index} ",
        )
        .replace("$table", &format!("s.\"{column}{table}\""))
        .replace("$key", &format!("\"{column}\""))
    };
    table("", own, "7", "a") + &table("_2", other, "41", "b")
}

fn gate_of(name: &str, more: &str) -> String {
    format!(
        "[[gate]]\nid='{}'\nkind='content_parity'\ntable='s.\"{}\"'\nagainst='s.\"{}_2\"'\nkey=['{name}']\n{more}\n",
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        name.replace('"', "\"\""),
        name.replace('"', "\"\""),
    )
}

const NAMES: &str = "create schema s; create domain s.name as text; \
    create collation s.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// Every gate names the same four rows, whatever their key is.
async fn assert_named(
    session: &mut PgConnection,
    report: &[GateReport],
    keys: &[(&str, &str, &str)],
) {
    assert_eq!(report.len(), keys.len());
    for (gate, (name, type_name, key)) in report.iter().zip(keys) {
        let text = format!(
            "select (({key})::{type_name})::text from unnest(array[3, 30, 7, 41]) with ordinality as u (g, n) order by n"
        );
        let values: Vec<String> = sqlx::query_scalar(AssertSqlSafe(text))
            .fetch_all(&mut *session)
            .await
            .unwrap();
        let [a, b, missing, extra] = values.as_slice() else {
            panic!("four were asked for")
        };
        let mut expected = [
            format!("changed {name}={a}: v"),
            format!("changed {name}={b}: v"),
            format!("missing {name}={missing}"),
            format!("extra {name}={extra}"),
        ];
        expected.sort();
        let mut found = findings(gate);
        found.sort_unstable();
        assert_eq!(found, expected, "{name}: {}", gate.message);
        assert_eq!(gate.rows_offending, Some(4), "{name}");
    }
}

#[tokio::test]
async fn rows_are_named_by_every_sort_of_key_with_an_index_and_without() {
    let gates = gates(
        &KEYS
            .iter()
            .map(|(name, ..)| gate_of(name, ""))
            .collect::<String>(),
    );
    for index in ["", "create index on $table ($key);"] {
        let tables = KEYS.iter().map(|(name, type_name, key)| {
            let is_sorted = !["json", "point"].contains(type_name);
            pair(
                name,
                type_name,
                type_name,
                key,
                if is_sorted { index } else { "" },
            )
        });
        let text = NAMES.to_owned() + &tables.collect::<String>();
        let (database, mut session) = filled(&text).await;
        let report = check(&gates, &[&database]).await;
        assert_named(&mut session, &report, KEYS).await;
    }
}

#[tokio::test]
async fn of_many_rows_those_are_named_that_come_first_by_number_and_then_by_text() {
    let (database, _session) = filled(
        "create schema s; create table s.a (k text, v int); create table s.b (k text, v int);
        insert into s.b select n::text, n from generate_series(1, 43) n;
        insert into s.b values ('-2'), ('+3'), ('007'), (''), ('é'), ('abc'), ('Zed'), ('a b'), (repeat('1', 39))",
    )
    .await;
    let gate = "[[gate]]\nid='g'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\nkey=['k']\n";
    let found = check(&gates(gate), &[&database]).await;
    let found = findings(&found[0]);
    let named = |keys: &[&str]| -> Vec<String> {
        let named = keys.iter().map(|key| format!("missing k={key}"));
        named.collect()
    };
    assert_eq!(found.len(), 51, "{found:?}");
    let numbers = ["-2", "1", "2", "+3", "3", "4", "5", "6", "007", "7", "8"];
    assert_eq!(found[..11], named(&numbers), "{found:?}");
    let texts = ["43", "", &"1".repeat(39), "Zed", "a b"];
    assert_eq!(found[45..50], named(&texts), "{found:?}");
    assert_eq!(found[50], "2 keys more");
}

#[tokio::test]
async fn types_that_differ_are_compared_by_their_text() {
    let keys = [
        ("whole", "integer", "g"),
        ("text", "text", "g"),
        ("uuid", "uuid", "md5(g::text)::uuid"),
    ];
    let others = ["bigint", "varchar(9)", "text"];
    let tables = keys.iter().zip(others).map(|((name, own, key), other)| {
        pair(name, own, other, key, "create index on $table ($key);")
    });
    let text = NAMES.to_owned() + &tables.collect::<String>();
    let (database, mut session) = filled(&text).await;
    let gates = gates(&keys.map(|(name, ..)| gate_of(name, "")).concat());
    let report = check(&gates, &[&database]).await;
    assert_named(&mut session, &report, &keys).await;
}

#[tokio::test]
async fn what_a_collation_takes_for_equal_is_not() {
    let (database, _session) = filled(&format!(
        "{NAMES} create domain s.free as text collate s.folded;\
         create table s.a (k text collate s.folded primary key, v text collate s.folded, d s.free);\
         create table s.b (like s.a including all);\
         insert into s.a values ('a', 'x', 'x'), ('b', 'x', 'x'), ('c', 'x', 'x');\
         insert into s.b values ('A', 'x', 'x'), ('b', 'X', 'x'), ('c', 'x', 'X');"
    ))
    .await;
    let gates = gates("[[gate]]\nid='same'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\n");
    let report = check(&gates, &[&database]).await;
    let expected = [
        "missing k=A",
        "extra k=a",
        "changed k=b: v",
        "changed k=c: d",
    ];
    assert_eq!(findings(&report[0]), expected);
}

#[tokio::test]
async fn keys_that_are_null_there_twice_or_composite_are_named() {
    let (database, _session) = filled(
        "create schema s; create table s.a (day date, id int, n int); create table s.b (like s.a);\
         create index on s.a (id); create index on s.b (id);\
         insert into s.a values ('2025-04-01', 1, 1), ('2025-04-01', 2, 1), (null, 3, 1), (null, null, 1), ('2025-04-02', null, 5);\
         insert into s.b values ('2025-04-01', 1, 1), ('2025-04-01', 2, 2), (null, 3, 2), (null, null, 2), ('2025-04-02', null, 5);\
         insert into s.a select '2025-05-01', 10, 7 from generate_series(1, 3);\
         insert into s.b select '2025-05-01', 10, 7 + g / 2 from generate_series(1, 5) g;",
    )
    .await;
    let gate = |id: &str, key: &str| {
        format!(
            "[[gate]]\nid='{id}'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\nkey={key}\n"
        )
    };
    let gates = gates(&(gate("single", "['id']") + &gate("composite", "['day', 'id']")));
    let report = check(&gates, &[&database]).await;
    let single = [
        "changed id=2: n",
        "changed id=3: n",
        "missing id=10, 2 times",
        "changed id=10, 2 times",
        "changed id=null",
    ];
    assert_eq!(findings(&report[0]), single);
    let composite = [
        "changed day=2025-04-01 id=2: n",
        "missing day=2025-05-01 id=10, 2 times",
        "changed day=2025-05-01 id=10, 2 times",
        "changed day=null id=3: n",
        "changed day=null id=null: n",
    ];
    let mut found = findings(&report[1]);
    found.sort_by_key(|what| what.split_once("day=").map(|(_, key)| key.to_owned()));
    let mut composite = composite.to_vec();
    composite.sort_by_key(|what| what.split_once("day=").map(|(_, key)| key.to_owned()));
    assert_eq!(found, composite);
}

#[tokio::test]
async fn of_two_hundred_columns_those_that_differ_are_named() {
    let columns: Vec<String> = (1..=199)
        .map(|n| match n % 4 {
            0 => format!("c{n} int"),
            1 => format!("c{n} text"),
            2 => format!("c{n} numeric"),
            _ => format!("c{n} timestamptz"),
        })
        .collect();
    let values: Vec<String> = (1..=199)
        .map(|n| match n % 4 {
            3 => format!("timestamptz '2025-01-01Z' + g * {n} * interval '1 second'"),
            1 => format!("'v' || g * {n}"),
            _ => format!("g * {n}"),
        })
        .collect();
    let (database, _session) = filled(&format!(
        "create schema s; create table s.wide (id int primary key, {}); \
         insert into s.wide select g, {} from generate_series(1, 300) g; \
         create table s.copy as table s.wide; \
         update s.copy set c1 = 'other', c100 = null, c199 = c199 + interval '1 microsecond' where id = 137; \
         update s.copy set c198 = 0 where id = 138",
        columns.join(", "),
        values.join(", ")
    ))
    .await;
    let gates =
        gates("[[gate]]\nid='wide'\nkind='content_parity'\ntable='s.wide'\nagainst='s.copy'\n");
    let report = check(&gates, &[&database]).await;
    assert_eq!(
        findings(&report[0]),
        ["changed id=137: c1, c100, c199", "changed id=138: c198"]
    );
}

#[tokio::test]
async fn settings_of_a_database_change_no_value() {
    let table = "create schema s; create type s.mood as enum ('bad', 'good'); create domain s.bytes as bytea; \
        create domain s.at as timestamptz; \
        create table s.t (id int primary key, doc json, x xml, p point, list timestamptz[], mood s.mood, n numeric, at timestamptz, \
          f float8, b bytea, raw s.bytes, later s.at, d date, span interval, cash money, more s.bytes[]); \
        insert into s.t select g, '{\"a\": 1}', '<a/>', point(g, 0.1), array[timestamptz '2025-07-01 12:00Z'], 'good', 1.0, '2025-07-01 12:00Z', \
          0.1::float8 + 0.2, '\\x00ff', '\\x00ff', '2025-07-01 12:00Z', '2025-07-01', '1 day 02:00', 12.5, array['\\x01'::bytea] \
        from generate_series(1, 9) g;";
    let (ours, _session) = filled(table).await;
    let (theirs, mut there) = filled(table).await;
    let name = theirs.name();
    let settings = [
        "timezone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -5",
    ];
    for setting in settings {
        run(
            &mut there,
            &format!("alter database \"{name}\" set {setting}"),
        )
        .await;
    }
    run(&mut there, "update s.t set n = 1.00").await;
    let gates = gates(
        "[[gate]]\nid='same'\nkind='content_parity'\ntable='s.t'\nagainst='s.t'\nagainst_target='other'\n",
    );
    let report = check(&gates, &[&ours, &theirs]).await;
    assert_eq!(
        report[0].message,
        "9 rows equal on both sides",
        "{:?}",
        findings(&report[0])
    );
    let each = "update s.t set doc = '{\"a\":1}' where id = 1; update s.t set x = '<a></a>' where id = 2; \
        update s.t set p = point(0, 0) where id = 3; update s.t set list = list || now() where id = 4; \
        update s.t set mood = 'bad' where id = 5; update s.t set raw = '\\x00' where id = 6; \
        update s.t set f = 0.3, n = 1.001 where id = 7; update s.t set cash = 12.51 where id = 8";
    run(&mut there, each).await;
    let report = check(&gates, &[&ours, &theirs]).await;
    let expected = [
        "changed id=1: doc",
        "changed id=2: x",
        "changed id=3: p",
        "changed id=4: list",
        "changed id=5: mood",
        "changed id=6: raw",
        "changed id=7: n, f",
        "changed id=8: cash",
    ];
    assert_eq!(findings(&report[0]), expected);
}

#[tokio::test]
async fn partitioned_tables_views_and_foreign_tables_are_compared_like_tables() {
    let (database, mut session) = filled(
        "create schema s; create table s.plain (id int primary key, v text); \
         insert into s.plain select g, 'v' || g from generate_series(1, 50) g; \
         create table s.parts (id int primary key, v text) partition by hash (id); \
         create table s.parts_0 partition of s.parts for values with (modulus 2, remainder 0); \
         create table s.parts_1 partition of s.parts for values with (modulus 2, remainder 1); \
         insert into s.parts table s.plain; \
         create view s.seen as select id, v from s.plain; \
         create materialized view s.stored as select * from s.plain",
    )
    .await;
    let options = database.address().options();
    let far = format!(
        "create extension postgres_fdw; \
         create server self foreign data wrapper postgres_fdw options (host '{}', port '{}', dbname '{}'); \
         create user mapping for current_user server self; \
         create foreign table s.far (id int, v text) server self options (schema_name 's', table_name 'plain')",
        options.get_socket().unwrap().display(),
        options.get_port(),
        database.name()
    );
    run(&mut session, &far).await;
    let gate = |table: &str| {
        format!(
            "[[gate]]\nid='{table}'\nkind='content_parity'\ntable='s.parts'\nagainst='s.{table}'\nkey=['id']\n"
        )
    };
    let gates = gates(&["plain", "seen", "stored", "far"].map(gate).concat());
    for gate in check(&gates, &[&database]).await {
        assert_eq!(gate.message, "50 rows equal on both sides", "{}", gate.id);
    }
    run(
        &mut session,
        "delete from s.parts where id = 7; update s.parts set v = null where id = 8",
    )
    .await;
    for gate in check(&gates, &[&database]).await {
        assert_eq!(
            findings(&gate),
            ["missing id=7", "changed id=8: v"],
            "{}",
            gate.id
        );
    }
}

#[tokio::test]
async fn a_key_far_from_all_others_costs_no_name() {
    let (database, _session) = filled(
        "create schema s; create table s.a (id bigint primary key, v int); \
         insert into s.a select g, g from generate_series(1, 120000) g; insert into s.a values (4000000000000000000, 1); \
         create table s.b (like s.a including all); insert into s.b select id, nullif(v, 77777) from s.a where id <> 5",
    )
    .await;
    let gates = gates("[[gate]]\nid='same'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\n");
    let report = check(&gates, &[&database]).await;
    assert_eq!(findings(&report[0]), ["extra id=5", "changed id=77777: v"]);
    assert_eq!(report[0].rows_offending, Some(2));
}

#[tokio::test]
async fn tables_that_are_equal_in_every_committed_state_are_never_told_apart() {
    const RUNS: u32 = 100;
    let (database, mut writer) = filled(
        "create schema s; create table s.a (id int primary key, n int); create table s.b (like s.a including all); \
         insert into s.a select g, g % 3 from generate_series(1, 50) g; insert into s.b select * from s.a",
    )
    .await;
    let gates = gates(
        "[[gate]]\nid='rows'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\n\
         [[gate]]\nid='groups'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\ngroup_by=['n']\n\
         [[gate]]\nid='content'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\n",
    );
    let is_over = AtomicBool::new(false);
    let write = async {
        let mut commits = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let text = "begin; insert into s.a select max(id) + 1, max(id) % 3 from s.a; \
                        insert into s.b select * from s.a order by id desc limit 1; \
                        delete from s.b where id % 7 = 1 and id > 50; update s.a set n = n + 1 where id % 5 = 0; \
                        update s.b set n = n + 1 where id % 5 = 0; delete from s.a where id % 7 = 1 and id > 50; commit";
            run(&mut writer, text).await;
            commits += 1;
        }
        commits
    };
    let read = async {
        for _ in 0..RUNS {
            for gate in check(&gates, &[&database]).await {
                assert_eq!(gate.outcome, State::Passed, "{}: {}", gate.id, gate.message);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (commits, ()) = tokio::join!(write, read);
    assert!(commits > RUNS, "{commits} commits beside {RUNS} runs");
}

const APART: &str = "\
    [[gate]]\nid='rows'\nkind='row_count_parity'\ntable='s.t'\nagainst='s.t'\nagainst_target='other'\n\
    recheck={times=2, wait='10ms'}\n\
    [[gate]]\nid='content'\nkind='content_parity'\ntable='s.t'\nagainst='s.t'\nagainst_target='other'\n\
    recheck={times=2, wait='10ms'}\n";

#[tokio::test]
async fn a_difference_that_stays_fails_and_says_how_often_it_was_re_checked() {
    let table = "create schema s; create table s.t (id int primary key, v int); insert into s.t select g, g from generate_series(1, 9) g;";
    let (ours, _session) = filled(table).await;
    let (theirs, mut there) = filled(table).await;
    let gates = gates(APART);
    for gate in check(&gates, &[&ours, &theirs]).await {
        assert!(!gate.message.contains("re-checked"), "{}", gate.message);
        assert_eq!(gate.outcome, State::Passed);
    }
    run(&mut there, "delete from s.t where id = 4").await;
    let report = check(&gates, &[&ours, &theirs]).await;
    assert_eq!(
        report[0].message,
        "s.t holds 9 rows, s.t 8; re-checked twice"
    );
    assert_eq!(
        report[1].message,
        "1 row differs: 0 missing, 1 extra, 0 changed; re-checked twice"
    );
    let told = "before it was re-checked twice: 1 row differs: 0 missing, 1 extra, 0 changed";
    assert_eq!(findings(&report[1]), ["extra id=4", told]);
    assert!(report.iter().all(|gate| gate.outcome == State::Failed));
    // What cannot be asked again has not been checked.
    drop(there);
}

/// Waits until somebody waits for a lock that `session`'s database has.
async fn is_awaited(session: &mut PgConnection) {
    let text = "select count(*) from pg_stat_activity where application_name = 'postern' and wait_event_type = 'Lock' \
                and datname = current_database()";
    loop {
        let waiting: i64 = sqlx::query_scalar(text)
            .fetch_one(&mut *session)
            .await
            .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_row_that_was_equal_once_was_only_late() {
    let table = "create schema s; create table s.t (id int primary key, v int); insert into s.t select g, g from generate_series(1, 9) g;";
    let (ours, _session) = filled(table).await;
    let (theirs, mut there) = filled(table).await;
    let mut watch = theirs.connect().await.unwrap();
    let gates = gates(&APART.replace("'rows'", "'rows'\ntolerance=1"));
    run(
        &mut there,
        "delete from s.t where id = 4; update s.t set v = 0 where id = 5",
    )
    .await;
    run(&mut there, "begin; lock table s.t in access exclusive mode").await;
    // The first snapshots are taken; then arrives what was late, and something new is under way.
    let arrive = async {
        is_awaited(&mut watch).await;
        run(
            &mut there,
            "insert into s.t values (4, 4), (99, 99); update s.t set v = 5 where id = 5; commit",
        )
        .await;
    };
    let sides = [&ours, &theirs];
    let (report, ()) = tokio::join!(check(&gates, &sides), arrive);
    let content = &report[1];
    assert_eq!(
        content.message,
        "9 rows equal on both sides; re-checked once"
    );
    let told = "before it was re-checked once: 2 rows differ: 0 missing, 1 extra, 1 changed";
    assert_eq!(findings(content), [told]);
    assert_eq!(content.outcome, State::Passed);
    // Asked anew, the new row is seen, and stays.
    let report = check(&gates, &sides).await;
    assert_eq!(
        report[1].message,
        "1 row differs: 1 missing, 0 extra, 0 changed; re-checked twice"
    );
}

#[test]
fn one_database_has_nothing_to_re_check() {
    let text = "[[gate]]\nid='a'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\nrecheck={times=0, wait='1s'}\n\
                [[gate]]\nid='b'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\nrecheck={times=1, wait='1s'}\n";
    let project = Project::new(&[("gates/g.toml", text)]);
    let paths = [project.path().join("gates")];
    let errors = postern::gate::load(&paths, &LoadOptions::default()).unwrap_err();
    let said: String = errors.0.iter().map(|error| error.render(false)).collect();
    for expected in [
        "there is nothing to re-check",
        "`times` is from 1 to 1000",
        "goes with `against_target`",
        "g.toml:6:",
        "g.toml:12:",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}

/// What is said of a mapping file.
fn mistakes(mapping: &str) -> String {
    let gate = "[[gate]]\nid='a'\nkind='content_parity'\nmapping='../renames.toml'\n";
    let project = Project::new(&[("gates/g.toml", gate), ("renames.toml", mapping)]);
    let paths = [project.path().join("gates")];
    let errors = postern::gate::load(&paths, &LoadOptions::default()).unwrap_err();
    errors.0.iter().map(|error| error.render(false)).collect()
}

#[rstest::rstest]
#[case("tables = 5", "`tables` is not a table", 1)]
#[case("\n[tabels]\n\"a.b\" = \"c.d\"", "did you mean `tables`?", 2)]
#[case("[tables]\n\n\"a.b\" = [\"c.d\"]", "`a.b` stands against no table", 3)]
#[case("[tables]\n\"a.b\" = \"c.d\"\n\"a.*\" = \"c.d\"", "do not fit", 3)]
#[case(
    "[tables]\n\"a.b\" = \"c.d\"\n\"a.e\" = \"c.d\"",
    "`c.d` stands against two tables",
    3
)]
#[case("[tables]\n\"a.b\" = \"c.d.e\"", "too many parts", 2)]
#[case("[tables]\n\"a.b.*\" = \"c.*\"", "too many parts", 2)]
#[case(
    "exclude = [\"a.*\",\n 'nothing']\n[tables]\n\"a.b\" = \"c.d\"",
    "excludes no table",
    2
)]
#[case("exclude = []", "names no pair of tables", 1)]
#[case("[tables]\n\"a.b\" = ", "not valid TOML", 2)]
fn a_mistake_in_a_mapping_file_is_told_at_its_line(
    #[case] mapping: &str,
    #[case] expected: &str,
    #[case] line: u32,
) {
    let said = mistakes(mapping);
    assert!(said.contains(expected), "{said}");
    assert!(said.contains(&format!("renames.toml:{line}:")), "{said}");
}

#[rstest::rstest]
#[case(
    "kind='content_parity'\nmapping='no.toml'",
    "there is no file `no.toml`"
)]
#[case(
    "kind='content_parity'\ntable='a'",
    "either `table` and `against`, or `mapping`"
)]
#[case(
    "kind='content_parity'\nmapping='../m.toml'\nkey=['id']",
    "`key` goes with one pair of tables, not with `mapping`"
)]
#[case(
    "kind='row_count_parity'\nmapping='../m.toml'\ntable='a'\nagainst='b'",
    "`against` goes with one pair of tables, not with `mapping`"
)]
fn a_mapping_stands_in_place_of_a_pair(#[case] gate: &str, #[case] expected: &str) {
    let gate = format!("[[gate]]\nid='a'\n{gate}\n");
    let mapping = "[tables]\n\"a.b\" = \"c.d\"";
    let project = Project::new(&[("gates/g.toml", &gate), ("m.toml", mapping)]);
    let paths = [project.path().join("gates")];
    let errors = postern::gate::load(&paths, &LoadOptions::default()).unwrap_err();
    let said: String = errors.0.iter().map(|error| error.render(false)).collect();
    assert!(said.contains(expected), "{said}");
}

#[tokio::test]
async fn a_mapping_among_gates_is_no_suite_and_holds_two_databases_together() {
    let ours = "create schema s; create table s.\"Odd \"\"one\" (id int primary key, v int); \
        insert into s.\"Odd \"\"one\" values (1, 1), (2, 2); create table s.same (id uuid primary key); \
        insert into s.same values (gen_random_uuid())";
    let (here, _session) = filled(ours).await;
    let (there, mut session) = filled("create schema t; create table t.\"Odd \"\"one\" (id int primary key, v int); \
        insert into t.\"Odd \"\"one\" values (1, 1), (2, 3); create table t.more (id int primary key)").await;
    let gate = |kind: &str| {
        format!(
            "[[gate]]\nid='{kind}'\nkind='{kind}'\nmapping='all.mapping.toml'\nagainst_target='other'\n\
                 recheck={{times=1, wait='1ms'}}\n"
        )
    };
    let text = gate("row_count_parity") + &gate("content_parity");
    let mapping = "[tables]\n\"s.*\" = \"t.*\"\n";
    let project = Project::new(&[("gates/g.toml", &text), ("gates/all.mapping.toml", mapping)]);
    let load = || postern::gate::load(&[project.path().join("gates")], &LoadOptions::default());
    let gates = load().unwrap_or_else(|errors| panic!("{errors:?}")).gates;
    let report = check(&gates, &[&here, &there]).await;
    assert_eq!(
        findings(&report[0]),
        [
            "s.more is missing, t.more is there",
            "s.same is there, t.same is missing",
            "s.\"Odd \"\"one\" holds 2 rows, t.\"Odd \"\"one\" 2",
            "before it was re-checked once: of 1 pair: s.more is missing, t.more is there; 1 more",
        ]
    );
    assert_eq!(
        findings(&report[1])[2..4],
        [
            "s.\"Odd \"\"one\" holds 2 rows, t.\"Odd \"\"one\" 2: 1 row differs: 0 missing, 0 extra, 1 changed",
            "s.\"Odd \"\"one\": changed id=2: v",
        ]
    );
    assert!(report.iter().all(|gate| gate.outcome == State::Failed));
    run(
        &mut session,
        "update t.\"Odd \"\"one\" set v = id; alter table t.more rename to same; \
        alter table t.same alter id type uuid using gen_random_uuid()",
    )
    .await;
    let report = check(&gates, &[&here, &there]).await;
    assert_eq!(
        report[0].message,
        "of 2 pairs: s.same holds 1 row, t.same 0; re-checked once"
    );
    let expected = "of 2 pairs: s.same holds 1 row, t.same 0: 1 row differs: 0 missing, 1 extra, 0 changed; re-checked once";
    assert_eq!(report[1].message, expected);
}
