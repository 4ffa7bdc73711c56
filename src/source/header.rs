//! The leading comment of a `.sql` definition: `-- key: value` lines above the statement.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, nearest};

use super::SourceFile;

/// The header of a `.sql` file as a table, and where the statement below it starts and ends.
pub struct Header<'a> {
    /// Keys and values as if they had been written in TOML.
    pub table: Spanned<DeTable<'a>>,
    /// The statement, without the header comment.
    pub body: Range<usize>,
}

/// Reads the leading `--` comment lines of a file.
///
/// A line `-- key: value` with a known key is a field; any other line is prose, unless its first
/// word is nearly a known key (a misspelt `severty:` must not be prose). Keys in `lists` hold
/// words with commas between them.
pub fn parse_header<'a>(
    file: &'a SourceFile,
    known: &[&str],
    lists: &[&str],
) -> Result<Header<'a>, Vec<Error>> {
    let text: &'a str = &file.text;
    let mut table = DeTable::new();
    let mut errors = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if content.is_empty() {
            offset += line.len();
            continue;
        }
        let Some(comment) = content.strip_prefix("--") else {
            break;
        };
        let start = offset + line.find("--").unwrap_or_default() + 2;
        offset += line.len();
        let Some((key, value)) = comment.split_once(':') else {
            continue;
        };
        let key_start = start + (key.len() - key.trim_start().len());
        let key_span = key_start..key_start + key.trim().len();
        let value_start = start + key.len() + 1 + (value.len() - value.trim_start().len());
        let (key, value) = (key.trim(), value.trim());
        let value_span = value_start..value_start + value.len();
        if !known.contains(&key) {
            let is_word = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if let Some(near) = nearest(key, known.iter().copied()).filter(|_| is_word) {
                errors.push(
                    file.error(key_span, format!("unknown field `{key}` in the header"), "")
                        .help(format!("did you mean `{near}`?")),
                );
            }
            continue;
        }
        let spanned = Spanned::new(key_span.clone(), key.into());
        if table.contains_key(&spanned) {
            errors.push(file.error(key_span, format!("`{key}` is given twice"), ""));
            continue;
        }
        table.insert(
            spanned,
            Spanned::new(
                value_span.clone(),
                typed(value, &value_span, lists.contains(&key)),
            ),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let body = offset..text.len();
    if text[body.clone()].trim().is_empty() {
        return Err(vec![file.error(
            body,
            format!("`{}` holds no statement", file.path.display()),
            "expected a query below the header",
        )]);
    }
    Ok(Header {
        table: Spanned::new(0..offset.min(2), table),
        body,
    })
}

/// A header value as TOML would type it: a list, a number, or text.
fn typed<'a>(value: &'a str, span: &Range<usize>, is_list: bool) -> DeValue<'a> {
    if is_list {
        let items = value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Spanned::new(span.clone(), DeValue::String(item.into())));
        return DeValue::Array(items.collect());
    }
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    match DeValue::parse(value) {
        Ok(number) if is_number => number.into_inner(),
        _ => DeValue::String(value.into()),
    }
}
