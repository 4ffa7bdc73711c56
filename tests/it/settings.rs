//! `postern.toml`: where it is found, what outranks it, and how its mistakes are told.

use rstest::rstest;

use crate::project::Project;
use crate::support;

const GATE: &str =
    "[[gate]]\nid='here'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=1\n";
/// Nothing listens there.
const NOWHERE: &str = "postgres://ann:hunter22@127.0.0.1:1/shop";

#[test]
fn every_mistake_is_told_at_once_and_no_password_with_it() {
    let project = Project::new(&[(
        "postern.toml",
        "default_target = \"stagin\"\n\
         fail_on = \"bloc\"\n\
         engine = \"dokcer\"\n\
         statment_timeout = \"5m\"\n\
         lock_timeout = \"5 parsecs\"\n\
         gates = \"postgres://ann:hunter22@h/d\"\n\
         vars = 3\n\
         \n\
         [scenario]\n\
         defalt = \"x\"\n\
         \n\
         [target.staging]\n\
         url = \"postgres://ann:hunter22@h/d?sslmod=require\"\n\
         password = \"hunter22\"\n\
         fail_on = 1\n\
         \n\
         [target.empty]\n\
         \n\
         [target.live]\n\
         url_env = \"LIVE_URL\"\n\
         url = \"mysql://ann:hunter22@h/d\"\n",
    )]);
    let said = project.run(&["check"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(said.stdout, "", "nothing was run");
    assert!(!said.stderr.contains("hunter22"), "{}", said.stderr);
    insta::assert_snapshot!(said.stderr);
}

#[rstest]
#[case::top("connections = 0\n", "postern.toml:1:15")]
#[case::too_many("connections = 65\n", "postern.toml:1:15")]
#[case::of_a_target(
    "[target.a]\nurl = \"postgres://h/d\"\nconnections = 0\n",
    "postern.toml:3:15"
)]
fn no_connection_is_no_number_of_connections(#[case] text: &str, #[case] place: &str) {
    let said = Project::new(&[("postern.toml", text)]).run(&["list"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    for told in ["expected 1 to 64 connections", place] {
        assert!(said.stderr.contains(told), "{}", said.stderr);
    }
}

#[test]
fn a_url_that_is_wrong_is_shown_without_its_password() {
    let project = Project::new(&[(
        "postern.toml",
        "[target.a]\nurl = \"postgres://ann:hunter22@h/d?sslmod=require\"\n",
    )]);
    let said = project.run(&["list"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!(said.stderr);
}

#[test]
fn syntax_errors_are_told_without_the_password_on_their_line() {
    let project = Project::new(&[(
        "postern.toml",
        "[target.a]\nurl = \"postgres://ann:hunter22@h/d\n[target.b\n",
    )]);
    let said = project.run(&["list"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("postern.toml:2"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter22"), "{}", said.stderr);
}

/// Flag, then environment, then file: what is said, and which database is then asked.
#[rstest]
#[case::the_only_target("[target.a]\nurl='postgres://h-file/d'", &[], None, "h-file")]
#[case::default_target(
    "default_target='b'\n[target.a]\nurl='postgres://h-a/d'\n[target.b]\nurl='postgres://h-b/d'",
    &[], None, "h-b"
)]
#[case::environment_over_file("[target.a]\nurl='postgres://h-file/d'", &[], Some("postgres://h-env/d"), "h-env")]
#[case::target_over_environment(
    "[target.a]\nurl='postgres://h-file/d'", &["--target", "a"], Some("postgres://h-env/d"), "h-file"
)]
#[case::url_over_environment(
    "[target.a]\nurl='postgres://h-file/d'", &["--url", "postgres://h-flag/d"], Some("postgres://h-env/d"), "h-flag"
)]
fn a_flag_outranks_the_environment_and_that_the_file(
    #[case] file: &str,
    #[case] flags: &[&str],
    #[case] environment: Option<&str>,
    #[case] host: &str,
) {
    // A port that nothing listens on: the report names the host all the same.
    let file = file.replace("/d'", ".invalid:1/d'");
    let project = Project::new(&[("postern.toml", &file), ("gates/g.toml", GATE)]);
    let flags: Vec<String> = flags
        .iter()
        .map(|flag| flag.replace("/d", ".invalid:1/d"))
        .collect();
    let mut command = project.postern(&["check", "--format", "json"]);
    command.args(flags);
    if let Some(url) = environment {
        command.env("DATABASE_URL", url.replace("/d", ".invalid:1/d"));
    }
    let said = crate::project::Said::of(&command.output().unwrap());
    let target = said.json()["target"].as_str().unwrap().to_owned();
    assert!(target.contains(&format!("@{host}.invalid:1/d")), "{target}");
}

/// A sample, and a statement that ends its own connection.
const ENDED: &str = "
[[gate]]
id = 'sampled'
kind = 'range'
table = 'pg_catalog.pg_attribute'
column = 'attnum'
max = 10000
at_most = '50%'
sample = '60%'

[[gate]]
id = 'ended'
kind = 'sql'
query = 'select pg_terminate_backend(pg_backend_pid())'
";

#[tokio::test]
async fn a_flag_outranks_the_environment_for_the_seed_and_for_how_often_a_run_starts_over() {
    let database = support::database().await;
    let url = database.address().to_secret_url();
    let of_file = "seed = 4\nretries = 0\n".to_owned();
    let of_target = format!("{of_file}[target.main]\nurl = '{url}'\nseed = 5\nretries = 1\n");
    let here = format!("{of_file}[target.main]\nurl = '{url}'\n");
    let nothing = format!("[target.main]\nurl = '{url}'\n");
    let environment = [("POSTERN_SEED", "6"), ("POSTERN_RETRIES", "0")];
    let flags = ["--seed", "7", "--retries", "2"];
    // File, environment, flags; then the seed, and whether the run starts over.
    for (file, environment, flags, expected) in [
        (&nothing, &[][..], &[][..], (1, true)),
        (&here, &[], &[], (4, false)),
        (&of_target, &[], &[], (5, true)),
        (&of_target, &environment, &[], (6, false)),
        (&of_target, &environment, &flags, (7, true)),
    ] {
        let project = Project::new(&[("postern.toml", file), ("gates/g.toml", ENDED)]);
        let mut command = project.postern(&["check", "--format", "json"]);
        command.args(flags).envs(environment.iter().copied());
        let said = crate::project::Said::of(&command.output().unwrap());
        assert_eq!(said.code, Some(3), "{}", said.all());
        let report = said.json();
        let is_again = report["notes"].to_string().contains("evaluated anew");
        // The gate that ends its connection is given up at last; the other one is not.
        let seed = report["gates"][0]["sample"]["seed"].as_u64();
        let found = (seed.filter(|_| is_again), is_again);
        let expected = (Some(expected.0).filter(|_| expected.1), expected.1);
        assert_eq!(found, expected, "{file}{}", said.all());
    }
}

#[rstest]
#[case::unknown(&["--target", "stagin"], 2, "did you mean `staging`?")]
#[case::which(&[], 2, "give --target with `live` or `staging`")]
#[case::unset(&["--target", "live"], 2, "the environment variable `NO_SUCH_URL` is not set")]
#[case::both(&["--target", "live", "--url", NOWHERE], 2, "cannot be used with")]
#[case::down(&["--target", "staging"], 3, "could not reach postgres://ann@127.0.0.1:1/shop")]
#[case::no_file(&["--config", "elsewhere.toml"], 3, "could not read `elsewhere.toml`")]
fn a_target_that_cannot_be_taken_says_why(
    #[case] flags: &[&str],
    #[case] code: i32,
    #[case] told: &str,
) {
    let file = format!("[target.staging]\nurl='{NOWHERE}'\n[target.live]\nurl_env='NO_SUCH_URL'\n");
    let project = Project::new(&[("postern.toml", &file), ("gates/g.toml", GATE)]);
    let said = project.run(&[&["check"], flags].concat());
    assert_eq!(said.code, Some(code), "{}", said.all());
    assert!(said.all().contains(told), "{}", said.all());
    assert!(!said.all().contains("hunter22"), "{}", said.all());
}

#[tokio::test]
async fn it_is_found_in_a_parent_and_its_paths_count_from_there() {
    let database = support::database().await;
    let other = support::database().await;
    let project = Project::new(&[
        (
            "postern.toml",
            "gates=['nowhere']\nfail_on='block'\ndefault_target='main'\n\
             [vars]\ntable='pg_class'\n\
             [target.main]\nurl_env='MAIN_URL'\ngates=['rules']\nfail_on='warn'\n\
             [target.before]\nurl_env='BEFORE_URL'\n",
        ),
        (
            "rules/g.toml",
            "[[gate]]\nid='warns'\nkind='row_count'\ntable='pg_catalog.${table}'\nat_most=1\nseverity='warn'\n\
             [[gate]]\nid='as_before'\nkind='row_count_parity'\ntable='pg_catalog.pg_class'\nagainst='pg_catalog.pg_class'\n\
             against_target='before'\n",
        ),
        ("deep/er/x", ""),
    ]);
    let run = |more: &[&str]| {
        let mut command = project.postern(&["check"]);
        command
            .current_dir(project.path().join("deep/er"))
            .env("MAIN_URL", database.address().to_secret_url())
            .env("BEFORE_URL", other.address().to_secret_url())
            .args(more);
        crate::project::Said::of(&command.output().unwrap())
    };
    let said = run(&[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(
        said.stdout.contains("../../rules/g.toml:1"),
        "{}",
        said.stdout
    );
    // The flag outranks the target.
    assert_eq!(run(&["--fail-on", "block"]).code, Some(0));
}

#[rstest]
#[case::of_the_file("[scenario]\ndefault='mine'", &[], "there is no scenario `mine`")]
#[case::named("[scenario]\ndefault='mine'", &["other"], "there is no scenario `other`")]
#[case::none("", &[], "there is no scenario `consolidation`")]
fn rehearse_takes_the_default_scenario(
    #[case] file: &str,
    #[case] flags: &[&str],
    #[case] told: &str,
) {
    let project = Project::new(&[("postern.toml", file)]);
    let said = project.run(&[&["rehearse"], flags].concat());
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains(told), "{}", said.stderr);
}

#[test]
fn this_repository_has_settings_that_hold() {
    let said = Project::new(&[]);
    let output = said
        .postern(&["list"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = crate::project::Said::of(&output);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(
        said.stdout.contains("gates/consolidation/"),
        "{}",
        said.stdout
    );
}

#[rstest]
#[case::no_flag(&["check", NOWHERE])]
#[case::no_command(&[NOWHERE])]
#[case::a_target(&["check", "--target", NOWHERE])]
#[case::a_format(&["check", "--format", NOWHERE])]
#[case::another(&["check", "--other", "postgres://ann:hunter22@h/d?sslmode=require"])]
#[case::a_number(&["check", "--examples", NOWHERE])]
#[case::a_selection(&["list", "--select", NOWHERE])]
#[case::a_scenario(&["rehearse", NOWHERE])]
fn a_password_in_the_wrong_place_of_the_command_line_is_not_shown(#[case] arguments: &[&str]) {
    let project = Project::new(&[("gates/g.toml", GATE)]);
    let said = project.run(arguments);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains("error:"), "{}", said.stderr);
    assert!(!said.all().contains("hunter22"), "{}", said.all());
}

#[test]
fn help_goes_to_stdout_without_colour() {
    let said = Project::new(&[]).run(&["--help"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("Exit codes:"), "{}", said.stdout);
    assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
}
