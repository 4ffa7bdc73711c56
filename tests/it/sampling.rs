//! Gates that look at a sample: what it decides, and that it never passes silently.

use postern::pg::Database;
use rstest::rstest;

use crate::project::{Project, Said};
use crate::support;

/// 20,000 rows in over a thousand blocks: 3% of `bad` is below 0 here and there, `lump` in whole blocks.
const TABLE: &str = r#"
create schema s;
create table s.parents (id int primary key);
insert into s.parents select generate_series(0, 99);
create table s.t (id int primary key, ok int, bad int, lump int, few int, code text, parent int, note text, filler text);
alter table s.t alter filler set storage plain;
insert into s.t select g, 1, case when g % 100 < 3 then -1 else 1 end, case when g % 2000 < 60 then -1 else 1 end,
    case when g % 100 < 3 then null else 1 end, case when g % 100 < 3 then 'X' else 'A' end,
    case when g % 100 < 3 then 1000 else g % 100 end, case when g % 100 < 3 then 'dummy' else 'fine' end, repeat('x', 400)
  from generate_series(1, 20000) g;
create table s.none (like s.t);
create view s.v as select * from s.t;
create materialized view s.m as select * from s.t;
create table s.parts (id int, ok int, filler text) partition by hash (id);
create table s.parts_a partition of s.parts for values with (modulus 2, remainder 0);
create table s.parts_b partition of s.parts for values with (modulus 2, remainder 1);
insert into s.parts select id, ok, filler from s.t;
create table s.old (id int, ok int);
create table s.young () inherits (s.old);
create extension file_fdw;
create server files foreign data wrapper file_fdw;
create foreign table s.f (id int, ok int) server files options (filename '/dev/null');
create table s.mixed (id int, ok int) partition by list (id);
create foreign table s.mixed_f partition of s.mixed for values in (1) server files options (filename '/dev/null');
"#;

async fn filled() -> Database {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    sqlx::raw_sql(TABLE).execute(&mut session).await.unwrap();
    database
}

/// Gates `g00`, `g01`, … of the fields that each has beside its id.
fn suite<'a>(gates: impl IntoIterator<Item = &'a str>) -> String {
    let numbered = gates.into_iter().enumerate();
    numbered
        .map(|(index, fields)| {
            let fields = fields.replace("; ", "\n");
            format!("[[gate]]\nid='g{index:02}'\n{fields}\n")
        })
        .collect()
}

fn check(project: &Project, database: &Database, more: &[&str]) -> Said {
    let url = database.address().to_secret_url();
    let check = ["check", "--format", "json", "--url", &url];
    project.run(&[&check, more].concat())
}

fn outcomes(said: &Said) -> Vec<String> {
    let told = said.told();
    told.iter().map(|line| line[4..].to_owned()).collect()
}

const RANGE: &str = "kind='range'; table='s.t'; min=0; ";

/// Fields of a gate, and what becomes of it.
const CASES: &[(&str, &str)] = &[
    ("column='ok'; at_most='5%'; sample='20%'", "passed"),
    ("column='bad'; at_most='8%'; sample='20%'", "passed"),
    (
        "column='bad'; at_most='8%'; warn_above='3%'; sample='20%'",
        "warned",
    ),
    ("column='bad'; at_most='0.1%'; sample='20%'", "failed"),
    ("column='bad'; at_most='3.1%'; sample='20%'", "errored"),
    ("column='ok'; at_most='0.5%'; sample='20%'", "errored"),
    // Rows that offend in whole blocks tell less than as many here and there.
    ("column='lump'; at_most='12%'; sample='20%'", "passed"),
    ("column='lump'; at_most='0.1%'; sample='20%'", "failed"),
    // No sample shows that not one row offends; one row shows that some do.
    ("column='ok'; sample='20%'", "errored"),
    ("column='bad'; sample='20%'", "failed"),
    ("column='bad'; sample='20%'; severity='warn'", "failed"),
    // Less than a block in a hundred thousand.
    ("column='ok'; at_most='5%'; sample='0.001%'", "errored"),
    (
        "column='ok'; at_most='5%'; where='id < 0'; sample='20%'",
        "errored",
    ),
    (
        "column='ok'; at_most='5%'; sample='20%'; confidence='99.9999999%'",
        "errored",
    ),
    (
        "column='bad'; at_most='8%'; where='id % 3 = 0'; sample='30%'",
        "passed",
    ),
];

#[tokio::test]
async fn a_sample_decides_only_where_its_whole_interval_does() {
    let database = filled().await;
    let gates: Vec<String> = CASES.iter().map(|case| [RANGE, case.0].concat()).collect();
    let project = Project::new(&[("gates/g.toml", &suite(gates.iter().map(String::as_str)))]);
    let said = check(&project, &database, &[]);
    let expected: Vec<_> = CASES.iter().map(|case| case.1).collect();
    assert_eq!(outcomes(&said), expected, "{}", said.all());
    assert_eq!(said.code, Some(3));
    let report = said.json();
    for gate in report["gates"].as_array().unwrap() {
        let message = gate["message"].as_str().unwrap();
        assert!(message.contains("sample"), "{message}");
        let sample = &gate["sample"];
        let (low, high) = (
            &sample["percent_offending_min"],
            &sample["percent_offending_max"],
        );
        assert!(low.as_f64() <= high.as_f64(), "{gate}");
        assert_eq!(
            gate["outcome"] == "errored",
            !sample["help"].is_null(),
            "{gate}"
        );
        assert_eq!(gate["help"], sample["help"]);
    }
    // A failure names rows of the sample.
    let failed = &report["gates"][3];
    assert_eq!(failed["rows"].as_array().unwrap().len(), 10);
    assert!(
        failed["sql"]
            .as_str()
            .unwrap()
            .contains("tablesample system ('20') repeatable (1)")
    );
    let checked = failed["rows_checked"].as_u64().unwrap();
    assert!((2000..6000).contains(&checked), "{checked}");
    let help = report["gates"][5]["help"].as_str().unwrap();
    assert!(help.contains("remove `sample`"), "{help}");
}

/// One gate of each kind that can be sampled: 3% offend.
const KINDS: &[&str] = &[
    "kind='accepted_values'; table='s.t'; column='code'; values=['A']",
    "kind='accepted_values'; table='s.t'; column='parent'; from='s.parents.id'",
    "kind='foreign_key'; table='s.t'; columns=['parent']; references='s.parents'",
    "kind='mock_data'; table='s.t'; columns=['note']; sensitivity='low'",
    "kind='pattern'; table='s.t'; column='code'; regex='^A$'",
    "kind='range'; table='s.t'; column='few'; min=0; nulls='offend'",
    "kind='relation'; table='s.t'; left='bad'; right='ok'",
    "kind='completeness'; table='s.t'; columns=['few']",
];

#[tokio::test]
async fn every_kind_that_looks_at_rows_one_by_one_can_be_sampled() {
    let database = filled().await;
    let bounded = |limit: u32| {
        let gates: Vec<String> = KINDS
            .iter()
            .map(|kind| {
                let bound = match kind.starts_with("kind='completeness'") {
                    true => format!("at_least='{}%'", 100 - limit),
                    false => format!("at_most='{limit}%'"),
                };
                format!("{kind}; {bound}; sample='30%'")
            })
            .collect();
        suite(gates.iter().map(String::as_str))
    };
    for (limit, expected) in [(9, "passed"), (1, "failed")] {
        let project = Project::new(&[("gates/g.toml", &bounded(limit))]);
        let url = database.address().to_secret_url();
        let said = check(&project, &database, &[]);
        assert_eq!(
            outcomes(&said),
            vec![expected; KINDS.len()],
            "{}",
            said.all()
        );
        // All of them share one pass over the sample, and nothing else reads the table.
        let explained = project
            .run(&["explain", "--format", "json", "--url", &url])
            .json();
        let statements = explained["statements"].as_array().unwrap();
        assert_eq!(statements.len(), 1, "{explained}");
        assert!(explained.to_string().contains("Sample Scan"));
        for seed in 2..12 {
            let said = check(&project, &database, &["--seed", &seed.to_string()]);
            let report = said.json();
            for gate in report["gates"].as_array().unwrap() {
                let sample = &gate["sample"];
                assert_eq!(sample["seed"], seed);
                let end = |name: &str| sample[name].as_f64().unwrap();
                assert!(
                    end("percent_offending_min") <= 3.0 && end("percent_offending_max") >= 3.0,
                    "{gate}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_same_seed_takes_the_same_rows() {
    let database = filled().await;
    let gate = [RANGE, "column='bad'; at_most='0.1%'; sample='5%'"].concat();
    let project = Project::new(&[("gates/g.toml", &suite([gate.as_str()]))]);
    let gates = |seed: &str| check(&project, &database, &["--seed", seed]).json()["gates"].clone();
    assert_eq!(gates("7"), gates("7"));
    assert_ne!(gates("7"), gates("8"));
}

#[tokio::test]
async fn what_has_no_blocks_of_its_own_cannot_be_sampled() {
    let database = filled().await;
    let of = |table: &str| {
        format!("kind='range'; table='s.{table}'; column='ok'; min=0; at_most='20%'; sample='20%'")
    };
    let tables = [
        ("t", "passed"),
        ("m", "passed"),
        ("parts", "passed"),
        ("none", "skipped"),
        ("v", "is a view"),
        ("f", "is a foreign table"),
        ("old", "other tables that inherit from it"),
        ("mixed", "a foreign partition"),
    ];
    let gates = tables.map(|(table, _)| of(table));
    let project = Project::new(&[("gates/g.toml", &suite(gates.iter().map(String::as_str)))]);
    let said = check(&project, &database, &[]);
    let report = said.json();
    for (gate, (table, expected)) in report["gates"].as_array().unwrap().iter().zip(tables) {
        let (outcome, message) = (&gate["outcome"], gate["message"].as_str().unwrap());
        let is_there =
            *outcome == expected || (*outcome == "errored" && message.contains(expected));
        assert!(is_there, "{table}: {gate}");
    }
}

#[tokio::test]
async fn what_the_catalog_proves_needs_no_sample() {
    let database = filled().await;
    let gate = "kind='completeness'; table='s.t'; columns=['id']; sample='1%'";
    let project = Project::new(&[("gates/g.toml", &suite([gate]))]);
    let proved = check(&project, &database, &[]);
    assert_eq!(outcomes(&proved), ["passed"], "{}", proved.all());
    assert!(proved.json()["gates"][0]["sample"].is_null());
    let scanned = check(&project, &database, &["--scan"]);
    assert_eq!(outcomes(&scanned), ["errored"], "{}", scanned.all());
}

#[tokio::test]
async fn the_terminal_says_that_it_was_a_sample_and_what_would_decide() {
    let database = filled().await;
    let gates = [
        [RANGE, "column='ok'; at_most='5%'; sample='20%'"].concat(),
        [RANGE, "column='ok'; at_most='3%'; sample='5%'"].concat(),
    ];
    let project = Project::new(&[("gates/g.toml", &suite(gates.iter().map(String::as_str)))]);
    let url = database.address().to_secret_url();
    let said = project.run(&["check", "--verbose", "--url", &url]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let pass = said.stdout.lines().find(|line| line.starts_with("pass"));
    assert!(
        pass.unwrap().contains("; sampled 20% of the table: "),
        "{}",
        said.stdout
    );
    let help = said
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("  help      sample = \""));
    let share = help.unwrap().split('"').next().unwrap().to_owned();
    // What it says does decide.
    project.write(
        "gates/g.toml",
        &suite([[
            RANGE,
            &format!("column='ok'; at_most='3%'; sample='{share}'"),
        ]
        .concat()
        .as_str()]),
    );
    let said = project.run(&["check", "--url", &url, "--seed", "3"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
}

#[rstest]
#[case(
    "kind='unique'; columns=['id']",
    "a sample of the rows cannot answer this gate"
)]
#[case(
    "kind='row_count'; equals=3",
    "a sample of the rows cannot answer this gate"
)]
#[case(
    "kind='freshness'; column='at'; max_age='1d'",
    "a sample of the rows cannot answer this gate"
)]
#[case(
    "kind='row_count_parity'; against='s.u'",
    "a sample of the rows cannot answer this gate"
)]
#[case("kind='mock_data'", "which dates and numbers stand for none")]
#[case(
    "kind='range'; column='n'; min=0; at_most=3",
    "a sample tells shares of rows"
)]
#[case(
    "kind='completeness'; columns=['n']; at_least=3",
    "a sample tells shares of rows"
)]
#[case("kind='range'; column='n'; min=0; confidence='40%'", "says nothing")]
fn where_a_sample_cannot_answer_the_definition_is_refused(
    #[case] fields: &str,
    #[case] expected: &str,
) {
    let gate = format!("{fields}; table='s.t'; sample='1%'");
    let project = Project::new(&[("gates/g.toml", &suite([gate.as_str()]))]);
    let said = project.run(&["lint"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.all().contains(expected), "{}", said.all());
    assert!(said.all().contains("help: "), "{}", said.all());
}

#[rstest]
#[case("sample='0%'", "is not a share above 0% and below 100%")]
#[case("sample='100%'", "is not a share above 0% and below 100%")]
#[case("sample=5", "is not a share above 0% and below 100%")]
#[case("sample='much'", "neither a count")]
#[case("confidence='99%'", "`confidence` without `sample`")]
fn a_share_is_more_than_nothing_and_less_than_all(#[case] fields: &str, #[case] expected: &str) {
    let gate = format!("kind='range'; table='s.t'; column='n'; min=0; {fields}");
    let project = Project::new(&[("gates/g.toml", &suite([gate.as_str()]))]);
    let said = project.run(&["lint"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.all().contains(expected), "{}", said.all());
}
