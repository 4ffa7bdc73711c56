//! What a role may read, and what is not there to be read.

use crate::project::Project;
use crate::support;

use super::{ELEVEN, TEN, guarded, hand, shop, url};

const GATES: &str = "\
[[gate]]\nid='secret'\nkind='row_count'\ntable='s.secret'\nequals=0\n\
[[gate]]\nid='fused'\nkind='completeness'\ntable='s.secret'\ncolumns=['id']\n\
[[gate]]\nid='own_sql'\nkind='sql'\nquery='select id from s.secret'\n";

#[tokio::test]
async fn a_role_that_may_only_select_is_enough_and_what_it_may_not_is_errored() {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut session = hand(database.address()).await;
    let text = "create role reader login password 'reader'; grant usage on schema s to reader; \
                grant select on s.games to reader";
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    let project = Project::new(&[("gates/g.toml", &[ELEVEN, GATES, TEN].concat())]);
    let target = url(server, "reader:reader", database.name());
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "eleven failed",
            "secret errored 42501",
            "fused errored 42501",
            "own_sql errored 42501",
            "ten passed"
        ]
    );
    let message = said.json()["gates"][1]["message"].to_string();
    assert!(
        message.contains("permission denied for table secret"),
        "{message}"
    );
}

#[tokio::test]
async fn a_schema_that_may_not_be_used_is_an_error_too() {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut session = hand(database.address()).await;
    sqlx::raw_sql("create role outsider login password 'x'; create table public.open as select 1 as id; grant select on public.open to outsider")
        .execute(&mut session)
        .await
        .unwrap();
    let open = "[[gate]]\nid='open'\nkind='row_count'\ntable='open'\nequals=1\n";
    let project = Project::new(&[("gates/g.toml", &[TEN, open].concat())]);
    let target = url(server, "outsider:x", database.name());
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.told(), ["ten errored 42501", "open passed"]);
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_an_error_and_no_pass() {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut session = hand(database.address()).await;
    let text = "create role tenant login password 'x'; grant usage on schema s to tenant; \
                grant select on s.games, s.secret to tenant; insert into s.secret values (1); \
                alter table s.secret enable row level security";
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    let project = Project::new(&[("gates/g.toml", &[GATES, TEN].concat())]);
    let target = url(server, "tenant:x", database.name());
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "secret errored 42501",
            "fused errored 42501",
            "own_sql errored 42501",
            "ten passed"
        ]
    );
}

#[tokio::test]
async fn a_missing_table_or_column_is_told_with_a_guess_and_a_sqlstate() {
    let database = shop(support::server().await, "").await;
    let gates = "\
        [[gate]]\nid='table'\nkind='row_count'\ntable='s.gamez'\nequals=0\n\
        [[gate]]\nid='column'\nkind='unique'\ntable='s.games'\ncolumns=['idd']\n\
        [[gate]]\nid='own_table'\nkind='sql'\nquery='select id from s.gamez'\n\
        [[gate]]\nid='own_column'\nkind='row_count'\ntable='s.games'\nwhere='idd > 1'\nequals=0\n";
    let project = Project::new(&[("gates/g.toml", &[gates, TEN].concat())]);
    let target = database.address().to_secret_url();
    let said = project.run(&["check", "--url", &target, "--format", "json"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "table errored 42P01",
            "column errored 42703",
            "own_table errored 42P01",
            "own_column errored 42703",
            "ten passed"
        ]
    );
    let report = said.json();
    let help = |gate: usize| report["gates"][gate]["help"].as_str().unwrap().to_owned();
    assert_eq!(help(0), "did you mean `s.games`?");
    assert_eq!(help(1), "did you mean `id`?");
}
