//! Offending rows in a report: values when they are asked for, what is masked nowhere, nothing too large.

mod every_kind;

use std::collections::BTreeSet;

use postern::pg::Database;
use rstest::rstest;
use serde_json::Value;

use crate::project::{Project, Said};
use crate::support;

async fn seeded(seed: &'static str) -> Database {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(seed).execute(&mut connection).await.unwrap();
    database
}

fn check(project: &Project, database: &Database, more: &[&str]) -> Said {
    let url = database.address().to_secret_url();
    let mut arguments = vec!["check", "--url", &url];
    arguments.extend(more);
    project.run(&arguments)
}

/// A gate of a JSON report.
fn gate<'a>(report: &'a Value, id: &str) -> &'a Value {
    let mut gates = report["gates"].as_array().unwrap().iter();
    gates.find(|gate| gate["id"] == id).unwrap()
}

/// `id=1: note=null email=[masked]` for each row of a gate; stand-ins without their digits.
fn rows(gate: &Value) -> Vec<String> {
    let columns = |columns: &Value| {
        let columns = columns.as_array().unwrap().iter().map(|column| {
            let value = column[1].as_str().unwrap_or("null");
            let value = if value.starts_with("[masked ") {
                "[masked …]"
            } else {
                value
            };
            format!("{}={value}", column[0].as_str().unwrap())
        });
        columns.collect::<Vec<_>>().join(" ")
    };
    let all = gate["rows"].as_array().unwrap().iter();
    all.map(|row| format!("{}: {}", columns(&row["key"]), columns(&row["values"])))
        .collect()
}

const PEOPLE: &str = r#"
create schema s;
create table s.people (id int primary key, email text unique, note text, city text, age int);
insert into s.people values (1, 'ann@x', null, 'Rome', -4), (2, null, null, null, 7), (3, 'joe@x', 'n', 'Bonn', -1);
comment on column s.people.email is 'how to reach them (Postern:Mask)';
create view s.contacts as select note, email as contact from s.people;
"#;

const GATES: &str = r#"
[[gate]]
id = "notes"
kind = "completeness"
table = "s.people"
columns = ["note"]
show = ["city", "email", "id"]

[[gate]]
id = "ages"
kind = "range"
table = "s.people"
column = "age"
min = 0

[[gate]]
id = "odd_ages"
kind = "relation"
table = "s.people"
left = "age + 1"
right = "length(city)"
key = ["email"]

[[gate]]
id = "contacts"
kind = "completeness"
table = "s.contacts"
columns = ["note"]
show = ["note", "contact"]

[[gate]]
id = "query"
kind = "sql"
query = "select id, email, city, age from s.people where age < 0 order by id"
key = ["id"]
show = ["city", "email"]
"#;

#[tokio::test]
async fn values_are_shown_only_when_they_are_asked_for() {
    let database = seeded(PEOPLE).await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let quiet = check(&project, &database, &["--format", "json"]);
    assert_eq!(quiet.code, Some(1), "{}", quiet.all());
    let quiet = quiet.json();
    assert_eq!(rows(gate(&quiet, "notes")), ["id=1: ", "id=2: "]);
    assert_eq!(rows(gate(&quiet, "query")), ["id=1: ", "id=3: "]);
    // A view has no key: without values there is nothing to name a row by.
    assert!(rows(gate(&quiet, "contacts")).is_empty());
    let asked = check(&project, &database, &["--values", "--format", "json"]).json();
    let told = |id: &str| rows(gate(&asked, id));
    // What is the key is not shown twice; null stays null.
    assert_eq!(
        told("notes"),
        [
            "id=1: city=Rome email=[masked]",
            "id=2: city=null email=null"
        ]
    );
    // Without `show` it is what the gate looks at.
    assert_eq!(told("ages"), ["id=1: age=-4", "id=3: age=-1"]);
    // What is computed from a table with a masked column may be that column.
    assert_eq!(
        told("odd_ages"),
        [
            "email=[masked …]: left=[masked] right=[masked]",
            "email=[masked …]: left=[masked] right=[masked]"
        ]
    );
    assert_eq!(
        told("contacts"),
        [": note=null contact=[masked]", ": note=null contact=null"]
    );
    assert_eq!(
        told("query"),
        [
            "id=1: city=Rome email=[masked]",
            "id=3: city=Bonn email=[masked]"
        ]
    );
}

/// The settings and the tag that the README shows.
#[tokio::test]
async fn what_the_readme_masks_is_masked() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let section = readme.split("## Values of offending rows").nth(1).unwrap();
    let block = |language: &str| -> &'static str {
        let block = section.split(&format!("```{language}\n")).nth(1).unwrap();
        block.split("```").next().unwrap().to_owned().leak()
    };
    let database = seeded(
        "create schema shop; create schema hr;
        create table shop.customers (id int primary key, phone text, email text, stake numeric);
        create table hr.people (id int primary key, name text);
        insert into shop.customers values (7, '555', 'ann@x', 12.50); insert into hr.people values (7, 'Ann');",
    )
    .await;
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(block("sql"))
        .execute(&mut connection)
        .await
        .unwrap();
    let project = Project::new(&[
        ("postern.toml", block("toml")),
        (
            "gates/customers.sql",
            "-- key: id\n-- show: stake, email, phone\nselect * from shop.customers",
        ),
        (
            "gates/people.sql",
            "-- key: id\n-- show: name\nselect * from hr.people",
        ),
    ]);
    let said = check(&project, &database, &["--values"]);
    assert_eq!(said.stderr, "");
    let line = block("text").trim_end();
    assert!(
        said.stdout.contains(&format!("{line} phone=[masked]\n")),
        "{}",
        said.all()
    );
    let person = said
        .stdout
        .lines()
        .find(|line| line.ends_with(" name=[masked]"));
    assert!(
        person.is_some_and(|line| line.contains("id=[masked ")),
        "{}",
        said.all()
    );
}

#[tokio::test]
async fn a_stand_in_tells_rows_apart_and_is_that_of_one_run() {
    let database = seeded(PEOPLE).await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let stand_ins = || -> Vec<String> {
        let report = check(&project, &database, &["--format", "json"]).json();
        let rows = gate(&report, "odd_ages")["rows"]
            .as_array()
            .unwrap()
            .clone();
        let keys = rows.iter().map(|row| row["key"][0][1].as_str().unwrap());
        keys.map(str::to_owned).collect()
    };
    let (first, second) = (stand_ins(), stand_ins());
    let all: BTreeSet<&String> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), 4, "{all:?}");
}

#[rstest]
#[case::groups(
    "kind='unique'\ntable='s.people'\ncolumns=['city']\nshow=['age']",
    "this gate names no single rows of one table"
)]
#[case::schemas(
    "kind='mock_data'\nschemas=['s']\nshow=['age']",
    "this gate names no single rows of one table"
)]
#[case::examples(
    "kind='completeness'\ntable='s.people'\ncolumns=['city']\nexamples=1001",
    "at most 1000 rows are named"
)]
#[case::columns(
    "kind='completeness'\ntable='s.people'\ncolumns=['city']\nshow=['a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a','a']",
    "at most 20 columns are shown"
)]
fn what_cannot_be_shown_is_refused(#[case] fields: &str, #[case] expected: &str) {
    let text = format!("[[gate]]\nid='x'\n{fields}\n");
    let project = Project::new(&[("gates/g.toml", &text)]);
    let said = project.run(&["check", "--url", "postgres://127.0.0.1:1/x"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains(expected), "{}", said.all());
}

#[tokio::test]
async fn a_column_to_show_that_is_not_there_is_an_error_even_when_nothing_is_shown() {
    let database = seeded(PEOPLE).await;
    let gates =
        "[[gate]]\nid='x'\nkind='completeness'\ntable='s.people'\ncolumns=['id']\nshow=['citty']\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let said = check(&project, &database, &[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(
        said.stdout.contains("did you mean `city`?"),
        "{}",
        said.all()
    );
}

#[tokio::test]
async fn errors_keep_their_words_where_nothing_is_masked_and_their_code_where_something_is() {
    let database = seeded(PEOPLE).await;
    let gates = "[[gate]]\nid='cast'\nkind='relation'\ntable='s.people'\nleft='city::int'\nright='1'\n\
        [[gate]]\nid='gone'\nkind='row_count'\ntable='s.peeple'\nat_least=1\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let masked = check(&project, &database, &["--format", "json"]).json();
    let cast = gate(&masked, "cast");
    assert_eq!(cast["sqlstate"], "22P02");
    assert!(
        cast["message"]
            .as_str()
            .unwrap()
            .contains("its words are withheld"),
        "{cast:#}"
    );
    assert!(
        cast["sql"].as_str().unwrap().contains("city::int"),
        "{cast:#}"
    );
    let gone = gate(&masked, "gone");
    assert!(
        gone["help"].as_str().unwrap().contains("s.people"),
        "{gone:#}"
    );
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql("comment on column s.people.email is null")
        .execute(&mut connection)
        .await
        .unwrap();
    let open = check(&project, &database, &["--format", "json"]).json();
    let message = gate(&open, "cast")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"Rome\""), "{message}");
}

#[tokio::test]
async fn a_pattern_that_matches_no_column_is_told() {
    let database = seeded(PEOPLE).await;
    let settings = "[mask]\ncolumns = [\"people.email\", \"people.e_mail\", \"S.people.*\"]\n";
    let project = Project::new(&[("gates/g.toml", GATES), ("postern.toml", settings)]);
    let said = check(&project, &database, &[]);
    let notes: Vec<&str> = said.stderr.lines().collect();
    assert_eq!(
        notes,
        [
            "note: `people.e_mail` in [mask] matches no column: nothing is masked by it",
            "note: `S.people.*` in [mask] matches no column: nothing is masked by it",
        ]
    );
    project.write(
        "postern.toml",
        "[mask]\ncolumns = [\"email\"]\ncolumn = []\n",
    );
    let said = check(&project, &database, &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains("write `*.email`"), "{}", said.all());
    assert!(
        said.stderr.contains("unknown field `column`"),
        "{}",
        said.all()
    );
}

const LONG: &str = r#"
create schema s;
create table s.texts (id int primary key, body text, more text);
insert into s.texts select n, repeat('ü', 100000 + n), null from generate_series(1, 1500) n;
"#;

#[tokio::test]
async fn long_values_and_many_rows_are_cut() {
    let database = seeded(LONG).await;
    let gates = "[[gate]]\nid='a'\nkind='completeness'\ntable='s.texts'\ncolumns=['more']\nshow=['body']\nexamples=1000\n\
        [[gate]]\nid='b'\nkind='completeness'\ntable='s.texts'\ncolumns=['more']\nkey=['body']\nexamples=2\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let said = check(&project, &database, &["--values", "--format", "json"]);
    let report = said.json();
    let a = gate(&report, "a");
    let cut = |n: u32| format!("{}... ({} characters)", "ü".repeat(200), 100_000 + n);
    assert_eq!(a["rows"][0]["values"][0][1], cut(1));
    // 64 KiB of text are a gate's share.
    let shown = a["rows"].as_array().unwrap().len() as u64;
    assert!((100..200).contains(&shown), "{shown}");
    assert_eq!(a["rows_left_out"], 1000 - shown);
    assert_eq!(gate(&report, "b")["rows"][1]["key"][0][1], cut(2));
    assert!(said.stdout.len() < 200_000, "{}", said.stdout.len());
    let text = check(&project, &database, &["--values"]).stdout;
    let line = format!(
        "          {} rows left out, to keep the report small\n",
        1000 - shown
    );
    assert!(text.contains(&line), "{text}");
}

const TWINS: &str = r#"
create schema s;
create table s.ours (body text);
insert into s.ours values (repeat('a', 300) || 'x'), (repeat('a', 300) || 'y');
create table s.theirs as select * from s.ours where body like '%x';
"#;

#[tokio::test]
async fn groups_whose_long_names_begin_alike_are_two() {
    let database = seeded(TWINS).await;
    let gates = "[[gate]]\nid='groups'\nkind='row_count_parity'\ntable='s.ours'\nagainst='s.theirs'\ngroup_by=['body']\n\
        [[gate]]\nid='rows'\nkind='content_parity'\ntable='s.ours'\nagainst='s.theirs'\nkey=['body']\n";
    let project = Project::new(&[("gates/g.toml", gates)]);
    let report = check(&project, &database, &["--format", "json"]).json();
    for id in ["groups", "rows"] {
        let gate = gate(&report, id);
        assert_eq!(gate["rows_offending"], 1, "{gate:#}");
        let what = gate["findings"][0]["what"].as_str().unwrap();
        assert!(
            what.contains("aaa... (301 characters, ") && what.len() < 400,
            "{what}"
        );
    }
}

#[tokio::test]
async fn the_rows_of_all_gates_together_are_cut_from_the_last_gate_on() {
    let database = seeded(
        "create schema s; create table s.notes (id int primary key, body text, more text);
        insert into s.notes select n, repeat('ü', 300), null from generate_series(1, 300) n;",
    )
    .await;
    let gates: String = (10..30)
        .map(|n| {
            format!("[[gate]]\nid='g{n}'\nkind='completeness'\ntable='s.notes'\ncolumns=['more']\nshow=['body']\nexamples=300\n")
        })
        .collect();
    let project = Project::new(&[("gates/g.toml", &gates)]);
    let report = check(&project, &database, &["--values", "--format", "json"]).json();
    let shown = |id: &str| gate(&report, id)["rows"].as_array().unwrap().len() as u64;
    let left_out = |id: &str| gate(&report, id)["rows_left_out"].as_u64().unwrap();
    let ids: Vec<String> = (10..30).map(|n| format!("g{n}")).collect();
    for id in &ids {
        assert_eq!(shown(id) + left_out(id), 300, "{id}");
    }
    // Each has its share at first, one a part of it, the last none.
    assert!(shown("g10") > 100 && shown("g10") == shown("g20"));
    assert_eq!(shown("g29"), 0);
    let text: usize = ids
        .iter()
        .flat_map(|id| gate(&report, id)["rows"].as_array().unwrap())
        .map(|row| row["values"][0][1].as_str().unwrap().len())
        .sum();
    assert!((900_000..1024 * 1024).contains(&text), "{text}");
}
