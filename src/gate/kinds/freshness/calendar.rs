//! Which days count towards an age.
//!
//! Pure: the moment that age is counted from comes in as a number.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::error::Result;
use crate::gate::catalog::{Catalog, Side};
use crate::gate::fields::TableName;
use crate::gate::{Measure, Measured};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Fixed, Ident, Literal, Relation, Sql};

/// The days that count towards the age: all that nothing here takes out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Calendar {
    /// The parts of a year that count, each from a day to a day that still belongs to it:
    /// `{ from = "03-20", to = "11-05" }`. One may go over the turn of the year. The whole year where
    /// nothing is said.
    #[serde(default)]
    seasons: Vec<Season>,
    /// The days of a week that count: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`. All of them where
    /// nothing is said.
    #[serde(default)]
    weekdays: Vec<Day>,
    /// Days that do not count: `["2026-07-13"]`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    except: Vec<Date>,
    /// A table whose rows name the days that count, in `column`. Of days before its first and after its
    /// last one nothing is known, and they count.
    table: Option<TableName>,
    /// The column of `table`: `date`, `timestamp` or `timestamptz`.
    column: Option<String>,
    /// The time zone whose midnights part the days, such as `America/New_York`; UTC where nothing is said.
    #[serde(default)]
    time_zone: Zone,
}

/// A part of a year.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Season {
    /// Its first day: `MM-DD`.
    from: DayOfYear,
    /// Its last day: `MM-DD`.
    to: DayOfYear,
}

impl Season {
    fn holds(&self, day: Date) -> bool {
        let day = (day.month(), day.day());
        let (from, to) = (self.from.0, self.to.0);
        if from <= to {
            from <= day && day <= to
        } else {
            from <= day || day <= to
        }
    }
}

/// Month and day.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
struct DayOfYear(#[schemars(with = "String")] (i8, i8));

impl<'de> Deserialize<'de> for DayOfYear {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // 2000 has a 29 February.
        let date = format!("2000-{text}").parse::<Date>();
        let date = date.ok().filter(|_| text.len() == 5);
        date.map(|date| Self((date.month(), date.day())))
            .ok_or_else(|| {
                de::Error::custom(format!(
                    "`{text}` is no day of a year, expected for example 03-20"
                ))
            })
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A time zone by its name.
#[derive(Debug, JsonSchema)]
#[schemars(transparent)]
struct Zone(#[schemars(with = "String")] TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// As Postgres knows it, too.
    fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        TimeZone::get(&text).map(Self).map_err(|_| {
            de::Error::custom(format!(
                "this machine knows no time zone `{text}`, expected a name such as America/New_York"
            ))
        })
    }
}

/// The label of the days that the table names.
const DAYS: &str = "calendar days";

/// More days than this are not asked for: the latest 270 years of them.
const DAYS_MAX: u32 = 100_000;

impl Calendar {
    /// Mistakes that no single field shows.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let wrong = |message: &str| Problem::new("calendar", message);
        let mut problems = Vec::new();
        if self.table.is_some() != self.column.is_some() {
            problems.push(
                wrong("`table` and `column` of a calendar go together")
                    .help("write table = \"core.games\", column = \"game_date\""),
            );
        }
        // All pairs of a day of the year and a day of the week come by in 28 years.
        let first = Date::constant(2001, 1, 1);
        let has_day = first
            .series(jiff::ToSpan::days(1))
            .take(28 * 366)
            .any(|day| self.allows(day));
        if !has_day {
            problems.push(
                wrong("no day counts in this calendar")
                    .help("a row would never grow old; let some days count"),
            );
        }
        problems
    }

    /// The table that it reads.
    pub(super) fn relation(&self) -> Option<&Relation> {
        self.table.as_ref().map(|table| &table.0)
    }

    /// Asks for the days that the table names.
    pub(super) fn ask(&self, catalog: &Catalog) -> Result<Option<Measure>> {
        let (Some(table), Some(column)) = (&self.table, &self.column) else {
            return Ok(None);
        };
        let table = catalog.relation(&table.0)?;
        let column = table.column(column)?;
        super::check_time(column)?;
        let name = Ident::new(column.name.clone());
        let day = if column.type_name.starts_with("timestamp with time zone")
            || column.type_name.starts_with("timestamptz")
        {
            sql!(
                "({} at time zone {})::date",
                name,
                Literal(self.time_zone.name())
            )
        } else {
            sql!("{}::date", name)
        };
        Ok(Some(Measure::Statement {
            labels: vec![DAYS.to_owned()],
            side: Side::Main,
            about: table.relation.clone(),
            sql: sql!(
                "select string_agg(d.day::text, ',') from (select distinct {} as day from {} \
                 where isfinite({}) and {} between date '0001-01-02' and date '9999-12-30' order by 1 desc limit {}) d",
                day,
                table.relation,
                name,
                day,
                DAYS_MAX
            ),
        }))
    }

    /// Whether the rules alone let a day count.
    fn allows(&self, day: Date) -> bool {
        (self.seasons.is_empty() || self.seasons.iter().any(|season| season.holds(day)))
            && (self.weekdays.is_empty() || self.weekdays.contains(&day.weekday().into()))
            && !self.except.contains(&day)
    }

    /// With what the table was found to hold.
    pub(super) fn with_days(&self, measured: &Measured) -> Active<'_> {
        let listed = self.table.as_ref().map(|_| {
            let days = measured.text(DAYS).unwrap_or_default();
            let days = days.split(',').filter(|day| !day.is_empty());
            days.map(|day| {
                day.parse()
                    .unwrap_or_else(|_| panic!("`{day}` was asked as a day"))
            })
            .collect()
        });
        Active {
            calendar: self,
            listed,
        }
    }
}

/// A calendar of which all days are known.
pub(super) struct Active<'a> {
    calendar: &'a Calendar,
    listed: Option<BTreeSet<Date>>,
}

/// Microseconds since 1970, or between two moments.
pub(super) type Micros = i64;

impl Active<'_> {
    fn counts(&self, day: Date) -> bool {
        let is_listed = match &self.listed {
            None => true,
            Some(days) => match (days.first(), days.last()) {
                (Some(first), Some(last)) => day < *first || *last < day || days.contains(&day),
                _ => true,
            },
        };
        is_listed && self.calendar.allows(day)
    }

    /// The first moment of a day; the end of time behind the last one.
    fn start(&self, day: Option<Date>) -> Micros {
        day.and_then(|day| day.to_zoned(self.calendar.time_zone.0.clone()).ok())
            .map_or(Micros::MAX, |start| start.timestamp().as_microsecond())
    }

    /// The day of a moment. Before the year 1 all is one: no age needs to tell more.
    fn day(&self, at: Micros) -> Date {
        let first = Date::constant(1, 1, 2);
        Timestamp::from_microsecond(at).map_or(first, |at| {
            let zoned = at.to_zoned(self.calendar.time_zone.0.clone());
            zoned.date().max(first)
        })
    }

    /// How much of the time between two moments counts.
    pub(super) fn between(&self, from: Micros, to: Micros) -> Micros {
        let mut sum = 0;
        let mut day = self.day(from);
        loop {
            let start = self.start(Some(day));
            if start >= to {
                return sum;
            }
            let next = day.tomorrow().ok();
            if self.counts(day) {
                sum += (self.start(next).min(to) - start.max(from)).max(0);
            }
            match next {
                Some(next) => day = next,
                None => return sum,
            }
        }
    }

    /// The earliest moment from which no more than `age` counts up to `to`; `None` where that much
    /// never was.
    pub(super) fn earliest(&self, to: Micros, age: Micros) -> Option<Micros> {
        let (mut left, mut end) = (age, to);
        let mut day = self.day(to);
        let first = Date::constant(1, 1, 2);
        while day > first {
            let start = self.start(Some(day)).min(end);
            if self.counts(day) {
                if end - start > left {
                    return Some(end - left);
                }
                left -= end - start;
            }
            end = start;
            day = day.yesterday().ok()?;
        }
        None
    }
}

/// A moment in microseconds, as SQL.
pub(super) fn moment(at: Micros) -> Sql {
    sql!(
        "({} + interval '1 microsecond' * {})",
        Fixed("timestamptz 'epoch'"),
        at
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn calendar(text: &str) -> Calendar {
        toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn active<'a>(calendar: &'a Calendar, days: Option<&str>) -> Active<'a> {
        Active {
            calendar,
            listed: days.map(|days| {
                let days = days.split(',').filter(|day| !day.is_empty());
                days.map(|day| day.parse().expect("a day")).collect()
            }),
        }
    }

    fn at(text: &str) -> Micros {
        text.parse::<Timestamp>()
            .expect("a moment")
            .as_microsecond()
    }

    const HOUR: Micros = 3_600_000_000;

    #[rstest]
    // The season ends with 5 November and begins with 20 March.
    #[case::winter(
        "seasons=[{from='03-20',to='11-05'}]",
        "2024-11-05T12:00:00Z",
        "2025-03-20T06:00:00Z",
        18
    )]
    #[case::over_new_year(
        "seasons=[{from='11-20',to='01-02'}]",
        "2024-12-31T12:00:00Z",
        "2025-06-01T00:00:00Z",
        60
    )]
    #[case::leap_day(
        "seasons=[{from='02-29',to='02-29'}]",
        "2024-01-01T00:00:00Z",
        "2025-12-31T00:00:00Z",
        24
    )]
    #[case::end_on_a_leap_day(
        "seasons=[{from='02-28',to='02-29'}]",
        "2023-01-01T00:00:00Z",
        "2025-01-01T00:00:00Z",
        72
    )]
    #[case::weekend(
        "weekdays=['mon','tue','wed','thu','fri']",
        "2025-07-04T20:00:00Z",
        "2025-07-07T04:00:00Z",
        8
    )]
    #[case::except(
        "except=['2025-07-05','2025-07-06']",
        "2025-07-04T20:00:00Z",
        "2025-07-07T04:00:00Z",
        8
    )]
    // On 9 March 2025 a day of New York had 23 hours, and midnight is at 05:00 or 04:00 UTC.
    #[case::short_day(
        "time_zone='America/New_York'\nweekdays=['sun']",
        "2025-03-08T00:00:00Z",
        "2025-03-12T00:00:00Z",
        23
    )]
    #[case::long_day(
        "time_zone='America/New_York'\nweekdays=['sun']",
        "2025-11-01T00:00:00Z",
        "2025-11-05T00:00:00Z",
        25
    )]
    #[case::everything("", "2025-07-04T20:00:00Z", "2025-07-07T04:00:00Z", 56)]
    #[case::the_future("", "2025-07-07T04:00:00Z", "2025-07-04T20:00:00Z", 0)]
    fn only_days_of_the_calendar_count(
        #[case] text: &str,
        #[case] from: &str,
        #[case] to: &str,
        #[case] hours: i64,
    ) {
        let calendar = calendar(text);
        assert_eq!(
            active(&calendar, None).between(at(from), at(to)),
            hours * HOUR
        );
    }

    #[rstest]
    #[case::between("2025-07-01,2025-07-03,2025-07-09", 24 + 12)]
    #[case::after_the_last("2025-07-01,2025-07-03", 24 + 4 * 24 + 12)]
    #[case::before_the_first("2025-07-05,2025-07-09", 12 + 3 * 24 + 24)]
    #[case::nothing_known("", 6 * 24 + 12)]
    fn days_count_that_are_listed_or_unknown(#[case] days: &str, #[case] hours: i64) {
        let calendar = calendar("");
        let active = active(&calendar, Some(days));
        let sum = active.between(at("2025-07-01T12:00:00Z"), at("2025-07-08T00:00:00Z"));
        assert_eq!(sum, hours * HOUR);
    }

    #[rstest]
    #[case("seasons=[{from='2-30',to='11-05'}]", "`2-30` is no day of a year")]
    #[case("seasons=[{from='02-30',to='11-05'}]", "`02-30` is no day of a year")]
    #[case("weekdays=['monday']", "unknown variant `monday`")]
    #[case("time_zone='Mars/Olympus'", "no time zone `Mars/Olympus`")]
    #[case("season=[]", "unknown field `season`")]
    fn what_is_no_calendar_is_refused(#[case] text: &str, #[case] told: &str) {
        let error = toml::from_str::<Calendar>(text)
            .expect_err(text)
            .to_string();
        assert!(error.contains(told), "{error}");
    }

    /// Days by rules, by a list, or both.
    fn calendars() -> impl Strategy<Value = (Calendar, Option<BTreeSet<Date>>)> {
        let day = || (1..=12_u8, 1..=28_u8).prop_map(|(month, day)| format!("{month:02}-{day:02}"));
        let season = (day(), day()).prop_map(|(from, to)| format!("{{from='{from}',to='{to}'}}"));
        let seasons = prop::collection::vec(season, 0..3);
        let names = vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let weekdays = prop::sample::subsequence(names, 0..7);
        let zone = prop::sample::select(vec!["UTC", "America/New_York", "Asia/Tokyo"]);
        let listed = prop::option::of(prop::collection::btree_set(0..500_i32, 0..40));
        (seasons, weekdays, zone, listed).prop_map(|(seasons, weekdays, zone, listed)| {
            let weekdays: Vec<String> = weekdays.iter().map(|day| format!("'{day}'")).collect();
            let text = format!(
                "seasons=[{}]\nweekdays=[{}]\nexcept=['2024-02-29']\ntime_zone='{zone}'",
                seasons.join(","),
                weekdays.join(",")
            );
            let first = Date::constant(2023, 10, 1);
            let listed = listed.map(|days| {
                let days = days.into_iter();
                days.map(|day| first + jiff::ToSpan::days(day)).collect()
            });
            (calendar(&text), listed)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Counted hour by hour, each by the day on which it lies.
        #[test]
        fn active_time_is_that_of_a_count_hour_by_hour(
            (calendar, listed) in calendars(),
            from in 0..12_000_i64,
            hours in 0..12_000_i64,
        ) {
            let active = Active { calendar: &calendar, listed };
            let from = at("2023-09-01T00:00:00Z") + from * HOUR;
            let to = from + hours * HOUR;
            let zone = &calendar.time_zone.0;
            let counted = (0..hours).filter(|hour| {
                let at = Timestamp::from_microsecond(from + hour * HOUR).expect("a moment");
                active.counts(at.to_zoned(zone.clone()).date())
            });
            prop_assert_eq!(active.between(from, to), counted.count() as i64 * HOUR);
        }

        /// A moment before the earliest is too old, and none after it is.
        #[test]
        fn the_earliest_moment_parts_old_from_new(
            (calendar, listed) in calendars(),
            age in 1..2_000_i64,
            back in 0..20_000_i64,
        ) {
            let active = Active { calendar: &calendar, listed };
            let to = at("2025-02-01T07:00:00Z");
            let age = age * HOUR;
            let moment = to - back * HOUR;
            let is_older = active.between(moment, to) > age;
            if !calendar.problems().is_empty() {
                prop_assert!(!is_older);
                return Ok(());
            }
            let earliest = active.earliest(to, age);
            prop_assert_eq!(earliest.is_some_and(|earliest| moment < earliest), is_older);
            if let Some(earliest) = earliest {
                prop_assert_eq!(active.between(earliest, to), age);
                prop_assert!(active.between(earliest - 1, to) > age);
            }
        }
    }
}
