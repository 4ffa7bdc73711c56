//! Every kind on a real Postgres: `fixtures/kinds/<kind>/` holds `gate.toml` and one database per
//! `.sql` file, whose first lines say what the gates must find there.
//!
//! ```text
//! -- gate ID: OUTCOME, OFFENDING of CHECKED
//! --   message
//! --   found: WHAT            (a finding; `told:` when the gate does not fail for it)
//! --   repair: SQL
//! --   row: KEY=VALUE (WHAT)
//! ```
//!
//! `POSTERN_FIXTURES=update` writes the lines anew for the gates that a file names; read them then.
//! A file `<case>.other.sql` is the database of the target `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use postern::gate::catalog::Side;
use postern::gate::kinds::KINDS;
use postern::gate::{Gate, LoadOptions};
use postern::pg::Address;
use postern::report::format::{Format, Look};
use postern::report::{FailOn, GateReport, Report};
use postern::run::{Findings, Options, State};
use rstest::rstest;

use crate::support;

const FOLDER: &str = "fixtures/kinds";

/// What a gate found, as the head of a fixture says it.
fn told(gate: &GateReport) -> String {
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut out = format!("-- gate {}: {}", gate.id, gate.outcome.as_str());
    match (gate.outcome, &gate.sqlstate) {
        (State::Errored, Some(code)) => out.push_str(&format!(" {code}")),
        (State::Errored, None) => {}
        _ => out.push_str(&format!(
            ", {} of {}",
            number(gate.rows_offending),
            number(gate.rows_checked)
        )),
    }
    let mut line = |text: String| {
        let text = without_times(&text.replace('\n', " "));
        out.push_str(&format!("\n--   {text}"));
    };
    line(gate.message.clone());
    for finding in &gate.findings {
        let word = if finding.is_failure { "found" } else { "told" };
        line(format!("{word}: {}", finding.what));
        if let Some(repair) = &finding.repair {
            line(format!("repair: {repair}"));
        }
    }
    for row in &gate.rows {
        let key: Vec<String> = row
            .key
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null")))
            .collect();
        let what = row
            .what
            .as_ref()
            .map_or_else(String::new, |what| format!(" ({what})"));
        line(format!("row: {}{what}", key.join(" ")));
    }
    out
}

/// A measured time is never the same twice: `12.3 ms at` becomes `… ms at`.
fn without_times(text: &str) -> String {
    match text.split_once(" ms at percentile") {
        Some((before, rest)) => {
            let start = before.rfind(' ').map_or(0, |space| space + 1);
            format!("{}… ms at percentile{rest}", &before[..start])
        }
        None => text.to_owned(),
    }
}

/// The lines at the head of a fixture that say what is expected, and the rest.
fn split(text: &str) -> (Vec<&str>, &str) {
    let is_head = |line: &&str| line.starts_with("-- gate ") || line.starts_with("--   ");
    let head: Vec<&str> = text.lines().take_while(is_head).collect();
    let length: usize = head.iter().map(|line| line.len() + 1).sum();
    (head, &text[length.min(text.len())..])
}

/// The gates that the head of a fixture names.
fn named(head: &[&str]) -> Vec<String> {
    head.iter()
        .filter_map(|line| line.strip_prefix("-- gate "))
        .map(|rest| rest.split(':').next().unwrap_or(rest).trim().to_owned())
        .collect()
}

/// The databases of a kind: every `.sql` file that is not the other side of one.
fn cases(kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(FOLDER).join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "sql"))
        .filter(|path| !path.to_string_lossy().ends_with(".other.sql"))
        .collect();
    files.sort();
    files
}

async fn load(path: &Path) -> postern::pg::Database {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    if let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(text))
        .execute(&mut connection)
        .await
    {
        panic!("{}: {error}", path.display());
    }
    database
}

async fn outcome(case: &Path, gates: &[Gate]) -> String {
    let database = load(case).await;
    let mut targets = BTreeMap::from([(Side::Main, database.address().clone())]);
    let other = case.with_extension("other.sql");
    if other.exists() {
        let side = load(&other).await;
        targets.insert(Side::Other("other".to_owned()), side.address().clone());
    }
    let findings = postern::run::check(gates, &targets, &Options::default()).await;
    let report = Report::new(gates, findings, database.address(), FailOn::Block);
    for gate in &report.gates {
        shows_its_figures(case, gate);
        shows_all_rows(case, gate, &database).await;
    }
    let told: Vec<String> = report.gates.iter().map(told).collect();
    // Its name is another each time.
    told.join("\n").replace(database.name(), "DATABASE")
}

/// Whatever became of a gate, if it was evaluated: what was measured and what it was held against, as
/// values and for a person who asks for it.
fn shows_its_figures(case: &Path, gate: &GateReport) {
    if gate.outcome == State::Errored {
        return;
    }
    let place = format!("{}: {}", case.display(), gate.id);
    let measured = gate.measured.as_ref().expect(&place);
    let threshold = gate.threshold.as_ref().expect(&place);
    let level = threshold.fail.as_deref().expect(&place);
    assert!(measured.value.is_finite(), "{place}");
    assert!(!measured.display.is_empty() && !level.is_empty(), "{place}");
    let report = Report {
        gates: vec![gate.clone()],
        ..Report::new(&[], nothing(), &address(), FailOn::Block)
    };
    let look = Look {
        is_verbose: true,
        is_coloured: false,
    };
    let text = Format::Terminal.render(&report, look);
    assert!(
        text.contains(&format!("expected  {level}\n")) || gate.outcome == State::Warned,
        "{place}: {text}"
    );
    if matches!(gate.outcome, State::Passed | State::Skipped) {
        let line = format!("measured  {}\n", measured.display);
        assert!(text.contains(&line), "{place}: {text}");
        let quiet = Format::Terminal.render(&report, Look::default());
        assert!(!quiet.contains(&line), "{place}: {quiet}");
    }
}

fn nothing() -> Findings {
    Findings {
        snapshot: None,
        outcomes: Vec::new(),
        notes: Vec::new(),
    }
}

fn address() -> Address {
    Address::parse("postgres://ann@db.example/shop").unwrap()
}

/// The SQL in the report runs as it is, and shows no fewer rows than the report names.
async fn shows_all_rows(case: &Path, gate: &GateReport, database: &postern::pg::Database) {
    let Some(sql) = gate.sql.as_ref().filter(|_| gate.outcome != State::Errored) else {
        assert!(gate.rows.is_empty(), "{}: {}", case.display(), gate.id);
        return;
    };
    let mut connection = database.connect().await.unwrap();
    let found = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
        .fetch_all(&mut connection)
        .await;
    let found = found.unwrap_or_else(|error| panic!("{}: {error}\n{sql}", case.display()));
    assert!(
        !found.is_empty() && found.len() >= gate.rows.len(),
        "{}: {}: {} rows\n{sql}",
        case.display(),
        gate.id,
        found.len()
    );
}

#[rstest]
#[case("accepted_values")]
#[case("completeness")]
#[case("content_parity")]
#[case("foreign_key")]
#[case("freshness")]
#[case("mock_data")]
#[case("pattern")]
#[case("permissions")]
#[case("query_budget")]
#[case("range")]
#[case("relation")]
#[case("row_count")]
#[case("row_count_parity")]
#[case("schema_layout")]
#[case("sql")]
#[case("unique")]
#[tokio::test]
async fn a_kind_finds_what_its_fixtures_say(#[case] kind: &str) {
    let folder = Path::new(FOLDER).join(kind);
    let gates = postern::gate::load(&[folder.join("gate.toml")], &LoadOptions::default())
        .unwrap()
        .gates;
    assert!(gates.iter().all(|gate| gate.kind == kind), "{kind}");
    let is_update = std::env::var_os("POSTERN_FIXTURES").is_some_and(|word| word == "update");
    let mut unproved: BTreeSet<&str> = gates.iter().map(|gate| gate.id.as_str()).collect();
    let mut wrong = Vec::new();
    for case in cases(kind) {
        let text = std::fs::read_to_string(&case).unwrap();
        let (head, body) = split(&text);
        let names = named(&head);
        assert!(!names.is_empty(), "{} names no gate", case.display());
        let wanted: Vec<Gate> = names
            .iter()
            .map(|name| {
                unproved.remove(name.as_str());
                let found = gates.iter().find(|gate| &gate.id == name);
                found
                    .unwrap_or_else(|| panic!("{} names `{name}`", case.display()))
                    .clone()
            })
            .collect();
        let found = outcome(&case, &wanted).await;
        if is_update {
            std::fs::write(&case, format!("{found}\n{body}")).unwrap();
        } else if found != head.join("\n") {
            wrong.push(format!(
                "{} says\n{}\nfound\n{found}",
                case.display(),
                head.join("\n")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(unproved.is_empty(), "no fixture proves {unproved:?}");
}

#[test]
fn every_kind_has_its_fixtures_and_its_page() {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let mut folders: Vec<String> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    assert_eq!(folders, kinds);
    let text = include_str!("kinds.rs");
    let page = std::fs::read_to_string("gates/README.md").unwrap();
    for kind in kinds {
        assert!(
            text.contains(&format!("#[case(\"{kind}\")]")),
            "{kind} is not a case above"
        );
        assert!(
            page.contains(&format!("\n## `{kind}`\n")),
            "{kind} has no page"
        );
        for case in ["gate.toml", "pass.sql", "fail.sql", "empty.sql", "odd.sql"] {
            let path = Path::new(FOLDER).join(kind).join(case);
            assert!(path.exists(), "{} is missing", path.display());
        }
    }
}

/// A fixture proves all four outcomes of data: it holds, it does not, there is none, odd names.
#[test]
fn a_fixture_is_what_its_name_says() {
    for kind in KINDS {
        for (case, outcomes) in [
            ("pass.sql", &["passed"][..]),
            ("fail.sql", &["failed", "warned"]),
        ] {
            let path = Path::new(FOLDER).join(kind.name).join(case);
            let text = std::fs::read_to_string(&path).unwrap();
            let (head, _) = split(&text);
            for line in head.iter().filter(|line| line.starts_with("-- gate ")) {
                let is_right = outcomes
                    .iter()
                    .any(|word| line.contains(&format!(": {word}")));
                assert!(is_right, "{}: {line}", path.display());
            }
        }
        let path = Path::new(FOLDER).join(kind.name).join("empty.sql");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(": passed"), "{} passes", path.display());
    }
}

/// Definitions that parse and cannot be meant: what is said of each.
#[rstest]
#[case::neither("kind='foreign_key'", "either `table` or `schemas`")]
#[case::both(
    "kind='foreign_key'\ntable='t'\nschemas=['s']",
    "either `table` or `schemas`"
)]
#[case::no_target(
    "kind='foreign_key'\ntable='t'\ncolumns=['a']",
    "`references` is missing"
)]
#[case::match_of_all("kind='foreign_key'\nschemas=['s']\nmatch='full'", "go with `table`")]
#[case::allow_of_one(
    "kind='foreign_key'\ntable='t'\ncolumns=['a']\nreferences='u'\nallow=['x']",
    "`allow` goes with `schemas`"
)]
#[case::groups_of_a_map(
    "kind='row_count_parity'\ngroup_by=['a']\nmap={'a'='b'}",
    "not with `map`"
)]
#[case::no_values(
    "kind='accepted_values'\ntable='t'\ncolumn='a'",
    "either `values` or `from`"
)]
#[case::no_column(
    "kind='accepted_values'\ntable='t'\ncolumn='a'\nfrom='lonely'",
    "expected `schema.table.column`"
)]
#[case::no_bound("kind='range'\ntable='t'\ncolumn='a'", "without a bound cannot fail")]
#[case::no_number(
    "kind='range'\ntable='t'\ncolumn='a'\nmin=5\nmax=4.9",
    "no number is in the range"
)]
#[case::no_point(
    "kind='range'\ntable='t'\ncolumn='a'\nmin=5\nmax=5\nmax_exclusive=true",
    "no number is in the range"
)]
#[case::exclusive_nothing(
    "kind='range'\ntable='t'\ncolumn='a'\nmin=5\nmax_exclusive=true",
    "`max_exclusive` without `max`"
)]
#[case::a_date(
    "kind='range'\ntable='t'\ncolumn='a'\nmin=2025-01-01",
    "wrong value for `min`"
)]
#[case::two_patterns(
    "kind='pattern'\ntable='t'\ncolumn='a'\nregex='a'\nlike='a'",
    "either `regex` or `like`"
)]
#[case::no_operator(
    "kind='relation'\ntable='t'\nleft='a'\nright='b'\nop='=='",
    "unknown variant `==`"
)]
#[case::tolerant_order(
    "kind='relation'\ntable='t'\nleft='a'\nright='b'\nop='<'\ntolerance=1",
    "`tolerance` goes with"
)]
#[case::less_than_none(
    "kind='relation'\ntable='t'\nleft='a'\nright='b'\ntolerance=-1",
    "`-1` is no distance"
)]
#[case::no_layout("kind='schema_layout'", "cannot fail")]
#[case::no_direction("kind='schema_layout'\nflow=['a > b']", "is no direction")]
#[case::no_roles("kind='permissions'\nschemas=['s']", "missing field `roles`")]
#[case::table_privilege(
    "kind='permissions'\nschemas=['s']\nroles={a={'s'=['select']}}",
    "is a schema and has no privilege `select`"
)]
#[case::function_privilege(
    "kind='permissions'\nschemas=['s']\nroles={a={}}\nfunctions={a={'s.*'=['select']}}",
    "`s.*` of `a` is a function and has no privilege `select`"
)]
#[case::table_privilege_of_another(
    "kind='permissions'\nschemas=['s']\nroles={a={'s.*'=['execute']}}",
    "write it in a line of `functions`"
)]
#[case::database_privilege(
    "kind='permissions'\nschemas=['s']\nroles={a={}}\ndatabase={a=['usage']}",
    "the database, in the line of `a`, has no privilege `usage`"
)]
#[case::no_role(
    "kind='permissions'\nschemas=['s']\nroles={a={}}\nsequences={b={'s.*'=['usage']}}",
    "`b` is no role of `roles`"
)]
#[case::no_privilege(
    "kind='permissions'\nschemas=['s']\nroles={a={'s.*'=['read']}}",
    "unknown variant `read`"
)]
#[case::no_query("kind='query_budget'\nbudget='1s'", "either `query` or `file`")]
#[case::no_sql("kind='sql'", "either `query` or `file`")]
#[case::two_sqls(
    "kind='sql'\nquery='select 1'\nfile='x.sql'",
    "both `query` and `file`"
)]
#[case::no_sql_file("kind='sql'\nfile='nowhere.sql'", "could not read `nowhere.sql`")]
#[case::no_day(
    "kind='freshness'\ntable='t'\ncolumn='a'\nmax_age='1d'\ncalendar={seasons=[{from='07-01',to='07-01'}],except=[],weekdays=[]}\nwarn_age='2d'",
    "can never fire"
)]
#[case::no_day_at_all(
    "kind='freshness'\ntable='t'\ncolumn='a'\nmax_age='1d'\ncalendar={seasons=[{from='02-30',to='03-01'}]}",
    "`02-30` is no day of a year"
)]
#[case::calendar_without_column(
    "kind='freshness'\ntable='t'\ncolumn='a'\nmax_age='1d'\ncalendar={table='s.games'}",
    "`table` and `column` of a calendar go together"
)]
#[case::no_zone(
    "kind='freshness'\ntable='t'\ncolumn='a'\nmax_age='1d'\ncalendar={time_zone='Nowhere/At_All'}",
    "this machine knows no time zone `Nowhere/At_All`"
)]
#[case::no_limit("kind='query_budget'\nquery='select 1'", "without a limit cannot fail")]
#[case::two_queries(
    "kind='query_budget'\nquery='select 1'\nfile='x.sql'\nbudget='1s'",
    "both `query` and `file`"
)]
#[case::no_file(
    "kind='query_budget'\nfile='nowhere.sql'\nbudget='1s'",
    "could not read `nowhere.sql`"
)]
#[case::late_warning(
    "kind='query_budget'\nquery='select 1'\nbudget='1s'\nwarn_budget='2s'",
    "can never fire"
)]
#[case::no_percentile(
    "kind='query_budget'\nquery='select 1'\nbudget='1s'\npercentile=101",
    "from 1 to 100"
)]
#[case::no_runs(
    "kind='query_budget'\nquery='select 1'\nbudget='1s'\nruns=0",
    "expected 1 to 1000 runs"
)]
fn a_definition_that_cannot_be_meant_is_refused(#[case] fields: &str, #[case] said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suite.toml");
    std::fs::write(&path, format!("[[gate]]\nid='it'\n{fields}\n")).unwrap();
    let errors = postern::gate::load(&[path], &LoadOptions::default()).unwrap_err();
    let text: Vec<String> = errors.0.iter().map(|error| error.render(false)).collect();
    assert!(
        text.iter().any(|text| text.contains(said)),
        "{}",
        text.join("\n")
    );
}
