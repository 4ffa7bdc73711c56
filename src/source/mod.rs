//! Step 1: definition files as text with spans.
//!
//! Finds files and what they include, parses TOML (every error, not the first), reads the header of `.sql` gates into
//! the same table shape, expands `${variables}`, and turns a table into a typed value field by
//! field so that every wrong field is reported. Knows nothing of gates or connections, and of SQL only where its quotes end.

mod discover;
mod document;
mod header;
mod include;
mod read;
mod splice;
mod vars;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use discover::discover;
pub use document::{Document, parse_document};
pub use header::{Header, parse_header};
pub use include::{included, plain_path};
pub use read::{Problem, Table, read};
pub use vars::{Defined, Vars, expand, read_vars};

use crate::error::{Error, ErrorKind, Excerpt, Result, line_column};

/// A definition file: where it is and what it says.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As the user named it, or below the folder the user named.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
}

/// Where a definition stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
pub struct Place {
    /// The file, with `/` between its parts.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl SourceFile {
    /// Reads a file; text that is not UTF-8 is an error, not a guess. A byte order mark is dropped.
    pub fn load(path: PathBuf) -> Result<Self> {
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::new(
                ErrorKind::Definition,
                format!(
                    "`{}` is not UTF-8 text (byte {} is the first that is wrong)",
                    path.display(),
                    e.utf8_error().valid_up_to()
                ),
            )
            .help("save the file as UTF-8")
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Ok(Self {
            path,
            text: text.into(),
        })
    }

    /// The place of a byte offset.
    pub fn place(&self, offset: usize) -> Place {
        Place {
            file: self.path.to_string_lossy().replace('\\', "/"),
            line: line_column(&self.text, offset).0,
        }
    }

    /// A stretch of this file to point at.
    pub fn excerpt(&self, span: Range<usize>, label: impl Into<String>) -> Excerpt {
        Excerpt {
            file: self.path.clone(),
            text: Arc::clone(&self.text),
            span,
            label: label.into(),
        }
    }

    /// A definition error at a stretch of this file.
    pub fn error(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Error {
        Error::new(ErrorKind::Definition, message).at(self.excerpt(span, label))
    }
}
