//! `postern audit` as its users see it: the command, a real database, the exit code.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use postern::pg::Database;
use rstest::rstest;
use serde_json::Value;

use crate::support;

/// Every fault exactly once, beside much that is right.
const FAULTS: &str = r#"
create schema curated; create schema analysis; create schema analytics; create schema hollow; create schema raw_data;
comment on schema curated is 'what people read';
create table curated.teams (id int primary key, name text unique, city text);
create table curated.enhanced_games (id int primary key, home_id int not null references curated.teams, day date,
  venue text, umpire text, weather text, score text);
create index on curated.enhanced_games (home_id);
create table curated.games_complete (id int primary key, day date, venue text, umpire text, weather text, crowd int);
create table curated.odds (id int primary key, game_id int references curated.enhanced_games, price int);
create index on curated.odds (game_id);
create table curated.results (id int primary key, game_id int references curated.games_complete, score int);
create index on curated.results (game_id);
insert into curated.teams select n, 'team ' || n from generate_series(1, 30) n;
insert into curated.enhanced_games select n, 1 + n % 30, '2024-04-01' from generate_series(1, 2000) n;

-- key_not_valid, key_not_enforced
create table curated.lines (id int primary key, team_id int, price int);
create index on curated.lines (team_id);
insert into curated.lines values (1, 1, 5), (2, 77, 5), (3, 78, 5);
alter table curated.lines add constraint lines_team foreign key (team_id) references curated.teams not valid;
create table curated.splits (id int primary key, team_id int references curated.teams, share int);
create index on curated.splits (team_id);
alter table curated.splits disable trigger all;
-- undeclared_key
create table analytics.signals (id int primary key, team_id int, strength int);
create index on analytics.signals (team_id);
insert into analytics.signals values (1, 1, 1), (2, 99, 1);
-- key_type_mismatch, key_target_not_unique
create table analysis.runs (id int primary key, team_id text, note text);
create table analysis.venues (code text primary key, venue_id int, city text);
create table analysis.crowds (id int primary key, venue_id int, people int);
-- seq_scanned_table
create table analysis.hits (id int primary key, n int);
insert into analysis.hits select n, n from generate_series(1, 10000) n;
-- key_without_index
create table analysis.notes (id int primary key, author_team int references curated.teams, said text);
alter table analysis.notes set schema curated;
-- cross_schema_key, and against the flow where there is one
create table raw_data.pages (id int primary key, club int references curated.teams, body text);
create index on raw_data.pages (club);
-- same_name, same_shape
create table raw_data.umpires (id int primary key, first text, last text, born date, plate text);
create table analysis.umpires (id int primary key, first text, last text, born date, height int);
create table raw_data.loads_a (id int primary key, source text, url text, seen date);
create table raw_data.loads_b (id int primary key, url text, source text, seen date);
-- test_table, no_primary_key, disabled_trigger
create table curated.concurrency_test (id int primary key, n int);
insert into curated.concurrency_test select n from generate_series(1, 12) n;
create table raw_data.headers (line text, file text);
create function raw_data.nothing() returns trigger language plpgsql as 'begin return new; end';
create trigger stamp before update on raw_data.pages for each row execute function raw_data.nothing();
alter table raw_data.pages disable trigger stamp;
-- duplicate_index, unused_index, invalid_index
create index by_day on curated.enhanced_games (day);
create index by_day_and_venue on curated.enhanced_games (day, venue);
create index by_score on curated.enhanced_games (score, id);
create index broken on curated.games_complete (crowd);
-- never_analyzed
analyze;
create table raw_data.fresh (id int primary key, body text);
insert into raw_data.fresh values (1, 'x');
do $$ begin for n in 1..101 loop perform sum(h.n) from analysis.hits h; end loop; end $$;
set enable_seqscan = off;
select count(*) from curated.enhanced_games where day = '2024-04-01' and venue = 'x';
select pg_stat_force_next_flush();
update pg_index set indisvalid = false where indexrelid = 'curated.broken'::regclass;
"#;

/// A schema with nothing to complain of: keys declared, valid, indexed; a link table, a tree, a partitioned
/// table, a view, names that only look like leftovers or references.
const CLEAN: &str = r#"
create table public.teams (team_id int primary key, name text not null unique, parent_team_id int references public.teams);
create index on public.teams (parent_team_id);
create table public.players (player_id int primary key, team_id int not null references public.teams, full_name text,
  external_id text, session_key text, paid bool, uuid uuid);
create index on public.players (team_id) where team_id is not null;
create table public.player_teams (player_id int references public.players, team_id int references public.teams,
  since date, primary key (player_id, team_id));
create index on public.player_teams (team_id);
create table public.contest_entries (id int primary key, latest text, protest text, temperature int);
create table public.countries (code text primary key, name text);
create table public.positions (code text primary key, name text);
create table public.events (id int, team_id int references public.teams, day date, note text, primary key (id, day))
  partition by range (day);
create index on public.events (team_id);
create table public.events_2023 partition of public.events for values from ('2023-01-01') to ('2024-01-01');
create table public.events_2024 partition of public.events for values from ('2024-01-01') to ('2025-01-01');
insert into public.teams values (1, 'a', null), (2, 'b', 1);
insert into public.events values (1, 1, '2023-05-05', 'x'), (2, 2, '2024-05-05', 'y');
create view public.team_names as select team_id, name from public.teams;
create schema ops;
create table ops.jobs (id bigint primary key, name text, state text);
analyze;
"#;

async fn database(seed: &'static str) -> Database {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(seed).execute(&mut connection).await.unwrap();
    database
}

fn audit(url: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .env_remove("DATABASE_URL")
        .args(["audit", "--url", url])
        .args(more)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !text.is_empty(),
        "nothing on stdout: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn json(url: &str, more: &[&str]) -> Value {
    let output = audit(url, &[&["--format", "json"], more].concat());
    serde_json::from_str(&text(&output)).unwrap()
}

/// The objects of every kind of finding.
fn found(audit: &Value) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for finding in audit["findings"].as_array().unwrap() {
        let kind = finding["kind"].as_str().unwrap().to_owned();
        let object = finding["object"].as_str().unwrap().to_owned();
        found.entry(kind).or_default().push(object);
    }
    found
}

#[tokio::test]
async fn every_fault_is_found_once() {
    let database = database(FAULTS).await;
    let audit = json(&database.address().to_secret_url(), &[]);
    let found: Vec<String> = found(&audit)
        .into_iter()
        .map(|(kind, objects)| format!("{kind}: {}", objects.join("; ")))
        .collect();
    insta::assert_snapshot!("faults", found.join("\n"));
    let summary = &audit["summary"];
    assert_eq!(summary["schemas"], 6);
    assert_eq!(summary["foreign_keys"], 7);
    assert_eq!(summary["broken_keys"], 5);
    assert_eq!(summary["cross_schema_keys"], 1);
    assert_eq!(summary["keys_against_flow"], Value::Null);
    assert_eq!(summary["test_tables"], 1);
    assert_eq!(summary["duplicate_groups"], 3);
    assert_eq!(summary["exit_code"], 0);
    for finding in audit["findings"].as_array().unwrap() {
        for field in ["object", "what", "why", "severity"] {
            assert!(!finding[field].as_str().unwrap().is_empty(), "{finding}");
        }
    }
}

#[tokio::test]
async fn every_repair_is_sql_that_postgres_takes() {
    let database = database(FAULTS).await;
    let audit = json(&database.address().to_secret_url(), &[]);
    let mut connection = database.connect().await.unwrap();
    // The rows that a validation would trip over.
    sqlx::raw_sql("delete from curated.lines where team_id > 30; delete from analytics.signals where team_id > 30")
        .execute(&mut connection)
        .await
        .unwrap();
    let mut repairs = 0;
    for finding in audit["findings"].as_array().unwrap() {
        if let Some(repair) = finding["repair"].as_str() {
            repairs += 1;
            for statement in repair.split("; ") {
                let statement = sqlx::AssertSqlSafe(statement.to_owned());
                sqlx::query(statement)
                    .execute(&mut connection)
                    .await
                    .unwrap_or_else(|error| panic!("{repair}: {error}"));
            }
        }
    }
    assert!(repairs >= 10, "most findings have a repair, {repairs} do");
}

#[tokio::test]
async fn a_right_schema_raises_no_alarm() {
    let database = database(CLEAN).await;
    let url = database.address().to_secret_url();
    let audit = json(&url, &["--count-orphans"]);
    assert_eq!(found(&audit), BTreeMap::new());
    assert_eq!(audit["summary"]["tables"], 8);
    assert_eq!(audit["summary"]["partitions"], 2);
    assert_eq!(audit["summary"]["views"], 1);
    assert_eq!(audit["summary"]["foreign_keys"], 5);
    let events = audit["tables"].as_array().unwrap();
    let events = events
        .iter()
        .find(|table| table["name"] == "events")
        .unwrap();
    assert_eq!(
        events["rows_estimated"], 2,
        "a partitioned table is the sum of its parts"
    );
    assert_eq!(events["primary_key"], serde_json::json!(["id", "day"]));
}

#[tokio::test]
async fn an_empty_database_has_nothing() {
    let database = support::database().await;
    let url = database.address().to_secret_url();
    let terminal = text(&audit(&url, &[]));
    assert!(terminal.ends_with("nothing found\n"), "{terminal}");
    for format in ["json", "markdown", "svg", "mermaid"] {
        let output = audit(&url, &["--format", format]);
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert!(!output.stdout.is_empty(), "{format}");
    }
}

#[tokio::test]
async fn orphans_are_counted_where_asked() {
    let database = database(FAULTS).await;
    let audit = json(&database.address().to_secret_url(), &["--count-orphans"]);
    let whats: Vec<String> = audit["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["kind"] == "orphaned_rows")
        .map(|finding| format!("{} {}", finding["object"], finding["what"]))
        .collect();
    assert_eq!(
        whats,
        [
            r#""analytics.signals (team_id)" "1 row refers to nothing in curated.teams (id)""#,
            r#""curated.lines (team_id)" "2 rows refer to nothing in curated.teams (id)""#,
        ]
    );
}

#[tokio::test]
async fn zones_and_their_flow_say_which_keys_are_wrong() {
    let database = database(FAULTS).await;
    let url = database.address().to_secret_url();
    let flowing = json(&url, &["--flow", "raw_data,curated"]);
    assert_eq!(
        found(&flowing)["key_against_flow"],
        ["raw_data.pages (club)"]
    );
    assert_eq!(flowing["summary"]["keys_against_flow"], 1);
    let back = json(&url, &["--flow", "curated,raw_data"]);
    assert_eq!(found(&back)["cross_schema_key"], ["raw_data.pages (club)"]);
    assert_eq!(back["summary"]["keys_against_flow"], 0);
    let together = json(&url, &["--zone", "all=raw_data,curated"]);
    assert_eq!(together["summary"]["cross_zone_keys"], 0);
    assert!(!found(&together).contains_key("cross_schema_key"));
    let unknown = audit(&url, &["--flow", "raw_data,curatd"]);
    assert_eq!(unknown.status.code(), Some(3));
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(error.contains("did you mean `curated`?"), "{error}");
}

#[tokio::test]
async fn only_the_schemas_that_were_asked_for() {
    let database = database(FAULTS).await;
    let url = database.address().to_secret_url();
    let audit_of = json(&url, &["--schemas", "analyt*"]);
    assert_eq!(audit_of["summary"]["tables"], 1);
    let kinds: Vec<String> = found(&audit_of).into_keys().collect();
    assert_eq!(kinds, ["overlapping_schemas", "undeclared_key"]);
    let svg = text(&audit(&url, &["--schemas", "analytics", "--format", "svg"]));
    let told = "not drawn: 1 reference with one side outside of this picture";
    assert!(svg.contains(told), "{svg}");
    let none = audit(&url, &["--schemas", "curatd"]);
    assert_eq!(none.status.code(), Some(3));
    let error = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(error.contains("no schema matches `curatd`"), "{error}");
}

#[rstest]
#[case(&["--fail-on", "critical"], 1)]
#[case(&["--fail-on", "high", "--schemas", "hollow"], 0)]
#[case(&["--fail-on", "high", "--schemas", "analytics"], 1)]
#[case(&[], 0)]
#[case(&["--format", "pdf"], 2)]
#[case(&["--zone", "raw"], 2)]
#[case(&["--zone", "a=curated", "--zone", "b=curated"], 2)]
#[case(&["--zone", "a=curated", "--flow", "curated,raw_data"], 2)]
#[tokio::test]
async fn findings_fail_only_where_asked(#[case] more: &[&str], #[case] expected: i32) {
    let database = database(FAULTS).await;
    let output = audit(&database.address().to_secret_url(), more);
    assert_eq!(output.status.code(), Some(expected), "{more:?}");
}

#[test]
fn a_database_that_cannot_be_reached_is_no_audit() {
    let output = audit("postgres://ann:secret%2Fword@127.0.0.1:1/shop", &[]);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("could not reach") && !error.contains("secret"),
        "{error}"
    );
    assert!(output.stdout.is_empty());
}

/// A role that may connect sees what the owner sees; orphans it may not count make the exit code 3.
#[tokio::test]
async fn a_role_without_any_privilege_can_audit() {
    let database = database(FAULTS).await;
    let mut connection = database.connect().await.unwrap();
    let role = format!(
        "auditor_{}",
        database
            .name()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    );
    let create = sqlx::AssertSqlSafe(format!("create role {role} login password 'audit'"));
    sqlx::raw_sql(create)
        .execute(&mut connection)
        .await
        .unwrap();
    let options = database
        .address()
        .options()
        .clone()
        .username(&role)
        .password("audit");
    let url = postern::pg::Address::from_options(options).to_secret_url();
    let (own, theirs) = (
        json(&database.address().to_secret_url(), &[]),
        json(&url, &[]),
    );
    assert_eq!(found(&own), found(&theirs));
    assert_eq!(own["summary"], theirs["summary"]);
    let output = audit(&url, &["--count-orphans"]);
    let refused = text(&output);
    let dropped = sqlx::AssertSqlSafe(format!("drop role {role}"));
    sqlx::raw_sql(dropped)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{refused}");
    assert!(
        refused.contains("were not counted: permission denied"),
        "{refused}"
    );
}

/// A table that somebody holds exclusively is not waited for.
#[tokio::test]
async fn no_lock_is_waited_for() {
    let database = database(FAULTS).await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql("create index partial on curated.teams (city) where city > 'm'; begin; lock table curated.teams in access exclusive mode")
        .execute(&mut connection)
        .await
        .unwrap();
    let audit = json(&database.address().to_secret_url(), &[]);
    assert_eq!(audit["notes"], serde_json::json!([]));
    let teams = audit["tables"].as_array().unwrap();
    let teams = teams.iter().find(|table| table["name"] == "teams").unwrap();
    assert!(teams["bytes"].as_u64().unwrap() > 0);
}

const ODD: &str = r#"
create schema "Odd "" <b>&`|`_*"; create schema "Ünï";
create table "Odd "" <b>&`|`_*"."Gämes" ("Id" int primary key, "select" text);
create table "Ünï"."we""ird.table ]" ("a b" int primary key, "gämeId" int, "x'y" int references "Odd "" <b>&`|`_*"."Gämes");
create table "Ünï"."line
break" ("Id" int primary key);
comment on schema "Ünï" is E'two\nlines | and </text><script>alert(1)</script>';
analyze;
"#;

#[tokio::test]
async fn odd_names_survive_every_rendering() {
    let database = database(ODD).await;
    let url = database.address().to_secret_url();
    let audit_of = json(&url, &[]);
    let objects = found(&audit_of);
    assert_eq!(
        objects["undeclared_key"],
        [r#"Ünï."we""ird.table ]" (gämeId)"#]
    );
    assert_eq!(objects["key_without_index"].len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let file = |format: &str| folder.path().join(format);
    let formats = ["terminal", "markdown", "svg", "mermaid"];
    let arguments: Vec<String> = formats
        .iter()
        .flat_map(|format| {
            [
                "--format".to_owned(),
                format!("{format}={}", file(format).display()),
            ]
        })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = audit(&url, &arguments);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    let read = |format: &str| std::fs::read_to_string(file(format)).unwrap();
    let svg = read("svg");
    assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
    assert!(
        svg.contains("Odd &quot;&quot; &lt;b&gt;&amp;`|`_*")
            || svg.contains("Odd &quot; &lt;b&gt;&amp;`|`_*"),
        "{svg}"
    );
    well_formed(&svg);
    insta::assert_snapshot!("odd_mermaid", read("mermaid"));
    let markdown = read("markdown");
    let rows = markdown.lines().filter(|line| line.contains("two lines"));
    assert_eq!(rows.count(), 1, "a comment stays in its row: {markdown}");
    assert!(!markdown.contains(" <script>"), "{markdown}");
    assert!(read("terminal").contains("line break"));
}

/// Tags open and close in order, and nothing is left of markup in between.
fn well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(
            !rest[..start].contains('>'),
            "a stray > before {}",
            &rest[start..]
        );
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[tokio::test]
async fn a_person_reads_the_numbers_and_then_the_worst() {
    let database = database(FAULTS).await;
    let url = database.address().to_secret_url();
    insta::with_settings!({filters => vec![
        (r"postgres://\S+, PostgreSQL .*", "[origin]"),
        (r"owner +", "owner "), (r"-\+-+\+-+\n", "-+[…]\n"),
        (r"\| (postgres|pg_database_owner|\w+) +\|( what people read| standard public schema|)\n", "| [owner] |$2\n"),
        (r"[0-9.]+ (kB|MB|B)\b", "[size]"), (r" +\[size\]", " [size]"), (r"since [^,]+,", "since [then],"),
    ]}, {
        insta::assert_snapshot!("terminal", text(&audit(&url, &[])));
    });
    let svg = text(&audit(&url, &["--format", "svg"]));
    well_formed(&svg);
    assert_eq!(
        svg.matches("class=\"line broken\"").count(),
        2 + 1,
        "two broken keys and the legend"
    );
    let markdown = text(&audit(&url, &["--format", "markdown"]));
    assert!(
        markdown.contains("### critical: keys that are not valid (1)"),
        "{markdown}"
    );
    assert!(
        markdown.contains("```mermaid\nflowchart LR\n"),
        "{markdown}"
    );
}

#[tokio::test]
async fn hundreds_of_tables_stay_readable() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql("set large.schemas = 4")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::raw_sql(include_str!("../data/large_catalog.sql"))
        .execute(&mut connection)
        .await
        .unwrap();
    let url = database.address().to_secret_url();
    let terminal = text(&audit(&url, &[]));
    assert!(
        terminal.lines().count() < 250,
        "{} lines",
        terminal.lines().count()
    );
    assert!(
        terminal.contains("and 390 more; --all shows them"),
        "{terminal}"
    );
    let all = text(&audit(&url, &["--all"]));
    assert!(!all.contains("--all shows") && all.lines().count() > 1_000);
    let svg = text(&audit(&url, &["--format", "svg"]));
    assert!(
        svg.contains("400 tables are too many to draw one by one"),
        "{svg}"
    );
    assert_eq!(svg.matches("class=\"box\"").count(), 5);
    assert!(text(&audit(&url, &["--format", "mermaid"])).lines().count() < 20);
}
