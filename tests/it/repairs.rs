//! The repairs that `foreign_key` shows, executed.

use std::collections::BTreeMap;

use postern::gate::LoadOptions;
use postern::gate::catalog::Side;
use postern::report::{FailOn, Report};
use postern::run::{Options, State};
use rstest::rstest;
use sqlx::PgConnection;

use crate::support;

/// One reference of each sort of fault, with orphans and without.
const BROKEN: &str = r#"
create schema s;
create table s.games (id int primary key, day date not null, "Home" text not null, unique (day, "Home"));
insert into s.games select n, date '2025-04-01' + n, 'NYM' from generate_series(1, 9) n;
create table s.bets (id int primary key, game_id int not null);
insert into s.bets values (1, 1), (2, 77);
create table s.picks (id int primary key, game_id int references s.games);
insert into s.picks values (1, null), (2, 2);
create table s.odds (id int primary key, game_id int);
insert into s.odds values (1, 1), (2, 88);
alter table s.odds add foreign key (game_id) references s.games not valid;
create table s."we""ird" (id int primary key, day date, "Home" text);
insert into s."we""ird" values (1, '2025-04-02', 'NYM'), (2, '2025-04-02', null);
alter table s."we""ird" add foreign key (day, "Home") references s.games (day, "Home") match full not valid;
create table s.scores (id int primary key, game_id int references s.games);
alter table s.scores disable trigger all;
insert into s.scores values (1, 99);
create table s.parts (id int, game_id int, kind text) partition by list (kind);
create table s.parts_a partition of s.parts for values in ('a');
create table s.parts_b partition of s.parts for values in ('b');
insert into s.parts values (1, 3, 'a'), (2, 66, 'b');
create table s.codes (code varchar(3) primary key);
insert into s.codes values ('NYM'), ('BOS');
create table s.prices (price numeric(4, 1) primary key);
insert into s.prices values (1.5);
-- Of another type: wider, narrower, unlike, and what the other may cut or round.
create table s.small (id int primary key, game_id smallint references s.games);
create table s.big (id int primary key, game_id bigint references s.games not null);
create table s.notes (id int primary key, game_id text);
create table s.tags (id int primary key, code text references s.codes);
create table s.costs (id int primary key, price numeric references s.prices, code varchar(2) references s.codes);
set session_replication_role = replica;
insert into s.small values (1, 1), (2, 77), (3, null);
insert into s.big values (1, 1), (2, 9999999999);
insert into s.notes values (1, '1'), (2, 'soon'), (3, null);
insert into s.tags values (1, 'NYM'), (2, 'Boston');
insert into s.costs values (1, 1.5, null), (2, 1.55, 'NY');
reset session_replication_role;
create table s."line
delete from s.games; --" (id int primary key, "game
_id" int not null, half int);
insert into s."line
delete from s.games; --" values (1, 1, 1), (2, 77, 1), (3, 77, null);
create table s.halves (game int, half int, primary key (game, half));
insert into s.halves values (1, 1);
"#;

const NO_ORPHANS: &str = r#"
delete from s.bets where game_id > 9; delete from s.odds where game_id > 9; delete from s.scores;
delete from s.parts where game_id > 9; delete from s."we""ird" where "Home" is null;
delete from s.small where game_id > 9; delete from s.big where game_id > 9; delete from s.notes where game_id = 'soon';
delete from s.tags where code = 'Boston'; delete from s.costs where code = 'NY';
delete from s."line
delete from s.games; --" where id > 1;
"#;

/// What is done about orphans, between the first round and the second.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Orphans {
    /// A person removes them.
    ByHand,
    /// The repair that was shown: they refer to nothing, where that is offered.
    Nulls,
    /// The repair that was shown: they go.
    Delete,
}

/// The statements that a repair holds as comments, with the signs off.
fn offered(repair: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in repair
        .split('\n')
        .filter_map(|line| line.strip_prefix("-- "))
    {
        let words = ["update ", "delete ", "alter "];
        let starts = words.iter().any(|word| line.starts_with(word));
        match found.last_mut().filter(|_| is_open) {
            Some(last) => last.push_str(&format!("\n{line}")),
            None if starts => found.push(line.to_owned()),
            None => continue,
        }
        is_open = !line.ends_with(';');
    }
    found
}

/// Every row of every table, as text.
async fn all_rows(connection: &mut PgConnection) -> Vec<String> {
    let every = "select c.relname || query_to_xml(format('select * from s.%I t order by t::text', c.relname), \
        true, false, '')::text from pg_class c where c.relnamespace = 's'::regnamespace and c.relkind = 'r' order by 1";
    sqlx::query_scalar(every)
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn execute(connection: &mut PgConnection, sql: &str, what: &str) {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    let done = done.execute(connection).await;
    assert!(done.is_ok(), "{what}: {sql}: {done:?}");
}

/// Executes a repair as it is, and then what it offers.
async fn repair(connection: &mut PgConnection, sql: &str, what: &str, orphans: Orphans) {
    let offered = offered(sql);
    let before = match offered.is_empty() {
        true => None,
        false => Some(all_rows(connection).await),
    };
    execute(connection, sql, what).await;
    if let Some(before) = before {
        assert_eq!(all_rows(connection).await, before, "{what}: {sql}");
    }
    let is_about_rows = offered.iter().any(|one| one.starts_with("delete "));
    let chosen = match (is_about_rows, orphans) {
        (false, _) => offered.last(),
        (true, Orphans::ByHand) => None,
        (true, Orphans::Nulls) => offered.first(),
        (true, Orphans::Delete) => offered.last(),
    };
    if let Some(chosen) = chosen {
        execute(connection, chosen, what).await;
    }
}

/// Every repair that is shown runs, whatever the rows are, and leads to a gate that passes. What could
/// destroy something is a comment, and any choice among those leads there, too.
#[rstest]
#[case(Orphans::ByHand)]
#[case(Orphans::Nulls)]
#[case(Orphans::Delete)]
#[tokio::test]
async fn the_repairs_of_foreign_keys_run_and_repair(#[case] orphans: Orphans) {
    let all = "[[gate]]\nid='all'\nkind='foreign_key'\nschemas=['s']\n";
    // Written as Rust writes a text, which TOML reads.
    let one = |id: &str, table: &str, columns: &[&str], to: &str| {
        format!(
            "[[gate]]\nid={id:?}\nkind='foreign_key'\ntable={table:?}\ncolumns={columns:?}\nreferences={to:?}\n\
             require=['declared', 'valid', 'enforced', 'indexed', 'same_type']\n"
        )
    };
    let games = |table: &str| one(table, &format!("s.{table}"), &["game_id"], "s.games");
    let line = "s.\"line\ndelete from s.games; --\"";
    let single = [
        games("bets") + "where = \"\"\"id > 0 -- all\nor false\"\"\"\n",
        games("picks"),
        games("odds"),
        games("scores"),
        games("parts"),
        games("small"),
        games("big"),
        games("notes"),
        one(
            "weird",
            "s.\"we\"\"ird\"",
            &["day", "Home"],
            "s.games(day, Home)",
        ),
        one("tags", "s.tags", &["code"], "s.codes"),
        one("prices", "s.costs", &["price"], "s.prices"),
        one("codes", "s.costs", &["code"], "s.codes"),
        one("line", line, &["game\n_id"], "s.games"),
        one("halves", line, &["game\n_id", "half"], "s.halves"),
    ];
    for text in [all.to_owned(), single.concat()] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suite.toml");
        std::fs::write(&path, &text).unwrap();
        let gates = postern::gate::load(&[path], &LoadOptions::default()).unwrap();
        let gates = gates.gates;
        let database = support::database().await;
        let mut connection = database.connect().await.unwrap();
        execute(&mut connection, BROKEN, "what is broken").await;
        let targets = BTreeMap::from([(Side::Main, database.address().clone())]);
        let mut told = Vec::new();
        for round in 0..5 {
            let findings = postern::run::check(&gates, &targets, &Options::default()).await;
            let report = Report::new(&gates, findings, database.address(), FailOn::Block);
            let is_open = |state| matches!(state, State::Failed | State::Errored);
            let open = report.gates.iter().filter(|gate| is_open(gate.outcome));
            told.push(open.count());
            for finding in report.gates.iter().flat_map(|gate| &gate.findings) {
                let what = format!("round {round}: {}", finding.what);
                if let Some(sql) = &finding.repair {
                    repair(&mut connection, sql, &what, orphans).await;
                }
            }
            if round == 0 && orphans == Orphans::ByHand {
                execute(&mut connection, NO_ORPHANS, "by hand").await;
            }
        }
        // Broken, then to be validated or of another type, then declared and indexed, then sound.
        assert!(told[0] > 0 && told[1] > 0, "{told:?}");
        assert_eq!(told[4], 0, "{text}: {told:?}");
    }
}

/// Every way to have what the matrix does not say, and not to have what it says.
const OPEN: &str = r#"
do $$ begin
  if to_regrole('repairs_app') is null then create role repairs_app; end if;
  if to_regrole('repairs_group') is null then create role repairs_group; end if;
  if to_regrole('repairs_maker') is null then create role repairs_maker; end if;
end $$;
grant repairs_group to repairs_app;
create schema s;
create table s.bets (id int, note text);
create type s."odd, type" as enum ('a');
create function s.odds(int, s."odd, type") returns int language sql as 'select 1';
create function s.odds() returns int language sql security definer as 'select 1';
create procedure s.settle(inout bet int) language sql as 'select 1';
create aggregate s.best(int) (sfunc = int4larger, stype = int);
create function s.open() returns int language sql security definer as 'select 1';
create sequence s."next ""one";
grant create on schema s to repairs_maker;
grant update (note) on s.bets to repairs_app;
grant usage on sequence s."next ""one" to public, repairs_group;
grant execute on procedure s.settle(int) to repairs_group;
alter default privileges in schema s grant execute on functions to public;
-- What replaces the built-in grant to everybody begins as a copy of it.
alter default privileges for role repairs_maker grant execute on functions to repairs_app;
alter default privileges grant select on sequences to repairs_app;
alter default privileges grant insert on tables to public;
do $$ begin execute format('grant create on database %I to repairs_app', current_database()); end $$;
"#;

/// Grants, and what everybody has by itself, in the end are what the matrix says.
#[tokio::test]
async fn the_repairs_of_permissions_run_and_repair() {
    let text = "[[gate]]\nid='matrix'\nkind='permissions'\nschemas=['s']\nothers='ignore'\n\
        [gate.roles.repairs_maker]\n's'=['create']\n\
        [gate.roles.repairs_app]\n's'=['usage']\n's.*'=['select']\n\
        [gate.functions.repairs_app]\n's.odds'=['execute']\n\
        [gate.functions.public]\n's.o*'=['execute']\n\
        [gate.sequences.repairs_app]\n's.*'=['usage']\n\
        [gate.database]\nrepairs_app=['connect']\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suite.toml");
    std::fs::write(&path, text).unwrap();
    let gates = postern::gate::load(&[path], &LoadOptions::default()).unwrap();
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    execute(&mut connection, OPEN, "what is open").await;
    let targets = BTreeMap::from([(Side::Main, database.address().clone())]);
    let mut told = Vec::new();
    for round in 0..4 {
        let findings = postern::run::check(&gates.gates, &targets, &Options::default()).await;
        let report = Report::new(&gates.gates, findings, database.address(), FailOn::Block);
        let [gate] = report.gates.as_slice() else {
            panic!("one gate was asked");
        };
        let found = gate.findings.iter().map(|finding| finding.what.clone());
        told.push((gate.outcome, found.collect::<Vec<_>>()));
        for finding in &gate.findings {
            let what = format!("round {round}: {}", finding.what);
            let sql = finding.repair.as_ref().expect(&what);
            execute(&mut connection, sql, &what).await;
        }
    }
    let everybody = "everybody will have EXECUTE on every function that `repairs_maker` makes";
    let is_there = told[0].1.iter().any(|what| what.starts_with(everybody));
    assert!(is_there && told[0].1.len() > 10, "{told:#?}");
    assert_eq!(told[3], (State::Passed, Vec::new()), "{told:#?}");
}
