//! `postern lint`: mistakes, suspicions, and the exit code.

use rstest::rstest;

use crate::project::Project;

/// A gate of which nothing is suspicious.
const GOOD: &str = "[[gate]]\nid='day_there'\nkind='completeness'\ntable='s.games'\ncolumns=['day']\nwhy='no day, no game'\n";

/// A suspicious gate beside a good one: what is said, and at which line.
#[rstest]
#[case::no_why(
    "id='x'\nkind='row_count'\ntable='s.t'\nat_least=1",
    "gates/g.toml:8:4",
    "does not say why"
)]
#[case::blank_why(
    "id='x'\nkind='row_count'\ntable='s.t'\nat_least=1\nwhy=' '",
    "gates/g.toml:8:4",
    "does not say why"
)]
#[case::twice(
    "id='x'\nwhy='again'\ncolumns=['day']\ntable='s.games'\nkind='completeness'\nseverity='warn'",
    "gates/g.toml:8:4",
    "asks the same as `day_there`"
)]
#[case::empty_passes(
    "id='x'\nwhy='w'\nkind='unique'\ntable='s.t'\ncolumns=['id']\non_empty='pass'",
    "gates/g.toml:13:10",
    "passes when there is nothing to look at"
)]
#[case::no_share(
    "id='x'\nwhy='w'\nkind='completeness'\ntable='s.t'\ncolumns=['id']\nat_least='0%'",
    "gates/g.toml:13:10",
    "nothing is below 0%"
)]
#[case::no_rows(
    "id='x'\nwhy='w'\nkind='row_count'\ntable='s.t'\nat_least=0",
    "gates/g.toml:12:10",
    "nothing is below 0"
)]
#[case::never_passes(
    "id='x'\nwhy='w'\nkind='range'\ntable='s.t'\ncolumn='n'\nmin=0\nsample='1%'",
    "gates/g.toml:14:8",
    "can never pass"
)]
fn what_is_suspicious_is_told_at_its_place(
    #[case] gate: &str,
    #[case] place: &str,
    #[case] told: &str,
) {
    let project = Project::new(&[("gates/g.toml", &format!("{GOOD}[[gate]]\n{gate}\n"))]);
    let said = project.run(&["lint"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains(place), "{}", said.stdout);
    assert!(said.stdout.contains(told), "{}", said.stdout);
    assert!(
        said.stdout.ends_with("2 gates in 1 file, 1 warning\n"),
        "{}",
        said.stdout
    );
    assert_eq!(project.run(&["lint", "--strict"]).code, Some(1));
}

/// What looks like one of these and is not.
#[rstest]
#[case::other_table("kind='completeness'\ntable='s.bets'\ncolumns=['day']")]
#[case::other_filter("kind='completeness'\ntable='s.games'\ncolumns=['day']\nwhere='true'")]
#[case::other_level("kind='completeness'\ntable='s.games'\ncolumns=['day']\nat_least='50%'")]
#[case::may_be_empty("kind='row_count'\ntable='s.games'\nat_least=0\nat_most=9")]
#[case::held_to_its_key(
    "kind='foreign_key'\ntable='s.games'\ncolumns=['home']\nreferences='s.teams'\nrequire=['declared']\non_empty='pass'"
)]
#[case::skipped("kind='unique'\ntable='s.games'\ncolumns=['id']\non_empty='skip'")]
fn what_is_meant_is_not_suspicious(#[case] gate: &str) {
    let text = format!("{GOOD}[[gate]]\nid='x'\nwhy='w'\n{gate}\n");
    let project = Project::new(&[("gates/g.toml", &text)]);
    let said = project.run(&["lint", "--strict"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.stdout, "2 gates in 1 file, nothing to say\n");
}

#[test]
fn warnings_read_like_errors_in_the_order_of_the_files() {
    let project = Project::new(&[
        ("gates/a.toml", "[suite]\ndescription = 'later'\n"),
        (
            "gates/b.toml",
            "[vars]\ntable = 's.games'\ncolumn = 'day'\n\n[[gate]]\nid = 'b'\nkind = 'unique'\n\
             table = '${table}'\ncolumns = ['id']\non_empty = 'pass'\nwhy = 'said'\n",
        ),
        ("gates/c.sql", "-- at_most: 5\nselect 1 where false\n"),
        (
            "gates/d.sql",
            "-- why: said\n-- at_most: 5\nselect 1 where false\n",
        ),
    ]);
    let said = project.run(&["lint"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(said.stdout);
}

#[test]
fn a_selection_is_told_of_its_own_files_alone() {
    let project = Project::new(&[
        ("gates/a.toml", "[vars]\nunused = 'x'\n"),
        ("gates/b.toml", GOOD),
        (
            "gates/c.toml",
            "[[gate]]\nid='c'\nkind='row_count'\ntable='s.t'\nat_least=1\n",
        ),
    ]);
    let said = project.run(&["lint", "--strict", "--select", "day_there"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.stdout, "1 gate in 1 file, nothing to say\n");
    let said = project.run(&["lint", "--strict", "--gates", "gates/c.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
}

#[test]
fn every_mistake_is_told_and_no_suspicion() {
    let wrong = "[[gate]]\nid='x'\nkind='unique'\ntabel='s.t'\ncolumns=['id']\non_empty='pass'\n\
                 [[gate]]\nid='y'\nkind='unique'\ntable='s.t'\ncolumns=['id']\nwarn_above='5%'\n";
    let project = Project::new(&[("gates/g.toml", wrong)]);
    let said = project.run(&["lint"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    for told in [
        "unknown field `tabel`",
        "missing field `table`",
        "the warning level can never fire: above 0 the gate already fails",
    ] {
        assert!(said.stderr.contains(told), "{told}: {}", said.stderr);
    }
    let checked = project.run(&["check", "--url", "postgres://127.0.0.1:1/none"]);
    assert_eq!(said.stderr, checked.stderr);
}

#[rstest]
#[case("gates/fragmentation")]
#[case("gates/consolidation")]
fn of_the_gates_of_a_scenario_nothing_is_suspicious(#[case] gates: &str) {
    let gates = format!("{}/{gates}", env!("CARGO_MANIFEST_DIR"));
    let said = Project::new(&[]).run(&["lint", "--strict", "--gates", &gates]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(
        said.stdout.ends_with(" files, nothing to say\n"),
        "{}",
        said.stdout
    );
}
