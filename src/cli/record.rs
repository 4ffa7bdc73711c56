//! `postern record`: writes the results of a check into a table, over a connection of its own.

use std::path::PathBuf;

use clap::Args;
use sqlx::{Connection, PgConnection};

use crate::error::{Error, Errors};
use crate::pg::Address;
use crate::report::stored::{GateRow, StoredReport};
use crate::sql;
use crate::sql::{Relation, Sql};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A report that `check --format json=FILE` or `rehearse` wrote.
    report: PathBuf,
    /// The database to write to. It is named here and nowhere else: neither DATABASE_URL nor a target
    /// of postern.toml is ever written to.
    #[arg(long, value_name = "URL")]
    into: String,
    /// The table, as SCHEMA.TABLE.
    #[arg(
        long,
        value_name = "TABLE",
        default_value = "operational.data_quality_metrics"
    )]
    table: String,
    /// Makes the table first, if it is not there.
    #[arg(long)]
    create: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Errors> {
    let report = StoredReport::load(&arguments.report)?;
    let address = Address::parse(&arguments.into).map_err(|error| error.context("--into"))?;
    let table = Relation::parse(&arguments.table)
        .and_then(|table| match table.schema {
            Some(_) => Ok(table),
            None => Err(format!("`{}` names no schema", arguments.table)),
        })
        .map_err(|wrong| Error::usage(wrong).help("write --table SCHEMA.TABLE"))?;
    let failed = |error: sqlx::Error| {
        let error = address.error(&error);
        error.context(format!("nothing was recorded in {}", arguments.table))
    };
    let mut session = PgConnection::connect_with(address.options())
        .await
        .map_err(failed)?;
    let written = write(&mut session, &table, &report, arguments.create).await;
    // After an error there is nothing left to say goodbye to; the transaction ends with the session.
    let _ = session.close().await;
    let written = written.map_err(failed)?;
    let (new, all) = (written, report.rows.len());
    super::print(&if new == 0 {
        format!("run {} was recorded already\n", report.run_id)
    } else if new < all as u64 {
        format!(
            "recorded {new} of {all} gates of run {}; the others were there\n",
            report.run_id
        )
    } else {
        format!("recorded {all} gates of run {}\n", report.run_id)
    })?;
    Ok(0)
}

/// All rows or none. What is there already stays as it is.
async fn write(
    session: &mut PgConnection,
    table: &Relation,
    report: &StoredReport,
    create: bool,
) -> Result<u64, sqlx::Error> {
    let mut transaction = session.begin().await?;
    if create {
        sqlx::raw_sql(definition(table))
            .execute(&mut *transaction)
            .await?;
    }
    let mut written = 0;
    for row in &report.rows {
        let GateRow {
            gate,
            suite,
            kind,
            severity,
            outcome,
            measured,
            unit,
            rows_checked,
            rows_offending,
            message,
        } = row;
        let insert = sql!(
            "insert into {} (run_id, gate, suite, kind, severity, outcome, measured, unit, rows_checked,
                             rows_offending, message, measured_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::timestamptz)
             on conflict (run_id, gate) do nothing",
            table
        );
        written += sqlx::query(&insert)
            .bind(&report.run_id)
            .bind(gate)
            .bind(suite)
            .bind(kind)
            .bind(severity)
            .bind(outcome)
            .bind(measured)
            .bind(unit)
            .bind(rows_checked)
            .bind(rows_offending)
            .bind(message)
            .bind(&report.measured_at)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
    }
    transaction.commit().await?;
    Ok(written)
}

/// The table that results are written to.
fn definition(table: &Relation) -> Sql {
    sql!(
        "create table if not exists {} (
             run_id          text not null,
             gate            text not null,
             suite           text not null,
             kind            text not null,
             severity        text not null,
             outcome         text not null,
             measured        double precision,
             unit            text,
             rows_checked    bigint,
             rows_offending  bigint,
             message         text not null,
             measured_at     timestamptz not null,
             primary key (run_id, gate)
         )",
        table
    )
}
