//! What went wrong, where, why, and what to do next.
//!
//! One opaque [`Error`] for the whole crate: a kind that decides the exit code, a sentence, and
//! as far as they are known a place in a file, the SQLSTATE, the SQL that caused it, and help.
//! No password ever enters one: addresses print without theirs, and text that came from a
//! server is masked where it is taken in ([`crate::pg::Address::mask`]).

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A result whose error is Postern's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with location and help.
///
/// `Display` gives the sentence alone; [`Error::render`] gives everything a person needs.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    excerpts: Vec<Excerpt>,
    notes: Vec<String>,
    help: Option<String>,
    sqlstate: Option<String>,
    sql: Option<String>,
}

/// What an error is about; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The command line or the settings are wrong.
    Usage,
    /// A definition file (gate, scenario, settings) is wrong.
    Definition,
    /// The target could not be reached or refused the session.
    Connect,
    /// Postgres answered a statement with an error.
    Database,
    /// A statement or the run took longer than it may.
    Timeout,
    /// It would have read more than it may, so it was not run.
    Refused,
    /// The connection ended while it was in use.
    ConnectionLost,
    /// A migration could not be applied or taken back.
    Migration,
    /// No throwaway Postgres could be started or it misbehaved.
    Engine,
    /// A file or folder could not be read or written.
    Io,
    /// The user asked to stop.
    Interrupted,
}

/// A stretch of a file to point at.
#[derive(Clone, Debug)]
pub struct Excerpt {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The whole text of the file.
    pub text: Arc<str>,
    /// Byte range in `text`.
    pub span: Range<usize>,
    /// What is said under the marks; may be empty.
    pub label: String,
}

impl Excerpt {
    /// Line and column (both from 1, the column in characters) where the span starts.
    pub fn line_column(&self) -> (u32, u32) {
        line_column(&self.text, self.span.start)
    }

    /// Passes the text through `mask`, line by line, and moves the span along.
    fn mask(&mut self, mask: &impl Fn(&str) -> String) {
        let (mut text, mut span) = (String::with_capacity(self.text.len()), self.span.clone());
        let mut offset = 0;
        for line in self.text.split_inclusive('\n') {
            let masked = mask(line);
            let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| {
                pairs.take_while(|(left, right)| left == right).count()
            };
            let head = same(&mut line.bytes().zip(masked.bytes()));
            let tail = same(&mut line.bytes().rev().zip(masked.bytes().rev()));
            let within = offset..=offset + line.len();
            for (old, new) in [
                (self.span.start, &mut span.start),
                (self.span.end, &mut span.end),
            ] {
                if within.contains(&old) {
                    let at = old - offset;
                    *new = text.len()
                        + match line.len() - at {
                            _ if at <= head => at,
                            rest if rest <= tail => masked.len() - rest,
                            _ => head,
                        };
                }
            }
            text.push_str(&masked);
            offset += line.len();
        }
        self.span = span;
        self.text = text.into();
    }
}

/// Line and column (both from 1, the column in characters) of a byte offset in a text.
pub fn line_column(text: &str, offset: usize) -> (u32, u32) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |rest| rest.chars().count())
        + 1;
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (narrow(line), narrow(column))
}

impl Error {
    /// An error of a kind, with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            excerpts: Vec::new(),
            notes: Vec::new(),
            help: None,
            sqlstate: None,
            sql: None,
        }))
    }

    /// A wrong command line or setting.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A file or folder that could not be read or written.
    pub fn io(action: &str, path: &Path, source: &std::io::Error) -> Self {
        Self::new(
            ErrorKind::Io,
            format!("could not {action} `{}`: {source}", path.display()),
        )
    }

    /// Points at a stretch of a file.
    #[must_use]
    pub fn at(mut self, excerpt: Excerpt) -> Self {
        self.0.excerpts.push(excerpt);
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds a fact, for example the server's own detail line.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Names the SQLSTATE that Postgres gave.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// Keeps the SQL that caused it.
    #[must_use]
    pub fn with_sql(mut self, sql: impl Into<String>) -> Self {
        self.0.sql = Some(sql.into());
        self
    }

    /// The same facts under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Puts what was being done before the sentence: `context: sentence`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same error with every text passed through `mask`, which removes secrets.
    #[must_use]
    pub fn masked(mut self, mask: impl Fn(&str) -> String) -> Self {
        let inner = &mut *self.0;
        inner.message = mask(&inner.message);
        for note in &mut inner.notes {
            *note = mask(note);
        }
        inner.help = inner.help.as_deref().map(&mask);
        inner.sql = inner.sql.as_deref().map(&mask);
        for excerpt in &mut inner.excerpts {
            excerpt.label = mask(&excerpt.label);
            excerpt.mask(&mask);
        }
        self
    }

    /// The same without words that may quote a value of the data: those of a class of SQLSTATE in which
    /// the server names the value that it could not take, and what it says beside its sentence.
    #[must_use]
    pub fn without_data(mut self) -> Self {
        // About connections, transactions, names, syntax, privileges, resources and limits.
        const SAFE: &[&str] = &[
            "08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58",
        ];
        let inner = &mut *self.0;
        if inner.sqlstate.is_some() {
            inner.notes.clear();
        }
        let class = inner.sqlstate.as_ref().and_then(|code| code.get(..2));
        if class.is_some_and(|class| !SAFE.contains(&class)) {
            inner.message =
                "the server could not compute with a value; its words are withheld".to_owned();
            inner.help = Some(
                "a column is masked, and the server's message may quote its values: run the statement in a session of your own"
                    .to_owned(),
            );
        }
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence, without location or help.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The SQLSTATE, where Postgres gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// The SQL that caused it, where there was one.
    pub fn sql(&self) -> Option<&str> {
        self.0.sql.as_deref()
    }

    /// Facts beside the sentence.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// What to do next, if anything is known.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The places pointed at, the first one first.
    pub fn excerpts(&self) -> &[Excerpt] {
        &self.0.excerpts
    }

    /// The exit code that this error alone leads to: 2 for a mistake in the command line or the
    /// definitions, 130 when the user asked to stop, 3 for everything else that could not be checked.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Usage | ErrorKind::Definition => 2,
            ErrorKind::Connect
            | ErrorKind::Database
            | ErrorKind::Timeout
            | ErrorKind::Refused
            | ErrorKind::ConnectionLost
            | ErrorKind::Migration
            | ErrorKind::Engine
            | ErrorKind::Io => 3,
            ErrorKind::Interrupted => 130,
        }
    }

    /// The sentence with its SQLSTATE, on one line.
    pub fn one_line(&self) -> String {
        match &self.0.sqlstate {
            Some(code) => format!("{} (SQLSTATE {code})", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// Everything a person needs: the sentence, the excerpt, notes and help.
    ///
    /// `colour` only decorates; the text is the same without it.
    pub fn render(&self, colour: bool) -> String {
        self.render_as(Level::ERROR, colour)
    }

    /// The same for what is legal but suspicious.
    pub fn render_warning(&self, colour: bool) -> String {
        self.render_as(Level::WARNING, colour)
    }

    fn render_as(&self, level: Level<'_>, colour: bool) -> String {
        let inner = &*self.0;
        let message = self.one_line();
        let mut group: Group<'_> = Group::with_title(level.primary_title(message.as_str()));
        for excerpt in &inner.excerpts {
            let path = excerpt.file.to_string_lossy();
            let mut annotation = AnnotationKind::Primary.span(clamp(&excerpt.span, &excerpt.text));
            if !excerpt.label.is_empty() {
                annotation = annotation.label(excerpt.label.as_str());
            }
            group = group.element(
                Snippet::source(&*excerpt.text)
                    .path(path.into_owned())
                    .annotation(annotation),
            );
        }
        for note in &inner.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &inner.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[group])
    }
}

/// A span that the renderer accepts whatever the arithmetic before it did.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}

impl fmt::Debug for Error {
    /// A test that unwraps an error shows the person's view of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Error {}

/// Several errors of one step, all of them reported.
#[derive(Clone, Debug, Default)]
pub struct Errors(pub Vec<Error>);

impl Errors {
    /// `Ok` when nothing was collected.
    pub fn into_result(self) -> Result<(), Errors> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The exit code of the worst one: 3 outranks 2 never happens within one step, so the highest.
    pub fn exit_code(&self) -> u8 {
        self.0.iter().map(Error::exit_code).max().unwrap_or(0)
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

/// The candidate closest to `word`, if one is close enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            *distance <= (word.chars().count().max(candidate.chars().count()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "`a`, `b` or `c`", for the list of what is allowed.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_error_shows_place_label_and_help() {
        let text: Arc<str> = "[[gate]]\nid = \"x\"\ncolum = \"customer_id\"\n".into();
        let error = Error::new(
            ErrorKind::Definition,
            "unknown field `colum` in a `completeness` gate",
        )
        .at(Excerpt {
            file: "gates/orders.toml".into(),
            span: 18..23,
            text,
            label: "expected `table` or `columns`".into(),
        })
        .help("did you mean `columns`?");
        insta::assert_snapshot!(error.render(false), @r#"
        error: unknown field `colum` in a `completeness` gate
         --> gates/orders.toml:3:1
          |
        3 | colum = "customer_id"
          | ^^^^^ expected `table` or `columns`
          |
          = help: did you mean `columns`?
        "#);
    }

    #[test]
    fn a_masked_excerpt_still_points_at_the_same_thing() {
        let text: Arc<str> = "# a\nurl = \"pw hunter22 x\" # why\nb = 1\n".into();
        let span = |word: &str| {
            let at = text.find(word).expect("the word is in the text");
            at..at + word.len()
        };
        for (word, expected) in [
            ("url", "url"),
            ("\"pw hunter22 x\"", "\"pw **** x\""),
            ("why", "why"),
            ("b = 1", "b = 1"),
        ] {
            let error = Error::usage("x").at(Excerpt {
                file: "f".into(),
                text: Arc::clone(&text),
                span: span(word),
                label: String::new(),
            });
            let error = error.masked(|text| text.replace("hunter22", "****"));
            let excerpt = &error.excerpts()[0];
            assert_eq!(&excerpt.text[excerpt.span.clone()], expected);
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        assert_eq!(line_column("ä = 1\nüü = x", 13), (2, 5));
    }

    #[test]
    fn a_guess_is_near_or_absent() {
        assert_eq!(nearest("colum", ["columns", "table"]), Some("columns"));
        assert_eq!(nearest("bloc", ["block", "warn"]), Some("block"));
        assert_eq!(nearest("zzz", ["columns", "table"]), None);
    }

    #[test]
    fn a_span_outside_the_text_is_still_shown() {
        let error = Error::usage("x").at(Excerpt {
            file: "f".into(),
            text: "ü".into(),
            span: 1..99,
            label: String::new(),
        });
        assert!(error.render(false).contains("f:1:1"));
    }
}
