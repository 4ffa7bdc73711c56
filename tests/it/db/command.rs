//! `postern db` as its users see it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;

use rstest::rstest;

use super::sandbox::Sandbox;

/// A folder with one migration.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let migrations = folder.path().join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("1_players.sql"), super::PLAYERS).unwrap();
    folder
}

#[rstest]
#[case::passes("exit 0", 0)]
#[case::fails("exit 7", 7)]
#[case::by_the_url("psql -X \"$DATABASE_URL\" -c 'table players'", 0)]
#[case::by_the_variables("psql -X -c 'table players'", 0)]
#[case::another_database_is_not_meant("test \"$PGDATABASE\" != mine && test -n \"$PGPASSWORD\"", 0)]
#[case::ended_by_a_signal("kill -TERM $$", 143)]
fn a_command_gets_a_database_and_its_exit_code_is_passed_on(
    #[case] script: &str,
    #[case] code: i32,
) {
    let sandbox = Sandbox::new();
    let project = project();
    let output = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--", "sh", "-c", script])
        .current_dir(project.path())
        .env("PGDATABASE", "mine")
        .env("PGHOSTADDR", "192.0.2.1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    sandbox.assert_goes();
}

#[rstest]
#[case::by_the_url("psql -X \"$DATABASE_URL\" -c 'table players'", Ok(()))]
#[case::by_the_variables("test $PGHOST = 127.0.0.1 && psql -X -c 'table players'", Ok(()))]
#[case::only_with_the_password(
    "PGPASSWORD=wrong psql -X -c 'table players'",
    Err("password authentication failed")
)]
fn a_client_without_sockets_is_given_an_address(
    #[case] script: &str,
    #[case] expected: Result<(), &str>,
) {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--tcp", "--", "sh", "-c", script])
        .current_dir(project().path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    match expected {
        Ok(()) => assert!(output.status.success(), "{told}"),
        Err(sentence) => assert!(told.contains(sentence), "{told}"),
    }
    sandbox.assert_goes();
}

#[test]
fn a_signal_goes_to_the_command_and_nothing_stays() {
    let sandbox = Sandbox::new();
    let mut process = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--", "sh", "-c"])
        .arg("trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    let status = process.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(9), None));
    sandbox.assert_goes();
}

#[test]
fn a_named_database_stays_until_it_is_dropped() {
    let sandbox = Sandbox::new();
    let project = project();
    let run = |arguments: &[&str]| {
        let output = sandbox
            .command(env!("CARGO_BIN_EXE_postern"))
            .args(arguments)
            .current_dir(project.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let insert = "insert into players values (1, 'Ruth')";
    run(&["db", "--name", "dev", "--", "psql", "-X", "-c", insert]);
    let (url, _) = run(&["db", "--name", "dev"]);
    assert!(url.starts_with("postgres://"), "{url}");
    let count = [
        "db",
        "--name",
        "dev",
        "--",
        "psql",
        "-XAtc",
        "table players",
    ];
    assert_eq!(run(&count).0, "1|Ruth\n");
    // Sweeping is for what nobody uses; this has a name.
    run(&["db", "sweep"]);
    let (listed, _) = run(&["db", "list"]);
    assert!(
        listed.contains("dev") && listed.contains(url.trim()),
        "{listed}"
    );
    std::fs::write(project.path().join("migrations/2_x.sql"), "select 1;").unwrap();
    let (_, said) = run(&["db", "--name", "dev"]);
    assert!(said.contains("was made from other migrations"), "{said}");
    run(&["db", "drop", "dev"]);
    sandbox.assert_goes();
    assert_eq!(run(&["db", "list"]).0, "no server of this user runs\n");
}

#[rstest]
#[case::no_command(&["db"], "there is nothing to give a database to")]
#[case::no_such_program(&["db", "--", "/nowhere/pytest"], "could not run `/nowhere/pytest`")]
#[case::a_wrong_name(&["db", "--name", "De v"], "cannot be a database's name")]
#[case::an_unknown_name(&["db", "drop", "nobody"], "there is no database named `nobody`")]
#[case::no_such_folder(&["db", "--migrations", "nowhere", "--", "true"], "nowhere")]
fn a_mistake_is_told(#[case] arguments: &[&str], #[case] sentence: &str) {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(sentence), "{said}");
    assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
    sandbox.assert_goes();
}
