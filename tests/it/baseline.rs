//! Failures that are accepted for now: up to a number of rows, with a reason, an owner and a last day.

use postern::pg::Database;
use rstest::rstest;

use crate::project::{Project, Said};
use crate::support;

const FILE: &str = "postern.baseline.toml";

/// A gate that fails with as many rows.
fn failing(id: &str, rows: u32) -> String {
    format!(
        "[[gate]]\nid = '{id}'\nkind = 'sql'\ntags = ['leak']\nquery = 'select generate_series(1, {rows})::text as n'\n\
         key = ['n']\npopulation = 'select 100'\n"
    )
}

fn accept(gate: &str, rows: u32, more: &str) -> String {
    format!(
        "[[accept]]\ngate = '{gate}'\nrows = {rows}\nreason = 'old rows'\nowner = 'data team'\n{more}\n"
    )
}

struct Target {
    project: Project,
    database: Database,
}

impl Target {
    async fn new(files: &[(&str, &str)]) -> Self {
        Self {
            project: Project::new(files),
            database: support::database().await,
        }
    }

    fn check(&self, arguments: &[&str]) -> Said {
        let url = self.database.address().to_secret_url();
        let mut all = vec!["check", "--url", &url];
        all.extend(arguments);
        self.project.run(&all)
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.project.path().join(FILE)).unwrap()
    }
}

#[rstest]
#[case::as_many(
    37,
    "until = '2999-12-31'",
    0,
    "warned",
    "holds",
    "; 37 accepted until 2999-12-31, reason: old rows"
)]
#[case::a_day_of_toml(
    37,
    "until = 2999-12-31",
    0,
    "warned",
    "holds",
    "; 37 accepted until 2999-12-31, reason: old rows"
)]
#[case::fewer(36, "", 0, "warned", "holds", "; 37 accepted, reason: old rows")]
#[case::more(38, "", 1, "failed", "exceeded", "; 37 accepted")]
#[case::expired(
    37,
    "until = '2020-01-01'",
    1,
    "failed",
    "expired",
    "; 37 were accepted until 2020-01-01, which has expired"
)]
#[case::none(0, "", 0, "passed", "unneeded", "")]
#[tokio::test]
async fn as_many_rows_as_accepted_do_not_block(
    #[case] rows: u32,
    #[case] more: &str,
    #[case] code: i32,
    #[case] outcome: &str,
    #[case] standing: &str,
    #[case] message: &str,
) {
    let target = Target::new(&[
        ("gates/g.toml", &failing("leak", rows)),
        (FILE, &accept("leak", 37, more)),
    ])
    .await;
    for fail_on in ["block", "warn"] {
        let said = target.check(&["--format", "json", "--fail-on", fail_on]);
        assert_eq!(said.code, Some(code), "{}", said.all());
        let report = said.json();
        let gate = &report["gates"][0];
        assert_eq!(gate["outcome"], outcome);
        assert_eq!(gate["accepted"]["standing"], standing);
        assert_eq!(gate["accepted"]["owner"], "data team");
        assert!(
            gate["message"].as_str().unwrap().ends_with(message),
            "{gate:#}"
        );
        assert_eq!(report["summary"]["accepted"], u8::from(standing == "holds"));
    }
}

#[tokio::test]
async fn what_is_accepted_stays_visible_in_every_format() {
    let target = Target::new(&[
        ("gates/g.toml", &failing("leak", 2)),
        (FILE, &accept("leak", 37, "until = '2999-12-31'")),
    ])
    .await;
    for format in ["terminal", "json", "junit", "markdown", "github", "sarif"] {
        let said = target.check(&["--format", format]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        for text in ["37 accepted until 2999-12-31", "old rows", "data team"] {
            assert!(said.stdout.contains(text), "{format}: {}", said.stdout);
        }
    }
    let said = target.check(&["--format", "openmetrics"]);
    let line = "postern_gate_rows_accepted{gate=\"leak\",kind=\"sql\",suite=\"g\"} 37\n";
    assert!(said.stdout.contains(line), "{}", said.stdout);
    let said = target.check(&[]);
    assert!(
        said.stdout.contains("1 gate: 1 warned (1 accepted)"),
        "{}",
        said.stdout
    );
}

/// Only counted rows can be accepted: not an error, not emptiness, not what the catalog says.
#[tokio::test]
async fn what_is_not_counted_rows_cannot_be_accepted() {
    let gates = "\
[[gate]]\nid='errs'\nkind='row_count'\ntable='pg_catalog.pg_clazz'\nat_least=1\n\
[[gate]]\nid='empty'\nkind='completeness'\ntable='pg_catalog.pg_class'\ncolumns=['oid']\nwhere='false'\n\
[[gate]]\nid='small'\nkind='row_count'\ntable='pg_catalog.pg_class'\nat_least=999999\n\
[[gate]]\nid='keys'\nkind='foreign_key'\ntable='pg_catalog.pg_class'\ncolumns=['relnamespace']\n\
references='pg_catalog.pg_namespace(oid)'\nwhere='oid < 99999'\nrequire=['declared']\n";
    let all = ["errs", "empty", "small", "keys"];
    let baseline: String = all.iter().map(|gate| accept(gate, 9999, "")).collect();
    let target = Target::new(&[("gates/g.toml", gates), (FILE, &baseline)]).await;
    let said = target.check(&["--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "errs errored 42P01",
            "empty failed",
            "small failed",
            "keys failed"
        ]
    );
    let report = said.json();
    for gate in report["gates"].as_array().unwrap() {
        assert_eq!(gate["accepted"]["standing"], "inapplicable", "{gate:#}");
    }
    let flags = ["--update-baseline", "--reason", "r", "--owner", "o"];
    let named = ["--accept", "errs", "--accept", "empty", "--accept", "keys"];
    let said = target.check(&[&flags[..], &named[..]].concat());
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(target.read(), baseline);
}

#[tokio::test]
async fn an_accepted_gate_holds_nothing_for_readiness() {
    let readiness = "[readiness]\ncritical = ['leak']\nmetrics = ['leak']\nat_least = '50%'\n";
    let target = Target::new(&[
        (
            "gates/g.toml",
            &format!("{}{readiness}", failing("leak", 2)),
        ),
        (FILE, &accept("leak", 37, "")),
    ])
    .await;
    let said = target.check(&[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.stdout.ends_with("open: leak\n"), "{}", said.stdout);
}

#[tokio::test]
async fn a_gate_that_does_not_exist_is_a_mistake_and_one_that_was_left_out_is_not() {
    let gates = format!("{}{}", failing("leak", 2), failing("drip", 2));
    let target = Target::new(&[("gates/g.toml", &gates), (FILE, &accept("leek", 37, ""))]).await;
    let said = target.check(&[
        "--accept",
        "dripp",
        "--update-baseline",
        "--reason",
        "r",
        "--owner",
        "o",
    ]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(said.stderr);
    target.project.write(FILE, &accept("leak", 37, ""));
    let said = target.check(&["--select", "drip", "--format", "json"]);
    assert_eq!(said.told(), ["drip failed"], "{}", said.all());
}

#[rstest]
#[case::lacks_an_owner(&["--update-baseline", "--reason", "r"], "--owner <NAME>")]
#[case::lacks_a_reason(&["--update-baseline", "--owner", "o"], "--reason <TEXT>")]
#[case::accepts_without_reason(&["--update-baseline", "--accept", "x"], "--reason <TEXT>")]
#[case::updates_nothing(&["--reason", "r", "--owner", "o"], "--update-baseline")]
#[case::no_day(&["--update-baseline", "--reason", "r", "--owner", "o", "--until", "soon"], "such as 2026-12-31")]
#[case::empty(&["--update-baseline", "--reason", " ", "--owner", "o"], "`--reason` is empty")]
#[case::no_file(&["--baseline", "other.toml"], "other.toml")]
fn wrong_flags_are_refused(#[case] flags: &[&str], #[case] expected: &str) {
    let project = Project::new(&[("gates/g.toml", &failing("leak", 1))]);
    let mut arguments = vec!["check", "--url", "postgres://127.0.0.1:1/none"];
    arguments.extend(flags);
    let said = project.run(&arguments);
    assert!(said.stderr.contains(expected), "{}", said.all());
    assert_eq!(said.stdout, "", "nothing was run");
}

#[tokio::test]
async fn todays_failures_are_taken_up_and_from_then_on_the_number_only_falls() {
    let gates = |rows: [u32; 3]| {
        let [a, b, c] = rows;
        format!("{}{}{}", failing("a", a), failing("b", b), failing("c", c))
    };
    let target = Target::new(&[("gates/g.toml", &gates([37, 5, 0]))]).await;
    let update = "--update-baseline";
    // Without a reason nothing new is taken up.
    let said = target.check(&[update]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(
        said.stderr.contains("--reason and --owner"),
        "{}",
        said.stderr
    );
    assert!(!target.project.path().join(FILE).exists());

    let grounds = [
        "--reason",
        "as \"found\"",
        "--owner",
        "ann",
        "--until",
        "2999-01-31",
    ];
    let said = target.check(&[&[update], &grounds[..]].concat());
    assert_eq!(said.code, Some(0), "{}", said.all());
    let taken = target.read();
    insta::assert_snapshot!("taken_up", taken);
    assert_eq!(target.check(&[]).code, Some(0));

    // One row more than accepted, with and without the reason: it fails, and the file stays.
    target.project.write("gates/g.toml", &gates([38, 5, 0]));
    for flags in [&[update][..], &[&[update], &grounds[..]].concat()] {
        let said = target.check(flags);
        assert_eq!(said.code, Some(1), "{}", said.all());
        assert!(
            said.stderr.contains("--accept a raises that"),
            "{}",
            said.stderr
        );
        assert_eq!(target.read(), taken);
    }
    // Unless it is named.
    let said = target.check(&[
        update, "--accept", "a", "--reason", "more", "--owner", "bob",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.all());

    target.project.write("gates/g.toml", &gates([36, 0, 2]));
    let said = target.check(&[update]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    insta::assert_snapshot!("fallen", target.read());
    // What was left out, stays.
    target.project.write("gates/g.toml", &gates([0, 0, 2]));
    let before = target.read();
    target.check(&[update, "--select", "b"]);
    assert_eq!(target.read(), before);
    assert_eq!(target.check(&[update]).code, Some(1));
    assert!(!target.read().contains("[[accept]]"), "{}", target.read());
    // And it is taken up again below what stands there.
    let said = target.check(&[&[update], &grounds[..]].concat());
    assert_eq!(said.code, Some(0), "{}", said.all());
    insta::assert_snapshot!("again", target.read());
}

#[tokio::test]
async fn comments_and_order_stay() {
    let file = "# Agreed with the data team.\n\n# until the import is repaired\n[[accept]]\nowner = \"ann\" # on leave\n\
                gate = \"b\"\nrows = 9 # was 12\nreason = \"import\"\n\n# gone soon\n[[accept]]\ngate = \"a\"\n\
                rows = 3\nreason = \"r\"\nowner = \"o\"\n\n# The end.\n";
    let gates = format!("{}{}", failing("a", 3), failing("b", 4));
    let target = Target::new(&[
        ("gates/g.toml", &gates),
        ("postern.toml", "baseline = 'kept/accepted.toml'\n"),
        ("kept/accepted.toml", file),
    ])
    .await;
    let read =
        || std::fs::read_to_string(target.project.path().join("kept/accepted.toml")).unwrap();
    let said = target.check(&["--update-baseline"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(read(), file.replace("rows = 9 #", "rows = 4 #"));
    // The first one goes with its own comment; the head of the file is not about it.
    let gates = format!("{}{}", failing("a", 3), failing("b", 0));
    target.project.write("gates/g.toml", &gates);
    let said = target.check(&["--update-baseline"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let expected = "# Agreed with the data team.\n\n# gone soon\n[[accept]]\ngate = \"a\"\n\
                    rows = 3\nreason = \"r\"\nowner = \"o\"\n\n# The end.\n";
    assert_eq!(read(), expected);
}
