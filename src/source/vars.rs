//! Variables in definitions: `${name}` in any text value.
//!
//! What they hold is a value and stays one: in SQL it cannot end the quotes around it, and where no
//! quotes are it can only be a name or a number.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, nearest};

use super::SourceFile;
use super::splice::Splice;

/// Variables by name.
pub type Vars = BTreeMap<String, String>;

/// What a `[vars]` table says.
#[derive(Debug, Default)]
pub struct Defined {
    /// Its variables.
    pub vars: Vars,
    /// Where they stand, in that order.
    pub places: Vec<(String, Range<usize>)>,
    /// What is wrong with it.
    pub errors: Vec<Error>,
}

/// The variables of a `[vars]` table; a value may name the environment.
pub fn read_vars(file: &SourceFile, value: Option<&Spanned<DeValue<'_>>>) -> Defined {
    let mut defined = Defined::default();
    let Some(value) = value else {
        return defined;
    };
    let Defined {
        vars,
        places,
        errors,
    } = &mut defined;
    let Some(table) = value.get_ref().as_table() else {
        errors.push(file.error(value.span(), "`vars` is not a table", "expected [vars]"));
        return defined;
    };
    for (key, value) in table {
        let name = key.get_ref();
        let wrong = |message: String, label| file.error(value.span(), message, label);
        let Some(text) = value.get_ref().as_str() else {
            errors.push(wrong(
                format!("the variable `{name}` is not text"),
                "expected text in quotes",
            ));
            continue;
        };
        if name.starts_with("env:") || name.contains(['}', ':']) {
            errors.push(
                file.error(key.span(), format!("`{name}` is not a variable's name"), "")
                    .help("`${env:NAME}` is the environment's; write a name without `:` and `}`"),
            );
            continue;
        }
        let mut expander = Expander {
            file,
            vars: &Vars::new(),
            used: &mut BTreeSet::new(),
            errors: Vec::new(),
        };
        let expanded = expander.text(text, &value.span(), false);
        for error in expander.errors {
            errors.push(match error.help_text() {
                Some(UNKNOWN) => {
                    error.help("a variable can hold `${env:NAME}`, but no other variable")
                }
                _ => error,
            });
        }
        places.push((name.to_string(), key.span()));
        vars.insert(name.to_string(), expanded);
    }
    places.sort_by_key(|(_, span)| span.start);
    defined
}

const UNKNOWN: &str =
    "define it under [vars] in the suite or in postern.toml, or give --var NAME=VALUE";

/// Replaces variables in every text of `table`, at any depth; `$${` stands for a literal `${`.
///
/// `${name}` is looked up in `vars` and `${env:NAME}` in the environment; `:-` and a text behind
/// either is what stands there for one that is not set, or empty. Fields that `is_sql` names are
/// SQL. Everything that has no value is an error at its place; every name goes into `used`.
pub fn expand(
    file: &SourceFile,
    table: &mut DeTable<'_>,
    vars: &Vars,
    used: &mut BTreeSet<String>,
    is_sql: &dyn Fn(&str) -> bool,
) -> Vec<Error> {
    let mut expander = Expander {
        file,
        vars,
        used,
        errors: Vec::new(),
    };
    for (key, value) in table.iter_mut() {
        expander.value(value, is_sql(key.get_ref()));
    }
    expander.errors
}

struct Expander<'a> {
    file: &'a SourceFile,
    vars: &'a Vars,
    used: &'a mut BTreeSet<String>,
    errors: Vec<Error>,
}

impl Expander<'_> {
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, is_sql: bool) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                *text = self.text(text, &span, is_sql).into();
            }
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    self.value(item, is_sql);
                }
            }
            DeValue::Table(table) => {
                for (_, item) in table.iter_mut() {
                    self.value(item, is_sql);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    /// The text with its variables replaced; with a mistake among them, as it is.
    fn text(&mut self, text: &str, span: &Range<usize>, is_sql: bool) -> String {
        let before = self.errors.len();
        let mut splice = Splice::default();
        for part in parts(text) {
            match part {
                Part::Text(text) => splice.push_text(text),
                Part::Variable(reference) => {
                    let at = find_in(&self.file.text, span.clone(), &format!("${{{reference}}}"));
                    match self.look_up(reference, &at) {
                        Ok(value) => splice.push_value(reference, value, at),
                        Err(error) => self.errors.push(error),
                    }
                }
            }
        }
        if self.errors.len() > before {
            return text.to_owned();
        }
        if !is_sql {
            return splice.plain();
        }
        let (text, wrong) = splice.into_sql();
        for (wrong, at) in wrong {
            self.errors
                .push(self.file.error(at, wrong.message, "").help(wrong.help));
        }
        text
    }

    fn look_up(&mut self, reference: &str, at: &Range<usize>) -> Result<String, Error> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let wrong = |message: String, label: &str| self.file.error(at.clone(), message, label);
        let found = match name.strip_prefix("env:") {
            Some(name) if is_secret(name) => {
                return Err(wrong(format!("`{name}` is named like a secret"), "")
                    .note("what a definition holds is shown in reports")
                    .help("keep passwords out of gates: a target takes its own from `url_env` or from libpq's files"));
            }
            Some(name) => match std::env::var(name) {
                Ok(value) if holds_password(&value) => {
                    return Err(
                        wrong(format!("`{name}` holds an address with its password"), "")
                            .note("what a definition holds is shown in reports")
                            .help("name a target instead: its URL is shown without its password"),
                    );
                }
                Ok(value) => Some(value),
                Err(std::env::VarError::NotPresent) => None,
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(wrong(
                        format!("the environment variable `{name}` is not UTF-8"),
                        "",
                    ));
                }
            },
            None => {
                self.used.insert(name.to_owned());
                self.vars.get(name).cloned()
            }
        };
        match (found, default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(match name.strip_prefix("env:") {
                Some(name) => wrong(
                    format!("the environment variable `{name}` is not set"),
                    "no value for it",
                )
                .help(format!(
                    "set it, or give a value for its absence: ${{env:{name}:-…}}"
                )),
                None => {
                    let error = wrong(format!("unknown variable `{name}`"), "no value for it");
                    match nearest(name, self.vars.keys().map(String::as_str)) {
                        Some(near) => error.help(format!("did you mean `{near}`?")),
                        None => error.help(UNKNOWN),
                    }
                }
            }),
        }
    }
}

/// Whether a variable of the environment is called what secrets are called.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = [
        "PASS",
        "SECRET",
        "TOKEN",
        "CREDENTIAL",
        "PRIVATE",
        "APIKEY",
        "_KEY",
    ];
    words.iter().any(|word| name.contains(word))
        || ["_PWD", "_AUTH"].iter().any(|end| name.ends_with(end))
}

/// Whether a text is or holds `scheme://user:password@host`.
fn holds_password(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', ' ']).next().unwrap_or(rest);
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'))
    }) || value.to_ascii_lowercase().contains("password=")
}

enum Part<'a> {
    Text(&'a str),
    /// What stands between `${` and `}`.
    Variable(&'a str),
}

/// A text as it was written, in parts; `${` that is never closed is text.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        if let Some(escaped) = before.strip_suffix('$') {
            parts.extend([Part::Text(escaped), Part::Text("${")]);
            rest = &tail[2..];
            continue;
        }
        let Some(end) = tail.find('}') else {
            break;
        };
        parts.extend([Part::Text(before), Part::Variable(&tail[2..end])]);
        rest = &tail[end + 1..];
    }
    parts.push(Part::Text(rest));
    parts
}

/// Where `needle` stands inside `span`, or the whole span.
fn find_in(text: &str, span: Range<usize>, needle: &str) -> Range<usize> {
    match text.get(span.clone()).and_then(|part| part.find(needle)) {
        Some(at) => span.start + at..span.start + at + needle.len(),
        None => span,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn expanded(text: &str, is_sql: bool) -> Result<String, Vec<String>> {
        let vars = Vars::from([
            ("a".into(), "x".into()),
            ("b".into(), "y".into()),
            ("none".into(), String::new()),
        ]);
        let file = SourceFile {
            path: "f".into(),
            text: text.into(),
        };
        let mut expander = Expander {
            file: &file,
            vars: &vars,
            used: &mut BTreeSet::new(),
            errors: Vec::new(),
        };
        let found = expander.text(text, &(0..text.len()), is_sql);
        if expander.errors.is_empty() {
            return Ok(found);
        }
        let told = expander.errors.iter();
        Err(told.map(|error| error.message().to_owned()).collect())
    }

    #[rstest]
    #[case("${a}.${b}", "x.y")]
    #[case("$${a}", "${a}")]
    #[case("no variables, $1 and $$", "no variables, $1 and $$")]
    #[case("${a", "${a")]
    #[case("${a:-z}${c:-z}${none:-z}${none}|${c:-}", "xzz|")]
    #[case(
        "${env:POSTERN_NEVER_SET:-2024-07-01T00:00:00Z}",
        "2024-07-01T00:00:00Z"
    )]
    fn variables_are_replaced(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(expanded(text, false).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case("${c}${a}${d}", &["unknown variable `c`", "unknown variable `d`"])]
    #[case("${env:POSTERN_NEVER_SET}", &["the environment variable `POSTERN_NEVER_SET` is not set"])]
    #[case("${env:PGPASSWORD:-}", &["`PGPASSWORD` is named like a secret"])]
    #[case("${env:SERVICE_KEY_ID}", &["`SERVICE_KEY_ID` is named like a secret"])]
    #[case("${env:GITHUB_TOKEN}", &["`GITHUB_TOKEN` is named like a secret"])]
    fn what_has_no_value_is_told(#[case] text: &str, #[case] expected: &[&str]) {
        for is_sql in [false, true] {
            assert_eq!(expanded(text, is_sql).unwrap_err(), expected);
        }
    }

    #[rstest]
    #[case("postgres://me:secret@host/db", true)]
    #[case("see https://me:secret@host", true)]
    #[case("host=x password=y", true)]
    #[case("postgres://me@host:5432/db", false)]
    #[case("2024", false)]
    fn an_address_with_a_password_is_known(#[case] value: &str, #[case] expected: bool) {
        assert_eq!(holds_password(value), expected);
    }
}
