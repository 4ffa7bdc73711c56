//! TOML with spans, and every error in it.

use toml::Spanned;
use toml::de::DeTable;

use crate::error::Error;

use super::SourceFile;

/// A parsed TOML file: its root table, each key and value with its span.
pub type Document<'a> = Spanned<DeTable<'a>>;

/// Parses a whole file; on wrong syntax, every syntax error of it.
pub fn parse_document(file: &SourceFile) -> Result<Document<'_>, Vec<Error>> {
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    if errors.is_empty() {
        return Ok(table);
    }
    Err(errors
        .iter()
        .map(|e| {
            let message = e.message();
            let (message, label) = match message.split_once(", expected ") {
                Some((what, expected)) => (what, format!("expected {expected}")),
                None => (message, String::new()),
            };
            file.error(
                e.span().unwrap_or(0..0),
                format!("not valid TOML: {message}"),
                label,
            )
        })
        .collect())
}
