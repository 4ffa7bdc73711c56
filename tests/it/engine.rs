//! How gates are measured: on how many connections, and where nothing need be read at all.

use std::sync::atomic::{AtomicBool, Ordering};

use postern::pg::Database;
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};
use crate::support;

async fn filled(text: &'static str) -> Database {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    database
}

fn check(project: &Project, url: &str, more: &[&str]) -> Said {
    let check = ["check", "--url", url, "--format", "json"];
    project.run(&[&check, more].concat())
}

/// The URL of a database for another role.
fn url_of(database: &Database, role: &str) -> String {
    let options = database.address().options();
    let socket = options.get_socket().unwrap().display().to_string();
    let (name, port) = (database.name(), options.get_port());
    format!("postgres://{role}@localhost:{port}/{name}?host={socket}&sslmode=disable")
}

const PARITY: &str = "\
[[gate]]\nid='there'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\n\
[[gate]]\nid='back'\nkind='row_count_parity'\ntable='s.b'\nagainst='s.a'\n\
[[gate]]\nid='same'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\nkey=['id']\n\
[[gate]]\nid='groups'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\ngroup_by=['n']\n\
[[gate]]\nid='missing'\nkind='foreign_key'\ntable='s.a'\ncolumns=['id']\nreferences='s.b(id)'\n\
[[gate]]\nid='extra'\nkind='foreign_key'\ntable='s.b'\ncolumns=['id']\nreferences='s.a(id)'\n";

#[tokio::test]
async fn what_is_equal_in_every_committed_state_is_equal_on_every_connection() {
    let database = filled(
        "create schema s; create table s.a (id int primary key, n int); create table s.b (like s.a including all); \
         insert into s.a select g, g % 3 from generate_series(1, 50) g; insert into s.b select * from s.a",
    )
    .await;
    let project = Project::new(&[("gates/g.toml", PARITY)]);
    let url = database.address().to_secret_url();
    let is_over = AtomicBool::new(false);
    let mut writer: PgConnection = database.connect().await.unwrap();
    let write = async {
        let mut commits = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let text = "begin; insert into s.a select max(id) + 1, max(id) % 3 from s.a; \
                        insert into s.b select * from s.a order by id desc limit 1; \
                        update s.a set n = n + 1 where id % 5 = 0; update s.b set n = n + 1 where id % 5 = 0; commit";
            sqlx::raw_sql(text).execute(&mut writer).await.unwrap();
            commits += 1;
        }
        commits
    };
    let read = async {
        let read = tokio::task::spawn_blocking(move || {
            (0..30)
                .map(|_| check(&project, &url, &["--connections", "4"]))
                .find(|said| said.code != Some(0))
        });
        let read = read.await;
        is_over.store(true, Ordering::Relaxed);
        read.unwrap()
    };
    let (commits, wrong) = tokio::join!(write, read);
    assert!(wrong.is_none_or(|said| panic!("{}", said.all())));
    assert!(commits > 30, "{commits} commits beside 30 runs");
}

#[tokio::test]
async fn a_role_that_may_have_one_connection_is_content_with_it() {
    let database = filled(
        "create schema s; create table s.a as select 1 as id; create table s.b as table s.a; \
         create role it_lonely login connection limit 1; grant usage on schema s to it_lonely; \
         grant select on all tables in schema s to it_lonely",
    )
    .await;
    let project = Project::new(&[("gates/g.toml", PARITY)]);
    let said = check(
        &project,
        &url_of(&database, "it_lonely"),
        &["--connections", "3"],
    );
    let mut session = database.connect().await.unwrap();
    let away = "drop owned by it_lonely; drop role it_lonely";
    sqlx::raw_sql(away).execute(&mut session).await.unwrap();
    assert!(said.stderr.starts_with("note: "), "{}", said.all());
    assert!(
        said.stderr.contains(": 1 of 3 connections could be had: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("too many connections for role"),
        "{}",
        said.stderr
    );
    let expected = ["there passed", "back passed", "same passed"];
    assert_eq!(said.told()[..3], expected, "{}", said.stdout);
}

const CONSTRAINED: &str = "
create schema s;
create table s.t (id int primary key, code int not null, late int unique deferrable, name text unique, free int,
  part int, made int, broken int);
insert into s.t select g, g, g, 'n' || g, g, 1, 1, 1 from generate_series(1, 9) g;
create unique index t_code on s.t (code) include (name);
create unique index t_free on s.t (free);
create unique index on s.t (part) where id > 8;
create unique index on s.t ((made + id));
create table s.none (id int primary key);
create table s.old (id int primary key);
create table s.young () inherits (s.old);
insert into s.old values (1); insert into s.young values (1);
create table s.parts (id int primary key, n int) partition by range (id);
create table s.parts_a partition of s.parts for values from (0) to (100);
insert into s.parts values (1, 1), (2, null);
create table s.refs (good int references s.t, bad int references s.t, late int);
insert into s.refs values (1, 1, 99);
alter table s.refs add foreign key (late) references s.t not valid;
set session_replication_role = replica;
insert into s.refs values (1, 77, 1);
reset session_replication_role";

/// Kind, table and columns of a gate, what becomes of it, and what proves it.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const CASES: &[Case] = &[
    ("unique", "t", "['id']", "passed", Some("t_pkey")),
    ("unique", "t", "['made', 'id']", "passed", Some("t_pkey")),
    ("unique", "t", "['code']", "passed", Some("t_code")),
    ("unique", "t", "['free']", "passed", Some("t_free")),
    (
        "unique",
        "t",
        "['code']\nwhere='id < 3'",
        "passed",
        Some("t_code"),
    ),
    ("unique", "parts", "['id']", "passed", Some("parts_pkey")),
    (
        "completeness",
        "t",
        "['id', 'code']",
        "passed",
        Some("NOT NULL"),
    ),
    (
        "completeness",
        "parts",
        "['id']",
        "passed",
        Some("NOT NULL"),
    ),
    // There is nothing to prove where there is nothing.
    ("unique", "none", "['id']", "skipped", Some("none_pkey")),
    (
        "unique",
        "t",
        "['id']\nwhere='id > 99'",
        "skipped",
        Some("t_pkey"),
    ),
    ("completeness", "none", "['id']", "failed", Some("NOT NULL")),
    // Deferrable; text that a language sorts; partial; an expression; invalid; of the parent alone.
    ("unique", "t", "['late']", "passed", None),
    ("unique", "t", "['name']", "passed", None),
    ("unique", "t", "['part']", "failed", None),
    ("unique", "t", "['made']", "failed", None),
    ("unique", "t", "['broken']", "failed", None),
    ("unique", "old", "['id']", "failed", None),
    ("completeness", "old", "['id']", "passed", None),
    ("completeness", "t", "['id', 'free']", "passed", None),
    ("completeness", "t", "['id']\nmissing=['3']", "failed", None),
    ("completeness", "t", "['id']\nat_least=9", "passed", None),
];

fn suite_of(cases: &[Case]) -> String {
    let gates = cases.iter().enumerate().map(|(index, case)| {
        let (kind, table, columns, ..) = case;
        format!("[[gate]]\nid='g{index:02}'\nkind='{kind}'\ntable='s.{table}'\ncolumns={columns}\n")
    });
    gates.collect()
}

/// Outcome and proof of each gate.
fn proofs(said: &Said) -> Vec<(String, Option<String>)> {
    let report = said.json();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let gates = report["gates"].as_array().unwrap().iter();
    gates
        .map(|gate| (text(&gate["outcome"]).unwrap(), text(&gate["proof"])))
        .collect()
}

#[tokio::test]
async fn what_the_server_enforces_proves_a_gate_and_nothing_else_does() {
    let database = filled(CONSTRAINED).await;
    let mut session = database.connect().await.unwrap();
    // It fails, and leaves an index that is not valid.
    let concurrently = "create unique index concurrently on s.t (broken)";
    sqlx::raw_sql(concurrently)
        .execute(&mut session)
        .await
        .unwrap_err();
    let half = "create role it_half login; grant usage on schema s to it_half; grant select (code) on s.t to it_half";
    sqlx::raw_sql(half).execute(&mut session).await.unwrap();
    let project = Project::new(&[("gates/g.toml", &suite_of(CASES))]);
    let url = database.address().to_secret_url();
    let expected = CASES
        .iter()
        .map(|(.., outcome, proof)| ((*outcome).to_owned(), proof.map(str::to_owned)));
    let expected: Vec<_> = expected.collect();
    assert_eq!(proofs(&check(&project, &url, &[])), expected);
    let scanned: Vec<_> = expected
        .into_iter()
        .map(|(outcome, _)| (outcome, None))
        .collect();
    assert_eq!(proofs(&check(&project, &url, &["--scan"])), scanned);
    // Who may not read a column is told so, whatever proves it.
    let half = check(
        &project,
        &url_of(&database, "it_half"),
        &["--select", "g00"],
    );
    let away = "drop owned by it_half; drop role it_half";
    sqlx::raw_sql(away).execute(&mut session).await.unwrap();
    assert_eq!(half.told(), ["g00 errored 42501"]);
}

#[tokio::test]
async fn a_foreign_key_proves_only_where_its_word_is_taken() {
    let database = filled(CONSTRAINED).await;
    let mut session = database.connect().await.unwrap();
    let off = "alter table s.refs disable trigger all";
    let gate = |column: &str| {
        format!(
            "[[gate]]\nid='{column}'\nkind='foreign_key'\ntable='s.refs'\ncolumns=['{column}']\nreferences='s.t'\n"
        )
    };
    let text = ["good", "bad", "late"].map(gate).concat();
    let project = Project::new(&[("gates/g.toml", &text)]);
    let url = database.address().to_secret_url();
    let counted = [("passed", None), ("failed", None), ("failed", None)];
    let trusted = [
        ("passed", Some("refs_good_fkey")),
        ("passed", Some("refs_bad_fkey")),
        ("failed", None),
    ];
    let owned = |list: [(&str, Option<&str>); 3]| {
        list.map(|(outcome, proof)| (outcome.to_owned(), proof.map(str::to_owned)))
            .to_vec()
    };
    let trust = ["--trust-constraints"];
    assert_eq!(proofs(&check(&project, &url, &[])), owned(counted));
    assert_eq!(proofs(&check(&project, &url, &trust)), owned(trusted));
    sqlx::raw_sql(off).execute(&mut session).await.unwrap();
    assert_eq!(proofs(&check(&project, &url, &trust)), owned(counted));
    let both = check(&project, &url, &["--trust-constraints", "--scan"]);
    assert_eq!(both.code, Some(2), "{}", both.all());
}

const KEYS: &str = "
create schema s; create schema w; create schema e;
create table s.t (id int primary key); insert into s.t select generate_series(1, 9);
create table s.good (t int references s.t); insert into s.good values (1), (2), (null);
create table s.bad (t int references s.t);
create table s.late (t int); insert into s.late values (1), (99);
alter table s.late add foreign key (t) references s.t not valid;
create table s.off (t int references s.t); insert into s.off values (3);
create table w.one (t int references s.t); insert into w.one values (1), (2);
create table w.two (t int references s.t, u int references s.t); insert into w.two values (1, null);
create table e.none (t int references s.t);
set session_replication_role = replica;
insert into s.bad values (1), (77);
reset session_replication_role;
alter table s.off disable trigger all";

/// Of several keys each is proved or looked at on its own, and the report says which.
#[tokio::test]
async fn of_several_foreign_keys_each_is_proved_or_scanned() {
    let database = filled(KEYS).await;
    let gate = |id: &str, schema: &str, more: &str| {
        format!(
            "[[gate]]\nid='{id}'\nkind='foreign_key'\nschemas=['{schema}']\nrequire=[]\n{more}\n"
        )
    };
    let text = [
        gate("all", "s", ""),
        gate("empty", "e", ""),
        gate("share", "s", "at_most='20%'"),
        gate("whole", "w", "warn_above='1%'\nat_most='2%'"),
    ];
    let project = Project::new(&[("gates/g.toml", &text.concat())]);
    let url = database.address().to_secret_url();
    // Outcome, proof, rows looked at and what is said; then what was not scanned.
    let told = |more: &[&str]| {
        let report = check(&project, &url, more).json();
        let gates = report["gates"].as_array().unwrap().iter();
        let lines = gates.flat_map(|gate| {
            let of = |name: &str| gate[name].to_string().replace('"', "");
            let line = ["id", "outcome", "proof", "rows_checked", "message"].map(of);
            let findings = gate["findings"].as_array().unwrap().iter();
            let findings = findings.map(|finding| finding["what"].as_str().unwrap().to_owned());
            let unseen = findings.filter(|what| what.contains("not scanned"));
            let unseen: Vec<String> = unseen.collect();
            std::iter::once(line.join("  ")).chain(unseen)
        });
        lines.collect::<Vec<_>>()
    };
    let scanned = [
        "all  failed  null  7  2 of 7 rows are orphans, in 2 of 4 foreign keys",
        "empty  skipped  null  0  nothing to look at: 0 rows refer to a row that is there, through 1 foreign key",
        "share  failed  null  7  2 of 7 rows are orphans, in 2 of 4 foreign keys",
        "whole  passed  null  3  3 rows refer to a row that is there, through 3 foreign keys",
    ];
    assert_eq!(told(&[]), scanned);
    assert_eq!(told(&["--scan"]), scanned);
    let bad = "s.bad(t) → s.t(id): not scanned, proved by `bad_t_fkey`";
    let good = "s.good(t) → s.t(id): not scanned, proved by `good_t_fkey`";
    let of_all =
        "1 of 3 rows are orphans, in 1 of 2 foreign keys; 2 more proved by their constraints";
    let of_share =
        "1 of 7 rows are orphans, in 1 of 2 foreign keys; 2 more proved by their constraints";
    let of_whole = "all rows refer to a row that is there, through 2 foreign keys, each proved by its constraint";
    let trusting = [
        &format!("all  failed  null  3  {of_all}"),
        bad,
        good,
        "empty  skipped  none_t_fkey  0  nothing to look at: 0 rows refer to a row that is there, through 1 foreign key",
        // The share is of all rows, so that those of the trusted keys are counted.
        &format!("share  passed  null  7  {of_share}"),
        bad,
        good,
        // Nothing refers to anything through `u`, so that nothing is proved of it.
        &format!("whole  passed  one_t_fkey, two_t_fkey, two_u_fkey  null  {of_whole}"),
        "w.one(t) → s.t(id): not scanned, proved by `one_t_fkey`",
        "w.two(t) → s.t(id): not scanned, proved by `two_t_fkey`",
    ];
    assert_eq!(told(&["--trust-constraints"]), trusting);
    // What the catalog proves is not too much to read; what is scanned beside it is.
    let within = ["--trust-constraints", "--max-scan", "1B", "--select"];
    let held = |gate| check(&project, &url, &[&within[..], &[gate]].concat()).told();
    assert_eq!(held("whole"), ["whole passed"]);
    assert_eq!(held("all"), ["all errored"]);
    let verbose = ["check", "--url", &url, "--trust-constraints", "--verbose"];
    let shown = project.run(&verbose).all();
    let line = "found     w.one(t) → s.t(id): not scanned, proved by `one_t_fkey`";
    assert!(shown.contains(line), "{shown}");
}
