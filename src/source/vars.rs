//! Variables in definitions: `${name}` in any text value.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::DeValue;

use crate::error::{Error, nearest};

use super::SourceFile;

/// Variables by name.
pub type Vars = BTreeMap<String, String>;

/// Replaces `${name}` in every text of `value`, at any depth; `$${` stands for a literal `${`.
///
/// Every name that is not in `vars` is an error at its place; every name goes into `used`.
pub fn expand(
    file: &SourceFile,
    value: &mut Spanned<DeValue<'_>>,
    vars: &Vars,
    used: &mut BTreeSet<String>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => {
            if text.contains("${") {
                match expand_text(text, vars, used) {
                    Ok(expanded) => *text = expanded.into(),
                    Err(wrong) => {
                        for name in wrong {
                            let error = file.error(
                                find_in(&file.text, span.clone(), &format!("${{{name}}}")),
                                format!("unknown variable `{name}`"),
                                "no value for it",
                            );
                            errors.push(match nearest(&name, vars.keys().map(String::as_str)) {
                                Some(near) => error.help(format!("did you mean `{near}`?")),
                                None => error.help(
                                    "define it under [vars] in the suite or in postern.toml, or give --var NAME=VALUE",
                                ),
                            });
                        }
                    }
                }
            }
        }
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                errors.extend(expand(file, item, vars, used));
            }
        }
        DeValue::Table(table) => {
            for (_, item) in table.iter_mut() {
                errors.extend(expand(file, item, vars, used));
            }
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
    errors
}

/// The expanded text, or every name that has no value.
fn expand_text(
    text: &str,
    vars: &Vars,
    used: &mut BTreeSet<String>,
) -> Result<String, Vec<String>> {
    let mut out = String::with_capacity(text.len());
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = &tail[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = tail.find('}') else {
            out.push_str(tail);
            rest = "";
            break;
        };
        let name = &tail[2..end];
        used.insert(name.to_owned());
        match vars.get(name) {
            Some(value) => out.push_str(value),
            None => unknown.push(name.to_owned()),
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    if unknown.is_empty() {
        Ok(out)
    } else {
        Err(unknown)
    }
}

/// Where `needle` stands inside `span`, or the whole span.
fn find_in(text: &str, span: std::ops::Range<usize>, needle: &str) -> std::ops::Range<usize> {
    match text.get(span.clone()).and_then(|part| part.find(needle)) {
        Some(at) => span.start + at..span.start + at + needle.len(),
        None => span,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("${a}.${b}", Ok("x.y"))]
    #[case("$${a}", Ok("${a}"))]
    #[case("no variables, $1 and $$", Ok("no variables, $1 and $$"))]
    #[case("${a", Ok("${a"))]
    #[case("${c}${a}${d}", Err(vec!["c", "d"]))]
    fn variables_are_replaced(#[case] text: &str, #[case] expected: Result<&str, Vec<&str>>) {
        let vars = Vars::from([("a".into(), "x".into()), ("b".into(), "y".into())]);
        let expected = expected
            .map(str::to_owned)
            .map_err(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(expand_text(text, &vars, &mut BTreeSet::new()), expected);
    }
}
