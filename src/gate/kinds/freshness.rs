//! Kind `freshness`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{Column, RelationInfo, ShownColumn, Side};
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

mod calendar;

use calendar::{Calendar, Micros};

/// Is the newest row new enough, overall or per group? The newest `column` is at most `max_age`
/// old by the server's clock, or at the moment `as_of`; a time without zone is read as UTC. A row
/// whose time lies in the future is no sign of freshness and is not counted as the newest.
///
/// With a `calendar` only the time of its days counts towards the age, so that nothing grows old in
/// an off-season: `calendar = { seasons = [{ from = "03-20", to = "11-05" }] }`, or, with a table
/// that says when games are, `calendar = { table = "core.games", column = "game_date" }`. What its
/// parts name together must all hold of a day that counts.
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
    /// The days whose time counts towards the age: `seasons`, `weekdays`, `except`, `table` with
    /// `column`, and their `time_zone`. All time where nothing is said.
    calendar: Option<Calendar>,
    /// Columns that form groups: each group's newest row must be new enough.
    #[serde(default)]
    group_by: Vec<String>,
}

/// The labels of the newest row's moment and of the one that age is counted from.
const NEWEST_AT: &str = "newest at";
const NOW_AT: &str = "now at";

/// What stands around a time to make microseconds of it.
fn micros() -> (Sql, Sql) {
    (
        sql!("(extract(epoch from ("),
        sql!(")::timestamptz) * 1000000)::bigint"),
    )
}

/// A moment that was asked for.
fn at(measured: &Measured, label: &str) -> Option<Micros> {
    measured.text(label).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("`{label}` was asked as a number and came as `{text}`"))
    })
}

fn in_micros(age: Age) -> Micros {
    Micros::try_from(age.0.as_micros()).unwrap_or(Micros::MAX)
}

/// A column without an age is an error.
fn check_time(column: &Column) -> Result<()> {
    if column.type_name == "date" || column.type_name.starts_with("timestamp") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Database,
        format!(
            "`{}` is of type {}, which has no age: freshness needs date or timestamp",
            column.name, column.type_name
        ),
    )
    .with_sqlstate("42804"))
}

impl Freshness {
    /// The moment that age is counted from.
    fn now(&self) -> Sql {
        self.as_of.map_or_else(
            || sql!("now()"),
            |Moment(at)| sql!("{}::timestamptz", Literal(&at.to_string())),
        )
    }

    /// Whether a row's time is one that has been.
    fn past(&self) -> Sql {
        let time = Ident::new(self.column.clone());
        sql!("isfinite({}) and {} <= {}", time, time, self.now())
    }

    /// Asks how many groups there are and which of them are older than they may be.
    fn ask_groups(
        &self,
        table: &RelationInfo,
        stale: &Sql,
        warn: &Sql,
        ask: &mut Ask,
    ) -> Result<()> {
        let scope = scope_of(table, self.r#where.as_ref());
        let mut key = table.shown(&self.group_by)?;
        let group = Sql::join(", ", self.group_by.iter().map(Ident::new));
        // Named by place: a column of the table may be called anything.
        let places = || (0..self.group_by.len()).map(|place| Ident::new(format!("c{place}")));
        let grouped = sql!(
            "(select {}, max({}) filter (where {}) from {} where {} group by {}) g({})",
            group,
            Ident::new(self.column.clone()),
            self.past(),
            scope.relation,
            scope.condition(None),
            group,
            Sql::join(", ", places().chain([Ident::new("newest")]))
        );
        let is_old = |older: &Sql| sql!("(g.newest is null or {})", older);
        ask.measures.push(Measure::Statement {
            labels: ["groups", "stale", "warned"].map(str::to_owned).to_vec(),
            side: scope.side.clone(),
            about: scope.relation.clone(),
            sql: sql!(
                "select count(*)::text, (count(*) filter (where {}))::text, (count(*) filter (where {}))::text from {}",
                is_old(stale),
                is_old(warn),
                grouped
            ),
        });
        for (column, place) in key.iter_mut().zip(places()) {
            column.sql = sql!("g.{}", place);
        }
        key.push(ShownColumn {
            name: "newest".to_owned(),
            sql: sql!("g.newest"),
            is_masked: table.column(&self.column)?.is_masked,
        });
        let order = Sql::join(", ", places().map(|name| sql!("g.{}", name)));
        let from = sql!(
            "from {} where {} order by g.newest nulls first, {}",
            grouped,
            is_old(warn),
            order
        );
        ask.evidence
            .push(Evidence::new("warned", scope.side, key, from));
        Ok(())
    }

    /// How old the newest row is, as its calendar counts.
    fn age(&self, measured: &Measured) -> Option<f64> {
        let Some(calendar) = &self.calendar else {
            return measured.number("age");
        };
        let (newest, now) = (at(measured, NEWEST_AT)?, at(measured, NOW_AT)?);
        let active = calendar.with_days(measured).between(newest, now);
        Some(jiff::SignedDuration::from_micros(active).as_secs_f64())
    }
}

impl Definition for Freshness {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for Freshness {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self
            .calendar
            .as_ref()
            .map_or_else(Vec::new, Calendar::problems);
        if self.warn_age.is_some_and(|warn| warn >= self.max_age) {
            problems.push(
                Problem::new(
                    "warn_age",
                    format!(
                        "the warning level can never fire: older than {} the gate already fails",
                        self.max_age
                    ),
                )
                .help("set `warn_age` below `max_age`"),
            );
        }
        problems
    }

    fn needs(&self) -> Needs {
        let mut needs = scope_needs(&self.table.0, self.r#where.as_ref());
        let calendar = self.calendar.as_ref().and_then(Calendar::relation);
        let calendar = calendar.map(|relation| (Side::Main, relation.clone()));
        needs.relations.extend(calendar);
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let column = table.column(&self.column)?;
        check_time(column)?;
        table.shown(&self.group_by)?;
        let scope = scope_of(table, self.r#where.as_ref());
        let time = Ident::new(self.column.clone());
        // One clock, one instant: now() stands beside max(column) in the same statement.
        let (now, past) = (self.now(), self.past());
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
        if let Some(calendar) = &self.calendar {
            ask.measures.extend(calendar.ask(known.catalog())?);
            ask.measures.push(Aggregate::call_within(
                NEWEST_AT,
                &scope,
                newest,
                Some(past),
                micros(),
            ));
            let (before, after) = micros();
            let now = sql!("max({}{}{})", before, now, after);
            ask.measures
                .push(Aggregate::call(NOW_AT, &scope, now, None));
        } else if !self.group_by.is_empty() {
            let older = |age: Age| {
                let seconds = u64::try_from(age.0.as_secs()).unwrap_or(u64::MAX);
                sql!(
                    "g.newest::timestamptz < {} - interval '1 second' * {}",
                    now,
                    seconds
                )
            };
            let warn = older(self.warn_age.unwrap_or(self.max_age));
            self.ask_groups(table, &older(self.max_age), &warn, &mut ask)?;
        }
        Ok(ask)
    }

    /// How far back a group may reach depends on the calendar and on the server's clock.
    fn ask_more(&self, known: &Known<'_>, measured: &Measured) -> Result<Option<Ask>> {
        let Some(calendar) = self.calendar.as_ref().filter(|_| !self.group_by.is_empty()) else {
            return Ok(None);
        };
        let Some(now) = at(measured, NOW_AT).filter(|_| !measured.has("groups")) else {
            return Ok(None);
        };
        let days = calendar.with_days(measured);
        let older = |age: Age| match days.earliest(now, in_micros(age)) {
            Some(earliest) => sql!("g.newest::timestamptz < {}", calendar::moment(earliest)),
            None => sql!("false"),
        };
        let table = known.catalog().relation(&self.table.0)?;
        let mut ask = Ask::default();
        let warn = older(self.warn_age.unwrap_or(self.max_age));
        self.ask_groups(table, &older(self.max_age), &warn, &mut ask)?;
        Ok(Some(ask))
    }

    fn follow_up(&self) -> Option<&'static str> {
        let is_grouped = self.calendar.is_some() && !self.group_by.is_empty();
        is_grouped.then_some(
            "once the days that count are known: which groups are older than these allow",
        )
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let rows = measured.count("rows");
        let age = self.age(measured);
        let by_the_clock = measured.number("age");
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
                    let counted = match by_the_clock.map(duration) {
                        Some(whole) if whole != shown => {
                            format!(", counting the days of the calendar ({whole} by the clock)")
                        }
                        _ => String::new(),
                    };
                    format!("the newest row is {more}{shown} old{counted}")
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
            // Without a row a gate with a calendar has not asked for its groups.
            let counted = |label| match measured.has(label) {
                true => measured.count(label),
                false => 0,
            };
            let (groups, stale) = (counted("groups"), counted("stale"));
            verdict = if groups == 0 {
                Verdict::Empty
            } else if stale > 0 {
                Verdict::Failed
            } else if counted("warned") > 0 {
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
