//! Workloads on a real database. Nothing here depends on speed.

use std::path::Path;

use postern::bench::{Samples, Verdict, Workload, measure};
use postern::{Error, ErrorKind};

use crate::support;

async fn run(text: &str) -> Result<Samples, Error> {
    let workload = Workload::parse(Path::new("workload/query.sql"), text).unwrap();
    let database = support::database().await;
    let mut connection = database.connect().await?;
    let result = measure(&mut connection, database.address(), &workload).await;
    // In no transaction any more, whatever happened: a write works.
    let write = postern::sql!("create table after (id integer)");
    sqlx::raw_sql(write).execute(&mut connection).await.unwrap();
    result
}

#[tokio::test]
async fn a_workload_is_run_as_often_as_it_says() {
    let workloads = Workload::discover(Path::new("fixtures/workload")).unwrap();
    let ids: Vec<&str> = workloads
        .iter()
        .map(|workload| workload.id.as_str())
        .collect();
    assert_eq!(ids, ["nothing", "games"]);

    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let mut samples = Vec::new();
    for workload in &workloads {
        samples.push(
            measure(&mut connection, database.address(), workload)
                .await
                .unwrap(),
        );
    }
    assert_eq!(samples[0].judge(&workloads[0]), Verdict::NoRows);
    assert!(samples[1].judge(&workloads[1]).is_passed());
    assert_eq!((samples[1].durations().len(), samples[1].rows), (3, 15));
    let plan = samples[1].plan.as_ref().unwrap();
    assert_eq!(plan[0]["Plan"]["Node Type"], "Function Scan");
    assert_eq!(plan[0]["Plan"]["Actual Rows"].as_f64(), Some(15.0));
    assert!(plan[0]["Plan"]["Shared Hit Blocks"].is_number(), "{plan}");
}

#[tokio::test]
async fn a_query_that_fails_points_at_its_place() {
    let text = "-- budget: 1s\n\nselect count(*)\nfrom nowhere.games;";
    let error = run(text).await.expect_err("there is no such table");
    assert_eq!(error.kind(), ErrorKind::Database);
    insta::assert_snapshot!(error.render(false));
}

#[tokio::test]
async fn a_query_that_fails_while_it_runs_points_at_its_file() {
    let text = "-- budget: 1s\nselect 1 / (n - 1) from generate_series(1, 2) n";
    let error = run(text).await.expect_err("it divides by zero");
    insta::assert_snapshot!(error.render(false));
}

#[tokio::test]
async fn a_workload_cannot_write() {
    let text = "-- budget: 1s\nwith x as (insert into t values (1) returning *) select * from x";
    let database = support::database().await;
    let mut connection = database.connect().await.unwrap();
    let table = postern::sql!("create table t (id integer)");
    sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
    let workload = Workload::parse(Path::new("w.sql"), text).unwrap();
    let error = measure(&mut connection, database.address(), &workload)
        .await
        .expect_err("the transaction is read-only");
    assert_eq!(error.sqlstate(), Some("25006"));
}
