//! Every kind over a masked column: its values are in no rendering of any format.

use std::collections::BTreeSet;

use postern::gate::kinds::KINDS;
use postern::pg::Database;
use postern::report::format::Format;
use rstest::rstest;
use serde_json::Value;

use super::{check, seeded};
use crate::project::Project;

/// What a masked column holds in every row, and no definition.
const SECRET: &str = "S3CR3T";

const SECRETS: &str = r#"
create schema s;
create table s.people (id int primary key, email text unique, note text, day date);
insert into s.people select n, 'S3CR3T' || n || '@example.com', case when n > 2 then 'S3CR3T' || n end, date '2020-01-01'
from generate_series(1, 6) n;
create table s.copy as select * from s.people where id > 1;
update s.copy set note = 'other' where id = 2;
insert into s.copy values (9, 'S3CR3T9', null, null);
create table s.bets (id int primary key, mail text);
insert into s.bets values (1, 'S3CR3T1@example.com'), (2, 'S3CR3T-nobody');
create table s.letters (id int primary key, recipient text);
insert into s.letters values (1, 'S3CR3T1@example.com'), (2, 'S3CR3T1@example.com'), (3, 'S3CR3T-gone');
alter table s.letters add foreign key (recipient) references s.people (email) not valid;
create table s.accounts (email text primary key, name text);
insert into s.accounts values ('S3CR3T1', 'mock user'), ('S3CR3T2@example.com', 'Ann');
create table s.mixed (id int, email text, shouted text generated always as (upper(email)) stored) partition by range (id);
create table s.mixed_1 partition of s.mixed for values from (0) to (9);
insert into s.mixed (id, email) values (1, 'S3CR3T1'), (1, 'S3CR3T2');
create view s.contacts as select id, note, email as contact, lower(email) as small from s.people;
create materialized view s.loud as select upper(contact) as loud, note from s.contacts;
create function s.complain(text) returns int language plpgsql as $$ begin raise exception 'cannot do with %', $1; end $$;
create function s.reveal() returns setof s.people language sql stable as 'select * from s.people';
"#;

/// Tags that mask it, where patterns do not.
const TAGS: &str = "
comment on column s.people.email is 'postern:mask';
comment on column s.people.note is 'postern:mask';
comment on table s.accounts is 'nothing of it: postern:mask';
comment on column s.mixed.email is 'postern:mask';
";

const EVERY_KIND: &str = r#"
[vars]
people = "s.people"

[[gate]]
id = "accepted"
kind = "accepted_values"
table = "s.people"
column = "email"
values = ["x"]
key = ["note", "email"]

[[gate]]
id = "accepted_from"
kind = "accepted_values"
table = "s.bets"
column = "id"
from = "s.copy.id"
key = ["id"]

[[gate]]
id = "complete"
kind = "completeness"
table = "s.people"
columns = ["note"]
key = ["email"]
show = ["email", "note", "id"]

[[gate]]
id = "complete_view"
kind = "completeness"
table = "s.contacts"
columns = ["note"]
key = ["id", "contact"]
show = ["small"]

[[gate]]
id = "complete_materialized"
kind = "completeness"
table = "s.loud"
columns = ["note"]
show = ["loud"]

[[gate]]
id = "parity"
kind = "content_parity"
table = "s.people"
against = "s.copy"
key = ["email"]

[[gate]]
id = "orphans"
kind = "foreign_key"
table = "s.bets"
columns = ["mail"]
references = "s.people(email)"

[[gate]]
id = "orphans_all"
kind = "foreign_key"
schemas = ["s"]

[[gate]]
id = "fresh"
kind = "freshness"
table = "s.people"
column = "day"
max_age = "1d"
group_by = ["email", "note"]

[[gate]]
id = "mock"
kind = "mock_data"
table = "s.accounts"

[[gate]]
id = "mock_people"
kind = "mock_data"
table = "s.people"
show = ["email", "note"]

[[gate]]
id = "mock_all"
kind = "mock_data"
schemas = ["s"]
# Nothing says that these two hold the same.
allow = ["s.bets", "s.copy"]

[[gate]]
id = "form"
kind = "pattern"
table = "s.people"
column = "email"
regex = "^x"

[[gate]]
id = "rights"
kind = "permissions"
schemas = ["s"]
roles.public = { s = ["usage"] }

[[gate]]
id = "budget"
kind = "query_budget"
query = "select * from s.people order by email"
plan = { max_cost = 0 }

[[gate]]
id = "between"
kind = "range"
table = "s.people"
column = "email"
max = "A"
key = ["note"]
nulls = "offend"

[[gate]]
id = "together"
kind = "relation"
table = "s.people"
left = "email"
right = "coalesce(note, '')"
key = ["email"]

[[gate]]
id = "enough"
kind = "row_count"
table = "${people}"
at_least = 100

[[gate]]
id = "groups"
kind = "row_count_parity"
table = "s.people"
against = "s.copy"
group_by = ["email", "note"]

[[gate]]
id = "layout"
kind = "schema_layout"
schemas = ["s"]
forbid_tables = ["s.people"]

[[gate]]
id = "query"
kind = "sql"
query = "select p.id, p.email, upper(p.email) as loud, b.mail as id2 from s.people p left join s.bets b on b.mail = p.email"
key = ["id", "email"]
show = ["loud", "id2"]

[[gate]]
id = "query_function"
kind = "sql"
query = "select * from s.reveal()"
key = ["email"]
show = ["note"]

[[gate]]
id = "distinct"
kind = "unique"
table = "s.letters"
columns = ["recipient"]

[[gate]]
id = "distinct_part"
kind = "unique"
table = "s.mixed_1"
columns = ["id"]

[[gate]]
id = "part"
kind = "pattern"
table = "s.mixed_1"
column = "email"
like = "x"
key = ["id", "email", "shouted"]
show = ["shouted"]

[[gate]]
id = "error_relation"
kind = "relation"
table = "s.people"
left = "email::int"
right = "1"

[[gate]]
id = "error_where"
kind = "row_count"
table = "s.people"
where = "note::date > '2020-01-01'"
at_least = 1

[[gate]]
id = "error_query"
kind = "sql"
query = "select id from s.people where email::json is not null"

[[gate]]
id = "error_raised"
kind = "sql"
query = "select s.complain(email) from s.people"

[[gate]]
id = "error_budget"
kind = "query_budget"
query = "select email::numeric from s.people"
budget = "1s"
"#;

/// Everything that a check says, in every format, and what `explain` does.
fn everything(project: &Project, database: &Database) -> Vec<(String, String)> {
    let url = database.address().to_secret_url();
    let mut arguments = vec!["--values", "-v", "--format", "terminal"];
    let files: Vec<String> = Format::ALL
        .iter()
        .map(|format| format!("{format}=out.{}", format.extension()))
        .collect();
    for file in &files {
        arguments.extend(["--format", file]);
    }
    let said = check(project, database, &arguments);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let mut all = vec![
        ("stdout".to_owned(), said.stdout),
        ("stderr".to_owned(), said.stderr),
    ];
    for format in Format::ALL {
        let file = format!("out.{}", format.extension());
        let text = std::fs::read_to_string(project.path().join(&file)).unwrap();
        all.push((file, text));
    }
    for format in ["terminal", "json"] {
        let said = project.run(&["explain", "--url", &url, "--format", format]);
        all.push((format!("explain {format}"), said.all()));
    }
    all
}

#[rstest]
#[case::tagged(true)]
#[case::named(false)]
#[tokio::test]
async fn no_value_of_a_masked_column_leaves_by_any_road(#[case] is_tagged: bool) {
    let database = seeded(SECRETS).await;
    let project = Project::new(&[("gates/g.toml", EVERY_KIND)]);
    // Without a mask it is told by every kind that names rows or groups.
    let open = everything(&project, &database);
    for (name, text) in &open {
        let tells_rows = !name.starts_with("explain") && name != "stderr" && name != "out.om";
        assert_eq!(text.contains(SECRET), tells_rows, "{name}: {text}");
    }
    let report: Value = serde_json::from_str(&open[3].1).unwrap();
    let revealing = |report: &Value| -> BTreeSet<String> {
        let gates = report["gates"].as_array().unwrap().iter();
        let gates = gates.filter(|gate| gate.to_string().contains(SECRET));
        gates
            .map(|gate| gate["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let silent = [
        "accepted_from",
        "rights",
        "budget",
        "enough",
        "layout",
        "distinct_part",
        "error_query",
    ];
    // A detail of the server's stands only where a person reads it.
    assert!(
        open[0].1.contains("Token \"S3CR3T1\" is invalid"),
        "{}",
        open[0].1
    );
    for gate in report["gates"].as_array().unwrap() {
        let id = gate["id"].as_str().unwrap();
        let is_told = revealing(&report).contains(id);
        assert_eq!(is_told, !silent.contains(&id), "{gate:#}");
    }
    let kinds: BTreeSet<&str> = report["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gate| gate["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, KINDS.iter().map(|kind| kind.name).collect());
    let masked = if is_tagged {
        let mut connection = database.connect().await.unwrap();
        sqlx::raw_sql(TAGS).execute(&mut connection).await.unwrap();
        project
    } else {
        let columns =
            r#"columns = ["people.email", "s.people.note", "accounts.*", "s.mix*.email"]"#;
        project.write("postern.toml", &format!("[mask]\n{columns}\n"));
        project
    };
    let closed = everything(&masked, &database);
    for (name, text) in &closed {
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
    let again: Value = serde_json::from_str(&closed[3].1).unwrap();
    for (before, after) in std::iter::zip(
        report["gates"].as_array().unwrap(),
        again["gates"].as_array().unwrap(),
    ) {
        // Masked or not, the same is found.
        for field in [
            "id",
            "outcome",
            "rows_offending",
            "rows_checked",
            "sqlstate",
            "sql",
        ] {
            assert_eq!(before[field], after[field], "{field}: {after:#}");
        }
        let number = |gate: &Value| gate["rows"].as_array().unwrap().len();
        assert_eq!(number(before), number(after), "{after:#}");
    }
}
