//! Definitions of several files, and what stands in them for values from outside.

use rstest::rstest;

use crate::project::{Project, Said};
use crate::reports::schema;
use crate::support;

/// A gate of an id, on a table.
fn gate(id: &str, table: &str) -> String {
    format!("[[gate]]\nid='{id}'\nkind='row_count'\ntable='{table}'\nat_least=1\nwhy='w'\n")
}

fn project(files: &[(&str, String)]) -> Project {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    Project::new(&files)
}

#[test]
fn a_suite_includes_files_by_name_and_pattern_from_its_own_folder() {
    let project = project(&[
        (
            "gates/all.toml",
            format!(
                "include = ['parts/b.toml', '../team/*.toml', '../team/*.sql']\n{}",
                gate("last", "s.t")
            ),
        ),
        ("gates/parts/b.toml", gate("b", "s.b")),
        ("team/c.toml", gate("c", "s.c")),
        ("team/.hidden.toml", gate("hidden", "s.c")),
        ("team/d.sql", "-- why: w\nselect 1 where false\n".to_owned()),
        ("team/notes.txt", "no gate".to_owned()),
    ]);
    let said = project.run(&["list", "--gates", "gates/all.toml"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (
            Some(0),
            "b  row_count  block  gates/parts/b.toml:1\n\
             c  row_count  block  team/c.toml:1\n\
             d  sql  block  team/d.sql:1\n\
             last  row_count  block  gates/all.toml:2\n"
        ),
        "{}",
        said.all()
    );
    let said = project.run(&["list", "--gates", "gates", "--select", "file:team/*"]);
    assert_eq!(said.stdout.lines().count(), 2, "{}", said.all());
    let said = project.run(&["lint", "--strict"]);
    assert_eq!(said.stdout, "4 gates in 4 files, nothing to say\n");
}

#[test]
fn a_file_that_is_included_twice_and_found_is_read_once() {
    let includes = |id: &str| format!("include = ['common.toml']\n{}", gate(id, "s.t"));
    let project = project(&[
        ("gates/a.toml", includes("a")),
        ("gates/b.toml", includes("b")),
        ("gates/common.toml", gate("common", "s.c")),
    ]);
    let said = project.run(&["list"]);
    let ids: Vec<&str> = said
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(ids, ["common", "a", "b"], "{}", said.all());
}

#[test]
fn what_a_suite_says_of_its_gates_holds_for_its_own_alone() {
    let project = project(&[
        (
            "gates/a.toml",
            format!(
                "include = ['../b.toml']\n[suite]\ntags = ['mine']\nowner = 'me'\n{}",
                gate("a", "s.t")
            ),
        ),
        ("b.toml", gate("b", "s.t")),
    ]);
    let said = project.run(&["list", "--select", "tag:mine or owner:me"]);
    assert_eq!(said.stdout, "a  row_count  block  gates/a.toml:5\n");
}

#[rstest]
#[case::gone("'gone.toml'", "there is no file `gone.toml`")]
#[case::no_match("'../team/*.toml'", "matches no other file of gates")]
#[case::itself_alone("'*.toml'", "matches no other file of gates")]
#[case::folder("'more'", "`more` is a folder")]
#[case::no_definition("'more/x.txt'", "neither a `.toml` nor a `.sql` file")]
#[case::no_pattern("'a***b'", "is no pattern")]
#[case::no_text("5", "`include` is not a list of files")]
#[case::unknown("'${where}/x.toml'", "unknown variable `where`")]
fn an_include_that_brings_nothing_is_a_mistake(#[case] entry: &str, #[case] told: &str) {
    let project = project(&[
        (
            "gates/a.toml",
            format!("include = [\n  {entry},\n]\n{}", gate("a", "s.t")),
        ),
        ("gates/more/x.txt", String::new()),
    ]);
    let said = project.run(&["list", "--gates", "gates/a.toml"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains(told), "{}", said.stderr);
    assert!(said.stderr.contains("gates/a.toml:2:"), "{}", said.stderr);
}

#[test]
fn files_that_include_each_other_are_told_with_the_way_round() {
    let includes = |file: &str, id: &str| format!("include = ['{file}']\n{}", gate(id, "s.t"));
    let project = project(&[
        ("gates/a.toml", includes("b.toml", "a")),
        ("gates/b.toml", includes("deep/c.toml", "b")),
        ("gates/deep/c.toml", includes("../a.toml", "c")),
        ("own.toml", includes("own.toml", "own")),
    ]);
    let said = project.run(&["list", "--gates", "gates/a.toml", "--gates", "own.toml"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!(said.stderr);
}

#[test]
fn mistakes_of_an_included_file_are_told_at_their_own_place() {
    let project = project(&[
        (
            "gates/a.toml",
            format!("include = ['../b.toml']\n{}", gate("same", "s.t")),
        ),
        (
            "b.toml",
            format!(
                "{}{}",
                gate("same", "s.t"),
                "[[gate]]\nid='x'\nkind='uniq'\n"
            ),
        ),
        ("c.toml", gate("same", "s.t")),
    ]);
    let said = project.run(&["list"]);
    assert!(said.stderr.contains("b.toml:9:6"), "{}", said.stderr);
    project.write("b.toml", "include = ['c.toml']\n");
    let said = project.run(&["list"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!(said.stderr);
}

#[test]
fn variables_of_an_included_file_are_seen_and_the_nearest_holds() {
    let common = "[vars]\ntable = 's.common'\nother = 's.other'\nnobody = 'x'\n";
    let project = project(&[
        (
            "gates/a.toml",
            format!(
                "include = ['../common.toml']\n[vars]\nother = 's.mine'\n{}{}",
                gate("a", "${table}"),
                gate("b", "${other}")
            ),
        ),
        ("common.toml", common.to_owned()),
    ]);
    let takes = |table: &str| project.run(&["list", "--select", &format!("table:{table}")]);
    for (table, id) in [("s.common", "a"), ("s.mine", "b")] {
        assert!(
            takes(table).stdout.starts_with(id),
            "{}",
            takes(table).all()
        );
    }
    let said = project.run(&["lint", "--strict"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.stdout.contains("the variable `nobody` is never used"));
    assert!(
        said.stdout.ends_with("2 gates in 2 files, 1 warning\n"),
        "{}",
        said.stdout
    );

    project.write("third.toml", "[vars]\ntable = 's.third'\n");
    let text = "include = ['../common.toml', '../third.toml']\n";
    project.write("gates/a.toml", &format!("{text}{}", gate("a", "${table}")));
    let said = takes("s.third");
    assert_eq!(said.code, Some(2));
    for told in [
        "`table` has two values",
        "common.toml and in third.toml",
        "gates/a.toml:1:",
    ] {
        assert!(said.stderr.contains(told), "{}", said.stderr);
    }
    let text = format!(
        "{text}[vars]\ntable = 's.settled'\n{}",
        gate("a", "${table}")
    );
    project.write("gates/a.toml", &text);
    assert_eq!(takes("s.settled").code, Some(0));
}

/// `postern list` in an environment.
fn list(project: &Project, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = project.postern(&["list"]);
    command.args(arguments).envs(environment.iter().copied());
    Said::of(&command.output().unwrap())
}

#[test]
fn the_command_line_outranks_the_environment_and_that_every_file() {
    let project = project(&[
        ("postern.toml", "[vars]\nt = 's.settings'\n".to_owned()),
        (
            "gates/a.toml",
            format!(
                "[vars]\nt = 's.suite'\nu = '${{env:TABLE_OF_U:-s.default}}'\n{}{}",
                gate("t", "${t}"),
                gate("u", "${u}")
            ),
        ),
    ]);
    let environment = [
        ("POSTERN_VAR_t", "s.environment"),
        ("TABLE_OF_U", "s.named"),
    ];
    for (environment, more, expected) in [
        (&environment[..], &["--var", "t=s.line"][..], "s.line"),
        (&environment, &[], "s.environment"),
        (&[], &[], "s.settings"),
        (&environment, &[], "s.named"),
        (&[], &[], "s.default"),
        (&[("TABLE_OF_U", "")], &[], "s.default"),
    ] {
        let mut arguments = vec!["--select".to_owned(), format!("table:{expected}")];
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = list(&project, environment, &arguments);
        assert_eq!(said.stdout.lines().count(), 1, "{expected}: {}", said.all());
    }
    project.write("postern.toml", "");
    let said = list(&project, &[], &["--select", "table:s.suite"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
}

#[test]
fn what_the_environment_lacks_or_must_not_give_is_a_mistake() {
    let gates = format!(
        "[vars]\ntwo = '${{three}}'\nfour = '${{env:NOT_SET}}'\n{}{}{}",
        gate("a", "${env:GATE_TABLE}"),
        gate("b", "${env:DB_PASSWORD}"),
        gate("c", "${env:REPLICA}"),
    );
    let project = project(&[("gates/a.toml", gates)]);
    let environment = [
        ("DB_PASSWORD", "hunter22"),
        ("REPLICA", "postgres://me:hunter22@replica/db"),
    ];
    let said = list(&project, &environment, &[]);
    assert_eq!(said.code, Some(2));
    assert!(!said.all().contains("hunter22"), "{}", said.all());
    insta::assert_snapshot!(said.stderr);
}

#[tokio::test]
async fn a_value_in_sql_stays_a_value() {
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let seed = "create schema s; create table s.\"it's \"\"odd\"\"\" (id int, season text); \
                insert into s.\"it's \"\"odd\"\"\" values (1, '2024'), (2, 'it''s'), (3, null)";
    sqlx::raw_sql(seed).execute(&mut connection).await.unwrap();
    let text = "[vars]\nseason = '2024'\ntable = 'it''s \"odd\"'\nat = '2'\n\
        [[gate]]\nid='is_season'\nkind='sql'\nwhy='w'\n\
        query = '''select id from s.\"${table}\" where season <> '${season}' -- not ${season}\n'''\n\
        [[gate]]\nid='many'\nkind='row_count'\nwhy='w'\ntable='s.\"it''s \"\"odd\"\"\"'\nwhere='id >= ${at}'\nat_least=2\n"
        .replace("'it''s \"odd\"'", "\"\"\"it's \\\"odd\\\"\"\"\"")
        .replace("'s.\"it''s \"\"odd\"\"\"'", "\"\"\"s.\\\"it's \\\"\\\"odd\\\"\\\"\\\"\"\"\"");
    let project = project(&[("gates/a.toml", text)]);
    let url = database.address().to_secret_url();
    let check = |more: &[&str]| {
        let mut arguments = vec!["check", "--url", &url, "--format", "json"];
        arguments.extend(more);
        project.run(&arguments)
    };
    assert_eq!(check(&[]).told(), ["is_season failed", "many passed"]);
    // One row is of another season, whatever the value tries to be.
    for value in ["2024' or 'a' = 'a", "it's", "\\' or true --"] {
        let said = check(&["--var", &format!("season={value}")]);
        let offending = &said.json()["gates"][0]["rows_offending"];
        let expected = if value == "it's" { 1 } else { 2 };
        assert_eq!(offending, expected, "{value}: {}", said.all());
    }
    let said = check(&["--var", "at=1 or true"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(
        said.stderr.contains("neither a name nor a number"),
        "{}",
        said.stderr
    );
    let said = project.run(&["explain", "--url", &url, "--var", "season=2025"]);
    assert!(said.stdout.contains("<> '2025'"), "{}", said.all());
}

/// What an editor would underline in a gate file.
fn underlined(text: &str) -> Vec<String> {
    let file: serde_json::Value = toml::from_str(text).unwrap();
    schema::errors("gates/gate.schema.json", "#", &file)
}

/// Every `.toml` file of gates below a folder of this repository.
fn gate_files(folder: &str) -> Vec<std::path::PathBuf> {
    let found = postern::source::discover(&[folder.into()]).unwrap();
    let found = found.into_iter();
    found
        .filter(|file| file.extension().is_some_and(|end| end == "toml"))
        .collect()
}

#[test]
fn every_gate_file_of_this_repository_fits_the_schema() {
    let files: Vec<_> = ["gates", "fixtures/kinds"]
        .into_iter()
        .flat_map(gate_files)
        .collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let errors = underlined(&std::fs::read_to_string(&file).unwrap());
        assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
    }
    let readme = std::fs::read_to_string("README.md").unwrap();
    let gates = readme
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(underlined(gates), [""; 0]);
}

#[rstest]
#[case::table("[suit]\n", "`suit` is not in the schema")]
#[case::include("include = 'x.toml'\n", "/include: not \"array\"")]
#[case::kind(
    "[[gate]]\nid='x'\nkind='uniq'\ntable='t'\ncolumns=['a']\n",
    "/gate/0: none of the choices"
)]
#[case::field(
    "[[gate]]\nid='x'\nkind='unique'\ntabel='t'\ncolumns=['a']\n",
    "/gate/0: none of the choices"
)]
#[case::missing(
    "[[gate]]\nid='x'\nkind='unique'\ntable='t'\n",
    "/gate/0: none of the choices"
)]
#[case::severity(
    "[[gate]]\nid='x'\nkind='unique'\ntable='t'\ncolumns=['a']\nseverity='fatal'\n",
    "/gate/0: none of the choices"
)]
#[case::nested(
    "[[gate]]\nid='x'\nkind='freshness'\ntable='t'\ncolumn='a'\nmax_age='1d'\ncalendar={weekdays=['monday']}\n",
    "/gate/0: none of the choices"
)]
#[case::variable("[vars]\nn = 5\n", "/vars/n: not \"string\"")]
fn a_wrong_gate_file_does_not_fit_the_schema(#[case] text: &str, #[case] told: &str) {
    let errors = underlined(text);
    assert!(
        errors.iter().any(|error| error.contains(told)),
        "{errors:#?}"
    );
}
