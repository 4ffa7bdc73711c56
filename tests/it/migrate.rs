//! Migrations on a real database: applying, proving, shape and contents.

use std::path::Path;

use postern::error::Errors;
use postern::migrate::{
    Change, Contents, Direction, History, LockMode, Options, Pass, Progress, Replay, Replayer,
    Script, Shape, Step,
};
use postern::pg::Database;
use postern::sql::AuthorSql;
use postern::{Error, ErrorKind};
use sqlx::PgConnection;

use crate::support;

fn history(case: &str) -> History {
    discover(case).expect("the fixture is right")
}

fn discover(case: &str) -> Result<History, Errors> {
    History::discover(&Path::new("fixtures/migrations").join(case))
}

async fn prove(case: &str) -> Replay {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    Replayer::new(&mut connection, database.address(), &mut ())
        .prove(&history(case))
        .await
        .expect("the database can be read")
}

async fn fail(case: &str) -> (Error, Database) {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let error = Replayer::new(&mut connection, database.address(), &mut ())
        .apply_all(&history(case))
        .await
        .expect_err("the fixture fails");
    assert_eq!(error.kind(), ErrorKind::Migration);
    // The same connection can go on.
    run(&mut connection, "select 1").await;
    (error, database)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = AuthorSql::new(sql).to_sql();
    let result = sqlx::raw_sql(&sql).execute(connection).await;
    result.unwrap_or_else(|error| panic!("{error}\n{sql}"));
}

async fn number(database: &Database, sql: &str) -> i64 {
    let mut connection = database.connect().await.unwrap();
    let sql = AuthorSql::new(sql).to_sql();
    sqlx::query_scalar(&sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// What a person reads of a proof, without its durations.
fn told(replay: &Replay) -> String {
    let mut lines: Vec<String> = Vec::new();
    for step in &replay.steps {
        let direction: Direction = step.pass.direction();
        let delta: Vec<String> = step
            .rows_delta
            .iter()
            .flatten()
            .map(|(table, by)| format!(" {table} {by:+}"))
            .collect();
        lines.push(format!(
            "{direction:<4} {} ({}){}",
            step.id,
            step.statements,
            delta.concat()
        ));
    }
    lines.extend(
        replay
            .findings
            .iter()
            .map(|finding| format!("finding: {finding}")),
    );
    lines.extend(replay.stopped.iter().map(|error| error.render(false)));
    lines.join("\n")
}

#[tokio::test]
async fn a_right_history_is_proven() {
    let replay = prove("good").await;
    insta::assert_snapshot!(told(&replay));
    assert!(replay.is_proven());
}

#[tokio::test]
async fn a_wrong_down_is_named_and_only_it() {
    let replay = prove("wrong_down").await;
    insta::assert_snapshot!(told(&replay));
    let found: Vec<u64> = replay
        .findings
        .iter()
        .map(|finding| finding.version)
        .collect();
    assert_eq!(found, [2]);
}

#[tokio::test]
async fn a_down_that_loses_values_or_rows_is_named() {
    let replay = prove("lossy_down").await;
    insta::assert_snapshot!(told(&replay));
    assert!(!replay.is_proven());
}

#[tokio::test]
async fn what_was_found_stands_when_the_proof_cannot_go_on() {
    let replay = prove("left_behind").await;
    insta::assert_snapshot!(told(&replay));
    assert!(replay.stopped.is_some() && !replay.is_proven());
}

#[tokio::test]
async fn a_consequence_of_an_earlier_finding_says_so() {
    let replay = prove("consequence").await;
    insta::assert_snapshot!(told(&replay));
    let follows: Vec<Option<&str>> = replay
        .findings
        .iter()
        .map(|f| f.may_follow_from.as_deref())
        .collect();
    assert_eq!(follows, [None, Some("003_prune")]);
}

#[tokio::test]
async fn a_down_that_sets_a_sequence_back_is_named() {
    insta::assert_snapshot!(told(&prove("sequence_back").await));
}

#[tokio::test]
async fn a_failing_statement_has_its_place_and_leaves_nothing() {
    let (error, database) = fail("failing").await;
    assert_eq!(error.sqlstate(), Some("42P01"));
    insta::assert_snapshot!(error.render(false));
    let count = "select count(*) from pg_class where relname in ('sync_log', 'enhanced_games')";
    assert_eq!(number(&database, count).await, 1);
}

#[tokio::test]
async fn without_a_transaction_the_error_says_what_stays() {
    let (error, database) = fail("failing_bare").await;
    insta::assert_snapshot!(error.render(false));
    assert_eq!(number(&database, "select count(*) from kept").await, 1);
}

#[tokio::test]
async fn an_error_inside_a_function_shows_the_call_and_the_context() {
    let (error, _) = fail("failing_function").await;
    insta::assert_snapshot!(error.render(false));
}

#[tokio::test]
async fn a_deferred_constraint_fails_at_the_commit() {
    let (error, database) = fail("failing_commit").await;
    insta::assert_snapshot!(error.render(false));
    let count = "select count(*) from pg_class where relname in ('a', 'b')";
    assert_eq!(number(&database, count).await, 0);
}

#[tokio::test]
async fn a_migration_does_not_inherit_settings_or_temporary_tables() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    Replayer::new(&mut connection, database.address(), &mut ())
        .apply_all(&history("settings"))
        .await
        .unwrap();
    let count = "select count(*) from pg_tables where (schemaname, tablename) in
        (('app', 'here'), ('public', 'there'), ('public', 'scratch'))";
    assert_eq!(number(&database, count).await, 3);
}

#[test]
fn every_mistake_in_a_folder_is_reported() {
    let errors = discover("mistakes").expect_err("the fixture is wrong").0;
    let rendered: Vec<String> = errors.iter().map(|error| error.render(false)).collect();
    insta::assert_snapshot!(rendered.join("\n\n"));
}

#[tokio::test]
async fn a_script_that_is_no_migration_is_named_by_its_file() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let text = "create table a (id integer);\n\ninsert into a valeus (1);";
    let script = Script::parse(Path::new("legacy/001_a.sql"), text).unwrap();
    let error = Replayer::new(&mut connection, database.address(), &mut ())
        .apply_script(&script)
        .await
        .expect_err("it is misspelt");
    insta::assert_snapshot!(error.render(false));
    let count = "select count(*) from pg_class where relname = 'a'";
    assert_eq!(number(&database, count).await, 0);
}

#[tokio::test]
async fn a_connection_can_go_on_after_a_capture_that_failed() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    run(
        &mut connection,
        "create table t (a integer); create role contents_reader",
    )
    .await;
    run(&mut connection, "set role contents_reader").await;
    let error = Contents::capture(&mut connection, database.address())
        .await
        .expect_err("the role may not read");
    assert_eq!(error.sqlstate(), Some("42501"));
    run(
        &mut connection,
        "reset role; drop role contents_reader; drop table t",
    )
    .await;
}

#[derive(Default)]
struct Log(Vec<String>);

impl Progress for Log {
    fn started(&mut self, migration: &postern::migrate::Migration, pass: Pass) {
        self.0
            .push(format!("started {} {}", migration.id, pass.direction()));
    }
    fn statement(&mut self, statement: &postern::migrate::Statement, number: usize, of: usize) {
        self.0.push(format!(
            "{number}/{of} {} line {}",
            statement.command(),
            statement.line
        ));
    }
    fn finished(&mut self, step: &Step) {
        self.0.push(format!("finished {}", step.id));
    }
}

#[tokio::test]
async fn progress_is_told_and_locks_are_seen() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let mut log = Log::default();
    let history = history("wrong_down");
    let steps = Replayer::new(&mut connection, database.address(), &mut log)
        .apply_all(&history)
        .await
        .unwrap();
    insta::assert_snapshot!(log.0.join("\n"));
    let locks: Vec<(&str, LockMode, bool)> = steps[1]
        .locks
        .iter()
        .flatten()
        .map(|lock| (lock.table.as_str(), lock.mode, lock.is_preexisting))
        .collect();
    assert_eq!(
        locks,
        [
            ("public.notes", LockMode::AccessExclusive, false),
            ("public.orders", LockMode::AccessExclusive, true),
        ]
    );
}

#[tokio::test]
async fn a_lock_that_is_held_elsewhere_ends_the_migration_in_time() {
    let database = support::database().await;
    let mut other = database.connect().await.unwrap();
    run(
        &mut other,
        "create table orders (id integer, total numeric)",
    )
    .await;
    run(&mut other, "begin; lock table orders").await;
    let mut connection = database.connect().await.unwrap();
    let history = history("wrong_down");
    let mut quiet = ();
    let mut replayer = Replayer::new(&mut connection, database.address(), &mut quiet);
    replayer.options = Options {
        lock_timeout: Some(std::time::Duration::from_millis(20)),
        statement_timeout: None,
    };
    let migration = &history.migrations()[2];
    let error = replayer
        .apply(migration, Pass::First)
        .await
        .expect_err("it is locked");
    assert_eq!(error.sqlstate(), Some("55P03"));
    insta::assert_snapshot!(error.render(false));
}

/// Each of these changes the database; each must change its shape.
const CHANGES: &[&str] = &[
    "drop extension plpgsql",
    "create extension plpgsql",
    "create schema s",
    "create table s.t (a integer, b text, c integer, z text)",
    "alter table s.t add constraint t_pkey primary key (a)",
    "alter table s.t alter b set not null",
    "alter table s.t alter b set default 'x'",
    "alter table s.t alter b type varchar(9)",
    "alter table s.t alter b type varchar(9) collate \"C\"",
    "alter table s.t alter b set storage external",
    "alter table s.t drop c, add c integer",
    "alter table s.t add d integer generated always as (a + 1) stored",
    "alter table s.t add e bigint generated always as identity",
    "alter table s.t alter e set generated by default",
    "alter sequence s.t_e_seq increment 5",
    "create sequence s.q",
    "alter sequence s.q owned by s.t.c",
    "alter sequence s.q cycle",
    "alter table s.t add constraint positive check (c > 0) not valid",
    "alter table s.t validate constraint positive",
    "create table s.child (t integer references s.t)",
    "alter table s.child alter constraint child_t_fkey deferrable",
    "alter table s.child disable trigger all",
    "alter table s.child alter t set statistics 500",
    "create index i on s.t (b) include (c) where c > 1",
    "alter table s.t replica identity using index t_pkey",
    "alter table s.t set (fillfactor = 70)",
    "alter table s.child set unlogged",
    "create function s.f() returns trigger language plpgsql as 'begin return new; end'",
    "create trigger g before insert on s.t for each row execute function s.f()",
    "alter table s.t disable trigger g",
    "alter table s.t enable always trigger g",
    "create rule r as on update to s.t do also select 1",
    "alter table s.t disable rule r",
    "create view s.v as select a from s.t",
    "alter view s.v set (security_barrier)",
    "create or replace view s.v as select a from s.t where a > 1",
    "create materialized view s.m as select a from s.t",
    "refresh materialized view s.m with no data",
    "create type s.mood as enum ('sad', 'happy')",
    "alter type s.mood add value 'calm' before 'happy'",
    "create type s.pair as (x integer, y integer)",
    "alter type s.pair add attribute z integer",
    "create domain s.score as integer check (value >= 0)",
    "alter domain s.score set not null",
    "create type s.span as range (subtype = integer)",
    "create function s.g(x integer) returns integer language sql immutable as 'select x'",
    "alter function s.g(integer) volatile",
    "create procedure s.p() language sql as 'select 1'",
    "create aggregate s.total(integer) (sfunc = int4pl, stype = integer)",
    "alter table s.t enable row level security",
    "alter table s.t force row level security",
    "create policy p on s.t for select to public using (a > 1)",
    "alter policy p on s.t using (a > 2)",
    "grant select on s.t to public",
    "grant update (b) on s.t to public",
    "grant usage on schema s to public",
    "revoke execute on function s.g(integer) from public",
    "grant usage on sequence s.q to public",
    "alter default privileges in schema s grant select on tables to public",
    "comment on table s.t is 'x'",
    "comment on column s.t.b is 'x'",
    "comment on function s.g(integer) is 'x'",
    "create table s.parts (day date) partition by range (day)",
    "create table s.part partition of s.parts for values from ('2025-01-01') to ('2026-01-01')",
    "alter table s.parts detach partition s.part",
    "alter table s.parts attach partition s.part for values from ('2025-01-01') to ('2027-01-01')",
    "create statistics s.together on a, c from s.t",
    "create function s.h() returns event_trigger language plpgsql as 'begin end'",
    "create event trigger watch on ddl_command_end execute function s.h()",
    "alter event trigger watch disable",
    "create operator s.=== (function = int4eq, leftarg = integer, rightarg = integer)",
    "create function s.k(s.mood) returns integer language sql as 'select 1'",
    "create cast (s.mood as integer) with function s.k(s.mood)",
    "create publication everything for table s.t",
    "create collation s.numeric (provider = icu, locale = 'en-u-kn-true')",
    "create table \"We\"\"ird\" (\"select\" integer)",
    "drop table s.child",
];

#[tokio::test]
async fn every_change_changes_the_shape() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let mut lines = String::new();
    let mut before = Shape::capture(&mut connection, database.address())
        .await
        .unwrap();
    for change in CHANGES {
        run(&mut connection, change).await;
        let after = Shape::capture(&mut connection, database.address())
            .await
            .unwrap();
        let differences = before.diff(&after);
        assert!(!differences.is_empty(), "not seen: {change}");
        lines.push_str(&format!("{change}\n"));
        // Definitions vary with the server's version; what they look like is tested elsewhere.
        for difference in differences {
            let change = match difference.change {
                Change::Missing(_) => "is missing",
                Change::Extra(_) => "is extra",
                Change::Changed { .. } => "changed",
            };
            lines.push_str(&format!("  {} {change}\n", difference.object));
        }
        before = after;
    }
    insta::assert_snapshot!(lines);
}

#[tokio::test]
async fn a_grant_that_only_spells_the_default_out_is_no_change() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    run(
        &mut connection,
        "create table t (a integer); create function f() returns int language sql as 'select 1'",
    )
    .await;
    let before = Shape::capture(&mut connection, database.address())
        .await
        .unwrap();
    run(&mut connection, "grant all on t to current_user; revoke all on t from public; grant execute on function f() to public").await;
    let after = Shape::capture(&mut connection, database.address())
        .await
        .unwrap();
    let differences: Vec<String> = before
        .diff(&after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(differences.is_empty(), "{differences:?}");
}

/// Every kind of value that a hash function could refuse or take for another.
const VALUES: &str = "
    create type mood as enum ('sad', 'happy'); create type pair as (x integer, y point);
    create domain score as numeric check (value >= 0);
    create table v (id integer primary key, n numeric, j json, jb jsonb, x xml, p point, b bit(3), vb varbit,
        t text, c char(5), ts timestamptz, i interval, f float8, arr integer[], parr point[], m mood, pr pair,
        s score, r int4range, mr int4multirange, u uuid, by bytea, tv tsvector, ip inet, mo money, l pg_lsn, nm name);
    insert into v values (1, 1.0, '{\"a\": 1}', '{\"a\": 1}', '<a/>', '(1,2)', '101', '1', 'a', 'b', '2025-01-01', '1 day',
        0, '{1,2}', '{\"(1,2)\"}', 'sad', '(1,\"(2,3)\")', 1, '[1,2)', '{[1,2)}', gen_random_uuid(), '\\x00', 'a b', '::1', '1', '0/1', 'n');
    insert into v (id) values (2);
    create table nothing (); insert into nothing default values;
    create table parts (day date) partition by range (day);
    create table part partition of parts for values from ('2025-01-01') to ('2026-01-01');
    insert into parts values ('2025-05-05');
    create table base (a integer); create table derived () inherits (base); insert into derived values (1);
    create table \"We\"\"ird {}\" (\"se{}lect\" integer); create sequence seq start 5; create materialized view mv as select 1 a;
";

#[tokio::test]
async fn contents_see_every_change_of_a_row_and_no_order() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    run(&mut connection, VALUES).await;
    let address = database.address();
    let first = Contents::capture(&mut connection, address).await.unwrap();
    let counts: Vec<String> = first
        .tables
        .iter()
        .map(|(name, table)| format!("{name} {}", table.rows))
        .collect();
    assert_eq!(
        counts,
        [
            "public.\"We\"\"ird {}\" 0",
            "public.base 0",
            "public.derived 1",
            "public.nothing 1",
            "public.part 1",
            "public.v 2"
        ]
    );
    assert_eq!(first.sequences["public.seq"].last, None);

    run(
        &mut connection,
        "delete from v where id = 2; insert into v (id) values (2); update v set id = id",
    )
    .await;
    run(
        &mut connection,
        "alter table v drop n, add n numeric; update v set n = 1.0 where id = 1",
    )
    .await;
    let same = Contents::capture(&mut connection, address).await.unwrap();
    assert_eq!(first.diff(&same), []);

    let mut before = same;
    for change in [
        "update v set n = 1.00 where id = 1",
        "update v set n = null where id = 1",
        "update v set t = 'A' where id = 1",
        "update v set j = '{\"a\":1}' where id = 1",
        "update v set f = '-0' where id = 1",
        "update v set p = '(1,3)' where id = 1",
        "update v set t = '', c = '' where id = 2",
        "insert into v (id) values (3)",
    ] {
        run(&mut connection, change).await;
        let after = Contents::capture(&mut connection, address).await.unwrap();
        assert_eq!(before.diff(&after).len(), 1, "{change}");
        before = after;
    }
    run(
        &mut connection,
        "insert into nothing default values; select nextval('seq')",
    )
    .await;
    let after = Contents::capture(&mut connection, address).await.unwrap();
    let lines: Vec<String> = before
        .diff(&after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines, ["public.nothing: 2 rows, was 1 row"]);
    assert_eq!(after.sequences["public.seq"].last, Some(5));
}

#[tokio::test]
async fn equal_rows_do_not_cancel_each_other() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    run(
        &mut connection,
        "create table t (a text); insert into t values ('x'), ('x'), ('y')",
    )
    .await;
    let before = Contents::capture(&mut connection, database.address())
        .await
        .unwrap();
    run(
        &mut connection,
        "truncate t; insert into t values ('y'), ('y'), ('y')",
    )
    .await;
    let after = Contents::capture(&mut connection, database.address())
        .await
        .unwrap();
    let lines: Vec<String> = before
        .diff(&after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines, ["public.t: 3 rows, but not the same ones"]);
}

#[tokio::test]
async fn a_session_that_formats_differently_reads_the_same() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    run(&mut connection, VALUES).await;
    let address = database.address();
    let shape = Shape::capture(&mut connection, address).await.unwrap();
    let contents = Contents::capture(&mut connection, address).await.unwrap();
    run(
        &mut connection,
        "set datestyle = 'German'; set intervalstyle = 'iso_8601'; set timezone = 'Asia/Tokyo';
         set extra_float_digits = -5; set bytea_output = 'escape'; set search_path = public; set quote_all_identifiers = on;
         set statement_timeout = 1",
    )
    .await;
    assert_eq!(
        shape.diff(&Shape::capture(&mut connection, address).await.unwrap()),
        []
    );
    assert_eq!(
        contents,
        Contents::capture(&mut connection, address).await.unwrap()
    );
}
