//! A query with a budget, read from a file.
//!
//! ```sql
//! -- id: training_query
//! -- budget: 2s
//! -- percentile: 95
//! -- runs: 10
//! -- warmup: 2
//! -- baseline: 014_performance_optimization
//! -- faster_by: 50%
//! -- why: models are trained every night within the hour
//! select … from curated.enhanced_games …;
//! ```
//!
//! Only `budget` must be there. `baseline` names a migration: in a rehearsal the query is measured just
//! before it, too, and the median afterwards must be shorter by `faster_by` at least. Comment lines that are not `word: value` say what they like.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Errors, nearest, one_of};
use crate::migrate::{Script, sql_files};
use crate::sql::AuthorSql;

/// One query, its budget, and how often it is run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name in reports; the file's stem unless given.
    pub id: String,
    /// The most that the percentile may take.
    pub budget: Duration,
    /// Which percentile of the runs is held to the budget, 1 to 100.
    pub percentile: u8,
    /// How many runs are measured, at least one.
    pub runs: u32,
    /// How many runs go before, unmeasured.
    pub warmup: u32,
    /// Why it matters.
    pub why: Option<String>,
    /// The migration, by number or by id, before which it is measured for comparison.
    pub baseline: Option<String>,
    /// By how many percent the median must be shorter than the baseline's.
    pub faster_by: Option<f64>,
    script: Script,
}

const KEYS: [&str; 8] = [
    "id",
    "budget",
    "percentile",
    "runs",
    "warmup",
    "why",
    "baseline",
    "faster_by",
];

/// More runs than this are a mistake.
const RUNS_MAX: u32 = 100_000;

impl Workload {
    /// Reads every `*.sql` file of a folder, in the order of their names; all mistakes are
    /// reported together, two workloads of one id among them.
    pub fn discover(folder: &Path) -> Result<Vec<Self>, Errors> {
        let files = sql_files(folder)?;
        if files.is_empty() {
            let message = format!("`{}` holds no workload", folder.display());
            let error = definition(message)
                .help("put a `.sql` file there that begins with `-- budget: 2s`");
            return Err(error.into());
        }
        let mut errors = Errors::default();
        let mut workloads: Vec<Self> = Vec::new();
        for file in files {
            match Self::read(&file) {
                Ok(workload) => {
                    if let Some(other) = workloads.iter().find(|other| other.id == workload.id) {
                        let message = format!(
                            "two workloads have the id `{}`: `{}` and `{}`",
                            workload.id,
                            other.file().display(),
                            file.display()
                        );
                        errors.0.push(Error::new(ErrorKind::Definition, message));
                    }
                    workloads.push(workload);
                }
                Err(more) => errors.0.extend(more.0),
            }
        }
        errors.into_result()?;
        Ok(workloads)
    }

    /// Reads one file.
    pub fn read(file: &Path) -> Result<Self, Errors> {
        Self::from_script(Script::read(file)?)
    }

    /// Reads a text, which is named `file` in errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Errors> {
        Self::from_script(Script::parse(file, text)?)
    }

    /// The file it came from.
    pub fn file(&self) -> &Path {
        self.script.file()
    }

    /// The query, as its author wrote it.
    pub fn query(&self) -> AuthorSql {
        self.script.sql(self.statement())
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn statement(&self) -> &crate::migrate::Statement {
        self.script
            .statements()
            .first()
            .expect("a workload is only made of a script with one statement")
    }

    fn from_script(script: Script) -> Result<Self, Errors> {
        let mut header = Header::read(&script);
        match script.statements() {
            [] => header.fail(definition(format!(
                "`{}` holds no query",
                script.file().display()
            ))),
            [only] => {
                let command = only.command();
                if !["SELECT", "WITH", "TABLE", "VALUES", ""].contains(&command.as_str()) {
                    let error = definition(format!("a workload is a SELECT, not {command}"));
                    header.fail(error.at(script.excerpt(only.span.clone(), "")));
                }
            }
            [_, second, ..] => {
                let error = definition("a workload is one query".to_owned());
                header.fail(
                    error
                        .at(script.excerpt(second.span.clone(), "here begins another"))
                        .help("put each query into a file of its own"),
                );
            }
        }
        if header.faster_by.is_some() && header.baseline.is_none() && header.errors.0.is_empty() {
            let message = format!(
                "`{}` has `faster_by` and no `baseline`",
                script.file().display()
            );
            header.fail(
                definition(message)
                    .help("name the migration before which it is measured: `-- baseline: 014`"),
            );
        }
        if header.budget.is_none() && header.errors.0.is_empty() {
            let message = format!("`{}` has no budget", script.file().display());
            header.fail(definition(message).help("begin it with `-- budget: 2s`"));
        }
        header.errors.into_result()?;
        let stem = script.file().file_stem().unwrap_or_default();
        Ok(Self {
            id: header
                .id
                .unwrap_or_else(|| stem.to_string_lossy().into_owned()),
            budget: header.budget.unwrap_or_default(),
            percentile: header.percentile.unwrap_or(95),
            runs: header.runs.unwrap_or(10),
            warmup: header.warmup.unwrap_or(2),
            why: header.why,
            baseline: header.baseline,
            faster_by: header.faster_by,
            script,
        })
    }
}

fn definition(message: String) -> Error {
    Error::new(ErrorKind::Definition, message)
}

/// What the leading comment says.
#[derive(Default)]
struct Header {
    id: Option<String>,
    budget: Option<Duration>,
    percentile: Option<u8>,
    runs: Option<u32>,
    warmup: Option<u32>,
    why: Option<String>,
    baseline: Option<String>,
    faster_by: Option<f64>,
    errors: Errors,
}

impl Header {
    fn read(script: &Script) -> Self {
        let mut header = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for comment in script
            .comments()
            .iter()
            .filter(|comment| comment.is_leading)
        {
            let text = script.comment_text(comment);
            let Some((key, value)) = text.split_once(':') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            // "Note: …" is prose; `-- budgte: 2s` is not.
            let is_word = key
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
            if key.is_empty() || !is_word {
                continue;
            }
            if KEYS.contains(&key) && seen.contains(&key) {
                let error = definition(format!("`{key}` is given twice"));
                header.fail(error.at(script.excerpt(comment.span.clone(), "")));
                continue;
            }
            seen.push(key);
            let result = header.set(key, value);
            if let Err((error, label)) = result {
                let span = place(
                    script,
                    &comment.span,
                    if KEYS.contains(&key) { value } else { key },
                );
                header.fail(error.at(script.excerpt(span, label)));
            }
        }
        header
    }

    fn fail(&mut self, error: Error) {
        self.errors.0.push(error);
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), (Error, String)> {
        if KEYS.contains(&key) && value.is_empty() {
            return Err((definition(format!("`{key}` has no value")), String::new()));
        }
        match key {
            "id" => self.id = Some(value.to_owned()),
            "why" => self.why = Some(value.to_owned()),
            "budget" => self.budget = Some(duration(value)?),
            "percentile" => self.percentile = Some(number(key, value, 1, 100)?),
            "runs" => self.runs = Some(number(key, value, 1, RUNS_MAX)?),
            "warmup" => self.warmup = Some(number(key, value, 0, RUNS_MAX)?),
            "baseline" => self.baseline = Some(value.to_owned()),
            "faster_by" => self.faster_by = Some(percent(value)?),
            other => {
                let error = definition(format!("unknown key `{other}` in a workload"));
                let error = match nearest(other, KEYS) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help("put prose on a line without a colon, or after `why:`"),
                };
                return Err((error, format!("expected {}", one_of(KEYS))));
            }
        }
        Ok(())
    }
}

/// Where `part` stands in a comment; the whole comment if it is empty.
fn place(script: &Script, comment: &Range<usize>, part: &str) -> Range<usize> {
    let text = &script.text()[comment.clone()];
    match text.rfind(part) {
        Some(at) if !part.is_empty() => comment.start + at..comment.start + at + part.len(),
        _ => comment.clone(),
    }
}

fn number<T>(key: &str, value: &str, low: T, high: T) -> Result<T, (Error, String)>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    match value.parse::<T>() {
        Ok(number) if number >= low && number <= high => Ok(number),
        _ => Err((
            definition(format!("`{value}` is not a value for `{key}`")),
            format!("expected a whole number from {low} to {high}"),
        )),
    }
}

/// `50%`; from 0 to below 100.
fn percent(text: &str) -> Result<f64, (Error, String)> {
    let number = text.strip_suffix('%').map(str::trim).map(str::parse::<f64>);
    match number {
        Some(Ok(number)) if (0.0..100.0).contains(&number) => Ok(number),
        _ => Err((
            definition(format!("`{text}` is not a percentage")),
            "expected a number from 0 to below 100 with `%`, for example `50%`".to_owned(),
        )),
    }
}

/// `250ms`, `2s`, `1.5s`, `3m`; more than nothing, at most a day.
fn duration(text: &str) -> Result<Duration, (Error, String)> {
    let wrong = || {
        (
            definition(format!("`{text}` is not a duration")),
            "expected a number with `ms`, `s` or `m`, for example `250ms` or `2s`".to_owned(),
        )
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let (digits, unit) = text.split_at(split);
    let seconds_per_unit = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let amount: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = amount * seconds_per_unit;
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err(wrong());
    }
    // Rounded to a nanosecond's thousand, so that 0.1s prints as 100ms.
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<Workload, Errors> {
        Workload::parse(Path::new("workload/training.sql"), text)
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let workload = parse("-- budget: 2s\nselect 1;").unwrap();
        assert_eq!(workload.id, "training");
        assert_eq!(
            (workload.percentile, workload.runs, workload.warmup),
            (95, 10, 2)
        );
        assert_eq!(workload.budget, Duration::from_secs(2));
        assert_eq!(workload.query().as_str(), "select 1");
    }

    #[test]
    fn every_key_is_read() {
        let text = "-- The training query. Note: it is old\n-- id: a\n-- budget: 250 ms\n-- percentile: 50\n\
                    -- runs: 3\n-- warmup: 0\n-- baseline: 014\n-- faster_by: 12.5 %\n-- why: models: they need it\n\nwith x as (select 1) select * from x -- id: b\n";
        let workload = parse(text).unwrap();
        assert_eq!(workload.id, "a");
        assert_eq!(
            (workload.percentile, workload.runs, workload.warmup),
            (50, 3, 0)
        );
        assert_eq!(workload.why.as_deref(), Some("models: they need it"));
        assert_eq!(workload.baseline.as_deref(), Some("014"));
        assert_eq!(workload.faster_by, Some(12.5));
    }

    #[rstest]
    #[case("50")]
    #[case("100%")]
    #[case("-1%")]
    #[case("half%")]
    fn a_wrong_percentage_is_refused(#[case] text: &str) {
        assert!(percent(text).is_err());
    }

    #[rstest]
    #[case("2s", 2_000)]
    #[case("0.1s", 100)]
    #[case("250ms", 250)]
    #[case("1.5m", 90_000)]
    fn a_budget_has_a_unit(#[case] text: &str, #[case] expected: u64) {
        assert_eq!(duration(text).ok(), Some(Duration::from_millis(expected)));
    }

    #[rstest]
    #[case("2")]
    #[case("s")]
    #[case("0s")]
    #[case("-1s")]
    #[case("2 hours")]
    #[case("1.2.3s")]
    #[case("9999m")]
    fn a_wrong_budget_is_refused(#[case] text: &str) {
        assert!(duration(text).is_err());
    }

    #[test]
    fn every_mistake_in_a_workload_is_reported() {
        let errors = parse(
            "-- budgte: 2s\n-- percentile: 101\n-- runs: 0\n-- runs: 1\n-- id:\n-- budget: soon\n-- colour: red\n\
             update t set a = 1;\n",
        )
        .expect_err("it is wrong");
        let rendered: Vec<String> = errors.0.iter().map(|e| e.render(false)).collect();
        insta::assert_snapshot!("workload_mistakes", rendered.join("\n"));
    }

    #[rstest]
    #[case("", "holds no query")]
    #[case("select 1", "has no budget")]
    #[case(
        "-- budget: 1s\n-- faster_by: 10%\nselect 1",
        "has `faster_by` and no `baseline`"
    )]
    #[case("-- budget: 1s\nselect 1; select 2", "a workload is one query")]
    #[case("-- budget: 1s\ndelete from t", "a workload is a SELECT, not DELETE")]
    fn a_workload_is_one_query_with_a_budget(#[case] text: &str, #[case] expected: &str) {
        let errors = parse(text).expect_err("it is wrong").0;
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].message().contains(expected), "{errors:?}");
    }
}
