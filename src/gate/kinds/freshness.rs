//! Kind `freshness`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::fields::{Age, Moment, SqlText, TableName, duration};
use crate::gate::threshold::{Bounds, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Judgement, Kind, Known, Measure, Measured, Needs, OnEmpty,
    Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Definition;
use super::shared::{scope_needs, scope_of};

/// Is the newest row new enough, overall or per group? The newest `column` is at most `max_age`
/// old by the server's clock, or at the moment `as_of`; a time without zone is read as UTC. A row
/// whose time lies in the future is no sign of freshness and is not counted as the newest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// The table or view.
    table: TableName,
    /// The column with the time: `date`, `timestamp` or `timestamptz`.
    column: String,
    /// Only rows for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// Fails when the newest row is older than this, such as `36h` or `2d`.
    max_age: Age,
    /// Warns when it is older than this.
    warn_age: Option<Age>,
    /// The moment that age is counted from, such as `2025-07-03T12:00:00Z`, for a database that
    /// stands still: a restored backup, a rehearsal. The server's clock where nothing is said.
    as_of: Option<Moment>,
    /// Columns that form groups: each group's newest row must be new enough.
    #[serde(default)]
    group_by: Vec<String>,
}

impl Definition for Freshness {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for Freshness {
    fn problems(&self) -> Vec<Problem> {
        match self.warn_age {
            Some(warn) if warn >= self.max_age => vec![
                Problem::new(
                    "warn_age",
                    format!(
                        "the warning level can never fire: older than {} the gate already fails",
                        self.max_age
                    ),
                )
                .help("set `warn_age` below `max_age`"),
            ],
            _ => Vec::new(),
        }
    }

    fn needs(&self) -> Needs {
        scope_needs(&self.table.0, self.r#where.as_ref())
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let column = table.column(&self.column)?;
        let is_time = column.type_name == "date" || column.type_name.starts_with("timestamp");
        if !is_time {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "`{}` is of type {}, which has no age: freshness needs date or timestamp",
                    self.column, column.type_name
                ),
            )
            .with_sqlstate("42804"));
        }
        table.columns_named(&self.group_by)?;
        let scope = scope_of(table, self.r#where.as_ref());
        let time = Ident::new(self.column.clone());
        // One clock, one instant: now() stands beside max(column) in the same statement.
        let now = self.as_of.map_or_else(
            || sql!("now()"),
            |Moment(at)| sql!("{}::timestamptz", Literal(&at.to_string())),
        );
        let past = sql!("isfinite({}) and {} <= {}", time, time, now);
        let future = sql!("{} > {}", time, now);
        let newest = sql!("max({})", time);
        let mut ask = Ask {
            measures: vec![
                Aggregate::count("rows", &scope, None),
                Aggregate::count("future", &scope, Some(future)),
                Aggregate::call("newest", &scope, newest.clone(), Some(past.clone())),
                Aggregate::call_within(
                    "age",
                    &scope,
                    newest.clone(),
                    Some(past.clone()),
                    (
                        sql!("extract(epoch from {} - (", now),
                        sql!(")::timestamptz)"),
                    ),
                ),
            ],
            ..Ask::default()
        };
        if !self.group_by.is_empty() {
            let group = Sql::join(", ", self.group_by.iter().map(Ident::new));
            // Named by place: a column of the table may be called anything.
            let places = || (0..self.group_by.len()).map(|place| Ident::new(format!("c{place}")));
            let grouped = sql!(
                "(select {}, {} filter (where {}) from {} where {} group by {}) g({})",
                group,
                newest,
                past,
                scope.relation,
                scope.condition(None),
                group,
                Sql::join(", ", places().chain([Ident::new("newest")]))
            );
            let older = |age: Age| {
                let seconds = u64::try_from(age.0.as_secs()).unwrap_or(u64::MAX);
                sql!(
                    "(g.newest is null or g.newest::timestamptz < {} - interval '1 second' * {})",
                    now,
                    seconds
                )
            };
            let warn = older(self.warn_age.unwrap_or(self.max_age));
            ask.measures.push(Measure::Statement {
                labels: ["groups", "stale", "warned"].map(str::to_owned).to_vec(),
                side: scope.side.clone(),
                about: scope.relation.clone(),
                sql: sql!(
                    "select count(*)::text, (count(*) filter (where {}))::text, (count(*) filter (where {}))::text from {}",
                    older(self.max_age),
                    warn,
                    grouped
                ),
            });
            let shown = Sql::join(", ", places().map(|name| sql!("g.{}::text", name)));
            let order = Sql::join(", ", places().map(|name| sql!("g.{}", name)));
            let mut columns = self.group_by.clone();
            columns.push("newest".to_owned());
            ask.evidence.push(Evidence {
                counted_by: "warned".to_owned(),
                what: None,
                side: scope.side,
                columns,
                sql: sql!(
                    "select {}, g.newest::text from {} where {} order by g.newest nulls first, {}",
                    shown,
                    grouped,
                    warn,
                    order
                ),
            });
        }
        Ok(ask)
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let rows = measured.count("rows");
        let age = measured.number("age");
        let future = measured.count("future");
        let is_older = |limit: Age| age.is_none_or(|age| age > limit.seconds());
        let mut message;
        let (verdict, figure, offending);
        if self.group_by.is_empty() {
            verdict = if rows == 0 {
                Verdict::Empty
            } else if is_older(self.max_age) {
                Verdict::Failed
            } else if self.warn_age.is_some_and(is_older) {
                Verdict::Warned
            } else {
                Verdict::Passed
            };
            message = match age {
                Some(age) => {
                    let shown = duration(age);
                    // 2d and one minute is shown as 2d: a limit of 2d must not look kept.
                    let is_over = is_older(self.max_age) && shown == self.max_age.to_string();
                    let more = if is_over { "more than " } else { "" };
                    format!("the newest row is {more}{shown} old")
                }
                None if rows == 0 => "no rows".to_owned(),
                None => format!(
                    "none of {} has a time that is not in the future",
                    rows_of(rows, "row")
                ),
            };
            figure = Figure {
                value: age.unwrap_or(0.0),
                unit: "seconds",
                display: age.map_or_else(|| "no time".to_owned(), duration),
            };
            offending = None;
        } else {
            let (groups, stale) = (measured.count("groups"), measured.count("stale"));
            verdict = if groups == 0 {
                Verdict::Empty
            } else if stale > 0 {
                Verdict::Failed
            } else if measured.count("warned") > 0 {
                Verdict::Warned
            } else {
                Verdict::Passed
            };
            message = format!("{stale} of {} stale", rows_of(groups, "group"));
            figure = Figure::counted(stale, "groups", "group");
            offending = Some(stale);
        }
        if future > 0 {
            message.push_str(&format!(
                "; {} in the future not counted",
                rows_of(future, "row")
            ));
        }
        Judgement {
            verdict,
            rows_checked: Some(rows),
            rows_offending: offending,
            measured: figure,
            threshold: Bounds {
                fail: Some(format!("at most {} old", self.max_age)),
                warn: self.warn_age.map(|age| format!("at most {age} old")),
            },
            message,
            findings: Vec::new(),
        }
    }
}
