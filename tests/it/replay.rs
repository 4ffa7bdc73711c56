//! `postern replay` as its users see it.

use std::process::Command;

use rstest::rstest;

#[rstest]
#[case::good("good", 0, "every down restores what was there before its up")]
#[case::wrong_down("wrong_down", 1, "finding")]
#[case::lossy_down("lossy_down", 1, "finding")]
#[case::failing("failing", 3, "SQLSTATE")]
#[case::mistakes("mistakes", 2, "error:")]
fn the_exit_code_tells_whether_the_migrations_are_proved(
    #[case] history: &str,
    #[case] code: i32,
    #[case] told: &str,
) {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["replay", "--engine", "local"])
        .arg(format!("fixtures/migrations/{history}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(told), "{text}");
}

#[test]
fn a_file_that_was_there_before_is_applied_first() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("legacy.txt", "create table games (id int);");
    std::fs::create_dir(folder.path().join("migrations")).unwrap();
    write(
        "migrations/001_note.up.sql",
        "alter table games add column note text;",
    );
    write(
        "migrations/001_note.down.sql",
        "alter table games drop column note;",
    );
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .current_dir(folder.path())
        .args([
            "replay",
            "migrations",
            "--engine",
            "local",
            "--before",
            "legacy.txt",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("ACCESS EXCLUSIVE on public.games"), "{text}");
}
