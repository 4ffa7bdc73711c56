//! `postern check` as its users see it: the command, a real database, the exit code.

use std::path::PathBuf;
use std::process::{Command, Output};

use postern::pg::Database;
use rstest::rstest;

use crate::support;

const SEED: &str = r#"
create schema s;
create table s.games (id int primary key, home int, day timestamptz not null);
insert into s.games select n, case when n <= 9 then n end, now() - n * interval '1 hour' from generate_series(1, 10) n;
create table s.bets (id int primary key, game_id int, note text);
insert into s.bets values (1, 1, 'a'), (2, 2, 'b'), (3, 77, 'b'), (4, 88, null), (5, 88, null), (6, null, 'c');
create table s.none (id int primary key, day date, parent int);
create table s."we""ird Ünï" ("select" int, "A.b" text);
insert into s."we""ird Ünï" values (1, 'x'), (1, null);
create view s.scored as select * from s.games where home is not null;
create table s.parts (id int, kind text) partition by list (kind);
create table s.parts_a partition of s.parts for values in ('a');
insert into s.parts values (1, 'a'), (2, 'a');
create table s.secret (id int);
insert into s.secret values (1);
alter table s.secret enable row level security;
create schema m;
create table m.people (id int primary key, name text, mail text);
insert into m.people values (1, 'Test', 'a@mlb.com'), (2, 'Ann Lee', 'ann@example.com'), (3, 'the mock row', null),
  (4, 'passed the test', 'x@y.z'), (5, 'Tester Dummyson', null), (6, null, 'lee@contest.com');
create table m.load_test (id int, note text);
"#;

async fn seeded(extra: &'static str) -> Database {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(SEED).execute(&mut connection).await.unwrap();
    sqlx::raw_sql(extra).execute(&mut connection).await.unwrap();
    database
}

struct Suite {
    folder: tempfile::TempDir,
}

impl Suite {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("suite.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("suite.toml")
    }

    /// Runs `postern check` on its own thread pool slot, so that the test's runtime stays free.
    fn check(&self, url: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_postern"))
            .current_dir(self.folder.path())
            .env_remove("DATABASE_URL")
            .args(["check", "--gates", "suite.toml", "--url", url])
            .args(more)
            .output()
            .unwrap()
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))
}

/// One gate of each kind and state: its fields, its outcome, what it offends.
#[rstest]
#[case::complete(
    "kind='completeness'\ntable='s.games'\ncolumns=['home']\nat_least='90%'",
    "passed",
    Some(1)
)]
#[case::incomplete(
    "kind='completeness'\ntable='s.games'\ncolumns=['home']\nat_least='91%'",
    "failed",
    Some(1)
)]
#[case::nearly(
    "kind='completeness'\ntable='s.games'\ncolumns=['home']\nat_least='90%'\nwarn_below='95%'",
    "warned",
    Some(1)
)]
#[case::missing_text(
    "kind='completeness'\ntable='s.bets'\ncolumns=['note']\nmissing=['c']",
    "failed",
    Some(3)
)]
#[case::complete_empty(
    "kind='completeness'\ntable='s.none'\ncolumns=['day']",
    "failed",
    Some(0)
)]
#[case::complete_view(
    "kind='completeness'\ntable='s.scored'\ncolumns=['home']",
    "passed",
    Some(0)
)]
#[case::odd_names(
    "kind='completeness'\ntable='s.\"we\"\"ird Ünï\"'\ncolumns=['select', 'A.b']",
    "failed",
    Some(1)
)]
#[case::fresh(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='2h'",
    "passed",
    None
)]
#[case::stale(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='30m'",
    "failed",
    None
)]
#[case::stale_group(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='3h 30m'\ngroup_by=['id']",
    "failed",
    Some(7)
)]
#[case::fresh_empty(
    "kind='freshness'\ntable='s.none'\ncolumn='day'\nmax_age='2h'",
    "failed",
    None
)]
#[case::fresh_as_of(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='9999999h'\nas_of='2999-01-01T00:00:00Z'",
    "passed",
    None
)]
#[case::stale_as_of(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='2h'\nas_of='2999-01-01T00:00:00Z'",
    "failed",
    None
)]
#[case::all_in_the_future_as_of(
    "kind='freshness'\ntable='s.games'\ncolumn='day'\nmax_age='2h'\nas_of='2000-01-01T00:00:00Z'",
    "failed",
    None
)]
#[case::no_time(
    "kind='freshness'\ntable='s.games'\ncolumn='home'\nmax_age='2h'",
    "errored",
    None
)]
#[case::orphans(
    "kind='foreign_key'\ntable='s.bets'\ncolumns=['game_id']\nreferences='s.games'",
    "failed",
    Some(3)
)]
#[case::some_orphans(
    "kind='foreign_key'\ntable='s.bets'\ncolumns=['game_id']\nreferences='s.games(id)'\nat_most=3",
    "passed",
    Some(3)
)]
#[case::undeclared(
    "kind='foreign_key'\ntable='s.scored'\ncolumns=['id']\nreferences='s.games'\nrequire=['declared']",
    "failed",
    Some(0)
)]
#[case::no_reference(
    "kind='foreign_key'\ntable='s.none'\ncolumns=['parent']\nreferences='s.games'",
    "skipped",
    Some(0)
)]
#[case::unique("kind='unique'\ntable='s.bets'\ncolumns=['id']", "passed", Some(0))]
#[case::repeated("kind='unique'\ntable='s.bets'\ncolumns=['note']", "failed", Some(2))]
#[case::unique_empty("kind='unique'\ntable='s.none'\ncolumns=['id']", "skipped", Some(0))]
#[case::unique_empty_allowed(
    "kind='unique'\ntable='s.none'\ncolumns=['id']\non_empty='pass'",
    "passed",
    Some(0)
)]
#[case::count("kind='row_count'\ntable='s.parts'\nequals=2", "passed", None)]
#[case::count_filtered(
    "kind='row_count'\ntable='s.games'\nwhere='id > 5'\nat_most=4",
    "failed",
    None
)]
#[case::count_empty("kind='row_count'\ntable='s.none'\nat_most=4", "failed", None)]
#[case::count_zero("kind='row_count'\ntable='s.none'\nequals=0", "passed", None)]
#[case::parity(
    "kind='row_count_parity'\ntable='s.parts'\nagainst='s.parts_a'",
    "passed",
    Some(0)
)]
#[case::parity_apart(
    "kind='row_count_parity'\ntable='s.games'\nagainst='s.bets'\ntolerance=3",
    "failed",
    Some(4)
)]
#[case::parity_sum(
    "kind='row_count_parity'\nmap={'s.games'=['s.bets','s.parts','s.parts_a']}",
    "passed",
    Some(0)
)]
#[case::parity_of_two_sums(
    "kind='row_count_parity'\nmap={'s.bets + s.parts + s.parts_a'=['s.games','s.none']}",
    "passed",
    Some(0)
)]
#[case::parity_empty(
    "kind='row_count_parity'\ntable='s.none'\nagainst='s.none'",
    "skipped",
    Some(0)
)]
#[case::custom(
    "kind='sql'\nquery='select id from s.games where home > 100'",
    "passed",
    Some(0)
)]
#[case::custom_rows(
    "kind='sql'\nquery='select id from s.games where home > 5 -- high;'\nkey=['id']",
    "failed",
    Some(4)
)]
#[case::custom_on_nothing("kind='sql'\nquery='select id from s.none'", "skipped", Some(0))]
#[case::custom_population(
    "kind='sql'\nquery='select 1 where false'\npopulation='select count(*) from s.none'",
    "skipped",
    Some(0)
)]
#[case::mock("kind='mock_data'\ntable='m.people'", "failed", Some(3))]
#[case::mock_low(
    "kind='mock_data'\ntable='m.people'\nsensitivity='low'\ncolumns=['name']",
    "failed",
    Some(1)
)]
#[case::mock_high(
    "kind='mock_data'\ntable='m.people'\nsensitivity='high'",
    "failed",
    Some(4)
)]
#[case::mock_filtered(
    "kind='mock_data'\ntable='m.people'\nwhere='id > 4'",
    "passed",
    Some(0)
)]
#[case::mock_schema(
    "kind='mock_data'\nschemas=['m*']\nallow=['m.people.*']",
    "failed",
    Some(0)
)]
#[case::mock_allowed(
    "kind='mock_data'\nschemas=['m']\nallow=['m.people.*', 'm.load_test']",
    "passed",
    Some(0)
)]
#[case::mock_empty("kind='mock_data'\ntable='m.load_test'", "skipped", Some(0))]
#[case::missing_table("kind='row_count'\ntable='s.gamez'\nat_least=1", "errored", None)]
#[case::missing_column("kind='unique'\ntable='s.games'\ncolumns=['idd']", "errored", None)]
#[case::wrong_where(
    "kind='row_count'\ntable='s.games'\nwhere='nope > 1'\nat_least=1",
    "errored",
    None
)]
#[case::write("kind='sql'\nquery='select nextval(''s.q'')'", "errored", None)]
#[tokio::test]
async fn a_gate_has_its_outcome(
    #[case] fields: &str,
    #[case] outcome: &str,
    #[case] offending: Option<u64>,
) {
    let database = seeded("create sequence s.q").await;
    // TOML's literal strings cannot hold a quote; the cases write '' for it.
    let fields = fields.replace("''s.q''", "'s.q'").replace(
        "query='select nextval('s.q')'",
        "query=\"select nextval('s.q')\"",
    );
    // A control beside it: what one gate does must not touch the others.
    let control = "[[gate]]\nid='control'\nkind='row_count'\ntable='s.games'\nequals=10\n";
    let suite = Suite::new(&format!("{control}[[gate]]\nid='it'\n{fields}\n"));
    let output = suite.check(&database.address().to_secret_url(), &["--format", "json"]);
    let report = json(&output);
    let [control, it] = &report["gates"].as_array().unwrap()[..] else {
        panic!("two gates went in: {report}")
    };
    assert_eq!(control["outcome"], "passed", "{report:#}");
    assert_eq!(it["outcome"], outcome, "{it:#}");
    assert_eq!(it["rows_offending"].as_u64(), offending, "{it:#}");
    let code = match outcome {
        "errored" => 3,
        "failed" => 1,
        _ => 0,
    };
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(report["summary"]["exit_code"], code);
    assert!(report["snapshot"]["id"].is_string());
}

const PASS: &str = "[[gate]]\nid='p'\nkind='row_count'\ntable='s.games'\nequals=10\n";
const FAIL: &str = "[[gate]]\nid='f'\nkind='row_count'\ntable='s.games'\nequals=11\n";
const LOST: &str = "[[gate]]\nid='l'\nkind='sql'\nquery='select pg_terminate_backend(pg_backend_pid()) from s.games'\n";

#[tokio::test]
async fn a_lost_connection_costs_only_its_own_gate() {
    let database = seeded("").await;
    let suite = Suite::new(&[FAIL, LOST, PASS].concat());
    let report = json(&suite.check(&database.address().to_secret_url(), &["--format", "json"]));
    let outcomes: Vec<&str> = report["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gate| gate["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["failed", "errored", "passed"], "{report:#}");
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_place() {
    let suite = Suite::new(
        "[[gate]]\nid = \"a\"\nkind = \"completeness\"\ntable = \"s..x\"\ncolum = [\"x\"]\nseverity = \"bloc\"\n\n\
         [[gate]]\nid = \"b\"\nkind = \"uniqe\"\n\n[[gate]]\nid = \"c d\"\nkind = \"row_count\"\ntable = \"${t}\"\n\n\
         [[gate]]\nid = \"e\"\nkind = \"completeness\"\ntable = \"t\"\ncolumns = [\"a\"]\nat_least = \"90%\"\nwarn_below = \"80%\"\n",
    );
    let output = suite.check("postgres://nobody@127.0.0.1:1/none", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "nothing was run");
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr));
    assert!(suite.path().exists());
}

#[tokio::test]
async fn a_person_reads_the_worst_first() {
    let database = seeded("").await;
    let gates = "[[gate]]\nid='bets_have_games'\nkind='foreign_key'\ntable='s.bets'\ncolumns=['game_id']\n\
                 references='s.games'\nrequire=['declared','indexed']\nwhy='a bet on no game cannot be settled'\n\
                 [[gate]]\nid='nothing_there'\nkind='unique'\ntable='s.none'\ncolumns=['id']\n\
                 [[gate]]\nid='gone'\nkind='row_count'\ntable='s.gamez'\nat_least=1\n";
    let suite = Suite::new(&format!("{PASS}{gates}"));
    let url = database.address().to_secret_url();
    let terminal = suite.check(&url, &[]);
    insta::assert_snapshot!("terminal", String::from_utf8_lossy(&terminal.stdout));
    let junit = suite.check(&url, &["--format", "junit"]);
    insta::assert_snapshot!("junit", String::from_utf8_lossy(&junit.stdout));
    let quiet = Suite::new(PASS).check(&url, &[]);
    assert_eq!(String::from_utf8_lossy(&quiet.stdout), "1 gate passed\n");
}
