//! Who may log in, and how the password comes.

use rstest::rstest;

use crate::project::{Project, Said};

use super::{ELEVEN, TEN, guarded, hand, shop, url};

const PASSWORD: &str = "p@ss:w/rd%1";
const ENCODED: &str = "p%40ss%3Aw%2Frd%251";

/// Makes a role with [`PASSWORD`] that may read the table.
async fn role(name: &str) -> (postern::pg::Database, String) {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut session = hand(database.address()).await;
    let text = format!(
        "create role {name} login password '{PASSWORD}'; grant usage on schema s to {name}; \
         grant select on s.games to {name}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(text))
        .execute(&mut session)
        .await
        .unwrap();
    let name = database.name().to_owned();
    (database, name)
}

#[derive(Clone, Copy)]
enum Way {
    Url,
    Environment,
    PassFile,
    Settings,
}

#[rstest]
#[case::url(Way::Url, "way_url")]
#[case::environment(Way::Environment, "way_environment")]
#[case::pass_file(Way::PassFile, "way_pass_file")]
#[case::settings(Way::Settings, "way_settings")]
#[tokio::test]
async fn a_password_of_odd_characters_comes_in_every_way_and_out_in_none(
    #[case] way: Way,
    #[case] login: &str,
) {
    use std::os::unix::fs::PermissionsExt;
    let (_database, name) = role(login).await;
    let server = guarded().await;
    let wrong = "[[gate]]\nid='wrong'\nkind='sql'\nquery='select nothing from s.games'\n";
    let project = Project::new(&[("gates/g.toml", &[TEN, wrong].concat())]);
    let plain = url(server, login, &name);
    let encoded = url(server, &format!("{login}:{ENCODED}"), &name);
    for format in ["terminal", "json", "junit"] {
        let mut command = project.postern(&["check", "-v", "--format", format]);
        match way {
            Way::Url => command.args(["--url", &encoded]),
            Way::Environment => command.args(["--url", &plain]).env("PGPASSWORD", PASSWORD),
            Way::PassFile => {
                let file = project.path().join("pass");
                let line = format!("*:*:*:{login}:{}\n", PASSWORD.replace(':', "\\:"));
                std::fs::write(&file, line).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
                command.args(["--url", &plain]).env("PGPASSFILE", file)
            }
            Way::Settings => {
                project.write(
                    "postern.toml",
                    &format!("[target.shop]\nurl = \"{encoded}\"\n"),
                );
                &mut command
            }
        };
        let said = Said::of(&command.output().unwrap());
        assert_eq!(said.code, Some(3), "{}", said.all());
        if format == "json" {
            assert_eq!(said.told(), ["ten passed", "wrong errored 42703"]);
        }
        for secret in [PASSWORD, ENCODED, "w/rd", "w%2Frd"] {
            assert!(!said.all().contains(secret), "{}", said.all());
        }
    }
}

#[rstest]
#[case("terminal")]
#[case("json")]
#[case("junit")]
#[tokio::test]
async fn a_wrong_password_errors_every_gate_and_is_not_shown(#[case] format: &str) {
    let (_database, name) = role(&format!("wrong_{format}")).await;
    let project = Project::new(&[("gates/g.toml", &[TEN, ELEVEN].concat())]);
    let login = format!("wrong_{format}:hunt%40er22");
    let target = url(guarded().await, &login, &name);
    let said = project.run(&["check", "-v", "--url", &target, "--format", format]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(
        said.stdout.contains("password authentication failed"),
        "{}",
        said.all()
    );
    assert!(said.stdout.contains("28P01"), "{}", said.all());
    for secret in ["hunt@er22", "hunt%40er22", PASSWORD] {
        assert!(!said.all().contains(secret), "{}", said.all());
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let project = Project::new(&[("gates/g.toml", TEN)]);
    let target = url(guarded().await, "postgres", "no_such_database");
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.told(), ["ten errored 3D000"]);
    assert!(said.stdout.contains("no_such_database"), "{}", said.stdout);
}

#[test]
fn a_server_that_is_down_errors_every_gate_with_a_sentence() {
    let project = Project::new(&[("gates/g.toml", &[TEN, ELEVEN].concat())]);
    let target = "postgres://ann:hunter22@127.0.0.1:1/shop";
    let said = project.run(&["check", "--url", target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.told(), ["ten errored 08001", "eleven errored 08001"]);
    assert!(
        said.stdout
            .contains("could not reach postgres://ann@127.0.0.1:1/shop")
    );
    assert!(said.json()["snapshot"].is_null());
}

#[rstest]
#[case::down("postgres://ann:hunter22@127.0.0.1:1/shop", "08001")]
#[case::unknown_host("postgres://ann:hunter22@host.invalid:1/shop", "08001")]
#[tokio::test]
async fn another_target_that_is_down_costs_only_the_gates_that_need_it(
    #[case] other: &str,
    #[case] sqlstate: &str,
) {
    let parity = "[[gate]]\nid='parity'\nkind='row_count_parity'\ntable='s.games'\nagainst='s.games'\n\
                  against_target='before'\n";
    let database = shop(crate::support::server().await, "").await;
    let project = Project::new(&[("gates/g.toml", &[parity, ELEVEN, TEN].concat())]);
    let said = project.run(&[
        "check",
        "--url",
        &database.address().to_secret_url(),
        "--other",
        &format!("before={other}"),
        "--format",
        "json",
    ]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    let parity = format!("parity errored {sqlstate}");
    assert_eq!(said.told(), [&parity, "eleven failed", "ten passed"]);
    assert!(!said.all().contains("hunter22"), "{}", said.all());
}

#[tokio::test]
async fn names_in_mixed_case_and_with_quotes_are_taken_as_they_are() {
    let server = guarded().await;
    let mut session = hand(server.maintenance()).await;
    for statement in [
        r#"create role "Ann ""B"" O'Neil" login password 'Mixed''"Case'"#,
        r#"create database "Shop ""Ü 1"" O'Neil" owner "Ann ""B"" O'Neil""#,
    ] {
        sqlx::query(statement).execute(&mut session).await.unwrap();
    }
    let admin = url(server, "postgres", "Shop%20%22%C3%9C%201%22%20O%27Neil");
    let admin = postern::pg::Address::parse(&admin).unwrap();
    let mut inside = hand(&admin).await;
    let text = r#"
        create schema "My ""Schema" authorization "Ann ""B"" O'Neil";
        create table "My ""Schema"."Order ""Lines" ("Line ""No" int primary key, "select" text);
        insert into "My ""Schema"."Order ""Lines" values (1, 'a'), (2, null);
        grant all on all tables in schema "My ""Schema" to "Ann ""B"" O'Neil"
    "#;
    sqlx::raw_sql(text).execute(&mut inside).await.unwrap();
    let gates = r#"
        [[gate]]
        id = "key"
        kind = "unique"
        table = '"My ""Schema"."Order ""Lines"'
        columns = ['Line "No']
        [[gate]]
        id = "complete"
        kind = "completeness"
        table = '"My ""Schema"."Order ""Lines"'
        columns = ["select"]
    "#;
    let project = Project::new(&[("gates/g.toml", gates)]);
    let target = url(
        server,
        "Ann%20%22B%22%20O%27Neil:Mixed%27%22Case",
        "Shop%20%22%C3%9C%201%22%20O%27Neil",
    );
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert_eq!(said.told(), ["key passed", "complete failed"]);
    let key = &said.json()["gates"][1]["rows"][0]["key"];
    assert_eq!(key.to_string(), r#"[["Line \"No","2"]]"#);
    assert!(!said.all().contains("Mixed"), "{}", said.all());
    drop(inside);
}
