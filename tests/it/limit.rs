//! How long a statement of one gate may take.

use rstest::rstest;

use crate::project::Project;
use crate::support;

/// What takes an hour for a row, if nobody ends it.
const HOUR: &str = "pg_sleep(3600) is not null";

fn gate(id: &str, fields: &str) -> String {
    let fields = fields.replace("; ", "\n");
    format!("[[gate]]\nid='{id}'\ntable='s.t'\n{fields}\n")
}

#[rstest]
// Beside it, one that would share its scan and one that comes after it on the same session.
#[case::scan(&format!("kind='row_count'; at_least=1; where=\"{HOUR}\""))]
#[case::presence(&format!("kind='completeness'; columns=['id']; where=\"{HOUR}\""))]
#[case::sample(
    "kind='range'; column='id'; min=1; at_most='50%'; sample='99%'; where=\"pg_sleep(3600) is not null\""
)]
#[tokio::test]
async fn a_gate_over_its_time_is_errored_and_the_others_are_not(
    #[case] fields: &str,
    #[values("1", "2")] connections: &str,
) {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    for text in [
        "create schema s",
        "create table s.t (id int)",
        "insert into s.t values (1), (2)",
        "analyze s.t",
    ] {
        sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    }
    let suite = [
        gate("slow", &format!("{fields}; statement_timeout='50ms'")),
        gate(
            "quick",
            "kind='row_count'; equals=2; statement_timeout='60s'",
        ),
        gate("shared", "kind='row_count'; at_least=1"),
        // Longer than the limit that went before it.
        gate(
            "after",
            "kind='row_count'; at_least=1; where='pg_sleep(0.1) is not null'",
        ),
    ]
    .concat();
    let project = Project::new(&[("gates/g.toml", &suite)]);
    let url = database.address().to_secret_url();
    let said = project.run(&[
        "check",
        "--format",
        "json",
        "--url",
        &url,
        "--connections",
        connections,
    ]);
    let expected = [
        "slow errored 57014",
        "quick passed",
        "shared passed",
        "after passed",
    ];
    assert_eq!(said.told(), expected, "{}", said.all());
    assert_eq!(said.code, Some(3));
}
